//! What may be said about agreements. The hub decides with these, and a node refuses with them before it signs for nothing.

use concord_model::limits::{AGREEMENT_MEASURES_MAX, AGREEMENT_MEDIA_MAX, AGREEMENT_PARTIES_MAX};
use concord_model::{
    AgreementId, AgreementRef, AgreementText, Digest, InForceAmong, ParticipantCode, Reason, Refusal, Timestamp,
};

use super::{AGREEMENT_MEMBERS_MIN, Agreement, AgreementState, Agreements, PartyState};
use crate::contact::check_contact;
use crate::decision::check_decision;
use crate::epoch::Epochs;
use crate::hold::{check_hold, check_release};
use crate::registry::Registry;
use crate::role::check_role;
use crate::statement::StatementContent;

/// Whether a participant may say this now: the rules of every kind of statement.
pub fn check_content(
    registry: &Registry,
    agreements: &Agreements,
    epochs: &Epochs,
    by: &ParticipantCode,
    content: &StatementContent,
    now: Timestamp,
) -> Result<(), Refusal> {
    match content {
        StatementContent::Propose { text, .. } => agreements.check_propose(registry, by, text, now),
        StatementContent::Consent(reference) => agreements.check_consent(registry, by, reference, now),
        StatementContent::Decline(reference, _) => agreements.check_decline(by, reference),
        StatementContent::Leave(reference) => agreements.check_leave(by, reference),
        StatementContent::Return(reference, leave) => agreements.check_return(registry, by, reference, leave, now),
        StatementContent::End(reference) => agreements.check_end(by, reference),
        StatementContent::Enrol(request) => registry.check_enrol(by, request),
        StatementContent::Replace(replacement) => epochs.check_replace(registry, by, &replacement.request),
        StatementContent::OpenEpoch(opening) => epochs.check_open(registry, by, opening),
        StatementContent::RotateKey(rotation) => epochs.check_rotate(registry, by, rotation),
        StatementContent::SucceedAnchor(next) => registry.check_succeed(by, next),
        StatementContent::EndAnchor(anchor) => registry.check_end(by, anchor),
        StatementContent::Hold { participant, .. } => check_hold(registry, by, participant),
        StatementContent::Release(hold) => check_release(registry, by, hold),
        StatementContent::Decided(decision) => check_decision(registry, by, decision),
        StatementContent::Approve(_) | StatementContent::Reject(_) if *by != ParticipantCode::secretariat() => {
            let what = "only the secretariat's officers sign for each other; a state's officer speaks for it alone";
            Err(Refusal::new(Reason::CallerNotAllowed, what))
        }
        // What waits, the hub's ledger alone knows.
        StatementContent::Approve(_) | StatementContent::Reject(_) => Ok(()),
        StatementContent::SetContact(setting) => check_contact(registry, by, setting),
        StatementContent::Role(decision) => check_role(registry, by, decision),
    }
}

impl Agreements {
    /// Whether a participant may propose this version now: the first under its own code, an amendment where it is a member.
    pub fn check_propose(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        text: &AgreementText,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let id = &text.id;
        let in_force = self.in_force(id);
        let is_member = in_force.is_some_and(|agreement| agreement.is_member(by));
        if id.proposer() != *by && !is_member {
            return Err(Refusal::new(
                Reason::AgreementNotOwn,
                format!("{by} cannot propose {id}, which is not under its own code and which it is not a member of"),
            ));
        }
        if self.is_gone(by, id) {
            let what = format!("{by} left {id}, or went by an amendment: propose an agreement under another name");
            return Err(Refusal::new(Reason::AgreementExists, what));
        }
        let latest = self.get(id);
        if latest.is_some_and(|latest| latest.state == AgreementState::Proposed) || in_force.is_some() && !is_member {
            return Err(Refusal::new(Reason::AgreementExists, format!("{id} waits for consents or is in force")));
        }
        let last_version = latest.map_or(0, |latest| latest.text.version);
        // Whoever was not on a version that was declined does not know of it: at a node numbers may be missing.
        if text.version <= last_version {
            return Err(number_taken(id, last_version, text.version));
        }
        check_form(text, by)?;
        check_amendment(in_force, text)?;
        if text.valid_until.is_some_and(|until| until <= now) {
            return Err(malformed("its time would be over before it began".to_owned()));
        }
        for measure in &text.measures {
            if registry.measure(measure).is_none() {
                return Err(Refusal::new(
                    Reason::MeasureUnknown,
                    format!("there is no measure {measure} in the catalogue"),
                ));
            }
        }
        for party in &text.parties {
            let code = &party.participant;
            if registry.participant(code).is_none() {
                return Err(Refusal::new(
                    Reason::ParticipantUnknown,
                    format!("there is no participant {code} in the registry"),
                ));
            }
            registry.check_keys(party)?;
        }
        Ok(())
    }

