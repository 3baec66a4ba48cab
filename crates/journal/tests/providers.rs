//! Both providers keep the contract; the file provider keeps it over restarts, faults and rotation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use concord_journal::conformance::{check_provider, draft};
use concord_journal::{AppendError, Disk, DiskFile, FileJournal, HistoryId, Journal, MemoryJournal, RealDisk, verify};
use proptest::prelude::*;
use support::{
    FIRST_HISTORY, FaultyDisk, MemoryDisk, NEXT_HISTORY, append, block_on, everything, fill, open, options, segments,
};

#[tokio::test]
async fn the_memory_provider_keeps_the_contract() {
    check_provider(|| Arc::new(MemoryJournal::new(FIRST_HISTORY, 5))).await;
}

#[tokio::test]
async fn the_file_provider_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    check_provider(|| {
        count.set(count.get() + 1);
        let name = folder.path().join("nested").join(count.get().to_string());
        Arc::new(FileJournal::open_folder(&name, &options(FIRST_HISTORY)).unwrap().0)
    })
    .await;
    assert!(count.get() > 5);
}

#[test]
fn both_providers_give_the_same_digests() {
    let memory = MemoryJournal::new(FIRST_HISTORY, options(FIRST_HISTORY).now);
    let disk = MemoryDisk::default().into_disk();
    let (file, _) = open(&disk, FIRST_HISTORY).unwrap();
    for seed in 0..5 {
        let batch = vec![draft(seed, 300, 2), draft(seed, 10, 0)];
        assert_eq!(append(&memory, batch.clone()), append(&file, batch));
    }
    assert_eq!(everything(&memory), everything(&file));
}

#[test]
fn a_journal_opens_again_as_it_was_closed_and_has_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
    let before = fill(&disk);
    assert_eq!(segments(disk.as_ref()).len(), 3, "{:?}", segments(disk.as_ref()));
    let (journal, opened) = open(&disk, NEXT_HISTORY).unwrap();
    assert_eq!((opened.created, opened.cut), (false, None));
    assert_eq!(everything(&journal), before);
    let tail = append(&journal, vec![draft(8, 5, 1)]).tail;
    assert_eq!((tail.history, tail.sequence), (FIRST_HISTORY, before.len() as u64 + 1));
}

#[test]
fn a_closed_journal_refuses_and_still_reads() {
    let disk = MemoryDisk::default().into_disk();
    let (journal, opened) = open(&disk, FIRST_HISTORY).unwrap();
    assert!(opened.created);
    append(&journal, vec![draft(1, 1, 1)]);
    journal.close();
    let refused = block_on(journal.append(journal.tail(), vec![draft(1, 1, 1)]));
    assert_eq!(refused, Err(AppendError::Closed));
    assert_eq!(everything(&journal).len(), 2);
}

