//! Agreements and statements: what officers sign, parsed exactly or refused.

use bytes::Bytes;
use concord_journal::Digest as JournalDigest;
use concord_ledger::{
    ContactSetting, EpochOpening, ForumDecision, JoinRequest, Replacement, RoleDecision, Statement, StatementContent,
};
use concord_model::limits::{AGREEMENT_MEASURES_MAX, AGREEMENT_PARTIES_MAX, STATEMENT_SIZE_MAX_BYTES};
use concord_model::{
    AgreementDigest, AgreementId, AgreementText, Digest, Fingerprint, MeasureCode, Name, ParticipantCode, Party,
    PublicKey, Reason, Refusal, Title,
};
use prost::Message as _;

use crate::SUITE_ED25519;
use crate::convert::{decode_canonical, digest_bytes, parse_timestamp, refuse, required, timestamp};
use crate::header::{agreement_ref, parse_agreement_ref};
use crate::proto::agreement::v1 as pb;

mod decisions;
pub mod keys;
pub(crate) mod offices;
mod terms;

const AGREEMENT_DOMAIN: &str = "concord agreement v1";
/// The domain of an officer's signature.
pub const STATEMENT_DOMAIN: &str = "concord statement v1";
const JOIN_DOMAIN: &str = "concord join v1";

/// What a signature covers: the domain, a zero byte, the bytes.
pub fn in_domain(domain: &str, bytes: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], bytes].concat()
}

/// The digest of a serialised agreement text; what a consent names.
pub fn agreement_digest(text: &[u8]) -> AgreementDigest {
    AgreementDigest(Digest(JournalDigest::of(AGREEMENT_DOMAIN, &[text]).0))
}

/// Serialises an agreement text; the bytes are what the digest covers.
pub fn encode_text(text: &AgreementText) -> Bytes {
    let message = pb::AgreementText {
        id: text.id.to_string(),
        version: text.version,
        title: text.title.to_string(),
        measures: text.measures.iter().map(ToString::to_string).collect(),
        parties: text
            .parties
            .iter()
            .map(|party| pb::Party {
                participant: party.participant.to_string(),
                anchor_fingerprint: digest_bytes(&party.anchor.0),
                signing_key_fingerprint: digest_bytes(&party.signing_key.0),
                role: terms::role(party.role).into(),
            })
            .collect(),
        terms: Some(terms::terms(&text.terms)),
        valid_until: text.valid_until.map(timestamp),
        amends: text.amends.as_ref().map(agreement_ref),
        outgoing: text.outgoing.iter().map(ToString::to_string).collect(),
        in_force: terms::in_force(text.in_force).into(),
    };
    message.encode_to_vec().into()
}

/// Parses a serialised agreement text. Refuses with `AGREEMENT_MALFORMED`; whether its lists are sorted is the ledger's to judge.
pub fn parse_text(bytes: &[u8]) -> Result<AgreementText, Refusal> {
    let reason = Reason::AgreementMalformed;
    let message: pb::AgreementText = decode_canonical(reason, reason, "agreement text", bytes)?;
    let people = message.parties.len().max(message.outgoing.len());
    if message.measures.len() > AGREEMENT_MEASURES_MAX || people > AGREEMENT_PARTIES_MAX {
        let limit =
            format!("at most {AGREEMENT_MEASURES_MAX} measures and {AGREEMENT_PARTIES_MAX} participants are taken");
        return Err(Refusal::new(reason, limit));
    }
    let wrong = refuse(reason);
    let fingerprint = |bytes: &[u8]| Digest::from_slice(bytes).map(Fingerprint).map_err(&wrong);
    let agreed = required(reason, "the terms of the agreement", message.terms.as_ref())?;
    if message.valid_until.is_some_and(|until| until.nanos % 1000 != 0) {
        return Err(Refusal::new(reason, "the time when it lapses is finer than a microsecond"));
    }
    Ok(AgreementText {
        terms: terms::parse_terms(agreed).map_err(&wrong)?,
        in_force: terms::parse_in_force(message.in_force).map_err(&wrong)?,
        valid_until: message.valid_until.as_ref().map(parse_timestamp).transpose().map_err(&wrong)?,
        amends: message.amends.as_ref().map(parse_agreement_ref).transpose().map_err(&wrong)?,
        outgoing: message
            .outgoing
            .iter()
            .map(|code| ParticipantCode::parse(code).map_err(&wrong))
            .collect::<Result<_, _>>()?,
        id: AgreementId::parse(&message.id).map_err(&wrong)?,
        version: message.version,
        title: Title::parse(&message.title).map_err(&wrong)?,
        measures: message
            .measures
            .iter()
            .map(|code| MeasureCode::parse(code).map_err(&wrong))
            .collect::<Result<_, _>>()?,
        parties: message
            .parties
            .iter()
            .map(|party| {
                Ok(Party {
                    participant: ParticipantCode::parse(&party.participant).map_err(&wrong)?,
                    anchor: fingerprint(&party.anchor_fingerprint)?,
                    signing_key: fingerprint(&party.signing_key_fingerprint)?,
                    role: terms::parse_role(party.role).map_err(&wrong)?,
                })
            })
            .collect::<Result<_, Refusal>>()?,
    })
}

