//! The journal in memory: for tests and simulations. "Durable" means for as long as it exists.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::blob::{Blob, Commitment};
use crate::digest::{Digest, HistoryId, Tail};
use crate::entry::{Draft, Entry, Meta, bare_size_bytes, write_table};
use crate::history::{HistoryBegun, KIND_HISTORY_BEGUN};
use crate::journal::{
    AppendError, Appended, Committed, Journal, MendError, READ_SIZE_MAX_BYTES, ReadError, check_batch, check_bodies,
    check_new_history, check_redaction, check_tail,
};
use crate::old::Held;
use crate::redaction::{Bodies, Body, Redacted};
use crate::trim::{Base, PreparedTrim, Trim, TrimError, anchor};

/// A journal that a process end forgets. Clones are the same journal.
#[derive(Clone)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
}

struct Shared {
    held: Mutex<Contents>,
    tail: watch::Sender<Tail>,
}

/// What is there: entries from the first that is held whole on, and what stands for those before it.
#[derive(Clone, Default)]
struct Contents {
    entries: Vec<Entry>,
    base: Option<Base>,
    kept: Vec<Entry>,
}

impl Contents {
    fn first(&self) -> u64 {
        self.entries.first().map_or(1, |entry| entry.sequence)
    }

    fn find(&self, sequence: u64) -> Option<&Entry> {
        let whole = sequence.checked_sub(self.first()).and_then(|index| self.entries.get(usize::try_from(index).ok()?));
        whole.or_else(|| self.kept.iter().find(|entry| entry.sequence == sequence))
    }

    fn bodies(&mut self, bodies: &Bodies) -> Option<&mut [Option<Blob>]> {
        let index = usize::try_from(bodies.sequence.checked_sub(self.first())?).ok()?;
        let first = bodies.first as usize;
        self.entries.get_mut(index)?.blobs.get_mut(first..first.checked_add(bodies.count as usize)?)
    }

    /// Every commit is a place to trim at.
    fn trim_point(&self, before: u64) -> Option<u64> {
        let point = self.entries.iter().rev().find(|entry| entry.sequence <= before)?.commit_first;
        (point > self.first()).then_some(point)
    }

    /// What a trim keeps, and the last entry that goes.
    fn trimmed(&self, trim: &Trim) -> Result<(Tail, Vec<Entry>), TrimError> {
        let refused = |reason: String| TrimError::Refused { reason };
        if self.trim_point(trim.first_kept) != Some(trim.first_kept) {
            return Err(refused(format!("no commit but the first begins with entry {}", trim.first_kept)));
        }
        let absent = |sequence: &&u64| **sequence >= trim.first_kept || self.find(**sequence).is_none();
        if let Some(absent) = trim.kept.iter().find(absent) {
            return Err(refused(format!("entry {absent} is to be kept and is not there")));
        }
        let goes = |entry: &&Entry| entry.sequence < trim.first_kept;
        let is_kept = |entry: &&Entry| entry.kind == KIND_HISTORY_BEGUN || trim.kept.contains(&entry.sequence);
        let before = self.kept.iter().chain(&self.entries).filter(goes);
        let kept = before.clone().filter(is_kept).map(without_bodies).collect();
        Ok((before.last().map_or(Tail::ORIGIN, Entry::tail), kept))
    }
}

impl MemoryJournal {
    /// A new journal whose entry 1 begins `history`; `now` in microseconds since the Unix epoch.
    pub fn new(history: HistoryId, now: i64) -> MemoryJournal {
        let mut entries = Vec::new();
        let begun = HistoryBegun { history, parent: None }.into_draft(now);
        let committed = extend(&mut entries, &Tail::ORIGIN, history, vec![begun]);
        let held = Contents { entries, ..Contents::default() };
        let shared = Shared { held: Mutex::new(held), tail: watch::Sender::new(committed.tail) };
        MemoryJournal { shared: Arc::new(shared) }
    }

