//! The suite that every provider of [`Journal`] runs: the contract of the trait, promise by promise.
//!
//! A broken promise panics with what was promised; call it from tests only.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    AppendError, Blob, Bodies, COMMIT_SIZE_MAX_BYTES, Committed, Digest, Draft, HistoryBegun, HistoryId, Journal,
    KIND_HISTORY_BEGUN, KIND_REDACTED, KIND_TRIMMED, MendError, READ_SIZE_MAX_BYTES, ReadError, Tail, Trim, TrimError,
};

/// Runs every promise, each against a new journal that `fresh` makes.
pub async fn check_provider<F>(fresh: F)
where
    F: Fn() -> Arc<dyn Journal>,
{
    a_new_journal_begins_with_its_history(fresh().as_ref());
    what_is_appended_is_read_back(fresh().as_ref()).await;
    every_entry_is_chained_to_the_one_before(fresh().as_ref()).await;
    a_stale_tail_is_refused(fresh().as_ref()).await;
    an_unfit_batch_is_refused_and_changes_nothing(fresh().as_ref()).await;
    a_draft_may_take_the_whole_commit(fresh().as_ref()).await;
    a_new_history_names_its_parent(fresh().as_ref()).await;
    reading_is_bounded(fresh().as_ref()).await;
    what_is_not_there_is_named(fresh().as_ref()).await;
    a_whole_body_stays_whoever_would_mend_it(fresh().as_ref()).await;
    the_tail_is_watchable(fresh().as_ref()).await;
    a_redacted_body_is_gone_and_its_entry_stays(fresh().as_ref()).await;
    a_trimmed_journal_begins_with_its_base(fresh().as_ref()).await;
}

/// A draft with `blobs` blobs whose content follows from `seed`.
pub fn draft(seed: u8, payload: usize, blobs: usize) -> Draft {
    let blob = |index: usize| {
        let byte = seed.wrapping_add(u8::try_from(index % 251).unwrap_or(0));
        Blob::seal([byte; 32], Bytes::from(vec![byte; 1 + index * 7]))
    };
    Draft {
        kind: 1 + u16::from(seed),
        version: 3,
        recorded_at: 1_700_000_000_000_000 + i64::from(seed),
        payload: Bytes::from(vec![seed; payload]),
        blobs: (0..blobs).map(blob).collect(),
    }
}

async fn append(journal: &dyn Journal, batch: Vec<Draft>) -> Committed {
    match journal.append(journal.tail(), batch).await {
        Ok(committed) => committed,
        Err(error) => panic!("a fit batch after the current tail is appended, but: {error}"),
    }
}

fn a_new_journal_begins_with_its_history(journal: &dyn Journal) {
    let Ok(first) = journal.entry(1) else { panic!("a new journal has an entry 1") };
    assert_eq!((journal.first_sequence(), journal.tail()), (1, first.tail()));
    assert_eq!((first.kind, first.previous, first.commit_first), (KIND_HISTORY_BEGUN, Digest::ZERO, 1));
    let begun = HistoryBegun { history: first.history, parent: None };
    assert_eq!(HistoryBegun::decode(&first.payload), Ok(begun), "entry 1 begins a history without parent");
}

async fn what_is_appended_is_read_back(journal: &dyn Journal) {
    let batch = vec![draft(1, 10, 0), draft(2, 0, 3), draft(3, 40_000, 130)];
    let committed = append(journal, batch.clone()).await;
    assert_eq!(committed.tail, journal.tail(), "a durable commit is published");
    let Ok(heads) = journal.read(2, 100) else { panic!("what is durable can be read") };
    assert_eq!((heads.len(), committed.appended.len()), (3, 3));
    for ((draft, head), appended) in batch.iter().zip(&heads).zip(&committed.appended) {
        let Ok(whole) = journal.entry(appended.sequence) else { panic!("what is durable can be read") };
        assert_eq!((whole.digest, whole.commit_first), (appended.digest, 2));
        let fields = (whole.kind, whole.version, whole.recorded_at, &whole.payload);
        assert_eq!(fields, (draft.kind, draft.version, draft.recorded_at, &draft.payload));
        assert_eq!(whole.blobs, draft.blobs.iter().cloned().map(Some).collect::<Vec<_>>());
        assert_eq!(whole.commitments, draft.blobs.iter().map(Blob::commitment).collect::<Vec<_>>());
        assert!(head.blobs.iter().all(Option::is_none), "read gives no bodies");
        let stripped = crate::Entry { blobs: head.blobs.clone(), ..whole.clone() };
        assert_eq!(head, &stripped, "read gives the same as entry but for the bodies");
        for (index, blob) in draft.blobs.iter().enumerate() {
            assert!(journal.blob(appended.sequence, index).is_ok_and(|found| found == *blob));
        }
    }
}

