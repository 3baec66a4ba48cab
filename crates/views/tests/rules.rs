//! When views resume, when they are rebuilt, and what a batch promises.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, path::PathBuf};

use bytes::Bytes;
use concord_journal::hooked::{AppendHook, HookedJournal};
use concord_journal::{AppendError, Committed, Digest, Draft, Journal, MemoryJournal, Tail, Trim};
use concord_views::{
    BATCH_ROWS_MAX, CatchUpError, Key, Opened, Reason, Table, VALUE_SIZE_MAX_BYTES, Views, ViewsError,
};
use futures::future::BoxFuture;
use support::{ENTRIES, FailsAt, SUM, Sums, VERSION, catch_up, journal, open, projected_from_the_start, rows};
use tempfile::TempDir;

const TABLE: Table = Table::new(9);
const NEXT_TABLE: Table = Table::new(10);

/// A folder that does not exist yet.
fn place() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state").join("views");
    (parent, folder)
}

fn tail(sequence: u64) -> Tail {
    Tail { sequence, digest: Digest([sequence as u8; 32]), ..journal("past", 1).tail() }
}

#[test]
fn views_resume_where_they_were_and_go_on_to_the_same_rows() {
    let (_parent, folder) = place();
    let shorter = journal("past", 300);
    let (views, opened) = open(&folder, &shorter);
    assert_eq!((opened, views.watermark()), (Opened::Fresh, None));
    catch_up(&views, &shorter);
    drop(views);

    let longer = journal("past", 700);
    let (views, opened) = open(&folder, &longer);
    assert_eq!(opened, Opened::Resumed { at: shorter.tail() });
    assert_eq!(views.watermark(), Some(shorter.tail()));
    let applied = catch_up(&views, &longer);
    assert!(applied.first() > Some(&300), "applied again: {applied:?}");
    assert_eq!(views.watermark(), Some(longer.tail()));
    assert_eq!(rows(&views), projected_from_the_start(&longer));
}

#[test]
fn views_in_memory_go_the_same_way_to_the_same_rows() {
    let (shorter, longer) = (journal("past", 300), journal("past", 700));
    let views = Views::in_memory(VERSION);
    assert_eq!(views.watermark(), None);
    catch_up(&views, &shorter);
    let mut watch = views.watch();
    assert_eq!((views.watermark(), *watch.borrow_and_update()), (Some(shorter.tail()), 300));
    catch_up(&views, &longer);
    assert_eq!(*watch.borrow_and_update(), 700);
    assert_eq!(rows(&views), projected_from_the_start(&longer));
    // What is refused of views in a folder is refused here.
    let other = journal("another past", 800);
    let refused = views.catch_up(&other, &mut Sums { version: VERSION }, other.tail(), |_| {});
    assert!(matches!(refused, Err(CatchUpError::DoesNotFollow { expected: 701 })), "{refused:?}");
    let backwards = views.apply(views.batch(), shorter.tail());
    assert!(matches!(backwards, Err(ViewsError::NotForward { current: 700, asked: 300 })), "{backwards:?}");
}

#[test]
fn missing_views_are_rebuilt_equal() {
    let (_parent, folder) = place();
    let journal = journal("past", 500);
    let (views, _) = open(&folder, &journal);
    catch_up(&views, &journal);
    let before = rows(&views);
    drop(views);
    fs::remove_dir_all(&folder).unwrap();
    let (views, opened) = open(&folder, &journal);
    assert_eq!(opened, Opened::Fresh);
    assert!(rows(&views).is_empty());
    catch_up(&views, &journal);
    assert_eq!(rows(&views), before);
}

#[test]
fn catching_up_goes_in_bounded_batches_and_tells_each() {
    let (_parent, folder) = place();
    // Each entry makes at least two rows.
    let entries = BATCH_ROWS_MAX as u64 + 50;
    let journal = journal("past", entries);
    let (views, _) = open(&folder, &journal);
    let mut watch = views.watch();
    assert_eq!(*watch.borrow_and_update(), 0);
    let applied = catch_up(&views, &journal);
    assert!(applied.len() > 2 && applied.last() == Some(&entries), "{applied:?}");
    let steps = std::iter::once(&0).chain(&applied).zip(&applied);
    assert!(steps.clone().all(|(from, to)| to - from <= BATCH_ROWS_MAX as u64 / 2 + 1), "{applied:?}");
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), entries);
    assert!(catch_up(&views, &journal).is_empty(), "nothing left to apply");
    assert!(!watch.has_changed().unwrap());
}

