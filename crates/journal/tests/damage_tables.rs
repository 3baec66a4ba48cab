//! A journal of 64 KiB under every damage that a disk makes: found and named, and never a wrong record served.
//!
//! Flips, truncations and pairs go in steps, so that each run takes some of them; with `CONCORD_BATTERY_ALL=1` they go
//! one by one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use concord_journal::conformance::draft;
use concord_journal::{Entry, FileJournal, Journal, OpenError, ReadError, VerifyError, verify, walk};
use support::{FIRST_HISTORY, MemoryDisk, NEXT_HISTORY, append, everything, open, segments};

/// One of so many flips is also opened and read.
const FLIPS_TO_AN_OPEN: usize = 8;
const FILE_HEADER_BYTES: usize = 60;
const FRAME_HEAD_BYTES: usize = 132;

type Files = Vec<(String, Vec<u8>)>;

/// A whole journal, and where each entry stands: file, offset, length.
struct Whole {
    files: Files,
    entries: Vec<Entry>,
    places: Vec<(usize, usize, usize)>,
    sealed: Files,
}

impl Whole {
    fn new() -> Whole {
        let disk = MemoryDisk::default();
        let (journal, _) = open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap();
        for seed in 0.. {
            if disk.contents().iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= 64 * 1024 {
                break;
            }
            append(&journal, vec![draft(seed, 350, 2), draft(seed, 100 + usize::from(seed), 3)]);
        }
        let (entries, files, sealed) = (everything(&journal), disk.contents(), disk.everything());
        let mut places = Vec::new();
        for (file, (_, bytes)) in files.iter().enumerate() {
            let mut offset = FILE_HEADER_BYTES;
            while offset < bytes.len() {
                let length = u32::from_le_bytes(bytes[offset + 12..offset + 16].try_into().unwrap()) as usize;
                places.push((file, offset, length));
                offset += length;
            }
        }
        assert_eq!(places.len(), entries.len());
        Whole { files, entries, places, sealed }
    }

    /// Whether damage from this entry on is the last commit's: no whole frame of a later one follows it.
    fn is_last(&self, from: u64) -> bool {
        from >= self.entries.last().unwrap().commit_first
    }

    /// The sequence of the entry in which, or in the header before which, this byte is.
    fn entry_at(&self, file: usize, byte: usize) -> u64 {
        let found = self.places.iter().position(|place| place.0 == file && byte < place.1 + place.2);
        found.map_or(self.entries.len() as u64, |index| index as u64 + 1)
    }

