//! Trimming: whole old segments go, and a *base* stands for what was before the first entry that stays.

use bytes::Bytes;

use crate::digest::{Digest, Tail};
use crate::entry::{Draft, KIND_RESERVED_FIRST};
use crate::file::is_no_room;
use crate::journal::ReadError;
use crate::redaction::own;

/// The kind of the entry that names a base: the anchor.
pub const KIND_TRIMMED: u16 = KIND_RESERVED_FIRST + 2;

/// What is to be trimmed, and what is to stay of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// The first entry that stays whole: one that [`Journal::trim_point`](crate::Journal::trim_point) named.
    pub first_kept: u64,
    /// The caller's state of all entries before it; the journal does not look into it.
    pub state: Bytes,
    /// The entries before it that can be read on, by sequence, without their bodies. Those that begin a history stay
    /// anyway.
    pub kept: Vec<u64>,
}

/// A trim whose base is durable, and which has not happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedTrim {
    pub(crate) first_kept: u64,
    /// Of the base.
    pub(crate) digest: Digest,
    /// The base itself, where no file holds it.
    pub(crate) in_memory: Option<Trim>,
}

impl PreparedTrim {
    /// The first entry that stays whole.
    pub const fn first_kept(&self) -> u64 {
        self.first_kept
    }
}

/// What a journal begins with that was trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The last entry that is not held whole any more: the state is that of all entries up to it.
    pub before: Tail,
    /// The caller's state of all entries before the first that is held whole.
    pub state: Bytes,
    /// The entries of before that can be read on, in order.
    pub kept: Vec<u64>,
}

/// Why a trim was not prepared. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The journal does not begin anew at this entry, or an entry to be kept is not there.
    #[error("the journal cannot be trimmed so: {reason}; ask for a place to trim at, and keep what is there")]
    Refused {
        /// Why.
        reason: String,
    },
    /// What is to be trimmed does not read whole.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The base could not be written.
    #[error("the base {file} cannot be written: {source}; make room or put the storage right, and trim again")]
    Disk {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl TrimError {
    /// Whether only room is missing.
    pub fn is_out_of_room(&self) -> bool {
        matches!(self, TrimError::Disk { source, .. } if is_no_room(source))
    }
}

/// The payload of a [`KIND_TRIMMED`] entry: the base's digest (32 bytes) and the first entry kept (8, little-endian).
pub(crate) fn anchor(first_kept: u64, digest: Digest, recorded_at: i64) -> Draft {
    own(KIND_TRIMMED, [&digest.0[..], &first_kept.to_le_bytes()].concat(), recorded_at)
}

/// Reads what `anchor` writes: the first entry kept, and the digest.
pub(crate) fn read_anchor(payload: &[u8]) -> Option<(u64, Digest)> {
    let (digest, rest) = payload.split_first_chunk::<32>()?;
    let first = u64::from_le_bytes(*rest.first_chunk::<8>()?);
    (rest.len() == 8).then_some((first, Digest(*digest)))
}
