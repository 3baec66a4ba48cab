//! Agreed-participant lists: who consented to which version, and who is a member. Folded by the hub, and by every node
//! for the agreements that it is on.
//!
//! A *position* is where something stands in the order of what was decided: the journal sequence at the hub, the feed
//! number at a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_model::{AgreementDigest, AgreementId, AgreementRef, AgreementText, ParticipantCode, Timestamp};
use serde::{Deserialize, Serialize};

use crate::statement::{Statement, StatementContent};

mod rules;

pub use rules::check_content;
pub(crate) use rules::check_form;

/// How many members an agreement needs to stay in force.
pub const AGREEMENT_MEMBERS_MIN: usize = 2;

/// All agreements with all their versions.
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
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// When the last consent came.
    pub in_force_at: Option<Timestamp>,
    /// The position of the last consent.
    pub in_force_since: Option<u64>,
    /// The position of the leave that ended it.
    pub ended_since: Option<u64>,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AgreementState {
    /// Waits for consents.
    Proposed,
    /// All consented, and at least two are still members.
    InForce,
    /// Somebody declined it.
    Declined,
    /// It fell below two members.
    Ended,
}

/// What one party said to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyRecord {
    /// What it said last.
    pub state: PartyState,
    /// When; of a pending one, when the version was proposed.
    pub at: Timestamp,
    /// The position from which it was a member.
    pub member_since: Option<u64>,
    /// The position of its leave.
    pub left_at: Option<u64>,
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
        self.state == AgreementState::InForce && self.party_state(participant) == Some(PartyState::Consented)
    }

    /// Whether this participant was a member when something stood at this position.
    pub fn was_member_at(&self, participant: &ParticipantCode, position: u64) -> bool {
        self.parties.get(participant).is_some_and(|record| {
            record.member_since.is_some_and(|since| since <= position)
                && record.left_at.is_none_or(|left| position < left)
                && self.ended_since.is_none_or(|ended| position < ended)
        })
    }

    /// Whether this participant was a member from this position on or before, whatever it did since, and the agreement goes on.
    pub fn was_member_before(&self, participant: &ParticipantCode, position: u64) -> bool {
        let since = self.parties.get(participant).and_then(|record| record.member_since);
        self.state == AgreementState::InForce && since.is_some_and(|since| since <= position)
    }

    /// What this participant said last, if it is on this version.
    pub fn party_state(&self, participant: &ParticipantCode) -> Option<PartyState> {
        self.parties.get(participant).map(|record| record.state)
    }

    fn propose(text: &AgreementText, digest: AgreementDigest, at: Timestamp) -> Self {
        let pending = PartyRecord { state: PartyState::Pending, at, member_since: None, left_at: None };
        Self {
            text: text.clone(),
            digest,
            state: AgreementState::Proposed,
            parties: text.parties.iter().map(|party| (party.participant.clone(), pending.clone())).collect(),
            proposed_at: at,
            in_force_at: None,
            in_force_since: None,
            ended_since: None,
        }
    }

    fn consent(&mut self, by: &ParticipantCode, position: u64, at: Timestamp) {
        let Some(record) = self.parties.get_mut(by) else {
            return;
        };
        if self.state != AgreementState::Proposed || record.state != PartyState::Pending {
            return;
        }
        record.state = PartyState::Consented;
        record.at = at;
        self.come_into_force(position, at);
    }

    /// With the last consent. One whose leave is known before that had consented, too: its consent is what was lost.
    fn come_into_force(&mut self, position: u64, at: Timestamp) {
        let has_consented = |record: &PartyRecord| matches!(record.state, PartyState::Consented | PartyState::Left);
        if self.state != AgreementState::Proposed || !self.parties.values().all(has_consented) {
            return;
        }
        self.state = AgreementState::InForce;
        self.in_force_at = Some(at);
        self.in_force_since = Some(position);
        for record in self.parties.values_mut() {
            record.member_since = Some(position);
        }
        self.end_below_two(position);
    }

    fn decline(&mut self, by: &ParticipantCode, at: Timestamp) {
        let Some(record) = self.parties.get_mut(by) else {
            return;
        };
        if self.state == AgreementState::Proposed {
            record.state = PartyState::Declined;
            record.at = at;
            self.state = AgreementState::Declined;
        }
    }

    fn leave(&mut self, by: &ParticipantCode, position: u64, at: Timestamp) {
        // Of a version that is not in force only one that is handed back, before the consents that were lost: it must not be forgotten.
        let is_early = self.state == AgreementState::Proposed;
        if !is_early && !self.is_member(by) {
            return;
        }
        if let Some(record) = self.parties.get_mut(by) {
            record.state = PartyState::Left;
            record.at = at;
            record.left_at = Some(position);
        }
        if is_early {
            self.come_into_force(position, at);
        } else {
            self.end_below_two(position);
        }
    }

    fn end_below_two(&mut self, position: u64) {
        if self.members().count() < AGREEMENT_MEMBERS_MIN {
            self.state = AgreementState::Ended;
            self.ended_since = Some(position);
        }
    }
}

