//! Agreed-participant lists: who consented to which version, and who is a member. Folded by the hub, and by every node
//! for the agreements that it is on.
//!
//! A *position* is where something stands in the order of what was decided: the journal sequence at the hub, the feed
//! number at a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_model::{
    AgreementDigest, AgreementId, AgreementRef, AgreementText, Digest, InForceAmong, Name, ParticipantCode, Timestamp,
    Title,
};
use serde::{Deserialize, Serialize};

mod fold;
mod rules;
mod views;

pub use rules::check_content;
pub(crate) use rules::{check_amendment, check_form};
pub use views::GoesOn;

/// How many members an agreement needs to stay in force.
pub const AGREEMENT_MEMBERS_MIN: usize = 2;

/// How often a participant may come back to one version.
pub const RETURNS_MAX: usize = 8;

/// All agreements with all their versions. Of each at most one version is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Agreements {
    by_id: BTreeMap<AgreementId, Arc<Versions>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Versions {
    latest: Arc<Agreement>,
    /// Older first.
    earlier: Vec<Arc<Agreement>>,
}

/// One version of an agreement and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// What it says.
    pub text: AgreementText,
    /// The digest of its serialised text.
    pub digest: AgreementDigest,
    /// Where it stands.
    pub state: AgreementState,
    /// Those on it.
    pub parties: BTreeMap<ParticipantCode, PartyRecord>,
    /// Those on the version that it amends and not on it, who have to consent to that.
    pub outgoing: BTreeMap<ParticipantCode, PartyRecord>,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// When the last consent came that it needed.
    pub in_force_at: Option<Timestamp>,
    /// The position of that consent.
    pub in_force_since: Option<u64>,
    /// When it was no longer in force.
    pub ended_at: Option<Timestamp>,
    /// The position from which it was no longer in force.
    pub ended_since: Option<u64>,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AgreementState {
    /// Waits for consents.
    Proposed,
    /// All consented, or two of one that is in force among each who consents; and at least two are still members.
    InForce,
    /// Somebody declined it; of one that would be in force among each who consents, all but one.
    Declined,
    /// A later version took its place.
    Amended,
    /// It fell below two members, or all of them ended it.
    Ended,
    /// Its time was over.
    Lapsed,
}

/// What one party said to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyRecord {
    /// What it said last.
    pub state: PartyState,
    /// When; of a pending one, when the version was proposed.
    pub at: Timestamp,
    /// The position from which it was a member without a break, under this version or those that this one amends.
    pub member_since: Option<u64>,
    /// The position of its leave, if it has not come back.
    pub left_at: Option<u64>,
    /// When it said that the version is to end. To leave and to come back takes nothing of that back.
    pub ends_at: Option<Timestamp>,
    /// Who signed its first consent, and when that was recorded.
    pub signed: Option<Signed>,
    /// Who signed that it comes back, the last time, and when that was recorded.
    pub returned: Option<Signed>,
    /// Why it declined, if it said so.
    pub reason: Option<Title>,
    /// Its memberships that a leave ended from which it came back, the oldest first; at most [`RETURNS_MAX`].
    pub earlier: Vec<Membership>,
    /// Of one that left: what it had said before.
    before_leave: PartyState,
    /// Digests of its leaves that stand.
    leaves: BTreeSet<Digest>,
    /// Digests of the leaves from which it came back to this version.
    returned_from: BTreeSet<Digest>,
    /// Where it said something of this version.
    said: Vec<u64>,
}

/// Who signed, and when that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The officer.
    pub officer: Name,
    /// When.
    pub at: Timestamp,
}

/// A membership that is over: from one position up to, and without, another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// From here on.
    pub since: u64,
    /// Not any more from here on.
    pub left: u64,
}

/// What a party said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PartyState {
    /// Nothing yet.
    Pending,
    /// It consented.
    Consented,
    /// It declined.
    Declined,
    /// It was a member and left.
    Left,
}

impl Agreement {
    /// Names exactly this version.
    pub fn reference(&self) -> AgreementRef {
        AgreementRef { id: self.text.id.clone(), version: self.text.version, digest: self.digest }
    }

    /// Whether it is the version named, by number and digest.
    pub fn is(&self, reference: &AgreementRef) -> bool {
        self.text.version == reference.version && self.digest == reference.digest && self.text.id == reference.id
    }

