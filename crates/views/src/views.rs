//! The views of one journal: reading them and applying batches.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use concord_journal::{Journal, Tail};
use tokio::sync::watch;

use crate::{
    Batch, Opened, Table, ViewsError, aside, opening,
    range::RowRange,
    rows::{Memory, Rows},
    watermark::Watermark,
};

/// A row as readers get it: key without its table, and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Most rows that one [`Views::scan`] answers; who wants more scans again from behind the last key.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// The views of one journal, in one folder. Clones share it; it closes when the last one is dropped.
///
/// Rows of one batch become visible together, but two reads may fall before and after a batch.
#[derive(Clone)]
pub struct Views {
    inner: Arc<Inner>,
}

/// Declared in the order of dropping: sled must have closed before the lock lets another one in.
struct Inner {
    store: Rows,
    /// The last watermark written; whoever holds the lock is the one who writes.
    writer: Mutex<Watermark>,
    applied: watch::Sender<u64>,
    projection_version: u32,
    /// None in memory.
    _lock: Option<File>,
}

impl Views {
    /// Opens the views in `folder`, or makes them, or moves broken ones away and makes new ones; the second part of
    /// the answer says which. Afterwards [`Views::catch_up`] brings them to the journal's tail in each case.
    ///
    /// Reads every row once. The lock file is `<folder>.lock`, broken views are at `<folder>.broken-<n>`, and at
    /// `<folder>.ahead-<n>` those that knew more than the journal.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Locked`], [`ViewsError::OpenHangs`], [`ViewsError::Folder`], [`ViewsError::Journal`], and
    /// [`ViewsError::Failed`] where even an empty folder does not open. Damage is not an error: it is rebuilt.
    pub fn open(folder: &Path, projection_version: u32, journal: &dyn Journal) -> Result<(Views, Opened), ViewsError> {
        let found = opening::open(folder, projection_version, journal)?;
        let (applied, _) = watch::channel(found.watermark.at.sequence);
        let inner = Inner {
            store: Rows::Sled(found.store),
            writer: Mutex::new(found.watermark),
            applied,
            projection_version,
            _lock: Some(found.lock),
        };
        Ok((Views { inner: Arc::new(inner) }, found.opened))
    }

    /// The newest folder that an earlier opening moved aside because it knew entries which the journal did not have
    /// (`<folder>.ahead-<n>`): the proof that acknowledged data was lost, kept until a person removes it.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Folder`] where the folder cannot be listed.
    pub fn proof_of_loss(folder: &Path) -> Result<Option<PathBuf>, ViewsError> {
        aside::newest_ahead(folder)
    }

    /// New views in memory, gone with the last handle: for simulations.
    #[must_use]
    pub fn in_memory(projection_version: u32) -> Views {
        let watermark = Watermark::nothing(projection_version);
        let inner = Inner {
            store: Rows::Memory(Memory::default()),
            writer: Mutex::new(watermark),
            applied: watch::Sender::new(watermark.at.sequence),
            projection_version,
            _lock: None,
        };
        Views { inner: Arc::new(inner) }
    }

    /// The value under `key`.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`], as for all reads.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        self.inner.store.get(&table.row(key))
    }

    /// The rows whose key starts with `prefix` and is `from` or greater, ascending, at most `limit` and at most
    /// [`SCAN_ROWS_MAX`]. An empty `from` begins at the first.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn scan(&self, table: Table, from: &[u8], prefix: &[u8], limit: usize) -> Result<Vec<Row>, ViewsError> {
        let Some(range) = RowRange::prefix_from(table, prefix, from) else {
            return Ok(Vec::new());
        };
        let rows = self.inner.store.range(&range, limit.min(SCAN_ROWS_MAX))?;
        Ok(rows.into_iter().map(without_table).collect())
    }

    /// The last row whose key starts with `prefix`.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Row>, ViewsError> {
        Ok(self.inner.store.last(&RowRange::prefix(table, prefix))?.map(without_table))
    }

    /// The last row whose key starts with `prefix` and is `key` or smaller: where rows cover runs of numbers and
    /// stand under the first of them, the run that may cover a number.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn last_at_or_before(&self, table: Table, prefix: &[u8], key: &[u8]) -> Result<Option<Row>, ViewsError> {
        let Some(range) = RowRange::prefix_up_to(table, prefix, key) else {
            return Ok(None);
        };
        Ok(self.inner.store.last(&range)?.map(without_table))
    }

    /// How far the journal has been applied; `None` before the first batch.
    #[must_use]
    pub fn watermark(&self) -> Option<Tail> {
        self.writer().applied()
    }

    /// The applied sequence, 0 before the first batch, changing after its rows can be read.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// The version of the projection that these views were opened for.
    #[must_use]
    pub fn projection_version(&self) -> u32 {
        self.inner.projection_version
    }

    /// Begins a batch; waits while another one lives.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.inner.store, self.writer())
    }

    /// Writes all of `batch` together with `watermark`, the last journal entry that it covers.
    ///
    /// # Errors
    ///
    /// [`ViewsError::NotForward`] (nothing written) and [`ViewsError::Failed`] (the next opening rebuilds).
    pub fn apply(&self, batch: Batch<'_>, watermark: Tail) -> Result<(), ViewsError> {
        let sequence = batch.apply(watermark)?;
        // Two batches may arrive here in either order: the greater one stays.
        self.inner.applied.send_if_modified(|applied| {
            let later = sequence > *applied;
            *applied = sequence.max(*applied);
            later
        });
        Ok(())
    }

    /// A panic of a projection leaves the watermark as it was, so its poison says nothing.
    fn writer(&self) -> std::sync::MutexGuard<'_, Watermark> {
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Views {
    /// Does not wait for the writer, and shows no rows.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applied = *self.inner.applied.borrow();
        formatter.debug_struct("Views").field("applied", &applied).finish_non_exhaustive()
    }
}

/// Takes the table byte off a row's key.
pub(crate) fn without_table((mut row, value): Row) -> Row {
    if !row.is_empty() {
        row.remove(0);
    }
    (row, value)
}
