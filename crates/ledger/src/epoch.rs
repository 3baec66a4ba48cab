//! Chain epochs: an officer closes the chains of its state's node and opens them anew, where what the hub recorded and what the node
//! has do not fit any more.
//!
//! Invariant: what a hub had recorded of an epoch when it was closed is all of it. So a node knows, from its tips, which of its
//! exchanges were recorded, and packs the others anew without any of them being recorded twice. Only what this hub's own receipt shows
//! to have been recorded before comes in later, to a hub that lost it.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_model::limits::EPOCHS_MAX;
use concord_model::{ConsignmentDigest, Digest, Fingerprint, Lane, Name, ParticipantCode, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::statement::JoinRequest;
use crate::succession::KeyRotation;

/// The epoch of every chain before an officer opens another.
pub const FIRST_EPOCH: u32 = 1;

/// The closed epochs of each participant's node. Folded by the hub, and by each node for its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Epochs {
    /// In order, the first epoch first.
    closed: BTreeMap<ParticipantCode, Arc<Vec<Ended>>>,
}

/// A closed epoch, and whose key counted up to its end where the next has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    closed: ClosedEpoch,
    replaced: Option<Fingerprint>,
}

/// What an officer says to close an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochOpening {
    /// The state's own node.
    pub node: Name,
    /// The epoch that opens.
    pub epoch: u32,
}

/// Where the chains of one node ended in an epoch, as the hub had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClosedEpoch {
    /// One for each lane.
    pub tips: [ChainTip; Lane::ALL.len()],
}

/// The last recorded consignment of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainTip {
    /// 0 where nothing was recorded.
    pub number: u64,
    /// Its digest; zero where nothing was recorded.
    pub digest: ConsignmentDigest,
}

impl Default for ChainTip {
    fn default() -> Self {
        Self { number: 0, digest: ConsignmentDigest(Digest::ZERO) }
    }
}

impl ClosedEpoch {
    /// Where the chain of one lane ended.
    pub fn tip(&self, lane: Lane) -> ChainTip {
        self.tips[lane.slot()]
    }
}

impl Epochs {
    /// The epoch in which the chains of a participant's node go on.
    pub fn current(&self, participant: &ParticipantCode) -> u32 {
        let closed = self.closed.get(participant).map_or(0, |closed| closed.len());
        FIRST_EPOCH.saturating_add(u32::try_from(closed).unwrap_or(u32::MAX))
    }

    /// How an epoch ended, if it is closed.
    pub fn closed(&self, participant: &ParticipantCode, epoch: u32) -> Option<&ClosedEpoch> {
        let place = usize::try_from(epoch.checked_sub(FIRST_EPOCH)?).ok()?;
        self.closed.get(participant)?.get(place).map(|ended| &ended.closed)
    }

    /// The key that signs a participant's consignments in an epoch: keys are valid by chain position, not by time.
    pub fn signing_key(&self, registry: &Registry, participant: &ParticipantCode, epoch: u32) -> Option<Fingerprint> {
        let place = usize::try_from(epoch.checked_sub(FIRST_EPOCH)?).ok()?;
        let ended = self.closed.get(participant).and_then(|closed| closed.get(place..)).unwrap_or_default();
        let replaced = ended.iter().find_map(|ended| ended.replaced);
        replaced.or_else(|| registry.enrolment(participant).map(|enrolment| enrolment.signing_key.fingerprint))
    }

    /// Whether a participant may open this epoch now.
    ///
    /// Refuses with `EPOCH_OUT_OF_ORDER` or `CHAIN_MISMATCH`.
    pub fn check_open(&self, registry: &Registry, by: &ParticipantCode, opening: &EpochOpening) -> Result<(), Refusal> {
        let node = registry.enrolment(by).map(|enrolment| &enrolment.node);
        if node != Some(&opening.node) {
            let what = format!("{} is not the node of {by}: an officer opens an epoch for its own", opening.node);
            return Err(Refusal::new(Reason::ChainMismatch, what));
        }
        self.check_next(by, opening.epoch)
    }

    /// Whether the keys of a participant's node may be replaced by these, which opens an epoch.
    ///
    /// Refuses with `EPOCH_OUT_OF_ORDER`, or as [`Registry::check_replace`] does.
    pub fn check_replace(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        request: &JoinRequest,
    ) -> Result<(), Refusal> {
        registry.check_replace(by, request)?;
        self.check_next(&request.participant, self.current(&request.participant).saturating_add(1))
    }

    /// Whether an officer of this participant may say so of its server's signing key; a node's opens an epoch.
    ///
    /// Refuses with `EPOCH_OUT_OF_ORDER`, or as the registry does.
    pub fn check_rotate(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        rotation: &KeyRotation,
    ) -> Result<(), Refusal> {
        registry.check_rotate(by, rotation)?;
        rotation.opening.as_ref().map_or(Ok(()), |opening| self.check_next(by, opening.epoch))
    }

    fn check_next(&self, of: &ParticipantCode, epoch: u32) -> Result<(), Refusal> {
        let current = self.current(of);
        if current >= EPOCHS_MAX {
            let what =
                format!("the chains of {of} are in epoch {current}, the last that there may be: no other is opened");
            return Err(Refusal::new(Reason::EpochOutOfOrder, what));
        }
        if current.checked_add(1) != Some(epoch) {
            let what = format!("the chains of {of} are in epoch {current}, so that {epoch} cannot be the next");
            return Err(Refusal::new(Reason::EpochOutOfOrder, what));
        }
        Ok(())
    }

    /// Takes in that a participant's present epoch is closed, and the next is open; `replaced` where the next has another key than this.
    pub fn close(&mut self, participant: &ParticipantCode, closed: ClosedEpoch, replaced: Option<Fingerprint>) {
        let ended = Ended { closed, replaced };
        Arc::make_mut(self.closed.entry(participant.clone()).or_default()).push(ended);
    }
}
