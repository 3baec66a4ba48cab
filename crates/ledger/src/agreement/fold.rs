//! What accepted statements make of agreements.
//!
//! Total: what does not fit changes nothing. Each statement finds the version that it names, also where a later one is known, and in
//! whatever order it comes: so does what is handed back to a hub that lost data.
//!
//! Invariant: nobody is a member who has not consented to the version in force, or has left it or one that it amends and has not come back
//! from that very leave. A return names the leave by its digest, so that the two mean the same in whatever order they come, and whichever
//! officers said them.

use super::*;
use crate::statement::{Statement, StatementContent};

/// Who says something, and where that stands.
#[derive(Clone, Copy)]
struct Word<'a> {
    by: &'a ParticipantCode,
    position: u64,
    at: Timestamp,
}

impl Agreements {
    /// Takes in an accepted statement.
    pub fn apply(&mut self, statement: &Statement, position: u64, at: Timestamp) {
        let word = Word { by: &statement.participant, position, at };
        let signed = Signed { officer: statement.officer.clone(), at };
        match &statement.content {
            StatementContent::Propose { text, digest } => {
                let mut proposed = Agreement::propose(text, *digest, at);
                proposed.consent(&word, signed);
                let reference = proposed.reference();
                if self.add(proposed) {
                    self.carry_leaves(&reference, position, at);
                    self.come_into_force(&reference, position, at);
                }
            }
            StatementContent::Consent(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.consent(&word, signed);
                    self.come_into_force(reference, position, at);
                }
            }
            StatementContent::Decline(reference, reason) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.decline(&word, reason.as_ref());
                }
            }
            StatementContent::Leave(reference) => self.leave(reference, &statement.digest, &word),
            StatementContent::Return(reference, leave) => self.come_back(reference, leave, &word, &signed),
            StatementContent::End(reference) => {
                if let Some(agreement) = self.version_mut(reference) {
                    agreement.say_end(&word);
                }
            }
            StatementContent::Enrol(_)
            | StatementContent::Replace(_)
            | StatementContent::OpenEpoch(_)
            | StatementContent::RotateKey(_)
            | StatementContent::SucceedAnchor(_)
            | StatementContent::EndAnchor(_)
            | StatementContent::Hold { .. }
            | StatementContent::Release(_)
            | StatementContent::Approve(_)
            | StatementContent::Reject(_)
            | StatementContent::Decided(_)
            | StatementContent::SetContact(_)
            | StatementContent::Role(_) => {}
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

    /// With the last consent that it needs, in place of the version that it amends. Of versions that are handed back one may come into force after
    /// the version that amends it, and is amended at once; or after one that began when it had ended: its end is still to come back,
    /// and meanwhile it does not count.
    fn come_into_force(&mut self, reference: &AgreementRef, position: u64, at: Timestamp) {
        let Some(agreement) = self.version(reference) else { return };
        if agreement.state != AgreementState::Proposed || !agreement.has_its_consents() {
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
        let is_each = agreement.text.in_force == InForceAmong::Each;
        for (code, record) in &mut agreement.parties {
            if is_each && matches!(record.state, PartyState::Pending | PartyState::Declined) {
                continue;
            }
            record.member_since = unbroken.get(code).copied().flatten().or(Some(position));
        }
        if is_amended {
            agreement.stop(AgreementState::Amended, position, at);
        } else {
            agreement.stop_where_over(position, at);
        }
    }

    /// Leaves a version and what amends it, so that neither an amendment that waits nor one that came into force meanwhile keeps or
    /// takes in again whoever left. Not what it came back to from this leave, by a return that came first.
    fn leave(&mut self, reference: &AgreementRef, digest: &Digest, word: &Word<'_>) {
        let left = self.left_with(reference, word.by, digest);
        for reference in &left {
            if let Some(agreement) = self.version_mut(reference) {
                agreement.leave(digest, word);
            }
        }
        // An amendment that waited for nobody else takes the place of what is left of the version before, which then does not end.
        left.iter().for_each(|reference| self.come_into_force(reference, word.position, word.at));
        for reference in &left {
            if let Some(agreement) = self.version_mut(reference) {
                agreement.stop_where_over(word.position, word.at);
            }
        }
    }

    /// Comes back to a version: the leave counts no more, neither there nor where it was carried to.
    fn come_back(&mut self, reference: &AgreementRef, leave: &Digest, word: &Word<'_>, signed: &Signed) {
        for carried in self.left_with(reference, word.by, leave) {
            if let Some(agreement) = self.version_mut(&carried) {
                agreement.come_back(leave, word, Some(signed).filter(|_| carried == *reference));
            }
        }
        self.come_into_force(reference, word.position, word.at);
    }

    /// A version that comes after the leave of one that it amends.
    fn carry_leaves(&mut self, reference: &AgreementRef, position: u64, at: Timestamp) {
        let amended = self.version(reference).and_then(|added| added.text.amends.as_ref());
        let Some(amended) = amended.and_then(|amended| self.version(amended)) else { return };
        let has_left = |(_, record): &(&ParticipantCode, &PartyRecord)| record.state == PartyState::Left;
        let leaves = |(code, record): (&ParticipantCode, &PartyRecord)| (code.clone(), record.leaves.clone());
        let left: Vec<_> = amended.parties.iter().filter(has_left).map(leaves).collect();
        for (by, leaves) in &left {
            let word = Word { by, position, at };
            leaves.iter().for_each(|digest| self.leave(reference, digest, &word));
        }
    }
}

