//! The views of one journal: reading them and applying batches.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use concord_journal::{Journal, Tail};
use tokio::sync::watch;

use crate::{
    Batch, CHECKED_AT_OPENING_ROWS_MAX, Opened, Table, ViewsError, aside,
    check::Check,
    groups::Groups,
    opening,
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

/// Declared in the order of dropping: the check has ended before its store closes.
struct Inner {
    _check: Option<Check>,
    core: Arc<Core>,
}

/// Declared in the order of dropping: sled must have closed before the lock lets another one in.
pub(crate) struct Core {
    pub(crate) store: Rows,
    /// What was written last; whoever holds the lock is the one who writes, and who checks.
    writer: Mutex<Written>,
    /// Set once, when no read needs the lock any more to be answered from checked rows.
    pub(crate) all_checked: AtomicBool,
    applied: watch::Sender<u64>,
    projection_version: u32,
    /// None in memory.
    _lock: Option<File>,
}

/// The watermark, and the groups whose rows it binds.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) watermark: Watermark,
    pub(crate) groups: Groups,
}

impl Views {
    /// Opens the views in `folder`, or makes them, or moves broken ones away and makes new ones; the second part of
    /// the answer says which. Afterwards [`Views::catch_up`] brings them to the journal's tail in each case.
    ///
    /// Checks every row if there are at most [`CHECKED_AT_OPENING_ROWS_MAX`]. More are checked group by group when they are first
    /// asked for, and by a thread of their own; [`Views::failed`] answers if they are found to be damaged. The lock file is
    /// `<folder>.lock`, broken views are at `<folder>.broken-<n>`, and at `<folder>.ahead-<n>` those that knew more than the journal.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Locked`], [`ViewsError::OpenHangs`], [`ViewsError::Folder`], [`ViewsError::Journal`], and
    /// [`ViewsError::Failed`] where even an empty folder does not open. Damage is not an error: it is rebuilt.
    pub fn open(folder: &Path, projection_version: u32, journal: &dyn Journal) -> Result<(Views, Opened), ViewsError> {
        Self::open_checking(folder, projection_version, journal, rows_checked_at_opening())
    }

    /// As [`Views::open`], with another limit for the rows that are checked at once.
    ///
    /// # Errors
    ///
    /// As [`Views::open`].
    pub fn open_checking(
        folder: &Path,
        projection_version: u32,
        journal: &dyn Journal,
        checked_rows_max: u64,
    ) -> Result<(Views, Opened), ViewsError> {
        let found = opening::open(folder, projection_version, journal, checked_rows_max)?;
        let store = Rows::Sled(found.store);
        let core = Arc::new(Core::new(store, found.written, projection_version, Some(found.lock)));
        let check = if core.all_checked.load(Ordering::Acquire) { None } else { Check::begin(&core, folder)? };
        Ok((Views { inner: Arc::new(Inner { _check: check, core }) }, found.opened))
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
        let written = Written { watermark: Watermark::nothing(projection_version), groups: Groups::none() };
        let core = Core::new(Rows::Memory(Memory::default()), written, projection_version, None);
        Views { inner: Arc::new(Inner { _check: None, core: Arc::new(core) }) }
    }

    /// Answers when the views have failed: whoever serves from them ends the process, and the next opening rebuilds them.
    pub async fn failed(&self) -> ViewsError {
        match &self.inner.core.store {
            Rows::Sled(store) => store.failed().await,
            Rows::Memory(_) => std::future::pending().await,
        }
    }