async fn every_entry_is_chained_to_the_one_before(journal: &dyn Journal) {
    append(journal, vec![draft(1, 5, 1), draft(2, 5, 0)]).await;
    append(journal, vec![draft(2, 5, 0)]).await;
    let Ok(entries) = journal.read(1, 10) else { panic!("what is durable can be read") };
    let mut previous = Digest::ZERO;
    for (entry, sequence) in entries.iter().zip(1..) {
        assert_eq!((entry.sequence, entry.previous), (sequence, previous));
        previous = entry.digest;
    }
    assert_eq!(entries.iter().map(|entry| entry.commit_first).collect::<Vec<_>>(), [1, 2, 2, 4]);
    assert_eq!(entries.last().map(crate::Entry::tail), Some(journal.tail()));
}

async fn a_stale_tail_is_refused(journal: &dyn Journal) {
    let stale = journal.tail();
    let current = append(journal, vec![draft(1, 5, 1)]).await.tail;
    let moved = AppendError::TailMoved { expected: Box::new(stale), actual: Box::new(current) };
    assert_eq!(journal.append(stale, vec![draft(2, 5, 1)]).await, Err(moved.clone()));
    assert_eq!(journal.begin_history(stale, HistoryId([9; 16]), 1).await, Err(moved));
    assert_eq!(journal.tail(), current, "a refusal changes nothing");
    append(journal, vec![draft(2, 5, 1)]).await;
}

async fn an_unfit_batch_is_refused_and_changes_nothing(journal: &dyn Journal) {
    let tail = journal.tail();
    assert_eq!(journal.append(tail, Vec::new()).await, Err(AppendError::EmptyBatch));
    let reserved = Draft { kind: KIND_HISTORY_BEGUN, ..draft(1, 1, 0) };
    assert_eq!(journal.append(tail, vec![draft(1, 1, 0), reserved]).await, Err(AppendError::ReservedKind));
    let half = usize::try_from(COMMIT_SIZE_MAX_BYTES / 2).unwrap_or(0);
    let batch = vec![draft(1, half, 0), draft(1, half, 0)];
    let size = batch.iter().map(Draft::size_bytes).sum();
    assert_eq!(journal.append(tail, batch).await, Err(AppendError::BatchTooLarge { size }));
    let repeated = AppendError::HistoryRepeated { history: tail.history };
    assert_eq!(journal.begin_history(tail, tail.history, 1).await, Err(repeated));
    assert_eq!(journal.tail(), tail);
    append(journal, vec![draft(1, 1, 0)]).await;
}

async fn a_draft_may_take_the_whole_commit(journal: &dyn Journal) {
    let overhead = draft(1, 0, 1).size_bytes();
    let payload = usize::try_from(COMMIT_SIZE_MAX_BYTES - overhead).unwrap_or(0);
    let largest = draft(1, payload, 1);
    assert_eq!(largest.size_bytes(), COMMIT_SIZE_MAX_BYTES);
    let sequence = append(journal, vec![largest.clone()]).await.tail.sequence;
    assert!(journal.entry(sequence).is_ok_and(|entry| entry.payload == largest.payload));
}

async fn a_new_history_names_its_parent(journal: &dyn Journal) {
    let parent = append(journal, vec![draft(1, 5, 1)]).await.tail;
    let new = HistoryId([7; 16]);
    let begun = journal.begin_history(parent, new, 77).await;
    assert_eq!(begun.as_ref().map(|committed| committed.tail), Ok(journal.tail()));
    let Ok(entry) = journal.entry(parent.sequence + 1) else { panic!("the entry is durable") };
    assert_eq!((entry.history, entry.kind, entry.recorded_at), (new, KIND_HISTORY_BEGUN, 77));
    assert_eq!(HistoryBegun::decode(&entry.payload), Ok(HistoryBegun { history: new, parent: Some(parent) }));
    let next = append(journal, vec![draft(2, 5, 1)]).await.tail;
    assert_eq!(next.history, new, "what follows belongs to the new history");
}