#[test]
fn a_waiting_task_is_woken_by_the_rows_it_waits_for() {
    let (_parent, folder) = place();
    let journal = journal("past", 3);
    let (views, _) = open(&folder, &journal);
    let waiting = {
        let views = views.clone();
        std::thread::spawn(move || {
            let mut watch = views.watch();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(watch.wait_for(|applied| *applied >= 3)).unwrap();
            views.get(ENTRIES, Key::new().number(3).as_ref()).unwrap()
        })
    };
    catch_up(&views, &journal);
    assert!(waiting.join().unwrap().is_some());
}

#[test]
fn a_watermark_ahead_of_the_journal_is_rebuilt_and_reported_as_a_loss() {
    let (_parent, folder) = place();
    let (longer, shorter) = (journal("past", 40), journal("past", 39));
    let (views, _) = open(&folder, &longer);
    catch_up(&views, &longer);
    drop(views);
    let (views, opened) = open(&folder, &shorter);
    let Opened::Rebuilding { because, moved_to } = &opened else { panic!("{opened:?}") };
    assert_eq!(*because, Reason::WatermarkAhead { watermark: longer.tail(), journal: shorter.tail() });
    assert!(moved_to.as_ref().is_some_and(|folder| folder.ends_with("views.ahead-1") && folder.is_dir()));
    assert!(opened.shows_lost_entries());
    catch_up(&views, &shorter);
    assert_eq!(rows(&views), projected_from_the_start(&shorter));
}

#[test]
fn the_proof_of_a_loss_outlives_restarts_until_a_person_removes_it() {
    let (_parent, folder) = place();
    let (longer, shorter) = (journal("past", 40), journal("past", 39));
    let (views, _) = open(&folder, &longer);
    catch_up(&views, &longer);
    assert_eq!(Views::proof_of_loss(&folder).unwrap(), None);
    drop(views);
    drop(open(&folder, &shorter));
    for _restart in 0..2 {
        let (_views, opened) = open(&folder, &shorter);
        assert!(!opened.shows_lost_entries());
        let proof = Views::proof_of_loss(&folder).unwrap().expect("the views that knew more");
        assert!(proof.is_dir(), "{}", proof.display());
    }
    std::fs::remove_dir_all(Views::proof_of_loss(&folder).unwrap().unwrap()).unwrap();
    assert_eq!(Views::proof_of_loss(&folder).unwrap(), None);
}

#[test]
fn a_journal_with_another_past_is_rebuilt_and_reported_as_a_loss() {
    let (_parent, folder) = place();
    let (ours, other) = (journal("past", 40), journal("another past", 60));
    let (views, _) = open(&folder, &ours);
    catch_up(&views, &ours);
    drop(views);
    let (views, opened) = open(&folder, &other);
    let Opened::Rebuilding { because: Reason::Disagrees { watermark, .. }, .. } = &opened else { panic!("{opened:?}") };
    assert_eq!(*watermark, ours.tail());
    assert!(opened.shows_lost_entries());
    catch_up(&views, &other);
    assert_eq!(rows(&views), projected_from_the_start(&other));
}

#[test]
fn another_version_of_the_projection_is_rebuilt_and_is_no_loss() {
    let (_parent, folder) = place();
    let journal = journal("past", 40);
    let (views, _) = open(&folder, &journal);
    catch_up(&views, &journal);
    drop(views);
    let (views, opened) = Views::open(&folder, VERSION + 1, &journal).unwrap();
    assert!(!opened.shows_lost_entries());
    let Opened::Rebuilding { because, .. } = opened else { panic!("{opened:?}") };
    assert_eq!(because, Reason::OtherVersion { found: VERSION });
    let wrong = views.catch_up(&journal, &mut Sums { version: VERSION }, journal.tail(), |_| ());
    assert!(matches!(wrong, Err(CatchUpError::OtherVersion { .. })), "{wrong:?}");
    catch_up(&views, &journal);
    assert_eq!(rows(&views), projected_from_the_start(&journal));
}

