//! Numbers of what is said again and again about one thing: changes of a participant, settings of a contact point, decisions about a role.
//!
//! Invariant: what holds is the same in whatever order a hub that lost data is handed them back. So each takes exactly the number after the
//! last; and where a hub that had lost one gave its number out again, and both came back, the one that was made later is the newer.

use concord_model::{Digest, Reason, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::statement::Statement;

/// How far after the last known number one that is handed back may lie.
const CHANGES_AHEAD_MAX: u32 = 1000;

/// Which of several it is: the greatest is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision {
    /// The number. What begins a thing has 0; of what changes it the first has 1.
    pub number: u32,
    /// When it was made, by its officer's clock: it decides between two of one number.
    pub made_at: Timestamp,
    /// The statement that says so; of two that were made in one microsecond, its digest decides.
    pub statement: Digest,
}

impl Revision {
    pub(crate) fn of(statement: &Statement, number: u32) -> Self {
        Self { number, made_at: statement.made_at, statement: statement.digest }
    }
}

/// Whether a number that is said now is exactly the next. What it is about says `what`, where it is not.
///
/// Refuses with `REGISTRY_CHANGED`.
pub(crate) fn check_next(number: u32, last: u32, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if last.checked_add(1) == Some(number) {
        return Ok(());
    }
    Err(Refusal::new(Reason::RegistryChanged, what()))
}

/// Whether a number that is handed back can mean anything: those before it may have yet to come back, but it may not be so far ahead that it
/// would leave none for the next. `what` names it, where it cannot.
///
/// Refuses with `REGISTRY_CHANGED`.
pub(crate) fn check_handed(number: u32, last: u32, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if (1..=last.saturating_add(CHANGES_AHEAD_MAX)).contains(&number) {
        return Ok(());
    }
    let what = format!("{} is too far from the last one known, {last}", what());
    Err(Refusal::new(Reason::RegistryChanged, what))
}
