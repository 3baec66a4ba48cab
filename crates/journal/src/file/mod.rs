//! The journal in a folder of numbered segment files.

mod base;
mod chain;
mod disk;
mod extent;
mod fault;
mod frame;
mod holes;
mod index;
mod mend;
mod open;
mod reader;
mod redact;
mod scan;
mod seal;
mod trim;
mod verify;
mod window;
mod writer;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::blob::Blob;
use crate::digest::{HistoryId, Tail};
use crate::entry::{Draft, Entry};
use crate::history::HistoryBegun;
use crate::journal::{
    AppendError, Committed, Journal, MendError, ReadError, check_batch, check_new_history, check_redaction,
};
use crate::old::Held;
use crate::redaction::{Bodies, Body, Redacted};
use crate::trim::{Base, PreparedTrim, Trim, TrimError};
use reader::Shared;
use writer::Job;

pub(crate) use disk::is_no_room;
pub use disk::{Disk, DiskFile, RealDisk};
pub use extent::Extent;
pub use fault::{Damage, Fault};
pub(crate) use frame::FRAME_HEAD_SIZE_BYTES;
pub use frame::FrameMark;
pub use verify::{SCRUB_STEP_SIZE_BYTES, Unfinished, Verified, VerifyError, Walk, verify, walk};

/// The size after which the next commit begins a new segment, unless the options say otherwise.
pub const SEGMENT_SIZE_DEFAULT_BYTES: u64 = 256 * 1024 * 1024;

/// A larger `segment_size_max_bytes` counts as this one: the index keeps offsets in 32 bits.
pub const SEGMENT_SIZE_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The smallest size that a configuration may ask for: below it a journal is mostly names of files.
pub const SEGMENT_SIZE_MIN_BYTES: u64 = 64 * 1024;

/// The segment size that a configuration asks for, or the default; an error says what may be asked for.
pub fn segment_size(asked_bytes: Option<u64>) -> Result<u64, String> {
    let bytes = asked_bytes.unwrap_or(SEGMENT_SIZE_DEFAULT_BYTES);
    if (SEGMENT_SIZE_MIN_BYTES..=SEGMENT_SIZE_MAX_BYTES).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("{bytes} is not between {SEGMENT_SIZE_MIN_BYTES} and {SEGMENT_SIZE_MAX_BYTES}"))
}

/// How many commits may wait for the writer; beyond it an append waits before it is handed over.
const COMMITS_WAITING_MAX: usize = 4;

/// How to open a journal.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// A segment of at least this size gets no further commit. A segment is at most one commit larger.
    pub segment_size_max_bytes: u64,
    /// The time for an entry that this open may append, in microseconds since the Unix epoch.
    pub now: i64,
    /// The history that begins if the journal is new or something is cut: 16 fresh random bytes.
    pub new_history: HistoryId,
    /// The mark of the frames if the journal is new: 8 fresh random bytes that nobody else learns.
    pub new_mark: FrameMark,
}

impl OpenOptions {
    /// Options with the default segment size.
    pub fn new(now: i64, new_history: HistoryId, new_mark: FrameMark) -> OpenOptions {
        OpenOptions { segment_size_max_bytes: SEGMENT_SIZE_DEFAULT_BYTES, now, new_history, new_mark }
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// There was no entry: the journal is new.
    pub created: bool,
    /// The end of the last commit was damaged and is gone; a new history has begun. Raise it.
    pub cut: Option<Cut>,
}

/// What was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file of the first damaged frame.
    pub file: String,
    /// Where the damage began.
    pub offset: u64,
    /// How much is gone; 0 if an earlier open cut it and ended before it could say so.
    pub bytes: u64,
    /// The tail that was left, parent of the new history; none if no entry was left.
    pub parent: Option<Tail>,
}

