//! A versioned agreed-participant list: who may have what, as those on it agreed.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Fingerprint};
use crate::name::{AgreementId, MeasureCode, ParticipantCode, Title};

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
}

impl AgreementText {
    /// The party entry of a participant, if it is on the list.
    pub fn party(&self, participant: &ParticipantCode) -> Option<&Party> {
        self.parties.iter().find(|party| &party.participant == participant)
    }
}
