//! Digests, history ids and the tail.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; shown in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What stands for "no entry" before the first one.
    pub const ZERO: Digest = Digest([0; 32]);

    /// SHA-256 over `domain`, a zero byte, and the parts one after the other.
    ///
    /// The parts are not separated: all but one of them must be of a fixed length, or two different lists of
    /// parts could have one digest.
    pub fn of(domain: &'static str, parts: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new();
        hash.update(domain.as_bytes());
        hash.update([0]);
        for part in parts {
            hash.update(part);
        }
        Digest(hash.finalize().into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Names one unbroken past of a journal: 16 random bytes that its creator passes in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HistoryId(pub [u8; 16]);

impl HistoryId {
    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The end of a journal: what a reader must have seen to have seen everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tail {
    /// The history that the last entry belongs to.
    pub history: HistoryId,
    /// The number of the last entry; the first entry is 1.
    pub sequence: u64,
    /// The digest of the last entry, which covers all before it.
    pub digest: Digest,
}

impl Tail {
    /// The tail before the first entry; no open journal ever shows it.
    pub(crate) const ORIGIN: Tail = Tail { history: HistoryId([0; 16]), sequence: 0, digest: Digest::ZERO };
}

impl fmt::Display for Tail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.history, self.sequence, self.digest)
    }
}

pub(crate) fn write_hex(formatter: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(formatter, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self})")
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(formatter, &self.0)
    }
}

impl fmt::Debug for HistoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HistoryId({self})")
    }
}
