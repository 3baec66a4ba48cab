//! Technical holds: a participant's node that is kept from receiving and consigning for a time, visibly. Its mail waits; what is said and
//! told goes on, so that leaving is always possible.
//!
//! Each hold is lifted by whoever laid it, and by naming it: so in whatever order a hub that lost data is handed them back, none outlives
//! its release.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::{Digest, ParticipantCode, Reason, Refusal, Timestamp, Title};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;

/// The holds of a forum. Folded by the hub, and by every node for its directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holds {
    /// By the digest of the statement that laid it.
    laid: BTreeMap<Digest, Hold>,
    /// What was lifted, also before it was known, and by whom: who else says so lifts nothing.
    lifted: BTreeSet<(ParticipantCode, Digest)>,
}

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who is held.
    pub participant: ParticipantCode,
    /// Who laid it: the secretariat, or the participant itself.
    pub by: ParticipantCode,
    /// Why, in words.
    pub reason: Title,
    /// Since when.
    pub since: Timestamp,
}

impl Holds {
    /// Whether a participant is held, by anybody.
    pub fn is_held(&self, participant: &ParticipantCode) -> bool {
        self.laid.values().any(|hold| hold.participant == *participant)
    }

    /// The hold that the statement with this digest laid, while it stands.
    pub fn get(&self, digest: &Digest) -> Option<&Hold> {
        self.laid.get(digest)
    }

    /// Everything that holds now, each with the digest by which it is lifted.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, &Hold)> {
        self.laid.iter()
    }

    /// The hold that this participant laid on that one.
    pub fn laid_by(&self, by: &ParticipantCode, participant: &ParticipantCode) -> Option<&Digest> {
        self.laid.iter().find(|(_, hold)| hold.by == *by && hold.participant == *participant).map(|(digest, _)| digest)
    }

    /// Takes in a hold, unless whoever laid it lifted it.
    pub(crate) fn lay(&mut self, digest: Digest, hold: Hold) {
        if !self.lifted.contains(&(hold.by.clone(), digest)) {
            self.laid.insert(digest, hold);
        }
    }

    /// Takes in that a hold is lifted.
    pub(crate) fn lift(&mut self, by: &ParticipantCode, digest: Digest) {
        if self.laid.get(&digest).is_none_or(|hold| hold.by == *by) {
            self.laid.remove(&digest);
            self.lifted.insert((by.clone(), digest));
        }
    }
}

/// Whether this participant may hold that one now.
pub(crate) fn check_hold(registry: &Registry, by: &ParticipantCode, held: &ParticipantCode) -> Result<(), Refusal> {
    let secretariat = ParticipantCode::secretariat();
    if *held == secretariat || *by != *held && *by != secretariat {
        let what = "the secretariat may hold a participant's node, and a state its own; nobody holds the hub";
        return Err(Refusal::new(Reason::CallerNotAllowed, what));
    }
    if registry.participant(held).is_none() {
        return Err(Refusal::new(
            Reason::ParticipantUnknown,
            format!("there is no participant {held} in the registry"),
        ));
    }
    if registry.holds().laid_by(by, held).is_some() {
        return Err(Refusal::new(Reason::HoldExists, format!("{held} is held by {by} already")));
    }
    Ok(())
}

/// Whether this participant may lift the hold named.
pub(crate) fn check_release(registry: &Registry, by: &ParticipantCode, hold: &Digest) -> Result<(), Refusal> {
    let laid = registry.holds().laid.get(hold);
    if laid.is_some_and(|laid| laid.by == *by) {
        return Ok(());
    }
    Err(Refusal::new(Reason::HoldUnknown, format!("{by} has laid no such hold, or lifted it before")))
}

/// What a held participant's node hears.
pub fn held(participant: &ParticipantCode) -> Refusal {
    Refusal::new(Reason::ParticipantHeld, format!("{participant} is held: its mail waits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_that_comes_after_its_release_holds_nobody() {
        let code = |text| ParticipantCode::parse(text).unwrap();
        let hold = || Hold {
            participant: code("KAZ"),
            by: code("SEC"),
            reason: Title::parse("its node floods").unwrap(),
            since: Timestamp::default(),
        };
        let mut holds = Holds::default();
        holds.lift(&code("SEC"), Digest([1; 32]));
        holds.lay(Digest([1; 32]), hold());
        assert!(!holds.is_held(&code("KAZ")));
        holds.lay(Digest([2; 32]), hold());
        holds.lift(&code("KAZ"), Digest([2; 32]));
        assert!(holds.is_held(&code("KAZ")), "only whoever laid it lifts it");
        holds.lift(&code("SEC"), Digest([2; 32]));
        assert!(!holds.is_held(&code("KAZ")));
        holds.lift(&code("KAZ"), Digest([3; 32]));
        holds.lay(Digest([3; 32]), hold());
        assert!(holds.is_held(&code("KAZ")), "nor before it is known");
    }
}
