//! One item of information: the header routes it, the description and the parts are its content.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::agreement::AgreementRef;
use crate::digest::{Digest, ExchangeId};
use crate::name::{Language, MeasureCode, MediaType, Name, ParseError, ParticipantCode, Title};
use crate::time::Timestamp;

/// How urgent an exchange is. Each lane has its own chain, mailbox and, for flash, its own connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Minutes matter: a disaster warning.
    Flash,
    /// Before routine.
    Priority,
    /// Everything else.
    Routine,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Flash, Self::Priority, Self::Routine];

    /// The word for it in commands and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flash => "flash",
            Self::Priority => "priority",
            Self::Routine => "routine",
        }
    }

    /// Its place in [`Lane::ALL`], in arrays, and in keys of views.
    pub const fn slot(self) -> usize {
        match self {
            Self::Flash => 0,
            Self::Priority => 1,
            Self::Routine => 2,
        }
    }

    /// The largest part that the lane carries, in bytes.
    pub const fn body_size_max_bytes(self) -> usize {
        match self {
            Self::Flash => crate::limits::FLASH_BODY_SIZE_MAX_BYTES,
            Self::Priority | Self::Routine => crate::limits::BODY_SIZE_MAX_BYTES,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str() == text)
            .ok_or_else(|| ParseError::new("lane", text, "flash, priority or routine"))
    }
}

/// How what is exchanged is to be handled: the Traffic Light Protocol 2.0 (FIRST). In order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Handling {
    /// No limit on disclosure.
    Clear,
    /// Within the community.
    Green,
    /// Within the recipient's organisations and those who need to know.
    Amber,
    /// Only agencies of the measure: those that were granted it by name.
    AmberStrict,
    /// Only agencies that the exchange names.
    Red,
}

impl Handling {
    /// All codes, the least strict first.
    pub const ALL: [Self; 5] = [Self::Clear, Self::Green, Self::Amber, Self::AmberStrict, Self::Red];

    /// The code as TLP 2.0 writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "CLEAR",
            Self::Green => "GREEN",
            Self::Amber => "AMBER",
            Self::AmberStrict => "AMBER+STRICT",
            Self::Red => "RED",
        }
    }

    /// What it means for whoever gets it, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Clear => "may be disclosed without limit",
            Self::Green => "may be disclosed within the community, not publicly",
            Self::Amber => "only within the recipient's organisation and its clients who need to know",
            Self::AmberStrict => {
                "only within the organisation; given only to agencies that were granted the measure by name"
            }
            Self::Red => "for those named alone; given only to the agencies that the exchange names",
        }
    }
}

impl fmt::Display for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Handling {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let code = text.strip_prefix("TLP:").unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|one| one.as_str().eq_ignore_ascii_case(code))
            .ok_or_else(|| ParseError::new("handling code", text, "CLEAR, GREEN, AMBER, AMBER+STRICT or RED"))
    }
}

/// A UUID of version 7 (RFC 9562), made by the origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeUuid(uuid::Uuid);

impl ExchangeUuid {
    /// Takes the 16 bytes of a version 7 UUID.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseError> {
        uuid::Uuid::from_slice(bytes)
            .ok()
            .filter(|uuid| uuid.get_version() == Some(uuid::Version::SortRand))
            .map(Self)
            .ok_or_else(|| ParseError::new("exchange UUID", "the bytes given", "16 bytes of a version 7 UUID"))
    }

    /// Builds one from a time and ten random bytes; neither is read here.
    pub fn from_parts(created: Timestamp, random: &[u8; 10]) -> Self {
        let millis = u64::try_from(created.as_micros() / 1000).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
    }

    /// The 16 bytes, for encoding.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for ExchangeUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The origin's wish that fewer than the agreed receive it. Never empty: an empty one is refused, not read as "all".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Narrowing(BTreeSet<ParticipantCode>);

impl Narrowing {
    /// Takes one or more participants, each once.
    pub fn new(participants: impl IntoIterator<Item = ParticipantCode>) -> Result<Self, ParseError> {
        let mut set = BTreeSet::new();
        for participant in participants {
            if set.contains(&participant) {
                return Err(ParseError::new("narrowing", participant.as_str(), "each participant is named once"));
            }
            set.insert(participant);
        }
        if set.is_empty() {
            return Err(ParseError::new("narrowing", "", "at least one participant; leave it out to mean all"));
        }
        Ok(Self(set))
    }