#[test]
fn views_in_use_are_an_error_and_stay_where_they_are() {
    let (parent, folder) = place();
    let journal = journal("past", 20);
    let (views, _) = open(&folder, &journal);
    catch_up(&views, &journal);
    let second = Views::open(&folder, VERSION, &journal);
    assert!(matches!(second, Err(ViewsError::Locked { .. })), "{second:?}");
    // Also where the other one knows nothing of our lock file.
    drop(views);
    let other = sled::open(&folder).unwrap();
    let second = Views::open(&folder, VERSION, &journal);
    assert!(matches!(second, Err(ViewsError::Locked { .. })), "{second:?}");
    drop(other);
    support::wait_until_let_go(&folder);
    assert_eq!(open(&folder, &journal).1, Opened::Resumed { at: journal.tail() });
    assert!(!parent.path().join("state").join("views.broken-1").exists());
}

#[test]
fn a_batch_reads_its_own_writes_and_nobody_else_does_before_it_is_applied() {
    let (_parent, folder) = place();
    let (views, _) = open(&folder, &journal("past", 1));
    let mut batch = views.batch();
    batch.put(TABLE, b"kept", b"1").unwrap();
    batch.put(TABLE, b"removed", b"1").unwrap();
    views.apply(batch, tail(1)).unwrap();

    let mut batch = views.batch();
    batch.put(TABLE, b"kept", b"2").unwrap();
    batch.remove(TABLE, b"removed");
    assert_eq!(batch.get(TABLE, b"kept").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(batch.get(TABLE, b"removed").unwrap(), None);
    assert_eq!(batch.last(TABLE, b"").unwrap(), Some((b"kept".to_vec(), b"2".to_vec())));
    assert_eq!(views.get(TABLE, b"kept").unwrap().as_deref(), Some(&b"1"[..]));
    drop(batch);
    assert!(views.get(TABLE, b"removed").unwrap().is_some(), "a dropped batch changes nothing");
}

#[test]
fn a_batch_that_does_not_move_the_watermark_forward_writes_nothing() {
    let (_parent, folder) = place();
    let (views, _) = open(&folder, &journal("past", 1));
    let apply = |sequence| {
        let mut batch = views.batch();
        batch.put(TABLE, b"row", &[sequence as u8]).unwrap();
        views.apply(batch, tail(sequence))
    };
    apply(5).unwrap();
    for sequence in [5, 4, 0] {
        let refused = apply(sequence);
        assert!(matches!(refused, Err(ViewsError::NotForward { current: 5, .. })), "{refused:?}");
    }
    assert_eq!(views.get(TABLE, b"row").unwrap(), Some(vec![5]));
    assert_eq!((views.watermark(), *views.watch().borrow()), (Some(tail(5)), 5));
}

#[test]
fn an_entry_that_fails_hides_none_before_it_and_leaves_nothing_of_itself() {
    let (_parent, folder) = place();
    let journal = journal("past", 20);
    let (views, _) = open(&folder, &journal);
    let failed = views.catch_up(&journal, &mut FailsAt(13), journal.tail(), |_| ());
    assert!(matches!(failed, Err(CatchUpError::Projection { sequence: 13, .. })), "{failed:?}");
    assert_eq!(views.watermark().map(|at| at.sequence), Some(12));
    let expected = projected_from_the_start(&support::journal("past", 12));
    assert_eq!(rows(&views), expected);
    catch_up(&views, &journal);
    assert_eq!(rows(&views), projected_from_the_start(&journal));
}

#[test]
fn a_journal_that_does_not_follow_the_views_is_not_mixed_into_them() {
    let (_parent, folder) = place();
    let (ours, other) = (journal("past", 10), journal("another past", 20));
    let (views, _) = open(&folder, &ours);
    catch_up(&views, &ours);
    let mixed = views.catch_up(&other, &mut Sums { version: VERSION }, other.tail(), |_| ());
    assert!(matches!(mixed, Err(CatchUpError::DoesNotFollow { expected: 11 })), "{mixed:?}");
    let beyond = Tail { sequence: 11, ..ours.tail() };
    let missing = views.catch_up(&ours, &mut Sums { version: VERSION }, beyond, |_| ());
    assert!(matches!(missing, Err(CatchUpError::DoesNotFollow { expected: 11 })), "{missing:?}");
    assert_eq!(rows(&views), projected_from_the_start(&ours));
}

#[test]
fn the_run_that_covers_a_number_is_found_and_none_of_another_participant() {
    let (_parent, folder) = place();
    let (views, _) = open(&folder, &journal("past", 1));
    let run = |code: &str, first| Key::new().text(code).number(first);
    let mut batch = views.batch();
    for (code, first) in [("KAZ", 1), ("KAZ", 10), ("KAZ", 20), ("KA", 15), ("KAZZ", 12), ("UZB", 2)] {
        batch.put(TABLE, run(code, first).as_ref(), code.as_bytes()).unwrap();
    }
    batch.put(NEXT_TABLE, run("KAZ", 14).as_ref(), b"another table").unwrap();
    views.apply(batch, tail(1)).unwrap();
    let check = |code: &str, number, expected: Option<u64>| {
        let prefix = Key::new().text(code);
        let found = views.last_at_or_before(TABLE, prefix.as_ref(), run(code, number).as_ref()).unwrap();
        let expected = expected.map(|first| (Vec::from(run(code, first)), code.as_bytes().to_vec()));
        assert_eq!(found, expected, "{code} {number}");
    };
    check("KAZ", 0, None);
    check("KAZ", 1, Some(1));
    check("KAZ", 9, Some(1));
    check("KAZ", 10, Some(10));
    check("KAZ", 19, Some(10));
    check("KAZ", u64::MAX, Some(20));
    check("UZB", 1, None);
    check("UZB", 3, Some(2));
    check("AFG", 3, None);
    let beyond = views.last_at_or_before(TABLE, Key::new().text("KAZ").as_ref(), b"UZB").unwrap();
    assert_eq!(beyond.map(|(key, _)| key), Some(Vec::from(run("KAZ", 20))));
    let last = views.last(TABLE, Key::new().text("KA").as_ref()).unwrap();
    assert_eq!(last.map(|(key, _)| key), Some(Vec::from(run("KA", 15))));
}

#[test]
fn a_scan_stays_within_prefix_table_and_limit() {
    let (_parent, folder) = place();
    let (views, _) = open(&folder, &journal("past", 1));
    let mut batch = views.batch();
    for key in ["a1", "a2", "a3", "b1"] {
        batch.put(TABLE, key.as_bytes(), b"").unwrap();
        batch.put(NEXT_TABLE, key.as_bytes(), b"").unwrap();
    }
    views.apply(batch, tail(1)).unwrap();
    let check = |from: &str, prefix: &str, limit, expected: &[&str]| {
        let rows = views.scan(TABLE, from.as_bytes(), prefix.as_bytes(), limit).unwrap();
        let keys: Vec<_> = rows.iter().map(|(key, _)| str::from_utf8(key).unwrap()).collect();
        assert_eq!(keys, expected, "from {from:?}, prefix {prefix:?}, limit {limit}");
    };
    check("", "", 10, &["a1", "a2", "a3", "b1"]);
    check("", "a", 10, &["a1", "a2", "a3"]);
    check("a2", "a", 10, &["a2", "a3"]);
    check("a2", "", 2, &["a2", "a3"]);
    check("", "b", 10, &["b1"]);
    check("b", "a", 10, &[]);
    check("", "c", 10, &[]);
    check("", "", 0, &[]);
}

#[test]
fn a_row_over_the_limit_is_refused() {
    let (_parent, folder) = place();
    let (views, _) = open(&folder, &journal("past", 1));
    let mut batch = views.batch();
    let value = vec![7; VALUE_SIZE_MAX_BYTES + 1];
    let refused = batch.put(TABLE, b"row", &value);
    assert!(matches!(refused, Err(ViewsError::RowTooLarge { .. })), "{refused:?}");
    batch.put(TABLE, b"row", &value[1..]).unwrap();
    views.apply(batch, tail(1)).unwrap();
    assert_eq!(views.get(TABLE, b"row").unwrap().as_deref(), Some(&value[1..]));
    assert_eq!(views.get(SUM, b"row").unwrap(), None);
}

/// Trims a copy of the journal; everything that goes is kept but this.
fn trimmed(journal: &MemoryJournal, before: u64, but: &[u64]) -> MemoryJournal {
    let journal = journal.fork();
    let first_kept = journal.trim_point(before).unwrap();
    let kept = (1..first_kept).filter(|sequence| !but.contains(sequence)).collect();
    let prepared = journal.prepare_trim(Trim { first_kept, state: Bytes::new(), kept }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(journal.trim(journal.tail(), 0, prepared)).unwrap();
    journal
}

#[test]
fn views_are_made_anew_from_what_a_trim_kept_and_go_on_where_their_entry_is_still_there() {
    let (_parent, folder) = place();
    let whole = journal("past", 700);
    let catch_up_to = |views: &Views, journal: &MemoryJournal| {
        views.catch_up(journal, &mut Sums { version: VERSION }, whole.tail(), |_| {}).unwrap();
    };
    let kept = trimmed(&whole, 600, &[]);
    let (views, _) = open(&folder, &kept);
    catch_up_to(&views, &kept);
    assert_eq!(rows(&views), projected_from_the_start(&whole));
    drop(views);
    fs::remove_dir_all(&folder).unwrap();

    let shorter = journal("past", 300);
    let (views, _) = open(&folder, &shorter);
    catch_up(&views, &shorter);
    drop(views);
    let (views, opened) = open(&folder, &kept);
    assert_eq!(opened, Opened::Resumed { at: shorter.tail() });
    catch_up_to(&views, &kept);
    assert_eq!(rows(&views), projected_from_the_start(&whole));
    drop(views);
    // What they stand at is not kept: nothing says that it was the same, and nothing that it was not.
    let not_kept = trimmed(&journal("past", 900), 800, &[700]);
    let (views, opened) = open(&folder, &not_kept);
    assert!(!opened.shows_lost_entries());
    let Opened::Rebuilding { because, .. } = opened else { panic!("{opened:?}") };
    assert_eq!(because, Reason::BeforeBase { watermark: whole.tail() });
    // A gap that a trim left is passed over, from the journal's first batch to its base.
    catch_up(&views, &not_kept);
    assert_eq!(views.watermark(), Some(not_kept.tail()));
    drop(views);
    // Another past that is kept is another past.
    let (views, opened) = open(&folder, &trimmed(&journal("another past", 1_000), 950, &[]));
    assert!(opened.shows_lost_entries(), "{opened:?}");
    drop(views);
}

/// Once says of an entry that was kept that it was not.
#[derive(Default)]
struct Forgetful(AtomicBool);

impl AppendHook for Forgetful {
    fn append(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        batch: Vec<Draft>,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        inner.append(expected, batch)
    }

    fn kept_from(&self, inner: &MemoryJournal, from: u64) -> Option<u64> {
        let forgets = from == 250 && !self.0.swap(true, Ordering::SeqCst);
        inner.kept_from(if forgets { 251 } else { from })
    }
}

#[test]
fn a_kept_entry_that_is_not_read_stops_the_views_before_it() {
    let (_parent, folder) = place();
    let inner = trimmed(&journal("past", 700), 600, &[]);
    let (views, _) = open(&folder, &inner);
    let journal = HookedJournal { inner, hook: Forgetful::default() };
    let catch_up = || views.catch_up(&journal, &mut Sums { version: VERSION }, journal.tail(), |_| {});
    let stopped = catch_up();
    assert!(matches!(stopped, Err(CatchUpError::DoesNotFollow { expected: 250 })), "{stopped:?}");
    catch_up().unwrap();
    assert_eq!(views.watermark(), Some(journal.tail()));
}
