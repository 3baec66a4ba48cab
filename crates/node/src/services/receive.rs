//! Giving an agency what it may have and has not acknowledged: flash first, then priority, then routine.
//!
//! Invariant: no byte of a received exchange is handed to an agency's stream but where the newest published state gives that agency the
//! right to it, asked when it is handed over ([`given`]); when it is read is asked too, but that alone would not hold: a right may go
//! while the exchange waits for a slow reader.

mod ahead;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use concord_journal::ReadError;
use concord_model::{Digest, ExchangeId, Lane, Name, Reason, Refusal, Timestamp};
use concord_server::traces::{self, Span, Step};
use concord_server::{Readiness, Shutdown};
use concord_wire::convert::timestamp;
use concord_wire::header::withdraws;
use concord_wire::proto::agency::v1::{ReceiveRequest, ReceiveResponse};
use concord_wire::proto::exchange::v1::Description;
use concord_wire::stored::node::{Received, Verdict, read};
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::cursor::{Cursor, Cursors};
use super::{ended, internal, refused};
use crate::context::Context;
use crate::damaged::Damaged;
use crate::index::{Index, IndexError};
use crate::projection::InboxRow;
use crate::state::NodeState;
use crate::state::rights::About;
use ahead::{Found, GivenBy, ReadAhead};

/// Bodies that are read from the journal at once, for all streams: one that is replaced meanwhile ends behind its read.
const READS_AT_ONCE_MAX: usize = 4;

static READS: Semaphore = Semaphore::const_new(READS_AT_ONCE_MAX);

/// Where what is given goes.
pub type Items = mpsc::Sender<Result<Item, Status>>;

/// One exchange on its way to an agency, with what gives the agency the right to it.
pub struct Item {
    lane: Lane,
    number: u64,
    about: About,
    right: GivenBy,
    response: ReceiveResponse,
}

impl Item {
    /// The lane and the number in its mailbox.
    pub fn place(&self) -> (Lane, u64) {
        (self.lane, self.number)
    }

    fn may_go(&self, state: &NodeState, agency: &Name) -> bool {
        self.right.holds(state, agency, &self.about, self.lane, self.number)
    }
}

/// What goes to the agency, item by item, as its connection takes it.
pub fn given<S: Stream<Item = Result<Item, Status>> + Send>(
    context: &Context,
    agency: Name,
    items: S,
) -> impl Stream<Item = Result<ReceiveResponse, Status>> + Send + use<S> {
    let state = context.state.clone();
    items.filter_map(move |item| {
        let item = match item {
            Ok(item) if item.may_go(&state.borrow(), &agency) || concord_faults::planted("give-without-right") => {
                Some(Ok(item.response))
            }
            // It is read again where the right to it comes back.
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        };
        std::future::ready(item)
    })
}

