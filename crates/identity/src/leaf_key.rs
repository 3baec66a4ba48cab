//! The private key behind a leaf certificate: ECDSA P-256 for machines, Ed25519 for officers, who also sign with it.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use concord_model::{Digest, Fingerprint, Role};
use rcgen::PublicKeyData as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, alg_id};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::files;
use crate::signing::{KeyError, SigningKey};

/// Which algorithm a leaf key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKeyKind {
    /// For nodes, the hub, agencies, operators and anchors.
    EcdsaP256,
    /// For officers: the same key signs the state's statements.
    Ed25519,
}

impl LeafKeyKind {
    /// What the holder of this role needs.
    pub const fn for_role(role: Role) -> Self {
        match role {
            Role::Officer => Self::Ed25519,
            Role::Hub | Role::Node | Role::Agency | Role::Operator => Self::EcdsaP256,
        }
    }
}

/// A leaf's private key. Shows only its kind.
pub struct LeafKey(Pair);

enum Pair {
    EcdsaP256(EcdsaKeyPair),
    Ed25519(SigningKey),
}

impl LeafKey {
    /// Makes a new key from the system's randomness.
    pub fn generate(kind: LeafKeyKind) -> Result<Self, KeyError> {
        Ok(Self(match kind {
            LeafKeyKind::EcdsaP256 => Pair::EcdsaP256(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                    .map_err(|_| KeyError::Library { action: "make an ECDSA P-256 key" })?,
            ),
            LeafKeyKind::Ed25519 => Pair::Ed25519(SigningKey::generate()?),
        }))
    }

    /// Reads PKCS#8 of either kind.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = SigningKey::from_pkcs8_der(der) {
            return Ok(Self(Pair::Ed25519(key)));
        }
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(|pair| Self(Pair::EcdsaP256(pair)))
            .map_err(|_| KeyError::Rejected { expected: "an ECDSA P-256 or Ed25519 private key" })
    }

    /// Reads the first PEM block `PRIVATE KEY`.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPem)?;
        Self::from_pkcs8_der(der.secret_pkcs8_der())
    }

    /// PKCS#8 version 1.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.0 {
            Pair::Ed25519(key) => key.to_pkcs8_der(),
            Pair::EcdsaP256(pair) => {
                let document =
                    pair.to_pkcs8v1().map_err(|_| KeyError::Library { action: "encode an ECDSA P-256 key" })?;
                Ok(Zeroizing::new(document.as_ref().to_vec()))
            }
        }
    }

    /// Reads a PEM file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pkcs8_pem(&Zeroizing::new(files::read_text(path)?))
    }

    /// Writes a PEM file with mode 0600, durable when this returns.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let text = files::private_key_to_pem(&self.to_pkcs8_der()?);
        Ok(files::write_private(path, text.as_bytes())?)
    }

    /// Which algorithm it has.
    pub fn kind(&self) -> LeafKeyKind {
        match self.0 {
            Pair::EcdsaP256(_) => LeafKeyKind::EcdsaP256,
            Pair::Ed25519(_) => LeafKeyKind::Ed25519,
        }
    }

    /// The public half, which goes into a certificate.
    pub fn public(&self) -> LeafPublicKey {
        let bytes = match &self.0 {
            Pair::EcdsaP256(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(key) => key.public().bytes.to_vec(),
        };
        let kind = match self.kind() {
            LeafKeyKind::EcdsaP256 => PublicKind::EcdsaP256,
            LeafKeyKind::Ed25519 => PublicKind::Ed25519,
        };
        LeafPublicKey { kind, bytes }
    }

    /// The key as a signer of statements, if it is of the kind that signs them.
    pub fn into_signing_key(self) -> Option<SigningKey> {
        match self.0 {
            Pair::EcdsaP256(_) => None,
            Pair::Ed25519(key) => Some(key),
        }
    }

    pub(crate) fn to_rustls(&self) -> Result<PrivateKeyDer<'static>, KeyError> {
        let der = self.to_pkcs8_der()?;
        Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec())))
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafKey({:?})", self.kind())
    }
}