/// What an officer is about to say; the digest follows from the bytes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The participant that the officer speaks for.
    pub participant: ParticipantCode,
    /// The officer.
    pub officer: Name,
    /// The hub that it is meant for.
    pub hub: Name,
    /// The officer's next number.
    pub number: u64,
    /// By the officer's clock.
    pub made_at: concord_model::Timestamp,
    /// What it says.
    pub content: DraftContent,
}

/// What statements say, as they are made.
#[derive(Debug, Clone)]
pub enum DraftContent {
    /// Proposes an agreement and consents to it.
    Propose(AgreementText),
    /// Consents to exactly this version.
    Consent(concord_model::AgreementRef),
    /// Ends a proposal, or goes off it; why, in words, if that is said.
    Decline(concord_model::AgreementRef, Option<Title>),
    /// Leaves exactly this version, and what amends it, at once.
    Leave(concord_model::AgreementRef),
    /// Consents again to exactly this version, which was left by the leave with this digest.
    Return(concord_model::AgreementRef, Digest),
    /// Says that exactly this version is to end.
    End(concord_model::AgreementRef),
    /// Binds a participant to its anchor and keys: a serialised join request.
    Enrol(Bytes),
    /// Binds a participant to new keys of its node: a serialised join request, and the paper that it rests on.
    Replace(Bytes, Title),
    /// Closes the present epoch of the own node's chains, and opens the next.
    OpenEpoch(EpochOpening),
    /// Binds the own node, or the hub, to a new signing key ([`keys::rotation`]).
    RotateKey(pb::KeyRotation),
    /// Binds the own participant to a new anchor ([`keys::succession`]).
    SucceedAnchor(pb::AnchorSuccession),
    /// Ends the anchor before the present one.
    EndAnchor(Fingerprint),
    /// Keeps a participant's node from receiving and consigning; why, in words.
    Hold(ParticipantCode, Title),
    /// Lifts the hold that the statement with this digest laid.
    Release(Digest),
    /// Signs, too, what waits under this digest.
    Approve(Digest),
    /// Ends what waits under this digest.
    Reject(Digest),
    /// Records what the forum decided about itself.
    Decided(ForumDecision),
    /// Says whom one calls in the own state.
    SetContact(ContactSetting),
    /// Records that the forum gave a role, or took it.
    Role(RoleDecision),
}

