//! Trimming: old segments go behind a base, the rest verifies, and damage to the base is found and never cut.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use concord_journal::conformance::draft;
use concord_journal::{
    AppendError, Bodies, Disk, FileJournal, Journal, KIND_RESERVED_FIRST, KIND_TRIMMED, OldSegments, OpenError,
    ReadError, Trim, TrimError, VerifyError, verify, walk,
};
use support::{FIRST_HISTORY, FaultyDisk, MemoryDisk, NEXT_HISTORY, append, block_on, everything, open};

/// Ten segments or more.
fn filled() -> (MemoryDisk, FileJournal) {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap();
    for seed in 0..24 {
        append(&journal, vec![draft(seed, 500, 2)]);
    }
    (disk, journal)
}

fn trim(journal: &FileJournal, before: u64, state: &'static [u8], kept: Vec<u64>) -> u64 {
    let first_kept = journal.trim_point(before).unwrap();
    let prepared = journal.prepare_trim(Trim { first_kept, state: state.into(), kept }).unwrap();
    assert_eq!(prepared.first_kept(), first_kept);
    block_on(journal.trim(journal.tail(), 7, prepared)).unwrap();
    first_kept
}

#[test]
fn a_trimmed_journal_begins_behind_its_base_and_verifies() {
    let (disk, journal) = filled();
    let before = everything(&journal);
    let tail = journal.tail();
    let first = trim(&journal, 15, b"all of it", vec![3, 5]);
    assert!(first > 10 && journal.first_sequence() == first);
    let check = |journal: &FileJournal, first: u64, state: &[u8], kept: &[u64]| {
        let base = journal.base().unwrap().unwrap();
        assert_eq!((base.state.as_ref(), base.kept.as_slice()), (state, kept));
        assert_eq!(base.before, before[usize::try_from(first).unwrap() - 2].tail());
        for entry in &before {
            let found = journal.entry(entry.sequence);
            if entry.sequence >= first {
                assert_eq!(found.unwrap(), *entry);
            } else if kept.contains(&entry.sequence) {
                let blobs = vec![None; entry.blobs.len()];
                assert_eq!(found.unwrap(), concord_journal::Entry { blobs, ..entry.clone() });
            } else {
                assert!(matches!(found, Err(ReadError::EntryAbsent { first: named, .. }) if named == first));
            }
            assert_eq!(journal.read(entry.sequence, 1).is_ok(), entry.sequence >= first);
        }
        assert!(matches!(journal.blob(3, 1), Err(ReadError::Redacted { sequence: 3, index: 1 })));
        assert!(matches!(journal.blob(3, 2), Err(ReadError::BlobAbsent { count: 2, .. })));
        let verified = verify(disk.clone().into_disk()).unwrap();
        assert_eq!((verified.first, verified.tail), (first, Some(journal.tail())));
        assert_eq!(verified.kept_entries, Some(kept.len() as u64));
    };
    check(&journal, first, b"all of it", &[1, 3, 5]);
    assert_eq!(journal.entry(tail.sequence + 1).unwrap().kind, KIND_TRIMMED);
    append(&journal, vec![draft(1, 10, 1)]);
    drop(journal);
    let (journal, opened) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    assert_eq!((opened.created, opened.cut), (false, None));
    check(&journal, first, b"all of it", &[1, 3, 5]);
    // A second one takes over what it still wants of the first.
    let second = trim(&journal, 22, b"more", vec![3, 14]);
    assert!(second > first);
    check(&journal, second, b"more", &[1, 3, 14]);
    assert_eq!(disk.everything().iter().filter(|(name, _)| name.ends_with(".base")).count(), 1);
    assert!(disk.everything().iter().all(|(name, _)| name.as_str() >= format!("{second:020}").as_str()));
    let walked = walk(disk.clone().into_disk(), true).unwrap().map(|entry| entry.unwrap().sequence);
    let whole = second..=journal.tail().sequence;
    assert_eq!(walked.collect::<Vec<_>>(), [1, 3, 14].into_iter().chain(whole).collect::<Vec<_>>());
    drop(journal);
    let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    check(&journal, second, b"more", &[1, 3, 14]);
}

