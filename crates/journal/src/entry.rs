//! Drafts, entries, and what an entry's digest covers.

use bytes::Bytes;

use crate::blob::{Blob, Commitment, NONCE_SIZE_BYTES};
use crate::digest::{Digest, HistoryId, Tail};
use crate::file::FRAME_HEAD_SIZE_BYTES;
use crate::history::KIND_HISTORY_BEGUN;
use crate::redaction::{KIND_REDACTED, KIND_REDACTION_STEP};
use crate::trim::KIND_TRIMMED;

/// From this kind on, and kind 0, entries are the journal's own: no caller may append them.
pub const KIND_RESERVED_FIRST: u16 = 0xFF00;

/// Whether only the journal itself appends entries of this kind; there is nothing in them for a caller to apply.
pub const fn is_reserved_kind(kind: u16) -> bool {
    kind == KIND_HISTORY_BEGUN || kind >= KIND_RESERVED_FIRST
}

/// Whether this version of the journal knows what such an entry of its own does. Another one was written by a newer program: whoever
/// folds the journal must stop there, as at any kind that it does not know.
pub const fn is_known_effect(kind: u16) -> bool {
    matches!(kind, KIND_REDACTED | KIND_REDACTION_STEP | KIND_TRIMMED)
}

/// Whether an entry of this kind tells what the journal does to itself.
pub(crate) const fn is_own_effect(kind: u16) -> bool {
    kind >= KIND_RESERVED_FIRST
}

/// What one wants to append; the journal adds history, sequence and chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What the payload is; 0 and [`KIND_RESERVED_FIRST`] upwards are the journal's own.
    pub kind: u16,
    /// The version of the payload's encoding.
    pub version: u16,
    /// When it was recorded, in microseconds since the Unix epoch; the caller's clock, taken as it is.
    pub recorded_at: i64,
    /// The bytes that the entry's digest covers by their hash.
    pub payload: Bytes,
    /// The content beside it; the digest covers it by the commitments, which are *not* computed again.
    pub blobs: Vec<Blob>,
}

impl Draft {
    /// The bytes that this draft takes in a commit, all overhead included; see
    /// [`COMMIT_SIZE_MAX_BYTES`](crate::COMMIT_SIZE_MAX_BYTES).
    pub fn size_bytes(&self) -> u64 {
        let blobs: u64 = self.blobs.iter().map(|blob| blob.bytes().len() as u64).sum();
        let beside_each = (TABLE_ROW_SIZE_BYTES + NONCE_SIZE_BYTES) as u64 * self.blobs.len() as u64;
        FRAME_HEAD_SIZE_BYTES as u64 + self.payload.len() as u64 + blobs + beside_each
    }
}

/// One entry as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The history that was current when it was appended.
    pub history: HistoryId,
    /// Its number, without gaps; the first entry is 1.
    pub sequence: u64,
    /// When it was recorded, in microseconds since the Unix epoch.
    pub recorded_at: i64,
    /// The digest of the entry before it; [`Digest::ZERO`] for the first.
    pub previous: Digest,
    /// What the payload is.
    pub kind: u16,
    /// The version of the payload's encoding.
    pub version: u16,
    /// The sequence of the first entry of its commit.
    pub commit_first: u64,
    /// The payload.
    pub payload: Bytes,
    /// One for each blob, in order.
    pub commitments: Vec<Commitment>,
    /// As long as `commitments`. `None`: the body was not asked for, or is gone: redacted, or of a trimmed entry.
    pub blobs: Vec<Option<Blob>>,
    /// The digest over all of the above.
    pub digest: Digest,
}

impl Entry {
    /// The tail of a journal that ends with this entry.
    pub fn tail(&self) -> Tail {
        Tail { history: self.history, sequence: self.sequence, digest: self.digest }
    }
}

/// A row of the blob table: the body's length (4 bytes, little-endian) and its commitment.
pub(crate) const TABLE_ROW_SIZE_BYTES: usize = 4 + 32;

const PAYLOAD_DOMAIN: &str = "concord journal payload v1";
const BLOBS_DOMAIN: &str = "concord journal blobs v1";
const ENTRY_DOMAIN: &str = "concord journal entry v1";

/// The fields of an entry that its digest covers directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) history: HistoryId,
    pub(crate) sequence: u64,
    pub(crate) recorded_at: i64,
    pub(crate) previous: Digest,
    pub(crate) kind: u16,
    pub(crate) version: u16,
    pub(crate) commit_first: u64,
    pub(crate) payload_length: u32,
    pub(crate) blob_count: u32,
}

impl Meta {
    /// The meta of `draft` as the entry after `tail`, in a commit that begins at `commit_first`.
    pub(crate) fn after(tail: &Tail, history: HistoryId, commit_first: u64, draft: &Draft) -> Meta {
        Meta {
            history,
            sequence: tail.sequence + 1,
            recorded_at: draft.recorded_at,
            previous: tail.digest,
            kind: draft.kind,
            version: draft.version,
            commit_first,
            payload_length: stored_length(draft.payload.len()),
            blob_count: stored_length(draft.blobs.len()),
        }
    }

    /// The entry's digest. Payload and table come in as stored, so that nothing is copied to be hashed; the table
    /// is hashed as one run rather than as a tree, since whoever needs it always has all of it.
    pub(crate) fn digest(&self, payload: &[u8], table: &[u8]) -> Digest {
        Digest::of(
            ENTRY_DOMAIN,
            &[
                &self.history.0,
                &self.sequence.to_le_bytes(),
                &self.recorded_at.to_le_bytes(),
                &self.previous.0,
                &self.kind.to_le_bytes(),
                &self.version.to_le_bytes(),
                &self.commit_first.to_le_bytes(),
                &self.payload_length.to_le_bytes(),
                &self.blob_count.to_le_bytes(),
                &Digest::of(PAYLOAD_DOMAIN, &[payload]).0,
                &Digest::of(BLOBS_DOMAIN, &[table]).0,
            ],
        )
    }
}

pub(crate) fn write_table(blobs: &[Blob], table: &mut Vec<u8>) {
    for blob in blobs {
        table.extend_from_slice(&stored_length(blob.bytes().len()).to_le_bytes());
        table.extend_from_slice(blob.commitment().as_bytes());
    }
}

/// What an entry takes without its bodies.
pub(crate) fn bare_size_bytes(entry: &Entry) -> u64 {
    (FRAME_HEAD_SIZE_BYTES + TABLE_ROW_SIZE_BYTES * entry.commitments.len() + entry.payload.len()) as u64
}

/// Lengths are stored in 32 bits. Saturating is never reached: the size of a commit is checked before, and is far
/// below.
pub(crate) fn stored_length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
