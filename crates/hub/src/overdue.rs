//! What waits too long at the hub for a recipient's node to acknowledge it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use concord_model::{Lane, Timestamp};
use concord_server::Overdue;

use crate::services::operations::lags;
use crate::shared::Shared;

/// How often it is looked.
const LOOK_SECONDS: u64 = 30;
const OVERDUE_NOTE: &str = "overdue";

/// Notes whose mail is overdue, while the hub runs.
pub async fn keep_noted(shared: Weak<Shared>, limits: Overdue) {
    let mut tick = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
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
        let labels = [("participant", lag.participant.clone()), ("lane", lag.lane.clone())];
        metrics::gauge!("concord_mailbox_lag_exchanges", &labels).set(lag.items as f64);
        metrics::gauge!("concord_mailbox_lag_seconds", &labels).set(lag.seconds);
        let waited = Timestamp::from_micros((lag.seconds * 1e6) as i64);
        let lane = Lane::ALL.into_iter().find(|lane| lane.as_str() == lag.lane);
        if lane.is_some_and(|lane| limits.is(lane, Timestamp::from_micros(0), waited)) {
            overdue.push(format!(
                "{} for {} on lane {}, the oldest for {:.0} s",
                lag.items, lag.participant, lag.lane, lag.seconds
            ));
        }
    }
    if overdue.is_empty() {
        return shared.readiness.clear(OVERDUE_NOTE);
    }
    let what = format!("exchanges wait for a recipient's node: {}. Is it there, and is it held?", overdue.join("; "));
    shared.readiness.note(OVERDUE_NOTE, what);
}