async fn reading_is_bounded(journal: &dyn Journal) {
    let payload = 7 * 1024 * 1024;
    for seed in 0..4 {
        append(journal, vec![draft(seed, payload, 0)]).await;
    }
    let Ok(entries) = journal.read(2, 100) else { panic!("what is durable can be read") };
    assert_eq!(entries.len() as u64, READ_SIZE_MAX_BYTES / payload as u64 + 1);
    assert!(journal.read(1, 2).is_ok_and(|entries| entries.len() == 2));
    assert!(journal.read(1, 0).is_ok_and(|entries| entries.is_empty()));
}

async fn what_is_not_there_is_named(journal: &dyn Journal) {
    append(journal, vec![draft(1, 1, 2)]).await;
    for sequence in [0, 3, u64::MAX] {
        let absent = journal.entry(sequence);
        assert!(matches!(absent, Err(ReadError::EntryAbsent { first: 1, last: 2, .. })), "{absent:?}");
        assert!(matches!(journal.blob(sequence, 0), Err(ReadError::EntryAbsent { .. })));
    }
    assert!(matches!(journal.blob(2, 2), Err(ReadError::BlobAbsent { count: 2, .. })));
    assert!(matches!(journal.read(0, 1), Err(ReadError::EntryAbsent { .. })));
    for from in [3, u64::MAX] {
        assert!(journal.read(from, 5).is_ok_and(|entries| entries.is_empty()), "beyond the tail is nothing");
    }
}

async fn a_whole_body_stays_whoever_would_mend_it(journal: &dyn Journal) {
    append(journal, vec![draft(1, 5, 2)]).await;
    let Ok(before) = journal.entry(2) else { panic!("the entry is durable") };
    for (index, blob) in draft(1, 5, 2).blobs.into_iter().enumerate() {
        let other = journal.mend(2, 1 - index, blob.clone()).await;
        assert!(matches!(other, Err(MendError::Other { sequence: 2, .. })), "{other:?}");
        assert!(journal.mend(2, index, blob.clone()).await.is_ok());
        assert!(matches!(journal.mend(2, 2, blob.clone()).await, Err(MendError::NoPlace(_))));
        assert!(matches!(journal.mend(3, 0, blob).await, Err(MendError::NoPlace(_))));
    }
    assert!(journal.entry(2).is_ok_and(|after| after == before) && journal.tail().sequence == 2);
}

async fn a_redacted_body_is_gone_and_its_entry_stays(journal: &dyn Journal) {
    append(journal, vec![draft(1, 5, 3), draft(2, 5, 1)]).await;
    let Ok(before) = journal.entry(2) else { panic!("the entry is durable") };
    let stale = Tail { sequence: 1, ..journal.tail() };
    let bodies = vec![Bodies { sequence: 2, first: 1, count: 2 }];
    assert!(matches!(journal.redact(stale, 9, bodies.clone()).await, Err(AppendError::TailMoved { .. })));
    assert_eq!(journal.redact(journal.tail(), 9, Vec::new()).await, Err(AppendError::EmptyBatch));
    for sequence in [0, 9] {
        let absent = journal.redact(journal.tail(), 9, vec![Bodies { sequence, first: 0, count: 1 }]).await;
        assert!(matches!(absent, Err(AppendError::NotRedactable { .. })), "{absent:?}");
    }
    let Ok(redacted) = journal.redact(journal.tail(), 9, bodies).await else { panic!("what is there goes") };
    assert_eq!((redacted.tail, redacted.recorded, redacted.gone), (journal.tail(), true, true));
    let Ok(after) = journal.entry(2) else { panic!("the entry stays") };
    let left = crate::Entry { blobs: vec![before.blobs[0].clone(), None, None], ..before };
    assert_eq!(after, left, "digest and commitments stay");
    assert!(matches!(journal.blob(2, 1), Err(ReadError::Redacted { sequence: 2, index: 1 })));
    let gone = |bodies: Vec<crate::Body>| bodies.iter().map(|body| body.is_gone).collect::<Vec<_>>();
    assert!(journal.bodies(2).is_ok_and(|bodies| bodies[0].size_bytes == 1 && gone(bodies) == [false, true, true]));
    assert!(journal.blob(2, 0).is_ok() && journal.blob(3, 0).is_ok(), "its neighbours stay");
    assert!(journal.entry(4).is_ok_and(|fact| fact.kind == KIND_REDACTED && fact.recorded_at == 9));
    append(journal, vec![draft(4, 5, 1)]).await;
}

