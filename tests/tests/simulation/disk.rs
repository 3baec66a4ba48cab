//! A machine's journal: durable some simulated time after it was asked for, and after a crash there up to some entry of the last
//! commit.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use concord_journal::{
    AppendError, Base, Blob, Bodies, Body, Committed, Draft, Entry, Fault, Held, HistoryId, Journal, MemoryJournal,
    MendError, PreparedTrim, ReadError, Redacted, Tail, Trim, TrimError,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::chance::Chance;

/// Syncs take up to so long, one in twenty up to twenty times as long.
const SYNC_MILLISECONDS_MAX: u64 = 20;
/// Syncs of a disk that is steady.
const STEADY_SYNC_MILLISECONDS: u64 = 5;

/// What survives a crash. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    durable: Mutex<MemoryJournal>,
    moving: Mutex<Moving>,
}

struct Moving {
    /// Handed over and not yet durable.
    unsynced: Option<(Tail, Vec<Draft>)>,
    full: bool,
    /// Every sync takes the same time.
    steady: bool,
    /// By entry and index: bodies that the disk does not give back any more, until they are mended.
    damaged: BTreeSet<(u64, usize)>,
    mended: u64,
    chance: Chance,
}

/// What a crash did to the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// There was none under way.
    Clean,
    /// So many of its entries are there, and nothing shows that there were more.
    Kept(usize),
    /// So many of its entries are there, the rest was torn and cut, and a new history began.
    Cut(usize),
}

impl Disk {
    pub(crate) fn new(durable: MemoryJournal, chance: Chance) -> Self {
        let moving = Mutex::new(Moving {
            unsynced: None,
            full: false,
            steady: false,
            damaged: BTreeSet::new(),
            mended: 0,
            chance,
        });
        Self(Arc::new(Inner { durable: Mutex::new(durable), moving }))
    }

    /// What is durable, for whoever looks on from outside.
    pub(crate) fn durable(&self) -> MemoryJournal {
        self.0.durable()
    }

    /// Somebody puts an older copy in the place of what is there, while nobody has it open.
    pub(crate) fn put_back(&self, copy: MemoryJournal) {
        *self.0.durable.lock().unwrap_or_else(PoisonError::into_inner) = copy;
        self.0.moving().damaged.clear();
    }

    /// Damages the bodies of one entry that `may_be` damaged, from some entry on; which it was, if there is one.
    pub(crate) fn damage(&self, chance: &mut Chance, may_be: impl Fn(&Entry) -> bool) -> Option<u64> {
        let durable = self.durable();
        let from = 1 + chance.below(durable.tail().sequence);
        let fit = (from..=durable.tail().sequence).filter_map(|sequence| durable.entry(sequence).ok());
        let entry = fit.into_iter().find(|entry| entry.blobs.iter().any(Option::is_some) && may_be(entry))?;
        let bodies = (0..entry.blobs.len()).map(|index| (entry.sequence, index));
        self.0.moving().damaged.extend(bodies);
        Some(entry.sequence)
    }

    /// How many bodies were put back.
    pub(crate) fn mended(&self) -> u64 {
        self.0.moving().mended
    }

    /// Whether it refuses what is appended for want of room.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.moving().full = full;
    }

    /// From now on every sync takes the same time, so that one more changes nothing for those that come later.
    pub(crate) fn be_steady(&self) {
        self.0.moving().steady = true;
    }

    /// The machine lost power, and is opened again at `now`, in microseconds since the Unix epoch.
    pub(crate) fn crash(&self, now: i64) -> Crash {
        let (unsynced, keep, torn, history) = {
            let mut moving = self.0.moving();
            let unsynced = moving.unsynced.take();
            let count = unsynced.as_ref().map_or(0, |(_, drafts)| drafts.len());
            let keep = moving.chance.below(count as u64 + 1) as usize;
            let torn = moving.chance.one_in(2) && keep < count;
            let mut history = [0; 16];
            history[..8].copy_from_slice(&moving.chance.next().to_le_bytes());
            (unsynced, keep, torn, HistoryId(history))
        };
        let Some((tail, drafts)) = unsynced else { return Crash::Clean };
        if keep > 0 {
            let kept = self.0.durable().append(tail, drafts[..keep].to_vec()).now_or_never();
            assert!(matches!(kept, Some(Ok(_))), "the beginning of a commit was not taken: {kept:?}");
        }
        if !torn {
            return Crash::Kept(keep);
        }
        let begun = self.0.durable().begin_history(self.0.durable().tail(), history, now).now_or_never();
        assert!(matches!(begun, Some(Ok(_))), "a history could not begin: {begun:?}");
        Crash::Cut(keep)
    }
}

