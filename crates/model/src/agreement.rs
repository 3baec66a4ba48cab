//! A versioned agreed-participant list: who may have what, as those on it agreed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Fingerprint};
use crate::exchange::Handling;
use crate::name::{AgreementId, MeasureCode, MediaRange, ParseError, ParticipantCode, Title};
use crate::time::Timestamp;

/// The digest of one version's serialised text; what a consent signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgreementDigest(pub Digest);

/// Names exactly one version of one agreement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgreementRef {
    /// The agreement.
    pub id: AgreementId,
    /// Its version, from 1.
    pub version: u32,
    /// The digest of that version's text.
    pub digest: AgreementDigest,
}

/// What one version says. Visible only to those on it and to the secretariat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementText {
    /// The agreement.
    pub id: AgreementId,
    /// Its version, from 1.
    pub version: u32,
    /// What it is about, in words.
    pub title: Title,
    /// The measures that it covers, each once, sorted.
    pub measures: Vec<MeasureCode>,
    /// Those on it, each once, sorted by participant; the proposer is among them.
    pub parties: Vec<Party>,
    /// How what is exchanged may be used.
    pub terms: Terms,
    /// When it lapses by itself; never, where it is not stated.
    pub valid_until: Option<Timestamp>,
    /// The version in force that this one takes the place of. `None` for the first, and for one that begins anew after the one
    /// before ended.
    pub amends: Option<AgreementRef>,
    /// The members of the amended version that are not on this one, each once, sorted: their consent is awaited too.
    pub outgoing: Vec<ParticipantCode>,
    /// Whose consents bring it into force.
    pub in_force: InForceAmong,
}

/// A participant on an agreement, with the keys that a consent pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Who.
    pub participant: ParticipantCode,
    /// The fingerprint of its trust anchor's certificate.
    pub anchor: Fingerprint,
    /// The fingerprint of its node's signing key.
    pub signing_key: Fingerprint,
    /// What it does there.
    pub role: PartyRole,
}

/// How what is exchanged under a version may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What a body may be, each once, sorted; anything, where none is named.
    pub media: Vec<MediaRange>,
    /// The largest body, in bytes; the lane's limit, where it is not stated. Not 0.
    pub body_size_max_bytes: Option<u64>,
    /// The highest handling code.
    pub handling_max: Handling,
    /// Days after which hub and nodes let the bodies of what is settled go at the latest, counted from when each had them; as each keeps by its own rules, where
    /// it is not stated. Not 0.
    pub retention_days: Option<u32>,
    /// What the secretariat may do with what passes.
    pub secretariat: SecretariatAccess,
    /// How far a recipient may pass it on; travels with each exchange as a caveat.
    pub onward_release: OnwardRelease,
}

impl Default for Terms {
    /// Whatever is not agreed is not restricted in form, and not permitted in use.
    fn default() -> Self {
        Self {
            media: Vec::new(),
            body_size_max_bytes: None,
            handling_max: Handling::Red,
            retention_days: None,
            secretariat: SecretariatAccess::Carries,
            onward_release: OnwardRelease::WithConsent,
        }
    }
}

macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in commands, tables and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|one| one.as_str() == text)
                    .ok_or_else(|| ParseError::new($kind, text, $expected))
            }
        }
    };
}

word_enum! {
    /// What a party does on an agreement.
    PartyRole, "role on an agreement", "contribute, receive or both" {
        /// It sends, and is sent nothing.
        Contribute = "contribute",
        /// It is sent what others contribute.
        Receive = "receive",
        /// Both.
        Both = "both",
    }
}

impl PartyRole {
    /// Whether it may send.
    pub const fn contributes(self) -> bool {
        matches!(self, Self::Contribute | Self::Both)
    }

    /// Whether it is sent what others contribute.
    pub const fn receives(self) -> bool {
        matches!(self, Self::Receive | Self::Both)
    }
}

word_enum! {
    /// Among whom a version is in force, and from when on.
    InForceAmong, "rule of when an agreement is in force", "all or each" {
        /// Among all on it, once all have consented.
        All = "all",
        /// Among those who have consented, from two on; whoever consents later joins then.
        Each = "each",
    }
}

word_enum! {
    /// What the secretariat's people may do with what passes through the hub. The hub itself reads what is not sealed.
    SecretariatAccess, "secretariat's access", "carries or reads" {
        /// It stores and hands on; no command of the hub shows content.
        Carries = "carries",
        /// It may take content into what it compiles for the forum.
        Reads = "reads",
    }
}

word_enum! {
    /// How far a recipient may pass on what it got.
    OnwardRelease, "onward release", "none, state, with-consent or free" {
        /// Not beyond the agencies that were given it.
        None = "none",
        /// Within the recipient's state.
        State = "state",
        /// Beyond it only with the origin's written consent.
        WithConsent = "with-consent",
        /// As the recipient sees fit.
        Free = "free",
    }
}

impl OnwardRelease {
    /// What a recipient is told beside the exchange.
    pub const fn caveat(self) -> &'static str {
        match self {
            Self::None => "Onward release: not beyond the agencies that were given it.",
            Self::State => "Onward release: within the receiving state only.",
            Self::WithConsent => "Onward release: beyond the receiving state only with the origin's written consent.",
            Self::Free => "Onward release: as the recipient sees fit.",
        }
    }
}

impl AgreementText {
    /// The party entry of a participant, if it is on the list.
    pub fn party(&self, participant: &ParticipantCode) -> Option<&Party> {
        self.parties.iter().find(|party| &party.participant == participant)
    }
}
