//! A full disk: nothing of the refused batch is there, and the journal goes on once there is room.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use concord_journal::conformance::draft;
use concord_journal::{AppendError, Disk, Draft, FileJournal, Journal, RealDisk, verify};
use support::{FIRST_HISTORY, FullDisk, MemoryDisk, NEXT_HISTORY, append, block_on, everything, open, segments};

fn full(real: &MemoryDisk, room: usize, names_take_room: bool, takes_back: bool) -> (Arc<dyn Disk>, Arc<AtomicUsize>) {
    let room = Arc::new(AtomicUsize::new(room));
    let inner = real.clone().into_disk();
    (Arc::new(FullDisk { inner, room: Arc::clone(&room), names_take_room, takes_back }), room)
}

fn try_append(journal: &FileJournal, batch: Vec<Draft>) -> Result<u64, AppendError> {
    block_on(journal.append(journal.tail(), batch)).map(|committed| committed.tail.sequence)
}

#[test]
fn a_full_disk_refuses_the_whole_batch_at_every_byte_and_goes_on_when_there_is_room() {
    let batch = || vec![draft(3, 500, 1), draft(4, 300, 2)];
    let size: usize = batch().iter().map(|draft| usize::try_from(draft.size_bytes()).unwrap()).sum();
    // The first 1,500 bytes fill a segment, so that the batch begins the next one.
    for (before, begins_segment) in [(100, false), (2000, true)] {
        for names_take_room in [false, true] {
            let header = if begins_segment { 60 } else { 0 };
            for room in 0..size + header {
                let real = MemoryDisk::default();
                let (disk, left) = full(&real, usize::MAX / 2, names_take_room, true);
                let (journal, _) = open(&disk, FIRST_HISTORY).unwrap();
                append(&journal, vec![draft(1, before, 1)]);
                let (contents, tail) = (real.contents(), journal.tail());
                left.store(room, Ordering::SeqCst);
                assert_eq!(journal.available_bytes().unwrap(), room as u64);
                match try_append(&journal, batch()) {
                    Err(AppendError::NoRoom { size: wanted, .. }) => assert_eq!(wanted, (size + header) as u64),
                    other => panic!("{room} bytes: {other:?}"),
                }
                assert_eq!((journal.tail(), real.contents()), (tail, contents), "nothing is left behind");
                left.store(usize::MAX / 2, Ordering::SeqCst);
                assert_eq!(try_append(&journal, batch()), Ok(4));
                let written = everything(&journal);
                drop(journal);
                let (journal, opened) = open(&real.clone().into_disk(), NEXT_HISTORY).unwrap();
                assert_eq!((opened.cut, everything(&journal)), (None, written));
                assert_eq!(segments(&real).len(), if begins_segment { 2 } else { 1 });
            }
        }
    }
}

#[test]
fn what_cannot_be_taken_back_has_an_unknown_outcome() {
    for before in [100, 2000] {
        let real = MemoryDisk::default();
        let (disk, left) = full(&real, usize::MAX / 2, false, false);
        let (journal, _) = open(&disk, FIRST_HISTORY).unwrap();
        append(&journal, vec![draft(1, before, 1)]);
        left.store(200, Ordering::SeqCst);
        let refused = try_append(&journal, vec![draft(2, 500, 0)]);
        assert!(matches!(refused, Err(AppendError::OutcomeUnknown { .. })), "{refused:?}");
        left.store(usize::MAX / 2, Ordering::SeqCst);
        let late = try_append(&journal, vec![draft(2, 5, 0)]);
        assert!(matches!(late, Err(AppendError::OutcomeUnknown { .. })), "nothing follows it: {late:?}");
        drop(journal);
        let (journal, opened) = open(&real.into_disk(), NEXT_HISTORY).unwrap();
        assert_eq!((opened.cut.is_some(), everything(&journal).len()), (true, 3));
    }
}

#[test]
fn a_journal_that_has_no_room_to_begin_says_so_and_begins_later() {
    let real = MemoryDisk::default();
    let (disk, left) = full(&real, 100, false, true);
    let refused = open(&disk, FIRST_HISTORY).err().map(|error| error.to_string()).unwrap();
    assert!(refused.contains("no room"), "{refused}");
    left.store(usize::MAX / 2, Ordering::SeqCst);
    assert!(open(&disk, FIRST_HISTORY).unwrap().1.created);
    assert_eq!(verify(disk).unwrap().entries, 1);
}

#[test]
fn the_real_disk_tells_how_much_room_there_is() {
    let folder = tempfile::tempdir().unwrap();
    assert!(RealDisk::open(folder.path()).unwrap().available_bytes().unwrap() > 0);
}
