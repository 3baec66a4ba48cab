//! What happens beside a trim, or in its place: readers miss nothing, and a trim that was refused does not come later.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use concord_journal::conformance::draft;
use concord_journal::hooked::{AppendHook, HookedJournal};
use concord_journal::{
    AppendError, Committed, Disk, DiskFile, Draft, FileJournal, Journal, MemoryJournal, Tail, Trim, verify,
};
use futures::future::BoxFuture;
use support::{FIRST_HISTORY, FullDisk, MemoryDisk, NEXT_HISTORY, append, block_on, everything, open};

/// Trims between a reader's question what was kept and its next one.
#[derive(Default)]
struct TrimsMeanwhile(AtomicBool);

impl AppendHook for TrimsMeanwhile {
    fn append(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        batch: Vec<Draft>,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        inner.append(expected, batch)
    }

    fn kept_from(&self, inner: &MemoryJournal, from: u64) -> Option<u64> {
        let found = inner.kept_from(from);
        if !self.0.swap(true, Ordering::SeqCst) {
            let prepared =
                inner.prepare_trim(Trim { first_kept: 6, state: "s".into(), kept: (1..6).collect() }).unwrap();
            block_on(inner.trim(inner.tail(), 7, prepared)).unwrap();
        }
        found
    }
}

#[test]
fn a_trim_between_two_questions_of_a_recall_hides_nothing_that_it_kept() {
    let inner = MemoryJournal::new(FIRST_HISTORY, 5);
    (0..9).for_each(|seed| drop(append(&inner, vec![draft(seed, 10, 1)])));
    let journal = HookedJournal { inner, hook: TrimsMeanwhile::default() };
    let recalled: Vec<u64> = journal.recall(2, 100).unwrap().iter().map(|entry| entry.sequence).collect();
    assert_eq!(journal.first_sequence(), 6);
    assert_eq!(recalled, (2..=11).collect::<Vec<_>>());
}

fn filled(disk: &Arc<dyn Disk>) -> FileJournal {
    let (journal, _) = open(disk, FIRST_HISTORY).unwrap();
    (0..24).for_each(|seed| drop(append(&journal, vec![draft(seed, 500, 2)])));
    journal
}

/// A disk that is another one from the first time on that a segment is opened.
struct Turning(Mutex<Vec<MemoryDisk>>);

impl Turning {
    fn now(&self) -> Arc<dyn Disk> {
        self.0.lock().unwrap().last().unwrap().clone().into_disk()
    }
}

impl Disk for Turning {
    fn open_read(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if name.ends_with(".segment") {
            self.0.lock().unwrap().truncate(1);
        }
        self.now().open_read(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.now().list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.now().create(name)
    }

    fn open_append(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.now().open_append(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.now().remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.now().sync_directory()
    }

    fn available_bytes(&self) -> io::Result<u64> {
        self.now().available_bytes()
    }
}

#[test]
fn who_verifies_while_a_base_is_written_and_the_segments_then_go_begins_again_behind_it() {
    let disk = MemoryDisk::default();
    let journal = filled(&disk.clone().into_disk());
    let mut writing = disk.everything();
    let first_kept = journal.trim_point(15).unwrap();
    let prepared = journal.prepare_trim(Trim { first_kept, state: "s".into(), kept: vec![] }).unwrap();
    let (name, mut half) = disk.everything().into_iter().find(|(name, _)| name.ends_with(".base")).unwrap();
    half.truncate(half.len() / 2);
    writing.push((name, half));
    block_on(journal.trim(journal.tail(), 7, prepared)).unwrap();
    journal.close();
    let turning = Turning(Mutex::new(vec![disk, MemoryDisk::new(&writing)]));
    let verified = verify(Arc::new(turning)).unwrap();
    assert_eq!((verified.first, verified.tail), (first_kept, Some(journal.tail())));
}

#[test]
fn a_trim_that_had_no_room_leaves_nothing_that_a_later_start_would_go_by() {
    let real = MemoryDisk::default();
    let room = Arc::new(AtomicUsize::new(usize::MAX / 2));
    let inner = real.clone().into_disk();
    let disk: Arc<dyn Disk> =
        Arc::new(FullDisk { inner, room: Arc::clone(&room), names_take_room: true, takes_back: true });
    let journal = filled(&disk);
    let (before, files) = (everything(&journal), real.contents());
    let prepare = |journal: &FileJournal| {
        let first_kept = journal.trim_point(15).unwrap();
        journal.prepare_trim(Trim { first_kept, state: "s".into(), kept: vec![2] }).unwrap()
    };
    let prepared = prepare(&journal);
    room.store(0, Ordering::SeqCst);
    let refused = block_on(journal.trim(journal.tail(), 7, prepared.clone()));
    assert!(matches!(refused, Err(AppendError::NoRoom { .. })), "{refused:?}");
    assert!(real.contents() == files, "nothing is left behind");
    room.store(usize::MAX / 2, Ordering::SeqCst);
    let late = block_on(journal.trim(journal.tail(), 7, prepared));
    assert!(matches!(late, Err(AppendError::NotTrimmable { .. })), "{late:?}");
    drop(journal);
    let (journal, _) = open(&disk, NEXT_HISTORY).unwrap();
    assert_eq!((journal.first_sequence(), everything(&journal)), (1, before));
    let prepared = prepare(&journal);
    block_on(journal.trim(journal.tail(), 7, prepared)).unwrap();
    assert_eq!(journal.base().unwrap().unwrap().kept, [1, 2]);
}