    /// A copy that goes its own way from here.
    pub fn fork(&self) -> MemoryJournal {
        let held = self.shared.with_held(|held| held.clone());
        let tail = held.entries.last().map_or(Tail::ORIGIN, Entry::tail);
        let shared = Shared { held: Mutex::new(held), tail: watch::Sender::new(tail) };
        MemoryJournal { shared: Arc::new(shared) }
    }
}

impl Journal for MemoryJournal {
    fn append(&self, expected: Tail, batch: Vec<Draft>) -> BoxFuture<'static, Result<Committed, AppendError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            check_batch(&batch)?;
            shared.commit(expected, expected.history, batch)
        })
    }

    fn begin_history(
        &self,
        expected: Tail,
        new: HistoryId,
        recorded_at: i64,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            check_new_history(&expected, new)?;
            let begun = HistoryBegun { history: new, parent: Some(expected) };
            shared.commit(expected, new, vec![begun.into_draft(recorded_at)])
        })
    }

    fn redact(
        &self,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let fact = check_redaction(&bodies, recorded_at)?;
            shared.with_held(|held| {
                for one in &bodies {
                    let whole = held.find(one.sequence).filter(|_| one.sequence >= held.first());
                    let absent =
                        || AppendError::NotRedactable { sequence: one.sequence, reason: "it is absent".into() };
                    check_bodies(one, whole.ok_or_else(absent)?.blobs.len())?;
                }
                Ok(())
            })?;
            let committed = shared.commit(expected, expected.history, vec![fact])?;
            shared.with_held(|held| bodies.iter().for_each(|one| held.bodies(one).unwrap_or_default().fill(None)));
            Ok(Redacted { tail: committed.tail, recorded: true, gone: true })
        })
    }

    fn mend(&self, sequence: u64, index: usize, body: Blob) -> BoxFuture<'static, Result<(), MendError>> {
        // Memory is not damaged: what is there is only compared.
        let stands = self.blob(sequence, index);
        Box::pin(async move { if stands? == body { Ok(()) } else { Err(MendError::Other { sequence, index }) } })
    }

    fn trim_point(&self, before: u64) -> Option<u64> {
        self.shared.with_held(|held| held.trim_point(before))
    }

    fn held_before(&self, first_kept: u64) -> Held {
        self.shared.with_held(|held| {
            let size = |entry: &Entry| {
                let bodies = entry.blobs.iter().flatten().map(|blob| blob.bytes().len());
                (entry.payload.len() + bodies.sum::<usize>()) as u64
            };
            let going = held.entries.iter().filter(|entry| entry.sequence < first_kept);
            let kept_bytes = held.kept.iter().map(bare_size_bytes).sum();
            Held { segments: 1, bytes: going.map(size).sum(), kept_bytes }
        })
    }

    fn prepare_trim(&self, trim: Trim) -> Result<PreparedTrim, TrimError> {
        self.shared.with_held(|held| held.trimmed(&trim))?;
        let digest = Digest::of("concord journal base in memory v1", &[&trim.first_kept.to_le_bytes(), &trim.state]);
        Ok(PreparedTrim { first_kept: trim.first_kept, digest, in_memory: Some(trim) })
    }

    fn trim(
        &self,
        expected: Tail,
        recorded_at: i64,
        prepared: PreparedTrim,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let happened = || AppendError::NotTrimmable { reason: "it has happened, or was prepared elsewhere".into() };
            let trim = prepared.in_memory.ok_or_else(happened)?;
            let (before, kept) = shared.with_held(|held| held.trimmed(&trim)).map_err(|_| happened())?;
            let draft = anchor(trim.first_kept, prepared.digest, recorded_at);
            let committed = shared.commit(expected, expected.history, vec![draft])?;
            shared.with_held(|held| {
                held.entries.retain(|entry| entry.sequence >= trim.first_kept);
                let sequences = kept.iter().map(|entry| entry.sequence).collect();
                held.base = Some(Base { before, state: trim.state, kept: sequences });
                held.kept = kept;
            });
            Ok(committed)
        })
    }

    fn base(&self) -> Result<Option<Base>, ReadError> {
        Ok(self.shared.with_held(|held| held.base.clone()))
    }

    fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        if from < self.first_sequence() {
            return Err(self.shared.absent(from));
        }
        self.shared.with_held(|held| {
            let mut size = 0;
            let skipped = usize::try_from(from - held.first()).unwrap_or(usize::MAX);
            let wanted = held.entries.iter().skip(skipped).take(max_entries).take_while(|entry| {
                let goes_on = size <= READ_SIZE_MAX_BYTES;
                size += entry.payload.len() as u64;
                goes_on
            });
            Ok(wanted.map(without_bodies).collect())
        })
    }

    fn kept_from(&self, from: u64) -> Option<u64> {
        self.shared.with_held(|held| {
            let mut kept = held.kept.iter().map(|entry| entry.sequence);
            kept.find(|kept| *kept >= from)
        })
    }

    fn entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        let found = self.shared.with_held(|held| held.find(sequence).cloned());
        found.ok_or_else(|| self.shared.absent(sequence))
    }

    fn blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError> {
        let entry = self.entry(sequence)?;
        let count = entry.blobs.len();
        match entry.blobs.into_iter().nth(index) {
            Some(blob) => blob.ok_or(ReadError::Redacted { sequence, index }),
            None => Err(ReadError::BlobAbsent { sequence, index, count }),
        }
    }

    fn bodies(&self, sequence: u64) -> Result<Vec<Body>, ReadError> {
        // What a body was is forgotten with it.
        let body = |blob: Option<Blob>| Body {
            size_bytes: blob.as_ref().map_or(0, |blob| blob.bytes().len() as u64),
            is_gone: blob.is_none(),
        };
        Ok(self.entry(sequence)?.blobs.into_iter().map(body).collect())
    }

    fn tail(&self) -> Tail {
        *self.shared.tail.borrow()
    }

    fn watch(&self) -> watch::Receiver<Tail> {
        self.shared.tail.subscribe()
    }

    fn first_sequence(&self) -> u64 {
        self.shared.with_held(|held| held.first())
    }
}

