//! The chains of consignments: what comes next in each, and which receipts are still given again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use concord_model::limits::{CONSIGNMENT_EXCHANGES_MAX, RECEIPTS_KEPT_PER_CHAIN};
use concord_model::{ChainKey, ConsignmentDigest, Digest, Lane, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::command::Consign;
use crate::epoch::{ChainTip, ClosedEpoch, Epochs, FIRST_EPOCH};
use crate::fact::ConsignmentRecorded;
use crate::registry::Registry;

/// All chains. Keys and values are shared, since the map is copied at every publication.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chains {
    by_key: BTreeMap<Arc<ChainKey>, Arc<Chain>>,
}

/// Where one chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The number of its last consignment.
    pub last: u64,
    /// The digest of that one.
    pub digest: ConsignmentDigest,
    /// The last [`RECEIPTS_KEPT_PER_CHAIN`] consignments, the oldest first.
    pub kept: VecDeque<KeptReceipt>,
}

impl Chain {
    /// The consignment with this number, as far back as receipts are kept.
    fn kept(&self, number: u64) -> Option<&KeptReceipt> {
        self.kept.iter().find(|kept| kept.number == number)
    }
}

/// A consignment whose receipt is given again word for word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReceipt {
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: ConsignmentDigest,
    /// The journal sequence where its fact stands.
    pub sequence: u64,
}

/// What a consignment is to its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainStep {
    /// The next one.
    Next,
    /// Recorded before, at this journal sequence: its receipt is given again.
    Repeat {
        /// The journal sequence where its fact stands.
        sequence: u64,
    },
}

impl Chains {
    /// What a consignment is to its chain, or why it is refused as a whole. A whole refusal records nothing.
    pub fn check(&self, registry: &Registry, epochs: &Epochs, consign: &Consign) -> Result<ChainStep, Refusal> {
        check_owner(registry, epochs, consign)?;
        let chain = self.get(&consign.chain);
        let last = chain.map_or(0, |chain| chain.last);
        let number = consign.number;
        if let Some(kept) = chain.and_then(|chain| chain.kept(number)) {
            if kept.digest == consign.digest {
                return Ok(ChainStep::Repeat { sequence: kept.sequence });
            }
            return Err(Refusal::new(
                Reason::Fork,
                format!("consignment {number} of this chain was recorded with another digest"),
            ));
        }
        if (1..=last).contains(&number) {
            return Err(Refusal::new(
                Reason::AlreadyRecorded,
                format!(
                    "consignment {number} was recorded; only the last {RECEIPTS_KEPT_PER_CHAIN} receipts are repeated"
                ),
            ));
        }
        // What this hub's own receipt shows belongs to the epoch also where it was lost and comes after the end.
        let is_closed = consign.chain.epoch < epochs.current(&consign.chain.origin);
        if is_closed && consign.stood.is_none() {
            let epoch = consign.chain.epoch;
            let what =
                format!("epoch {epoch} of this node was closed, and consignment {number} was not recorded in it");
            return Err(Refusal::new(Reason::EpochClosed, what));
        }
        if last.checked_add(1) != Some(number) {
            return Err(Refusal::new(
                Reason::NumberOutOfOrder,
                format!("the last consignment of this chain is {last}, so the next cannot be {number}"),
            ));
        }
        let follows = match chain {
            Some(chain) => consign.previous == chain.digest,
            None if consign.chain.epoch == FIRST_EPOCH => consign.previous == ConsignmentDigest(Digest::ZERO),
            None => consign.begins_after.is_some_and(|tip| self.is_tip_before(epochs, &consign.chain, tip)),
        };
        if !follows {
            return Err(Refusal::new(
                Reason::PreviousMismatch,
                format!("consignment {number} does not follow the {last} that is recorded here"),
            ));
        }
        let count = consign.exchanges.len();
        if !(1..=CONSIGNMENT_EXCHANGES_MAX).contains(&count) {
            return Err(Refusal::new(
                Reason::ConsignmentMalformed,
                format!("a consignment has 1 to {CONSIGNMENT_EXCHANGES_MAX} exchanges, not {count}"),
            ));
        }
        Ok(ChainStep::Next)
    }