/// Sends until everything is given, or, where the agency follows, until it is gone, replaced or ended, or the node ends.
pub async fn give(context: Context, agency: Name, request: ReceiveRequest, items: Items, replaced: CancellationToken) {
    let end = tokio::select! {
        biased;
        () = replaced.cancelled() => {
            let what = "a newer stream of this agency took over";
            Err(refused(Refusal::new(Reason::StreamReplaced, what)))
        }
        () = context.shutdown.streams_end() => Err(Shutdown::status()),
        why = ended(&context, &agency) => Err(refused(why)),
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
    let known = state.agency(agency).map_err(refused)?;
    let cursors = Cursors::new(context, agency);
    let reader = Reader { index: context.index.clone(), cursors, with_bodies: !request.without_bodies, last: None };
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
            let Some(item) = item.map_err(internal)? else {
                break;
            };
            let Ok(place) = items.reserve().await else {
                return Ok(());
            };
            // Another process of this agency may have acknowledged it while this one was slow: then it never comes again.
            let may_go = item.may_go(&published.borrow(), agency) || concord_faults::planted("give-without-right");
            if may_go {
                concord_faults::point("node.agency.giving");
                trace_hand_over(context, agency, &item);
                place.send(Ok(item));
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

fn trace_hand_over(context: &Context, agency: &Name, item: &Item) {
    if let (true, Ok(id)) = (traces::is_traced(), Digest::from_slice(&item.response.exchange_id)) {
        let participant = context.participant.to_string();
        let step = Step::HandOver(participant.clone(), agency.to_string());
        let (exchange, lane, begun) = (ExchangeId(id), item.lane, SystemTime::now());
        traces::trace(Span { exchange, step, lane, participant, begun, caller: None });
    }
}

/// Finds and reads the next exchange; blocks.
struct Source {
    ahead: ReadAhead,
    reader: Reader,
    /// What waited for its content, and is tried again.
    again: VecDeque<Found>,
    damaged: Arc<Damaged>,
    settled: watch::Receiver<()>,
    readiness: Readiness,
}

impl Source {
    fn new(ahead: ReadAhead, reader: Reader, context: &Context) -> Self {
        let (damaged, readiness) = (Arc::clone(context.index.damaged()), context.readiness.clone());
        let settled = damaged.watch_settled();
        Self { ahead, reader, again: VecDeque::new(), settled, damaged, readiness }
    }

    fn next(&mut self, state: &NodeState) -> Result<Option<Item>, IndexError> {
        if self.settled.has_changed().unwrap_or(false) {
            self.settled.borrow_and_update();
            self.again.extend(self.ahead.go_on());
        }
        loop {
            let found = match self.again.pop_front() {
                Some(found) => found,
                None => match self.ahead.next(state, &self.reader.index)? {
                    Some(found) => found,
                    None => return Ok(None),
                },
            };
            let (lane, number) = (found.lane, found.number);
            // It may have been withdrawn since it was read ahead, and its content with it.
            if self.reader.index.is_withdrawn(lane, number)? {
                continue;
            }
            match self.reader.read(&found) {
                Ok(response) => {
                    let Found { right, row: InboxRow { about, .. }, .. } = found;
                    return Ok(Some(Item { lane, number, about, right, response }));
                }
                Err(IndexError::Journal(error)) if error.is_damage() => {}
                Err(IndexError::Journal(ReadError::Redacted { .. }))
                    if self.reader.index.is_withdrawn(lane, number)? =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.damaged.is_gone(lane, number) || concord_faults::planted("pass-over-what-is-damaged") {
                continue;
            }
            // Under a later number, where a hub that lost data gave it once more; under none, until it does.
            let asked = self.reader.index.known_to_hub_as(state, lane, number)?;
            self.ahead.wait(found);
            self.damaged.want(&self.readiness, lane, number, asked);
            if asked.is_none() {
                // It may have come between, when nobody waited for it yet.
                let asked = self.reader.index.known_to_hub_as(state, lane, number)?;
                self.damaged.want(&self.readiness, lane, number, asked);
            }
        }
    }
}

/// Reads exchanges from the journal; remembers the last entry, which often has the next one too.
struct Reader {
    index: Index,
    cursors: Cursors,
    with_bodies: bool,
    last: Option<(u64, Vec<Received>)>,
}

impl Reader {
    fn read(&mut self, found: &Found) -> Result<ReceiveResponse, IndexError> {
        let Found { lane, number, row, right } = found;
        let position = usize::try_from(row.index).unwrap_or(usize::MAX);
        let item = self.entry(row.sequence)?.get(position);
        let Some(Verdict::Accepted(delivery)) = item.map(|item| &item.verdict) else {
            return Err(IndexError::Row("a delivery"));
        };
        let header = delivery.header.clone();
        let description = self.index.blob(row.sequence, row.first_blob)?;
        let description =
            Description::decode(description.bytes().clone()).map_err(|_| IndexError::Row("a description"))?;
        // A withdrawal has no body.
        let body = match withdraws(&header) {
            Some(_) => Bytes::new(),
            None => self.index.blob(row.sequence, row.first_blob + 1)?.bytes().clone(),
        };
        let body_digest = Bytes::copy_from_slice(&Sha256::digest(&body));
        let cursor = match right {
            GivenBy::Rule { rights_at, .. } => Cursor::Through { lane: *lane, number: *number, rights_at: *rights_at },
            GivenBy::Uncollected | GivenBy::Late => Cursor::One { lane: *lane, number: *number },
        };
        Ok(ReceiveResponse {
            cursor: self.cursors.seal(cursor),
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
            let items = read(&self.index.read_one(sequence)?)?.into_received();
            let items = items.ok_or(IndexError::Row("a delivery"))?;
            self.last = Some((sequence, items));
        }
        Ok(self.last.as_ref().map_or(&[], |(_, items)| items))
    }
}
