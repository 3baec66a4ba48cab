//! What an officer says for the state, after its signature was verified outside.

use std::collections::BTreeMap;

use concord_model::{
    AgreementDigest, AgreementRef, AgreementText, Contact, Digest, Fingerprint, ForumRole, Measure, MeasureCode, Name,
    Participant, ParticipantCode, ParticipantKind, PublicKey, RoleScope, Timestamp, Title,
};
use serde::{Deserialize, Serialize};

use crate::epoch::EpochOpening;
use crate::hold::Holds;
use crate::succession::{AnchorSuccession, KeyRotation};

/// A verified statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The participant that the officer speaks for.
    pub participant: ParticipantCode,
    /// The officer.
    pub officer: Name,
    /// The hub that it is meant for.
    pub hub: Name,
    /// Numbered for each officer from 1, without gaps.
    pub number: u64,
    /// By the officer's clock; shown. It decides nothing but which of two under one number counts ([`crate::revision`]).
    pub made_at: Timestamp,
    /// Digest of the serialised statement: tells a repeat from a fork.
    pub digest: Digest,
    /// What it says.
    pub content: StatementContent,
}

/// What statements say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementContent {
    /// Proposes an agreement and consents to it.
    Propose {
        /// The version proposed.
        text: AgreementText,
        /// The digest of its serialised text, computed where it was parsed.
        digest: AgreementDigest,
    },
    /// Consents to exactly this version.
    Consent(AgreementRef),
    /// Ends a proposal; of one that is in force among each who consents, only goes off it. Why, in words, if that is said.
    Decline(AgreementRef, Option<Title>),
    /// Leaves exactly this version, and what amends it, at once.
    Leave(AgreementRef),
    /// Consents again to exactly this version, which its participant left by the leave with this digest.
    Return(AgreementRef, Digest),
    /// Says that exactly this version is to end; it does when all its members have said so.
    End(AgreementRef),
    /// Binds a participant to its anchor and keys.
    Enrol(JoinRequest),
    /// Binds a participant to new keys of its node, and closes the epoch of the old ones.
    Replace(Replacement),
    /// Closes the present epoch of the own node's chains, and opens the next.
    OpenEpoch(EpochOpening),
    /// Binds the own node, or the hub, to a new signing key.
    RotateKey(KeyRotation),
    /// Binds the own participant to a new trust anchor, beside the present one until that ends.
    SucceedAnchor(AnchorSuccession),
    /// Ends the anchor with this fingerprint, which the present one followed.
    EndAnchor(Fingerprint),
    /// Keeps a participant's node from receiving and consigning, for a technical reason.
    Hold {
        /// Who is held.
        participant: ParticipantCode,
        /// Why, in words.
        reason: Title,
    },
    /// Lifts the hold that the statement with this digest laid.
    Release(Digest),
    /// Signs, too, what another officer of the secretariat said in the statement with this digest.
    Approve(Digest),
    /// Ends what waits for signatures: the statement with this digest.
    Reject(Digest),
    /// Records what the forum decided about itself.
    Decided(ForumDecision),
    /// Says whom one calls in its own state.
    SetContact(ContactSetting),
    /// Records that the forum gave a role, or took it.
    Role(RoleDecision),
}

impl StatementContent {
    /// What it says and about what, in names only: for whoever notes who said what. A release names its hold by a digest; whose that
    /// is the holds of before it tell.
    pub fn in_names(&self, holds: &Holds) -> String {
        match self {
            Self::Propose { text, .. } => format!("propose {} version {}", text.id, text.version),
            Self::Consent(agreement) => format!("consent {} version {}", agreement.id, agreement.version),
            Self::Decline(agreement, _) => format!("decline {} version {}", agreement.id, agreement.version),
            Self::Leave(agreement) => format!("leave {} version {}", agreement.id, agreement.version),
            Self::Return(agreement, _) => format!("return to {} version {}", agreement.id, agreement.version),
            Self::Enrol(request) => format!("enrol {} node {}", request.participant, request.node),
            Self::Replace(Replacement { request, .. }) => {
                format!("replace {} node {}", request.participant, request.node)
            }
            Self::End(agreement) => format!("end {} version {}", agreement.id, agreement.version),
            Self::Hold { participant, .. } => format!("hold {participant}"),
            Self::Release(hold) => match holds.get(hold) {
                Some(hold) => format!("release {}", hold.participant),
                None => "release of a hold that does not stand".to_owned(),
            },
            Self::SetContact(ContactSetting { measure, contact, .. }) => {
                let verb = if contact.is_some() { "set" } else { "remove" };
                format!("{verb} contact for {}", measure.as_ref().map_or("everything", MeasureCode::as_str))
            }
            // What it is over may be said in words, which are no names.
            Self::Role(RoleDecision { participant, role, is_given, .. }) => {
                format!("{} role {role} {participant}", if *is_given { "grant" } else { "revoke" })
            }
            Self::OpenEpoch(opening) => format!("open epoch {} of node {}", opening.epoch, opening.node),
            Self::RotateKey(KeyRotation { opening: Some(opening), .. }) => {
                format!("rotate key of node {}", opening.node)
            }
            Self::RotateKey(KeyRotation { opening: None, .. }) => "rotate key of the hub".to_owned(),
            Self::SucceedAnchor(_) => "bring a new anchor".to_owned(),
            Self::EndAnchor(_) => "end the anchor before".to_owned(),
            Self::Approve(digest) => format!("approve {}", shortened(digest)),
            Self::Reject(digest) => format!("reject {}", shortened(digest)),
            Self::Decided(decision) => match &decision.content {
                DecisionContent::AddParticipant(participant) => format!("add participant {}", participant.code),
                DecisionContent::Rename { participant, .. } => format!("rename {participant}"),
                DecisionContent::SetKind { participant, kind, .. } => format!("set kind of {participant} to {kind}"),
                DecisionContent::AddMeasure(measure) => format!("add measure {}", measure.code),
            },
        }
    }
}

