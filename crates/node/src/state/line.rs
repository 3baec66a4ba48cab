//! The line of this journal: what tells it from its copies.

use concord_journal::{HistoryBegun, HistoryId};
use concord_wire::stored::node::Restored;
use serde::{Deserialize, Serialize};

/// Histories and runs that are remembered. A node that is started more often than that without ever reaching its hub is taken for
/// another copy, and declares itself by `concord node restore --here`.
pub const LINE_KEPT_MAX: usize = 256;

/// What tells a journal from its copies: its histories, and a word of chance for each start of its process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Line {
    /// The history that is being written.
    pub history: Option<HistoryId>,
    /// The histories before it, each with the sequence of its last entry, the oldest first.
    pub ancestors: Vec<(HistoryId, u64)>,
    /// One for each start, the oldest first.
    pub runs: Vec<[u8; 16]>,
    /// The history in which it was last restored.
    pub restored_in: Option<HistoryId>,
    /// The history in which it was last made anew without a backup.
    pub rebuilt_in: Option<HistoryId>,
}

impl Line {
    pub(super) fn begun(&mut self, begun: &HistoryBegun) {
        if let Some(parent) = &begun.parent {
            self.ancestors.push((parent.history, parent.sequence));
            keep_newest(&mut self.ancestors);
        }
        self.history = Some(begun.history);
    }

    pub(super) fn restored(&mut self, how: &Restored) {
        self.restored_in = self.history;
        if *how == Restored::Rebuilt {
            self.rebuilt_in = self.history;
        }
    }

    pub(super) fn ran(&mut self, run: [u8; 16]) {
        self.runs.push(run);
        keep_newest(&mut self.runs);
    }

    /// The present run, once it is journaled.
    pub fn run(&self) -> Option<[u8; 16]> {
        self.runs.last().copied()
    }
}

fn keep_newest<T>(all: &mut Vec<T>) {
    let surplus = all.len().saturating_sub(LINE_KEPT_MAX);
    all.drain(..surplus);
}