impl Agreements {
    /// Takes in an accepted statement. Total: what does not fit changes nothing. Each finds the version that it names, also where a
    /// later one is known, and in whatever order it comes: so does what is handed back to a hub that lost data.
    pub fn apply(&mut self, statement: &Statement, position: u64, at: Timestamp) {
        let by = &statement.participant;
        match &statement.content {
            StatementContent::Propose { text, digest } => {
                let mut proposed = Agreement::propose(text, *digest, at);
                proposed.consent(by, position, at);
                self.add(proposed);
            }
            StatementContent::Consent(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.consent(by, position, at);
                }
            }
            StatementContent::Decline(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.decline(by, at);
                }
            }
            StatementContent::Leave(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.leave(by, position, at);
                }
            }
            StatementContent::Enrol(_) | StatementContent::Replace(_) | StatementContent::OpenEpoch(_) => {}
        }
    }

    /// Versions are kept in their order, in whatever order they come; a version that is known is not taken in again.
    fn add(&mut self, agreement: Agreement) {
        let id = agreement.text.id.clone();
        let version = agreement.text.version;
        let added = Arc::new(agreement);
        let Some(versions) = self.by_id.get_mut(&id) else {
            self.by_id.insert(id, Arc::new(Versions { latest: added, earlier: Vec::new() }));
            return;
        };
        let is_known = |known: &Arc<Agreement>| known.text.version == version;
        if is_known(&versions.latest) || versions.earlier.iter().any(is_known) {
            return;
        }
        let versions = Arc::make_mut(versions);
        if version > versions.latest.text.version {
            let before = std::mem::replace(&mut versions.latest, added);
            versions.earlier.push(before);
        } else {
            let place = versions.earlier.partition_point(|earlier| earlier.text.version < version);
            versions.earlier.insert(place, added);
        }
    }

    fn version_mut(&mut self, reference: &AgreementRef) -> Option<&mut Agreement> {
        let versions = self.by_id.get_mut(&reference.id)?;
        let is_meant = |one: &Agreement| one.text.version == reference.version && one.digest == reference.digest;
        if is_meant(&versions.latest) {
            return Some(Arc::make_mut(&mut Arc::make_mut(versions).latest));
        }
        let place = versions.earlier.iter().position(|earlier| is_meant(earlier))?;
        Arc::make_mut(versions).earlier.get_mut(place).map(Arc::make_mut)
    }

    /// The latest version of an agreement. Do not answer a participant from this one: see [`Self::seen_by`].
    pub fn get(&self, id: &AgreementId) -> Option<&Agreement> {
        self.by_id.get(id).map(|versions| versions.latest.as_ref())
    }

    /// All versions of one agreement, the latest first.
    pub fn versions(&self, id: &AgreementId) -> impl Iterator<Item = &Agreement> {
        self.by_id.get(id).into_iter().flat_map(|versions| {
            std::iter::once(&versions.latest).chain(versions.earlier.iter().rev()).map(Arc::as_ref)
        })
    }

    /// Exactly the version named, by number and digest.
    pub fn version(&self, reference: &AgreementRef) -> Option<&Agreement> {
        self.versions(&reference.id)
            .find(|agreement| agreement.text.version == reference.version && agreement.digest == reference.digest)
    }

    /// The latest version that this participant is on. A later one without it does not exist as far as it can tell.
    pub fn seen_by(&self, participant: &ParticipantCode, id: &AgreementId) -> Option<&Agreement> {
        self.versions(id).find(|agreement| agreement.parties.contains_key(participant))
    }

    /// What this participant may be shown, by id: the latest version that it is on and has not left; all to the secretariat.
    pub fn visible_to(&self, participant: &ParticipantCode) -> impl Iterator<Item = &Agreement> {
        let sees_all = *participant == ParticipantCode::secretariat();
        let participant = participant.clone();
        self.by_id.keys().filter_map(move |id| {
            if sees_all {
                return self.get(id);
            }
            self.seen_by(&participant, id)
                .filter(|agreement| agreement.party_state(&participant) != Some(PartyState::Left))
        })
    }

    /// The latest version of every agreement, by id; at a node, all that it was ever told of.
    pub fn all(&self) -> impl Iterator<Item = &Agreement> {
        self.by_id.values().map(|versions| versions.latest.as_ref())
    }

    /// The members of an agreement now: none unless its latest version is in force. Sorted.
    pub fn members(&self, id: &AgreementId) -> impl Iterator<Item = &ParticipantCode> {
        self.get(id).into_iter().flat_map(Agreement::members)
    }

    /// Whether this participant is a member of the agreement now.
    pub fn is_member(&self, id: &AgreementId, participant: &ParticipantCode) -> bool {
        self.get(id).is_some_and(|agreement| agreement.is_member(participant))
    }
}
