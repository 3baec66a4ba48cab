//! Histories: which unbroken past is being written, and where everything stood when the ones before it were cut.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use concord_model::{ChainKey, Lane, ParticipantCode};
use serde::{Deserialize, Serialize};

use crate::fact::HistoryBegun;

/// Past histories whose positions are kept. A peer that was last here under an older one hears `HISTORY_UNKNOWN`.
pub const HISTORIES_KEPT_MAX: usize = 64;

/// The current history and the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histories {
    current: Option<[u8; 16]>,
    past: VecDeque<Arc<PastPositions>>,
    /// The histories since somebody last showed that data was lost, that one's first; none where nobody ever did. A cut loses nothing that
    /// anybody was shown.
    since_loss: Option<VecDeque<[u8; 16]>>,
}

/// Where everything stood when a history was left behind: a peer's position up to here lies within today's past.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PastPositions {
    /// The history that ended.
    pub history: [u8; 16],
    /// The last number of each chain.
    pub chains: BTreeMap<Arc<ChainKey>, u64>,
    /// The last number of each mailbox.
    pub mailboxes: BTreeMap<(ParticipantCode, Lane), u64>,
    /// The last number of each feed.
    pub feeds: BTreeMap<ParticipantCode, u64>,
}

impl Histories {
    /// The history that is being written, once there is one.
    pub fn current(&self) -> Option<[u8; 16]> {
        self.current
    }

    /// The positions at which a past history ended.
    pub fn past(&self, history: &[u8; 16]) -> Option<&PastPositions> {
        self.past.iter().rev().find(|past| past.history == *history).map(Arc::as_ref)
    }

    /// All past histories that are kept, the oldest first.
    pub fn all_past(&self) -> impl Iterator<Item = &PastPositions> {
        self.past.iter().map(Arc::as_ref)
    }

    /// Takes in that a history began, with the positions at this entry for the parent, if there is one.
    pub fn apply(&mut self, begun: &HistoryBegun, positions: impl FnOnce([u8; 16]) -> PastPositions) {
        if let Some(parent) = begun.parent {
            // The parent's own past lies within today's past as far as it lay within the parent's, and no further.
            self.past.push_back(Arc::new(positions(parent)));
            while self.past.len() > HISTORIES_KEPT_MAX {
                self.past.pop_front();
            }
        }
        self.current = Some(begun.history);
        if let Some(since) = &mut self.since_loss {
            since.push_back(begun.history);
            if since.len() > HISTORIES_KEPT_MAX {
                since.pop_front();
            }
        }
    }

    /// Whether a loss was shown in the current history already.
    pub(crate) fn knows_of_loss(&self) -> bool {
        self.since_loss.as_ref().is_some_and(|since| since.iter().eq(&self.current))
    }

    /// Takes in that somebody showed what this hub had and has no more.
    pub(crate) fn loss_shown(&mut self) {
        self.since_loss = Some(self.current.into_iter().collect());
    }

    /// Whether what was sent to this hub by somebody who knew of this history, or of none, may have been lost here.
    pub(crate) fn may_have_lost(&self, known: Option<[u8; 16]>) -> bool {
        let is_since = |since: &VecDeque<[u8; 16]>| known.is_some_and(|known| since.contains(&known));
        self.since_loss.as_ref().is_some_and(|since| !is_since(since))
    }
}
