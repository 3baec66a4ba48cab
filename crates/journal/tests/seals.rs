//! Seals spare an open the reading of full segments, and never change what it finds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use concord_journal::conformance::draft;
use concord_journal::{
    Disk, Entry, FileJournal, FrameMark, Journal, OpenError, OpenOptions, Opened, ReadError, SCRUB_STEP_SIZE_BYTES,
    VerifyError, verify,
};
use support::{CountingDisk, FIRST_HISTORY, MemoryDisk, NEXT_HISTORY, append, everything, fill, open, segments};

type Files = Vec<(String, Vec<u8>)>;

/// Three segments, two seals.
fn sealed() -> (Files, Vec<Entry>) {
    let disk = MemoryDisk::default();
    let entries = fill(&disk.clone().into_disk());
    assert_eq!(seals(&disk.everything()).count(), 2);
    (disk.everything(), entries)
}

fn seals(files: &Files) -> impl Iterator<Item = &(String, Vec<u8>)> {
    files.iter().filter(|(name, _)| name.ends_with(".seal"))
}

fn without_seals(files: &Files) -> Files {
    files.iter().filter(|(name, _)| !name.ends_with(".seal")).cloned().collect()
}

fn file<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(other, _)| other == name).unwrap().1
}

/// What an open comes to: the entries and what it found, or why not.
fn outcome(files: &Files) -> Result<(Opened, Vec<Entry>), String> {
    let opened = open(&MemoryDisk::new(files).into_disk(), NEXT_HISTORY);
    opened.map(|(journal, opened)| (opened, everything(&journal))).map_err(|error| error.to_string())
}

#[test]
fn an_open_reads_no_more_of_a_sealed_segment_than_its_header() {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap();
    (0..40).for_each(|seed| drop(append(&journal, vec![draft(seed, 1400, 2)])));
    let entries = everything(&journal);
    drop(journal);
    let full = segments(&disk).len() as u64 - 1;
    assert!(full > 20);
    for (files, sealed) in [(disk.everything(), true), (disk.contents(), false)] {
        let read = Arc::new(AtomicU64::new(0));
        let counting: Arc<dyn Disk> =
            Arc::new(CountingDisk { inner: MemoryDisk::new(&files).into_disk(), read: Arc::clone(&read) });
        let (journal, _) = open(&counting, NEXT_HISTORY).unwrap();
        let read = read.load(Ordering::SeqCst);
        let whole: usize = disk.contents().iter().map(|(_, bytes)| bytes.len()).sum();
        // Seal, own header and the next one's, for each full one; the last segment in whole.
        let bound = full * (300 + 2 * 60) + 3000;
        assert_eq!(read < bound, sealed, "{read} bytes of {whole}");
        assert_eq!(everything(&journal), entries);
    }
}

#[test]
fn a_seal_that_is_damaged_torn_or_gone_is_written_again_from_a_scan() {
    let (files, entries) = sealed();
    let first = seals(&files).next().unwrap().clone();
    let spoilt = (0..first.1.len()).map(|length| Some(first.1[..length].to_vec()));
    let flipped = (0..first.1.len() * 8).step_by(5).map(|bit| {
        let mut bytes = first.1.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Some(bytes)
    });
    for bytes in spoilt.chain(flipped).chain([None, Some(vec![0; first.1.len()])]) {
        let mut spoilt = files.clone();
        match bytes {
            Some(bytes) => *file(&mut spoilt, &first.0) = bytes,
            None => spoilt.retain(|(name, _)| *name != first.0),
        }
        let disk = MemoryDisk::new(&spoilt);
        let (journal, opened) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
        assert_eq!((opened.cut, everything(&journal)), (None, entries.clone()));
        assert_eq!(disk.everything(), files, "the seal is there again as it was");
    }
}

