//! Who there is and what may be exchanged: data of the forum, never constants of the program.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Fingerprint;
use crate::name::{MeasureCode, Name, ParseError, ParticipantCode};

/// What the forum made of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ParticipantKind {
    /// A member state.
    Member,
    /// An observer state.
    ObserverState,
    /// An observer organisation.
    ObserverOrganisation,
    /// Runs the hub.
    Secretariat,
}

impl ParticipantKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Member, Self::ObserverState, Self::ObserverOrganisation, Self::Secretariat];

    /// The word for it in the seed and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::ObserverState => "observer-state",
            Self::ObserverOrganisation => "observer-organisation",
            Self::Secretariat => "secretariat",
        }
    }
}

impl fmt::Display for ParticipantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ParticipantKind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            ParseError::new("kind of participant", text, "member, observer-state, observer-organisation or secretariat")
        })
    }
}

/// A participant as the forum named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Its code.
    pub code: ParticipantCode,
    /// Its kind.
    pub kind: ParticipantKind,
    /// Its names by language tag; `en` is always there.
    pub names: BTreeMap<String, String>,
}

/// An area of the catalogue, which groups measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// The part of a measure's code before the dot.
    pub slug: Name,
    /// What it is, in words.
    pub title: String,
}

/// An item of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Its code.
    pub code: MeasureCode,
    /// Its short name.
    pub slug: Name,
    /// What it is, in words.
    pub title: String,
}

/// An Ed25519 public key with the fingerprint that people and agreements know it by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// The 32 bytes of the key.
    pub bytes: [u8; 32],
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub fingerprint: Fingerprint,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint)
    }
}
