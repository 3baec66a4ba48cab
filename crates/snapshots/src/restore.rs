//! A state at a start: the newest snapshot, or the base of a trimmed journal, and the entries after it.

use std::time::{Duration, Instant};

use concord_journal::{Entry, Journal, ReadError, Tail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file::{Form, Unusable, decode, encode};
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

/// Folds a journal, from its newest usable snapshot on, or else from its base. Says on the log how far it is when it takes more than
/// a second.
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
    let (state, next) = match found.state {
        Some((state, tail)) => (state, tail.sequence + 1),
        None => beginning(snapshots.form(), journal)?,
    };
    let tail = journal.tail();
    let state = fold(journal, state, next, tail.sequence, &mut apply)?;
    tracing::info!(entry = tail.sequence, snapshot = snapshot.map(|tail| tail.sequence), "the journal is folded");
    Ok(Restored { state, tail, snapshot, lost: found.lost })
}

/// What a base is to carry that is to stand for all entries before `first_kept`: their state, as a snapshot has it. Empty where that is
/// too large: then a start folds what is kept.
///
/// Blocks for as long as there is to read.
pub fn state_before<S, E>(
    form: Form,
    journal: &dyn Journal,
    first_kept: u64,
    mut apply: impl FnMut(&mut S, &Entry) -> Result<(), E>,
) -> Result<Vec<u8>, E>
where
    S: Default + Serialize + DeserializeOwned,
    E: From<ReadError>,
{
    let (state, next) = beginning::<S>(form, journal)?;
    let last = first_kept.saturating_sub(1);
    let tail = journal.head(last)?.tail();
    let through = if concord_faults::planted("stand-for-one-entry-less") { last - 1 } else { last };
    let state = fold(journal, state, next, through, &mut apply)?;
    Ok(encode(form, &state, tail).unwrap_or_else(|error| {
        tracing::warn!(
            error,
            "the base of a trimmed journal has no state: a start without a snapshot folds what is kept"
        );
        Vec::new()
    }))
}

/// What a fold begins with where no snapshot helps, and the entry with which it goes on: the state of the base, or nothing and the first
/// entry that can be read.
///
/// Invariant: a base's state is as much a cache as a snapshot, since every entry that folding needs is kept. So one of another version
/// of the program is passed over.
fn beginning<S: Default + DeserializeOwned>(form: Form, journal: &dyn Journal) -> Result<(S, u64), ReadError> {
    let Some(base) = journal.base()? else { return Ok((S::default(), 1)) };
    match decode::<S>(form, &base.state) {
        Ok((state, tail)) if tail == base.before => Ok((state, tail.sequence + 1)),
        found => {
            let why = match found {
                _ if base.state.is_empty() => "it has none",
                Err(Unusable::OtherVersion) => "it is not of this version",
                // The base's own checksum holds, so it was written so.
                Err(Unusable::Damaged(_) | Unusable::State(_)) => "it cannot be read",
                Ok(_) => "it is of another entry",
            };
            tracing::info!(
                entry = base.before.sequence,
                why,
                "the state of the base is of no use: what is kept is folded"
            );
            Ok((S::default(), 1))
        }
    }
}

/// Applies the entries `next..=last`.
fn fold<S, E: From<ReadError>>(
    journal: &dyn Journal,
    mut state: S,
    mut next: u64,
    last: u64,
    apply: &mut impl FnMut(&mut S, &Entry) -> Result<(), E>,
) -> Result<S, E> {
    let mut told = Instant::now();
    while next <= last {
        let entries = journal.recall(next, ENTRIES_READ_AT_ONCE)?;
        let Some(read) = entries.last() else { break };
        next = read.sequence + 1;
        for entry in entries.iter().take_while(|entry| entry.sequence <= last) {
            apply(&mut state, entry)?;
        }
        if told.elapsed() >= Duration::from_secs(PROGRESS_SECONDS) {
            told = Instant::now();
            tracing::info!(entry = next - 1, of = last, "the journal is being folded");
        }
    }
    Ok(state)
}