/// Why a journal does not open. Nothing was changed, unless writing itself failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Damage that is not the last commit's.
    #[error(
        "the journal is damaged: {0}; it was left as it is: put it back from a backup, or make it anew and let its peers heal it"
    )]
    Damaged(Box<Damage>),
    /// The storage failed.
    #[error("{doing} {file}: {source}; put the storage right and open again")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The entry that begins a history could not be written.
    #[error("cannot begin a history: {reason}; put the storage right and open again")]
    NotBegun {
        /// What failed.
        reason: String,
    },
    /// A redaction or a trim that was under way could not be looked up or finished.
    #[error("cannot finish a redaction or a trim: {reason}; put the storage right and open again")]
    NotFinished {
        /// What failed.
        reason: String,
    },
    /// A history must begin, and the id for it is the current one's.
    #[error("a new history must begin, but {history} is the current one; pass fresh random bytes")]
    HistoryRepeated {
        /// The id that was passed.
        history: HistoryId,
    },
    /// The writer's thread could not be started.
    #[error("cannot start the journal's writer: {0}; the system is out of threads")]
    Writer(io::Error),
}

/// A journal in a folder. Only one may be open on a folder at a time; the process's folder lock sees to that.
pub struct FileJournal {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    closing: Arc<AtomicBool>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl FileJournal {
    /// Opens the journal on `disk`, or begins one. Verifies its last segment and every other that has no fitting seal
    /// beside it, and blocks for as long as that takes; what it does not verify, reads do, and [`scrub`](Self::scrub).
    pub fn open(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<(FileJournal, Opened), OpenError> {
        let (shared, writer, opened) = open::recover(&disk, options)?;
        let (jobs, waiting) = mpsc::channel(COMMITS_WAITING_MAX);
        let closing = Arc::new(AtomicBool::new(false));
        let seen_by_writer = Arc::clone(&closing);
        let thread = std::thread::Builder::new().name("journal-writer".to_owned());
        let thread = thread.spawn(move || writer.run(waiting, &seen_by_writer)).map_err(OpenError::Writer)?;
        Ok((FileJournal { shared, jobs, closing, writer: Mutex::new(Some(thread)) }, opened))
    }

    /// The same for a folder of the operating system, which is made if it is not there.
    pub fn open_folder(folder: &Path, options: &OpenOptions) -> Result<(FileJournal, Opened), OpenError> {
        let disk = RealDisk::open_or_create(folder).map_err(|source| {
            let file = folder.display().to_string();
            OpenError::Disk { doing: "opening the folder", file, source }
        })?;
        FileJournal::open(Arc::new(disk), options)
    }

    /// Whether a folder of the operating system holds any part of a journal; [`open_folder`](Self::open_folder) begins one where it holds
    /// none.
    pub fn is_in_folder(folder: &Path) -> Result<bool, OpenError> {
        let look = || {
            if !folder.try_exists()? {
                return Ok(false);
            }
            let disk = RealDisk::open(folder)?;
            Ok(!scan::list_segments(&disk)?.is_empty() || !base::list_bases(&disk)?.is_empty())
        };
        look().map_err(|source| OpenError::Disk { doing: "listing", file: folder.display().to_string(), source })
    }

    /// Finishes what was handed over, and ends the writer; blocks until then. Reading goes on working.
    pub fn close(&self) {
        concord_faults::point("journal.close");
        self.closing.store(true, Ordering::Release);
        if self.jobs.try_send(Job::Wake).is_err() {
            tracing::debug!("the writer is awake, or gone");
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's writer panicked; what it was writing has an unknown outcome");
        }
    }

    /// Verifies every bit of it beside the writer, in steps of [`SCRUB_STEP_SIZE_BYTES`]: `between` is called after
    /// each with the bytes verified so far, and may wait; if it breaks the scrub off, there is no result. Blocks.
    pub fn scrub(&self, between: impl FnMut(u64) -> ControlFlow<()>) -> Result<Option<Verified>, VerifyError> {
        verify::scrub(self.shared.disk(), between)
    }

    /// How many bytes the disk still takes: a hint for refusing early what is large.
    pub fn available_bytes(&self) -> io::Result<u64> {
        self.shared.available_bytes()
    }

    fn commit(
        &self,
        expected: Tail,
        history: HistoryId,
        checked: Result<Vec<Draft>, AppendError>,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.ask(checked, move |batch, reply| Job::Commit { expected, history, batch, reply })
    }

    /// Hands the writer a job, once what it is about was checked.
    fn ask<C: Send + 'static, A: Send + 'static>(
        &self,
        checked: Result<C, AppendError>,
        job: impl FnOnce(C, oneshot::Sender<Result<A, AppendError>>) -> Job + Send + 'static,
    ) -> BoxFuture<'static, Result<A, AppendError>> {
        let jobs = self.jobs.clone();
        Box::pin(async move {
            let checked = checked?;
            let (reply, outcome) = oneshot::channel();
            jobs.send(job(checked, reply)).await.map_err(|_| AppendError::Closed)?;
            let gone = |_| AppendError::OutcomeUnknown { reason: "the journal's writer is gone".to_owned() };
            outcome.await.map_err(gone)?
        })
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal for FileJournal {
    fn append(&self, expected: Tail, batch: Vec<Draft>) -> BoxFuture<'static, Result<Committed, AppendError>> {
        let checked = check_batch(&batch).map(|()| batch);
        self.commit(expected, expected.history, checked)
    }

    fn begin_history(
        &self,
        expected: Tail,
        new: HistoryId,
        recorded_at: i64,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        let begun = HistoryBegun { history: new, parent: Some(expected) };
        let checked = check_new_history(&expected, new).map(|()| vec![begun.into_draft(recorded_at)]);
        self.commit(expected, new, checked)
    }

    fn redact(
        &self,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        let checked = check_redaction(&bodies, recorded_at).map(|fact| (fact, bodies));
        self.ask(checked, move |(fact, bodies), reply| Job::Redact { expected, fact, bodies, reply })
    }

    fn mend(&self, sequence: u64, index: usize, body: Blob) -> BoxFuture<'static, Result<(), MendError>> {
        let jobs = self.jobs.clone();
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            let job = Job::Mend { sequence, index, body, reply };
            jobs.send(job).await.map_err(|_| MendError::Closed)?;
            outcome.await.map_err(|_| MendError::Closed)?
        })
    }

    fn trim_point(&self, before: u64) -> Option<u64> {
        self.shared.trim_point(before)
    }

    fn held_before(&self, first_kept: u64) -> Held {
        self.shared.held_before(first_kept)
    }

    fn prepare_trim(&self, trim: Trim) -> Result<PreparedTrim, TrimError> {
        self.shared.prepare_trim(trim)
    }

    fn trim(
        &self,
        expected: Tail,
        recorded_at: i64,
        prepared: PreparedTrim,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.ask(Ok(prepared), move |prepared, reply| Job::Trim { expected, recorded_at, prepared, reply })
    }

    fn base(&self) -> Result<Option<Base>, ReadError> {
        self.shared.base()
    }

    fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        self.shared.read(from, max_entries)
    }

    fn kept_from(&self, from: u64) -> Option<u64> {
        self.shared.base_file()?.kept_from(from)
    }

    fn entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        self.shared.entry(sequence)
    }

    fn blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError> {
        self.shared.blob(sequence, index)
    }

    fn bodies(&self, sequence: u64) -> Result<Vec<Body>, ReadError> {
        self.shared.bodies(sequence)
    }

    fn tail(&self) -> Tail {
        *self.shared.tail.borrow()
    }

    fn watch(&self) -> watch::Receiver<Tail> {
        self.shared.tail.subscribe()
    }

    fn first_sequence(&self) -> u64 {
        self.shared.first_sequence()
    }
}
