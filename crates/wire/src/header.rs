//! Headers and descriptions: serialised once by the origin, parsed exactly or refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use concord_journal::Digest as JournalDigest;
use concord_model::{
    AgencyName, AgreementDigest, AgreementId, AgreementRef, Description, Digest, ExchangeId, ExchangeUuid, Handling,
    Header, Language, MeasureCode, MediaType, Name, Narrowing, ParseError, Part, ParticipantCode, Reason, Refusal,
    Timestamp, Title, Withdrawal, WithdrawalKind,
    limits::{BODY_SIZE_MAX_BYTES, HEADER_AGENCIES_MAX, HEADER_SIZE_MAX_BYTES},
};
use prost::Message as _;

use crate::convert::{
    decode_canonical, digest_bytes, handling, lane, parse_handling, parse_lane, parse_timestamp, refuse, required,
    timestamp,
};
use crate::proto::exchange::v1 as pb;

const HEADER_DOMAIN: &str = "concord header v1";
/// Caveats of one description. Over it: `HEADER_MALFORMED`.
pub const CAVEATS_MAX: usize = 16;
/// One caveat, in bytes. Over it: `HEADER_MALFORMED`.
pub const CAVEAT_SIZE_MAX_BYTES: usize = 1024;

/// The exchange id: the digest of the serialised header, whoever serialised it.
pub fn exchange_id(header: &[u8]) -> ExchangeId {
    ExchangeId(Digest(JournalDigest::of(HEADER_DOMAIN, &[header]).0))
}

/// Serialises a header, once, at its origin.
pub fn encode(header: &Header) -> Bytes {
    let message = pb::Header {
        origin: header.origin.to_string(),
        node: header.node.to_string(),
        uuid: Bytes::copy_from_slice(header.uuid.as_bytes()),
        agreement: Some(agreement_ref(&header.agreement)),
        measure: header.measure.to_string(),
        lane: lane(header.lane).into(),
        narrowing: header.narrowing.as_ref().map(|narrowing| pb::Narrowing {
            participants: narrowing.participants().iter().map(ToString::to_string).collect(),
        }),
        language: header.language.as_ref().map(ToString::to_string).unwrap_or_default(),
        created: Some(timestamp(header.created)),
        parts: header
            .parts
            .iter()
            .map(|part| pb::Part {
                media_type: part.media_type.to_string(),
                size_bytes: part.size_bytes,
                commitment: digest_bytes(&part.commitment),
            })
            .collect(),
        description: digest_bytes(&header.description),
        handling: handling(header.handling).into(),
        expires_at: header.expires_at.map(timestamp),
        supersedes: header.supersedes.as_ref().map(|id| digest_bytes(&id.0)).unwrap_or_default(),
        withdraws: header.withdraws.as_ref().map(withdrawal),
        agencies: header.agencies.iter().map(agency_name).collect(),
        exercise: header.exercise,
        ..Default::default()
    };
    message.encode_to_vec().into()
}