impl Shared {
    fn commit(&self, expected: Tail, history: HistoryId, batch: Vec<Draft>) -> Result<Committed, AppendError> {
        self.with_held(|held| {
            let tail = *self.tail.borrow();
            check_tail(&expected, &tail)?;
            let committed = extend(&mut held.entries, &tail, history, batch);
            self.tail.send_replace(committed.tail);
            Ok(committed)
        })
    }

    fn with_held<T>(&self, work: impl FnOnce(&mut Contents) -> T) -> T {
        // Nothing under this lock can panic halfway through a change, so a poisoned lock is still a whole journal.
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn absent(&self, sequence: u64) -> ReadError {
        let first = self.with_held(|held| held.first());
        ReadError::EntryAbsent { sequence, first, last: self.tail.borrow().sequence }
    }
}

fn extend(entries: &mut Vec<Entry>, tail: &Tail, history: HistoryId, batch: Vec<Draft>) -> Committed {
    let commit_first = tail.sequence + 1;
    let mut tail = *tail;
    let mut appended = Vec::with_capacity(batch.len());
    for draft in batch {
        let meta = Meta::after(&tail, history, commit_first, &draft);
        let mut table = Vec::new();
        write_table(&draft.blobs, &mut table);
        let entry = Entry {
            history,
            sequence: meta.sequence,
            recorded_at: meta.recorded_at,
            previous: meta.previous,
            kind: meta.kind,
            version: meta.version,
            commit_first,
            digest: meta.digest(&draft.payload, &table),
            commitments: draft.blobs.iter().map(Blob::commitment).collect::<Vec<Commitment>>(),
            payload: draft.payload,
            blobs: draft.blobs.into_iter().map(Some).collect(),
        };
        tail = entry.tail();
        appended.push(Appended { sequence: entry.sequence, digest: entry.digest });
        entries.push(entry);
    }
    Committed { appended, tail }
}

fn without_bodies(entry: &Entry) -> Entry {
    Entry { blobs: vec![None; entry.commitments.len()], ..entry.clone() }
}
