//! The entries of both journals: payloads and their kinds. What stands on a disk must be read for ever, so a kind or version that is
//! not known stops the reader with a clear message.

pub mod hub;
pub mod node;

use bytes::Bytes;
use concord_journal::{Blob, Draft, Entry};
use concord_model::Timestamp;
use prost::Message;

use crate::consignment::{Sealed, parse_sealed};
use crate::header::expires_at;
use crate::proto::journal::v1 as pb;
use crate::tree::{SEED_SIZE_BYTES, Seed};

/// The version of every payload so far.
const PAYLOAD_VERSION: u16 = 1;

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Written by a newer program, or not by this role.
    #[error(
        "entry {sequence} has kind {kind} version {version}, which this version of concord does not know: use the version that wrote it"
    )]
    UnknownKind {
        /// The entry.
        sequence: u64,
        /// Its kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// Its payload verifies but says something impossible.
    #[error("entry {sequence} of kind {kind} cannot be read: {what}; keep the folder and report this")]
    Malformed {
        /// The entry.
        sequence: u64,
        /// Its kind.
        kind: u16,
        /// What is wrong.
        what: String,
    },
}

/// Makes a draft of a payload with the blobs beside it.
fn draft(kind: u16, payload: &impl Message, blobs: Vec<Blob>, recorded_at: Timestamp) -> Draft {
    let payload = payload.encode_to_vec().into();
    Draft { kind, version: PAYLOAD_VERSION, recorded_at: recorded_at.as_micros(), payload, blobs }
}

fn check_version(entry: &Entry) -> Result<(), StoredError> {
    if !concord_journal::is_reserved_kind(entry.kind) && entry.version != PAYLOAD_VERSION {
        return Err(unknown(entry));
    }
    Ok(())
}

fn unknown(entry: &Entry) -> StoredError {
    StoredError::UnknownKind { sequence: entry.sequence, kind: entry.kind, version: entry.version }
}

fn malformed(entry: &Entry, what: impl ToString) -> StoredError {
    StoredError::Malformed { sequence: entry.sequence, kind: entry.kind, what: what.to_string() }
}

fn decode<M: Message + Default>(entry: &Entry) -> Result<M, StoredError> {
    M::decode(entry.payload.clone()).map_err(|error| malformed(entry, error))
}

fn required<T>(entry: &Entry, what: &str, field: Option<T>) -> Result<T, StoredError> {
    field.ok_or_else(|| malformed(entry, format!("{what} is missing")))
}

/// A sealed consignment and how many blobs each of its exchanges has beside the entry.
#[derive(Clone)]
pub struct Kept {
    /// The consignment.
    pub sealed: Sealed,
    /// One for each exchange.
    pub blob_counts: Vec<u32>,
}

impl Kept {
    /// When the exchange with this index expires, if it does.
    pub fn expires_at(&self, index: u32) -> Option<Timestamp> {
        self.sealed.headers.get(index as usize).and_then(|header| expires_at(header))
    }

    /// The blobs of the exchange with this index, as positions in the entry's list.
    pub fn blob_range(&self, index: usize) -> std::ops::Range<usize> {
        let total = |counts: &[u32]| counts.iter().map(|count| *count as usize).sum();
        let first: usize = total(self.blob_counts.get(..index).unwrap_or(&self.blob_counts));
        let count = self.blob_counts.get(index).copied().unwrap_or(0) as usize;
        first..first + count
    }
}

fn keep(sealed: &Sealed, blobs: &[Vec<Blob>]) -> pb::StoredConsignment {
    pb::StoredConsignment {
        seal: sealed.seal.clone(),
        signature: sealed.signature.clone(),
        head: sealed.head.clone(),
        seed: Bytes::copy_from_slice(sealed.seed.as_bytes()),
        headers: sealed.headers.clone(),
        blob_counts: blobs.iter().map(|blobs| blobs.len() as u32).collect(),
    }
}

fn kept(entry: &Entry, message: pb::StoredConsignment) -> Result<Kept, StoredError> {
    let seed = <[u8; SEED_SIZE_BYTES]>::try_from(&message.seed[..])
        .map_err(|_| malformed(entry, format!("the seed has {} bytes", message.seed.len())))?;
    let sealed = parse_sealed(message.seal, message.signature, message.head, Seed::new(seed), message.headers)
        .map_err(|refusal| malformed(entry, refusal))?;
    if message.blob_counts.len() != sealed.headers.len() {
        return Err(malformed(entry, "its exchanges and their counts of blobs differ"));
    }
    check_blobs(entry, message.blob_counts.iter().copied())?;
    Ok(Kept { sealed, blob_counts: message.blob_counts })
}

/// Whoever slices the entry's blobs by these counts must find them.
fn check_blobs(entry: &Entry, counts: impl Iterator<Item = u32>) -> Result<(), StoredError> {
    let counted: u64 = counts.map(u64::from).sum();
    if counted != entry.commitments.len() as u64 {
        let what = format!("it counts {counted} blobs beside it, there are {}", entry.commitments.len());
        return Err(malformed(entry, what));
    }
    Ok(())
}