impl Agreement {
    fn propose(text: &AgreementText, digest: AgreementDigest, at: Timestamp) -> Self {
        let pending = PartyRecord {
            state: PartyState::Pending,
            at,
            member_since: None,
            left_at: None,
            ends_at: None,
            signed: None,
            returned: None,
            reason: None,
            earlier: Vec::new(),
            before_leave: PartyState::Pending,
            leaves: BTreeSet::new(),
            returned_from: BTreeSet::new(),
            said: Vec::new(),
        };
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

    fn consent(&mut self, word: &Word<'_>, signed: Signed) {
        let is_begun = self.in_force_since.is_some();
        let is_open = matches!(self.state, AgreementState::Proposed | AgreementState::InForce | AgreementState::Ended);
        let Some(record) = self.record_mut(word.by).filter(|_| is_open) else { return };
        match record.state {
            PartyState::Pending => {
                record.state = PartyState::Consented;
                record.at = word.at;
                // It joins what is in force, and gets nothing of before.
                record.member_since = is_begun.then_some(word.position);
            }
            // Its leave came first, of a hub that is handed both back.
            PartyState::Left if record.before_leave == PartyState::Pending => {
                record.before_leave = PartyState::Consented
            }
            PartyState::Consented | PartyState::Declined | PartyState::Left => return,
        }
        record.signed = Some(signed);
        record.said.push(word.position);
        self.go_on_where_ended();
    }

    /// Among all, one whose leave is known had consented, too: its consent is what was lost, or it is on its way out anyway. Among each it
    /// had only if its consent is known: else a leave of one who never consented would bring in force, and so end, what waits for others.
    fn has_its_consents(&self) -> bool {
        let has_consented = |record: &PartyRecord| matches!(record.state, PartyState::Consented | PartyState::Left);
        let is_known = |record: &&PartyRecord| {
            let said = if record.state == PartyState::Left { record.before_leave } else { record.state };
            said == PartyState::Consented
        };
        match self.text.in_force {
            InForceAmong::All => self.parties.values().chain(self.outgoing.values()).all(has_consented),
            InForceAmong::Each => self.parties.values().filter(is_known).count() >= AGREEMENT_MEMBERS_MIN,
        }
    }

    fn decline(&mut self, word: &Word<'_>, reason: Option<&Title>) {
        let state = self.state;
        let is_each = self.text.in_force == InForceAmong::Each;
        // One that is in force was declined before: a consent that nobody took came back first. What it amended ended with it, and stays so.
        let is_alive = matches!(state, AgreementState::Proposed | AgreementState::InForce);
        let Some(record) = self.record_mut(word.by).filter(|_| is_alive || is_each) else { return };
        record.state = PartyState::Declined;
        record.at = word.at;
        record.reason = reason.cloned();
        record.said.push(word.position);
        // It goes off what is in force among each who consents, and ends it for nobody else, unless too few are left who could consent.
        let could = self.parties.values().filter(|record| record.state != PartyState::Declined).count();
        match state {
            AgreementState::InForce if is_each => self.stop_where_over(word.position, word.at),
            AgreementState::Proposed if is_each && could >= AGREEMENT_MEMBERS_MIN => {}
            AgreementState::Proposed | AgreementState::InForce => {
                self.state = AgreementState::Declined;
                self.ended_at = Some(word.at);
                self.ended_since = (state == AgreementState::InForce).then_some(word.position);
            }
            _ => {}
        }
    }

    fn leave(&mut self, digest: &Digest, word: &Word<'_>) {
        // Of one that waits: of an amendment, or of one that is handed back before the consents that were lost. Of one that was amended or
        // ended: the leave crossed the last consent, or came back after it. It must not be forgotten.
        let waits = !matches!(self.state, AgreementState::InForce | AgreementState::Declined | AgreementState::Lapsed);
        if !waits && !self.is_member(word.by) && !self.has_left(word.by) {
            return;
        }
        let Some(record) = self.record_mut(word.by) else { return };
        record.leaves.insert(*digest);
        record.said.push(word.position);
        if record.state != PartyState::Left {
            record.before_leave = record.state;
            record.state = PartyState::Left;
            record.at = word.at;
            record.left_at = Some(word.position);
        }
    }

    fn has_left(&self, participant: &ParticipantCode) -> bool {
        self.party_state(participant) == Some(PartyState::Left)
    }

    /// A membership begins anew with its return, also where the leave has yet to come back: nothing of before is its any more. In what
    /// the leave was carried to it stands where it stood, since its consent there is a word of its own.
    fn come_back(&mut self, leave: &Digest, word: &Word<'_>, signed: Option<&Signed>) {
        let is_named = signed.is_some();
        let is_begun = self.in_force_since.is_some();
        let Some(record) = self.record_mut(word.by) else { return };
        let was_left = record.state == PartyState::Left;
        record.leaves.remove(leave);
        if is_named {
            record.returned_from.insert(*leave);
            record.said.push(word.position);
        }
        if !record.leaves.is_empty() || record.state == PartyState::Declined || !is_named && !was_left {
            return;
        }
        if let Some(since) = record.member_since {
            record.earlier.push(Membership { since, left: record.left_at.unwrap_or(word.position) });
        }
        record.state = if is_named { PartyState::Consented } else { record.before_leave };
        record.at = word.at;
        record.left_at = None;
        let is_in = is_begun && record.state == PartyState::Consented;
        record.member_since = is_in.then_some(word.position);
        record.returned = signed.cloned().or(record.returned.take());
        self.go_on_where_ended();
    }

    fn say_end(&mut self, word: &Word<'_>) {
        // Handed back before the consents that were lost, it counts when they come.
        if let Some(record) = self.parties.get_mut(word.by)
            && record.ends_at.is_none()
        {
            record.ends_at = Some(word.at);
            record.said.push(word.position);
            self.stop_where_over(word.position, word.at);
        }
    }

    fn stop_where_over(&mut self, position: u64, at: Timestamp) {
        if self.state == AgreementState::InForce && self.is_over() {
            self.stop(AgreementState::Ended, position, at);
        }
    }

    /// Of one that is handed back, leaves may come before the consents and returns by which it went on all the same.
    fn go_on_where_ended(&mut self) {
        if self.state == AgreementState::Ended && !self.is_over() {
            self.state = AgreementState::InForce;
            self.ended_at = None;
            self.ended_since = None;
        }
    }

    fn is_over(&self) -> bool {
        let members = || self.parties.values().filter(|record| record.state == PartyState::Consented);
        members().count() < AGREEMENT_MEMBERS_MIN || members().all(|record| record.ends_at.is_some())
    }

    fn stop(&mut self, state: AgreementState, position: u64, at: Timestamp) {
        self.state = state;
        self.ended_at = Some(at);
        self.ended_since = Some(position);
    }
}
