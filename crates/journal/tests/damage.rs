//! Torn and flipped journals: what is cut, what stops the open, and that nothing wrong is ever served.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use concord_journal::conformance::draft;
use concord_journal::{
    Blob, Cut, Disk, Draft, Entry, Fault, FileJournal, FrameMark, HistoryBegun, HistoryId, Journal, KIND_HISTORY_BEGUN,
    MendError, OpenError, ReadError, RealDisk, VerifyError, verify, walk,
};
use support::{
    FIRST_HISTORY, FaultyDisk, MemoryDisk, NEXT_HISTORY, append, block_on, everything, fill, open, options, segments,
};

/// Where the frame of each entry begins: file number, offset, length.
fn frames(contents: &[(String, Vec<u8>)]) -> Vec<(usize, usize, usize)> {
    let mut frames = Vec::new();
    for (file, (_, bytes)) in contents.iter().enumerate() {
        let mut offset = 60;
        while offset < bytes.len() {
            let length = u32::from_le_bytes(bytes[offset + 12..offset + 16].try_into().unwrap()) as usize;
            frames.push((file, offset, length));
            offset += length;
        }
    }
    frames
}

fn filled() -> (Vec<(String, Vec<u8>)>, Vec<Entry>) {
    let disk = MemoryDisk::default();
    let entries = fill(&disk.clone().into_disk());
    (disk.contents(), entries)
}

/// The journal goes on after `kept` of the entries in a new history that names its parent, and can be used.
fn check_cut(journal: &FileJournal, cut: &Cut, entries: &[Entry], kept: usize) {
    let now = everything(journal);
    assert_eq!(now[..kept], entries[..kept]);
    assert_eq!(now.len(), kept + 1, "one entry begins the new history");
    let begun = HistoryBegun::decode(&now[kept].payload).unwrap();
    assert_eq!(begun, HistoryBegun { history: NEXT_HISTORY, parent: Some(entries[kept - 1].tail()) });
    assert_eq!((now[kept].kind, cut.parent), (KIND_HISTORY_BEGUN, begun.parent));
    assert!(now[kept].recorded_at >= entries[kept - 1].recorded_at);
    assert_eq!(append(journal, vec![draft(9, 9, 1)]).tail.sequence, kept as u64 + 2);
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let (contents, entries) = filled();
    let places = frames(&contents);
    let commit_first = usize::try_from(entries.last().unwrap().commit_first).unwrap();
    let (file, start, _) = places[commit_first - 1];
    let (last_name, last_bytes) = &contents[file];
    assert_eq!(file + 1, contents.len());
    for length in start + 1..last_bytes.len() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &contents {
            let kept = if name == last_name { &bytes[..length] } else { &bytes[..] };
            fs::write(folder.path().join(name), kept).unwrap();
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
        let torn = places.iter().rposition(|place| place.0 == file && place.1 < length).unwrap();
        let is_boundary = places[torn].1 + places[torn].2 == length;
        let verified = verify(Arc::clone(&disk)).unwrap();
        assert_eq!(verified.unfinished.is_none(), is_boundary, "at {length}");
        let (journal, opened) = open(&disk, NEXT_HISTORY).unwrap();
        if is_boundary {
            // A batch may end between entries: nothing tells this from a shorter batch.
            assert_eq!((opened.cut, everything(&journal)), (None, entries[..=torn].to_vec()));
            continue;
        }
        let cut = opened.cut.unwrap();
        let offset = places[torn].1 as u64;
        assert_eq!((&cut.file, cut.offset, cut.bytes), (last_name, offset, length as u64 - offset));
        let unfinished = verified.unfinished.unwrap();
        assert_eq!((unfinished.file, unfinished.offset, unfinished.bytes), (cut.file.clone(), offset, cut.bytes));
        check_cut(&journal, &cut, &entries, torn);
        drop(journal);
        assert_eq!(verify(Arc::clone(&disk)).unwrap().unfinished, None);
        assert_eq!(open(&disk, HistoryId([1; 16])).unwrap().1.cut, None, "a cut is told once");
    }
}

