//! Whatever stands in the folder, a start has the state of all entries; and what is lost is told.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use concord_journal::{Draft, Entry, HistoryId, Journal, MemoryJournal, ReadError, Tail, Trim};
use concord_snapshots::{
    Form, Restored, SNAPSHOT_ENTRIES, SNAPSHOT_PERIOD_SECONDS, SNAPSHOTS_KEPT, Snapshots, keep, restore, state_before,
};
use tokio::sync::watch;

const FORM: Form = Form { name: "sums", version: 1 };

/// A fold that shows which entries were applied, in which order.
type Sums = Vec<u64>;

fn journal(past: u8, entries: u64) -> MemoryJournal {
    let journal = MemoryJournal::new(HistoryId([past; 16]), 0);
    let draft = |sequence: u64| Draft {
        kind: 1,
        version: 1,
        recorded_at: 0,
        payload: Bytes::from(format!("{past} {sequence}")),
        blobs: Vec::new(),
    };
    let drafts = (2..=entries).map(draft).collect();
    block_on(journal.append(journal.tail(), drafts)).unwrap();
    journal
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn apply(state: &mut Sums, entry: &Entry) -> Result<(), ReadError> {
    state.push(entry.sequence);
    Ok(())
}

fn restored(folder: &Path, journal: &MemoryJournal) -> Restored<Sums> {
    restore(&Snapshots::new(folder.to_owned(), FORM), journal, apply).unwrap()
}

fn write(folder: &Path, journal: &MemoryJournal, sequence: u64) {
    write_as(FORM, folder, journal.entry(sequence).unwrap().tail());
}

fn write_as(form: Form, folder: &Path, tail: Tail) {
    let state: Sums = (1..=tail.sequence).collect();
    Snapshots::new(folder.to_owned(), form).write(&state, tail).unwrap();
}

/// The names of the files, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn file(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:020}.snapshot"))
}

#[test]
fn a_snapshot_at_every_entry_and_what_follows_fold_to_the_whole() {
    let journal = journal(1, 40);
    let whole: Sums = (1..=40).collect();
    for sequence in 1..=40 {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), &journal, sequence);
        let restored = restored(place.path(), &journal);
        assert_eq!(restored.snapshot.map(|tail| tail.sequence), Some(sequence));
        assert_eq!((restored.state, restored.tail, restored.lost), (whole.clone(), journal.tail(), None));
    }
}

#[test]
fn without_the_folder_everything_is_folded() {
    let place = tempfile::tempdir().unwrap();
    let restored = restored(&place.path().join("absent"), &journal(1, 5));
    assert_eq!((restored.state, restored.snapshot), ((1..=5).collect(), None));
}

#[test]
fn the_two_newest_are_kept_and_an_unfinished_one_is_no_snapshot() {
    let place = tempfile::tempdir().unwrap();
    let journal = journal(1, 40);
    for sequence in [7, 12, 30] {
        write(place.path(), &journal, sequence);
    }
    assert_eq!(files(place.path()).len(), SNAPSHOTS_KEPT);
    let unfinished = place.path().join(format!("{:020}.writing", 35));
    fs::copy(file(place.path(), 30), &unfinished).unwrap();
    assert_eq!(restored(place.path(), &journal).snapshot.map(|tail| tail.sequence), Some(30));
    write(place.path(), &journal, 40);
    assert!(!unfinished.exists());
}

#[test]
fn a_damaged_snapshot_is_put_aside_and_the_one_before_it_is_used() {
    let journal = journal(1, 20);
    for damage in ["a bit", "cut", "empty", "grown"] {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), &journal, 9);
        write(place.path(), &journal, 15);
        let mut bytes = fs::read(file(place.path(), 15)).unwrap();
        match damage {
            "a bit" => bytes[60] ^= 4,
            "cut" => bytes.truncate(70),
            "empty" => bytes.clear(),
            _ => bytes.push(0),
        }
        fs::write(file(place.path(), 15), bytes).unwrap();
        let found = restored(place.path(), &journal);
        assert_eq!(found.snapshot.map(|tail| tail.sequence), Some(9), "{damage}");
        assert_eq!((found.state, found.lost), ((1..=20).collect(), None), "{damage}");
        assert_eq!(files(place.path()), ["00000000000000000009.snapshot", "00000000000000000015.broken"]);
    }
}

#[test]
fn a_snapshot_of_another_version_is_ignored_and_left() {
    let (place, journal) = (tempfile::tempdir().unwrap(), journal(1, 20));
    write_as(Form { version: 2, ..FORM }, place.path(), journal.entry(15).unwrap().tail());
    let restored = restored(place.path(), &journal);
    assert_eq!((restored.snapshot, restored.lost), (None, None));
    assert!(file(place.path(), 15).exists());
}

