//! Redaction: nothing of a body remains, everything else verifies, and a hole without a fact is damage.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use concord_journal::conformance::draft;
use concord_journal::{
    Blob, Bodies, Disk, Draft, Fault, FileJournal, Journal, KIND_REDACTED, MendError, OldEntries, OldSegments,
    OpenError, ReadError, VerifyError, verify, walk,
};
use support::{FIRST_HISTORY, MemoryDisk, NEXT_HISTORY, append, block_on, everything, open};

const SECRET: &[u8] = b"the name of the informant is written here";
const NONCE: [u8; 32] = *b"a nonce that no one may ever see";

const fn all(sequence: u64, count: u32) -> Bodies {
    Bodies { sequence, first: 0, count }
}

fn secret() -> Draft {
    let blob = Blob::seal(NONCE, SECRET.to_vec().into());
    Draft { kind: 4, version: 1, recorded_at: 1, payload: vec![9; 30].into(), blobs: vec![blob.clone(), blob] }
}

/// Entry 2 with the secret in its two bodies, then as many segments as `more` makes.
fn with_a_secret(more: u8) -> (MemoryDisk, FileJournal) {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap();
    append(&journal, vec![secret()]);
    for seed in 0..more {
        append(&journal, vec![draft(seed, 300, 2)]);
    }
    (disk, journal)
}

fn holds(disk: &MemoryDisk, wanted: &[u8]) -> bool {
    disk.everything().iter().any(|(_, bytes)| bytes.windows(wanted.len()).any(|window| window == wanted))
}

#[test]
fn nothing_of_a_redacted_body_remains_and_everything_else_verifies() {
    for more in [0, 3, 20] {
        let (disk, journal) = with_a_secret(more);
        let before = everything(&journal);
        assert!(holds(&disk, SECRET) && holds(&disk, &NONCE));
        let redacted = block_on(journal.redact(journal.tail(), 5, vec![all(2, 2)])).unwrap();
        assert!(redacted.recorded && redacted.gone && redacted.tail == journal.tail());
        assert!(!holds(&disk, SECRET) && !holds(&disk, &NONCE), "no byte of it is on the disk");
        let check = |journal: &FileJournal| {
            let after = everything(journal);
            for (was, is) in before.iter().zip(&after) {
                let blobs = if was.sequence == 2 { vec![None, None] } else { was.blobs.clone() };
                assert_eq!(*is, concord_journal::Entry { blobs, ..was.clone() });
            }
            assert_eq!(after[before.len()].kind, KIND_REDACTED);
            assert!(matches!(journal.blob(2, 1), Err(ReadError::Redacted { sequence: 2, index: 1 })));
            assert!(matches!(journal.blob(2, 2), Err(ReadError::BlobAbsent { count: 2, .. })));
            // Whoever has it still does not bring it back.
            let again = block_on(journal.mend(2, 1, secret().blobs[1].clone()));
            assert!(matches!(again, Err(MendError::NoPlace(ReadError::Redacted { .. }))) && !holds(&disk, SECRET));
            assert_eq!(journal.read(2, 1).unwrap()[0].commitments, before[1].commitments);
        };
        check(&journal);
        let verified = verify(disk.clone().into_disk()).unwrap();
        assert_eq!((verified.redacted_bodies, verified.unfinished), (2, None));
        assert_eq!(journal.scrub(|_| std::ops::ControlFlow::Continue(())).unwrap().unwrap().redacted_bodies, 2);
        append(&journal, vec![draft(1, 10, 1)]);
        drop(journal);
        // With the seals, and without them.
        for disk in [MemoryDisk::new(&disk.everything()), MemoryDisk::new(&disk.contents())] {
            let (journal, opened) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
            assert_eq!((opened.cut, opened.created), (None, false));
            check(&journal);
        }
        let walked: Vec<_> = walk(disk.into_disk(), true).unwrap().map(Result::unwrap).collect();
        assert_eq!(walked[1].blobs, [None, None]);
    }
}

#[test]
fn who_verifies_beside_a_redaction_finds_its_fact_also_in_a_segment_that_began_meanwhile() {
    let disk = MemoryDisk::default();
    let (journal, _) = open(&disk.clone().into_disk(), FIRST_HISTORY).unwrap();
    let grow_to = |count| {
        while support::segments(&disk).len() < count {
            append(&journal, vec![draft(1, 300, 1)]);
        }
    };
    grow_to(2);
    let holder = append(&journal, vec![secret()]).tail.sequence;
    let mut walk = walk(disk.clone().into_disk(), true).unwrap();
    assert_eq!(walk.next().unwrap().unwrap().sequence, 1);
    grow_to(4);
    assert!(block_on(journal.redact(journal.tail(), 5, vec![all(holder, 2)])).unwrap().gone);
    let walked: Vec<_> = walk.map(Result::unwrap).collect();
    let position = walked.iter().position(|entry| entry.sequence == holder).unwrap();
    assert_eq!(walked[position].blobs, [None, None]);
    assert_eq!(walked.last().unwrap().sequence, journal.tail().sequence);
}