#[test]
fn a_torn_first_commit_of_a_segment_removes_the_segment() {
    let (mut contents, entries) = filled();
    let places = frames(&contents);
    let first_of_last = places.iter().position(|place| place.0 == 2).unwrap();
    let whole = contents[2].1.clone();
    for length in 0..places[first_of_last].1 + places[first_of_last].2 {
        contents[2].1 = whole[..length].to_vec();
        let disk = MemoryDisk::new(&contents).into_disk();
        assert_eq!(verify(Arc::clone(&disk)).unwrap().unfinished.is_some(), length != 60);
        let (journal, opened) = open(&disk, NEXT_HISTORY).unwrap();
        if length == 60 {
            assert_eq!((opened.cut, everything(&journal).len()), (None, first_of_last));
            append(&journal, vec![draft(9, 9, 1)]);
        } else {
            check_cut(&journal, &opened.cut.unwrap(), &entries, first_of_last);
        }
    }
}

#[test]
fn a_torn_beginning_is_made_again() {
    let disk = MemoryDisk::default();
    drop(open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap());
    let contents = disk.contents();
    for length in 0..contents[0].1.len() {
        let torn = MemoryDisk::new(&[(contents[0].0.clone(), contents[0].1[..length].to_vec())]).into_disk();
        let (journal, opened) = open(&torn, NEXT_HISTORY).unwrap();
        assert!(opened.created);
        assert_eq!((journal.tail().history, journal.tail().sequence), (NEXT_HISTORY, 1));
    }
}