/// The table over every changing operation of a life: it fails as "not persisted" and as "persisted but errored".
#[test]
fn whatever_operation_fails_nothing_acknowledged_is_lost_and_nothing_follows_the_failure() {
    for does_it in [false, true] {
        for fail_from in 0.. {
            let real = MemoryDisk::default().into_disk();
            let (disk, switch) = FaultyDisk::wrap(&real, fail_from, does_it);
            let mut acknowledged = Vec::new();
            let mut failed = false;
            if let Ok((journal, _)) = open(&disk, FIRST_HISTORY) {
                for seed in 0..6 {
                    match block_on(journal.append(journal.tail(), vec![draft(seed, 500, 1)])) {
                        Ok(_) => assert!(!failed, "nothing may follow a failure"),
                        Err(AppendError::OutcomeUnknown { .. }) => failed = true,
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged = everything(&journal);
                switch.fail_from.store(usize::MAX, Ordering::SeqCst);
                let late = block_on(journal.append(journal.tail(), vec![draft(9, 1, 0)]));
                assert_eq!(failed, matches!(late, Err(AppendError::OutcomeUnknown { .. })), "{late:?}");
            }
            let (journal, _) = open(&real, NEXT_HISTORY).unwrap();
            let now = everything(&journal);
            assert_eq!(now.get(..acknowledged.len()), Some(acknowledged.as_slice()));
            append(&journal, vec![draft(8, 1, 0)]);
            journal.close();
            assert_eq!(verify(real).unwrap().unfinished, None);
            if switch.operations.load(Ordering::SeqCst) <= fail_from {
                assert!(fail_from > 15, "the table covers every operation, not only {fail_from}");
                break;
            }
        }
    }
}

/// The order of writes and syncs is what durability rests on.
#[test]
fn a_commit_is_one_write_and_one_sync_and_a_cut_is_marked_before_it_is_made() {
    let real = MemoryDisk::default();
    let (disk, switch) = FaultyDisk::wrap(&real.clone().into_disk(), usize::MAX, false);
    let (journal, _) = open(&disk, FIRST_HISTORY).unwrap();
    assert_eq!(switch.take_log(), ["create", "append", "sync_data", "sync_directory"]);
    append(&journal, vec![draft(1, 2000, 3), draft(2, 1, 0), draft(3, 1, 0)]);
    assert_eq!(switch.take_log(), ["append", "sync_data"]);
    append(&journal, vec![draft(4, 1, 3)]);
    drop(journal);
    let seal = ["remove", "create", "append"];
    let rotation = ["create", "append", "sync_data", "sync_directory"];
    assert_eq!(
        switch.take_log(),
        [&rotation[..], &seal].concat(),
        "a seal is a cache: after the commit, and not synced"
    );
    drop(open(&disk, NEXT_HISTORY).unwrap());
    let again = ["overwrite", "sync_data", "sync_directory"];
    assert_eq!(switch.take_log(), again, "a killed process may have left it unsynced, or its sync have failed");

    append(&open(&disk, NEXT_HISTORY).unwrap().0, vec![draft(5, 1, 3)]);
    let mut contents = real.contents();
    contents[1].1.pop();
    let (disk, switch) = FaultyDisk::wrap(&MemoryDisk::new(&contents).into_disk(), usize::MAX, false);
    drop(open(&disk, NEXT_HISTORY).unwrap());
    let mark = ["create", "sync_directory"];
    let cut = ["sync_directory", "truncate", "sync_data"];
    let begin = ["overwrite", "sync_data", "sync_directory", "append", "sync_data"];
    let unmark = ["remove", "sync_directory"];
    assert_eq!(switch.take_log(), [&mark[..], &cut, &begin, &unmark, &seal].concat());
}

#[test]
fn readers_and_verify_beside_the_writer_see_only_whole_published_entries() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
    let journal = Arc::new(open(&disk, FIRST_HISTORY).unwrap().0);
    let reader = {
        let (journal, disk) = (Arc::clone(&journal), Arc::clone(&disk));
        std::thread::spawn(move || {
            let (mut rounds, mut seen) = (0, 0);
            while seen < 301 {
                let tail = journal.tail();
                let last = journal.read(tail.sequence, 1).unwrap().pop().unwrap();
                assert_eq!(last.tail(), tail);
                assert!(journal.entry(tail.sequence).is_ok());
                let verified = verify(Arc::clone(&disk)).unwrap();
                assert!(verified.entries >= tail.sequence, "{verified:?} beside {tail:?}");
                (rounds, seen) = (rounds + 1, tail.sequence);
            }
            rounds
        })
    };
    for seed in 0..150 {
        append(journal.as_ref(), vec![draft(seed, 300, 3), draft(seed, 3, 0)]);
    }
    assert!(reader.join().unwrap() > 1);
}

/// A disk that shows the first bytes of a finished journal, and from the n-th question for a length or for the names
/// on some more: as if a writer had been at work just then.
struct RevealingDisk {
    contents: Vec<(String, Vec<u8>)>,
    progress: Arc<Progress>,
}

struct Progress {
    shown: usize,
    shown_later: usize,
    questions_before: AtomicUsize,
}

impl Progress {
    fn ask(&self) -> usize {
        let left = self.questions_before.load(Ordering::SeqCst);
        self.questions_before.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 0 { self.shown_later } else { self.shown }
    }
}

impl RevealingDisk {
    fn start(&self, name: &str) -> usize {
        self.contents.iter().take_while(|(other, _)| other != name).map(|(_, bytes)| bytes.len()).sum()
    }
}

struct RevealingFile {
    whole: Arc<dyn DiskFile>,
    start: usize,
    progress: Arc<Progress>,
}

impl Disk for RevealingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let revealed = self.progress.ask();
        let names = self.contents.iter().map(|(name, _)| name.clone());
        Ok(names.filter(|name| self.start(name) <= revealed).collect())
    }
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let whole = MemoryDisk::new(&self.contents).open_read(name)?;
        let (start, progress) = (self.start(name), Arc::clone(&self.progress));
        Ok(Arc::new(RevealingFile { whole, start, progress }))
    }
    fn open_append(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_directory(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn available_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl DiskFile for RevealingFile {
    fn length(&self) -> io::Result<u64> {
        let revealed = self.progress.ask();
        Ok(self.whole.length()?.min(revealed.saturating_sub(self.start) as u64))
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.whole.read_at(offset, buffer)
    }
    fn append(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn overwrite(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn verify_never_takes_a_writer_at_work_for_damage() {
    let disk = MemoryDisk::default();
    let entries = fill(&disk.clone().into_disk());
    let contents = disk.contents();
    let total: usize = contents.iter().map(|(_, bytes)| bytes.len()).sum();
    for shown in 0..=total {
        for questions_before in 0..14 {
            for more in [1, 700, total] {
                let questions_before = AtomicUsize::new(questions_before);
                let progress = Progress { shown, shown_later: total.min(shown + more), questions_before };
                let progress = Arc::new(progress);
                let revealing = RevealingDisk { contents: contents.clone(), progress: Arc::clone(&progress) };
                match verify(Arc::new(revealing)) {
                    Ok(verified) => {
                        let last = usize::try_from(verified.entries).unwrap().checked_sub(1);
                        assert_eq!(verified.tail, last.map(|last| entries[last].tail()));
                    }
                    Err(error) => panic!("{shown} bytes, then {}: {error}", progress.shown_later),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_batches_are_there_after_reopening(
        batches in prop::collection::vec(
            prop::collection::vec((any::<u8>(), 0usize..3000, 0usize..6), 1..5), 1..12),
        reopen_every in 1usize..5,
    ) {
        let disk = MemoryDisk::default().into_disk();
        let memory = MemoryJournal::new(FIRST_HISTORY, options(FIRST_HISTORY).now);
        let mut journal = open(&disk, FIRST_HISTORY).unwrap().0;
        for (number, batch) in batches.iter().enumerate() {
            let batch: Vec<_> = batch.iter().map(|(seed, payload, blobs)| draft(*seed, *payload, *blobs)).collect();
            prop_assert_eq!(append(&memory, batch.clone()), append(&journal, batch));
            if number % reopen_every == 0 {
                drop(journal);
                let opened = open(&disk, HistoryId([number as u8; 16])).unwrap();
                prop_assert_eq!(&opened.1.cut, &None);
                journal = opened.0;
            }
        }
        prop_assert_eq!(everything(&journal), everything(&memory));
        let verified = verify(disk).unwrap();
        prop_assert_eq!(verified.tail, Some(memory.tail()));
    }
}