    /// The participants named.
    pub fn participants(&self) -> &BTreeSet<ParticipantCode> {
        &self.0
    }
}

/// What the hub needs to route an exchange; serialised once by the origin, and those bytes are what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The participant that sends it.
    pub origin: ParticipantCode,
    /// The origin's node.
    pub node: Name,
    /// Makes two exchanges of the same content differ.
    pub uuid: ExchangeUuid,
    /// The agreement, its version and the digest of that version's text.
    pub agreement: AgreementRef,
    /// The measure under which it is exchanged.
    pub measure: MeasureCode,
    /// How urgent it is.
    pub lane: Lane,
    /// Absent means all whom the agreement names.
    pub narrowing: Option<Narrowing>,
    /// The language of its content, if stated.
    pub language: Option<Language>,
    /// When the origin made it, by the origin's clock.
    pub created: Timestamp,
    /// Its bodies; exactly one for now, none in a withdrawal.
    pub parts: Vec<Part>,
    /// The commitment of its description.
    pub description: Digest,
    /// How it is to be handled.
    pub handling: Handling,
    /// After this it is not delivered any more; never, where it is not stated.
    pub expires_at: Option<Timestamp>,
    /// The earlier exchange of the same origin that it takes the place of.
    pub supersedes: Option<ExchangeId>,
    /// It has no part: it says that an earlier exchange of the same origin is not current any more.
    pub withdraws: Option<Withdrawal>,
    /// Within a participant that is named here only these agencies are given it; each once, sorted. Then the narrowing names exactly
    /// these participants.
    pub agencies: Vec<AgencyName>,
    /// It is an exercise: it goes the way of any other, and what it says is not so.
    pub exercise: bool,
}

/// An agency of a participant: `KAZ/drug-control`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AgencyName {
    /// Its state.
    pub participant: ParticipantCode,
    /// Its name there.
    pub agency: Name,
}

impl fmt::Display for AgencyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.participant, self.agency)
    }
}

impl FromStr for AgencyName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parsed = text.split_once('/').and_then(|(participant, agency)| {
            Some(Self { participant: participant.parse().ok()?, agency: agency.parse().ok()? })
        });
        parsed.ok_or_else(|| ParseError::new("agency", text, "CODE/agency, such as KAZ/drug-control"))
    }
}

/// What becomes of an earlier exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withdrawal {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Why it is not current any more.
    pub kind: WithdrawalKind,
}

/// Why an exchange is not current any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WithdrawalKind {
    /// Its origin takes it back.
    Withdrawn,
    /// Its origin sent another one in its place, to whom that may concern.
    Superseded,
}

impl WithdrawalKind {
    /// The word for it in commands, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
        }
    }
}

/// One body, as the header names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What the body is.
    pub media_type: MediaType,
    /// Its length in bytes, without the nonce.
    pub size_bytes: u64,
    /// SHA-256(domain ‖ nonce ‖ bytes), as the journal keeps it.
    pub commitment: Digest,
}

/// The readable content that goes with the bodies. Never in a log, a view or a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What a person sees first.
    pub title: Title,
    /// Caveats in words, passed on as they are.
    pub caveats: Vec<String>,
}

/// One chain of consignments from one node of one participant to one hub.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainKey {
    /// The participant; always the one of the certificate.
    pub origin: ParticipantCode,
    /// The hub that the consignments are for.
    pub hub: Name,
    /// The node that signs them.
    pub node: Name,
    /// The chain epoch, from 1; an officer opens the next.
    pub epoch: u32,
    /// The lane.
    pub lane: Lane,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrowing_is_never_empty_and_names_each_once() {
        let kaz = || ParticipantCode::parse("KAZ").unwrap();
        assert!(Narrowing::new([]).is_err());
        assert!(Narrowing::new([kaz(), kaz()]).is_err());
        assert!(Narrowing::new([kaz()]).is_ok());
    }

    #[test]
    fn only_a_version_7_uuid_is_an_exchange_uuid() {
        let made = ExchangeUuid::from_parts(Timestamp::from_micros(1_700_000_000_000_000), &[7; 10]);
        assert_eq!(ExchangeUuid::from_slice(made.as_bytes()), Ok(made));
        assert!(ExchangeUuid::from_slice(&[0; 16]).is_err());
        assert!(ExchangeUuid::from_slice(&[0; 15]).is_err());
    }
}
