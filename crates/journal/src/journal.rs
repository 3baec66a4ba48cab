//! The contract that every provider keeps; `conformance` checks it.

use std::ops::Range;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::blob::Blob;
use crate::digest::{Digest, HistoryId, Tail};
use crate::entry::{Draft, Entry, KIND_RESERVED_FIRST, is_reserved_kind};
use crate::history::KIND_HISTORY_BEGUN;
use crate::old::Held;
use crate::redaction::{Bodies, Body, Redacted};
use crate::trim::{Base, PreparedTrim, Trim, TrimError};

/// The most that one commit may take, by the sum of [`Draft::size_bytes`]; a single draft may take all of it.
/// Beyond it the batch is refused with [`AppendError::BatchTooLarge`] and nothing is written.
pub const COMMIT_SIZE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// [`Journal::read`] returns early once its payloads have passed this; the caller asks again from where it ended.
pub const READ_SIZE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// An append-only, hash-chained record.
///
/// * A journal is never empty: its entry 1 begins its first history. Once trimmed, a base stands for its beginning.
/// * Sequences have no gaps; each entry's digest covers the digest of the entry before it.
/// * Readers see durable entries only, up to the published tail, and only what verifies: an entry whose digest, or
///   a body whose commitment, does not hold is an error, never a result.
/// * Reading blocks for as long as the storage takes; an asynchronous caller reads on a thread that may block.
pub trait Journal: Send + Sync {
    /// Appends the batch as one commit after the entry that `expected` names.
    ///
    /// Resolves when every entry of it is durable and published. Entries are atomic each; after a crash a commit
    /// that was not answered yet may be there in whole, from its first entry up to some entry, or not at all.
    /// Every error but [`AppendError::OutcomeUnknown`] means that nothing of it is there. Dropping the future does
    /// not undo what it already handed over. Commits of one journal happen in the order in which they were first
    /// polled; whoever appends must wait for the new tail before the next append.
    fn append(&self, expected: Tail, batch: Vec<Draft>) -> BoxFuture<'static, Result<Committed, AppendError>>;

    /// Begins a new history after the entry that `expected` names, which becomes its parent; for a restored copy.
    fn begin_history(
        &self,
        expected: Tail,
        new: HistoryId,
        recorded_at: i64,
    ) -> BoxFuture<'static, Result<Committed, AppendError>>;

