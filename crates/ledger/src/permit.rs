//! The permit: whether a recipient may have an exchange now. Asked when it is recorded, and again when it is sent.

use concord_model::{AgreementRef, ExchangeId, ParticipantCode, Timestamp, WithheldReason};

use crate::agreement::{Agreement, AgreementState, Agreements, PartyState};
use crate::ledger::Ledger;

/// What a permit is asked for: one delivery, as its consignment's entry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail<'a> {
    /// The journal sequence of the consignment.
    pub recorded: u64,
    /// The version that decided its audience.
    pub agreement: &'a AgreementRef,
    /// When it expires, if it does.
    pub expires_at: Option<Timestamp>,
    /// Its origin and its id, by which it may have been withdrawn; none while it is being decided.
    pub exchange: Option<(&'a ParticipantCode, ExchangeId)>,
    /// It is a withdrawal itself.
    pub withdraws: bool,
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
    /// Whether a recipient may have this now: recorded within its current unbroken membership as one who receives, not withdrawn, and not
    /// expired. Of a withdrawal nothing is asked: whoever is in the frozen audience of what is withdrawn may be told so for ever.
    ///
    /// A refusal is final: no later statement makes the same mail permitted again. Expiry is judged by the moment given, never by a
    /// clock, and never before what was recorded last.
    pub fn permit(
        &self,
        recipient: &ParticipantCode,
        mail: &Mail<'_>,
        now: Timestamp,
    ) -> Result<Permit, WithheldReason> {
        let permit = || Permit { recipient: recipient.clone(), recorded: mail.recorded };
        if mail.withdraws {
            return Ok(permit());
        }
        if mail.exchange.is_some_and(|(origin, id)| self.withdrawals().is_withdrawn(origin, &id)) {
            return Err(WithheldReason::Withdrawn);
        }
        judge(self.agreements(), recipient, mail)?;
        if mail.expires_at.is_some_and(|expires| expires <= self.recorded_at(now)) {
            return Err(WithheldReason::Expired);
        }
        Ok(permit())
    }
}

fn judge(agreements: &Agreements, recipient: &ParticipantCode, mail: &Mail<'_>) -> Result<(), WithheldReason> {
    let id = &mail.agreement.id;
    let is_named = |agreement: &Agreement| agreement.parties.contains_key(recipient);
    if !agreements.version(mail.agreement).is_some_and(is_named) {
        return Err(WithheldReason::Left);
    }
    let current = agreements.in_force(id);
    let membership = current.and_then(|current| current.membership(recipient));
    if membership.and_then(|record| record.member_since).is_some_and(|since| since <= mail.recorded) {
        // One that only contributed in between gets nothing of before, as one that went: what was withheld once stays so.
        let receives = agreements.receives_since(id, recipient, mail.recorded);
        return if receives { Ok(()) } else { Err(WithheldReason::Removed) };
    }
    Err(why_not(agreements, recipient, mail))
}

/// Why the membership in which something was recorded is over.
fn why_not(agreements: &Agreements, recipient: &ParticipantCode, mail: &Mail<'_>) -> WithheldReason {
    let began = |version: &&Agreement| version.in_force_since.is_some_and(|since| since <= mail.recorded);
    let rested_on = agreements.versions(&mail.agreement.id).find(began);
    // It was no member then, and is told no more than whoever left.
    let Some(rested_on) = rested_on.filter(|version| version.parties.contains_key(recipient)) else {
        return WithheldReason::Left;
    };
    let later: Vec<_> = agreements
        .versions(&mail.agreement.id)
        .take_while(|version| version.text.version >= rested_on.text.version)
        .filter(|version| version.in_force_since.is_some())
        .collect();
    // From the version that it was recorded under on: what came first ended it.
    for version in later.into_iter().rev() {
        match version.party_state(recipient) {
            Some(PartyState::Left) => return WithheldReason::Left,
            // It came back since, or joined late: it was no member then.
            _ if version.left_between(recipient, mail.recorded) || version.is_member(recipient) => {
                return WithheldReason::Left;
            }
            Some(PartyState::Consented) if version.parties.contains_key(recipient) => {}
            _ => return WithheldReason::Removed,
        }
        if version.state != AgreementState::Amended {
            return WithheldReason::AgreementEnded;
        }
    }
    WithheldReason::AgreementEnded
}
