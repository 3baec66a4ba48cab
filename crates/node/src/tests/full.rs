//! A disk without room, and one that fails: what the writer leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use concord_journal::{
    AppendError, Base, Blob, Bodies, Body, Committed, Draft, Entry, HistoryId, Journal, MemoryJournal, PreparedTrim,
    ReadError, Redacted, Tail, Trim, TrimError,
};
use concord_model::{Lane, Reason};
use concord_wire::stored::node::{NodeEntry, read};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::support::{Forum, Running, founded, prepared};
use crate::writer::WriterError;

const SOUND: u8 = 0;
const FULL: u8 = 1;
const BROKEN: u8 = 2;

/// A journal whose disk is as a test says.
struct OnDisk {
    inner: MemoryJournal,
    disk: Arc<AtomicU8>,
}

impl Journal for OnDisk {
    fn append(&self, expected: Tail, batch: Vec<Draft>) -> BoxFuture<'static, Result<Committed, AppendError>> {
        match self.disk.load(Ordering::SeqCst) {
            FULL => {
                async { Err(AppendError::NoRoom { size: 1, reason: "the test's disk is full".to_owned() }) }.boxed()
            }
            BROKEN => {
                async { Err(AppendError::OutcomeUnknown { reason: "the test's sync failed".to_owned() }) }.boxed()
            }
            _ => self.inner.append(expected, batch),
        }
    }

    fn begin_history(
        &self,
        expected: Tail,
        new: HistoryId,
        recorded_at: i64,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.inner.begin_history(expected, new, recorded_at)
    }

    fn redact(
        &self,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        self.inner.redact(expected, recorded_at, bodies)
    }

    fn trim_point(&self, before: u64) -> Option<u64> {
        self.inner.trim_point(before)
    }

    fn prepare_trim(&self, trim: Trim) -> Result<PreparedTrim, TrimError> {
        self.inner.prepare_trim(trim)
    }

    fn trim(
        &self,
        expected: Tail,
        recorded_at: i64,
        prepared: PreparedTrim,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.inner.trim(expected, recorded_at, prepared)
    }

    fn base(&self) -> Result<Option<Base>, ReadError> {
        self.inner.base()
    }

    fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        self.inner.read(from, max_entries)
    }

    fn entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        self.inner.entry(sequence)
    }

    fn blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError> {
        self.inner.blob(sequence, index)
    }

    fn bodies(&self, sequence: u64) -> Result<Vec<Body>, ReadError> {
        self.inner.bodies(sequence)
    }

    fn tail(&self) -> Tail {
        self.inner.tail()
    }

    fn watch(&self) -> watch::Receiver<Tail> {
        self.inner.watch()
    }

    fn first_sequence(&self) -> u64 {
        self.inner.first_sequence()
    }
}

async fn node_on(forum: &Forum, place: &tempfile::TempDir) -> (Running, Arc<AtomicU8>) {
    let journal = founded(forum).await;
    let disk = Arc::new(AtomicU8::new(SOUND));
    let on_disk = Arc::new(OnDisk { inner: journal.clone(), disk: Arc::clone(&disk) });
    (Running::start_on(forum, journal, on_disk, &place.path().join("views")), disk)
}

// On one thread all three are waiting before the writer wakes: they are in one batch.
#[tokio::test]
async fn a_batch_without_room_is_as_if_it_had_never_been_handed_in() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let (node, disk) = node_on(&forum, &place).await;
    let submit = |content, lane| node.writer.submit(prepared(&forum, "r-1", content, lane));
    let tail = node.journal.tail();
    disk.store(FULL, Ordering::SeqCst);
    let (first, again, other) =
        tokio::join!(submit(b"one", Lane::Routine), submit(b"one", Lane::Routine), submit(b"other", Lane::Routine));
    for refused in [first, again, other] {
        // The last would be a conflict with what was never kept.
        assert_eq!(refused.unwrap_err().reason, Reason::DiskFull);
    }
    let feed = node.writer.feed(super::support::HISTORY, forum.feed(), 0).await;
    assert_eq!(feed.unwrap_err().reason, Reason::DiskFull);
    assert_eq!(node.journal.tail(), tail);
    assert_eq!((node.now().chain(Lane::Routine).last_number, node.now().feed().number), (0, 0));

    disk.store(SOUND, Ordering::SeqCst);
    submit(b"other", Lane::Routine).await.unwrap();
    node.writer.feed(super::support::HISTORY, forum.feed(), 0).await.unwrap();
    let entries = node.journal.read(tail.sequence + 1, usize::MAX).unwrap();
    let NodeEntry::Queued(kept, _) = read(&entries[0]).unwrap() else { panic!("nothing was queued") };
    assert_eq!((kept.sealed.number, kept.sealed.previous.0), (1, concord_model::Digest::ZERO));
    let snapshots = crate::open::snapshots(place.path().join("none"));
    let folded = crate::open::fold(&snapshots, &node.journal).unwrap().state;
    assert_eq!(folded, *node.now(), "the state is not what the journal folds to");
}

#[tokio::test]
async fn a_failed_write_ends_the_writer_and_answers_nobody_with_success() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let (node, disk) = node_on(&forum, &place).await;
    disk.store(BROKEN, Ordering::SeqCst);
    let refused = node.writer.submit(prepared(&forum, "r-1", b"one", Lane::Routine)).await;
    assert_eq!(refused.unwrap_err().reason, Reason::ShuttingDown);
    disk.store(SOUND, Ordering::SeqCst);
    // Also what comes after it: only a new start knows what is durable.
    let after = node.writer.submit(prepared(&forum, "r-2", b"two", Lane::Routine)).await;
    assert_eq!(after.unwrap_err().reason, Reason::ShuttingDown);
    assert!(matches!(node.ended().await, Err(WriterError::Append(AppendError::OutcomeUnknown { .. }))));
}
