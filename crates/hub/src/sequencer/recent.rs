//! The newest durable commits, kept at hand for the projection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use concord_journal::Tail;
use concord_ledger::Fact;

/// Commits whose facts are kept at hand for the projection. When it falls further behind it reads the journal instead.
const RECENT_COMMITS_MAX: usize = 64;

/// The facts of one durable commit.
#[derive(Debug)]
pub struct Durable {
    /// Each with its sequence, in order; never empty.
    pub facts: Vec<(u64, Fact)>,
    /// The tail after them.
    pub tail: Tail,
}

/// The newest durable commits, so that the projection need not read back what was just written.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Durable>>>);

impl Recent {
    /// Takes those that end at or before this sequence, the oldest first. What is not published yet stays: views must not run ahead
    /// of the ledger on which permits are asked for.
    pub fn take_through(&self, sequence: u64) -> Vec<Durable> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let published = recent.iter().take_while(|durable| durable.tail.sequence <= sequence).count();
        recent.drain(..published).collect()
    }

    pub(super) fn push(&self, durable: Durable) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT_COMMITS_MAX {
            recent.clear();
        }
        recent.push_back(durable);
    }
}