/// Parses a serialised header.
///
/// Refuses with `HEADER_MALFORMED`, `HEADER_NOT_CANONICAL`, `FEATURE_NOT_ENABLED`, `NARROWING_INVALID`, `BODY_EMPTY` or
/// `BODY_TOO_LARGE`.
pub fn parse(bytes: &[u8]) -> Result<Header, Refusal> {
    if bytes.len() > HEADER_SIZE_MAX_BYTES {
        let size = format!("the header has {} bytes, at most {HEADER_SIZE_MAX_BYTES} are taken", bytes.len());
        return Err(Refusal::new(Reason::HeaderMalformed, size));
    }
    let message: pb::Header = decode_canonical(Reason::HeaderMalformed, Reason::HeaderNotCanonical, "header", bytes)?;
    refuse_what_is_not_enabled(&message)?;

    let malformed = refuse(Reason::HeaderMalformed);
    let agreement = required(Reason::HeaderMalformed, "the header's agreement", message.agreement.as_ref())?;
    let created = required(Reason::HeaderMalformed, "the header's time", message.created.as_ref())?;
    let header = Header {
        origin: ParticipantCode::parse(&message.origin).map_err(&malformed)?,
        node: Name::parse(&message.node).map_err(&malformed)?,
        uuid: ExchangeUuid::from_slice(&message.uuid).map_err(&malformed)?,
        agreement: parse_agreement_ref(agreement).map_err(&malformed)?,
        measure: MeasureCode::parse(&message.measure).map_err(&malformed)?,
        lane: parse_lane(message.lane).map_err(&malformed)?,
        narrowing: message.narrowing.as_ref().map(parse_narrowing).transpose()?,
        language: match message.language.as_str() {
            "" => None,
            tag => Some(Language::parse(tag).map_err(&malformed)?),
        },
        created: parse_timestamp(created).map_err(&malformed)?,
        parts: parse_parts(&message.parts, message.withdraws.is_some())?,
        description: Digest::from_slice(&message.description).map_err(&malformed)?,
        handling: parse_handling(message.handling).map_err(&malformed)?,
        expires_at: message.expires_at.as_ref().map(parse_timestamp).transpose().map_err(&malformed)?,
        supersedes: match &message.supersedes[..] {
            [] => None,
            id => Some(ExchangeId(Digest::from_slice(id).map_err(&malformed)?)),
        },
        withdraws: message.withdraws.as_ref().map(parse_withdrawal).transpose().map_err(&malformed)?,
        agencies: parse_agencies(&message.agencies)?,
        exercise: message.exercise,
    };
    refuse_other_spellings(&message)?;
    refuse_contradictions(&header)?;
    Ok(header)
}

/// When the exchange of a serialised header expires, if it does. Nothing else of it is read: it was parsed where it was recorded. What
/// cannot be read has expired.
pub fn expires_at(header: &[u8]) -> Option<Timestamp> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Expiry {
        #[prost(message, optional, tag = "13")]
        expires_at: Option<prost_types::Timestamp>,
    }
    match Expiry::decode(header) {
        Ok(Expiry { expires_at }) => expires_at.map(|at| parse_timestamp(&at).unwrap_or_default()),
        Err(_) => Some(Timestamp::default()),
    }
}

/// What a serialised header withdraws, if anything. Nothing else of it is read: it was parsed where it was recorded.
pub fn withdraws(header: &[u8]) -> Option<Withdrawal> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Withdraws {
        #[prost(message, optional, tag = "15")]
        withdraws: Option<pb::Withdrawal>,
    }
    parse_withdrawal(&Withdraws::decode(header).ok()?.withdraws?).ok()
}

/// Whether a serialised header is one of an exercise. Nothing else of it is read: it was parsed where it was recorded.
pub fn is_exercise(header: &[u8]) -> bool {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Exercise {
        #[prost(bool, tag = "16")]
        exercise: bool,
    }
    Exercise::decode(header).is_ok_and(|header| header.exercise)
}

/// Serialises a description; it becomes a blob.
pub fn encode_description(description: &Description) -> Bytes {
    let message = pb::Description { title: description.title.to_string(), caveats: description.caveats.clone() };
    message.encode_to_vec().into()
}

/// Parses a description. Refuses with `TITLE_INVALID`, `HEADER_MALFORMED` or `HEADER_NOT_CANONICAL`.
pub fn parse_description(bytes: &[u8]) -> Result<Description, Refusal> {
    let message: pb::Description =
        decode_canonical(Reason::HeaderMalformed, Reason::HeaderNotCanonical, "description", bytes)?;
    let too_long = message.caveats.iter().any(|caveat| caveat.len() > CAVEAT_SIZE_MAX_BYTES);
    if message.caveats.len() > CAVEATS_MAX || too_long {
        let limit = format!("at most {CAVEATS_MAX} caveats of {CAVEAT_SIZE_MAX_BYTES} bytes are taken");
        return Err(Refusal::new(Reason::HeaderMalformed, limit));
    }
    let title = Title::parse(&message.title).map_err(refuse(Reason::TitleInvalid))?;
    Ok(Description { title, caveats: message.caveats })
}