    /// The members now: none unless it is in force. Sorted.
    pub fn members(&self) -> impl Iterator<Item = &ParticipantCode> {
        let in_force = self.state == AgreementState::InForce;
        self.parties
            .iter()
            .filter(move |(_, record)| in_force && record.state == PartyState::Consented)
            .map(|(participant, _)| participant)
    }

    /// Whether this participant is a member now.
    pub fn is_member(&self, participant: &ParticipantCode) -> bool {
        self.membership(participant).is_some()
    }

    /// What a member of now said, and since when it is one.
    pub fn membership(&self, participant: &ParticipantCode) -> Option<&PartyRecord> {
        let record = self.parties.get(participant)?;
        (self.state == AgreementState::InForce && record.state == PartyState::Consented).then_some(record)
    }

    /// Whether this participant was a member when something stood at this position, by this version or those that it amends.
    pub fn was_member_at(&self, participant: &ParticipantCode, position: u64) -> bool {
        self.parties.get(participant).is_some_and(|record| {
            let is_in = |past: &Membership| past.since <= position && position < past.left;
            let is_now = record.member_since.is_some_and(|since| since <= position)
                && record.left_at.is_none_or(|left| position < left);
            (is_now || record.earlier.iter().any(is_in)) && self.ended_since.is_none_or(|ended| position < ended)
        })
    }

    /// Whether this participant left after this position and came back.
    pub(crate) fn left_between(&self, participant: &ParticipantCode, position: u64) -> bool {
        let record = self.parties.get(participant);
        record.is_some_and(|record| record.earlier.iter().any(|past| past.left > position))
    }

    /// Whether this participant consented to it, whatever it said since.
    pub fn has_consented(&self, participant: &ParticipantCode) -> bool {
        let record = self.parties.get(participant);
        record.is_some_and(|record| matches!(record.state, PartyState::Consented | PartyState::Left))
    }

    /// Whether an amendment of it can have been this participant's: it consented to it and has not left, and it was in force.
    pub(crate) fn may_amend(&self, participant: &ParticipantCode) -> bool {
        let consented = |record: &PartyRecord| record.state == PartyState::Consented;
        self.in_force_since.is_some() && self.parties.get(participant).is_some_and(consented)
    }

    /// Whether its text has this participant, or its consent is awaited although it is not to be on it.
    pub fn concerns(&self, participant: &ParticipantCode) -> bool {
        self.parties.contains_key(participant)
            || self.state == AgreementState::Proposed && self.outgoing.contains_key(participant)
    }

    /// What this participant said last, if the version concerns it.
    pub fn party_state(&self, participant: &ParticipantCode) -> Option<PartyState> {
        self.record(participant).map(|record| record.state)
    }

    /// Whether its consent is awaited: also while it is in force among others who consented.
    pub fn waits_for(&self, participant: &ParticipantCode) -> bool {
        let is_open = self.state == AgreementState::Proposed
            || self.state == AgreementState::InForce && self.text.in_force == InForceAmong::Each;
        is_open && self.party_state(participant) == Some(PartyState::Pending)
    }

    /// The leave by which this participant, who had consented to it, is out, if it could come back from it.
    pub fn left_by(&self, participant: &ParticipantCode) -> Option<Digest> {
        let record = self.parties.get(participant)?;
        let is_out = record.state == PartyState::Left && record.before_leave == PartyState::Consented;
        match (is_out, record.leaves.len()) {
            (true, 1) => record.leaves.first().copied(),
            _ => None,
        }
    }

    /// Whether one more return of this participant, from this leave, is within what a hub accepts.
    pub(crate) fn may_return_from(&self, participant: &ParticipantCode, leave: &Digest) -> bool {
        let record = self.parties.get(participant);
        record.is_some_and(|record| record.returned_from.contains(leave) || record.returned_from.len() < RETURNS_MAX)
    }

    pub(crate) fn record(&self, participant: &ParticipantCode) -> Option<&PartyRecord> {
        self.parties.get(participant).or_else(|| self.outgoing.get(participant))
    }

    fn record_mut(&mut self, participant: &ParticipantCode) -> Option<&mut PartyRecord> {
        self.parties.get_mut(participant).or_else(|| self.outgoing.get_mut(participant))
    }
}