async fn a_trimmed_journal_begins_with_its_base(journal: &dyn Journal) {
    assert_eq!((journal.trim_point(u64::MAX), journal.base().ok()), (None, Some(None)), "there is nothing to trim");
    let mut before = Vec::new();
    // Large enough that no segment holds all.
    for seed in 0..6 {
        let sequence = append(journal, vec![draft(seed, 3_000_000, 1)]).await.tail.sequence;
        before.extend(journal.read(sequence, 1).ok().and_then(|entries| entries.into_iter().next()));
    }
    let Some(first_kept) = journal.trim_point(journal.tail().sequence) else { panic!("there is a place to trim at") };
    assert!(first_kept > 3 && first_kept <= journal.tail().sequence);
    let trim = Trim { first_kept, state: Bytes::from_static(b"the state"), kept: vec![3] };
    let refused = Trim { kept: vec![first_kept], ..trim.clone() };
    assert!(matches!(journal.prepare_trim(refused), Err(TrimError::Refused { .. })));
    let Ok(prepared) = journal.prepare_trim(trim) else { panic!("it can be trimmed there") };
    assert_eq!((journal.first_sequence(), journal.base().ok()), (1, Some(None)), "nothing goes before it is said");
    let Ok(committed) = journal.trim(journal.tail(), 9, prepared).await else { panic!("the trim happens") };
    assert_eq!((committed.tail, journal.first_sequence()), (journal.tail(), first_kept));
    let Ok(Some(base)) = journal.base() else { panic!("a trimmed journal has a base") };
    assert_eq!((base.state.as_ref(), base.kept.as_slice()), (&b"the state"[..], &[1, 3][..]));
    assert_eq!(base.before.sequence, first_kept - 1);
    for entry in &before {
        let is_kept = entry.sequence == 3 || entry.sequence >= first_kept;
        let found = journal.entry(entry.sequence);
        assert!(if is_kept { found.is_ok_and(|found| found.digest == entry.digest) } else { found.is_err() });
    }
    let recalled = |from: u64, most: usize| {
        let entries = journal.recall(from, most).unwrap_or_default();
        entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    let whole = first_kept..=committed.tail.sequence;
    assert_eq!(recalled(1, usize::MAX), [1, 3].into_iter().chain(whole).collect::<Vec<_>>(), "with a gap");
    assert_eq!((recalled(2, 2), recalled(first_kept, 1)), (vec![3, first_kept], vec![first_kept]));
    assert_eq!((recalled(committed.tail.sequence + 1, 1), recalled(1, 0)), (vec![], vec![]));
    for entry in &before {
        let is_there = entry.sequence == 3 || entry.sequence >= first_kept;
        let found = journal.head(entry.sequence);
        assert!(if is_there { found.is_ok_and(|found| found == *entry) } else { found.is_err() });
    }
    assert!(journal.entry(3).is_ok_and(|kept| kept.blobs == [None]) && journal.entry(1).is_ok());
    assert!(matches!(journal.blob(3, 0), Err(ReadError::Redacted { .. })));
    assert!(matches!(journal.read(3, 1), Err(ReadError::EntryAbsent { first, .. }) if first == first_kept));
    assert!(journal.entry(committed.tail.sequence).is_ok_and(|anchor| anchor.kind == KIND_TRIMMED));
    append(journal, vec![draft(1, 5, 1)]).await;
}

async fn the_tail_is_watchable(journal: &dyn Journal) {
    let mut watch = journal.watch();
    assert_eq!(*watch.borrow_and_update(), journal.tail());
    let committed = append(journal, vec![draft(1, 1, 2)]).await;
    assert!(watch.has_changed().unwrap_or(false), "a watcher learns of the commit");
    assert_eq!(*watch.borrow_and_update(), committed.tail);
}
