//! Recipients in this process that hold nodes' keys: each keeps its mailbox as a node does, and counts what comes twice.
//!
//! A recipient *keeps* deliveries some at a time, as a node journals them, and only what it kept counts: what had come and was
//! not kept when the connection went comes again, a duplicate on the wire without an effect.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use concord_model::{Lane, Name};
use concord_wire::delivery;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::exchange_service_client::ExchangeServiceClient;
use concord_wire::proto::feed::v1::feed_service_client::FeedServiceClient;
use concord_wire::proto::feed::v1::{FeedPosition, FollowRequest};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::battery::Chance;
use crate::checker::{Became, Body, Mail, NodeRecord};
use crate::command::DEADLINE;
use crate::raw::RawNode;
use crate::witness::Id;

/// Before a recipient tries again to reach a hub that is away.
const AGAIN: Duration = Duration::from_millis(20);
/// Deliveries that are kept together at most.
const KEPT_TOGETHER_MAX: u64 = 4;
const LANE: Lane = Lane::Routine;

/// What all recipients have seen, with a signal at every delivery.
#[derive(Default)]
pub struct Seen {
    counts: Mutex<Counts>,
    changed: Condvar,
}

/// What came, and what was kept.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Deliveries on the wire, all recipients together.
    pub wire: u64,
    /// Those of an exchange that had come to the same recipient before.
    pub duplicates: u64,
    /// What each recipient kept, in order.
    pub kept: BTreeMap<String, Vec<Mail>>,
    /// What must not happen.
    pub surprises: Vec<String>,
}

impl Counts {
    /// How many exchanges each recipient has kept at least.
    pub fn least_kept(&self) -> usize {
        self.kept.values().map(Vec::len).min().unwrap_or(0)
    }
}