#[test]
fn what_cannot_be_redacted_is_refused_and_changes_nothing() {
    let (disk, journal) = with_a_secret(1);
    let tail = journal.tail();
    let wrong = [all(2, 3), all(2, 0), all(99, 1), all(0, 1), Bodies { sequence: 2, first: u32::MAX, count: u32::MAX }];
    for bodies in wrong {
        let refused = block_on(journal.redact(tail, 5, vec![all(2, 1), bodies]));
        assert!(matches!(refused, Err(concord_journal::AppendError::NotRedactable { .. })), "{refused:?}");
    }
    assert!(block_on(journal.redact(tail, 5, Vec::new())).is_err());
    assert!(holds(&disk, SECRET) && journal.tail() == tail);
    assert!(block_on(journal.redact(tail, 5, vec![all(2, 1)])).unwrap().gone);
    assert!(block_on(journal.redact(journal.tail(), 5, vec![all(2, 2)])).unwrap().gone, "also what is half gone");
}

#[test]
fn a_hole_is_accepted_only_where_a_fact_names_it_and_only_as_zeros() {
    let (disk, journal) = with_a_secret(8);
    block_on(journal.redact(journal.tail(), 5, vec![all(2, 1)])).unwrap();
    append(&journal, vec![draft(1, 10, 1)]);
    drop(journal);
    let whole = disk.contents();
    let place = |wanted: &[u8]| whole[0].1.windows(wanted.len()).position(|window| window == wanted).unwrap();
    // The other body of the same entry overwritten by zeros, and a bit in the hole.
    let mut other = whole.clone();
    let second = place(&NONCE);
    other[0].1[second..second + NONCE.len() + SECRET.len()].fill(0);
    let mut flipped = whole.clone();
    flipped[0].1[second - 1] ^= 1;
    for (damaged, index) in [(other, 1), (flipped, 0)] {
        let found = verify(MemoryDisk::new(&damaged).into_disk());
        let Err(VerifyError::Damaged { damage, next_open_cuts: false }) = found else { panic!("{found:?}") };
        assert_eq!(damage.sequence, 2);
        assert!(
            matches!(damage.what, Fault::NotGone { index: found } | Fault::Commitment { index: found } if found == index),
            "{damage}"
        );
        let opened = open(&MemoryDisk::new(&damaged).into_disk(), NEXT_HISTORY);
        assert!(matches!(opened, Err(OpenError::Damaged(_))));
    }
}

/// The journal as `redact` left it when the disk failed from the n-th operation on, and whether it did not fail.
fn interrupted(fail_from: usize) -> (MemoryDisk, bool) {
    interrupted_among(2, fail_from, vec![all(2, 2)])
}

fn interrupted_among(more: u8, fail_from: usize, bodies: Vec<Bodies>) -> (MemoryDisk, bool) {
    let (disk, journal) = with_a_secret(more);
    drop(journal);
    let (faulty, switch) =
        support::FaultyDisk::wrap(&disk.clone().into_disk(), usize::MAX, fail_from.is_multiple_of(2));
    let (journal, _) = open(&faulty, NEXT_HISTORY).unwrap();
    let from = switch.operations.load(Ordering::SeqCst) + fail_from;
    switch.fail_from.store(from, Ordering::SeqCst);
    let is_whole = block_on(journal.redact(journal.tail(), 5, bodies)).is_ok();
    drop(journal);
    (disk, is_whole)
}

/// A disk that fails while a body is being overwritten ends the writer; the next open does the rest.
#[test]
fn a_redaction_that_was_interrupted_anywhere_is_finished_by_the_next_open() {
    let mut finished = 0;
    for fail_from in 0.. {
        let (disk, is_whole) = interrupted(fail_from);
        let (journal, _) = open(&disk.clone().into_disk(), NEXT_HISTORY).unwrap();
        let has_fact = everything(&journal).iter().any(|entry| entry.kind == KIND_REDACTED);
        assert_eq!(has_fact, !holds(&disk, SECRET), "with the fact it is gone, without it is there: {fail_from}");
        assert!(has_fact || !is_whole);
        finished += usize::from(has_fact && !is_whole);
        verify(disk.into_disk()).unwrap();
        if is_whole {
            break;
        }
    }
    assert!(finished >= 3, "{finished}");
}

