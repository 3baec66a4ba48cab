//! Handing back to a hub that lost data: what it told this participant, and what this participant's officers said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use concord_model::{Digest, Name, ParticipantCode};
use concord_wire::agreement::parse_statement;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::proto::feed::v1::hand_back_request::Message;
use concord_wire::proto::feed::v1::{
    AnsweredStatement, FeedPosition, HandBackHello, HandBackRequest, HandBackResponse,
};
use concord_wire::stored::node::{NodeEntry, read};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::watch;

use crate::context::Context;
use crate::index::{Index, IndexError};
use crate::link::{HubLink, LinkEnd};
use crate::uplink::broken;

/// How long nothing may move while it is handed back: neither the reading of the own journal nor what the hub takes.
const HAND_BACK_IDLE: Duration = Duration::from_secs(60);
/// Entries of the own journal that are read at once.
const ENTRIES_READ_AT_ONCE: usize = 256;

/// Hands everything back that this hub told and heard, in order, and returns what the hub made of it.
///
/// All of it, whatever the hub has still: it passes over what it knows. By the item with the number `known` it sees whether it has the
/// same up to there.
pub(super) async fn hand_back(
    context: &Context,
    link: &dyn HubLink,
    position: FeedPosition,
    known: u64,
) -> Result<HandBackResponse, LinkEnd> {
    let run = Bytes::copy_from_slice(&context.run);
    let hello = HandBackHello { limits: Some(concord_wire::limits()), position: Some(position), run };
    let (steps, stepped) = watch::channel(());
    let reading = Reading {
        index: context.index.clone(),
        own: context.participant.clone(),
        next: 1,
        said: BTreeMap::new(),
        answered: BTreeMap::new(),
        told: BTreeSet::new(),
        known,
        failed: Arc::default(),
        steps,
    };
    let failed = Arc::clone(&reading.failed);
    let hello = stream::once(async move { HandBackRequest { message: Some(Message::Hello(hello)) } });
    let messages = stream::unfold(Some(reading), |reading| async move {
        let (messages, reading) = reading?.step().await?;
        Some((stream::iter(messages), reading))
    });
    let answer = tokio::select! {
        biased;
        answer = link.hand_back(hello.chain(messages.flatten()).boxed()) => answer,
        () = idle(stepped) => Err(LinkEnd::Lost("the hub does not take what is handed back".to_owned())),
    };
    // What could not be read ended the stream as if it were whole; the hub's answer to a part means nothing.
    if let Some(error) = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        return Err(broken(error));
    }
    answer
}

/// An own officer and the number of its statement.
type Which = (Name, u64);

struct Reading {
    index: Index,
    own: ParticipantCode,
    next: u64,
    said: BTreeMap<Which, (SignedStatement, Digest)>,
    /// The reason of the hub's refusal, empty where it accepted.
    answered: BTreeMap<Which, String>,
    told: BTreeSet<Digest>,
    /// The last number that the hub says it has.
    known: u64,
    failed: Arc<std::sync::Mutex<Option<IndexError>>>,
    /// Told at each step; gone when all is read.
    steps: watch::Sender<()>,
}

/// Done when nothing moves: a long journal takes its time, a hub that takes nothing must not be waited for.
async fn idle(mut stepped: watch::Receiver<()>) {
    while let Ok(step) = tokio::time::timeout(HAND_BACK_IDLE, stepped.changed()).await {
        if step.is_err() {
            // All is read; what is left is the hub's answer.
            return tokio::time::sleep(HAND_BACK_IDLE).await;
        }
    }
}

impl Reading {
    /// The next messages, and what reads on behind them; after the last entry the own statements that did not come back.
    async fn step(mut self) -> Option<(Vec<HandBackRequest>, Option<Self>)> {
        self.steps.send_replace(());
        let failed = Arc::clone(&self.failed);
        let read = concord_server::blocking(move || match self.read_on() {
            Ok(Some(messages)) => Ok((messages, Some(self))),
            Ok(None) => Ok((self.left_over(), None)),
            Err(error) => Err(error),
        });
        match read.await {
            Ok(Ok(step)) => Some(step),
            Ok(Err(error)) => {
                *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                None
            }
            Err(_) => {
                *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(IndexError::Row("an entry"));
                None
            }
        }
    }

    fn read_on(&mut self) -> Result<Option<Vec<HandBackRequest>>, IndexError> {
        let entries = self.index.journal().recall(self.next, ENTRIES_READ_AT_ONCE)?;
        let Some(last) = entries.last() else { return Ok(None) };
        self.next = last.sequence + 1;
        let mut messages = Vec::new();
        for entry in &entries {
            match read(entry)? {
                NodeEntry::Feed { items, .. } => {
                    for item in items {
                        let Some(Content::Statement(signed)) = &item.content else {
                            if item.number == self.known {
                                messages.push(HandBackRequest { message: Some(Message::Told(item)) });
                            }
                            continue;
                        };
                        if let Ok(statement) = parse_statement(signed) {
                            self.told.insert(statement.digest);
                        }
                        messages.push(HandBackRequest { message: Some(Message::Told(item)) });
                    }
                }
                NodeEntry::Statement(signed) => {
                    if let Ok(statement) = parse_statement(&signed)
                        && statement.participant == self.own
                    {
                        let which = (statement.officer, statement.number);
                        // A number that was given out again is of what was said last.
                        self.answered.remove(&which);
                        self.said.insert(which, (signed, statement.digest));
                    }
                }
                NodeEntry::Answer(answer) if !answer.whole => {
                    if let Ok(officer) = Name::parse(&answer.officer) {
                        self.answered.insert((officer, answer.number), answer.refused);
                    }
                }
                _ => {}
            }
        }
        Ok(Some(messages))
    }

    /// Own statements that the hub answered and did not tell.
    fn left_over(self) -> Vec<HandBackRequest> {
        let Self { said, answered, told, .. } = self;
        let left = answered.into_iter().filter_map(|(which, refused)| {
            let (signed, digest) = said.get(&which)?;
            if told.contains(digest) {
                return None;
            }
            let answered = AnsweredStatement { statement: Some(signed.clone()), refused };
            Some(HandBackRequest { message: Some(Message::Answered(answered)) })
        });
        left.collect()
    }
}