    /// Makes bodies go for good, their nonces too, while their entries stay and the journal goes on to verify: first a
    /// fact that names them is durable, then they are overwritten.
    ///
    /// Resolves when they are gone, or when there was no room to say so ([`Redacted::gone`]). An error means that
    /// nothing of it is there, [`AppendError::OutcomeUnknown`] apart. Bodies that are gone already may be named again.
    fn redact(
        &self,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>>;

    /// Puts a damaged body back in its place, durably, as its entry says by its commitment that it was. Nothing is appended: the
    /// journal says what it always said, and verifies again. What is whole there stays as it is.
    fn mend(&self, sequence: u64, index: usize, body: Blob) -> BoxFuture<'static, Result<(), MendError>>;

    /// The last entry not after `before` at which the journal can be trimmed: the first that would be kept whole. None
    /// where nothing would go.
    fn trim_point(&self, before: u64) -> Option<u64>;

    /// What the files take that a trim up to this entry takes away.
    fn held_before(&self, first_kept: u64) -> Held;

    /// Makes what is to stand for the trimmed entries durable. Nothing goes yet; should the process end first, the next
    /// open trims or forgets it. Blocks for as long as reading what is to go takes, beside the writer.
    fn prepare_trim(&self, trim: Trim) -> Result<PreparedTrim, TrimError>;

    /// Lets the entries before the first one kept go for good, once an entry that names what stands for them is durable.
    ///
    /// An error means that nothing of it happened, [`AppendError::OutcomeUnknown`] apart. Entries that were to be kept can
    /// be read by [`entry`](Self::entry), without bodies; [`read`](Self::read) begins at the first that is whole.
    fn trim(
        &self,
        expected: Tail,
        recorded_at: i64,
        prepared: PreparedTrim,
    ) -> BoxFuture<'static, Result<Committed, AppendError>>;

    /// What stands for the entries before the first; none if the journal was never trimmed. Reads the whole state.
    fn base(&self) -> Result<Option<Base>, ReadError>;

    /// Entries from `from` on, without bodies: at most `max_entries`, fewer at the tail or past
    /// [`READ_SIZE_MAX_BYTES`], none beyond the tail; at least one where there is one and `max_entries` is not 0.
    fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError>;

    /// The first entry from `from` on that a trim kept; none where there is none.
    fn kept_from(&self, from: u64) -> Option<u64>;

    /// Entries from `from` on that can be read at all, without bodies: those that trims kept, in order and with gaps, then the
    /// whole ones. Bounded as [`read`](Self::read) is, and like it empty only beyond the tail.
    fn recall(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        let (mut entries, mut from, mut size) = (Vec::new(), from, 0);
        while entries.len() < max_entries && size <= READ_SIZE_MAX_BYTES {
            // Asked for before what is kept: a trim in between then makes the read refuse, and hides nothing that it kept.
            let first = self.first_sequence();
            let Some(kept) = self.kept_from(from) else {
                let whole = first.max(from);
                match self.read(whole, max_entries - entries.len()) {
                    Ok(rest) => entries.extend(rest),
                    // Trimmed since it was asked for.
                    Err(ReadError::EntryAbsent { .. }) if self.first_sequence() > whole => continue,
                    Err(error) => return Err(error),
                }
                break;
            };
            let entry = self.entry(kept)?;
            size += entry.payload.len() as u64;
            entries.push(entry);
            from = kept + 1;
        }
        Ok(entries)
    }

    /// One entry without its bodies, held whole or kept.
    fn head(&self, sequence: u64) -> Result<Entry, ReadError> {
        let found = self.recall(sequence, 1)?.pop().filter(|entry| entry.sequence == sequence);
        found.ok_or_else(|| {
            let (first, last) = (self.first_sequence(), self.tail().sequence);
            ReadError::EntryAbsent { sequence, first, last }
        })
    }

    /// One entry with its bodies, those apart that are gone.
    fn entry(&self, sequence: u64) -> Result<Entry, ReadError>;

    /// One body; `index` counts from 0. [`ReadError::Redacted`] where it is gone.
    fn blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError>;

    /// Neighbouring bodies of an entry, each read by itself, so that one that is damaged does not hold up others. [`ReadError::Redacted`]
    /// where one of them is gone.
    fn blobs(&self, sequence: u64, indices: Range<usize>) -> Result<Vec<Blob>, ReadError> {
        indices.map(|index| self.blob(sequence, index)).collect()
    }

    /// The bodies beside an entry, without reading them.
    fn bodies(&self, sequence: u64) -> Result<Vec<Body>, ReadError>;

    /// The published tail.
    fn tail(&self) -> Tail;

    /// The published tail as it moves; a slow watcher sees the newest only.
    fn watch(&self) -> watch::Receiver<Tail>;

    /// The first entry that is held whole.
    fn first_sequence(&self) -> u64;
}

/// What became of one draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its entry's number.
    pub sequence: u64,
    /// Its entry's digest.
    pub digest: Digest,
}

/// A durable commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One for each draft, in order.
    pub appended: Vec<Appended>,
    /// The tail after it.
    pub tail: Tail,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Somebody else appended, or the caller did not wait for its last append.
    #[error("the journal's tail is {actual}, not the expected {expected}; decide again on the current state")]
    TailMoved {
        /// What the caller expected.
        expected: Box<Tail>,
        /// Where the journal stands.
        actual: Box<Tail>,
    },
    /// There is nothing to append.
    #[error("the batch is empty; append at least one draft")]
    EmptyBatch,
    /// The batch is larger than one commit may be.
    #[error("the batch takes {size} bytes, more than the {COMMIT_SIZE_MAX_BYTES} of one commit; split it")]
    BatchTooLarge {
        /// What it would take, in bytes.
        size: u64,
    },
    /// Only the journal itself writes entries of these kinds.
    #[error("entries of kind {KIND_HISTORY_BEGUN} and from {KIND_RESERVED_FIRST} on are the journal's own")]
    ReservedKind,
    /// The history to begin is the current one.
    #[error("the history {history} is the current one; a new history needs a new id")]
    HistoryRepeated {
        /// The id that was passed.
        history: HistoryId,
    },
    /// The bodies to be redacted are not all there.
    #[error("bodies of entry {sequence} cannot be redacted: {reason}; nothing was redacted")]
    NotRedactable {
        /// The entry.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// The prepared trim is not the one that may happen now.
    #[error("the journal cannot be trimmed: {reason}; nothing was trimmed: prepare it again")]
    NotTrimmable {
        /// Why.
        reason: String,
    },
    /// The disk is full, or this user's part of it. Nothing of the batch is there, and the journal goes on: the same
    /// append succeeds once there is room.
    #[error("there is no room for {size} bytes ({reason}); nothing was appended: make room and append again")]
    NoRoom {
        /// What the commit would have taken, in bytes.
        size: u64,
        /// The system's reason.
        reason: String,
    },
    /// A write or a sync failed: the batch may be durable or not, in whole or in part. Every later append of this
    /// journal fails the same way; end the process, and let the next open find out.
    #[error("the outcome of the append is unknown ({reason}); end the process and open the journal again")]
    OutcomeUnknown {
        /// What failed.
        reason: String,
    },
    /// The journal was closed before the batch was handed over.
    #[error("the journal is closed; nothing was appended")]
    Closed,
}

