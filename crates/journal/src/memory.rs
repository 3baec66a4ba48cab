//! The journal in memory: for tests and simulations. "Durable" means for as long as it exists.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::blob::{Blob, Commitment};
use crate::digest::{HistoryId, Tail};
use crate::entry::{Draft, Entry, Meta, write_table};
use crate::history::HistoryBegun;
use crate::journal::{
    AppendError, Appended, Committed, Journal, READ_SIZE_MAX_BYTES, ReadError, check_batch, check_bodies,
    check_new_history, check_redaction, check_tail,
};
use crate::redaction::{Bodies, Redacted};

/// A journal that a process end forgets. Clones are the same journal.
#[derive(Clone)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Mutex<Vec<Entry>>,
    tail: watch::Sender<Tail>,
}

impl MemoryJournal {
    /// A new journal whose entry 1 begins `history`; `now` in microseconds since the Unix epoch.
    pub fn new(history: HistoryId, now: i64) -> MemoryJournal {
        let mut entries = Vec::new();
        let begun = HistoryBegun { history, parent: None }.into_draft(now);
        let committed = extend(&mut entries, &Tail::ORIGIN, history, vec![begun]);
        let shared = Shared { entries: Mutex::new(entries), tail: watch::Sender::new(committed.tail) };
        MemoryJournal { shared: Arc::new(shared) }
    }

    /// A copy that goes its own way from here.
    pub fn fork(&self) -> MemoryJournal {
        let entries = self.shared.with_entries(|entries| entries.clone());
        let tail = entries.last().map_or(Tail::ORIGIN, Entry::tail);
        let shared = Shared { entries: Mutex::new(entries), tail: watch::Sender::new(tail) };
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
            shared.with_entries(|entries| {
                for one in &bodies {
                    let absent =
                        || AppendError::NotRedactable { sequence: one.sequence, reason: "it is absent".into() };
                    let entry = find(entries, one.sequence).ok_or_else(absent)?;
                    check_bodies(one, entry.blobs.len())?;
                }
                Ok(())
            })?;
            let committed = shared.commit(expected, expected.history, vec![fact])?;
            shared.with_entries(|entries| {
                for one in &bodies {
                    let (first, count) = (one.first as usize, one.count as usize);
                    let found =
                        find_mut(entries, one.sequence).and_then(|entry| entry.blobs.get_mut(first..first + count));
                    found.unwrap_or_default().fill(None);
                }
            });
            Ok(Redacted { tail: committed.tail, recorded: true, gone: true })
        })
    }

    fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        if from < self.first_sequence() {
            return Err(self.shared.absent(from));
        }
        self.shared.with_entries(|entries| {
            let mut size = 0;
            let skipped = usize::try_from(from - 1).unwrap_or(usize::MAX);
            let wanted = entries.iter().skip(skipped).take(max_entries).take_while(|entry| {
                let goes_on = size <= READ_SIZE_MAX_BYTES;
                size += entry.payload.len() as u64;
                goes_on
            });
            Ok(wanted.map(without_bodies).collect())
        })
    }

    fn entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        let found = self.shared.with_entries(|entries| find(entries, sequence).cloned());
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

    fn tail(&self) -> Tail {
        *self.shared.tail.borrow()
    }

    fn watch(&self) -> watch::Receiver<Tail> {
        self.shared.tail.subscribe()
    }

    fn first_sequence(&self) -> u64 {
        1
    }
}

impl Shared {
    fn commit(&self, expected: Tail, history: HistoryId, batch: Vec<Draft>) -> Result<Committed, AppendError> {
        self.with_entries(|entries| {
            let tail = *self.tail.borrow();
            check_tail(&expected, &tail)?;
            let committed = extend(entries, &tail, history, batch);
            self.tail.send_replace(committed.tail);
            Ok(committed)
        })
    }

    fn with_entries<T>(&self, work: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        // Nothing under this lock can panic halfway through a change, so a poisoned lock is still a whole journal.
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn absent(&self, sequence: u64) -> ReadError {
        ReadError::EntryAbsent { sequence, first: 1, last: self.tail.borrow().sequence }
    }
}

fn find(entries: &[Entry], sequence: u64) -> Option<&Entry> {
    entries.get(usize::try_from(sequence.checked_sub(entries.first()?.sequence)?).ok()?)
}

fn find_mut(entries: &mut [Entry], sequence: u64) -> Option<&mut Entry> {
    let first = entries.first()?.sequence;
    entries.get_mut(usize::try_from(sequence.checked_sub(first)?).ok()?)
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
