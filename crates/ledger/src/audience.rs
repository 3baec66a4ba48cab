//! Who gets an exchange. The hub decides with this; the origin's node refuses with it before it queues.

use concord_model::{
    AgreementId, AgreementRef, Header, InForceAmong, ParticipantCode, PartyRole, Reason, Refusal, Terms, Timestamp,
};

use crate::agreement::{Agreement, AgreementState, Agreements, PartyRecord, PartyState};
use crate::registry::Registry;

/// The recipients of an exchange under exactly one version of an agreement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Audience {
    /// The version that the exchange names.
    pub agreement: AgreementRef,
    /// Sorted, without the origin; empty only of a withdrawal of what has yet to come.
    pub recipients: Vec<ParticipantCode>,
}

/// Members of the named version ∩ members now ∩ the origin's narrowing − the origin, of both versions those who receive; nothing ever
/// falls back to "all".
///
/// An origin that is not on the agreement, or left it, hears `AGREEMENT_UNKNOWN` whatever else is wrong.
/// A narrowing may name the origin itself, which changes nothing.
pub fn audience(
    agreements: &Agreements,
    registry: &Registry,
    origin: &ParticipantCode,
    header: &Header,
    now: Timestamp,
) -> Result<Audience, Refusal> {
    let route = Route::find(agreements, registry, origin, header, now)?;
    route.check(origin, header, now)?;
    route.audience(origin, header)
}

/// Why a party of an agreement would, or would not, be sent an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AudienceRule {
    /// A member that receives.
    Receives,
    /// The same, and its mail waits while it is held.
    ReceivesWhenReleased,
    /// It is the origin.
    IsOrigin,
    /// It is on the version in force to contribute only.
    OnlyContributes,
    /// It left.
    Left,
    /// It is on it and has not consented, or declined: of what is in force among each who consents.
    HasNotConsented,
    /// The origin's narrowing does not name it.
    NotNamed,
    /// It is not on the version that the exchange names, or on the one that was in force when it was recorded.
    NotOnVersion,
}

impl AudienceRule {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Receives,
        Self::ReceivesWhenReleased,
        Self::IsOrigin,
        Self::OnlyContributes,
        Self::Left,
        Self::HasNotConsented,
        Self::NotNamed,
        Self::NotOnVersion,
    ];

    /// The stable code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receives => "RECEIVES",
            Self::ReceivesWhenReleased => "RECEIVES_WHEN_RELEASED",
            Self::IsOrigin => "IS_ORIGIN",
            Self::OnlyContributes => "ONLY_CONTRIBUTES",
            Self::Left => "LEFT",
            Self::HasNotConsented => "HAS_NOT_CONSENTED",
            Self::NotNamed => "NOT_NAMED",
            Self::NotOnVersion => "NOT_ON_VERSION",
        }
    }

    /// Whether it would be sent it.
    pub const fn receives(self) -> bool {
        matches!(self, Self::Receives | Self::ReceivesWhenReleased)
    }
}

/// What [`audience`] would decide about each party of the version in force, and by which rule. Refuses as it does, except that nobody at
/// all may be left to receive it.
pub fn preview(
    agreements: &Agreements,
    registry: &Registry,
    origin: &ParticipantCode,
    header: &Header,
    now: Timestamp,
) -> Result<Vec<(ParticipantCode, AudienceRule)>, Refusal> {
    let route = Route::find(agreements, registry, origin, header, now)?;
    route.check(origin, header, now)?;
    let recipients = match route.audience(origin, header) {
        Ok(audience) => audience.recipients,
        Err(refusal) if refusal.reason == Reason::AudienceEmpty => Vec::new(),
        Err(refusal) => return Err(refusal),
    };
    let rule = |party: &ParticipantCode| {
        if recipients.contains(party) {
            let is_held = registry.holds().is_held(party);
            return if is_held { AudienceRule::ReceivesWhenReleased } else { AudienceRule::Receives };
        }
        match route.current.role(party) {
            _ if party == origin => AudienceRule::IsOrigin,
            _ if !route.current.has_consented(party) => AudienceRule::HasNotConsented,
            _ if !route.current.is_member(party) => AudienceRule::Left,
            Some(role) if !role.receives() => AudienceRule::OnlyContributes,
            _ if route.named.parties.contains_key(party) && !route.named.has_consented(party) => {
                AudienceRule::HasNotConsented
            }
            _ => AudienceRule::NotNamed,
        }
    };
    Ok(route.current.parties.keys().map(|party| (party.clone(), rule(party))).collect())
}

/// Why a participant is not in the audience of an exchange that was recorded at this moment, as its origin knows the agreement.
pub fn why_not_in_audience(
    agreements: &Agreements,
    header: &Header,
    participant: &ParticipantCode,
    recorded_at: Timestamp,
) -> AudienceRule {
    if *participant == header.origin {
        return AudienceRule::IsOrigin;
    }
    let id = &header.agreement.id;
    let began = |version: &&Agreement| version.in_force_at.is_some_and(|since| since <= recorded_at);
    let (named, then) = (agreements.version(&header.agreement), agreements.versions(id).find(began));
    let is_on = |version: Option<&Agreement>| version.is_some_and(|version| version.parties.contains_key(participant));
    if !is_on(named) || !is_on(then) {
        return AudienceRule::NotOnVersion;
    }
    let versions = || [named, then].into_iter().flatten();
    let records = || versions().filter_map(|version| version.parties.get(participant));
    let had_signed = |record: &PartyRecord| record.signed.as_ref().is_some_and(|signed| signed.at <= recorded_at);
    let is_each = versions().any(|version| version.text.in_force == InForceAmong::Each);
    if is_each && !records().all(had_signed) {
        return AudienceRule::HasNotConsented;
    }
    let names = header.narrowing.as_ref().map(|narrowing| narrowing.participants());
    let is_named = names.is_none_or(|names| names.contains(participant));
    let had_left = |record: &PartyRecord| match record.state {
        PartyState::Left => record.at <= recorded_at,
        // It came back since. When it had left is not kept; of one that was not named that is certain.
        _ => is_named && record.returned.as_ref().is_some_and(|returned| returned.at > recorded_at),
    };
    if records().any(had_left) {
        return AudienceRule::Left;
    }
    if !versions().all(|version| version.role(participant).is_some_and(PartyRole::receives)) {
        return AudienceRule::OnlyContributes;
    }
    // It was no member for another reason, such as an agreement that had ended by then.
    if is_named { AudienceRule::NotOnVersion } else { AudienceRule::NotNamed }
}