impl Seen {
    /// Waits until it is so.
    #[track_caller]
    pub fn wait(&self, until: impl Fn(&Counts) -> bool) {
        let end = Instant::now() + DEADLINE;
        let mut counts = self.lock();
        while !until(&counts) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not within {DEADLINE:?}: {} kept by the slowest", counts.least_kept());
            counts = self.changed.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is counted now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// The recipients' journals, as the checker reads them.
    pub fn journals(&self) -> impl Iterator<Item = (String, NodeRecord)> {
        let kept = self.lock().kept.clone();
        kept.into_iter().map(|(code, mail)| (code, NodeRecord { mail, ..NodeRecord::default() }))
    }

    fn note(&self, write: impl FnOnce(&mut Counts)) {
        write(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One recipient.
pub struct Recipient {
    // Shared: it has a runtime, which must not end on this one.
    node: Arc<RawNode>,
    code: String,
    seen: Arc<Seen>,
    chance: Chance,
    /// The history of the last kept delivery.
    history: Bytes,
    /// Number and id of the last kept delivery.
    last: (u64, Bytes),
    came: BTreeMap<Id, u64>,
    sequence: u64,
}

impl Recipient {
    /// Holds the keys of this node.
    pub fn new(node: Arc<RawNode>, seen: &Arc<Seen>, seed: u64) -> Self {
        let code = node.code().to_string();
        seen.note(|counts| drop(counts.kept.insert(code.clone(), Vec::new())));
        Self {
            node,
            code,
            seen: Arc::clone(seen),
            chance: Chance::of(seed),
            history: Bytes::new(),
            last: (0, Bytes::new()),
            came: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Receives for ever, over one connection after another.
    pub async fn run(mut self) {
        loop {
            if let Err(why) = self.one_connection().await {
                note_refusal(&self.seen, &self.code, &why);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Follows the feed first, as every node does, then its mailbox until the hub is gone.
    async fn one_connection(&mut self) -> Result<(), Status> {
        let Ok(channel) = self.node.connect().await else { return Ok(()) };
        let follow = FollowRequest {
            limits: Some(concord_wire::limits()),
            position: Some(FeedPosition::default()),
            journal: Some(self.node.journal.clone()),
            ..Default::default()
        };
        let mut feed = FeedServiceClient::new(channel.clone()).follow(follow).await?.into_inner();
        feed.message().await?;
        let (outgoing, outbound) = mpsc::channel(4);
        let hello = pb::ReceiveHello {
            limits: Some(concord_wire::limits()),
            lane: concord_wire::convert::lane(LANE).into(),
            history: self.history.clone(),
            last_number: self.last.0,
            last_digest: self.last.1.clone(),
            run: self.node.run(),
            ..Default::default()
        };
        let hello = pb::ReceiveRequest { message: Some(pb::receive_request::Message::Hello(hello)) };
        // The channel has room for it.
        let _ = outgoing.send(hello).await;
        let mut mailbox =
            ExchangeServiceClient::new(channel).receive(ReceiverStream::new(outbound)).await?.into_inner();
        let mut arrived: Vec<(Mail, Bytes)> = Vec::new();
        let (mut unanswered, mut acknowledged) = (false, 0);
        let mut present = self.history.clone();
        loop {
            use pb::receive_response::Message;
            // The feed has to be read, or the hub would wait for room in it.
            let response = tokio::select! {
                biased;
                item = feed.message() => match item? {
                    Some(_) => continue,
                    None => return Ok(()),
                },
                response = tokio::time::timeout(AGAIN, mailbox.message()) => response,
            };
            let is_quiet = response.is_err();
            match response {
                Ok(response) => match response?.and_then(|response| response.message) {
                    Some(Message::Welcome(welcome)) if welcome.resume.is_none() => present = welcome.history,
                    Some(Message::Delivery(delivery)) => arrived.push(self.arrived(delivery, arrived.len() as u64)),
                    Some(Message::Recorded(_)) => unanswered = false,
                    Some(other) => self.seen.note(|counts| counts.surprises.push(format!("{}: {other:?}", self.code))),
                    None => return Ok(()),
                },
                Err(_quiet) => {}
            }
            if !arrived.is_empty() && (is_quiet || self.chance.one_in(KEPT_TOGETHER_MAX)) {
                self.keep(&mut arrived, &present);
            }
            if !unanswered && is_quiet && self.last.0 > acknowledged {
                let acknowledgement = self.node.acknowledgement(LANE, &present, self.last.0, |_| {});
                let message = Some(pb::receive_request::Message::Acknowledgement(acknowledgement));
                if outgoing.send(pb::ReceiveRequest { message }).await.is_err() {
                    return Ok(());
                }
                (unanswered, acknowledged) = (true, self.last.0);
            }
        }
    }

    /// Counts it, and reads it as a node does.
    fn arrived(&mut self, delivery: pb::Delivery, ahead: u64) -> (Mail, Bytes) {
        let hub = Name::parse("main").unwrap();
        // Whose key it is, is the sender's node's affair in other stories; here form, path and bodies have to hold.
        let verified = delivery::verify(&delivery, &hub, |_, _, _, _| Ok(())).unwrap();
        let id = *verified.id.0.as_bytes();
        let times = self.came.entry(id).or_default();
        *times += 1;
        let is_duplicate = *times > 1;
        let expected = self.last.0 + ahead + 1;
        self.seen.note(|counts| {
            counts.wire += 1;
            counts.duplicates += u64::from(is_duplicate);
            if delivery.number != expected {
                counts
                    .surprises
                    .push(format!("{} got number {} where {expected} comes next", self.code, delivery.number));
            }
        });
        let body = verified.blobs.get(1).map(|body| Body::Kept(Sha256::digest(body.bytes()).into()));
        let body = body.unwrap_or(Body::Absent);
        let mail = Mail { sequence: 0, lane: LANE, number: delivery.number, became: Became::Accepted(id, body) };
        (mail, Bytes::copy_from_slice(&id))
    }

    /// From here on it is there, whatever happens to the connection.
    fn keep(&mut self, arrived: &mut Vec<(Mail, Bytes)>, present: &Bytes) {
        self.sequence += 1;
        for (mut mail, id) in arrived.drain(..) {
            mail.sequence = self.sequence;
            self.last = (mail.number, id);
            self.history = present.clone();
            self.seen.note(|counts| counts.kept.entry(self.code.clone()).or_default().push(mail));
        }
    }
}

/// A refusal is a surprise; a connection that went is not.
fn note_refusal(seen: &Seen, code: &str, status: &Status) {
    if let Some(reason) = crate::raw::reason_of(status)
        && reason != "STREAM_REPLACED"
    {
        seen.note(|counts| counts.surprises.push(format!("{code}: {reason}: {}", status.message())));
    }
}
