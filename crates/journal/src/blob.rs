//! Blobs: content that stands beside an entry, bound to it by a salted commitment.

use std::fmt;

use bytes::Bytes;

use crate::digest::{Digest, write_hex};

/// The length of a nonce. The nonce makes a commitment to guessable content say nothing about it.
pub const NONCE_SIZE_BYTES: usize = 32;

const BLOB_DOMAIN: &str = "concord blob v1";

/// SHA-256 over domain, nonce and bytes of a blob: the one digest of it in headers, entries and checks.
///
/// From content only [`Blob::seal`] makes one; from storage or a peer it is parsed, and then it is a claim until
/// a sealed blob has the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// Takes a commitment that was stored or received.
    pub const fn from_bytes(bytes: [u8; 32]) -> Commitment {
        Commitment(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Content with its nonce and the commitment that was computed from both.
///
/// Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    nonce: [u8; NONCE_SIZE_BYTES],
    bytes: Bytes,
    commitment: Commitment,
}

impl Blob {
    /// Computes the commitment. This is the only hashing of content on its way into a journal; call it outside the
    /// sequencer.
    pub fn seal(nonce: [u8; NONCE_SIZE_BYTES], bytes: Bytes) -> Blob {
        let commitment = Blob::commitment_of(&nonce, &bytes);
        Blob { nonce, bytes, commitment }
    }

    /// The same for bytes that are only borrowed, to compare a stored body without copying it.
    pub(crate) fn commitment_of(nonce: &[u8; NONCE_SIZE_BYTES], bytes: &[u8]) -> Commitment {
        Commitment(Digest::of(BLOB_DOMAIN, &[nonce, bytes]).0)
    }

    /// The nonce.
    pub const fn nonce(&self) -> &[u8; NONCE_SIZE_BYTES] {
        &self.nonce
    }

    /// The content.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The commitment to nonce and content.
    pub const fn commitment(&self) -> Commitment {
        self.commitment
    }
}

/// Content belongs into no log, so only its length and commitment are shown.
impl fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Blob({} bytes, {})", self.bytes.len(), self.commitment)
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(formatter, &self.0)
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Commitment({self})")
    }
}