/// The two versions that decide about an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    /// The one that it names.
    named: &'a Agreement,
    /// The one in force, which its origin is a member of.
    current: &'a Agreement,
}

impl<'a> Route<'a> {
    /// Depends on nothing of the header but agreement and measure.
    pub(crate) fn find(
        agreements: &'a Agreements,
        registry: &Registry,
        origin: &ParticipantCode,
        header: &Header,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let (reference, measure) = (&header.agreement, &header.measure);
        let id = &reference.id;
        let current = agreements.counting_for(origin, id).ok_or_else(|| Refusal::agreement_unknown(id))?;
        // Its lapse may still have to be recorded.
        let is_over = current.text.valid_until.is_some_and(|until| until <= now);
        if current.state == AgreementState::InForce && !is_over && !current.has_consented(origin) {
            let what = format!("{id} is in force among those who consented, and {origin} has not consented to it");
            return Err(Refusal::new(Reason::AgreementNotInForce, what));
        }
        if !current.is_member(origin) || is_over {
            return Err(Refusal::new(Reason::AgreementNotInForce, format!("{id} is not in force")));
        }
        // A version that was never in force had no members; one without the origin does not exist for it, nor one that it never consented to.
        let named = agreements.version(reference);
        let named = named.filter(|named| named.in_force_since.is_some() && named.has_consented(origin));
        let party = named.and_then(|named| named.text.party(origin).map(|party| (named, party)));
        let (named, party) = party.ok_or_else(|| version_mismatch(id, reference.version))?;
        // An older version may be named, but what the members of today did not agree to exchange is not exchanged.
        for version in [named, current] {
            if !version.text.measures.contains(measure) {
                return Err(Refusal::new(Reason::MeasureNotInAgreement, format!("{id} does not cover {measure}")));
            }
        }
        registry.check_known(party)?;
        Ok(Self { named, current })
    }

    /// Whether both versions allow this, and its time is not over.
    pub(crate) fn check(&self, origin: &ParticipantCode, header: &Header, now: Timestamp) -> Result<(), Refusal> {
        check_terms(self.named, origin, header)?;
        check_terms(self.current, origin, header)?;
        match header.expires_at {
            Some(expires) if expires <= now => {
                Err(Refusal::new(Reason::ExchangeExpired, "the time of the exchange was over before it was recorded"))
            }
            _ => Ok(()),
        }
    }

    /// Depends on nothing of the header but agreement and narrowing.
    pub(crate) fn audience(&self, origin: &ParticipantCode, header: &Header) -> Result<Audience, Refusal> {
        let Self { named, current } = self;
        let (id, version) = (&named.text.id, named.text.version);
        let narrowing = header.narrowing.as_ref().map(|narrowing| narrowing.participants());
        let stranger = narrowing.and_then(|names| names.iter().find(|name| !named.parties.contains_key(name)));
        if let Some(stranger) = stranger {
            return Err(Refusal::new(
                Reason::NarrowingInvalid,
                format!("{stranger} is not on version {version} of {id}"),
            ));
        }
        let receives = |version: &Agreement, member| version.role(member).is_some_and(PartyRole::receives);
        let recipients: Vec<_> = current
            .members()
            .filter(|member| receives(named, member) && receives(current, member) && named.has_consented(member))
            .filter(|member| narrowing.is_none_or(|names| names.contains(member)))
            .filter(|member| *member != origin)
            .cloned()
            .collect();
        if recipients.is_empty() {
            return Err(audience_empty(id));
        }
        Ok(Audience { agreement: header.agreement.clone(), recipients })
    }
}

/// Whether a version allows its member to send this: role, handling code, media type and size.
pub fn check_terms(version: &Agreement, origin: &ParticipantCode, header: &Header) -> Result<(), Refusal> {
    let (id, number) = (&version.text.id, version.text.version);
    let Terms { media, body_size_max_bytes, handling_max, .. } = &version.text.terms;
    if !version.role(origin).is_some_and(PartyRole::contributes) {
        let what = format!("{origin} does not contribute under version {number} of {id}");
        return Err(Refusal::new(Reason::RoleNotAllowed, what));
    }
    if header.handling > *handling_max {
        let what = format!("{id} allows handling codes up to {handling_max}, not {}", header.handling);
        return Err(Refusal::new(Reason::HandlingNotAllowed, what));
    }
    for part in &header.parts {
        if !media.is_empty() && !media.iter().any(|range| range.allows(&part.media_type)) {
            let what = format!("the terms of {id} do not allow {}", part.media_type);
            return Err(Refusal::new(Reason::MediaTypeNotAllowed, what));
        }
        if let Some(limit) = body_size_max_bytes.filter(|limit| part.size_bytes > *limit) {
            let what = format!("the body has {} bytes, the terms of {id} allow {limit}", part.size_bytes);
            return Err(Refusal::new(Reason::BodyTooLarge, what));
        }
    }
    Ok(())
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