#[test]
fn damage_at_the_place_of_a_body_that_should_go_holds_up_no_other_redaction() {
    let mut tried = 0;
    for fail_from in 0.. {
        let (disk, is_whole) = interrupted_among(20, fail_from, vec![all(2, 2), all(3, 1)]);
        if is_whole {
            break;
        }
        let mut files = disk.everything();
        let first = files.iter_mut().find(|(name, _)| name.ends_with(".segment")).unwrap();
        let payload = first.1.windows(30).position(|window| window == [9; 30]).unwrap();
        first.1[payload] ^= 1;
        let disk = MemoryDisk::new(&files).into_disk();
        let (journal, _) = open(&disk, NEXT_HISTORY).unwrap();
        let fact = (4..=journal.tail().sequence).any(|at| journal.head(at).is_ok_and(|one| one.kind == KIND_REDACTED));
        if !fact {
            continue;
        }
        tried += 1;
        assert!(matches!(journal.blob(2, 0), Err(ReadError::Damaged { .. })));
        assert!(matches!(journal.blob(3, 0), Err(ReadError::Redacted { .. })));
        let tail = journal.tail();
        let other = block_on(journal.redact(tail, 5, vec![all(4, 1)])).unwrap();
        assert!(other.recorded && other.gone, "{other:?}");
        // Only what is said of the other: the damaged one is not begun again and again.
        assert_eq!(other.tail.sequence, tail.sequence + 3);
        assert!(matches!(journal.blob(4, 0), Err(ReadError::Redacted { .. })));
    }
    assert!(tried >= 3, "{tried}");
}

/// Where the last whole frame of a segment begins: each of the journal's own is a commit.
fn last_frame(bytes: &[u8]) -> usize {
    let mut offset = 60;
    loop {
        let length = bytes.get(offset + 12..offset + 16).map(|length| u32::from_le_bytes(length.try_into().unwrap()));
        match length {
            Some(length) if offset + (length as usize) < bytes.len() => offset += length as usize,
            _ => return offset,
        }
    }
}

/// The trap: a cut takes the fact away after its bodies were overwritten. No single damaged commit can.
#[test]
fn damage_in_the_last_commit_never_takes_the_fact_of_a_hole_away() {
    let mut cuts = 0;
    for fail_from in 0.. {
        let (disk, is_whole) = interrupted(fail_from);
        let whole = disk.contents();
        let (last, bytes) = (whole.len() - 1, &whole[whole.len() - 1].1);
        for byte in (last_frame(bytes)..bytes.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[last].1[byte] ^= 1;
            let disk: Arc<dyn Disk> = MemoryDisk::new(&damaged).into_disk();
            match open(&disk, NEXT_HISTORY) {
                Ok((journal, opened)) => {
                    cuts += usize::from(opened.cut.is_some());
                    assert!(matches!(journal.blob(2, 0), Ok(_) | Err(ReadError::Redacted { .. })));
                    drop(journal);
                    verify(disk).unwrap();
                }
                Err(error) => panic!("byte {byte} after operation {fail_from}: {error}"),
            }
        }
        if is_whole {
            break;
        }
    }
    assert!(cuts > 50, "{cuts}");
}

#[test]
fn who_gathers_what_is_old_steps_over_a_damaged_entry_and_trims_nothing_from_it_on() {
    let (disk, journal) = with_a_secret(20);
    drop(journal);
    let mut files = disk.everything();
    let first = files.iter_mut().find(|(name, _)| name.ends_with(".segment")).unwrap();
    let payload = first.1.windows(30).position(|window| window == [9; 30]).unwrap();
    first.1[payload] ^= 1;
    let (journal, _) = open(&MemoryDisk::new(&files).into_disk(), NEXT_HISTORY).unwrap();
    let last = journal.tail().sequence;
    let mut old = OldEntries::new(&journal, i64::MAX, last);
    let mut seen = Vec::new();
    while !old.is_ended() {
        let looked = |entry: &concord_journal::Entry, _: &mut Vec<Bodies>| {
            seen.push(entry.sequence);
            Ok(0)
        };
        old.gather(&journal, |error| error, looked).unwrap();
    }
    assert_eq!(seen, [1].into_iter().chain(3..=last).collect::<Vec<_>>());
    let found = OldSegments::find(&journal, i64::MAX, last, |error| error, |_, _| Ok(true)).unwrap();
    assert_eq!(found, None, "the damaged entry is in the first segment");
}