    /// Whether a proposal has the number after the last one that there is: asked by the hub, which knows of every version.
    pub(crate) fn check_number(&self, content: &StatementContent) -> Result<(), Refusal> {
        let StatementContent::Propose { text, .. } = content else { return Ok(()) };
        let last = self.get(&text.id).map_or(0, |latest| latest.text.version);
        if last.checked_add(1) == Some(text.version) { Ok(()) } else { Err(number_taken(&text.id, last, text.version)) }
    }

    /// Whether what becomes of an agreement is no business any more of this participant, who was a member once. Not where it ended with
    /// its own leave, as it knows.
    fn is_gone(&self, by: &ParticipantCode, id: &AgreementId) -> bool {
        let Some(seen) = self.seen_by(by, id) else { return false };
        match seen.record(by) {
            Some(record) if record.state == PartyState::Left => seen.ended_since != record.left_at,
            Some(record) if record.state == PartyState::Declined => seen.state != AgreementState::Declined,
            _ => seen.state == AgreementState::Amended && !self.is_member(id, by),
        }
    }

    /// Whether a participant may consent to this version now. One's own consent again is harmless.
    pub fn check_consent(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        reference: &AgreementRef,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let agreement = self.named_by(by, reference)?;
        if self.repeats_consent(by, reference) {
            return Ok(());
        }
        // Who is to go by an amendment is settled when it is proposed: nobody joins what is about to be amended.
        let joins_late = agreement.state == AgreementState::InForce;
        if !agreement.waits_for(by)
            || agreement.text.valid_until.is_some_and(|until| until <= now)
            || joins_late && !self.may_join(by, agreement)
        {
            // To one that never answered it is shown as waiting until it declines: what became of it is not its matter.
            let is_each = agreement.text.in_force == InForceAmong::Each;
            let never_answered = is_each && agreement.party_state(by) == Some(PartyState::Pending);
            return Err(if never_answered { takes_no_consent(&reference.id) } else { not_pending(&reference.id) });
        }
        agreement.text.parties.iter().try_for_each(|party| registry.check_keys(party))
    }

    /// Whether a participant may come back now to a version that it left. Why not, it hears in one word, whatever became of it: that is not
    /// its matter any more. One's own return again is harmless.
    pub fn check_return(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        reference: &AgreementRef,
        leave: &Digest,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let agreement = self.named_by(by, reference)?;
        let record = agreement.parties.get(by);
        let came_back = record.is_some_and(|record| record.returned_from.contains(leave));
        if came_back && self.repeats_consent(by, reference) {
            return Ok(());
        }
        let may_again = agreement.may_return_from(by, leave);
        let is_over = agreement.text.valid_until.is_some_and(|until| until <= now);
        if agreement.left_by(by) != Some(*leave) || !self.may_join(by, agreement) || is_over || !may_again {
            return Err(nothing_to_come_back_to(reference));
        }
        agreement.text.parties.iter().try_for_each(|party| registry.check_keys(party))
    }

    /// Whether a version is in force and no amendment of it waits that was proposed without this participant: else it would go by that
    /// without having been asked.
    fn may_join(&self, by: &ParticipantCode, version: &Agreement) -> bool {
        let is_it = |one: &Agreement| one.text.version == version.text.version;
        let waits = |latest: &Agreement| latest.state == AgreementState::Proposed && latest.record(by).is_none();
        self.in_force(&version.text.id).is_some_and(is_it) && !self.get(&version.text.id).is_some_and(waits)
    }

    /// Whether this consent only says again what its participant said, about a version that waits or is in force.
    pub fn repeats_consent(&self, by: &ParticipantCode, reference: &AgreementRef) -> bool {
        self.named_by(by, reference).is_ok_and(|agreement| {
            // Whoever went by it hears no more of it than of one that is over.
            agreement.concerns(by)
                && agreement.party_state(by) == Some(PartyState::Consented)
                && matches!(agreement.state, AgreementState::Proposed | AgreementState::InForce)
        })
    }