    /// Whether no row is left that was not checked since the opening.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.inner.core.all_checked.load(Ordering::Acquire)
    }

    /// The value under `key`.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`], as for all reads.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        let row = table.row(key);
        self.inner.core.read(|store| store.get(&row), |store, groups| store.get_checked(groups, &row))
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
        let limit = limit.min(SCAN_ROWS_MAX);
        let checked = |store: &Rows, groups: &mut Groups| store.range_checked(groups, &range, limit);
        let rows = self.inner.core.read(|store| store.range(&range, limit), checked)?;
        Ok(rows.into_iter().map(without_table).collect())
    }

    /// The last row whose key starts with `prefix`.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn last(&self, table: Table, prefix: &[u8]) -> Result<Option<Row>, ViewsError> {
        self.last_in(&RowRange::prefix(table, prefix))
    }

    /// The last row whose key starts with `prefix` and is `key` or smaller: where rows cover runs of numbers and
    /// stand under the first of them, the run that may cover a number.
    ///
    /// # Errors
    ///
    /// [`ViewsError::Failed`].
    pub fn last_at_or_before(&self, table: Table, prefix: &[u8], key: &[u8]) -> Result<Option<Row>, ViewsError> {
        RowRange::prefix_up_to(table, prefix, key).map_or(Ok(None), |range| self.last_in(&range))
    }

    fn last_in(&self, range: &RowRange) -> Result<Option<Row>, ViewsError> {
        let checked = |store: &Rows, groups: &mut Groups| store.last_checked(groups, range);
        Ok(self.inner.core.read(|store| store.last(range), checked)?.map(without_table))
    }

    /// How far the journal has been applied; `None` before the first batch.
    #[must_use]
    pub fn watermark(&self) -> Option<Tail> {
        self.inner.core.writer().watermark.applied()
    }

    /// The applied sequence, 0 before the first batch, changing after its rows can be read.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.core.applied.subscribe()
    }

    /// The version of the projection that these views were opened for.
    #[must_use]
    pub fn projection_version(&self) -> u32 {
        self.inner.core.projection_version
    }

    /// Begins a batch; waits while another one lives.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.inner.core.store, self.inner.core.writer())
    }

    /// Writes all of `batch` together with `watermark`, the last journal entry that it covers.
    ///
    /// # Errors
    ///
    /// [`ViewsError::NotForward`] (nothing written) and [`ViewsError::Failed`] (the next opening rebuilds).
    pub fn apply(&self, batch: Batch<'_>, watermark: Tail) -> Result<(), ViewsError> {
        let sequence = batch.apply(watermark)?;
        // Two batches may arrive here in either order: the greater one stays.
        self.inner.core.applied.send_if_modified(|applied| {
            let later = sequence > *applied;
            *applied = sequence.max(*applied);
            later
        });
        Ok(())
    }
}

impl Core {
    fn new(store: Rows, written: Written, projection_version: u32, lock: Option<File>) -> Self {
        let (applied, _) = watch::channel(written.watermark.at.sequence);
        let all_checked = AtomicBool::new(written.groups.all_checked());
        Self { store, writer: Mutex::new(written), all_checked, applied, projection_version, _lock: lock }
    }

    /// A panic of a projection leaves what was written as it was, so its poison says nothing.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Written> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads freely once everything is checked; until then under the lock, and checks what the answer lies among.
    fn read<T>(
        &self,
        freely: impl FnOnce(&Rows) -> Result<T, ViewsError>,
        checked: impl FnOnce(&Rows, &mut Groups) -> Result<T, ViewsError>,
    ) -> Result<T, ViewsError> {
        if self.all_checked.load(Ordering::Acquire) {
            return freely(&self.store);
        }
        checked(&self.store, &mut self.writer().groups)
    }
}

impl fmt::Debug for Views {
    /// Does not wait for the writer, and shows no rows.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applied = *self.inner.core.applied.borrow();
        formatter.debug_struct("Views").field("applied", &applied).finish_non_exhaustive()
    }
}

/// In builds for tests: another limit for the rows that are checked at the opening.
#[cfg(debug_assertions)]
const CHECKED_VARIABLE: &str = "CONCORD_VIEWS_CHECKED_AT_OPENING_ROWS_MAX";

fn rows_checked_at_opening() -> u64 {
    #[cfg(debug_assertions)]
    if let Ok(text) = std::env::var(CHECKED_VARIABLE) {
        return text.parse().unwrap_or_else(|_| panic!("{CHECKED_VARIABLE}={text}: not a number of rows"));
    }
    CHECKED_AT_OPENING_ROWS_MAX
}

/// Takes the table byte off a row's key.
pub(crate) fn without_table((mut row, value): Row) -> Row {
    if !row.is_empty() {
        row.remove(0);
    }
    (row, value)
}
