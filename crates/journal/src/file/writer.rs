//! The one thread that writes: one batch, one write, one sync.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::chain::Chain;
use super::disk::{Disk, DiskFile, is_no_room};
use super::frame::{FrameMark, SEGMENT_HEADER_SIZE_BYTES, SegmentHeader, write_frame};
use super::reader::Shared;
use super::scan::segment_name;
use crate::blob::Blob;
use crate::digest::{HistoryId, Tail};
use crate::entry::{Draft, Meta, stored_length};
use crate::journal::{AppendError, Appended, Committed, MendError, check_tail};
use crate::redaction::{Bodies, Redacted};
use crate::trim::PreparedTrim;

/// What the writer is asked for.
pub(crate) enum Job {
    /// Append a batch whose size and kinds were checked.
    Commit {
        expected: Tail,
        /// The history that its entries belong to.
        history: HistoryId,
        batch: Vec<Draft>,
        reply: oneshot::Sender<Result<Committed, AppendError>>,
    },
    /// Redact bodies.
    Redact {
        expected: Tail,
        /// The entry that names them.
        fact: Draft,
        bodies: Vec<Bodies>,
        reply: oneshot::Sender<Result<Redacted, AppendError>>,
    },
    /// Trim what a prepared base stands for.
    Trim {
        expected: Tail,
        recorded_at: i64,
        prepared: PreparedTrim,
        reply: oneshot::Sender<Result<Committed, AppendError>>,
    },
    /// Put a damaged body back.
    Mend { sequence: u64, index: usize, body: Blob, reply: oneshot::Sender<Result<(), MendError>> },
    /// Only wakes the writer, so that it sees that it is closing.
    Wake,
}

/// The segment that is written to.
pub(crate) struct ActiveSegment {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) end: u64,
}

/// The writing end of a journal.
pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mark: FrameMark,
    /// Where the journal ends.
    pub(crate) chain: Chain,
    /// None before the first commit of a new journal.
    pub(crate) segment: Option<ActiveSegment>,
    pub(crate) segment_size_max_bytes: u64,
    /// The bytes of a commit, kept to be filled again.
    pub(crate) buffer: Vec<u8>,
    /// Where the segment before the active one ended, while it waits for its seal.
    pub(crate) unsealed: Option<Chain>,
    /// Facts of which some bodies cannot be found; what can be is overwritten.
    pub(crate) half_redacted: BTreeSet<u64>,
    /// Why nothing can be written any more.
    pub(crate) failure: Option<String>,
}

