//! Projections, and bringing views up to a journal.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use concord_journal::{Entry, Journal, ReadError, Tail};

use crate::{Batch, Views, ViewsError};

/// Entries read from the journal at once. More are read in the next round.
pub const READ_ENTRIES_MAX: usize = 256;

/// A batch is applied when it has this many rows after an entry; the rows of one entry are never divided.
pub const BATCH_ROWS_MAX: usize = 4_096;

/// As [`BATCH_ROWS_MAX`] where more than [`FAR_BEHIND_ENTRIES`] are to be projected: nobody reads these rows yet, and rows whose keys
/// are spread by chance then share the pages that they change, and the rows of their groups.
pub const BATCH_ROWS_FAR_BEHIND_MAX: usize = 65_536;

/// Behind by more than this is what a rebuild is.
pub const FAR_BEHIND_ENTRIES: u64 = 10_000;

/// A batch is applied when it has this many bytes after an entry.
pub const BATCH_SIZE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// How often a long catching up says how far it is.
const PROGRESS_SECONDS: u64 = 1;

/// Turns entries into rows. Passed in by who knows what entries mean.
///
/// It must write the same rows for the same entries each time, from nothing but the entry and what it reads from
/// the batch: after a restart it goes on behind the watermark, without having seen what came before. An entry that a trim does not
/// keep is one for which it writes nothing.
pub trait Projection: Send {
    /// The version of what [`Projection::project`] writes. With another one, views are rebuilt.
    fn version(&self) -> u32;

    /// Writes the rows of one entry.
    ///
    /// # Errors
    ///
    /// An error stops the catching up before this entry. The same entry comes again at the next attempt, so an
    /// error is for what a newer program or a repaired disk can cure, never for an entry that is not wanted.
    fn project(&mut self, entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError>;
}

/// Why an entry could not be projected.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The entry's kind or version is not known to this program.
    #[error("an entry of kind {kind}, version {version}, is not known: a newer program wrote it, start that one")]
    UnknownEntry {
        /// Kind of the entry.
        kind: u16,
        /// Version of that kind.
        version: u16,
    },
    /// The entry or a row is not what its kind says.
    #[error("{0}; verify the journal, and report this as a bug if it verifies")]
    Malformed(String),
    /// Reading or writing a row failed.
    #[error(transparent)]
    Views(#[from] ViewsError),
}

/// Why views could not be brought up to the journal. What was applied before stays applied.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The views failed.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The journal could not be read.
    #[error("the journal could not be read for the views: {0}")]
    Journal(#[from] ReadError),
    /// The projection refused an entry.
    #[error("journal entry {sequence} could not be projected: {source}")]
    Projection {
        /// Sequence of the entry.
        sequence: u64,
        /// The projection's answer.
        source: ProjectionError,
    },
    /// The views were opened for another version of the projection.
    #[error("the views were opened for projection version {opened}, not {given}: report this as a bug")]
    OtherVersion {
        /// The version given to `Views::open`.
        opened: u32,
        /// The version of the projection passed in.
        given: u32,
    },
    /// The journal's next entry does not follow what was applied, or is not there.
    #[error(
        "the journal has no entry {expected} that follows what the views have applied: \
         stop the process and start it again, the views are compared with the journal then"
    )]
    DoesNotFollow {
        /// Sequence of the entry that was expected.
        expected: u64,
    },
}

/// A `progress` for [`Views::catch_up`] that says on the log how far it is, at most once a second.
pub fn told_on_log(tail: Tail) -> impl FnMut(u64) {
    let mut told = Instant::now();
    move |sequence| {
        if told.elapsed() >= Duration::from_secs(PROGRESS_SECONDS) {
            told = Instant::now();
            tracing::info!(sequence, of = tail.sequence, "views are being brought up to the journal");
        }
    }
}

impl Views {
    /// Applies the journal's entries behind the watermark up to and including `up_to`, in bounded batches, and
    /// calls `progress` with the applied sequence after each. Does nothing where that is applied already.
    ///
    /// Blocks for as long as there is to read. It may be killed at any point and goes on from its last batch.
    ///
    /// # Errors
    ///
    /// [`CatchUpError`]; what was applied before stays applied.
    pub fn catch_up(
        &self,
        journal: &dyn Journal,
        projection: &mut dyn Projection,
        up_to: Tail,
        mut progress: impl FnMut(u64),
    ) -> Result<(), CatchUpError> {
        let (opened, given) = (self.projection_version(), projection.version());
        if opened != given {
            return Err(CatchUpError::OtherVersion { opened, given });
        }
        let mut read = self.watermark();
        let mut entries = Entries {
            journal,
            up_to,
            after: read.map_or(0, |read| read.sequence),
            first_whole: 1,
            chunk: Vec::new().into_iter(),
        };
        while entries.left() > 0 {
            let rows_max = if entries.left() > FAR_BEHIND_ENTRIES { BATCH_ROWS_FAR_BEHIND_MAX } else { BATCH_ROWS_MAX };
            let mut batch = self.batch();
            let mut projected = read;
            let outcome = fill(&mut batch, rows_max, projection, &mut entries, &mut projected);
            // What came before an entry that fails is applied: it must not be hidden by that entry.
            if let Some(at) = projected
                && projected != read
            {
                self.apply(batch, at)?;
                read = projected;
                progress(at.sequence);
            }
            outcome?;
        }
        Ok(())
    }
}

