//! What the recipients' nodes have yet to acknowledge, for `status` and for the metrics. Counts and ages: no exchange is named.

use std::sync::Weak;
use std::time::Duration;

use concord_journal::Entry;
use concord_model::{Lane, ParticipantCode, Refusal, Role};
use concord_server::{Connections, Overdue};
use concord_wire::stored::hub::{HubEntry, read};
use tokio::time::Instant;

use crate::away::{Away, AwayAfter};
use crate::overdue;
use crate::projection::{Run, run_with};
use crate::shared::{Shared, internal};

/// How often the metrics are measured anew.
const MEASURE_INTERVAL_SECONDS: u64 = 10;

/// What one recipient has in one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// Whose mailbox.
    pub recipient: ParticipantCode,
    /// Its lane.
    pub lane: Lane,
    /// Deliveries that its node has yet to acknowledge.
    pub items: u64,
    /// How long ago the oldest of them was recorded; 0 where none waits.
    pub seconds: f64,
    /// Whether the oldest of them is an exercise.
    pub exercise: bool,
}

/// Of every mailbox that ever had something. Blocks: it looks into views and journal.
pub fn lags(shared: &Shared) -> Result<Vec<Lag>, Refusal> {
    let published = shared.published();
    let now = shared.clock.now();
    let mut lags = Vec::new();
    for (recipient, lane, mailbox) in published.ledger.mailboxes().iter() {
        let items = mailbox.last.saturating_sub(mailbox.delivered_through);
        if mailbox.last == 0 {
            continue;
        }
        let oldest = match items {
            0 => None,
            _ => run_with(&shared.views, &shared.hub, recipient, lane, mailbox.delivered_through + 1)
                .map_err(internal)?,
        };
        let (recorded_at, exercise) = match oldest {
            Some(run) => {
                let entry = shared.entry(run.sequence)?;
                (Some(entry.recorded_at), is_exercise(&entry, &run, mailbox.delivered_through + 1)?)
            }
            None => (None, false),
        };
        let seconds = recorded_at.map_or(0.0, |at| (now.as_micros() - at).max(0) as f64 / 1e6);
        lags.push(Lag { recipient: recipient.clone(), lane, items, seconds, exercise });
    }
    Ok(lags)
}

fn is_exercise(entry: &Entry, run: &Run, number: u64) -> Result<bool, Refusal> {
    let HubEntry::Consignment(_, kept) = read(entry).map_err(internal)? else { return Ok(false) };
    let header = run.index(number).and_then(|index| kept.sealed.headers.get(index as usize));
    Ok(header.is_some_and(|header| concord_wire::header::is_exercise(header)))
}

/// Keeps the gauges of participants until the hub ends: what waits for each, and whose node is connected. What waits for too long is noted, and
/// which node is away for too long.
pub async fn keep_measured(
    shared: Weak<Shared>,
    connections: Connections,
    (overdue_after, away_after): (Overdue, AwayAfter),
) {
    let mut away = Away::default();
    while let Some(shared) = shared.upgrade() {
        match shared.blocking(lags).await {
            Ok(lags) => {
                lags.iter().for_each(show);
                overdue::note(&shared.readiness, overdue_after, &lags);
            }
            // Told elsewhere: what cannot be read raises its own alarm.
            Err(refusal) => tracing::debug!(reason = %refusal.reason, "what waits could not be measured"),
        }
        let nodes: Vec<_> = connections.list().into_iter().filter(|one| one.identity.role == Role::Node).collect();
        let is_connected = |code: &ParticipantCode| nodes.iter().any(|node| node.identity.participant == *code);
        let (published, now) = (shared.published(), Instant::now());
        for (code, _) in published.ledger.registry().enrolments() {
            let connected = f64::from(is_connected(code));
            metrics::gauge!("concord_node_connected", "participant" => code.to_string()).set(connected);
        }
        away.look(&published.ledger, is_connected, (now, shared.clock.shown()));
        away.note(&shared.readiness, away_after, now);
        drop(shared);
        tokio::time::sleep(Duration::from_secs(MEASURE_INTERVAL_SECONDS)).await;
    }
}

fn show(lag: &Lag) {
    let labels = [("participant", lag.recipient.to_string()), ("lane", lag.lane.to_string())];
    metrics::gauge!("concord_mailbox_waiting_deliveries", &labels).set(lag.items as f64);
    metrics::gauge!("concord_mailbox_oldest_waiting_seconds", &labels).set(lag.seconds);
}
