//! What a journal has of bodies.

use concord_journal::Entry;
use sha2::{Digest as _, Sha256};

use crate::witness::Id;

/// What a journal has of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// All of it, with this SHA-256.
    Kept(Id),
    /// Its commitment only: the retention took it.
    Gone,
    /// Nothing: it was never put there.
    Absent,
}

/// The description comes first, then the body.
pub(super) fn body(entry: &Entry, blobs: std::ops::Range<usize>) -> Body {
    match entry.blobs.get(blobs).and_then(|blobs| blobs.get(1)) {
        None => Body::Absent,
        Some(None) => Body::Gone,
        Some(Some(body)) => Body::Kept(Sha256::digest(body.bytes()).into()),
    }
}