/// A journal's entries up to one of them, in order; of what was trimmed, those that were kept.
struct Entries<'a> {
    journal: &'a dyn Journal,
    up_to: Tail,
    /// The sequence of the last one answered.
    after: u64,
    /// Before it only what a trim kept can be read, with gaps.
    first_whole: u64,
    /// What was read behind it.
    chunk: std::vec::IntoIter<Entry>,
}

impl Entries<'_> {
    fn left(&self) -> u64 {
        self.up_to.sequence.saturating_sub(self.after)
    }

    fn next(&mut self) -> Result<Option<Entry>, CatchUpError> {
        let expected = self.after + 1;
        if self.left() == 0 {
            return Ok(None);
        }
        if self.chunk.len() == 0 {
            let wanted = usize::try_from(self.left()).unwrap_or(usize::MAX).min(READ_ENTRIES_MAX);
            self.read(expected, wanted)?;
            concord_faults::point("views.follow.read");
        }
        let entry = self.chunk.next().filter(|entry| entry.sequence <= self.up_to.sequence);
        let entry = entry.ok_or(CatchUpError::DoesNotFollow { expected })?;
        self.after = entry.sequence;
        Ok(Some(entry))
    }

    /// Reads on.
    ///
    /// Invariant: what is passed over between two entries is what no trim kept, by the word of the base that they were read with.
    fn read(&mut self, expected: u64, wanted: usize) -> Result<(), CatchUpError> {
        loop {
            let first_whole = self.journal.first_sequence();
            let entries = self.journal.recall(expected, wanted)?;
            let mut next = expected;
            let missing = entries.iter().find_map(|entry| {
                let kept = (next < first_whole).then(|| self.journal.kept_from(next)).flatten();
                let due = kept.unwrap_or(first_whole.max(next));
                next = entry.sequence + 1;
                (entry.sequence != due).then_some(due)
            });
            // A trim beside it: what was kept is another base's word now.
            if self.journal.first_sequence() != first_whole {
                continue;
            }
            if let Some(expected) = missing {
                return Err(CatchUpError::DoesNotFollow { expected });
            }
            (self.first_whole, self.chunk) = (first_whole, entries.into_iter());
            return Ok(());
        }
    }

    /// Whether it is the next one: nothing is missing but what a trim took, and the base that it left binds what it kept.
    fn is_next(&self, entry: &Entry, projected: Option<Tail>) -> bool {
        let expected = projected.map_or(1, |projected| projected.sequence + 1);
        // Rows made from two different pasts would be wrong without anybody noticing.
        let linked = || projected.is_none_or(|projected| projected.digest == entry.previous);
        let ends_right = entry.sequence != self.up_to.sequence || entry.digest == self.up_to.digest;
        let follows = match entry.sequence.cmp(&expected) {
            Ordering::Less => false,
            Ordering::Equal => linked(),
            Ordering::Greater => entry.sequence <= self.first_whole,
        };
        follows && ends_right
    }
}

/// Projects entries behind `projected`, which moves, until the batch is full or there are no more.
fn fill(
    batch: &mut Batch<'_>,
    rows_max: usize,
    projection: &mut dyn Projection,
    entries: &mut Entries<'_>,
    projected: &mut Option<Tail>,
) -> Result<(), CatchUpError> {
    while batch.rows() < rows_max && batch.size_bytes() < BATCH_SIZE_MAX_BYTES {
        let Some(entry) = entries.next()? else { break };
        if !entries.is_next(&entry, *projected) {
            let expected = projected.map_or(1, |projected| projected.sequence + 1);
            return Err(CatchUpError::DoesNotFollow { expected });
        }
        if let Err(source) = projection.project(&entry, batch) {
            batch.take_back();
            return Err(CatchUpError::Projection { sequence: entry.sequence, source });
        }
        batch.keep();
        *projected = Some(entry.tail());
    }
    Ok(())
}