/// The first digits of a statement's digest: the id by which people name what waits for signatures.
fn shortened(digest: &Digest) -> String {
    digest.to_string().chars().take(8).collect()
}

/// What the forum decided about itself, as its secretariat records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForumDecision {
    /// What.
    pub content: DecisionContent,
    /// The paper of the decision: told to all.
    pub reference: Title,
}

/// A change of the registry or the catalogue. Both only grow: nothing is removed, no code is used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecisionContent {
    /// A participant that there was not. It is nobody's keys yet.
    AddParticipant(Participant),
    /// New names of a participant, by language; the others stay.
    Rename {
        /// Whose.
        participant: ParticipantCode,
        /// Exactly the one after the last change of it: so the newest counts, in whatever order they come back to a hub that lost data.
        revision: u32,
        /// By language tag.
        names: BTreeMap<String, String>,
    },
    /// What the forum makes of a participant from now on.
    SetKind {
        /// Of whom.
        participant: ParticipantCode,
        /// As with a renaming.
        revision: u32,
        /// What it is.
        kind: ParticipantKind,
    },
    /// A measure that there was not, of an area that there is.
    AddMeasure(Measure),
}

/// Whom one calls in the state of the officer who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactSetting {
    /// About this measure; about everything that has no contact point of its own, where none is named.
    pub measure: Option<MeasureCode>,
    /// From 1, exactly the one after the last setting of the same place: so the newest counts, in whatever order they come back to a hub
    /// that lost data.
    pub revision: u32,
    /// Whom; nobody any more, where there is none.
    pub contact: Option<Contact>,
}

/// That the forum gave a role, or took it, as its secretariat records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleDecision {
    /// Whose role it is, or was.
    pub participant: ParticipantCode,
    /// The role.
    pub role: ForumRole,
    /// Over what.
    pub scope: RoleScope,
    /// As of a contact point.
    pub revision: u32,
    /// Whether it was given; else taken.
    pub is_given: bool,
    /// The paper of the decision: told to all.
    pub reference: Title,
}

/// New keys for a node whose own are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// What the new node brings.
    pub request: JoinRequest,
    /// The paper that it rests on.
    pub reference: Title,
}

impl Statement {
    /// Whether its participant may say such a thing at all, whatever holds now: what binds all, the secretariat alone says, and a hold is
    /// laid by it or by the one who is held. Who may say the rest, what it is about decides.
    ///
    /// The hub refuses what is not, and no node takes the hub's word for that: else any state's officer and a lying hub made new keys for
    /// everybody.
    pub fn is_its_to_say(&self) -> bool {
        let secretariat = ParticipantCode::secretariat();
        let is_secretariats = self.participant == secretariat;
        match &self.content {
            StatementContent::Enrol(_)
            | StatementContent::Replace(_)
            | StatementContent::Decided(_)
            | StatementContent::Role(_)
            | StatementContent::Approve(_)
            | StatementContent::Reject(_) => is_secretariats,
            StatementContent::RotateKey(rotation) => rotation.opening.is_some() || is_secretariats,
            StatementContent::Hold { participant, .. } => {
                *participant != secretariat && (is_secretariats || *participant == self.participant)
            }
            // A release lifts what its participant laid, and an epoch is opened of the own node's chains.
            StatementContent::Release(_)
            | StatementContent::OpenEpoch(_)
            | StatementContent::SucceedAnchor(_)
            | StatementContent::EndAnchor(_)
            | StatementContent::SetContact(_)
            | StatementContent::Propose { .. }
            | StatementContent::Consent(_)
            | StatementContent::Decline(..)
            | StatementContent::Leave(_)
            | StatementContent::Return(..)
            | StatementContent::End(_) => true,
        }
    }

    /// Whose node's chains it closes the epoch of, if it closes one.
    pub fn closes(&self) -> Option<(&ParticipantCode, &Name)> {
        match &self.content {
            StatementContent::OpenEpoch(opening) => Some((&self.participant, &opening.node)),
            StatementContent::RotateKey(rotation) => Some((&self.participant, &rotation.opening.as_ref()?.node)),
            StatementContent::Replace(Replacement { request, .. }) => Some((&request.participant, &request.node)),
            _ => None,
        }
    }

    /// Whether it is about the keys or the chains of its own participant's servers.
    pub fn is_about_own_keys(&self) -> bool {
        matches!(
            self.content,
            StatementContent::RotateKey(_)
                | StatementContent::SucceedAnchor(_)
                | StatementContent::EndAnchor(_)
                | StatementContent::OpenEpoch(_)
        )
    }

    /// Whether the epoch that it opens has another signing key than the one that it closes.
    pub fn changes_key(&self) -> bool {
        matches!(self.content, StatementContent::Replace(_) | StatementContent::RotateKey(_))
    }
}

/// What a node brings to be enrolled; proofs of possession were verified outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who joins.
    pub participant: ParticipantCode,
    /// Its node.
    pub node: Name,
    /// The trust anchor's certificate, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// The key that signs consignments and acknowledgements.
    pub signing_key: PublicKey,
}
