//! What waits too long at the hub for a recipient's node to acknowledge it.

use concord_model::Timestamp;
use concord_server::{Overdue, Readiness};

use crate::lags::Lag;

const OVERDUE_NOTE: &str = "overdue";

/// Notes whose mail is overdue, by what waits now.
pub fn note(readiness: &Readiness, limits: Overdue, lags: &[Lag]) {
    let mut overdue = Vec::new();
    for Lag { recipient, lane, items, seconds, exercise } in lags {
        let waited = Timestamp::from_micros((seconds * 1e6) as i64);
        if limits.is(*lane, Timestamp::from_micros(0), waited) {
            let what = if *exercise { "EXERCISE: " } else { "" };
            overdue.push(format!("{what}{items} for {recipient} on lane {lane}, the oldest for {seconds:.0} s"));
        }
    }
    if overdue.is_empty() {
        return readiness.clear(OVERDUE_NOTE);
    }
    let what = format!("exchanges wait for a recipient's node: {}. Is it there, and is it held?", overdue.join("; "));
    readiness.note(OVERDUE_NOTE, what);
}
