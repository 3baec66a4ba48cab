//! Keys that follow others: what vouches for them, made and read.

use bytes::Bytes;
use concord_ledger::{AnchorSuccession, EpochOpening, KeyRotation};
use concord_model::{Name, ParticipantCode, PublicKey, Reason, Refusal};
use prost::Message as _;

use super::{certificate_fingerprint, in_domain, parse_join_request, public_key};
use crate::convert::refuse;
use crate::proto::agreement::v1 as pb;

const ROTATION_DOMAIN: &str = "concord key rotation v1";
const SUCCESSION_DOMAIN: &str = "concord anchor succession v1";

/// What a key has signed so that a statement holds which is about keys. The identity crate verifies it.
pub struct KeyProof {
    /// The key; Ed25519.
    pub key: PublicKey,
    /// What it signed.
    pub signed_message: Vec<u8>,
    /// Its signature.
    pub signature: Bytes,
}

/// A rotation of this participant's at this hub, signed with both keys.
pub fn rotation(
    participant: &ParticipantCode,
    hub: &Name,
    rotation: &KeyRotation,
    sign_before: impl FnOnce(&[u8]) -> [u8; 64],
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> pb::KeyRotation {
    let mut message = pb::KeyRotation {
        participant: participant.to_string(),
        hub: hub.to_string(),
        opening: rotation
            .opening
            .as_ref()
            .map(|opening| pb::EpochOpening { node: opening.node.to_string(), epoch: opening.epoch }),
        signing_key_before: Bytes::copy_from_slice(&rotation.before.bytes),
        signing_key: Bytes::copy_from_slice(&rotation.signing_key.bytes),
        signature_before: Bytes::new(),
        signature: Bytes::new(),
    };
    let signed = rotation_signed(&message);
    message.signature_before = Bytes::copy_from_slice(&sign_before(&signed));
    message.signature = Bytes::copy_from_slice(&sign(&signed));
    message
}

fn rotation_signed(message: &pb::KeyRotation) -> Vec<u8> {
    let unsigned = pb::KeyRotation { signature_before: Bytes::new(), signature: Bytes::new(), ..message.clone() };
    in_domain(ROTATION_DOMAIN, &unsigned.encode_to_vec())
}

/// A new anchor of this participant's at this hub, signed with its present signing key.
pub fn succession(
    participant: &ParticipantCode,
    hub: &Name,
    anchor: &[u8],
    signing_key: &PublicKey,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> pb::AnchorSuccession {
    let mut message = pb::AnchorSuccession {
        participant: participant.to_string(),
        hub: hub.to_string(),
        anchor: Bytes::copy_from_slice(anchor),
        signing_key: Bytes::copy_from_slice(&signing_key.bytes),
        signature: Bytes::new(),
    };
    message.signature = Bytes::copy_from_slice(&sign(&succession_signed(&message)));
    message
}

fn succession_signed(message: &pb::AnchorSuccession) -> Vec<u8> {
    let unsigned = pb::AnchorSuccession { signature: Bytes::new(), ..message.clone() };
    in_domain(SUCCESSION_DOMAIN, &unsigned.encode_to_vec())
}

/// Reads a rotation that a statement of this participant's for this hub carries.
pub(super) fn parse_rotation(
    message: &pb::KeyRotation,
    (participant, hub): (&str, &str),
) -> Result<KeyRotation, Refusal> {
    check_same((&message.participant, &message.hub), (participant, hub))?;
    let opening = message.opening.as_ref().map(|pb::EpochOpening { node, epoch }| {
        let node = Name::parse(node).map_err(refuse(Reason::StatementMalformed))?;
        Ok(EpochOpening { node, epoch: *epoch })
    });
    Ok(KeyRotation {
        opening: opening.transpose()?,
        before: key(&message.signing_key_before)?,
        signing_key: key(&message.signing_key)?,
    })
}

/// Reads an anchor's succession that a statement of this participant's for this hub carries.
pub(super) fn parse_succession(
    message: &pb::AnchorSuccession,
    (participant, hub): (&str, &str),
) -> Result<AnchorSuccession, Refusal> {
    check_same((&message.participant, &message.hub), (participant, hub))?;
    Ok(AnchorSuccession {
        anchor: message.anchor.to_vec(),
        anchor_fingerprint: certificate_fingerprint(&message.anchor),
        signing_key: key(&message.signing_key)?,
    })
}

/// Else what vouches for a state's keys at one hub would do so at another, or for another state's.
fn check_same(signed: (&str, &str), statement: (&str, &str)) -> Result<(), Refusal> {
    if signed == statement {
        return Ok(());
    }
    let what = format!(
        "what vouches for the keys is of {} at the hub {}, and the statement of {} at {}",
        signed.0, signed.1, statement.0, statement.1
    );
    Err(Refusal::new(Reason::StatementMalformed, what))
}

fn key(bytes: &[u8]) -> Result<PublicKey, Refusal> {
    let size = |_| Refusal::new(Reason::StatementMalformed, format!("a signing key has 32 bytes, not {}", bytes.len()));
    <[u8; 32]>::try_from(bytes).map(public_key).map_err(size)
}

/// What keys have signed inside a statement: the one that a join request brings, the one before a new one and that one, the one that
/// stands behind a new anchor; nothing of any other statement.
///
/// Refuses with `STATEMENT_MALFORMED`.
pub fn proofs(signed: &pb::SignedStatement) -> Result<Vec<KeyProof>, Refusal> {
    use pb::statement::Content;
    let proof = |bytes: &[u8], signed_message: Vec<u8>, signature: &Bytes| {
        Ok(KeyProof { key: key(bytes)?, signed_message, signature: signature.clone() })
    };
    let joins = |request: &Bytes| {
        let (request, proof) = parse_join_request(request)?;
        let (key, signed_message, signature) = (request.signing_key, proof.signed_message, proof.signature);
        Ok(vec![KeyProof { key, signed_message, signature }])
    };
    let malformed = |error: prost::DecodeError| Refusal::new(Reason::StatementMalformed, error.to_string());
    match pb::Statement::decode(signed.statement.clone()).map_err(malformed)?.content {
        Some(Content::Enrolment(enrolment)) => joins(&enrolment.request),
        Some(Content::Replacement(replacement)) => joins(&replacement.request),
        Some(Content::KeyRotation(rotation)) => Ok(vec![
            proof(&rotation.signing_key_before, rotation_signed(&rotation), &rotation.signature_before)?,
            proof(&rotation.signing_key, rotation_signed(&rotation), &rotation.signature)?,
        ]),
        Some(Content::AnchorSuccession(next)) => {
            Ok(vec![proof(&next.signing_key, succession_signed(&next), &next.signature)?])
        }
        _ => Ok(Vec::new()),
    }
}