/// Whatever happens to the last segment: the same is cut, or the open is refused for the same reason.
#[test]
fn with_and_without_seals_damage_of_the_last_segment_comes_to_the_same() {
    let (files, _) = sealed();
    let last = segments(&MemoryDisk::new(&files)).pop().unwrap();
    let length = files.iter().find(|(name, _)| *name == last).unwrap().1.len();
    let mut cuts = 0;
    for damage in 0..length * 2 {
        let mut damaged = files.clone();
        let bytes = file(&mut damaged, &last);
        if damage < length {
            bytes.truncate(damage);
        } else {
            bytes[damage - length] ^= 0x20;
        }
        let with = outcome(&damaged);
        assert_eq!(with, outcome(&without_seals(&damaged)), "{damage} of {length}");
        cuts += usize::from(with.is_ok_and(|(opened, _)| opened.cut.is_some()));
    }
    assert!(cuts > length, "{cuts}");
}

/// The end of a full segment is cut and replaced by as many entries in as many bytes: a seal from before it fits by length,
/// by header and by count, and only the digest that the next segment follows tells it.
#[test]
fn a_seal_from_before_a_cut_is_not_trusted() {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap();
    append(&journal, vec![draft(1, 100, 0)]);
    append(&journal, vec![draft(2, 600, 0), draft(3, 700, 0)]);
    append(&journal, vec![draft(4, 10, 0)]);
    let kept = everything(&journal)[..2].to_vec();
    drop(journal);
    let (old, names) = (disk.everything(), segments(&disk));
    assert_eq!(names.len(), 2);
    let stale = seals(&old).next().unwrap().clone();
    // Only the first segment is left, and its last commit is damaged from its first entry on: both entries are cut.
    let mut damaged = vec![disk.contents()[0].clone()];
    let length = damaged[0].1.len();
    let commit = length - [600, 700].map(|payload| 132 + payload).iter().sum::<usize>();
    damaged[0].1[commit + 50] ^= 1;
    let disk = MemoryDisk::new(&damaged);
    let (journal, opened) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    assert_eq!((opened.cut.map(|cut| cut.offset), journal.tail().sequence), (Some(commit as u64), 3));
    append(&journal, vec![draft(7, length - disk.contents()[0].1.len() - 132, 0)]);
    append(&journal, vec![draft(8, 10, 0)]);
    let new = everything(&journal);
    drop(journal);
    assert_eq!((segments(&disk), disk.contents()[0].1.len(), &new[..2]), (names, length, &kept[..]));
    let mut files = disk.everything();
    let fresh = std::mem::replace(file(&mut files, &stale.0), stale.1.clone());
    assert_ne!(fresh, stale.1);
    let (opened, read) = outcome(&files).unwrap();
    assert_eq!((opened.cut, read), (None, new));
}

#[test]
fn a_full_segment_of_another_length_or_missing_stops_the_open_all_the_same() {
    let (files, _) = sealed();
    for name in &segments(&MemoryDisk::new(&files))[..2] {
        let mut missing = files.clone();
        missing.retain(|(other, _)| other != name);
        assert!(outcome(&missing).unwrap_err().contains("a file is missing"));
        for change in [-1_isize, 1] {
            let mut damaged = files.clone();
            let bytes = file(&mut damaged, name);
            bytes.resize(bytes.len().saturating_add_signed(change), 0);
            assert!(outcome(&damaged).unwrap_err().contains(name.as_str()));
        }
    }
}