    /// Takes in a recorded consignment.
    pub fn apply(&mut self, recorded: &ConsignmentRecorded, sequence: u64) {
        let receipt = KeptReceipt { number: recorded.number, digest: recorded.digest, sequence };
        match self.by_key.get_mut(&recorded.chain) {
            Some(chain) => {
                let chain = Arc::make_mut(chain);
                chain.last = receipt.number;
                chain.digest = receipt.digest;
                chain.kept.push_back(receipt);
                while chain.kept.len() > RECEIPTS_KEPT_PER_CHAIN {
                    chain.kept.pop_front();
                }
            }
            None => {
                let chain = Chain { last: receipt.number, digest: receipt.digest, kept: VecDeque::from([receipt]) };
                self.by_key.insert(Arc::new(recorded.chain.clone()), Arc::new(chain));
            }
        }
    }

    /// One chain, if it has begun.
    pub fn get(&self, key: &ChainKey) -> Option<&Chain> {
        self.by_key.get(key).map(Arc::as_ref)
    }

    /// The number of the last consignment of a chain; 0 before its first.
    pub fn last(&self, key: &ChainKey) -> u64 {
        self.get(key).map_or(0, |chain| chain.last)
    }

    /// Whether the first consignment of a later epoch follows this: the tip at which the epoch before was closed, or the one that it has
    /// by now, where this hub was told of the end before what it had lost of it was handed in again.
    pub fn is_tip_before(&self, epochs: &Epochs, chain: &ChainKey, tip: ChainTip) -> bool {
        let before = ChainKey { epoch: chain.epoch.saturating_sub(1), ..chain.clone() };
        let closed = epochs.closed(&chain.origin, before.epoch);
        closed.is_some_and(|closed| closed.tip(chain.lane) == tip || self.tips(&before).tip(chain.lane) == tip)
    }

    /// Where the chains of a node stand in one epoch: its end, once it is closed.
    pub fn tips(&self, of: &ChainKey) -> ClosedEpoch {
        let tip = |lane| {
            let chain = self.get(&ChainKey { lane, ..of.clone() });
            chain.map_or(ChainTip::default(), |chain| ChainTip { number: chain.last, digest: chain.digest })
        };
        ClosedEpoch { tips: Lane::ALL.map(tip) }
    }

    /// The consignments at which a node was told that its chains ended, and for which something else is recorded here, as far back as
    /// receipts are kept. One that lies beyond what is recorded is what this hub lost, and contradicts nothing.
    pub(crate) fn contradicted(&self, of: &ChainKey, told: &ClosedEpoch) -> Vec<(Lane, u64)> {
        let differs = |lane: &Lane| {
            let tip = told.tip(*lane);
            let chain = self.get(&ChainKey { lane: *lane, ..of.clone() });
            let here = chain.and_then(|chain| chain.kept(tip.number));
            here.is_some_and(|here| here.digest != tip.digest)
        };
        Lane::ALL.into_iter().filter(differs).map(|lane| (lane, told.tip(lane).number)).collect()
    }

    /// All chains that have begun.
    pub fn iter(&self) -> impl Iterator<Item = (&ChainKey, &Chain)> {
        self.by_key.iter().map(|(key, chain)| (key.as_ref(), chain.as_ref()))
    }

    /// The last number of each chain, to be kept when a history ends.
    pub(crate) fn last_numbers(&self) -> BTreeMap<Arc<ChainKey>, u64> {
        self.by_key.iter().map(|(key, chain)| (Arc::clone(key), chain.last)).collect()
    }
}

fn check_owner(registry: &Registry, epochs: &Epochs, consign: &Consign) -> Result<(), Refusal> {
    let chain = &consign.chain;
    let mismatch = |message: String| Err(Refusal::new(Reason::ChainMismatch, message));
    if registry.hub() != Some(&chain.hub) {
        return mismatch(format!("the chain is for the hub {}, not for this one", chain.hub));
    }
    let current = epochs.current(&chain.origin);
    if !(FIRST_EPOCH..=current).contains(&chain.epoch) {
        return mismatch(format!("the chain is of epoch {}, and epoch {current} is open", chain.epoch));
    }
    let unknown_key = || {
        Refusal::new(
            Reason::SigningKeyUnknown,
            format!("the key {} is not that of {} in epoch {}", consign.key, chain.origin, chain.epoch),
        )
    };
    let enrolment = registry.enrolment(&chain.origin).ok_or_else(unknown_key)?;
    if enrolment.node != chain.node {
        return mismatch(format!("the node {} is not the one enrolled for {}", chain.node, chain.origin));
    }
    if epochs.signing_key(registry, &chain.origin, chain.epoch) != Some(consign.key) {
        return Err(unknown_key());
    }
    Ok(())
}