/// An agreement version as messages name it.
pub fn agreement_ref(reference: &AgreementRef) -> pb::AgreementRef {
    pb::AgreementRef {
        id: reference.id.to_string(),
        version: reference.version,
        digest: digest_bytes(&reference.digest.0),
    }
}

/// Reads a named agreement version.
pub fn parse_agreement_ref(message: &pb::AgreementRef) -> Result<AgreementRef, ParseError> {
    Ok(AgreementRef {
        id: AgreementId::parse(&message.id)?,
        version: message.version,
        digest: AgreementDigest(Digest::from_slice(&message.digest)?),
    })
}

/// Reads a narrowing; an empty one is refused, never read as "all". Order does not matter here: an agency's wish is sorted by its
/// node, and a header is checked for its spelling.
pub fn parse_narrowing(message: &pb::Narrowing) -> Result<Narrowing, Refusal> {
    let invalid = refuse(Reason::NarrowingInvalid);
    let participants: Vec<_> = message
        .participants
        .iter()
        .map(|code| ParticipantCode::parse(code))
        .collect::<Result<_, _>>()
        .map_err(&invalid)?;
    Narrowing::new(participants).map_err(&invalid)
}

/// A kind of withdrawal as messages name it.
pub const fn withdrawal_kind(kind: WithdrawalKind) -> pb::WithdrawalKind {
    match kind {
        WithdrawalKind::Withdrawn => pb::WithdrawalKind::Withdrawn,
        WithdrawalKind::Superseded => pb::WithdrawalKind::Superseded,
    }
}

fn withdrawal(withdrawal: &Withdrawal) -> pb::Withdrawal {
    let kind = withdrawal_kind(withdrawal.kind);
    pb::Withdrawal { exchange_id: digest_bytes(&withdrawal.exchange.0), kind: kind.into() }
}

fn parse_withdrawal(message: &pb::Withdrawal) -> Result<Withdrawal, ParseError> {
    let kind = match message.kind() {
        pb::WithdrawalKind::Withdrawn => WithdrawalKind::Withdrawn,
        pb::WithdrawalKind::Superseded => WithdrawalKind::Superseded,
        pb::WithdrawalKind::Unspecified => {
            let number = message.kind.to_string();
            return Err(ParseError::new("kind of withdrawal", number, "withdrawn or superseded"));
        }
    };
    Ok(Withdrawal { exchange: ExchangeId(Digest::from_slice(&message.exchange_id)?), kind })
}

/// An agency as messages name it.
pub fn agency_name(name: &AgencyName) -> pb::AgencyName {
    pb::AgencyName { participant: name.participant.to_string(), agency: name.agency.to_string() }
}

/// Reads agencies in the order in which they stand. Refuses with `HEADER_MALFORMED`.
pub fn parse_agencies(agencies: &[pb::AgencyName]) -> Result<Vec<AgencyName>, Refusal> {
    let malformed = refuse(Reason::HeaderMalformed);
    if agencies.len() > HEADER_AGENCIES_MAX {
        let limit = format!("{} agencies are named, at most {HEADER_AGENCIES_MAX} are taken", agencies.len());
        return Err(Refusal::new(Reason::HeaderMalformed, limit));
    }
    let one = |name: &pb::AgencyName| {
        let participant = ParticipantCode::parse(&name.participant).map_err(&malformed)?;
        Ok(AgencyName { participant, agency: Name::parse(&name.agency).map_err(&malformed)? })
    };
    agencies.iter().map(one).collect()
}