/// What an open no longer reads is found by the read of that entry, by verify and by a scrub, each naming the place.
#[test]
fn damage_in_a_sealed_segment_is_found_by_read_verify_and_scrub() {
    let (files, entries) = sealed();
    let name = segments(&MemoryDisk::new(&files))[0].clone();
    let length = files.iter().find(|(other, _)| *other == name).unwrap().1.len();
    for byte in 60..length {
        let mut damaged = files.clone();
        file(&mut damaged, &name)[byte] ^= 1;
        let disk = MemoryDisk::new(&damaged).into_disk();
        let (journal, opened) = open(&disk, NEXT_HISTORY).unwrap();
        assert_eq!(opened.cut, None);
        let found = match verify(Arc::clone(&disk)) {
            Err(VerifyError::Damaged { damage, next_open_cuts: false }) => damage,
            other => panic!("byte {byte}: {other:?}"),
        };
        match journal.scrub(|_| ControlFlow::Continue(())) {
            Err(VerifyError::Damaged { damage, .. }) => assert_eq!(damage, found),
            other => panic!("byte {byte}: {other:?}"),
        }
        for entry in &entries {
            match journal.entry(entry.sequence) {
                Ok(read) => assert_eq!(read, *entry),
                Err(ReadError::Damaged { sequence, offset, file, .. }) => {
                    assert_eq!((sequence, &file, offset), (found.sequence, &name, found.offset));
                }
                Err(error) => panic!("byte {byte}: {error}"),
            }
        }
        append(&journal, vec![draft(1, 1, 1)]);
    }
}

#[test]
fn a_scrub_pauses_after_each_step_and_can_be_broken_off() {
    let disk = MemoryDisk::default().into_disk();
    let (journal, _) = open(&disk, FIRST_HISTORY).unwrap();
    let step = usize::try_from(SCRUB_STEP_SIZE_BYTES).unwrap();
    (0..3).for_each(|seed| drop(append(&journal, vec![draft(seed, step, 0)])));
    let mut told = Vec::new();
    let verified = journal.scrub(|bytes| {
        told.push(bytes);
        ControlFlow::Continue(())
    });
    let verified = verified.unwrap().unwrap();
    assert_eq!(verified, verify(disk).unwrap());
    assert_eq!((verified.tail, told.len()), (Some(journal.tail()), 3));
    assert_eq!(journal.scrub(|_| ControlFlow::Break(())).unwrap(), None);
}

#[test]
fn seals_that_fit_nothing_are_removed() {
    let (mut files, entries) = sealed();
    let (name, bytes) = seals(&files).next().unwrap().clone();
    let last = segments(&MemoryDisk::new(&files)).pop().unwrap().replace(".segment", ".seal");
    files.push((last, bytes.clone()));
    files.push((format!("{:020}.seal", 999), bytes));
    let disk = MemoryDisk::new(&files);
    let (journal, _): (FileJournal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    assert_eq!(everything(&journal), entries);
    let left = disk.everything();
    assert_eq!(seals(&left).count(), 2);
    assert!(seals(&left).any(|(left, _)| *left == name));
    assert!(!matches!(open(&disk.into_disk(), NEXT_HISTORY), Err(OpenError::Damaged(_))));
}

/// A figure, not a check: `cargo test --release -p concord-journal --test seals -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement that writes a GiB"]
fn how_long_a_gibibyte_takes_to_open() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions::new(1, FIRST_HISTORY, FrameMark([1; 8]));
    let options = OpenOptions { segment_size_max_bytes: 64 * 1024 * 1024, ..options };
    let (journal, _) = FileJournal::open_folder(folder.path(), &options).unwrap();
    while journal.tail().sequence < 500_000 {
        append(&journal, (0..1000).map(|_| draft(1, 1800, 1)).collect());
    }
    journal.close();
    drop(journal);
    let bytes: u64 =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    for seals in [true, false, true] {
        if !seals {
            for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
                if file.path().extension().is_some_and(|extension| extension == "seal") {
                    std::fs::remove_file(file.path()).unwrap();
                }
            }
        }
        let begun = std::time::Instant::now();
        let (journal, opened) = FileJournal::open_folder(folder.path(), &options).unwrap();
        println!("{} MiB, seals: {seals}: open in {:?}", bytes >> 20, begun.elapsed());
        assert_eq!((opened.cut, journal.tail().sequence), (None, 500_001));
    }
}