impl Writer {
    /// Serves until it is closed, then finishes what is queued.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>, closing: &AtomicBool) {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Commit { expected, history, batch, reply } => {
                    answer(reply, self.commit(&expected, history, &batch));
                    self.seal();
                }
                Job::Redact { expected, fact, bodies, reply } => answer(reply, self.redact(&expected, fact, &bodies)),
                Job::Trim { expected, recorded_at, prepared, reply } => {
                    answer(reply, self.trim(&expected, recorded_at, &prepared));
                }
                Job::Mend { sequence, index, body, reply } => answer(reply, self.mend(sequence, index, &body)),
                Job::Wake => {}
            }
            if closing.load(Ordering::Acquire) {
                jobs.close();
            }
        }
    }

    pub(crate) fn commit(
        &mut self,
        expected: &Tail,
        history: HistoryId,
        batch: &[Draft],
    ) -> Result<Committed, AppendError> {
        self.check(expected)?;
        self.write(history, batch).map_err(|failure| self.failed(failure))
    }

    /// Whether anything may be written, and after what the caller thinks.
    pub(crate) fn check(&self, expected: &Tail) -> Result<(), AppendError> {
        if let Some(reason) = self.failure.clone() {
            return Err(AppendError::OutcomeUnknown { reason });
        }
        check_tail(expected, &self.chain.tail)
    }

    /// What the caller hears of a failure; after one whose outcome is unknown nothing more is written.
    pub(crate) fn failed(&mut self, failure: Failure) -> AppendError {
        match failure {
            Failure::NoRoom { size, reason } => AppendError::NoRoom { size, reason },
            Failure::Unknown(error) => {
                let reason = format!("writing after entry {}: {error}", self.chain.tail.sequence);
                tracing::error!(reason, "the outcome of an append is unknown; nothing more is written");
                self.failure = Some(reason.clone());
                AppendError::OutcomeUnknown { reason }
            }
        }
    }

    pub(crate) fn write(&mut self, history: HistoryId, batch: &[Draft]) -> Result<Committed, Failure> {
        concord_faults::point("journal.write.begin");
        let commit_first = self.chain.next_sequence();
        let begins_segment = self.segment.as_ref().is_none_or(|segment| segment.end >= self.segment_size_max_bytes);
        let start = self.segment.as_ref().filter(|_| !begins_segment).map_or(0, |segment| segment.end);
        let Encoded { places, committed } = self.encode(history, batch, begins_segment, start)?;
        let segment = self.put(commit_first, begins_segment, start)?;
        // commit point: the last sync of `put`. A crash before it leaves nothing, some first entries or all of the
        // batch, and nobody was told; a crash after it leaves all of it.
        let before = self.chain.clone();
        let recorded_at = batch.last().map_or(before.recorded_at, |draft| draft.recorded_at);
        self.segment = Some(segment);
        self.chain = Chain { tail: committed.tail, commit_first, recorded_at, mark: Some(self.mark) };
        self.shared.publish(committed.tail, |index| {
            if begins_segment {
                index.begin_segment(commit_first, before.tail.digest, SEGMENT_HEADER_SIZE_BYTES as u64);
            }
            let entries = places.into_iter().zip(batch);
            entries.for_each(|((offset, length), draft)| index.push(offset, length, draft.kind));
        });
        self.unsealed = begins_segment.then_some(before);
        concord_faults::point("journal.append.published");
        Ok(committed)
    }

    /// Seals the segment that the last commit left full; whoever waits for that commit has its answer by then.
    pub(crate) fn seal(&mut self) {
        let seal = self.unsealed.take().and_then(|chain| self.shared.seal_before_last(&chain));
        if let Some(seal) = seal {
            seal.write(self.disk.as_ref());
        }
    }

    /// Fills the buffer with the bytes that go to `start` of a segment.
    fn encode(
        &mut self,
        history: HistoryId,
        batch: &[Draft],
        begins_segment: bool,
        start: u64,
    ) -> Result<Encoded, Failure> {
        let commit_first = self.chain.next_sequence();
        self.buffer.clear();
        if begins_segment {
            let previous = self.chain.tail.digest;
            let header = SegmentHeader { mark: self.mark, first_sequence: commit_first, previous };
            header.write(&mut self.buffer);
        }
        let mut places = Vec::with_capacity(batch.len());
        let mut appended = Vec::with_capacity(batch.len());
        let mut tail = self.chain.tail;
        for draft in batch {
            let before = self.buffer.len();
            let meta = Meta::after(&tail, history, commit_first, draft);
            let digest = write_frame(&mut self.buffer, self.mark, meta, draft);
            tail = Tail { history, sequence: meta.sequence, digest };
            appended.push(Appended { sequence: meta.sequence, digest });
            let offset = u32::try_from(start + before as u64).map_err(io::Error::other)?;
            places.push((offset, stored_length(self.buffer.len() - before)));
        }
        Ok(Encoded { places, committed: Committed { appended, tail } })
    }

    /// Makes the buffer durable at the end of the segment, or of a new one.
    ///
    /// Invariant: `NoRoom` is said only once the file has durably no byte more than before. An error of a sync never
    /// is one: what the system did with the pages is unknown.
    fn put(&mut self, commit_first: u64, begins_segment: bool, start: u64) -> Result<ActiveSegment, Failure> {
        let name = segment_name(commit_first);
        let file = match self.segment.as_ref().filter(|_| !begins_segment) {
            Some(segment) => Arc::clone(&segment.file),
            None => {
                concord_faults::point("journal.rotate.before");
                let file = self.disk.create(&name).map_err(|error| self.no_room(error, || Ok(())))?;
                concord_faults::point("journal.rotate.created");
                file
            }
        };
        concord_faults::point("journal.append.before");
        if let Err(error) = file.append(&self.buffer) {
            return Err(self.no_room(error, || {
                if concord_faults::planted("leave-what-had-no-room") {
                    return Ok(());
                }
                if begins_segment {
                    self.disk.remove(&name)?;
                    return self.disk.sync_directory();
                }
                file.truncate(start)?;
                file.sync_data()
            }));
        }
        concord_faults::point("journal.append.written");
        if !concord_faults::planted("skip-sync") {
            file.sync_data()?;
        }
        concord_faults::point("journal.append.synced");
        if begins_segment && !concord_faults::planted("skip-directory-sync") {
            self.disk.sync_directory()?;
            concord_faults::point("journal.rotate.synced");
        }
        Ok(ActiveSegment { file, end: start + self.buffer.len() as u64 })
    }

    /// What a failed write comes to: no room, if it says so and what it left is taken back.
    fn no_room(&self, error: io::Error, take_back: impl FnOnce() -> io::Result<()>) -> Failure {
        if !is_no_room(&error) {
            return Failure::Unknown(error);
        }
        match take_back() {
            Ok(()) => Failure::NoRoom { size: self.buffer.len() as u64, reason: error.to_string() },
            Err(again) => Failure::Unknown(io::Error::other(format!("{error}; taking it back: {again}"))),
        }
    }
}

/// Where the entries of a commit go, and what they come to.
struct Encoded {
    places: Vec<(u32, u32)>,
    committed: Committed,
}

fn answer<T>(reply: oneshot::Sender<T>, outcome: T) {
    if reply.send(outcome).is_err() {
        tracing::debug!("nobody waits for the outcome of an append any more");
    }
}

/// How a write can fail.
pub(crate) enum Failure {
    NoRoom { size: u64, reason: String },
    Unknown(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Unknown(error)
    }
}