#[test]
fn what_cannot_be_trimmed_is_refused_and_changes_nothing() {
    let (disk, journal) = filled();
    let point = journal.trim_point(15).unwrap();
    assert_eq!((journal.trim_point(1), journal.trim_point(0)), (None, None));
    let with = |first_kept: u64, kept: Vec<u64>| journal.prepare_trim(Trim { first_kept, state: "x".into(), kept });
    for (first_kept, kept) in [(0, vec![]), (1, vec![]), (point + 1, vec![]), (999, vec![]), (point, vec![point])] {
        assert!(matches!(with(first_kept, kept.clone()), Err(TrimError::Refused { .. })), "{first_kept} {kept:?}");
    }
    let prepared = with(point, vec![2]).unwrap();
    let stale = concord_journal::Tail { sequence: 3, ..journal.tail() };
    let moved = block_on(journal.trim(stale, 7, prepared.clone()));
    assert!(matches!(moved, Err(AppendError::TailMoved { .. })));
    // Another one was prepared in its place.
    let newer = with(point, vec![3]).unwrap();
    assert!(matches!(block_on(journal.trim(journal.tail(), 7, prepared)), Err(AppendError::NotTrimmable { .. })));
    assert_eq!((journal.first_sequence(), journal.base().unwrap()), (1, None));
    block_on(journal.trim(journal.tail(), 7, newer.clone())).unwrap();
    assert!(matches!(block_on(journal.trim(journal.tail(), 7, newer)), Err(AppendError::NotTrimmable { .. })));
    assert_eq!(journal.base().unwrap().unwrap().kept, [1, 3]);
    verify(disk.into_disk()).unwrap();
}

#[test]
fn the_old_segments_end_before_what_is_young_or_stays_and_all_that_was_said_is_kept() {
    let (disk, journal) = filled();
    block_on(journal.redact(journal.tail(), 5, vec![Bodies { sequence: 3, first: 0, count: 1 }])).unwrap();
    let find = |before: i64, last: u64, stays: u64| {
        let may_go = |entry: &concord_journal::Entry, bodies: &[concord_journal::Body]| {
            assert_eq!(bodies.len(), entry.commitments.len());
            assert_eq!(bodies.iter().filter(|body| body.is_gone).count(), usize::from(entry.sequence == 3));
            Ok::<_, ReadError>(entry.sequence != stays)
        };
        OldSegments::find(&journal, before, last, |error| error, may_go).unwrap()
    };
    let all = find(i64::MAX, u64::MAX, 0).unwrap();
    assert_eq!(Some(all.first_kept), journal.trim_point(u64::MAX));
    let files: Vec<usize> =
        disk.everything().iter().filter(|(name, _)| name.ends_with(".segment")).map(|(_, bytes)| bytes.len()).collect();
    let (going, stays) = files.split_at(files.len() - 1);
    assert_eq!((all.size.segments, all.size.bytes), (going.len() as u64, going.iter().sum::<usize>() as u64));
    assert_eq!(stays.len(), 1);
    // By the time of the tenth draft, by the last that may go, and by one that stays.
    let tenth = journal.entry(11).unwrap().recorded_at;
    for old in [find(tenth, u64::MAX, 0), find(i64::MAX, 10, 0), find(i64::MAX, u64::MAX, 11)] {
        let old = old.unwrap();
        assert_eq!(Some(old.first_kept), journal.trim_point(11));
        assert_eq!(old.kept, (1..old.first_kept).collect::<Vec<_>>());
    }
    assert_eq!(find(journal.entry(2).unwrap().recorded_at, u64::MAX, 0), None, "all is too young");
    // What the journal says of itself is not kept, and what an earlier trim kept is.
    let facts: Vec<u64> = (1..=journal.tail().sequence)
        .filter(|sequence| journal.head(*sequence).unwrap().kind >= KIND_RESERVED_FIRST)
        .collect();
    assert_eq!(facts.len(), 3);
    for _ in 0..2 {
        for seed in 0..24 {
            append(&journal, vec![draft(seed, 500, 0)]);
        }
        let old = OldSegments::find(&journal, i64::MAX, u64::MAX, |error| error, |_, _| Ok::<_, ReadError>(true))
            .unwrap()
            .unwrap();
        let said: Vec<u64> = (1..old.first_kept)
            .filter(|sequence| journal.head(*sequence).is_ok_and(|entry| entry.kind < KIND_RESERVED_FIRST))
            .collect();
        assert_eq!(old.kept, said);
        let (kept_bytes, is_worth_it) = (old.kept_bytes, old.is_worth_it(b"state"));
        assert_eq!(is_worth_it, old.size.bytes >= kept_bytes + 5);
        let prepared = journal.prepare_trim(old.into_trim("state".into())).unwrap();
        block_on(journal.trim(journal.tail(), 7, prepared)).unwrap();
        let base: usize =
            disk.everything().iter().filter(|(name, _)| name.ends_with(".base")).map(|(_, base)| base.len()).sum();
        // But for entry 1, which stays anyway, and what is around them.
        let rest = base as u64 - kept_bytes;
        assert!((108 + 5 + 32..108 + 5 + 32 + 300).contains(&rest), "{rest} bytes beside the kept entries");
        assert!(
            facts.iter().all(|fact| journal.head(*fact).is_err())
                && said.iter().all(|said| journal.head(*said).is_ok())
        );
    }
    verify(disk.into_disk()).unwrap();
}

