//! What the tests of views share: a journal, a projection that reads back what it wrote, and comparisons.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use concord_journal::{Draft, Entry, HistoryId, Journal, MemoryJournal};
use concord_views::{
    Batch, CatchUpError, Key, KeyReader, Opened, Projection, ProjectionError, Row, Table, Views, ViewsError,
};

/// One row per entry, some removed later.
pub(crate) const ENTRIES: Table = Table::new(1).grouped_by_last_bits(6);
/// One row: a digest-like sum over all entries so far, read back for each entry.
pub(crate) const SUM: Table = Table::new(2);
/// Runs of numbers, under the first of each.
pub(crate) const RUNS: Table = Table::new(200).grouped_by_last_bits(7);

/// Entries of one commit.
const COMMIT: usize = 50;

/// A journal with `entries` entries, the first of which begins its history. The same for the same `past`, and a
/// shorter one is the beginning of a longer one.
pub(crate) fn journal(past: &str, entries: u64) -> MemoryJournal {
    let journal = MemoryJournal::new(HistoryId([7; 16]), 0);
    let draft = |sequence: u64| Draft {
        kind: 1,
        version: 1,
        recorded_at: sequence as i64,
        payload: Bytes::from(format!("{past} {sequence} {}", "x".repeat((sequence % 97) as usize))),
        blobs: Vec::new(),
    };
    let drafts: Vec<_> = (2..=entries).map(draft).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for commit in drafts.chunks(COMMIT) {
        runtime.block_on(journal.append(journal.tail(), commit.to_vec())).unwrap();
    }
    assert_eq!(journal.tail().sequence, entries);
    journal
}

/// Writes, overwrites, removes, and reads what an earlier entry (often of the same batch) wrote.
pub(crate) struct Sums {
    pub(crate) version: u32,
}

pub(crate) const VERSION: u32 = 4;

/// Writes as [`Sums`] does, and then fails at the entry with this sequence.
pub(crate) struct FailsAt(pub(crate) u64);

impl Projection for FailsAt {
    fn version(&self) -> u32 {
        VERSION
    }

    fn project(&mut self, entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
        Sums { version: VERSION }.project(entry, batch)?;
        if entry.sequence == self.0 {
            return Err(ProjectionError::UnknownEntry { kind: entry.kind, version: entry.version });
        }
        Ok(())
    }
}

impl Projection for Sums {
    fn version(&self) -> u32 {
        self.version
    }

    fn project(&mut self, entry: &Entry, batch: &mut Batch<'_>) -> Result<(), ProjectionError> {
        let sequence = entry.sequence;
        batch.put(ENTRIES, Key::new().number(sequence).as_ref(), &entry.payload)?;
        if sequence.is_multiple_of(5) {
            batch.remove(ENTRIES, Key::new().number(sequence - 3).as_ref());
        }
        let so_far = batch.get(SUM, b"")?.unwrap_or_default();
        let so_far = KeyReader::new(&so_far).number().unwrap_or_default();
        let sum = entry.payload.iter().fold(so_far, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        batch.put(SUM, b"", &sum.to_be_bytes())?;

        let mailbox = Key::new().text("KAZ");
        let next = match batch.last(RUNS, mailbox.as_ref())? {
            None => 1,
            Some((key, count)) => {
                let mut reader = KeyReader::new(&key);
                let first = reader.text().and_then(|_| reader.number());
                let first = first.ok_or_else(|| ProjectionError::Malformed("a run without a number".to_owned()))?;
                first + u64::from(count.first().copied().unwrap_or_default())
            }
        };
        let count = 1 + (sequence % 7) as u8;
        batch.put(RUNS, mailbox.number(next).as_ref(), &[count])?;
        Ok(())
    }
}

pub(crate) fn open(folder: &Path, journal: &MemoryJournal) -> (Views, Opened) {
    Views::open(folder, VERSION, journal).unwrap()
}

/// Opens without checking any row first.
pub(crate) fn open_unchecked(folder: &Path, journal: &MemoryJournal) -> (Views, Opened) {
    Views::open_checking(folder, VERSION, journal, 0).unwrap()
}

/// Catches up to the journal's tail and answers each applied sequence.
pub(crate) fn catch_up(views: &Views, journal: &MemoryJournal) -> Vec<u64> {
    let mut applied = Vec::new();
    let progress = |sequence| applied.push(sequence);
    let version = views.projection_version();
    views.catch_up(journal, &mut Sums { version }, journal.tail(), progress).unwrap();
    applied
}

/// Catches up to the journal's tail, or says how the views failed.
pub(crate) fn catch_up_unless_failed(views: &Views, journal: &MemoryJournal) -> Result<(), ViewsError> {
    match views.catch_up(journal, &mut Sums { version: VERSION }, journal.tail(), |_| {}) {
        Ok(()) => Ok(()),
        Err(CatchUpError::Views(error) | CatchUpError::Projection { source: ProjectionError::Views(error), .. }) => {
            Err(error)
        }
        Err(other) => panic!("{other}"),
    }
}

/// All rows of all tables.
pub(crate) fn rows(views: &Views) -> Vec<(Table, Row)> {
    rows_unless_failed(views).unwrap()
}

/// All rows of all tables, or that the views failed meanwhile.
pub(crate) fn rows_unless_failed(views: &Views) -> Result<Vec<(Table, Row)>, ViewsError> {
    let mut rows = Vec::new();
    for table in [ENTRIES, SUM, RUNS] {
        let mut from = Vec::new();
        loop {
            let some = views.scan(table, &from, b"", 1_000)?;
            let Some((last, _)) = some.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            rows.extend(some.into_iter().map(|row| (table, row)));
        }
    }
    Ok(rows)
}

/// The rows of a full projection into a new folder.
pub(crate) fn projected_from_the_start(journal: &MemoryJournal) -> Vec<(Table, Row)> {
    let parent = tempfile::tempdir().unwrap();
    let (views, opened) = open(&parent.path().join("views"), journal);
    assert_eq!(opened, Opened::Fresh);
    catch_up(&views, journal);
    rows(&views)
}

/// Every file below `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Copies a closed folder of views.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits for the threads of a sled that the test itself opened and dropped.
pub(crate) fn wait_until_let_go(folder: &Path) {
    fs::File::open(folder.join("db")).unwrap().lock().unwrap();
}
