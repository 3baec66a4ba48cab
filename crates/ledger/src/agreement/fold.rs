//! What accepted statements make of agreements.
//!
//! Total: what does not fit changes nothing. Each statement finds the version that it names, also where a later one is known, and in
//! whatever order it comes: so does what is handed back to a hub that lost data.
//!
//! Invariant: nobody is a member who has not consented to the version in force, or has left it or one that it amends.

use super::*;
use crate::statement::{Statement, StatementContent};

impl Agreements {
    /// Takes in an accepted statement.
    pub fn apply(&mut self, statement: &Statement, position: u64, at: Timestamp) {
        let by = &statement.participant;
        match &statement.content {
            StatementContent::Propose { text, digest } => {
                let mut proposed = Agreement::propose(text, *digest, at);
                proposed.consent(by, at);
                let reference = proposed.reference();
                if self.add(proposed) {
                    self.carry_leaves(&reference, position, at);
                    self.come_into_force(&reference, position, at);
                }
            }
            StatementContent::Consent(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.consent(by, at);
                    self.come_into_force(reference, position, at);
                }
            }
            StatementContent::Decline(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.decline(by, position, at);
                }
            }
            StatementContent::Leave(reference) => self.leave(reference, by, position, at),
            StatementContent::End(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.say_end(by, position, at);
                }
            }
            StatementContent::Enrol(_)
            | StatementContent::Replace(_)
            | StatementContent::OpenEpoch(_)
            | StatementContent::Hold { .. }
            | StatementContent::Release(_)
            | StatementContent::Approve(_)
            | StatementContent::Reject(_)
            | StatementContent::Decided(_) => {}
        }
    }

    /// Takes in that the time of a version was over.
    pub fn lapse(&mut self, reference: &AgreementRef, position: u64, at: Timestamp) {
        if let Some(agreement) = self.version_mut(reference)
            && matches!(agreement.state, AgreementState::Proposed | AgreementState::InForce)
        {
            agreement.stop(AgreementState::Lapsed, position, at);
        }
    }

    /// Versions are kept in their order, in whatever order they come; a version that is known is not taken in again.
    fn add(&mut self, agreement: Agreement) -> bool {
        let id = agreement.text.id.clone();
        let version = agreement.text.version;
        let added = Arc::new(agreement);
        let Some(versions) = self.by_id.get_mut(&id) else {
            self.by_id.insert(id, Arc::new(Versions { latest: added, earlier: Vec::new() }));
            return true;
        };
        let is_known = |known: &Arc<Agreement>| known.text.version == version;
        if is_known(&versions.latest) || versions.earlier.iter().any(is_known) {
            return false;
        }
        let versions = Arc::make_mut(versions);
        if version > versions.latest.text.version {
            let before = std::mem::replace(&mut versions.latest, added);
            versions.earlier.push(before);
        } else {
            let place = versions.earlier.partition_point(|earlier| earlier.text.version < version);
            versions.earlier.insert(place, added);
        }
        true
    }

    fn version_mut(&mut self, reference: &AgreementRef) -> Option<&mut Agreement> {
        let versions = self.by_id.get_mut(&reference.id)?;
        if versions.latest.is(reference) {
            return Some(Arc::make_mut(&mut Arc::make_mut(versions).latest));
        }
        let place = versions.earlier.iter().position(|earlier| earlier.is(reference))?;
        Arc::make_mut(versions).earlier.get_mut(place).map(Arc::make_mut)
    }

    /// With the last consent, in place of the version that it amends. Of versions that are handed back one may come into force after
    /// the version that amends it, and is amended at once; or after one that began when it had ended: its end is still to come back,
    /// and meanwhile it does not count.
    fn come_into_force(&mut self, reference: &AgreementRef, position: u64, at: Timestamp) {
        let Some(agreement) = self.version(reference) else { return };
        if agreement.state != AgreementState::Proposed || !agreement.has_all_consents() {
            return;
        }
        let is_amended = self
            .versions(&reference.id)
            .any(|other| other.in_force_since.is_some() && other.text.amends.as_ref() == Some(reference));
        let mut unbroken = BTreeMap::new();
        if let Some(before) = agreement.text.amends.clone().and_then(|amends| self.version_mut(&amends))
            && before.state == AgreementState::InForce
        {
            let members = before.parties.iter().filter(|(_, record)| record.state == PartyState::Consented);
            unbroken = members.map(|(code, record)| (code.clone(), record.member_since)).collect();
            before.stop(AgreementState::Amended, position, at);
        }
        let Some(agreement) = self.version_mut(reference) else { return };
        agreement.state = AgreementState::InForce;
        agreement.in_force_at = Some(at);
        agreement.in_force_since = Some(position);
        for (code, record) in &mut agreement.parties {
            record.member_since = unbroken.get(code).copied().flatten().or(Some(position));
        }
        if is_amended {
            agreement.stop(AgreementState::Amended, position, at);
        } else {
            agreement.stop_where_over(position, at);
        }
    }

    /// Leaves a version and what amends it, so that neither an amendment that waits nor one that came into force meanwhile keeps or
    /// takes in again whoever left.
    fn leave(&mut self, reference: &AgreementRef, by: &ParticipantCode, position: u64, at: Timestamp) {
        let left = self.left_with(reference, by);
        for reference in &left {
            if let Some(agreement) = self.version_mut(reference) {
                agreement.leave(by, position, at);
            }
        }
        // An amendment that waited for nobody else takes the place of what is left of the version before, which then does not end.
        left.iter().for_each(|reference| self.come_into_force(reference, position, at));
        for reference in &left {
            if let Some(agreement) = self.version_mut(reference) {
                agreement.stop_where_over(position, at);
            }
        }
    }

    /// A version that comes after the leave of one that it amends.
    fn carry_leaves(&mut self, reference: &AgreementRef, position: u64, at: Timestamp) {
        let amended = self.version(reference).and_then(|added| added.text.amends.as_ref());
        let Some(amended) = amended.and_then(|amended| self.version(amended)) else { return };
        let has_left = |(_, record): &(&ParticipantCode, &PartyRecord)| record.state == PartyState::Left;
        let left: Vec<_> = amended.parties.iter().filter(has_left).map(|(code, _)| code.clone()).collect();
        for by in left {
            self.leave(reference, &by, position, at);
        }
    }
}

