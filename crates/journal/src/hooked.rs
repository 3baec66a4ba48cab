//! A journal in memory whose appends a test holds up, refuses or breaks, and whose readers it interrupts.

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    AppendError, Base, Blob, Bodies, Body, Committed, Draft, Entry, Held, HistoryId, Journal, MemoryJournal, MendError,
    PreparedTrim, ReadError, Redacted, Tail, Trim, TrimError,
};

/// What a test does to an append.
pub trait AppendHook: Send + Sync {
    /// As [`Journal::append`], over the journal behind it.
    fn append(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        batch: Vec<Draft>,
    ) -> BoxFuture<'static, Result<Committed, AppendError>>;

    /// As [`Journal::redact`]; straight, unless a test says otherwise.
    fn redact(
        &self,
        inner: &MemoryJournal,
        expected: Tail,
        recorded_at: i64,
        bodies: Vec<Bodies>,
    ) -> BoxFuture<'static, Result<Redacted, AppendError>> {
        inner.redact(expected, recorded_at, bodies)
    }

    /// As [`Journal::kept_from`]; straight, unless a test lets something happen beside a reader.
    fn kept_from(&self, inner: &MemoryJournal, from: u64) -> Option<u64> {
        inner.kept_from(from)
    }
}

/// A journal in memory whose appends, redactions and look-ups of what is kept go through a hook; all else goes straight.
pub struct HookedJournal<H> {
    /// The journal behind it.
    pub inner: MemoryJournal,
    /// What is done to them.
    pub hook: H,
}

impl<H: AppendHook> Journal for HookedJournal<H> {
    fn append(&self, expected: Tail, batch: Vec<Draft>) -> BoxFuture<'static, Result<Committed, AppendError>> {
        self.hook.append(&self.inner, expected, batch)
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
        self.hook.redact(&self.inner, expected, recorded_at, bodies)
    }

    fn mend(&self, sequence: u64, index: usize, body: Blob) -> BoxFuture<'static, Result<(), MendError>> {
        self.inner.mend(sequence, index, body)
    }

    fn trim_point(&self, before: u64) -> Option<u64> {
        self.inner.trim_point(before)
    }

    fn held_before(&self, first_kept: u64) -> Held {
        self.inner.held_before(first_kept)
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

    fn kept_from(&self, from: u64) -> Option<u64> {
        self.hook.kept_from(&self.inner, from)
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
