//! The status of a node: counts and times, never titles or bodies. Ids of exchanges only where content is lost for good (`not-healed`):
//! what cannot be healed is listed.

use bytes::Bytes;
use concord_model::{Lane, Timestamp};
use concord_wire::convert::timestamp;
use concord_wire::proto::operations::v1::{
    AgencyStatus, GetStatusResponse, JournalTail, MailboxStatus, NodeStatus, get_status_response,
};

use crate::context::Context;
use crate::index::IndexError;
use crate::reminding::Pending;
use crate::state::rights::{About, entitled, owed};
use crate::state::{Agency, NodeState, Officer};

/// Deliveries that are counted for one agency and lane; a longer lag shows as this.
const LAG_COUNTED_MAX: usize = 100_000;
const ROWS_AT_ONCE: usize = 4096;
const MICROS_PER_SECOND: f64 = 1_000_000.0;

/// What does not change while the process runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) at: Timestamp,
    pub(crate) certificate_not_after: Timestamp,
}

pub(crate) fn status(context: &Context, started: Started) -> Result<GetStatusResponse, IndexError> {
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
        certificate_not_after: Some(timestamp(started.certificate_not_after)),
        alarms,
        notes,
        role: Some(get_status_response::Role::Node(node(context, &state)?)),
    })
}

fn node(context: &Context, state: &NodeState) -> Result<NodeStatus, IndexError> {
    let outbox_statements: usize = state.officers().values().map(|officer| Officer::waiting(officer).count()).sum();
    let pending = Pending::of(state, &context.participant);
    let agencies = state.all_agencies().map(|agency| {
        let (lag_items, oldest) = lag(context, state, agency)?;
        let age = |since: Timestamp| context.clock.now().as_micros().saturating_sub(since.as_micros()).max(0);
        Ok(AgencyStatus {
            name: agency.name.to_string(),
            lag_items,
            lag_seconds: oldest.map_or(0.0, |since| age(since) as f64 / MICROS_PER_SECOND),
        })
    });
    let mailboxes = Lane::ALL.into_iter().map(|lane| {
        Ok(MailboxStatus {
            lane: lane.to_string(),
            received_through: state.mailbox(lane).received_through,
            set_aside: state.mailbox(lane).set_aside_count,
            uncollected: uncollected(context, state, lane)?,
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
        mailboxes: mailboxes.collect::<Result<_, IndexError>>()?,
        agencies: agencies.collect::<Result<_, IndexError>>()?,
    })
}

/// How many deliveries an agency has not acknowledged, and when the oldest of them came.
fn lag(context: &Context, state: &NodeState, agency: &Agency) -> Result<(u64, Option<Timestamp>), IndexError> {
    let (mut items, mut oldest) = (0, None::<Timestamp>);
    for lane in Lane::ALL {
        let (mut from, mut counted) = (agency.from(lane) + 1, 0);
        while counted < LAG_COUNTED_MAX && from <= state.mailbox(lane).received_through {
            let rows = context.index.inbox(lane, from, ROWS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            from = last + 1;
            counted += rows.len();
            for (number, row) in &rows {
                if owed(agency, &row.about, lane, *number).is_some() {
                    let came = Timestamp::from_micros(row.delivered_at);
                    items += 1;
                    oldest = Some(oldest.map_or(came, |oldest| oldest.min(came)));
                }
            }
        }
    }
    Ok((items, oldest))
}

/// How many deliveries of a lane no agency has taken, and none may have.
fn uncollected(context: &Context, state: &NodeState, lane: Lane) -> Result<u64, IndexError> {
    let (mut from, mut counted, mut uncollected) = (0, 0, 0);
    while counted < LAG_COUNTED_MAX {
        let rows = context.index.untaken(lane, from, u64::MAX)?;
        let Some((last, _)) = rows.last() else { break };
        from = last + 1;
        counted += rows.len();
        let nobodys = |(_, about): &&(u64, About)| !state.all_agencies().any(|agency| entitled(agency, about));
        uncollected += rows.iter().filter(nobodys).count() as u64;
    }
    Ok(uncollected)
}