    /// Whether a participant may end this proposal now; one that consented before may, too.
    pub fn check_decline(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<(), Refusal> {
        let agreement = self.named_by(by, reference)?;
        // Whoever never answered what was in force among others takes it off its list so, also when it is over: of its end it may not have heard.
        let is_each = agreement.text.in_force == InForceAmong::Each && agreement.state != AgreementState::Declined;
        match (agreement.state, agreement.party_state(by)) {
            (AgreementState::Proposed, Some(PartyState::Pending | PartyState::Consented)) => Ok(()),
            (_, Some(PartyState::Pending)) if is_each => Ok(()),
            _ => Err(not_pending(&reference.id)),
        }
    }

    /// Whether a participant may leave now: the version that it is a member of, or the one which that amends, since a leave may cross
    /// the last consent on its way.
    pub fn check_leave(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<(), Refusal> {
        let id = &reference.id;
        let named = self.version(reference).filter(|named| named.parties.contains_key(by));
        if named.is_none() {
            return self.named_by(by, reference).and_then(|_| Err(not_a_member(by, id)));
        }
        // One who left hears the same whether the others go on or not.
        let Some(now) = self.in_force(id).filter(|now| now.is_member(by)) else { return Err(not_a_member(by, id)) };
        if now.is(reference) {
            return Ok(());
        }
        // Who would join by an amendment that waits does not know of versions before the one that it amends: nothing may rest on them.
        let crossed = now.text.amends.as_ref() == Some(reference);
        let waits = self.get(id).is_some_and(|latest| latest.state == AgreementState::Proposed);
        if crossed && !waits { Ok(()) } else { Err(amended(now)) }
    }

    /// Whether a participant may say now that this version is to end.
    pub fn check_end(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<(), Refusal> {
        let id = &reference.id;
        self.named_by(by, reference)?;
        match self.in_force(id).filter(|now| now.is_member(by)) {
            Some(now) if now.is(reference) => Ok(()),
            Some(now) => Err(amended(now)),
            None => Err(not_a_member(by, id)),
        }
    }

    /// The version that a participant's statement is about, if that concerns it.
    fn named_by(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<&Agreement, Refusal> {
        let id = &reference.id;
        let seen = self.seen_by(by, id).ok_or_else(|| Refusal::agreement_unknown(id))?;
        let named = self.version(reference).filter(|named| named.record(by).is_some());
        named.ok_or_else(|| {
            let latest = seen.text.version;
            let what =
                format!("the latest version of {id} is {latest} and has another digest or number than the one named");
            Refusal::new(Reason::AgreementVersionMismatch, what)
        })
    }
}

/// Whether a text takes the place of what is in force, and of nothing else.
pub(crate) fn check_amendment(in_force: Option<&Agreement>, text: &AgreementText) -> Result<(), Refusal> {
    let id = &text.id;
    let now = match (in_force, &text.amends) {
        (None, None) => return Ok(()),
        (Some(now), Some(amends)) if now.is(amends) => now,
        (Some(now), Some(_)) => return Err(amended(now)),
        (Some(_), None) => {
            return Err(Refusal::new(
                Reason::AgreementExists,
                format!("{id} is in force: amend it, or choose another id"),
            ));
        }
        (None, Some(_)) => {
            let what = format!("no version of {id} is in force, so there is nothing to amend");
            return Err(Refusal::new(Reason::AgreementNotInForce, what));
        }
    };
    let back = |(code, record): &(&ParticipantCode, &super::PartyRecord)| {
        record.state == PartyState::Left && text.party(code).is_some()
    };
    if let Some((code, _)) = now.parties.iter().find(back) {
        let what = format!(
            "{code} left version {}, and no amendment takes it in again: it may come back to that version first",
            now.text.version
        );
        return Err(malformed(what));
    }
    let outgoing: Vec<_> = now.members().filter(|member| text.party(member).is_none()).cloned().collect();
    if outgoing != text.outgoing {
        let names =
            |codes: &[ParticipantCode]| codes.iter().map(ParticipantCode::as_str).collect::<Vec<_>>().join(", ");
        let what = format!("the members that go are [{}], not [{}]", names(&outgoing), names(&text.outgoing));
        return Err(malformed(what));
    }
    Ok(())
}

pub(crate) fn check_form(text: &AgreementText, by: &ParticipantCode) -> Result<(), Refusal> {
    let (parties, measures) = (text.parties.len(), text.measures.len());
    if !(AGREEMENT_MEMBERS_MIN..=AGREEMENT_PARTIES_MAX).contains(&parties) {
        return Err(malformed(format!(
            "an agreement has {AGREEMENT_MEMBERS_MIN} to {AGREEMENT_PARTIES_MAX} participants, not {parties}"
        )));
    }
    if !(1..=AGREEMENT_MEASURES_MAX).contains(&measures) {
        return Err(malformed(format!("an agreement has 1 to {AGREEMENT_MEASURES_MAX} measures, not {measures}")));
    }
    if !text.parties.is_sorted_by(|one, next| one.participant < next.participant) {
        return Err(malformed("the participants are not sorted, or one is named twice".to_owned()));
    }
    if !text.measures.is_sorted_by(|one, next| one < next) {
        return Err(malformed("the measures are not sorted, or one is named twice".to_owned()));
    }
    if text.party(by).is_none() {
        return Err(malformed(format!("the proposer {by} is not among the participants")));
    }
    check_roles(text)?;
    let media = &text.terms.media;
    if media.len() > AGREEMENT_MEDIA_MAX || !media.is_sorted_by(|one, next| one < next) {
        let what =
            format!("the media types are not sorted, one is named twice, or they are more than {AGREEMENT_MEDIA_MAX}");
        return Err(malformed(what));
    }
    let terms = &text.terms;
    if terms.body_size_max_bytes == Some(0) || terms.retention_days == Some(0) {
        return Err(malformed("a size or a number of days that is stated is not 0".to_owned()));
    }
    let outgoing = &text.outgoing;
    let is_other = |code: &ParticipantCode| text.party(code).is_none();
    if !outgoing.is_sorted_by(|one, next| one < next) || !outgoing.iter().all(is_other) {
        return Err(malformed("those who go are not sorted, or one of them stays".to_owned()));
    }
    if text.amends.is_some() && text.in_force == InForceAmong::Each {
        let what =
            "an amendment is in force among all on it, whatever it amends was: it changes what each has agreed to"
                .to_owned();
        return Err(malformed(what));
    }
    match &text.amends {
        None if !outgoing.is_empty() => Err(malformed("it amends nothing, so nobody can go".to_owned())),
        Some(amends) if amends.id != text.id || amends.version >= text.version => {
            Err(malformed("it amends another agreement, or a later version".to_owned()))
        }
        _ => Ok(()),
    }
}

/// There is somebody who sends, and somebody else who is sent it.
fn check_roles(text: &AgreementText) -> Result<(), Refusal> {
    let pair = text.parties.iter().any(|one| {
        let others = text.parties.iter().filter(|other| other.participant != one.participant);
        one.role.contributes() && others.into_iter().any(|other| other.role.receives())
    });
    if pair { Ok(()) } else { Err(malformed("by their roles nobody would be sent anything".to_owned())) }
}

fn amended(now: &Agreement) -> Refusal {
    let what = format!("version {} of {} is in force now, which is not the one named", now.text.version, now.text.id);
    Refusal::new(Reason::AgreementAmended, what)
}

fn not_a_member(by: &ParticipantCode, id: &AgreementId) -> Refusal {
    Refusal::new(
        Reason::AgreementNotInForce,
        format!("{by} is not a member of {id} now, so there is nothing to leave or end"),
    )
}

fn malformed(message: String) -> Refusal {
    Refusal::new(Reason::AgreementMalformed, message)
}

fn nothing_to_come_back_to(reference: &AgreementRef) -> Refusal {
    let AgreementRef { id, version, .. } = reference;
    let what = format!(
        "there is nothing to come back to: version {version} of {id} is in force no more, is about to be amended, or was not left by that leave"
    );
    Refusal::new(Reason::AgreementNotInForce, what)
}

fn not_pending(id: &AgreementId) -> Refusal {
    Refusal::new(Reason::AgreementNotPending, format!("{id} does not wait for consents"))
}

fn takes_no_consent(id: &AgreementId) -> Refusal {
    let what = format!("{id} takes no consent now: decline it to have it off your list, or wait and try again");
    Refusal::new(Reason::AgreementNotPending, what)
}

fn number_taken(id: &AgreementId, last: u32, number: u32) -> Refusal {
    let next = last.saturating_add(1);
    malformed(format!("the last version of {id} is {last}, so the next has the number {next}, not {number}"))
}
