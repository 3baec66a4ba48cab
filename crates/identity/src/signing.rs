//! Ed25519 keys: what nodes sign consignments and receipts with, and officers their statements.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use concord_model::{Digest, Fingerprint, PublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// What precedes the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text holds no PEM block `PRIVATE KEY`.
    #[error("no unencrypted PKCS#8 private key ('BEGIN PRIVATE KEY') was found; make one with concord or convert it")]
    NotPem,
    /// The bytes are a key of another kind, or no key.
    #[error("this is not {expected} in PKCS#8; make one with concord or convert it")]
    Rejected {
        /// What was looked for.
        expected: &'static str,
    },
    /// The bytes are not the SubjectPublicKeyInfo of an Ed25519 key.
    #[error("this is not an Ed25519 public key (44 bytes of SubjectPublicKeyInfo)")]
    NotEd25519,
    /// The operating system gave no randomness, or the library failed.
    #[error("the cryptographic library could not {action}; is the system out of memory or randomness?")]
    Library {
        /// What it was asked to do.
        action: &'static str,
    },
    /// A file has more keys than one server uses at once.
    #[error("the file has {0} signing keys or more: a rotation that was begun has to come to its end first")]
    TooMany(usize),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A signature does not hold. Nothing more is known, and nothing more should be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not hold over these bytes with this key")]
pub struct SignatureInvalid;

/// An Ed25519 private key. Shows only its fingerprint.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| KeyError::Library { action: "make an Ed25519 key" })
    }

    /// Reads PKCS#8, version 1 or 2.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| KeyError::Rejected { expected: "an Ed25519 private key" })
    }

    /// Reads the first PEM block `PRIVATE KEY`.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPem)?;
        Self::from_pkcs8_der(der.secret_pkcs8_der())
    }

    /// PKCS#8 version 1, which every tool reads.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.0.to_pkcs8v1().map_err(|_| KeyError::Library { action: "encode an Ed25519 key" })?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
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

    /// The public half, with its fingerprint.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        public_key_from_bytes(bytes)
    }

    /// Signs the message as it is: the caller puts a domain before it.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().fingerprint)
    }
}

/// Checks an Ed25519 signature (RFC 8032, 64 bytes); any other length does not hold.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).map_err(|_| SignatureInvalid)
}

/// Gives raw key bytes the fingerprint that people know them by.
pub fn public_key_from_bytes(bytes: [u8; 32]) -> PublicKey {
    let digest = Sha256::digest(public_key_to_spki(&bytes));
    PublicKey { bytes, fingerprint: Fingerprint(Digest(digest.into())) }
}

/// Reads the SubjectPublicKeyInfo of an Ed25519 key, exactly as RFC 8410 writes it.
pub fn public_key_from_spki(der: &[u8]) -> Result<PublicKey, KeyError> {
    let bytes = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::NotEd25519)?;
    let bytes = bytes.try_into().map_err(|_| KeyError::NotEd25519)?;
    Ok(public_key_from_bytes(bytes))
}

/// The SubjectPublicKeyInfo whose SHA-256 is the fingerprint.
pub fn public_key_to_spki(bytes: &[u8; 32]) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_over_its_bytes_with_its_key_and_over_nothing_else() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signature = key.sign(b"message");
        let mut altered = signature;
        altered[5] ^= 1;
        assert_eq!(verify(&key.public().bytes, b"message", &signature), Ok(()));
        for (public, message, signature) in [
            (key.public(), b"messagf".as_slice(), signature.as_slice()),
            (key.public(), b"message", &altered),
            (key.public(), b"message", &signature[..63]),
            (key.public(), b"message", &[]),
            (other.public(), b"message", &signature),
        ] {
            assert_eq!(verify(&public.bytes, message, signature), Err(SignatureInvalid));
        }
    }

    #[test]
    fn a_key_survives_its_encodings_and_never_shows_itself() {
        let key = SigningKey::generate().unwrap();
        let der = key.to_pkcs8_der().unwrap();
        let pem = files::private_key_to_pem(&der);
        assert_eq!(SigningKey::from_pkcs8_der(&der).unwrap().public(), key.public());
        assert_eq!(SigningKey::from_pkcs8_pem(&pem).unwrap().public(), key.public());
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public().fingerprint));
        assert!(matches!(SigningKey::from_pkcs8_pem("x"), Err(KeyError::NotPem)));
        assert!(matches!(SigningKey::from_pkcs8_der(&der[1..]), Err(KeyError::Rejected { .. })));
    }

    #[test]
    fn a_public_key_is_read_from_exactly_its_spki() {
        let public = SigningKey::generate().unwrap().public();
        let mut spki = public_key_to_spki(&public.bytes);
        assert_eq!(public_key_from_spki(&spki).unwrap(), public);
        spki.push(0);
        assert!(public_key_from_spki(&spki).is_err());
        assert!(public_key_from_spki(&spki[..40]).is_err());
    }
}