/// Why a body could not be put back in its place. What stands there is as damaged as it was, or whole.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// It is another body than the one that stood there.
    #[error("it is not the body that stood at index {index} of entry {sequence}: its commitment is another")]
    Other {
        /// The entry.
        sequence: u64,
        /// Which body.
        index: usize,
    },
    /// Its place cannot be found, or nothing is to stand there any more.
    #[error(transparent)]
    NoPlace(#[from] ReadError),
    /// Writing or syncing it failed.
    #[error("the body at index {index} of entry {sequence} could not be written back: {source}")]
    Disk {
        /// The entry.
        sequence: u64,
        /// Which body.
        index: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The journal was closed, or stands still after a write whose outcome is unknown.
    #[error("the journal is not written any more; nothing was mended")]
    Closed,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such entry.
    #[error("there is no entry {sequence}; the journal holds {first} to {last}")]
    EntryAbsent {
        /// What was asked for.
        sequence: u64,
        /// The first entry held.
        first: u64,
        /// The last entry held.
        last: u64,
    },
    /// The entry has fewer blobs.
    #[error("entry {sequence} has {count} blobs, there is none at index {index}")]
    BlobAbsent {
        /// The entry.
        sequence: u64,
        /// What was asked for.
        index: usize,
        /// How many it has.
        count: usize,
    },
    /// The body is gone: it was redacted, or its entry was trimmed.
    #[error("the body at index {index} of entry {sequence} is gone: it was redacted or trimmed; its commitment stays")]
    Redacted {
        /// The entry.
        sequence: u64,
        /// Which body.
        index: usize,
    },
    /// The storage gave back something else than was written since the journal was opened.
    #[error("entry {sequence} is damaged in {file} at byte {offset}: {what}; run verify, and restore or heal it")]
    Damaged {
        /// The entry.
        sequence: u64,
        /// Its segment file.
        file: String,
        /// Where its frame begins.
        offset: u64,
        /// What does not hold.
        what: crate::file::Fault,
    },
    /// The storage cannot be read.
    #[error("cannot read {file}: {source}")]
    Disk {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl ReadError {
    /// Whether the storage does not give back any more what was written, so that reading it again will not help: its digest does not
    /// hold, or the device says that it cannot be read.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Disk { source, .. } => source.raw_os_error() == Some(EIO),
            Self::EntryAbsent { .. } | Self::BlobAbsent { .. } | Self::Redacted { .. } => false,
        }
    }
}

/// Linux's number for an error of the device.
const EIO: i32 = 5;

/// What can be refused by looking at the batch alone.
pub(crate) fn check_batch(batch: &[Draft]) -> Result<(), AppendError> {
    if batch.is_empty() {
        return Err(AppendError::EmptyBatch);
    }
    if batch.iter().any(|draft| is_reserved_kind(draft.kind)) {
        return Err(AppendError::ReservedKind);
    }
    let size = batch.iter().map(Draft::size_bytes).sum();
    if size > COMMIT_SIZE_MAX_BYTES {
        return Err(AppendError::BatchTooLarge { size });
    }
    Ok(())
}

/// What can be refused of a redaction by looking at it alone; else the draft of its fact.
pub(crate) fn check_redaction(bodies: &[Bodies], recorded_at: i64) -> Result<Draft, AppendError> {
    if bodies.is_empty() {
        return Err(AppendError::EmptyBatch);
    }
    let draft = crate::redaction::fact(bodies, recorded_at);
    let size = draft.size_bytes();
    if size > COMMIT_SIZE_MAX_BYTES { Err(AppendError::BatchTooLarge { size }) } else { Ok(draft) }
}

/// Whether an entry with so many bodies has these.
pub(crate) fn check_bodies(bodies: &Bodies, count: usize) -> Result<(), AppendError> {
    let end = bodies.first as usize + bodies.count as usize;
    if bodies.count > 0 && end <= count {
        return Ok(());
    }
    let reason = format!("it has {count} bodies, not {} from index {} on", bodies.count, bodies.first);
    Err(AppendError::NotRedactable { sequence: bodies.sequence, reason })
}

pub(crate) fn check_new_history(expected: &Tail, new: HistoryId) -> Result<(), AppendError> {
    if new == expected.history {
        return Err(AppendError::HistoryRepeated { history: new });
    }
    Ok(())
}

pub(crate) fn check_tail(expected: &Tail, actual: &Tail) -> Result<(), AppendError> {
    if expected == actual {
        return Ok(());
    }
    Err(AppendError::TailMoved { expected: Box::new(*expected), actual: Box::new(*actual) })
}