impl Inner {
    /// As a read of the file says it.
    fn check(&self, sequence: u64, index: Option<usize>) -> Result<(), ReadError> {
        let moving = self.moving();
        let found =
            moving.damaged.range((sequence, index.unwrap_or(0))..=(sequence, index.unwrap_or(usize::MAX))).next();
        let Some((_, index)) = found else { return Ok(()) };
        let (file, what) = ("the simulated disk".to_owned(), Fault::Commitment { index: *index });
        Err(ReadError::Damaged { sequence, file, offset: 0, what })
    }

    fn durable(&self) -> MemoryJournal {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn moving(&self) -> std::sync::MutexGuard<'_, Moving> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Disk {
    fn append(&self, expected: Tail, batch: Vec<Draft>) -> BoxFuture<'static, Result<Committed, AppendError>> {
        let disk = Arc::clone(&self.0);
        Box::pin(async move {
            let sync = {
                let mut moving = disk.moving();
                moving.unsynced = Some((expected, batch.clone()));
                if moving.steady {
                    Duration::from_millis(STEADY_SYNC_MILLISECONDS)
                } else {
                    let slow = if moving.chance.one_in(20) { 20 } else { 1 };
                    Duration::from_millis(moving.chance.within(1..SYNC_MILLISECONDS_MAX) * slow)
                }
            };
            tokio::time::sleep(sync).await;
            {
                let mut moving = disk.moving();
                if moving.full {
                    moving.unsynced = None;
                    let size = batch.iter().map(Draft::size_bytes).sum();
                    return Err(AppendError::NoRoom { size, reason: "the simulated disk is full".to_owned() });
                }
            }
            let committed = disk.durable().append(expected, batch).await;
            disk.moving().unsynced = None;
            committed
        })
    }

    fn begin_history(
        &self,
        expected: Tail,
        new: HistoryId,
        recorded_at: i64,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.0.durable().begin_history(expected, new, recorded_at)
    }

    fn redact(
        &self,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        self.0.durable().redact(expected, recorded_at, bodies)
    }

    fn mend(&self, sequence: u64, index: usize, body: Blob) -> BoxFuture<'static, Result<(), MendError>> {
        let (disk, mending) = (Arc::clone(&self.0), self.0.durable().mend(sequence, index, body));
        Box::pin(async move {
            mending.await?;
            let mut moving = disk.moving();
            moving.mended += u64::from(moving.damaged.remove(&(sequence, index)));
            Ok(())
        })
    }

    fn trim_point(&self, before: u64) -> Option<u64> {
        self.0.durable().trim_point(before)
    }

    fn held_before(&self, first_kept: u64) -> Held {
        self.0.durable().held_before(first_kept)
    }

    fn prepare_trim(&self, trim: Trim) -> Result<PreparedTrim, TrimError> {
        self.0.durable().prepare_trim(trim)
    }

    fn trim(
        &self,
        expected: Tail,
        recorded_at: i64,
        prepared: PreparedTrim,
    ) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.0.durable().trim(expected, recorded_at, prepared)
    }

    fn base(&self) -> Result<Option<Base>, ReadError> {
        self.0.durable().base()
    }

    fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        self.0.durable().read(from, max_entries)
    }

    fn kept_from(&self, from: u64) -> Option<u64> {
        self.0.durable().kept_from(from)
    }

    fn entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        self.0.check(sequence, None)?;
        self.0.durable().entry(sequence)
    }

    fn blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError> {
        self.0.check(sequence, Some(index))?;
        self.0.durable().blob(sequence, index)
    }

    fn bodies(&self, sequence: u64) -> Result<Vec<Body>, ReadError> {
        self.0.durable().bodies(sequence)
    }

    fn tail(&self) -> Tail {
        self.0.durable().tail()
    }

    fn watch(&self) -> watch::Receiver<Tail> {
        self.0.durable().watch()
    }

    fn first_sequence(&self) -> u64 {
        self.0.durable().first_sequence()
    }
}