/// Serialises a statement; its officer signs these bytes in [`STATEMENT_DOMAIN`].
pub fn encode_statement(draft: &Draft) -> Bytes {
    use pb::statement::Content;
    let content = match &draft.content {
        DraftContent::Propose(text) => Content::Proposal(pb::Proposal { text: encode_text(text) }),
        DraftContent::Consent(agreement) => Content::Consent(pb::Consent { agreement: Some(agreement_ref(agreement)) }),
        DraftContent::Decline(agreement, reason) => Content::Decline(pb::Decline {
            agreement: Some(agreement_ref(agreement)),
            reason: reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        DraftContent::Return(agreement, leave) => {
            Content::Return(pb::Return { agreement: Some(agreement_ref(agreement)), leave: digest_bytes(leave) })
        }
        DraftContent::Leave(agreement) => Content::Leave(pb::Leave { agreement: Some(agreement_ref(agreement)) }),
        DraftContent::End(agreement) => Content::End(pb::End { agreement: Some(agreement_ref(agreement)) }),
        DraftContent::Hold(participant, reason) => {
            Content::Hold(pb::Hold { participant: participant.to_string(), reason: reason.to_string() })
        }
        DraftContent::Release(hold) => Content::Release(pb::Release { hold: digest_bytes(hold) }),
        DraftContent::SetContact(setting) => Content::ContactSetting(offices::contact_setting(setting)),
        DraftContent::Role(decision) => Content::RoleDecision(offices::role_decision(decision)),
        DraftContent::Enrol(request) => Content::Enrolment(pb::Enrolment { request: request.clone() }),
        DraftContent::Replace(request, reference) => {
            Content::Replacement(pb::Replacement { request: request.clone(), reference: reference.to_string() })
        }
        DraftContent::OpenEpoch(EpochOpening { node, epoch }) => {
            Content::EpochOpening(pb::EpochOpening { node: node.to_string(), epoch: *epoch })
        }
        DraftContent::RotateKey(rotation) => Content::KeyRotation(rotation.clone()),
        DraftContent::SucceedAnchor(next) => Content::AnchorSuccession(next.clone()),
        DraftContent::EndAnchor(anchor) => {
            Content::AnchorEnd(pb::AnchorEnd { anchor_fingerprint: digest_bytes(&anchor.0) })
        }
        DraftContent::Approve(statement) => Content::Approval(pb::Approval { statement: digest_bytes(statement) }),
        DraftContent::Reject(statement) => Content::Rejection(pb::Rejection { statement: digest_bytes(statement) }),
        DraftContent::Decided(decision) => decisions::encode(decision),
    };
    let message = pb::Statement {
        participant: draft.participant.to_string(),
        officer: draft.officer.to_string(),
        hub: draft.hub.to_string(),
        number: draft.number,
        made_at: Some(timestamp(draft.made_at)),
        content: Some(content),
    };
    message.encode_to_vec().into()
}

/// Reads the statement inside a signed one. The signature is the identity crate's to check.
///
/// Refuses with `STATEMENT_MALFORMED` or `AGREEMENT_MALFORMED`.
pub fn parse_statement(signed: &pb::SignedStatement) -> Result<Statement, Refusal> {
    use pb::statement::Content;
    let reason = Reason::StatementMalformed;
    if signed.encoded_len() > STATEMENT_SIZE_MAX_BYTES {
        let size =
            format!("the statement has {} bytes, at most {STATEMENT_SIZE_MAX_BYTES} are taken", signed.encoded_len());
        return Err(Refusal::new(reason, size));
    }
    if signed.suite != SUITE_ED25519 {
        return Err(Refusal::new(reason, format!("signature suite {} is not known here", signed.suite)));
    }
    let message: pb::Statement = decode_canonical(reason, reason, "statement", &signed.statement)?;
    let wrong = refuse(reason);
    let content = match required(reason, "the content of the statement", message.content)? {
        Content::Proposal(proposal) => {
            StatementContent::Propose { text: parse_text(&proposal.text)?, digest: agreement_digest(&proposal.text) }
        }
        Content::Consent(consent) => {
            let agreement = required(reason, "the agreement consented to", consent.agreement)?;
            StatementContent::Consent(parse_agreement_ref(&agreement).map_err(&wrong)?)
        }
        Content::Decline(decline) => {
            let agreement = required(reason, "the agreement declined", decline.agreement)?;
            let reason = match decline.reason.as_str() {
                "" => None,
                reason => Some(Title::parse(reason).map_err(&wrong)?),
            };
            StatementContent::Decline(parse_agreement_ref(&agreement).map_err(&wrong)?, reason)
        }
        Content::Return(returning) => {
            let agreement = required(reason, "the agreement come back to", returning.agreement)?;
            let leave = Digest::from_slice(&returning.leave).map_err(&wrong)?;
            StatementContent::Return(parse_agreement_ref(&agreement).map_err(&wrong)?, leave)
        }
        Content::Leave(leave) => {
            let agreement = required(reason, "the agreement left", leave.agreement)?;
            StatementContent::Leave(parse_agreement_ref(&agreement).map_err(&wrong)?)
        }
        Content::End(end) => {
            let agreement = required(reason, "the agreement that is to end", end.agreement)?;
            StatementContent::End(parse_agreement_ref(&agreement).map_err(&wrong)?)
        }
        Content::Hold(hold) => StatementContent::Hold {
            participant: ParticipantCode::parse(&hold.participant).map_err(&wrong)?,
            reason: Title::parse(&hold.reason).map_err(&wrong)?,
        },
        Content::Release(release) => StatementContent::Release(Digest::from_slice(&release.hold).map_err(&wrong)?),
        Content::ContactSetting(setting) => {
            StatementContent::SetContact(offices::parse_contact_setting(&setting).map_err(&wrong)?)
        }
        Content::RoleDecision(decision) => {
            StatementContent::Role(offices::parse_role_decision(&decision).map_err(&wrong)?)
        }
        Content::Enrolment(enrolment) => StatementContent::Enrol(parse_join_request(&enrolment.request)?.0),
        Content::Replacement(replacement) => StatementContent::Replace(Replacement {
            request: parse_join_request(&replacement.request)?.0,
            reference: Title::parse(&replacement.reference).map_err(&wrong)?,
        }),
        Content::EpochOpening(pb::EpochOpening { node, epoch }) => {
            StatementContent::OpenEpoch(EpochOpening { node: Name::parse(&node).map_err(&wrong)?, epoch })
        }
        Content::KeyRotation(rotation) => {
            StatementContent::RotateKey(keys::parse_rotation(&rotation, (&message.participant, &message.hub))?)
        }
        Content::AnchorSuccession(next) => {
            StatementContent::SucceedAnchor(keys::parse_succession(&next, (&message.participant, &message.hub))?)
        }
        Content::AnchorEnd(end) => {
            StatementContent::EndAnchor(Fingerprint(Digest::from_slice(&end.anchor_fingerprint).map_err(&wrong)?))
        }
        Content::Approval(approval) => {
            StatementContent::Approve(Digest::from_slice(&approval.statement).map_err(&wrong)?)
        }
        Content::Rejection(rejection) => {
            StatementContent::Reject(Digest::from_slice(&rejection.statement).map_err(&wrong)?)
        }
        content @ (Content::ParticipantAddition(_)
        | Content::ParticipantRenaming(_)
        | Content::ParticipantKindChange(_)
        | Content::MeasureAddition(_)) => StatementContent::Decided(decisions::parse(content)?),
    };
    let made_at = required(reason, "the time of the statement", message.made_at)?;
    Ok(Statement {
        participant: ParticipantCode::parse(&message.participant).map_err(&wrong)?,
        officer: Name::parse(&message.officer).map_err(&wrong)?,
        hub: Name::parse(&message.hub).map_err(&wrong)?,
        number: message.number,
        made_at: parse_timestamp(&made_at).map_err(&wrong)?,
        digest: Digest(JournalDigest::of(STATEMENT_DOMAIN, &[&signed.statement]).0),
        content,
    })
}

/// What proves a join request, beside the request itself.
pub struct JoinProof {
    /// The node's certificate, DER: the anchor stands behind it.
    pub node_certificate: Bytes,
    /// What the signing key signed.
    pub signed_message: Vec<u8>,
    /// Its signature.
    pub signature: Bytes,
}

/// Serialises a join request and signs it with the node's signing key.
pub fn encode_join_request(
    participant: &ParticipantCode,
    node: &Name,
    anchor: &[u8],
    signing_key: &PublicKey,
    node_certificate: &[u8],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Bytes {
    let mut message = pb::JoinRequest {
        participant: participant.to_string(),
        node: node.to_string(),
        anchor: Bytes::copy_from_slice(anchor),
        signing_key: Bytes::copy_from_slice(&signing_key.bytes),
        node_certificate: Bytes::copy_from_slice(node_certificate),
        possession: Bytes::new(),
    };
    message.possession = Bytes::copy_from_slice(&sign(&in_domain(JOIN_DOMAIN, &message.encode_to_vec())));
    message.encode_to_vec().into()
}

/// Reads a join request with its proofs, which the identity crate checks. Refuses with `STATEMENT_MALFORMED`.
pub fn parse_join_request(bytes: &[u8]) -> Result<(JoinRequest, JoinProof), Refusal> {
    let reason = Reason::StatementMalformed;
    let mut message: pb::JoinRequest = decode_canonical(reason, reason, "join request", bytes)?;
    let wrong = refuse(reason);
    let signing_key = <[u8; 32]>::try_from(&message.signing_key[..])
        .map_err(|_| Refusal::new(reason, format!("a signing key has 32 bytes, not {}", message.signing_key.len())))?;
    let request = JoinRequest {
        participant: ParticipantCode::parse(&message.participant).map_err(&wrong)?,
        node: Name::parse(&message.node).map_err(&wrong)?,
        anchor: message.anchor.to_vec(),
        anchor_fingerprint: certificate_fingerprint(&message.anchor),
        signing_key: public_key(signing_key),
    };
    let signature = std::mem::take(&mut message.possession);
    let signed_message = in_domain(JOIN_DOMAIN, &message.encode_to_vec());
    Ok((request, JoinProof { node_certificate: message.node_certificate, signed_message, signature }))
}

/// The join request that a statement carries, if it carries one: with its proofs, which [`parse_join_request`] reads.
pub fn carried_request(signed: &pb::SignedStatement) -> Option<Bytes> {
    use pb::statement::Content;
    match pb::Statement::decode(signed.statement.clone()).ok()?.content? {
        Content::Enrolment(enrolment) => Some(enrolment.request),
        Content::Replacement(replacement) => Some(replacement.request),
        _ => None,
    }
}

/// An Ed25519 key with its fingerprint: SHA-256 of its SubjectPublicKeyInfo (RFC 8410), as every tool shows it.
pub fn public_key(bytes: [u8; 32]) -> PublicKey {
    use sha2::Digest as _;
    const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let fingerprint = sha2::Sha256::new().chain_update(SPKI_PREFIX).chain_update(bytes).finalize();
    PublicKey { bytes, fingerprint: Fingerprint(Digest(fingerprint.into())) }
}

/// SHA-256 of a certificate's DER, as every tool shows it.
pub fn certificate_fingerprint(der: &[u8]) -> Fingerprint {
    use sha2::Digest as _;
    Fingerprint(Digest(sha2::Sha256::digest(der).into()))
}

/// An agreement as those entitled see it.
pub fn shown(agreement: &concord_ledger::Agreement) -> pb::Agreement {
    use concord_ledger::{AgreementState, PartyState};
    let state = match agreement.state {
        AgreementState::Proposed => pb::AgreementState::Proposed,
        AgreementState::InForce => pb::AgreementState::InForce,
        AgreementState::Declined => pb::AgreementState::Declined,
        AgreementState::Ended => pb::AgreementState::Ended,
        AgreementState::Amended => pb::AgreementState::Amended,
        AgreementState::Lapsed => pb::AgreementState::Lapsed,
    };
    let signed = |signed: &concord_ledger::agreement::Signed| pb::Signed {
        officer: signed.officer.to_string(),
        at: Some(timestamp(signed.at)),
    };
    let party = |(participant, record): (&ParticipantCode, &concord_ledger::PartyRecord)| {
        let state = match record.state {
            PartyState::Pending => pb::PartyState::Pending,
            PartyState::Consented => pb::PartyState::Consented,
            PartyState::Declined => pb::PartyState::Declined,
            PartyState::Left => pb::PartyState::Left,
        };
        pb::AgreementParty {
            participant: participant.to_string(),
            state: state.into(),
            at: Some(timestamp(record.at)),
            ends_at: record.ends_at.map(timestamp),
            signed: record.signed.as_ref().map(signed),
            returned: record.returned.as_ref().map(signed),
            reason: record.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    };
    pb::Agreement {
        reference: Some(agreement_ref(&agreement.reference())),
        state: state.into(),
        text: encode_text(&agreement.text),
        parties: agreement.parties.iter().map(party).collect(),
        outgoing: agreement.outgoing.iter().map(party).collect(),
        ended_at: agreement.ended_at.map(timestamp),
        proposed_at: Some(timestamp(agreement.proposed_at)),
        in_force_at: agreement.in_force_at.map(timestamp),
    }
}
