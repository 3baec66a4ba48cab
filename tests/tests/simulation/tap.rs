//! A tap on what the nodes get: every message that the hub hands to a stream, and every one that arrives, in one order with what a
//! story notes itself. It hears nothing before it is switched on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_wire::proto::agency::v1::ReceiveResponse;
use tokio::time::Instant;
use tonic::Status;

use crate::forum::AGENCIES;

/// Where a message was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The hub's end let go of it: from here on nobody can hold it back.
    Handed,
    /// The node or the agency has it.
    Arrived,
}

/// What was heard.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Simulated milliseconds since the tap was switched on.
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) stage: Stage,
    pub(crate) stream: String,
    pub(crate) what: What,
}

/// A message, or words: how a stream ended, what a call was answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Message { kind: &'static str, bytes: Vec<u8> },
    Words(String),
}

#[derive(Default)]
pub(crate) struct Tap(Mutex<Option<Record>>);

struct Record {
    began: Instant,
    heard: Vec<Heard>,
}

impl Tap {
    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears everything from now on.
    pub(crate) fn switch_on(&self) {
        *self.record() = Some(Record { began: Instant::now(), heard: Vec::new() });
    }

    /// What was heard so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.record().as_ref().map(|record| record.heard.clone()).unwrap_or_default()
    }

    /// How much was heard so far: a place in the order of everything.
    pub(crate) fn now(&self) -> usize {
        self.record().as_ref().map_or(0, |record| record.heard.len())
    }

    pub(crate) fn hear<T: prost::Message>(
        &self,
        node: usize,
        stage: Stage,
        stream: &str,
        kind: &'static str,
        message: &Result<T, Status>,
    ) {
        self.keep(node, stage, stream, || match message {
            Ok(message) => What::Message { kind, bytes: message.encode_to_vec() },
            Err(status) => What::Words(format!("ends: {:?} {}", status.code(), status.message())),
        });
    }

    /// An agency is given something by its node.
    pub(crate) fn given(&self, node: usize, agency: usize, item: &ReceiveResponse) {
        let kind = "concord.agency.v1.ReceiveResponse";
        let message = || What::Message { kind, bytes: prost::Message::encode_to_vec(item) };
        self.keep(node, Stage::Arrived, &format!("agency {}", AGENCIES[agency]), message);
    }

    /// A call was answered.
    pub(crate) fn note(&self, node: usize, stream: &str, words: impl FnOnce() -> String) {
        self.keep(node, Stage::Arrived, stream, || What::Words(words()));
    }

    fn keep(&self, node: usize, stage: Stage, stream: &str, what: impl FnOnce() -> What) {
        if let Some(record) = self.record().as_mut() {
            let at = record.began.elapsed().as_millis() as u64;
            record.heard.push(Heard { at, node, stage, stream: stream.to_owned(), what: what() });
        }
    }
}
