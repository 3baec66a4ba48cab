//! Writing snapshots while serving, behind what is published.

use std::time::Duration;

use concord_journal::Tail;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::folder::Snapshots;

/// A snapshot is written when the journal is this many entries beyond the last one: so many a start folds at most, and
/// those of one period.
pub const SNAPSHOT_ENTRIES: u64 = 8_192;
/// A snapshot is written this often, if there are new entries at all.
pub const SNAPSHOT_PERIOD_SECONDS: u64 = 600;

/// Writes a snapshot of what is published whenever one is due, until the publisher is gone. `last` is the entry of the last
/// snapshot. A failure is logged and counted; the next one is due as if it had been written.
pub async fn keep<P, S>(
    snapshots: Snapshots,
    mut published: watch::Receiver<P>,
    last: Option<Tail>,
    of: impl Fn(&P) -> (S, Tail),
) where
    S: Serialize + Send + 'static,
{
    let period = Duration::from_secs(SNAPSHOT_PERIOD_SECONDS);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = last.map_or(0, |last| last.sequence);
    let mut entries_due = SNAPSHOT_ENTRIES;
    loop {
        let (state, tail) = of(&published.borrow_and_update());
        if tail.sequence.saturating_sub(last) >= entries_due {
            last = tail.sequence;
            entries_due = SNAPSHOT_ENTRIES;
            let snapshots = snapshots.clone();
            let written = tokio::task::spawn_blocking(move || snapshots.write(&state, tail)).await;
            match written {
                Ok(Ok(())) => tracing::debug!(entry = tail.sequence, "snapshot written"),
                Ok(Err(error)) => failed(&error),
                Err(error) => failed(&error),
            }
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() {
                return;
            },
            _ = ticks.tick() => entries_due = 1,
        }
    }
}

fn failed(error: &dyn std::error::Error) {
    metrics::counter!("concord_snapshot_failures_total").increment(1);
    tracing::warn!(%error, "a snapshot could not be written: the next start folds more entries");
}
