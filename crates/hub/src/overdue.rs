//! What waits too long at the hub for a recipient's node to acknowledge it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use concord_model::Timestamp;
use concord_server::Overdue;

use crate::lags::lags;
use crate::shared::Shared;

/// How often it is looked.
const LOOK_SECONDS: u64 = 10;
const OVERDUE_NOTE: &str = "overdue";

/// Notes whose mail is overdue, while the hub runs.
pub async fn keep_noted(shared: Weak<Shared>, limits: Overdue) {
    // A start has enough to read without it.
    let period = Duration::from_secs(LOOK_SECONDS);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        look(&shared, limits).await;
    }
}

async fn look(shared: &Arc<Shared>, limits: Overdue) {
    let lags = match shared.blocking(lags).await {
        Ok(lags) => lags,
        Err(refusal) => return tracing::warn!(%refusal, "what is overdue could not be looked up"),
    };
    let mut overdue = Vec::new();
    for lag in &lags {
        let waited = Timestamp::from_micros((lag.seconds * 1e6) as i64);
        if limits.is(lag.lane, Timestamp::from_micros(0), waited) {
            let (items, recipient, lane, seconds) = (lag.items, &lag.recipient, lag.lane, lag.seconds);
            overdue.push(format!("{items} for {recipient} on lane {lane}, the oldest for {seconds:.0} s"));
        }
    }
    if overdue.is_empty() {
        return shared.readiness.clear(OVERDUE_NOTE);
    }
    let what = format!("exchanges wait for a recipient's node: {}. Is it there, and is it held?", overdue.join("; "));
    shared.readiness.note(OVERDUE_NOTE, what);
}
