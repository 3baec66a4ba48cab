//! The permit: whether a recipient may have an exchange now. Asked when it is recorded, and again when it is sent.

use concord_model::{AgreementRef, ParticipantCode, Timestamp, WithheldReason};

use crate::agreement::{AgreementState, Agreements, PartyState};
use crate::ledger::Ledger;

/// What a permit is asked for: one delivery, as its consignment's entry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail<'a> {
    /// The journal sequence of the consignment.
    pub recorded: u64,
    /// The version that decided its audience.
    pub agreement: &'a AgreementRef,
}

/// Proof that the permit was asked for this recipient and this entry, and given.
///
/// Only [`Ledger::permit`] makes one, and it cannot be copied, so that what writes to a delivery stream asks each time:
///
/// ```compile_fail
/// fn keep(permit: &concord_ledger::Permit) -> concord_ledger::Permit {
///     permit.clone()
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not shown to the delivery stream permits nothing"]
pub struct Permit {
    recipient: ParticipantCode,
    recorded: u64,
}

impl Permit {
    /// Whom it permits to receive.
    pub fn recipient(&self) -> &ParticipantCode {
        &self.recipient
    }

    /// The journal sequence of the entry that it permits to be received.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }
}

impl Ledger {
    /// Whether a recipient may have this now: recorded within its current unbroken membership.
    ///
    /// A refusal is final: no later statement makes the same mail permitted again. Expiry is not built yet; it will be judged by
    /// the moment given, never by a clock.
    pub fn permit(
        &self,
        recipient: &ParticipantCode,
        mail: &Mail<'_>,
        _now: Timestamp,
    ) -> Result<Permit, WithheldReason> {
        judge(self.agreements(), recipient, mail)?;
        Ok(Permit { recipient: recipient.clone(), recorded: mail.recorded })
    }
}

fn judge(agreements: &Agreements, recipient: &ParticipantCode, mail: &Mail<'_>) -> Result<(), WithheldReason> {
    let id = &mail.agreement.id;
    let is_named = |agreement: &crate::Agreement| agreement.parties.contains_key(recipient);
    if !agreements.version(mail.agreement).is_some_and(is_named) {
        return Err(WithheldReason::Left);
    }
    // Membership begins with a version and is never taken up again within it: so a rejoin is always a later version,
    // and what was recorded under the one before rests on a membership that was broken.
    let rested_on = agreements
        .versions(id)
        .find(|agreement| agreement.in_force_since.is_some_and(|since| since <= mail.recorded))
        .ok_or(WithheldReason::Left)?;
    if rested_on.party_state(recipient) != Some(PartyState::Consented) {
        return Err(WithheldReason::Left);
    }
    let is_latest = agreements.get(id).is_some_and(|latest| std::ptr::eq(latest, rested_on));
    if rested_on.state != AgreementState::InForce || !is_latest {
        return Err(WithheldReason::AgreementEnded);
    }
    Ok(())
}