/// What no header may say at once.
fn refuse_contradictions(header: &Header) -> Result<(), Refusal> {
    let malformed = |what: &str| Err(Refusal::new(Reason::HeaderMalformed, what));
    if header.handling == Handling::Red && header.agencies.is_empty() {
        return malformed("handling code RED names the agencies that it goes to");
    }
    let named: BTreeSet<_> = header.agencies.iter().map(|agency| &agency.participant).collect();
    let narrowed = header.narrowing.iter().flat_map(|narrowing| narrowing.participants()).collect::<BTreeSet<_>>();
    if !named.is_empty() && named != narrowed {
        return malformed("the narrowing names other participants than those whose agencies are named");
    }
    if header.withdraws.is_none() {
        return Ok(());
    }
    // It goes to whoever had what it is about, for as long as that takes.
    if header.supersedes.is_some() || header.expires_at.is_some() {
        return malformed("a withdrawal takes the place of nothing, and does not expire");
    }
    Ok(())
}

fn parse_parts(parts: &[pb::Part], withdraws: bool) -> Result<Vec<Part>, Refusal> {
    let malformed = refuse(Reason::HeaderMalformed);
    match parts {
        [] if withdraws => {}
        _ if withdraws => return Err(Refusal::new(Reason::HeaderMalformed, "a withdrawal has no part")),
        [] => return Err(Refusal::new(Reason::HeaderMalformed, "the header names no part")),
        [_] => {}
        _ => {
            return Err(Refusal::new(Reason::FeatureNotEnabled, "more than one part is not switched on"));
        }
    }
    parts
        .iter()
        .map(|part| {
            if part.size_bytes == 0 {
                return Err(Refusal::new(Reason::BodyEmpty, "the body has no bytes"));
            }
            if part.size_bytes > BODY_SIZE_MAX_BYTES as u64 {
                let size = format!("the body has {} bytes, at most {BODY_SIZE_MAX_BYTES} are taken", part.size_bytes);
                return Err(Refusal::new(Reason::BodyTooLarge, size));
            }
            Ok(Part {
                media_type: MediaType::parse(&part.media_type).map_err(&malformed)?,
                size_bytes: part.size_bytes,
                commitment: Digest::from_slice(&part.commitment).map_err(&malformed)?,
            })
        })
        .collect()
}

/// What the model does not tell apart must not differ in bytes either: one header, one spelling.
fn refuse_other_spellings(message: &pb::Header) -> Result<(), Refusal> {
    let participants = message.narrowing.as_ref().map(|narrowing| narrowing.participants.as_slice());
    if !participants.unwrap_or_default().is_sorted() {
        return Err(Refusal::new(Reason::HeaderNotCanonical, "the participants of the narrowing are not sorted"));
    }
    let is_finer = |time: prost_types::Timestamp| time.nanos % 1000 != 0;
    if message.created.is_some_and(is_finer) || message.expires_at.is_some_and(is_finer) {
        return Err(Refusal::new(Reason::HeaderNotCanonical, "a time of the header is finer than a microsecond"));
    }
    let name = |agency: &pb::AgencyName| (agency.participant.clone(), agency.agency.clone());
    if !message.agencies.is_sorted_by(|one, next| name(one) < name(next)) {
        return Err(Refusal::new(Reason::HeaderNotCanonical, "the agencies are not sorted, or one is named twice"));
    }
    Ok(())
}

/// A newer restriction must not be ignored: whoever sets one of these is told that this forum does not have it yet.
fn refuse_what_is_not_enabled(message: &pb::Header) -> Result<(), Refusal> {
    let set = [
        ("co_origins", !message.co_origins.is_empty()),
        ("seals", !message.seals.is_empty()),
        ("large_parts", !message.large_parts.is_empty()),
    ];
    match set.iter().find(|(_, set)| *set) {
        Some((field, _)) => {
            let what = format!("the header sets {field}, which is not switched on for this forum");
            Err(Refusal::new(Reason::FeatureNotEnabled, what))
        }
        None => Ok(()),
    }
}
