//! The statements of this participant's officers: numbered, forwarded in order, answered by the hub.

use std::collections::BTreeMap;

use concord_model::{Digest, Reason, Refusal, Timestamp};
use concord_wire::stored::node::StatementAnswered;
use serde::{Deserialize, Serialize};

/// Answered statements of one officer that are remembered for repeats. The repeat of an older one is `STATEMENT_OUT_OF_ORDER`.
pub const RECENT_STATEMENTS_MAX: usize = 64;

/// The statements of one officer that matter still.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Officer {
    recent: BTreeMap<u64, RecentStatement>,
    /// The last of its statements that came back in the feed.
    pub told_through: u64,
    used_through: u64,
}

/// One statement, waiting or answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentStatement {
    /// Tells a repeat from a fork.
    pub digest: Digest,
    /// Where it stands in the journal.
    pub sequence: u64,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// What the hub said.
    pub answer: Option<Answer>,
}

/// What the hub said to a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Why it was refused, if it was.
    pub refused: Option<Refusal>,
    /// The hub recorded nothing: the number is free again.
    pub whole: bool,
}

impl Officer {
    pub(super) fn queued(&mut self, number: u64, digest: Digest, sequence: u64, queued_at: Timestamp) {
        let statement = RecentStatement { digest, sequence, queued_at, answer: None };
        self.recent.insert(number, statement);
        self.used_through = self.used_through.max(number);
        while self.recent.len() > RECENT_STATEMENTS_MAX {
            let oldest_answered = self.recent.iter().find(|(_, recent)| recent.answer.is_some());
            let Some(oldest_answered) = oldest_answered.map(|(number, _)| *number) else {
                break;
            };
            self.recent.remove(&oldest_answered);
        }
    }

    pub(super) fn answered(&mut self, answer: &StatementAnswered) {
        let refused = (!answer.refused.is_empty()).then(|| {
            let reason = Reason::from_code(&answer.refused).unwrap_or(Reason::Internal);
            Refusal::new(reason, answer.message.clone())
        });
        if let Some(statement) = self.recent.get_mut(&answer.number) {
            statement.answer = Some(Answer { refused, whole: answer.whole });
        }
    }

    pub(super) fn told(&mut self, number: u64) {
        self.told_through = self.told_through.max(number);
        // A node that was set up anew hears of its officers' earlier statements in the feed.
        self.used_through = self.used_through.max(number);
    }

    /// The number that the officer's next statement must carry.
    pub fn next_number(&self) -> u64 {
        // Numbers that the hub never recorded are given out again, from the last one down.
        let freed = self.recent.iter().rev().take_while(|(number, recent)| {
            **number > self.told_through && recent.answer.as_ref().is_some_and(|answer| answer.whole)
        });
        freed.last().map_or(self.used_through + 1, |(number, _)| *number)
    }

    /// The last statement that the hub decided upon, accepted or not: what it must not have forgotten.
    pub fn last_decided(&self) -> Option<(u64, &RecentStatement)> {
        let decided = |recent: &RecentStatement| recent.answer.as_ref().is_some_and(|answer| !answer.whole);
        self.recent.iter().rev().find(|(_, recent)| decided(recent)).map(|(number, recent)| (*number, recent))
    }

    /// A statement that is remembered.
    pub fn statement(&self, number: u64) -> Option<&RecentStatement> {
        self.recent.get(&number)
    }

    /// The first statement that waits for the hub's answer.
    pub fn first_waiting(&self) -> Option<(u64, &RecentStatement)> {
        self.waiting().next()
    }

    /// All that wait, in order.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, &RecentStatement)> {
        let waiting = self.recent.iter().filter(|(_, recent)| recent.answer.is_none());
        waiting.map(|(number, recent)| (*number, recent))
    }
}
