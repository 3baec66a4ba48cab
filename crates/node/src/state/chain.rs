//! The end of one chain of consignments: what the next one must name, and how far the hub has recorded.

use concord_journal::HistoryId;
use concord_model::{ConsignmentDigest, Digest};
use concord_wire::consignment::Sealed;
use concord_wire::receipt::Recorded;
use serde::{Deserialize, Serialize};

/// The chain of one lane. Where each consignment stands in the journal is in the views: that list grows while the hub
/// is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEnd {
    /// The number of the last consignment queued; 0 before the first.
    pub last_number: u64,
    /// Its digest.
    pub last_digest: ConsignmentDigest,
    /// Everything up to here has its receipt; receipts come in order.
    pub recorded_through: u64,
    /// The hub's history that the last receipt named.
    pub recorded_history: Option<HistoryId>,
    /// Exchanges queued and not yet receipted.
    pub unrecorded_exchanges: u64,
}

impl Default for ChainEnd {
    fn default() -> Self {
        Self {
            last_number: 0,
            last_digest: ConsignmentDigest(Digest::ZERO),
            recorded_through: 0,
            recorded_history: None,
            unrecorded_exchanges: 0,
        }
    }
}

impl ChainEnd {
    pub(super) fn queued(&mut self, sealed: &Sealed) {
        self.last_number = sealed.number;
        self.last_digest = sealed.digest;
        self.unrecorded_exchanges += sealed.headers.len() as u64;
    }

    pub(super) fn recorded(&mut self, recorded: &Recorded) {
        self.recorded_through = recorded.number;
        self.recorded_history = Some(recorded.history);
        self.unrecorded_exchanges = self.unrecorded_exchanges.saturating_sub(recorded.outcomes.len() as u64);
    }

    /// The number that the next consignment gets.
    pub fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Consignments queued and not yet receipted.
    pub fn unrecorded(&self) -> u64 {
        self.last_number - self.recorded_through
    }
}
