//! A state's statement: an officer's signature over its bytes, with the certificate that proves the officer.

use std::fmt;

use concord_model::{Identity, ParticipantCode, Role, Timestamp};
use rustls::pki_types::CertificateDer;

use crate::anchor::Anchor;
use crate::anchors::Anchors;
use crate::certificate::Leaf;
use crate::chain::{Purpose, verify_chain};
use crate::moment;
use crate::refusal::CertificateRefusal;
use crate::revocation::ChainNumbers;
use crate::signing::{KeyError, SigningKey, verify};

/// Stands before the bytes of every statement, so that its signature means nothing anywhere else.
pub const STATEMENT_DOMAIN: &[u8] = b"concord statement v1\0";

/// A statement cannot be signed, or its signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The chain is not accepted at the given moment.
    #[error("the officer's certificate is not accepted: {0}")]
    Certificate(#[from] CertificateRefusal),
    /// There is no certificate with it.
    #[error("the statement carries no certificate")]
    NoCertificate,
    /// Of another participant than the one whose statement it is to be.
    #[error("{found} cannot speak for {expected}")]
    OtherParticipant {
        /// Who signed.
        found: Identity,
        /// Whose statement was expected.
        expected: ParticipantCode,
    },
    /// Not an officer.
    #[error("{0} is not an officer; only officers speak for their state")]
    NotAnOfficer(Identity),
    /// An officer's key of a kind that cannot sign statements.
    #[error("the certificate of {0} has no Ed25519 key; officers need one to sign statements")]
    NotEd25519(Identity),
    /// The signature is not this officer's over these bytes.
    #[error("the signature of {0} does not hold over the statement")]
    Signature(Identity),
    /// The private key is not that of the certificate.
    #[error("the private key does not belong to the certificate of {0}")]
    KeyMismatch(Identity),
    /// The key could not be read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs for one officer.
pub struct StatementSigner {
    identity: Identity,
    chain: Vec<Vec<u8>>,
    key: SigningKey,
}

impl StatementSigner {
    /// Takes the officer's chain, leaf first, and its key; refuses what no verifier would accept.
    pub fn new(chain: &[CertificateDer<'_>], key: SigningKey) -> Result<Self, StatementError> {
        let leaf = Leaf::read(chain.first().ok_or(StatementError::NoCertificate)?)?;
        let public = officer_key(&leaf)?;
        if public != key.public().bytes {
            return Err(StatementError::KeyMismatch(leaf.identity));
        }
        Ok(Self { identity: leaf.identity, chain: chain.iter().map(|der| der.to_vec()).collect(), key })
    }

    /// Who signs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificates that go with each statement, leaf first, DER.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Signs [`STATEMENT_DOMAIN`] ‖ bytes.
    pub fn sign_statement(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(&in_domain(bytes))
    }
}

impl fmt::Debug for StatementSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementSigner({})", self.identity)
    }
}

/// Verifies a statement of `participant` under that participant's anchors, as they are or were trusted, at a moment:
/// the chain, the officer's role, and the signature over [`STATEMENT_DOMAIN`] ‖ bytes. Returns the officer.
pub fn verify_statement(
    participant: &ParticipantCode,
    anchors: &[Anchor],
    chain_der: &[Vec<u8>],
    bytes: &[u8],
    signature: &[u8],
    now: Timestamp,
) -> Result<Identity, StatementError> {
    let (leaf, intermediates) = chain_der.split_first().ok_or(StatementError::NoCertificate)?;
    let intermediates: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let leaf = verify_chain(
        &CertificateDer::from(leaf.as_slice()),
        &intermediates,
        // An anchor vouches only for the participant whose it is, whatever name stands in the certificate.
        |code| {
            if code == participant { anchors.to_vec() } else { Vec::new() }
        },
        Purpose::Client,
        moment::to_unix_time(now),
    );
    let leaf = match leaf {
        Err(CertificateRefusal::UnknownIssuer { identity }) if identity.participant != *participant => {
            return Err(StatementError::OtherParticipant { found: identity, expected: participant.clone() });
        }
        leaf => leaf?,
    };
    let public = officer_key(&leaf)?;
    if verify(&public, &in_domain(bytes), signature).is_err() {
        return Err(StatementError::Signature(leaf.identity));
    }
    Ok(leaf.identity)
}

/// Refuses a statement whose officer's certificate, or its issuer's, is on a revocation list that counts here, or whose issuer's newest
/// list has lapsed. Only what is new is asked:
/// what was decided stays decided, and a list says nothing of when.
pub fn check_signer(
    anchors: &Anchors,
    participant: &ParticipantCode,
    chain_der: &[Vec<u8>],
) -> Result<(), StatementError> {
    let chain: Vec<_> = chain_der.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let leaf = Leaf::read(chain.first().ok_or(StatementError::NoCertificate)?)?;
    let unfit = anchors.refuse(&ChainNumbers::of(participant, &chain));
    match unfit.filter(|_| !concord_faults::planted("take-what-was-taken-back")) {
        Some(unfit) => Err(CertificateRefusal::unfit(unfit, leaf.identity).into()),
        None => Ok(()),
    }
}

fn officer_key(leaf: &Leaf) -> Result<[u8; 32], StatementError> {
    if leaf.identity.role != Role::Officer {
        return Err(StatementError::NotAnOfficer(leaf.identity.clone()));
    }
    match &leaf.signing_key {
        Some(key) => Ok(key.bytes),
        None => Err(StatementError::NotEd25519(leaf.identity.clone())),
    }
}

fn in_domain(bytes: &[u8]) -> Vec<u8> {
    [STATEMENT_DOMAIN, bytes].concat()
}
