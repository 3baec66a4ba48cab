//! Exchanges that are not current any more: which ids their origins withdrew, and where those stand.
//!
//! Invariant: an exchange whose id is here is never permitted to anybody, whichever of the two was recorded first; and only its own
//! origin brings it here, since ids are kept by origin.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_model::{ChainKey, ExchangeId, ParticipantCode, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::audience::Audience;
use crate::fact::{ConsignmentRecorded, ExchangePlace};

/// Withdrawals of one participant whose exchanges have yet to come. One more is refused: QUOTA_EXCEEDED.
pub const WITHDRAWN_AHEAD_MAX: u64 = 10_000;

/// Where the exchange that is withdrawn was looked for, by its node's word, and what was found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its chain; the origin's own.
    pub chain: ChainKey,
    /// Its consignment.
    pub number: u64,
    /// What stands there.
    pub found: Found,
}

/// What stands at the place that a withdrawal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its consignment has yet to be recorded.
    NotYet {
        /// The hub's history that its node had heard of last when it queued it. In one from before a loss it may have been recorded, and lost
        /// without a receipt that anybody has.
        queued_in: Option<[u8; 16]>,
    },
    /// Its consignment was recorded for these, as a receipt shows, and this hub lost it: it has yet to be handed in again.
    Forgotten(Audience),
    /// It was recorded for these.
    Recorded(ExchangePlace, Audience),
    /// It was refused, so that there is nothing to withdraw.
    Refused,
    /// Another exchange, or one that the withdrawal does not speak of as it does.
    Other,
}

/// All that was withdrawn. The values are shared, since the whole is copied at every publication.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Withdrawals {
    by_origin: BTreeMap<ParticipantCode, Arc<Withdrawn>>,
    /// By the entry that showed it: where something stands that was recorded and withdrawn.
    places: Arc<BTreeMap<u64, Vec<ExchangePlace>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Withdrawn {
    by_id: BTreeMap<ExchangeId, Stands>,
    ahead: u64,
}

/// Where what was withdrawn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stands {
    NotYet,
    Refused,
    At(ExchangePlace),
}

impl Withdrawals {
    /// Whether its origin withdrew this exchange.
    pub fn is_withdrawn(&self, origin: &ParticipantCode, id: &ExchangeId) -> bool {
        self.by_origin.get(origin).is_some_and(|withdrawn| withdrawn.by_id.contains_key(id))
    }

    /// Whether a participant withdrew anything.
    pub fn has_any_of(&self, origin: &ParticipantCode) -> bool {
        self.by_origin.contains_key(origin)
    }

    /// How many exchanges a participant withdrew that have yet to come.
    pub fn ahead(&self, origin: &ParticipantCode) -> u64 {
        self.by_origin.get(origin).map_or(0, |withdrawn| withdrawn.ahead)
    }

    /// Where what was recorded and withdrawn stands, of all that entries after this one showed; each with that entry.
    pub fn places_after(&self, sequence: u64) -> impl Iterator<Item = (u64, ExchangePlace)> {
        let later = self.places.range(sequence.saturating_add(1)..);
        later.flat_map(|(shown, places)| places.iter().map(|place| (*shown, *place)))
    }

    /// Takes in what a recorded consignment withdraws, and what of it had been withdrawn before.
    pub(crate) fn apply(&mut self, recorded: &ConsignmentRecorded, sequence: u64) {
        let origin = &recorded.chain.origin;
        for withdrawal in &recorded.withdrawals {
            let stands = withdrawal.target.map_or(Stands::NotYet, Stands::At);
            self.put(origin, withdrawal.exchange, stands, sequence);
        }
        for before in &recorded.withdrawn_before {
            let is_refused = recorded.refused.iter().any(|refusal| refusal.index == before.index);
            let place = ExchangePlace { sequence, index: before.index };
            let stands = if is_refused { Stands::Refused } else { Stands::At(place) };
            self.put(origin, before.exchange, stands, sequence);
        }
    }

    fn put(&mut self, origin: &ParticipantCode, id: ExchangeId, stands: Stands, shown: u64) {
        let withdrawn = Arc::make_mut(self.by_origin.entry(origin.clone()).or_default());
        match (withdrawn.by_id.get(&id), stands) {
            // Where it stands does not change, and a hub that is handed both back learns it once.
            (Some(Stands::At(_)), _) | (Some(_), Stands::NotYet) => return,
            (Some(Stands::NotYet), _) => withdrawn.ahead = withdrawn.ahead.saturating_sub(1),
            (None, Stands::NotYet) => withdrawn.ahead += 1,
            (Some(Stands::Refused) | None, _) => {}
        }
        withdrawn.by_id.insert(id, stands);
        if let Stands::At(place) = stands {
            Arc::make_mut(&mut self.places).entry(shown).or_default().push(place);
        }
    }
}

/// What the sequencer answers where the exchange came between the look for it and the decision: look again.
pub fn look_again() -> Refusal {
    Refusal::new(Reason::Internal, "an exchange was recorded since its withdrawal looked for it: look again")
}
