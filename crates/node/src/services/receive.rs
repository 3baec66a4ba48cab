//! Giving an agency what it has not acknowledged: flash first, then priority, then routine.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use concord_model::{Lane, MeasureCode, Name, Reason, Refusal, Timestamp};
use concord_server::Shutdown;
use concord_wire::convert::timestamp;
use concord_wire::proto::agency::v1::{ReceiveRequest, ReceiveResponse};
use concord_wire::proto::exchange::v1::Description;
use concord_wire::stored::node::{NodeEntry, Received, Verdict, read};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::agency::cursor;
use super::{internal, refused};
use crate::context::Context;
use crate::index::{Index, IndexError};
use crate::projection::InboxRow;
use crate::state::decide::agency_unknown;
use crate::state::{Agency, NodeState};

/// Rows of one lane that are read ahead; bodies are read one by one.
const ROWS_AHEAD_MAX: usize = 256;

/// Where what is given goes.
pub type Items = mpsc::Sender<Result<ReceiveResponse, Status>>;

/// Sends until everything is given, or, where the agency follows, until it is gone, replaced, or the node ends.
pub async fn give(context: Context, agency: Name, request: ReceiveRequest, items: Items, replaced: CancellationToken) {
    let end = tokio::select! {
        biased;
        () = replaced.cancelled() => {
            let what = "a newer stream of this agency took over";
            Err(refused(Refusal::new(Reason::StreamReplaced, what)))
        }
        () = context.shutdown.streams_end() => Err(Shutdown::status()),
        () = items.closed() => return,
        end = give_all(&context, &agency, &request, &items) => end,
    };
    if let Err(status) = end {
        // Whoever hung up meanwhile does not need it.
        drop(items.send(Err(status)).await);
    }
}

async fn give_all(context: &Context, agency: &Name, request: &ReceiveRequest, items: &Items) -> Result<(), Status> {
    let mut published = context.state.clone();
    let state = context.now_state();
    let known = state.agencies().get(agency).cloned().ok_or_else(|| refused(agency_unknown(agency)))?;
    let reader = Reader { index: context.index.clone(), with_bodies: !request.without_bodies, last: None };
    let mut source = Source { ahead: ReadAhead::new(known), reader };
    loop {
        let state = Arc::clone(&published.borrow_and_update());
        loop {
            let state = Arc::clone(&state);
            let read = concord_server::blocking(move || {
                let item = source.next(&state);
                (source, item)
            });
            let (same_source, item) = read.await.map_err(internal)?;
            source = same_source;
            let Some((lane, number, response)) = item.map_err(internal)? else {
                break;
            };
            let Ok(place) = items.reserve().await else {
                return Ok(());
            };
            // Another process of this agency may have acknowledged it while this one was slow: then it never comes again.
            let through = published.borrow().agencies().get(agency).map_or(0, |known| known.through(lane));
            if number > through {
                concord_faults::point("node.agency.giving");
                place.send(Ok(response));
                concord_faults::point("node.agency.given");
            }
            // Flash that came meanwhile goes before what is read ahead.
            if published.has_changed().unwrap_or(false) {
                break;
            }
        }
        if published.has_changed().unwrap_or(false) {
            continue;
        }
        if !request.follow || published.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Finds and reads the next exchange; blocks.
struct Source {
    ahead: ReadAhead,
    reader: Reader,
}

impl Source {
    fn next(&mut self, state: &NodeState) -> Result<Option<(Lane, u64, ReceiveResponse)>, IndexError> {
        let Some((lane, number, row)) = self.ahead.next(state, &self.reader.index)? else {
            return Ok(None);
        };
        Ok(Some((lane, number, self.reader.read(lane, number, &row)?)))
    }
}

/// Where the stream stands in each lane, and the rows behind it.
struct ReadAhead {
    agency: Agency,
    scanned: [u64; Lane::ALL.len()],
    rows: [VecDeque<(u64, InboxRow)>; Lane::ALL.len()],
}

impl ReadAhead {
    fn new(agency: Agency) -> Self {
        Self { scanned: Lane::ALL.map(|lane| agency.through(lane)), rows: Default::default(), agency }
    }

    /// The next one that this agency may have, of the most urgent lane that has one.
    fn next(&mut self, state: &NodeState, index: &Index) -> Result<Option<(Lane, u64, InboxRow)>, IndexError> {
        for lane in Lane::ALL {
            let received = state.mailbox(lane).received_through;
            let (scanned, rows) = (&mut self.scanned[lane.slot()], &mut self.rows[lane.slot()]);
            loop {
                if let Some((number, row)) = rows.pop_front() {
                    let measure = MeasureCode::parse(&row.measure);
                    if measure.is_ok_and(|measure| self.agency.may_have(&measure)) {
                        return Ok(Some((lane, number, row)));
                    }
                    continue;
                }
                if *scanned >= received {
                    break;
                }
                rows.extend(index.inbox(lane, *scanned + 1, ROWS_AHEAD_MAX)?);
                let full = rows.len() >= ROWS_AHEAD_MAX;
                // Rows are there before the state is published, so that none is passed over.
                *scanned = match rows.back() {
                    Some((last, _)) if full => *last,
                    Some((last, _)) => (*last).max(received),
                    None => received,
                };
            }
        }
        Ok(None)
    }
}

/// Reads exchanges from the journal; remembers the last entry, which often has the next one too.
struct Reader {
    index: Index,
    with_bodies: bool,
    last: Option<(u64, Vec<Received>)>,
}

impl Reader {
    fn read(&mut self, lane: Lane, number: u64, row: &InboxRow) -> Result<ReceiveResponse, IndexError> {
        let position = usize::try_from(row.index).unwrap_or(usize::MAX);
        let item = self.entry(row.sequence)?.get(position);
        let Some(Verdict::Accepted(delivery)) = item.map(|item| &item.verdict) else {
            return Err(IndexError::Row("a delivery"));
        };
        let header = delivery.header.clone();
        let description = self.index.blob(row.sequence, row.first_blob)?;
        let description =
            Description::decode(description.bytes().clone()).map_err(|_| IndexError::Row("a description"))?;
        let body = self.index.blob(row.sequence, row.first_blob + 1)?.bytes().clone();
        let body_digest = Bytes::copy_from_slice(&Sha256::digest(&body));
        Ok(ReceiveResponse {
            cursor: cursor(lane, number),
            exchange_id: Bytes::copy_from_slice(&row.exchange_id),
            header,
            description: Some(description),
            body: if self.with_bodies { body } else { Bytes::new() },
            body_digest,
            recorded_at: Some(timestamp(Timestamp::from_micros(row.recorded_at))),
            delivered_at: Some(timestamp(Timestamp::from_micros(row.delivered_at))),
        })
    }

    fn entry(&mut self, sequence: u64) -> Result<&[Received], IndexError> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != sequence) {
            let NodeEntry::Mail { items, .. } = read(&self.index.read_one(sequence)?)? else {
                return Err(IndexError::Row("a delivery"));
            };
            self.last = Some((sequence, items));
        }
        Ok(self.last.as_ref().map_or(&[], |(_, items)| items))
    }
}
