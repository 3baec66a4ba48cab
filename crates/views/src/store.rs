//! sled behind a fence: its errors, panics and hangs become one error each, and after the first one it is not
//! called again.
//!
//! sled 0.34 may answer damage with an error, a panic, a panic of a background thread that its `Drop` then waits
//! for without end, or an allocation that ends the process. So opening and closing happen on threads of their own
//! with a deadline, and a marker file in the folder tells the next opening what this one could not.

use std::{
    fmt::Display,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    Row, Table, ViewsError,
    aside::at,
    check::{check_all, check_group, check_step, rows},
    groups::Groups,
    range::RowRange,
    watermark::{self, Watermark},
};

/// Memory that sled may use for pages it has read. Reads beyond it go to the disk; nobody is refused.
pub const CACHE_SIZE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How often sled writes out what it holds in memory. It only limits how much a killed process projects again: no
/// acknowledgement rests on it, since the journal was durable before the first row was written.
pub const FLUSH_INTERVAL_MILLISECONDS: u64 = 1_000;

/// How long opening may take, which reads at most [`CHECKED_AT_OPENING_ROWS_MAX`] rows, and each later step of the check; then the caller sees [`ViewsError::OpenHangs`].
pub const OPEN_MAX_SECONDS: u64 = 180;

/// Up to so many rows are all checked while views open. More are checked when they are first asked for, and behind the service.
pub const CHECKED_AT_OPENING_ROWS_MAX: u64 = 200_000;

/// How long closing may take; then sled is left to the end of the process, with a warning in the log.
pub const CLOSE_MAX_SECONDS: u64 = 30;

/// There while sled opens. Found at an opening, it says that the last one was killed, aborted or hung.
const OPENING_MARKER: &str = "opening";
/// The file that sled locks.
const DATABASE_FILE: &str = "db";
/// What sled says when another one has it.
const LOCKED: &str = "could not acquire lock";
/// There while rows are checked behind the service, with how many openings in a row began that. Should sled take the process down with
/// it there, an opening checks all of them first, under its own marker, so that it does not fall for ever.
const CHECKING_MARKER: &str = "checking";
/// So many checks in a row may be broken off by a kill or a power cut before an opening takes it for the fault of the rows.
const CHECKS_BROKEN_OFF_MAX: u64 = 3;
/// Written when sled failed in service, with what it said.
const FAILED_MARKER: &str = "failed";

/// The sled tree of one folder.
pub(crate) struct Store {
    path: PathBuf,
    /// `None` only while being dropped.
    database: Option<sled::Db>,
    failed: OnceLock<String>,
    failing: watch::Sender<bool>,
}

/// Why a folder cannot be used.
pub(crate) enum OpenFailure {
    /// It is damaged: to be moved away.
    Unusable(String),
    /// It may be sound, or it cannot be moved: the caller is told.
    Error(ViewsError),
}

impl Store {
    /// Opens an existing folder, and checks every row against its watermark if there are at most `checked_rows_max`.
    pub(crate) fn open(path: &Path, checked_rows_max: u64) -> Result<(Store, (Watermark, Groups)), OpenFailure> {
        refuse_marked(path)?;
        let broken_off = checks_broken_off(path).map_err(OpenFailure::Error)?;
        let checked = move |database: &sled::Db| {
            let (watermark, mut groups) = Groups::read(rows(database, &RowRange::table(Table::WATERMARK)))?;
            if broken_off >= CHECKS_BROKEN_OFF_MAX || groups.rows() <= checked_rows_max {
                check_all(database, &mut groups)?;
            }
            Ok((watermark, groups))
        };
        let (store, (watermark, groups)) = Self::open_marked(path, checked)?;
        let checking = (!groups.all_checked()).then_some(broken_off + 1);
        store.set_checking(checking).map_err(OpenFailure::Error)?;
        Ok((store, (watermark, groups)))
    }