/// Invariant: a trim beside a reader shows at most in bodies that are gone.
#[test]
fn whoever_reads_beside_trims_finds_every_entry_that_is_kept() {
    let (_disk, journal) = filled();
    let known = AtomicU64::new(journal.tail().sequence);
    let is_over = AtomicBool::new(false);
    let read_on = || {
        while !is_over.load(Ordering::Relaxed) {
            let last = known.load(Ordering::Relaxed);
            for sequence in 1..=last {
                let entry = journal.entry(sequence).unwrap();
                let head = journal.head(sequence).unwrap();
                assert_eq!((entry.digest, entry.commitments.len()), (head.digest, head.blobs.len()));
                assert_eq!(journal.bodies(sequence).unwrap().len(), head.commitments.len());
                for index in 0..head.commitments.len() {
                    let blob = journal.blob(sequence, index);
                    assert!(matches!(blob, Ok(_) | Err(ReadError::Redacted { .. })), "{sequence} {index}: {blob:?}");
                }
            }
            let all: Vec<u64> = journal.recall(1, usize::MAX).unwrap().iter().map(|entry| entry.sequence).collect();
            assert!(all.starts_with(&(1..=last).collect::<Vec<_>>()), "up to {last} there are {all:?}");
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(read_on)));
        // However it ends, the readers end too.
        let _over = Raised(&is_over);
        for _ in 0..20 {
            for seed in 0..12 {
                append(&journal, vec![draft(seed, 300, 2)]);
            }
            let first_kept = journal.trim_point(u64::MAX).unwrap();
            // All of it, so that every entry that a reader knows of stays to be read.
            let kept = (1..first_kept).collect();
            let prepared = journal.prepare_trim(Trim { first_kept, state: "s".into(), kept }).unwrap();
            known.store(first_kept, Ordering::Relaxed);
            let has_body = |sequence: &u64| journal.bodies(*sequence).unwrap().iter().any(|body| !body.is_gone);
            let sequence = (1..first_kept).rev().find(has_body).unwrap();
            let named = Bodies { sequence, first: 0, count: 1 };
            block_on(journal.redact(journal.tail(), 5, vec![named])).unwrap();
            block_on(journal.trim(journal.tail(), 7, prepared)).unwrap();
        }
    });
}

/// Raises a flag when it goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn redactions_before_and_after_a_trim_hold() {
    let (disk, journal) = filled();
    let bodies = |sequence: u64| Bodies { sequence, first: 0, count: 1 };
    block_on(journal.redact(journal.tail(), 5, vec![bodies(4), bodies(20)])).unwrap();
    let first = trim(&journal, 15, b"s", vec![4]);
    assert!(block_on(journal.redact(journal.tail(), 5, vec![bodies(4)])).is_err(), "it has no bodies any more");
    assert!(block_on(journal.redact(journal.tail(), 5, vec![bodies(first)])).unwrap().gone);
    drop(journal);
    let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    for sequence in [4, 20, first] {
        assert!(matches!(journal.blob(sequence, 0), Err(ReadError::Redacted { .. })));
    }
    assert_eq!(verify(disk.into_disk()).unwrap().redacted_bodies, 2);
}

/// Every operation of a trim fails in turn, done or not: the next open finishes the trim or forgets it.
#[test]
fn a_trim_that_was_interrupted_anywhere_is_finished_or_undone_by_the_next_open() {
    let (mut finished, mut undone) = (0, 0);
    for fail_from in 0_usize.. {
        let (disk, journal) = filled();
        let before = everything(&journal);
        drop(journal);
        let (faulty, switch) = FaultyDisk::wrap(&disk.clone().into_disk(), usize::MAX, fail_from.is_multiple_of(2));
        let (journal, _) = open(&faulty, NEXT_HISTORY).unwrap();
        let from = switch.operations.load(Ordering::SeqCst) + fail_from / 2;
        switch.fail_from.store(from, Ordering::SeqCst);
        let first_kept = journal.trim_point(15).unwrap();
        let prepared = journal.prepare_trim(Trim { first_kept, state: "state".into(), kept: vec![2] });
        let is_whole = prepared.is_ok_and(|prepared| block_on(journal.trim(journal.tail(), 7, prepared)).is_ok());
        drop(journal);
        let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
        let first = journal.first_sequence();
        if first == 1 {
            assert!(!is_whole && disk.everything().iter().all(|(name, _)| !name.ends_with(".base")));
            assert_eq!(everything(&journal), before);
            undone += 1;
        } else {
            assert_eq!(journal.base().unwrap().unwrap().state, "state".as_bytes());
            assert_eq!(everything(&journal)[0], before[usize::try_from(first).unwrap() - 1]);
            assert!(disk.contents().iter().all(|(name, _)| name.as_str() >= format!("{first:020}").as_str()));
            finished += usize::from(!is_whole);
        }
        verify(disk.into_disk()).unwrap();
        if is_whole {
            break;
        }
    }
    assert!(finished >= 10 && undone >= 4, "{finished} {undone}");
}