#[test]
fn a_snapshot_that_knew_more_or_other_than_the_journal_is_not_used_and_shows_the_loss() {
    for (known, now) in [(journal(1, 30), journal(1, 20)), (journal(2, 15), journal(1, 20))] {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), &now, 9);
        write_as(FORM, place.path(), known.tail());
        let restored = restored(place.path(), &now);
        assert_eq!(restored.lost, Some(known.tail()));
        assert_eq!(restored.snapshot.map(|tail| tail.sequence), Some(9));
        assert_eq!(restored.state, (1..=20).collect::<Vec<_>>());
        // A restart must not make it forgotten.
        assert_eq!(self::restored(place.path(), &now).lost, None);
        let proof = Snapshots::new(place.path().to_owned(), FORM).proof_of_loss().expect("what knew more");
        assert!(proof.is_file(), "{}", proof.display());
    }
}

#[test]
fn a_folder_that_cannot_be_written_costs_an_error_and_nothing_else() {
    let (place, journal) = (tempfile::tempdir().unwrap(), journal(1, 20));
    let folder = place.path().join("file");
    fs::write(&folder, b"in the way").unwrap();
    let refused = Snapshots::new(folder.clone(), FORM).write(&vec![1_u64], journal.tail());
    assert!(refused.unwrap_err().to_string().starts_with("cannot make the folder"));
    assert_eq!(restored(&folder, &journal).state.len(), 20);
}

/// Waits, in the paused time of the test, until a snapshot of this entry is there.
async fn written(folder: &Path, sequence: u64) {
    while !file(folder, sequence).exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_is_written_after_so_many_entries_or_so_much_time() {
    let place = tempfile::tempdir().unwrap();
    let at = |sequence| Tail { sequence, ..journal_tail() };
    let (publisher, published) = watch::channel(at(10));
    let snapshots = Snapshots::new(place.path().to_owned(), FORM);
    let begun = tokio::time::Instant::now();
    let task = tokio::spawn(keep(snapshots, published, Some(at(5)), |tail| (vec![tail.sequence], *tail)));

    publisher.send_replace(at(SNAPSHOT_ENTRIES + 4));
    tokio::task::yield_now().await;
    assert!(fs::read_dir(place.path()).unwrap().next().is_none(), "not yet due");
    publisher.send_replace(at(SNAPSHOT_ENTRIES + 5));
    written(place.path(), SNAPSHOT_ENTRIES + 5).await;
    assert!(begun.elapsed().as_secs() < SNAPSHOT_PERIOD_SECONDS);

    publisher.send_replace(at(SNAPSHOT_ENTRIES + 6));
    tokio::time::sleep(std::time::Duration::from_secs(SNAPSHOT_PERIOD_SECONDS)).await;
    written(place.path(), SNAPSHOT_ENTRIES + 6).await;
    drop(publisher);
    task.await.unwrap();
}

fn journal_tail() -> Tail {
    Tail { history: HistoryId([1; 16]), sequence: 1, digest: concord_journal::Digest::ZERO }
}

/// Trims the journal behind a base with the state of this form; which entries are kept.
fn trim(form: Form, journal: &MemoryJournal, before: u64) -> Vec<u64> {
    let first_kept = journal.trim_point(before).unwrap();
    let state = state_before(form, journal, first_kept, apply).unwrap();
    let kept: Vec<u64> =
        (1..first_kept).filter(|sequence| sequence % 2 == 1 && journal.head(*sequence).is_ok()).collect();
    let prepared = journal.prepare_trim(Trim { first_kept, state: state.into(), kept: kept.clone() }).unwrap();
    block_on(journal.trim(journal.tail(), 0, prepared)).unwrap();
    kept
}

/// Every entry is a commit of its own, so that it is a place to trim at.
fn singly(entries: u64) -> MemoryJournal {
    let journal = MemoryJournal::new(HistoryId([1; 16]), 0);
    for sequence in 2..=entries {
        let draft = Draft {
            kind: 1,
            version: 1,
            recorded_at: 0,
            payload: Bytes::from(format!("{sequence}")),
            blobs: Vec::new(),
        };
        block_on(journal.append(journal.tail(), vec![draft])).unwrap();
    }
    journal
}

#[test]
fn a_trimmed_journal_is_folded_from_its_base_and_a_base_of_another_version_from_what_is_kept() {
    let place = tempfile::tempdir().unwrap();
    let journal = singly(12);
    trim(FORM, &journal, 7);
    let restored_now = || restored(place.path(), &journal);
    assert_eq!((restored_now().state, restored_now().tail), ((1..=13).collect(), journal.tail()));
    // The next one begins with the base of this one.
    trim(FORM, &journal, 10);
    assert_eq!((restored_now().state, restored_now().snapshot), ((1..=14).collect(), None));
    // An older snapshot is not used, a newer one is, and neither is a loss.
    write_as(FORM, place.path(), Tail { sequence: 5, ..journal.tail() });
    assert_eq!((restored_now().snapshot, restored_now().lost), (None, None));
    write(place.path(), &journal, 11);
    assert_eq!(restored_now().snapshot.map(|tail| tail.sequence), Some(11));

    let place = tempfile::tempdir().unwrap();
    let journal = singly(12);
    let kept = trim(Form { version: 2, ..FORM }, &journal, 7);
    assert_eq!(kept, [1, 3, 5]);
    assert_eq!(restored(place.path(), &journal).state, [1, 3, 5, 7, 8, 9, 10, 11, 12, 13]);
}