    /// Notes in the folder that its rows are being checked behind the service, for which time in a row; or not any more.
    pub(crate) fn set_checking(&self, time: Option<u64>) -> Result<(), ViewsError> {
        let marker = self.path.join(CHECKING_MARKER);
        if let Some(time) = time {
            return fs::write(&marker, time.to_string()).map_err(at("write", &marker));
        }
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", &marker)(error)),
            _ => Ok(()),
        }
    }

    /// Makes a new folder, with `watermark` in it before anyone can find it without.
    pub(crate) fn create(path: &Path, watermark: Watermark) -> Result<Store, OpenFailure> {
        fs::create_dir_all(path).map_err(at("make", path)).map_err(OpenFailure::Error)?;
        let first_row = move |database: &sled::Db| {
            database.insert(watermark::row(), watermark.encode()).map_err(|error| error.to_string())?;
            database.flush().map(|_| ()).map_err(|error| error.to_string())
        };
        Self::open_marked(path, first_row).map(|(store, ())| store)
    }

    /// Opens sled, and does `first` on it, between the making and the removal of the opening marker.
    fn open_marked<T: Send + 'static>(
        path: &Path,
        first: impl FnOnce(&sled::Db) -> Result<T, String> + Send + 'static,
    ) -> Result<(Store, T), OpenFailure> {
        let marker = path.join(OPENING_MARKER);
        fs::write(&marker, b"").map_err(at("write", &marker)).map_err(OpenFailure::Error)?;
        concord_faults::point("views.open.marked");
        let config = configuration(path);
        let folder = path.to_path_buf();
        let opened = within(OPEN_MAX_SECONDS, "views-open", move || {
            let database = match fenced(|| config.open()) {
                Ok(database) => database,
                Err(what) if what.contains(LOCKED) => return Err(what),
                Err(what) => {
                    wait_until_let_go(&folder)?;
                    return Err(what);
                }
            };
            concord_faults::point("views.open.opened");
            match fenced(|| first(&database)) {
                Ok(first) => Ok((database, first)),
                Err(what) => {
                    // Closed before the answer: sled writes by path, and the folder is about to be moved.
                    close(database, &folder)?;
                    Err(what)
                }
            }
        });
        let path = path.to_path_buf();
        let (database, first) = match opened {
            Ok(Some(Ok(opened))) => opened,
            Ok(Some(Err(what))) if what.contains(LOCKED) => {
                // Its owner has it in use, so it has opened: the marker is only ours.
                fs::remove_file(&marker).map_err(at("remove", &marker)).map_err(OpenFailure::Error)?;
                return Err(OpenFailure::Error(ViewsError::Locked { path }));
            }
            Ok(Some(Err(what))) => return Err(OpenFailure::Unusable(what)),
            Ok(None) => {
                return Err(OpenFailure::Error(ViewsError::OpenHangs { path, seconds: OPEN_MAX_SECONDS }));
            }
            Err(source) => return Err(OpenFailure::Error(at("start a thread to open", &path)(source))),
        };
        concord_faults::point("views.open.checked");
        fs::remove_file(&marker).map_err(at("remove", &marker)).map_err(OpenFailure::Error)?;
        concord_faults::point("views.open.unmarked");
        let (failed, failing) = (OnceLock::new(), watch::Sender::new(false));
        Ok((Store { path, database: Some(database), failed, failing }, first))
    }

    pub(crate) fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        self.call(|database| Ok::<_, sled::Error>(database.get(row)?.map(|value| value.to_vec())))
    }

    /// The rows of `range`, ascending, at most `limit`.
    pub(crate) fn rows(&self, range: &RowRange, limit: usize) -> Result<Vec<Row>, ViewsError> {
        self.call(|database| {
            let rows = database.range::<&[u8], _>(range.bounds()).take(limit);
            rows.map(|row| row.map(|(row, value)| (row.to_vec(), value.to_vec()))).collect::<Result<_, _>>()
        })
    }

    /// The last row of `range`.
    pub(crate) fn last(&self, range: &RowRange) -> Result<Option<Row>, ViewsError> {
        self.call(|database| {
            let last = database.range::<&[u8], _>(range.bounds()).next_back().transpose()?;
            Ok::<_, sled::Error>(last.map(|(row, value)| (row.to_vec(), value.to_vec())))
        })
    }

    /// Writes all of `batch` or nothing of it.
    pub(crate) fn write(&self, batch: sled::Batch) -> Result<(), ViewsError> {
        self.call(|database| database.apply_batch(batch))
    }

    /// Checks one group; that its rows are others is a failure of the store.
    pub(crate) fn check_group(&self, groups: &mut Groups, name: &[u8]) -> Result<(), ViewsError> {
        self.call(|database| check_group(database, groups, name, None))
    }

    /// Checks the next group behind `from`, which moves; answers false when there is nothing more to check.
    pub(crate) fn check_step(&self, groups: &mut Groups, from: &mut Vec<u8>) -> Result<bool, ViewsError> {
        self.call(|database| check_step(database, groups, from))
    }

    /// After a failure sled may hold locks for ever or have half a batch in memory: it is not called again.
    fn call<T, E: Display>(&self, work: impl FnOnce(&sled::Db) -> Result<T, E>) -> Result<T, ViewsError> {
        if let Some(what) = self.failed.get() {
            return Err(self.failure(what));
        }
        let Some(database) = &self.database else {
            return Err(self.failure("already closed"));
        };
        fenced(|| work(database)).map_err(|what| self.fail(what))
    }

    /// Marks the folder, so that the next opening rebuilds it, and wakes who waits for that.
    pub(crate) fn fail(&self, what: String) -> ViewsError {
        let what = self.failed.get_or_init(|| what);
        let marker = self.path.join(FAILED_MARKER);
        if let Err(error) = fs::write(&marker, what) {
            tracing::error!(path = %marker.display(), %error,
                "the failure of the views could not be noted: remove the folder before the next start");
        }
        self.failing.send_replace(true);
        self.failure(what)
    }

    /// Answers when the store has failed.
    pub(crate) async fn failed(&self) -> ViewsError {
        // The sender is this store's own, so that waiting ends only with a failure.
        let mut failing = self.failing.subscribe();
        drop(failing.wait_for(|failed| *failed).await);
        self.failure(self.failed.get().map_or("failed", String::as_str))
    }

    fn failure(&self, what: &str) -> ViewsError {
        ViewsError::Failed { path: self.path.clone(), what: what.to_owned() }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(database) = self.database.take() else {
            return;
        };
        concord_faults::point("views.close");
        let folder = self.path.clone();
        let closed = within(CLOSE_MAX_SECONDS, "views-close", move || close(database, &folder));
        let path = self.path.display();
        match closed {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(what))) => tracing::warn!(%path, what, "closing the views failed"),
            Ok(None) => tracing::warn!(%path, seconds = CLOSE_MAX_SECONDS, "the views did not close in time"),
            Err(error) => tracing::warn!(%path, %error, "no thread to close the views"),
        }
    }
}