#[test]
fn every_flipped_bit_is_found_and_named_or_cut_with_the_last_commit() {
    let (contents, entries) = filled();
    let places = frames(&contents);
    let last_commit = usize::try_from(entries.last().unwrap().commit_first).unwrap() - 1;
    let (mut stopped, mut cuts) = (0, 0);
    for file in 0..contents.len() {
        for bit in 0..contents[file].1.len() * 8 {
            let mut flipped = contents.clone();
            flipped[file].1[bit / 8] ^= 1 << (bit % 8);
            let byte = bit / 8;
            let context = format!("bit {bit} of {}", contents[file].0);
            let entry = places.iter().position(|place| place.0 == file && byte < place.1 + place.2).unwrap();
            let disk = MemoryDisk::new(&flipped).into_disk();
            let served: Vec<_> = walk(Arc::clone(&disk), true).unwrap().map_while(Result::ok).collect();
            assert_eq!(served, entries[..served.len()], "nothing wrong is served: {context}");
            let damage = match verify(Arc::clone(&disk)) {
                Err(VerifyError::Damaged { damage, next_open_cuts }) => {
                    assert_eq!(next_open_cuts, entry >= last_commit, "{context}: {damage}");
                    damage
                }
                other => panic!("{context}: {other:?}"),
            };
            let offset = if byte < 60 { 0 } else { places[entry].1 as u64 };
            // A mark that differs between the very first header and frame does not tell which of them is wrong.
            if !(file == 0 && (12..20).contains(&byte)) {
                assert_eq!((&damage.file, damage.offset), (&contents[file].0, offset), "{context}");
            }
            assert_eq!(damage.sequence, entry as u64 + 1, "{context}");
            match open(&disk, NEXT_HISTORY) {
                Err(OpenError::Damaged(named)) => {
                    assert!(entry < last_commit, "{context}");
                    assert_eq!(*named, damage, "{context}");
                    stopped += 1;
                }
                Ok((journal, opened)) => {
                    assert!(entry >= last_commit, "{context}");
                    check_cut(&journal, &opened.cut.unwrap(), &entries, entry);
                    cuts += 1;
                }
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
    assert!(stopped > 10_000 && cuts > 1_000, "{stopped} {cuts}");
}

#[test]
fn a_bit_flipped_under_an_open_journal_is_never_served() {
    let (contents, entries) = filled();
    let places = frames(&contents);
    let (file, start, length) = places[1];
    for byte in start..start + length {
        let disk = MemoryDisk::new(&contents);
        let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
        disk.files.lock().unwrap()[&contents[file].0].lock().unwrap()[byte] ^= 0x10;
        // The mark says nothing about the entry; an open checks it, a read has no need to.
        let is_mark = (start + 4..start + 12).contains(&byte);
        assert_eq!(journal.entry(2).is_ok(), is_mark, "byte {byte}");
        assert!(journal.read(2, 1).map_or(true, |read| read[0].payload == entries[1].payload));
        for index in 0..2 {
            assert!(journal.blob(2, index).map_or(true, |blob| Some(blob) == entries[1].blobs[index]));
        }
        assert!(journal.entry(3).is_ok());
    }
}

/// Flips this byte under an open journal, or flips it back.
fn flip(disk: &MemoryDisk, file: &str, byte: usize) {
    disk.files.lock().unwrap()[file].lock().unwrap()[byte] ^= 0x10;
}

#[test]
fn a_damaged_body_is_mended_by_itself_at_every_byte_and_by_nothing_else() {
    let (contents, entries) = filled();
    let (file, start, length) = frames(&contents)[1];
    let bodies: Vec<Blob> = entries[1].blobs.iter().flatten().cloned().collect();
    let size: usize = bodies.iter().map(|body| 32 + body.bytes().len()).sum();
    let disk = MemoryDisk::new(&contents);
    let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    let whole = disk.everything();
    for byte in start + length - size..start + length {
        flip(&disk, &contents[file].0, byte);
        let index = usize::from(byte >= start + length - size + 32 + bodies[0].bytes().len());
        assert!(matches!(journal.blob(2, index), Err(ReadError::Damaged { .. })));
        let damaged = disk.everything();
        for other in [bodies[1 - index].clone(), Blob::seal([7; 32], bodies[index].bytes().clone())] {
            let refused = block_on(journal.mend(2, index, other));
            assert!(matches!(refused, Err(MendError::Other { sequence: 2, .. })), "{refused:?}");
        }
        assert_eq!(disk.everything(), damaged, "what is not it writes nothing");
        block_on(journal.mend(2, index, bodies[index].clone())).unwrap();
        assert_eq!(disk.everything(), whole, "byte {byte}");
    }
    assert_eq!(everything(&journal), entries);
    assert!(verify(disk.into_disk()).unwrap().unfinished.is_none());
}

/// However far it came, all else holds, and it can be done again; and a journal that could not be mended goes on.
#[test]
fn a_mend_that_was_broken_off_leaves_the_body_damaged_and_nothing_else() {
    let (contents, entries) = filled();
    let (file, start, length) = frames(&contents)[1];
    let body = entries[1].blobs[1].clone().unwrap();
    let place = start + length - 32 - body.bytes().len();
    for written in 0..32 + body.bytes().len() {
        let mut torn = contents.clone();
        torn[file].1[place + written..start + length].fill(0xEE);
        let disk = MemoryDisk::new(&torn);
        // Nothing but the open seals it, so that a start still reads past it.
        let seals = MemoryDisk::new(&contents);
        drop(open(&seals.clone().into_disk(), NEXT_HISTORY).unwrap());
        let sealed = seals.everything().into_iter().filter(|(name, _)| name.ends_with(".seal"));
        sealed.for_each(|(name, bytes)| {
            disk.files.lock().unwrap().insert(name, Arc::new(std::sync::Mutex::new(bytes)));
        });
        let real = disk.clone().into_disk();
        for does_it in [false, true] {
            for fail_from in 0..2 {
                let (faulty, switch) = FaultyDisk::wrap(&real, usize::MAX, does_it);
                let (journal, _) = open(&faulty, NEXT_HISTORY).unwrap();
                let now = switch.operations.load(Ordering::SeqCst);
                switch.fail_from.store(now + fail_from, Ordering::SeqCst);
                let refused = block_on(journal.mend(2, 1, body.clone()));
                assert!(matches!(refused, Err(MendError::Disk { sequence: 2, index: 1, .. })), "{refused:?}");
                assert_eq!(journal.head(2).unwrap().digest, entries[1].digest);
                assert_eq!(journal.blob(2, 0).unwrap(), entries[1].blobs[0].clone().unwrap());
                switch.fail_from.store(usize::MAX, Ordering::SeqCst);
                append(&journal, vec![draft(9, 9, 1)]);
                // As it was, for the next.
                disk.files.lock().unwrap()[&contents[file].0].lock().unwrap().clone_from(&torn[file].1);
            }
        }
        let (journal, _) = open(&real, NEXT_HISTORY).unwrap();
        block_on(journal.mend(2, 1, body.clone())).unwrap();
        assert_eq!(everything(&journal)[..entries.len()], entries);
        drop(journal);
        assert!(verify(real).unwrap().unfinished.is_none());
    }
}

#[test]
fn damage_in_an_earlier_segment_stops_the_open_and_changes_nothing() {
    let (contents, _) = filled();
    for file in 0..2 {
        for truncated in [1, 30, contents[file].1.len() - 60, contents[file].1.len()] {
            let mut damaged = contents.clone();
            let length = contents[file].1.len() - truncated;
            damaged[file].1.truncate(length);
            let disk = MemoryDisk::new(&damaged);
            assert!(matches!(open(&disk.clone().into_disk(), NEXT_HISTORY), Err(OpenError::Damaged(_))));
            assert!(matches!(
                verify(disk.clone().into_disk()),
                Err(VerifyError::Damaged { next_open_cuts: false, .. })
            ));
            assert_eq!(disk.contents(), damaged);
        }
        let mut missing = contents.clone();
        missing.remove(file);
        let found = open(&MemoryDisk::new(&missing).into_disk(), NEXT_HISTORY).err().map(|error| error.to_string());
        assert!(found.unwrap().contains("a file is missing"));
    }
}

#[test]
fn what_a_newer_version_wrote_is_never_cut() {
    let (mut contents, _) = filled();
    let first_of_last = frames(&contents).into_iter().find(|place| place.0 == 2).unwrap();
    contents[2].1.truncate(first_of_last.1 + first_of_last.2);
    contents[2].1[8] = 2;
    let disk = MemoryDisk::new(&contents);
    match open(&disk.clone().into_disk(), NEXT_HISTORY) {
        Err(OpenError::Damaged(damage)) => assert_eq!(damage.what, Fault::SegmentFormat { found: 2 }),
        other => panic!("{:?}", other.map(|(_, opened)| opened)),
    }
    assert_eq!(disk.contents(), contents);
}

/// A body may look like a frame of a later commit; without the journal's mark it cannot keep it from opening.
#[test]
fn a_body_that_imitates_a_later_frame_does_not_stop_a_cut() {
    let imitation = MemoryDisk::default();
    let foreign = FrameMark(*b"foreign!");
    let foreign = concord_journal::OpenOptions { new_mark: foreign, ..options(FIRST_HISTORY) };
    let (journal, _) = FileJournal::open(imitation.clone().into_disk(), &foreign).unwrap();
    (1..9).for_each(|seed| drop(append(&journal, vec![draft(seed, 1, 0)])));
    let body = Bytes::from(imitation.contents().into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>());
    for (mark, is_cut) in [(*b"testmark", true), (*b"foreign!", false)] {
        let disk = MemoryDisk::default();
        let marked = concord_journal::OpenOptions { new_mark: FrameMark(mark), ..options(FIRST_HISTORY) };
        let (journal, _) = FileJournal::open(disk.clone().into_disk(), &marked).unwrap();
        let blobs = vec![Blob::seal([1; 32], body.clone())];
        append(&journal, vec![Draft { blobs, ..draft(1, 1, 0) }]);
        drop(journal);
        let mut contents = disk.contents();
        contents[0].1.pop();
        let outcome = open(&MemoryDisk::new(&contents).into_disk(), NEXT_HISTORY);
        assert_eq!(outcome.is_ok_and(|(_, opened)| opened.cut.is_some()), is_cut);
    }
}

/// Wherever a cut itself is interrupted, a later open finishes it and tells of it.
#[test]
fn an_interrupted_cut_still_begins_a_new_history() {
    let (mut contents, entries) = filled();
    contents[2].1.pop();
    let kept = entries.len() - 1;
    for does_it in [false, true] {
        for fail_from in 0.. {
            let real = MemoryDisk::new(&contents).into_disk();
            let (disk, switch) = FaultyDisk::wrap(&real, fail_from, does_it);
            let was_interrupted = open(&disk, HistoryId([3; 16])).is_err();
            let (journal, opened) = open(&real, NEXT_HISTORY).unwrap();
            let now = everything(&journal);
            assert_eq!(now[..kept], entries[..kept]);
            let begun = HistoryBegun::decode(&now[kept].payload).unwrap();
            assert_eq!(begun.parent, Some(entries[kept - 1].tail()), "after operation {fail_from}");
            assert!(!disk.list().unwrap().iter().any(|name| name == "cut.pending"));
            // A seal that could not be written interrupts nothing.
            if !was_interrupted {
                assert_eq!(opened.cut, None);
            }
            if switch.operations.load(Ordering::SeqCst) <= fail_from {
                assert!(fail_from > 9 && !was_interrupted);
                break;
            }
        }
    }
}

/// Even where what follows the stray file is only the last commit, which a tear might cut.
#[test]
fn a_stray_segment_is_not_taken_for_a_tear() {
    let (mut contents, _) = filled();
    let second = frames(&contents).into_iter().find(|place| place.0 == 1).unwrap();
    contents.truncate(2);
    contents[1].1.truncate(second.1 + second.2);
    contents.push((format!("{:020}.segment", 2), b"anything".to_vec()));
    let disk = MemoryDisk::new(&contents);
    assert!(matches!(open(&disk.clone().into_disk(), NEXT_HISTORY), Err(OpenError::Damaged(_))));
    assert_eq!(segments(&disk).len(), 3);
}

#[test]
fn a_segment_that_is_only_a_header_takes_the_next_commit_whatever_its_size() {
    let (mut contents, _) = filled();
    contents[2].1.truncate(60);
    let disk = MemoryDisk::new(&contents);
    let smallest = concord_journal::OpenOptions { segment_size_max_bytes: 0, ..options(NEXT_HISTORY) };
    let (journal, _) = FileJournal::open(disk.clone().into_disk(), &smallest).unwrap();
    append(&journal, vec![draft(1, 1, 1)]);
    append(&journal, vec![draft(1, 1, 1)]);
    assert_eq!(segments(&disk).len(), 4);
}

/// The search for later commits goes over frames larger than what it reads at once.
#[test]
fn a_later_commit_is_found_behind_megabytes_of_damage() {
    let disk = MemoryDisk::default();
    let large = concord_journal::OpenOptions::new(1, FIRST_HISTORY, FrameMark(*b"testmark"));
    let (journal, _) = FileJournal::open(disk.clone().into_disk(), &large).unwrap();
    let body = |seed: u8, size: usize| vec![Blob::seal([seed; 32], Bytes::from(vec![seed; size]))];
    append(&journal, vec![Draft { blobs: body(1, 5_000_000), ..draft(1, 2_000_000, 0) }]);
    append(&journal, vec![Draft { blobs: body(2, 3_000_000), ..draft(2, 70_000, 0) }]);
    let entries = everything(&journal);
    drop(journal);
    let contents = disk.contents();
    let places = frames(&contents);
    let (journal, opened) = open(&MemoryDisk::new(&contents).into_disk(), NEXT_HISTORY).unwrap();
    assert_eq!((opened.cut, everything(&journal)), (None, entries.clone()));
    // The length field, the middle of a body, and the last byte: of the first commit, then of the last.
    for (number, stops) in [(1, true), (2, false)] {
        let (_, start, length) = places[number];
        for place in [start + 14, start + length / 2, start + length - 1] {
            let mut damaged = contents.clone();
            damaged[0].1[place] ^= 0x40;
            match open(&MemoryDisk::new(&damaged).into_disk(), NEXT_HISTORY) {
                Err(OpenError::Damaged(damage)) => {
                    assert!(stops && damage.offset == start as u64 && damage.sequence == number as u64 + 1);
                }
                Ok((journal, opened)) => {
                    assert!(!stops);
                    check_cut(&journal, &opened.cut.unwrap(), &entries, number);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
