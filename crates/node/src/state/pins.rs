//! How the keys of others stand to what this participant's officers consented to.

use concord_identity::enrolment_fingerprint;
use concord_ledger::Enrolment;
use concord_model::{AgreementId, Fingerprint, ParticipantCode, Reason, Refusal};

use super::{NodeState, Step};

/// The present keys of another participant.
pub struct Pin<'a> {
    /// Whose.
    pub participant: &'a ParticipantCode,
    /// The keys.
    pub keys: &'a Enrolment,
    /// How they stand.
    pub state: PinState,
    /// The agreements in force here whose version names keys from which no word leads to the present ones.
    pub waiting: Vec<AgreementId>,
}

/// How present keys stand to what was consented to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// Nothing that was consented to names keys of it.
    Unused,
    /// A consent names them.
    Consented,
    /// An officer confirmed them.
    Confirmed,
    /// They changed without its own word.
    Waits,
}

impl NodeState {
    /// The keys of all others that are enrolled, by participant. The hub's own are pinned by the bundle, and not among them.
    pub fn pins(&self) -> Vec<Pin<'_>> {
        let Some((own, _)) = self.identity() else { return Vec::new() };
        let enrolments = self.directory().registry.enrolments();
        let others = enrolments.filter(|(code, _)| *code != own && **code != ParticipantCode::secretariat());
        others.map(|(participant, keys)| self.pin(own, participant, keys)).collect()
    }

    fn pin<'a>(&self, own: &ParticipantCode, participant: &'a ParticipantCode, keys: &'a Enrolment) -> Pin<'a> {
        let directory = self.directory();
        let present = keys.signing_key.fingerprint;
        let (mut waiting, mut is_named) = (Vec::new(), false);
        for agreement in directory.agreements.visible_to(own) {
            let in_force = directory.agreements.in_force(&agreement.text.id).filter(|now| now.is_member(own));
            let Some(party) = in_force.and_then(|now| now.text.party(participant)) else { continue };
            is_named = true;
            if !directory.counts(participant, &party.signing_key, &present) {
                waiting.push(agreement.text.id.clone());
            }
        }
        waiting.dedup();
        let state = match () {
            () if !waiting.is_empty() => PinState::Waits,
            () if directory.is_confirmed(participant, &present) => PinState::Confirmed,
            () if is_named || directory.is_consented(participant, &present) => PinState::Consented,
            () => PinState::Unused,
        };
        Pin { participant, keys, state, waiting }
    }

    /// Whether an officer may confirm a participant's present keys, which were read out with this fingerprint; with the signing key.
    ///
    /// Refuses with `ARGUMENT_INVALID`, `PARTICIPANT_UNKNOWN`, `PARTICIPANT_NOT_ENROLLED` and `FINGERPRINT_MISMATCH`.
    pub fn decide_pin(&self, whose: &ParticipantCode, said: &Fingerprint) -> Result<(Step, Fingerprint), Refusal> {
        let registry = &self.directory().registry;
        let is_own = self.identity().is_some_and(|(own, _)| own == whose);
        if is_own || *whose == ParticipantCode::secretariat() {
            let what = "the node's own keys and the hub's are confirmed by nobody here: the one are its own, the other came with the bundle";
            return Err(Refusal::new(Reason::ArgumentInvalid, what));
        }
        if registry.participant(whose).is_none() {
            let what = format!("there is no participant {whose} in the registry");
            return Err(Refusal::new(Reason::ParticipantUnknown, what));
        }
        let keys = registry
            .enrolment(whose)
            .ok_or_else(|| Refusal::new(Reason::ParticipantNotEnrolled, format!("{whose} has no keys to confirm")))?;
        let present = enrolment_fingerprint(whose, &keys.anchor, &keys.signing_key);
        if present != *said {
            let what = format!(
                "the present keys of {whose} have the fingerprint {}, and what was read out is {}: nothing was confirmed",
                present.grouped(),
                said.grouped()
            );
            return Err(Refusal::new(Reason::FingerprintMismatch, what));
        }
        let key = keys.signing_key.fingerprint;
        let is_known = self.directory().is_confirmed(whose, &key);
        Ok((if is_known { Step::Repeat } else { Step::Append }, key))
    }
}