    /// The damage that begins in entry `from` is found, named there, and nothing wrong is served.
    fn check(&self, damaged: &Files, from: u64, is_last: bool, what: &str) {
        let disk = MemoryDisk::new(damaged).into_disk();
        let served: Vec<Entry> = walk(Arc::clone(&disk), true).unwrap().map_while(Result::ok).collect();
        assert!(self.entries.starts_with(&served), "something wrong was served: {what}");
        assert_eq!(served.len() as u64, from - 1, "{what}");
        match verify(Arc::clone(&disk)) {
            Err(VerifyError::Damaged { damage, next_open_cuts }) => {
                assert_eq!((damage.sequence, next_open_cuts), (from, is_last), "{what}: {damage}");
                let place = self.places[usize::try_from(from).unwrap() - 1];
                assert!(damage.file == self.files[place.0].0, "{what}: {damage}");
                assert!(damage.offset == 0 || damage.offset == place.1 as u64, "{what}: {damage}");
            }
            Ok(verified) => {
                let unfinished = verified.unfinished.unwrap_or_else(|| panic!("nothing was found: {what}"));
                assert!(is_last, "{what}: {unfinished:?}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// An open refuses and names it, or cuts it where it is the last commit's.
    fn check_open(&self, damaged: &Files, from: u64, is_last: bool, what: &str) {
        match open(&MemoryDisk::new(damaged).into_disk(), NEXT_HISTORY) {
            Err(OpenError::Damaged(damage)) => {
                assert!(damage.sequence == from && !is_last, "{what}: {damage}");
            }
            Ok((journal, opened)) => {
                assert!(opened.cut.is_some() && is_last, "{what}");
                let kept = usize::try_from(from).unwrap() - 1;
                assert_eq!(everything(&journal)[..kept], self.entries[..kept], "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Under a journal that was open before, or that trusts its seals, reads give what was written or an error.
    fn check_reads(&self, damaged: &Files, from: u64, what: &str) {
        let refused = self.reads(damaged, what);
        assert!(refused.contains(&from), "{what}: {refused:?}");
    }

    /// What is refused then; anything else is what was written.
    fn reads(&self, damaged: &Files, what: &str) -> Vec<u64> {
        let disk = MemoryDisk::new(&self.sealed);
        let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
        for (name, bytes) in damaged {
            bytes.clone_into(&mut disk.files.lock().unwrap()[name].lock().unwrap());
        }
        self.wrong_reads(&journal, what)
    }

    fn wrong_reads(&self, journal: &FileJournal, what: &str) -> Vec<u64> {
        let mut refused = Vec::new();
        for entry in &self.entries {
            match journal.entry(entry.sequence) {
                Ok(read) => assert_eq!(read, *entry, "{what}"),
                Err(ReadError::Damaged { sequence, .. }) => refused.push(sequence),
                Err(error) => panic!("{what}: {error}"),
            }
            if let Ok(read) = journal.read(entry.sequence, 1) {
                assert_eq!((&read[0].payload, read[0].digest), (&entry.payload, entry.digest), "{what}");
            }
            for (index, blob) in entry.blobs.iter().enumerate() {
                assert!(journal.blob(entry.sequence, index).map_or(true, |read| Some(read) == *blob), "{what}");
            }
        }
        refused
    }
}

fn step(few: usize) -> usize {
    if std::env::var("CONCORD_BATTERY_ALL").is_ok_and(|value| value == "1") { 1 } else { few }
}

#[test]
fn every_flipped_bit_of_64_kib_is_found_and_named() {
    let whole = Whole::new();
    let mut damaged = whole.files.clone();
    let (mut flips, mut opens) = (0, 0);
    for file in 0..damaged.len() {
        // The mark of the very first header and frame: which of the two is wrong nothing tells.
        let from = if file == 0 { 20 * 8 } else { 0 };
        for bit in (from..damaged[file].1.len() * 8).step_by(step(131)) {
            damaged[file].1[bit / 8] ^= 1 << (bit % 8);
            let from = whole.entry_at(file, bit / 8);
            let what = format!("bit {bit} of file {file}");
            whole.check(&damaged, from, whole.is_last(from), &what);
            if flips % FLIPS_TO_AN_OPEN == 0 {
                whole.check_open(&damaged, from, whole.is_last(from), &what);
                let refused = whole.reads(&damaged, &what);
                // A file's header, and in a frame's head where its commit begins, is nothing that a read of an entry looks at.
                let place = whole.places[usize::try_from(from).unwrap() - 1];
                let in_content = place.0 == file && bit / 8 >= place.1 + FRAME_HEAD_BYTES;
                assert!(refused.contains(&from) || !in_content, "{what}: {refused:?}");
                opens += 1;
            }
            damaged[file].1[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
    }
    support::report(&format!("REACHED {flips} flipped bits, {opens} of them opened and read"));
    assert!(flips > 3_500 && opens * FLIPS_TO_AN_OPEN >= flips, "{flips} {opens}");
}

#[test]
fn a_truncation_at_any_byte_is_found_and_named() {
    let whole = Whole::new();
    let last = whole.files.len() - 1;
    let mut truncations = 0;
    for file in 0..=last {
        let bytes = &whole.files[file].1;
        for length in (0..bytes.len()).step_by(step(61)) {
            let ends_between = whole.places.iter().any(|place| place.0 == file && place.1 == length);
            let mut damaged = whole.files.clone();
            damaged[file].1.truncate(length);
            truncations += 1;
            let what = format!("file {file} truncated to {length}");
            if file == last && ends_between {
                // Nothing tells this from a journal that ends there: only a peer that knows more does.
                assert_eq!(verify(MemoryDisk::new(&damaged).into_disk()).unwrap().unfinished, None, "{what}");
                continue;
            }
            if file < last && ends_between {
                // What is missing is noticed by the header of the next file.
                let found = verify(MemoryDisk::new(&damaged).into_disk());
                assert!(matches!(found, Err(VerifyError::Damaged { next_open_cuts: false, .. })), "{what}");
                continue;
            }
            let from = whole.entry_at(file, length);
            let is_last = file == last || whole.is_last(from);
            whole.check(&damaged, from, is_last, &what);
            whole.check_open(&damaged, from, is_last, &what);
        }
    }
    support::report(&format!("REACHED {truncations} truncations"));
    assert!(truncations > 1_000, "{truncations}");
}

#[test]
fn two_records_that_changed_places_are_found_and_never_served() {
    let whole = Whole::new();
    let mut pairs = 0;
    for one in 0..whole.entries.len() {
        for other in (one + 1..whole.entries.len()).step_by(step(7)) {
            let (first, second) = (whole.places[one], whole.places[other]);
            let take = |place: (usize, usize, usize)| whole.files[place.0].1[place.1..place.1 + place.2].to_vec();
            let (record_one, record_other) = (take(first), take(second));
            let mut swapped = whole.files.clone();
            // The later place first, so that the earlier one is still where it was.
            swapped[second.0].1.splice(second.1..second.1 + second.2, record_one);
            swapped[first.0].1.splice(first.1..first.1 + first.2, record_other);
            let what = format!("entries {} and {}", one + 1, other + 1);
            let from = one as u64 + 1;
            whole.check(&swapped, from, whole.is_last(from), &what);
            whole.check_open(&swapped, from, whole.is_last(from), &what);
            if pairs % 10 == 0 {
                whole.check_reads(&swapped, one as u64 + 1, &what);
            }
            pairs += 1;
        }
    }
    support::report(&format!("REACHED {pairs} pairs of records"));
    let same_segment = whole.places.windows(2).any(|places| places[0].0 == places[1].0);
    assert!(pairs > 200 && same_segment && segments(&MemoryDisk::new(&whole.files)).len() > 10, "{pairs}");
}

#[test]
fn a_sector_that_is_zeroed_anywhere_is_found_and_never_served() {
    let whole = Whole::new();
    let mut sectors = 0;
    for sector in [512, 4096] {
        for file in 0..whole.files.len() {
            for start in (0..whole.files[file].1.len()).step_by(sector) {
                let mut zeroed = whole.files.clone();
                let end = (start + sector).min(zeroed[file].1.len());
                zeroed[file].1[start..end].fill(0);
                let from = whole.entry_at(file, start);
                let what = format!("bytes {start} to {end} of file {file} are zero");
                let rest_is_gone = file + 1 == whole.files.len() && end == zeroed[file].1.len();
                let is_last = rest_is_gone || whole.is_last(from);
                whole.check(&zeroed, from, is_last, &what);
                whole.check_open(&zeroed, from, is_last, &what);
                whole.check_reads(
                    &zeroed,
                    if start == 0 { whole.entry_at(file, FILE_HEADER_BYTES) } else { from },
                    &what,
                );
                sectors += 1;
            }
        }
    }
    support::report(&format!("REACHED {sectors} zeroed sectors"));
    assert!(sectors > 140, "{sectors}");
}