fn configuration(path: &Path) -> sled::Config {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_SIZE_MAX_BYTES)
        .flush_every_ms(Some(FLUSH_INTERVAL_MILLISECONDS))
        .mode(sled::Mode::HighThroughput)
        .use_compression(false)
}

/// How many checks in a row did not end; what cannot be read as a number is too many.
fn checks_broken_off(path: &Path) -> Result<u64, ViewsError> {
    let marker = path.join(CHECKING_MARKER);
    match fs::read(&marker) {
        Ok(text) => Ok(str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(CHECKS_BROKEN_OFF_MAX)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(at("read", &marker)(source)),
    }
}

fn refuse_marked(path: &Path) -> Result<(), OpenFailure> {
    let marker = path.join(OPENING_MARKER);
    if marker.try_exists().map_err(at("look for", &marker)).map_err(OpenFailure::Error)? {
        return Err(OpenFailure::Unusable("the last opening did not end".to_owned()));
    }
    let marker = path.join(FAILED_MARKER);
    match marker.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => {
            let what = fs::read(&marker).map_err(at("read", &marker)).map_err(OpenFailure::Error)?;
            Err(OpenFailure::Unusable(format!("failed in service: {}", String::from_utf8_lossy(&what))))
        }
        Err(source) => Err(OpenFailure::Error(at("look for", &marker)(source))),
    }
}

/// Drops sled, which writes out what it holds, and waits until it has let go of the folder.
fn close(database: sled::Db, path: &Path) -> Result<(), String> {
    fenced(|| {
        drop(database);
        Ok::<(), String>(())
    })?;
    wait_until_let_go(path)
}

/// sled's pool threads may hold its file, and with it sled's lock, for a moment after the last handle is dropped:
/// taking the same lock waits for exactly that long.
fn wait_until_let_go(path: &Path) -> Result<(), String> {
    match fs::File::open(path.join(DATABASE_FILE)) {
        Ok(file) => file.lock().map_err(|error| error.to_string()),
        // Damage may have taken it; then there is nothing to be locked.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Does `work` and turns a panic into an error as well.
fn fenced<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("sled panicked: {}", text.unwrap_or("without a message")))
        }
    }
}

/// Does `work` on a thread of its own; `None` if it has not ended after `seconds`, and goes on unobserved.
fn within<T: Send + 'static>(
    seconds: u64,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Option<T>> {
    let (done, waiting) = mpsc::sync_channel(1);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // The receiver is gone only after the deadline, and then nobody wants the answer.
        let _too_late = done.send(work());
    })?;
    Ok(waiting.recv_timeout(Duration::from_secs(seconds)).ok())
}
