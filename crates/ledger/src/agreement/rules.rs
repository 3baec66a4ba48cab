//! What may be said about agreements. The hub decides with these, and a node refuses with them before it signs for nothing.

use concord_model::limits::{AGREEMENT_MEASURES_MAX, AGREEMENT_PARTIES_MAX};
use concord_model::{AgreementId, AgreementRef, AgreementText, ParticipantCode, Reason, Refusal};

use super::{AGREEMENT_MEMBERS_MIN, Agreement, AgreementState, Agreements, PartyState};
use crate::epoch::Epochs;
use crate::registry::Registry;
use crate::statement::StatementContent;

/// Whether a participant may say this now: the rules of every kind of statement.
pub fn check_content(
    registry: &Registry,
    agreements: &Agreements,
    epochs: &Epochs,
    by: &ParticipantCode,
    content: &StatementContent,
) -> Result<(), Refusal> {
    match content {
        StatementContent::Propose { text, .. } => agreements.check_propose(registry, by, text),
        StatementContent::Consent(reference) => agreements.check_consent(registry, by, reference),
        StatementContent::Decline(reference) => agreements.check_decline(by, reference),
        StatementContent::Leave(reference) => agreements.check_leave(by, reference),
        StatementContent::Enrol(request) => registry.check_enrol(by, request),
        StatementContent::Replace(replacement) => epochs.check_replace(registry, by, &replacement.request),
        StatementContent::OpenEpoch(opening) => epochs.check_open(registry, by, opening),
    }
}

impl Agreements {
    /// Whether a participant may propose this version now.
    pub fn check_propose(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        text: &AgreementText,
    ) -> Result<(), Refusal> {
        let id = &text.id;
        if id.proposer() != *by {
            return Err(Refusal::new(
                Reason::AgreementNotOwn,
                format!("{by} cannot propose {id}, which is not under its own code"),
            ));
        }
        let latest = self.get(id);
        if let Some(AgreementState::Proposed | AgreementState::InForce) = latest.map(|latest| latest.state) {
            return Err(Refusal::new(Reason::AgreementExists, format!("{id} waits for consents or is in force")));
        }
        let last_version = latest.map_or(0, |latest| latest.text.version);
        if last_version.checked_add(1) != Some(text.version) {
            return Err(malformed(format!(
                "the last version of {id} is {last_version}, so the next cannot be {}",
                text.version
            )));
        }
        check_form(text, by)?;
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

    /// Whether a participant may consent to this version now. One's own consent again is harmless.
    pub fn check_consent(
        &self,
        registry: &Registry,
        by: &ParticipantCode,
        reference: &AgreementRef,
    ) -> Result<(), Refusal> {
        let agreement = self.named_by(by, reference)?;
        if self.repeats_consent(by, reference) {
            return Ok(());
        }
        if agreement.state != AgreementState::Proposed {
            return Err(not_pending(&reference.id));
        }
        agreement.text.parties.iter().try_for_each(|party| registry.check_keys(party))
    }

    /// Whether this consent only says again what its participant said, about a version that waits or is in force.
    pub fn repeats_consent(&self, by: &ParticipantCode, reference: &AgreementRef) -> bool {
        self.named_by(by, reference).is_ok_and(|agreement| {
            agreement.party_state(by) == Some(PartyState::Consented)
                && matches!(agreement.state, AgreementState::Proposed | AgreementState::InForce)
        })
    }

    /// Whether a participant may end this proposal now; one that consented before may, too.
    pub fn check_decline(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<(), Refusal> {
        match self.named_by(by, reference)?.state {
            AgreementState::Proposed => Ok(()),
            _ => Err(not_pending(&reference.id)),
        }
    }

    /// Whether a participant may leave now, whatever version came since.
    pub fn check_leave(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<(), Refusal> {
        let id = &reference.id;
        let named = self.version(reference).filter(|named| named.parties.contains_key(by));
        let Some(agreement) = named else { return self.named_by(by, reference).map(|_| ()) };
        // One who left hears the same whether the others go on or not.
        if agreement.is_member(by) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::AgreementNotInForce,
            format!("{by} is not a member of {id} now, so there is nothing to leave"),
        ))
    }

    /// The version that a participant's statement is about, if it names the latest one that it is on.
    fn named_by(&self, by: &ParticipantCode, reference: &AgreementRef) -> Result<&Agreement, Refusal> {
        let agreement = self.seen_by(by, &reference.id).ok_or_else(|| Refusal::agreement_unknown(&reference.id))?;
        if agreement.text.version == reference.version && agreement.digest == reference.digest {
            return Ok(agreement);
        }
        Err(Refusal::new(
            Reason::AgreementVersionMismatch,
            format!(
                "the latest version of {} is {} and has another digest or number than the one named",
                reference.id, agreement.text.version
            ),
        ))
    }
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
    Ok(())
}

fn malformed(message: String) -> Refusal {
    Refusal::new(Reason::AgreementMalformed, message)
}

fn not_pending(id: &AgreementId) -> Refusal {
    Refusal::new(Reason::AgreementNotPending, format!("{id} does not wait for consents"))
}
