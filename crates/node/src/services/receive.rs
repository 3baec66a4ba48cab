//! Giving an agency what it has not acknowledged: flash first, then priority, then routine.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use concord_model::{Lane, MeasureCode, Name, Reason, Refusal, Timestamp};
use concord_server::{Readiness, Shutdown};
use concord_wire::convert::timestamp;
use concord_wire::proto::agency::v1::{ReceiveRequest, ReceiveResponse};
use concord_wire::proto::exchange::v1::Description;
use concord_wire::stored::node::{NodeEntry, Received, Verdict, read};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::agency::cursor;
use super::{internal, refused};
use crate::context::Context;
use crate::damaged::Damaged;
use crate::index::{Index, IndexError};
use crate::projection::InboxRow;
use crate::state::decide::agency_unknown;
use crate::state::{Agency, NodeState};

/// Rows of one lane that are read ahead; bodies are read one by one.
const ROWS_AHEAD_MAX: usize = 256;
/// Bodies that are read from the journal at once, for all streams: one that is replaced meanwhile ends behind its read.
const READS_AT_ONCE_MAX: usize = 4;

static READS: Semaphore = Semaphore::const_new(READS_AT_ONCE_MAX);

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
    let mut settled = context.index.damaged().watch_settled();
    let mut source = Source::new(ReadAhead::new(known), reader, context);
    loop {
        let state = Arc::clone(&published.borrow_and_update());
        loop {
            let state = Arc::clone(&state);
            let place = READS.acquire().await.map_err(internal)?;
            let read = concord_server::blocking(move || {
                let item = source.next(&state);
                drop(place);
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
        if !request.follow {
            return Ok(());
        }
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            // What was damaged is back, or never comes: the lane that waited for it goes on.
            Ok(()) = settled.changed() => {}
        }
    }
}

/// Finds and reads the next exchange; blocks.
struct Source {
    ahead: ReadAhead,
    reader: Reader,
    damaged: Arc<Damaged>,
    settled: watch::Receiver<()>,
    readiness: Readiness,
}

impl Source {
    fn new(ahead: ReadAhead, reader: Reader, context: &Context) -> Self {
        let (damaged, readiness) = (Arc::clone(context.index.damaged()), context.readiness.clone());
        Self { ahead, reader, settled: damaged.watch_settled(), damaged, readiness }
    }

    fn next(&mut self, state: &NodeState) -> Result<Option<(Lane, u64, ReceiveResponse)>, IndexError> {
        if self.settled.has_changed().unwrap_or(false) {
            self.settled.borrow_and_update();
            self.ahead.go_on();
        }
        while let Some((lane, number, row)) = self.ahead.next(state, &self.reader.index)? {
            match self.reader.read(lane, number, &row) {
                Ok(response) => return Ok(Some((lane, number, response))),
                Err(IndexError::Journal(error)) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
            if self.damaged.is_gone(lane, number) || concord_faults::planted("pass-over-what-is-damaged") {
                continue;
            }
            // Under a later number, where a hub that lost data gave it once more; under none, until it does.
            let asked = self.reader.index.known_to_hub_as(state, lane, number)?;
            self.ahead.wait(lane, number, row);
            self.damaged.want(&self.readiness, lane, number, asked);
            if asked.is_none() {
                // It may have come between, when nobody waited for it yet.
                let asked = self.reader.index.known_to_hub_as(state, lane, number)?;
                self.damaged.want(&self.readiness, lane, number, asked);
            }
        }
        Ok(None)
    }
}

/// Where the stream stands in each lane, and the rows behind it.
struct ReadAhead {
    agency: Agency,
    scanned: [u64; Lane::ALL.len()],
    rows: [VecDeque<(u64, InboxRow)>; Lane::ALL.len()],
    /// Lanes whose next one is damaged: what follows in them waits, so that no cursor passes it.
    waits: [bool; Lane::ALL.len()],
}

impl ReadAhead {
    fn new(agency: Agency) -> Self {
        let (scanned, rows) = (Lane::ALL.map(|lane| agency.through(lane)), Default::default());
        Self { agency, scanned, rows, waits: Default::default() }
    }

    /// Gives this one again, and nothing of its lane until [`Self::go_on`].
    fn wait(&mut self, lane: Lane, number: u64, row: InboxRow) {
        self.rows[lane.slot()].push_front((number, row));
        self.waits[lane.slot()] = true;
    }

    fn go_on(&mut self) {
        self.waits = Default::default();
    }

    /// The next one that this agency may have, of the most urgent lane that has one.
    fn next(&mut self, state: &NodeState, index: &Index) -> Result<Option<(Lane, u64, InboxRow)>, IndexError> {
        for lane in Lane::ALL.into_iter().filter(|lane| !self.waits[lane.slot()]) {
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