/// A public key of a kind, or a size, that connections here do not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its key is {found}; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits")]
pub struct PublicKeyUnsupported {
    found: String,
}

/// The public half of a leaf key, also of one that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafPublicKey {
    kind: PublicKind,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PublicKind {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa,
}

impl LeafPublicKey {
    /// The key as it stands in a certificate's BIT STRING.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a SubjectPublicKeyInfo in DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyUnsupported> {
        let unsupported = |found: &str| PublicKeyUnsupported { found: found.to_owned() };
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| unsupported("not readable"))?;
        let parsed = spki.parsed().map_err(|_| unsupported("of another kind"))?;
        let kinds = [PublicKind::EcdsaP256, PublicKind::EcdsaP384, PublicKind::Ed25519, PublicKind::Rsa];
        let bytes = spki.subject_public_key.data.to_vec();
        let same = |kind: &PublicKind| Self { kind: *kind, bytes: bytes.clone() }.subject_public_key_info() == der;
        let kind = kinds.into_iter().find(same).ok_or_else(|| unsupported("of another kind"))?;
        match parsed {
            PublicKey::RSA(rsa) if !(2048..=8192).contains(&rsa.key_size()) => {
                Err(unsupported(&format!("RSA of {} bits", rsa.key_size())))
            }
            _ => Ok(Self { kind, bytes }),
        }
    }

    /// The SubjectPublicKeyInfo in DER, which [`Self::from_spki`] reads.
    pub fn to_spki(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }

    /// SHA-256 of the SubjectPublicKeyInfo, as people compare it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Digest(Sha256::digest(self.subject_public_key_info()).into()))
    }

    /// The content of its AlgorithmIdentifier in DER.
    pub(crate) fn algorithm_id(&self) -> &'static [u8] {
        match self.kind {
            PublicKind::EcdsaP256 => alg_id::ECDSA_P256.as_ref(),
            PublicKind::EcdsaP384 => alg_id::ECDSA_P384.as_ref(),
            PublicKind::Ed25519 => alg_id::ED25519.as_ref(),
            PublicKind::Rsa => alg_id::RSA_ENCRYPTION.as_ref(),
        }
    }

    /// The kind of key that our own software would make of it, if it is one.
    pub fn own_kind(&self) -> Option<LeafKeyKind> {
        match self.kind {
            PublicKind::EcdsaP256 => Some(LeafKeyKind::EcdsaP256),
            PublicKind::Ed25519 => Some(LeafKeyKind::Ed25519),
            PublicKind::EcdsaP384 | PublicKind::Rsa => None,
        }
    }
}

impl rcgen::PublicKeyData for LeafPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.kind {
            PublicKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            PublicKind::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            PublicKind::Ed25519 => &rcgen::PKCS_ED25519,
            PublicKind::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// A private key as rcgen wants it, borrowed for one signature.
pub(crate) struct CertificateSigner<'a> {
    key: &'a LeafKey,
    public: LeafPublicKey,
}

impl<'a> CertificateSigner<'a> {
    pub(crate) fn new(key: &'a LeafKey) -> Self {
        Self { key, public: key.public() }
    }
}

impl rcgen::PublicKeyData for CertificateSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for CertificateSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.key.0 {
            Pair::Ed25519(key) => Ok(key.sign(message).to_vec()),
            Pair::EcdsaP256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| rcgen::Error::RingUnspecified),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_survive_a_file_and_never_show_themselves() {
        for kind in [LeafKeyKind::EcdsaP256, LeafKeyKind::Ed25519] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key.pem");
            let key = LeafKey::generate(kind).unwrap();
            key.save(&path).unwrap();
            let read = LeafKey::load(&path).unwrap();
            assert_eq!((read.kind(), read.public()), (kind, key.public()));
            assert_eq!(format!("{key:?}"), format!("LeafKey({kind:?})"));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_in_words() {
        let error = LeafKey::from_pkcs8_der(&[0x30, 0x00]).unwrap_err();
        assert!(error.to_string().contains("ECDSA P-256 or Ed25519"), "{error}");
    }
}
