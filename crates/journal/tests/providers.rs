//! Both providers keep the contract; the file provider keeps it over restarts, faults and rotation.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use concord_journal::conformance::{check_provider, draft};
use concord_journal::{AppendError, Disk, FileJournal, HistoryId, Journal, MemoryJournal, RealDisk, verify};
use proptest::prelude::*;
use support::{
    FIRST_HISTORY, FaultyDisk, MemoryDisk, NEXT_HISTORY, append, block_on, everything, fill, open, options,
    segments,
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
        Arc::new(
            FileJournal::open_folder(&name, &options(FIRST_HISTORY))
                .unwrap()
                .0,
        )
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
    assert_eq!(
        (tail.history, tail.sequence),
        (FIRST_HISTORY, before.len() as u64 + 1)
    );
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
                assert_eq!(
                    failed,
                    matches!(late, Err(AppendError::OutcomeUnknown { .. })),
                    "{late:?}"
                );
            }
            let (journal, _) = open(&real, NEXT_HISTORY).unwrap();
            let now = everything(&journal);
            assert_eq!(now.get(..acknowledged.len()), Some(acknowledged.as_slice()));
            append(&journal, vec![draft(8, 1, 0)]);
            journal.close();
            assert_eq!(verify(real).unwrap().unfinished, None);
            if switch.operations.load(Ordering::SeqCst) <= fail_from {
                assert!(
                    fail_from > 15,
                    "the table covers every operation, not only {fail_from}"
                );
                break;
            }
        }
    }
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
