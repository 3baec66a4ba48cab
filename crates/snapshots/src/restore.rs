//! A state at a start: the newest snapshot, and the entries after it.

use std::time::{Duration, Instant};

use concord_journal::{Entry, Journal, ReadError, Tail};
use serde::de::DeserializeOwned;

use crate::folder::Snapshots;

/// Entries that are read at once.
const ENTRIES_READ_AT_ONCE: usize = 1_024;
/// A start that folds for longer says how far it is, this often.
const PROGRESS_SECONDS: u64 = 1;

/// The state of a journal's tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored<S> {
    /// The fold of all entries.
    pub state: S,
    /// The last entry of it: the journal's tail.
    pub tail: Tail,
    /// The entry of the snapshot that it began with.
    pub snapshot: Option<Tail>,
    /// A snapshot knew an entry that the journal does not have: acknowledged data was lost, raise it.
    pub lost: Option<Tail>,
}

/// Folds a journal, from its newest usable snapshot on. Says on the log how far it is when it takes more than a second.
///
/// Blocks for as long as there is to read.
pub fn restore<S, E>(
    snapshots: &Snapshots,
    journal: &dyn Journal,
    mut apply: impl FnMut(&mut S, &Entry) -> Result<(), E>,
) -> Result<Restored<S>, E>
where
    S: Default + DeserializeOwned,
    E: From<ReadError>,
{
    let found = snapshots.newest::<S>(journal)?;
    let snapshot = found.state.as_ref().map(|(_, tail)| *tail);
    let (mut state, mut next) = match found.state {
        Some((state, tail)) => (state, tail.sequence + 1),
        None => (S::default(), journal.first_sequence()),
    };
    let tail = journal.tail();
    let mut told = Instant::now();
    while next <= tail.sequence {
        let wanted = usize::try_from(tail.sequence - next + 1).unwrap_or(usize::MAX).min(ENTRIES_READ_AT_ONCE);
        let entries = journal.read(next, wanted)?;
        for entry in &entries {
            apply(&mut state, entry)?;
        }
        next += entries.len() as u64;
        if told.elapsed() >= Duration::from_secs(PROGRESS_SECONDS) {
            told = Instant::now();
            tracing::info!(entry = next - 1, of = tail.sequence, "the journal is being folded");
        }
    }
    tracing::info!(entry = tail.sequence, snapshot = snapshot.map(|tail| tail.sequence), "the journal is folded");
    Ok(Restored { state, tail, snapshot, lost: found.lost })
}
