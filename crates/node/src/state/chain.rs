//! The chains of one lane: what the next consignment must name, how far the hub has recorded, and what waits to be packed anew.

use std::collections::VecDeque;

use concord_journal::HistoryId;
use concord_ledger::ChainTip;
use concord_ledger::epoch::FIRST_EPOCH;
use concord_model::{ConsignmentDigest, Digest};
use concord_wire::consignment::{Sealed, epoch_link};
use concord_wire::receipt::Recorded;
use serde::{Deserialize, Serialize};

/// Consignments that are packed anew for one that may be queued behind them.
const PACKED_FOR_ONE_BEHIND: u64 = 2;

/// The end of the chain of one lane in one epoch. Where each consignment stands in the journal is in the views: that list grows while
/// the hub is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEnd {
    /// The epoch.
    pub epoch: u32,
    /// The number of the last consignment queued; 0 before the first.
    pub last_number: u64,
    /// Its digest; before the first, what that one names as the one before.
    pub last_digest: ConsignmentDigest,
    /// What the hub recorded is known up to here; receipts come in order.
    pub recorded_through: u64,
    /// The hub's history that the last receipt named.
    pub recorded_history: Option<HistoryId>,
    /// Exchanges queued and not yet receipted.
    pub unrecorded_exchanges: u64,
    /// From this number on the hub has what another copy of this node handed in: what stands here waits for a new epoch.
    pub forked_from: Option<u64>,
    /// Of a closed epoch: what stands up to here and was not recorded is packed anew.
    pub packed_through: u64,
    /// Of a closed epoch: consignments queued since the first was packed anew.
    pub queued_behind: u64,
}

impl ChainEnd {
    fn begin(epoch: u32, previous: ConsignmentDigest) -> Self {
        Self {
            epoch,
            last_number: 0,
            last_digest: previous,
            recorded_through: 0,
            recorded_history: None,
            unrecorded_exchanges: 0,
            forked_from: None,
            packed_through: 0,
            queued_behind: 0,
        }
    }

    /// The chain that follows an epoch which ended so.
    pub fn after(closed: u32, tip: &ChainTip) -> Self {
        Self::begin(closed.saturating_add(1), epoch_link(closed, tip))
    }

    fn queued(&mut self, sealed: &Sealed) {
        self.last_number = sealed.number;
        self.last_digest = sealed.digest;
        self.unrecorded_exchanges += sealed.headers.len() as u64;
    }

    fn recorded(&mut self, recorded: &Recorded) {
        self.recorded_through = recorded.number;
        self.recorded_history = Some(recorded.history);
        self.unrecorded_exchanges = self.unrecorded_exchanges.saturating_sub(recorded.outcomes.len() as u64);
    }

    /// The number that the next consignment gets.
    pub fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Consignments queued, not receipted and not packed anew.
    pub fn unrecorded(&self) -> u64 {
        self.last_number - self.settled_through().min(self.last_number)
    }

    /// What stands here up to this number has its receipt, or is packed anew.
    pub fn settled_through(&self) -> u64 {
        self.settled_by_receipts().max(self.packed_through)
    }

    /// Whether nothing more may be queued here before more is packed anew.
    ///
    /// Invariant: packing comes to its end however fast submissions come: for every two consignments that leave a closed epoch at most one
    /// comes behind, so that what comes behind is at most as much as was there. What is packed is told by the journal alone, so that a
    /// restart changes nothing of it.
    pub fn waits_for_packing(&self) -> bool {
        let packed = self.packed_through.saturating_sub(self.settled_by_receipts());
        self.packed_through > 0 && self.queued_behind.saturating_mul(PACKED_FOR_ONE_BEHIND) >= packed
    }

    fn settled_by_receipts(&self) -> u64 {
        self.forked_from.map_or(self.recorded_through, |from| from - 1)
    }
}

/// The chains of one lane, epoch after epoch.
///
/// Invariant: what is queued, sent and packed anew keeps one order. The first chain takes what is queued until nothing of it waits any
/// more in a closed epoch; only then the next takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LaneChains {
    /// How far the hub recorded each epoch that is left behind, the first first.
    past: Vec<u64>,
    /// Never empty, and without a gap; more than one while exchanges are packed anew, or fetched back of several epochs.
    open: VecDeque<ChainEnd>,
}

impl Default for LaneChains {
    fn default() -> Self {
        let first = ChainEnd::begin(FIRST_EPOCH, ConsignmentDigest(Digest::ZERO));
        Self { past: Vec::new(), open: VecDeque::from([first]) }
    }
}

impl LaneChains {
    /// The chain that takes what is queued.
    pub(super) fn present(&self) -> &ChainEnd {
        &self.open[0]
    }

    /// The chain of the newest epoch that is known here.
    pub(super) fn newest(&self) -> &ChainEnd {
        self.open.back().unwrap_or(&self.open[0])
    }

    /// The chain of an epoch that is not left behind.
    pub(super) fn of(&self, epoch: u32) -> Option<&ChainEnd> {
        self.open.iter().find(|chain| chain.epoch == epoch)
    }

    /// How far the hub recorded an epoch that is left behind.
    pub(super) fn past(&self, epoch: u32) -> Option<u64> {
        self.past.get(usize::try_from(epoch.checked_sub(FIRST_EPOCH)?).ok()?).copied()
    }

    pub(super) fn unrecorded_exchanges(&self) -> u64 {
        self.open.iter().map(|chain| chain.unrecorded_exchanges).sum()
    }

    /// Takes in a consignment; `begun` are the chains up to its own that are not known here yet, in their order.
    pub(super) fn queued(&mut self, sealed: &Sealed, packed_anew: Option<(u32, u64)>, begun: Vec<ChainEnd>) {
        self.open.extend(begun);
        if let Some(chain) = self.of_mut(sealed.chain.epoch) {
            chain.queued(sealed);
            // Of a newer epoch nothing is packed.
            chain.queued_behind += u64::from(chain.packed_through > 0);
        }
        if let Some((epoch, number)) = packed_anew
            && let Some(chain) = self.of_mut(epoch)
        {
            chain.packed_through = number;
            chain.unrecorded_exchanges = chain.unrecorded_exchanges.saturating_sub(sealed.headers.len() as u64);
        }
    }

    pub(super) fn recorded(&mut self, recorded: &Recorded) {
        if let Some(chain) = self.of_mut(recorded.chain.epoch) {
            chain.recorded(recorded);
        }
    }

    pub(super) fn renewed(&mut self, recorded: &Recorded) {
        if let Some(chain) = self.of_mut(recorded.chain.epoch) {
            chain.recorded_history = Some(recorded.history);
        }
    }

    /// The hub has this under a number under which something else stands here, or nothing yet.
    pub(super) fn found(&mut self, sealed: &Sealed) {
        if let Some(chain) = self.of_mut(sealed.chain.epoch) {
            chain.recorded_through = sealed.number;
            chain.forked_from = chain.forked_from.or(Some(sealed.number));
        }
    }

    /// The first chain is left behind; `begun` takes its place where no other does.
    pub(super) fn enter(&mut self, begun: ChainEnd) {
        if self.newest().epoch < begun.epoch {
            self.open.push_back(begun);
        }
        if let Some(left) = self.open.pop_front() {
            self.past.push(left.recorded_through);
        }
    }

    fn of_mut(&mut self, epoch: u32) -> Option<&mut ChainEnd> {
        self.open.iter_mut().find(|chain| chain.epoch == epoch)
    }
}
