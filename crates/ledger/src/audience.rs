//! Who gets an exchange. The hub decides with this; the origin's node refuses with it before it queues.

use concord_model::{AgreementId, AgreementRef, Header, ParticipantCode, Reason, Refusal};

use crate::agreement::{AgreementState, Agreements, PartyState};
use crate::registry::Registry;

/// The recipients of an exchange under exactly one version of an agreement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Audience {
    /// The version that the exchange names.
    pub agreement: AgreementRef,
    /// Sorted, not empty, without the origin.
    pub recipients: Vec<ParticipantCode>,
}

/// Members of the named version ∩ members now ∩ the origin's narrowing − the origin; nothing ever falls back to "all".
///
/// An origin that is not on the agreement, or left it, hears `AGREEMENT_UNKNOWN` whatever else is wrong.
/// A narrowing may name the origin itself, which changes nothing.
pub fn audience(
    agreements: &Agreements,
    registry: &Registry,
    origin: &ParticipantCode,
    header: &Header,
) -> Result<Audience, Refusal> {
    let reference = &header.agreement;
    let id = &reference.id;
    let now = agreements
        .seen_by(origin, id)
        .filter(|agreement| agreement.party_state(origin) != Some(PartyState::Left))
        .ok_or_else(|| Refusal::agreement_unknown(id))?;
    if now.state != AgreementState::InForce {
        return Err(Refusal::new(Reason::AgreementNotInForce, format!("{id} is not in force")));
    }
    // A version that was never in force had no members; one without the origin does not exist for it.
    let named = agreements
        .version(reference)
        .filter(|named| named.in_force_since.is_some())
        .ok_or_else(|| version_mismatch(id, reference.version))?;
    let own_party = named.text.party(origin).ok_or_else(|| version_mismatch(id, reference.version))?;

    // An older version may be named, but what the members of today did not agree to exchange is not exchanged.
    let measure = &header.measure;
    if !named.text.measures.contains(measure) || !now.text.measures.contains(measure) {
        return Err(Refusal::new(Reason::MeasureNotInAgreement, format!("{id} does not cover {measure}")));
    }
    registry.check_keys(own_party)?;

    let narrowing = header.narrowing.as_ref().map(|narrowing| narrowing.participants());
    let stranger = narrowing.and_then(|names| names.iter().find(|name| !named.parties.contains_key(name)));
    if let Some(stranger) = stranger {
        return Err(Refusal::new(
            Reason::NarrowingInvalid,
            format!("{stranger} is not on version {} of {id}", reference.version),
        ));
    }
    let recipients: Vec<_> = now
        .members()
        .filter(|member| named.parties.contains_key(member))
        .filter(|member| narrowing.is_none_or(|names| names.contains(member)))
        .filter(|member| *member != origin)
        .cloned()
        .collect();
    if recipients.is_empty() {
        return Err(audience_empty(id));
    }
    Ok(Audience { agreement: reference.clone(), recipients })
}

pub(crate) fn audience_empty(id: &AgreementId) -> Refusal {
    Refusal::new(Reason::AudienceEmpty, format!("nobody on {id} but the origin is left to receive it"))
}

fn version_mismatch(id: &AgreementId, version: u32) -> Refusal {
    Refusal::new(
        Reason::AgreementVersionMismatch,
        format!("there is no version {version} of {id} with this digest under which you may send"),
    )
}
