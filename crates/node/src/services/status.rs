//! The status of a node: counts and times, never titles or bodies. Ids of exchanges only where content is lost for good (`not-healed`):
//! what cannot be healed is listed.

use std::time::Duration;

use bytes::Bytes;
use concord_model::{Lane, Name, Timestamp};
use concord_server::{Certificates, ClockOffset};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1::{
    AgencyStatus, GetStatusResponse, JournalTail, LaneProbe, MailboxStatus, NodeStatus, get_status_response,
};

use super::aside;
use crate::context::Context;
use crate::index::IndexError;
use crate::probe::{Lost, Probed};
use crate::reminding::Pending;
use crate::state::rights::{About, entitled, owed};
use crate::state::{Agency, NodeState, Officer};

/// Deliveries that are counted for one agency and lane; a longer lag shows as this.
const LAG_COUNTED_MAX: usize = 100_000;
const ROWS_AT_ONCE: usize = 4096;
/// How often what waits for agencies is counted for the metrics.
const MEASURE_INTERVAL_SECONDS: u64 = 60;
const FIRST_MEASURE_AFTER_SECONDS: u64 = 5;
const MICROS_PER_SECOND: f64 = 1_000_000.0;

/// What does not change while the process runs.
#[derive(Clone)]
pub(crate) struct Started {
    pub(crate) at: Timestamp,
    /// These do change: what is kept of them is shared.
    pub(crate) certificates: Certificates,
}

pub(crate) fn status(context: &Context, started: &Started) -> Result<GetStatusResponse, IndexError> {
    let state = context.now_state();
    let tail = context.index.journal().tail();
    let (alarms, notes) = context.readiness.in_words();
    Ok(GetStatusResponse {
        participant: context.participant.to_string(),
        name: context.node.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(timestamp(started.at)),
        journal: Some(JournalTail {
            history: Bytes::copy_from_slice(tail.history.as_bytes()),
            sequence: tail.sequence,
            digest: Bytes::copy_from_slice(tail.digest.as_bytes()),
        }),
        certificate_not_after: started.certificates.own_not_after().map(timestamp),
        certificates: started.certificates.list(),
        alarms,
        notes,
        role: Some(get_status_response::Role::Node(node(context, &state)?)),
    })
}

fn node(context: &Context, state: &NodeState) -> Result<NodeStatus, IndexError> {
    let outbox_statements: usize = state.officers().values().map(|officer| Officer::waiting(officer).count()).sum();
    let pending = Pending::of(state, &context.participant);
    let agencies = state.all_agencies().map(|agency| {
        let (lag_items, lag_seconds) = lag(context, state, agency)?;
        Ok(AgencyStatus { name: agency.name.to_string(), lag_items, lag_seconds })
    });
    let mailboxes = Lane::ALL.into_iter().map(|lane| {
        Ok(MailboxStatus {
            lane: lane.to_string(),
            received_through: state.mailbox(lane).received_through,
            set_aside: state.mailbox(lane).set_aside_count,
            uncollected: uncollected(context, state, lane)?,
            set_aside_waiting: aside::count_waiting(&context.index, lane)?,
        })
    });
    Ok(NodeStatus {
        hub: state.hub().map(|hub| hub.name.to_string()).unwrap_or_default(),
        hub_connected: context.contact.is_connected(),
        hub_contact_at: context.contact.last().map(timestamp),
        outbox_exchanges: Lane::ALL.iter().map(|lane| state.unrecorded_exchanges(*lane)).sum(),
        outbox_statements: outbox_statements as u64,
        feed_number: state.feed().number,
        agreements_pending: pending.count,
        agreements_pending_since: pending.since.map(timestamp),
        clock_offset_seconds: context.contact.clock_offset(context.clock.shown()).map(ClockOffset::seconds),
        mailboxes: mailboxes.collect::<Result<_, IndexError>>()?,
        agencies: agencies.collect::<Result<_, IndexError>>()?,
        probes: Lane::ALL
            .into_iter()
            .filter_map(|lane| context.probes.last(lane).map(|last| lane_probe(lane, last)))
            .collect(),
    })
}