#[test]
fn a_cut_that_takes_the_anchor_away_is_followed_by_the_anchor_again() {
    let (disk, journal) = filled();
    let first = trim(&journal, 15, b"state", vec![2]);
    drop(journal);
    let mut damaged = disk.contents();
    damaged.last_mut().unwrap().1.pop();
    let disk = MemoryDisk::new(&damaged);
    let (journal, opened) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
    assert!(opened.cut.is_some() && journal.first_sequence() == first);
    let kinds: Vec<u16> = everything(&journal).iter().rev().take(2).map(|entry| entry.kind).collect();
    assert_eq!(kinds, [KIND_TRIMMED, concord_journal::KIND_HISTORY_BEGUN]);
    drop(journal);
    verify(disk.into_disk()).unwrap();
}

#[test]
fn every_flipped_bit_and_every_missing_byte_of_a_base_is_found_and_named_and_never_cut() {
    let (disk, journal) = filled();
    trim(&journal, 15, b"state", vec![2, 9]);
    append(&journal, vec![draft(1, 10, 1)]);
    drop(journal);
    let whole = disk.everything();
    let base = whole.iter().position(|(name, _)| name.ends_with(".base")).unwrap();
    let check = |damaged: Vec<(String, Vec<u8>)>, what: &str| {
        let disk: Arc<dyn Disk> = MemoryDisk::new(&damaged).into_disk();
        let found = verify(Arc::clone(&disk));
        let Err(VerifyError::Damaged { damage, next_open_cuts: false }) = found else { panic!("{what}: {found:?}") };
        assert_eq!(damage.file, whole[base].0, "{what}: {damage}");
        match open(&disk, NEXT_HISTORY) {
            Err(OpenError::Damaged(opened)) => assert_eq!(*opened, damage, "{what}"),
            opened => panic!("{what}: {:?}", opened.map(|(_, opened)| opened)),
        }
    };
    let size = whole[base].1.len();
    for bit in (0..size * 8).step_by(17) {
        let mut damaged = whole.clone();
        damaged[base].1[bit / 8] ^= 1 << (bit % 8);
        check(damaged, &format!("bit {bit}"));
    }
    for length in (0..size).step_by(29) {
        let mut damaged = whole.clone();
        damaged[base].1.truncate(length);
        check(damaged, &format!("truncated to {length}"));
    }
    // Another base, whole in itself, that the anchor does not name.
    let (other, journal) = filled();
    trim(&journal, 15, b"STATE", vec![2, 9]);
    drop(journal);
    let other = other.everything().into_iter().find(|(name, _)| *name == whole[base].0).unwrap();
    let mut exchanged = whole.clone();
    exchanged[base] = other;
    assert!(matches!(verify(MemoryDisk::new(&exchanged).into_disk()), Err(VerifyError::Damaged { .. })));
    assert!(matches!(open(&MemoryDisk::new(&exchanged).into_disk(), NEXT_HISTORY), Err(OpenError::Damaged(_))));
}

#[test]
fn a_copy_of_its_extent_is_the_trimmed_journal() {
    let (disk, journal) = filled();
    trim(&journal, 15, b"state", vec![2]);
    let extent = journal.extent();
    append(&journal, vec![draft(1, 10, 1)]);
    let copied: Vec<(String, Vec<u8>)> = extent
        .files
        .iter()
        .map(|(name, length)| {
            let (_, bytes) = disk.everything().into_iter().find(|(found, _)| found == name).unwrap();
            (name.clone(), bytes[..usize::try_from(*length).unwrap()].to_vec())
        })
        .collect();
    let copy = MemoryDisk::new(&copied).into_disk();
    assert_eq!(verify(Arc::clone(&copy)).unwrap().tail, Some(extent.tail));
    let (copy, _) = open(&copy, NEXT_HISTORY).unwrap();
    assert_eq!(copy.base().unwrap(), journal.base().unwrap());
}