impl Agreement {
    fn propose(text: &AgreementText, digest: AgreementDigest, at: Timestamp) -> Self {
        let pending = PartyRecord { state: PartyState::Pending, at, member_since: None, left_at: None, ends_at: None };
        Self {
            text: text.clone(),
            digest,
            state: AgreementState::Proposed,
            parties: text.parties.iter().map(|party| (party.participant.clone(), pending.clone())).collect(),
            outgoing: text.outgoing.iter().map(|code| (code.clone(), pending.clone())).collect(),
            proposed_at: at,
            in_force_at: None,
            in_force_since: None,
            ended_at: None,
            ended_since: None,
        }
    }

    fn consent(&mut self, by: &ParticipantCode, at: Timestamp) {
        let is_proposed = self.state == AgreementState::Proposed;
        if let Some(record) = self.record_mut(by)
            && is_proposed
            && record.state == PartyState::Pending
        {
            record.state = PartyState::Consented;
            record.at = at;
        }
    }

    /// One whose leave is known had consented, too: its consent is what was lost, or it is on its way out anyway.
    fn has_all_consents(&self) -> bool {
        let has_consented = |record: &PartyRecord| matches!(record.state, PartyState::Consented | PartyState::Left);
        self.parties.values().chain(self.outgoing.values()).all(has_consented)
    }

    fn decline(&mut self, by: &ParticipantCode, position: u64, at: Timestamp) {
        let state = self.state;
        // One that is in force was declined before: a consent that nobody took came back first. What it amended ended with it, and stays so.
        if !matches!(state, AgreementState::Proposed | AgreementState::InForce) {
            return;
        }
        if let Some(record) = self.record_mut(by) {
            record.state = PartyState::Declined;
            record.at = at;
            self.state = AgreementState::Declined;
            self.ended_at = Some(at);
            self.ended_since = (state == AgreementState::InForce).then_some(position);
        }
    }

    fn leave(&mut self, by: &ParticipantCode, position: u64, at: Timestamp) {
        // Of one that waits: of an amendment, or of one that is handed back before the consents that were lost. Of one that was amended:
        // the leave crossed the last consent, or came back after it. It must not be forgotten.
        let waits = matches!(self.state, AgreementState::Proposed | AgreementState::Amended);
        if !waits && !self.is_member(by) {
            return;
        }
        if let Some(record) = self.record_mut(by)
            && record.state != PartyState::Left
        {
            record.state = PartyState::Left;
            record.at = at;
            record.left_at = Some(position);
        }
    }

    fn say_end(&mut self, by: &ParticipantCode, position: u64, at: Timestamp) {
        // Handed back before the consents that were lost, it counts when they come.
        if let Some(record) = self.parties.get_mut(by)
            && record.ends_at.is_none()
        {
            record.ends_at = Some(at);
            self.stop_where_over(position, at);
        }
    }

    fn stop_where_over(&mut self, position: u64, at: Timestamp) {
        let mut members = self.parties.values().filter(|record| record.state == PartyState::Consented);
        let is_over = self.members().count() < AGREEMENT_MEMBERS_MIN || members.all(|record| record.ends_at.is_some());
        if self.state == AgreementState::InForce && is_over {
            self.stop(AgreementState::Ended, position, at);
        }
    }

    fn stop(&mut self, state: AgreementState, position: u64, at: Timestamp) {
        self.state = state;
        self.ended_at = Some(at);
        self.ended_since = Some(position);
    }
}