/// What became of a probe, as it is told.
pub(super) fn lane_probe(lane: Lane, probed: Probed) -> LaneProbe {
    LaneProbe {
        lane: lane.to_string(),
        seconds: probed.took.ok().map(|took| took.as_secs_f64()),
        lost: probed.took.err().map(Lost::in_words).unwrap_or_default().to_owned(),
        at: Some(timestamp(probed.at)),
    }
}

/// Keeps the gauges of what waits for agencies, until the node ends.
pub(crate) async fn keep_measured(context: Context) {
    // A start has enough to read without it.
    tokio::time::sleep(Duration::from_secs(FIRST_MEASURE_AFTER_SECONDS)).await;
    loop {
        let counted = context.clone();
        let measured = concord_server::blocking(move || measure(&counted)).await;
        if let Ok(Err(error)) = measured {
            // Told elsewhere: what cannot be read raises its own alarm.
            tracing::debug!(%error, "what waits for agencies could not be counted");
        }
        tokio::time::sleep(Duration::from_secs(MEASURE_INTERVAL_SECONDS)).await;
    }
}

fn measure(context: &Context) -> Result<(), IndexError> {
    let state = context.now_state();
    let show = |agency: &Name, items: u64, seconds: f64| {
        metrics::gauge!("concord_agency_waiting_deliveries", "agency" => agency.to_string()).set(items as f64);
        metrics::gauge!("concord_agency_oldest_waiting_seconds", "agency" => agency.to_string()).set(seconds);
    };
    state.ended_agencies().iter().for_each(|name| show(name, 0, 0.0));
    for agency in state.all_agencies() {
        let (items, seconds) = lag(context, &state, agency)?;
        show(&agency.name, items, seconds);
    }
    Ok(())
}

/// How many deliveries an agency has not acknowledged, and how many seconds ago the oldest of them came.
fn lag(context: &Context, state: &NodeState, agency: &Agency) -> Result<(u64, f64), IndexError> {
    let (mut items, mut oldest) = (0, None::<Timestamp>);
    for lane in Lane::ALL {
        let (mut from, mut counted) = (agency.from(lane) + 1, 0);
        while counted < LAG_COUNTED_MAX && from <= state.mailbox(lane).received_through {
            let rows = context.index.inbox(lane, from, ROWS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            from = last + 1;
            counted += rows.len();
            for (number, row) in &rows {
                if !row.is_late && owed(agency, &row.about, lane, *number).is_some() {
                    let came = Timestamp::from_micros(row.delivered_at);
                    items += 1;
                    oldest = Some(oldest.map_or(came, |oldest| oldest.min(came)));
                }
            }
        }
    }
    for ((lane, number), late) in state.late() {
        if late.is_owed_to(agency, *lane, *number) {
            items += 1;
            oldest = Some(oldest.map_or(late.at, |oldest| oldest.min(late.at)));
        }
    }
    let age = |since: Timestamp| context.clock.now().as_micros().saturating_sub(since.as_micros()).max(0);
    Ok((items, oldest.map_or(0.0, |since| age(since) as f64 / MICROS_PER_SECOND)))
}

/// How many deliveries of a lane no agency has taken, and none may have.
pub(crate) fn uncollected(context: &Context, state: &NodeState, lane: Lane) -> Result<u64, IndexError> {
    Ok(uncollected_with_exercises(context, state, lane)?.0)
}

/// The same, and how many of them are exercises.
pub(crate) fn uncollected_with_exercises(
    context: &Context,
    state: &NodeState,
    lane: Lane,
) -> Result<(u64, u64), IndexError> {
    let (mut from, mut counted, mut uncollected, mut exercises) = (0, 0, 0, 0);
    while counted < LAG_COUNTED_MAX {
        let rows = context.index.untaken(lane, from, u64::MAX)?;
        let Some((last, _)) = rows.last() else { break };
        from = last + 1;
        counted += rows.len();
        let nobodys = |(_, about): &&(u64, About)| !state.all_agencies().any(|agency| entitled(agency, about));
        for (_, about) in rows.iter().filter(nobodys) {
            uncollected += 1;
            exercises += u64::from(about.exercise);
        }
    }
    Ok((uncollected, exercises))
}
