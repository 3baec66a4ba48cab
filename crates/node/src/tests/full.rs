//! A disk without room, and one that fails: what the writer leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use concord_journal::hooked::{AppendHook, HookedJournal};
use concord_journal::{AppendError, Bodies, Committed, Draft, Journal as _, MemoryJournal, Redacted, Tail};
use concord_model::{Lane, Reason};
use concord_wire::stored::node::{NodeEntry, read};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::support::{Forum, Running, founded, prepared};
use crate::writer::WriterError;

pub(super) const SOUND: u8 = 0;
pub(super) const FULL: u8 = 1;
const BROKEN: u8 = 2;

/// A disk that is as a test says.
struct Disk(Arc<AtomicU8>);

impl AppendHook for Disk {
    fn append(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        batch: Vec<Draft>,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        match self.0.load(Ordering::SeqCst) {
            FULL => {
                async { Err(AppendError::NoRoom { size: 1, reason: "the test's disk is full".to_owned() }) }.boxed()
            }
            BROKEN => {
                async { Err(AppendError::OutcomeUnknown { reason: "the test's sync failed".to_owned() }) }.boxed()
            }
            _ => inner.append(expected, batch),
        }
    }

    /// As a journal that could only finish an earlier redaction: no error, and nothing of this one.
    fn redact(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        match self.0.load(Ordering::SeqCst) {
            FULL => async move { Ok(Redacted { tail: expected, recorded: false, gone: false }) }.boxed(),
            _ => inner.redact(expected, recorded_at, bodies),
        }
    }
}

pub(super) async fn node_on(forum: &Forum, place: &tempfile::TempDir) -> (Running, Arc<AtomicU8>) {
    let journal = founded(forum).await;
    let disk = Arc::new(AtomicU8::new(SOUND));
    let on_disk = Arc::new(HookedJournal { inner: journal.clone(), hook: Disk(Arc::clone(&disk)) });
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
    let NodeEntry::Queued(queued) = read(&entries[0]).unwrap() else { panic!("nothing was queued") };
    let kept = queued.kept;
    assert_eq!((kept.sealed.number, kept.sealed.previous.0), (1, concord_model::Digest::ZERO));
    let snapshots = crate::open::snapshots(place.path().join("none"));
    let folded = crate::open::fold(&snapshots, &node.journal).unwrap().state;
    assert_eq!(folded, *node.now(), "the state is not what the journal folds to");
}

#[tokio::test]
async fn bodies_that_stay_for_want_of_room_are_not_said_to_be_gone() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let (node, disk) = node_on(&forum, &place).await;
    node.writer.submit(prepared(&forum, "r-1", b"one", Lane::Routine)).await.unwrap();
    let sequence = node.journal.tail().sequence;
    let redact = || node.writer.redact(vec![Bodies { sequence, first: 0, count: 2 }]);
    disk.store(FULL, Ordering::SeqCst);
    assert_eq!(redact().await.unwrap_err().reason, Reason::DiskFull);
    assert!(node.journal.bodies(sequence).unwrap().iter().all(|body| !body.is_gone));
    disk.store(SOUND, Ordering::SeqCst);
    redact().await.unwrap();
    assert!(node.journal.bodies(sequence).unwrap().iter().all(|body| body.is_gone));
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
