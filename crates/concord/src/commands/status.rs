//! `concord status`: how a node or the hub is.

pub(crate) mod probe;
mod view;

use std::time::Duration;

use clap::Args;
use concord_wire::convert::optional_timestamp;
use concord_wire::proto::operations::v1::{
    GetStatusRequest, GetStatusResponse, LaneHealth, NodeHealth, get_status_response::Role,
};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{self, Output, hex};
use crate::signals::Stop;
use probe::ProbeLine;

const MICROS_PER_SECOND: f64 = 1e6;
const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord status --profile /srv/concord/node/operator\n  concord status --watch --profile /srv/concord/hub/operator"
)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Asks again every so many seconds (2 where none are said), until Ctrl-C.
    #[arg(long, value_name = "S", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

#[derive(Serialize)]
struct StatusLine {
    role: &'static str,
    participant: String,
    name: String,
    version: String,
    started_at: Option<String>,
    uptime_seconds: Option<f64>,
    journal: Option<JournalLine>,
    certificate_not_after: Option<String>,
    certificate_days_left: Option<i64>,
    certificates: Vec<CertificateLine>,
    alarms: Vec<String>,
    /// The names of those that are notes.
    notes: Vec<String>,
    #[serde(flatten)]
    detail: Detail,
}

/// One that the server knows, with its own.
#[derive(Serialize)]
struct CertificateLine {
    certificate: String,
    holder: String,
    not_after: Option<String>,
    days_left: Option<i64>,
}

#[derive(Serialize)]
struct JournalLine {
    history: String,
    sequence: u64,
    digest: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail {
    Node(NodeLine),
    Hub(HubLine),
}

#[derive(Serialize)]
struct NodeLine {
    hub: Option<String>,
    hub_connected: bool,
    hub_contact_at: Option<String>,
    outbox_exchanges: u64,
    outbox_statements: u64,
    feed_number: u64,
    /// Agreements that wait for this state's word, and since when the first of them does.
    agreements_pending: u64,
    agreements_pending_since: Option<String>,
    /// This machine's clock, the node's, less the hub's.
    clock_offset_seconds: Option<f64>,
    mailboxes: Vec<MailboxLine>,
    agencies: Vec<AgencyLine>,
    probes: Vec<ProbeLine>,
}

#[derive(Serialize)]
struct MailboxLine {
    lane: String,
    received_through: u64,
    set_aside: u64,
    /// Of these, the ones that wait for a word.
    set_aside_waiting: u64,
    uncollected: u64,
}

#[derive(Serialize)]
struct AgencyLine {
    name: String,
    lag_items: u64,
    lag_seconds: f64,
}

#[derive(Serialize)]
struct HubLine {
    participants_enrolled: u64,
    agreements_in_force: u64,
    nodes: Vec<ConnectedLine>,
    mailboxes: Vec<LagLine>,
    health: Vec<HealthLine>,
}

/// How an enrolled participant's node is.
#[derive(Serialize)]
struct HealthLine {
    participant: String,
    node: String,
    connected: bool,
    contact_at: Option<String>,
    version: Option<String>,
    clock_ahead_seconds: Option<f64>,
    certificate_not_after: Option<String>,
    certificate_days_left: Option<i64>,
    alarms: Vec<String>,
    notes: Vec<String>,
    lanes: Vec<LaneLine>,
}

#[derive(Serialize)]
struct LaneLine {
    lane: String,
    lag_items: u64,
    lag_seconds: f64,
    /// Of what lags, the oldest is an exercise.
    oldest_is_exercise: bool,
    waiting_exchanges: u64,
}

#[derive(Serialize)]
struct ConnectedLine {
    participant: String,
    node: String,
    since: Option<String>,
    clock_offset_seconds: Option<f64>,
}

#[derive(Serialize)]
struct LagLine {
    participant: String,
    lane: String,
    lag_items: u64,
    lag_seconds: f64,
    /// The oldest of them is an exercise.
    oldest_is_exercise: bool,
}

pub(crate) async fn run(args: StatusArgs, output: Output) -> Result<(), Failure> {
    let Some(seconds) = args.watch else {
        let line = ask(&args.client).await?;
        return output.result(&line, || view::shown(&line));
    };
    let mut stop = Stop::listen()?;
    let mut tick = tokio::time::interval(Duration::from_secs(seconds));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            _ = tick.tick() => {}
        }
        let asked = tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            asked = ask(&args.client) => asked,
        };
        output.begin_again();
        match asked {
            Ok(line) => output.result(&line, || view::shown(&line))?,
            // It is watched for such moments: it is told, and asked again.
            Err(failure) if failure.is_unavailable() => output.failure(&failure),
            Err(failure) => return Err(failure),
        }
    }
}

async fn ask(args: &ClientArgs) -> Result<StatusLine, Failure> {
    let client = Client::connect(args).await?;
    read(client.operations().get_status(call(GetStatusRequest {})).await?.into_inner())
}

fn read(status: GetStatusResponse) -> Result<StatusLine, Failure> {
    let now = output::now().as_micros();
    let since = optional_timestamp(status.started_at.as_ref()).map(|at| now - at.as_micros());
    let certificates = status.certificates.iter().map(|one| CertificateLine {
        certificate: one.name.clone(),
        holder: one.holder.clone(),
        not_after: output::optional_time(one.not_after.as_ref()),
        days_left: days_left(one.not_after.as_ref(), now),
    });
    let certificates = certificates.collect();
    let (role, detail) = match status.role.ok_or_else(|| Failure::answer("neither node nor hub"))? {
        Role::Node(node) => ("node", Detail::Node(read_node(node))),
        Role::Hub(hub) => ("hub", Detail::Hub(read_hub(hub, now))),
    };
    Ok(StatusLine {
        role,
        participant: status.participant,
        name: status.name,
        version: status.version,
        started_at: output::optional_time(status.started_at.as_ref()),
        uptime_seconds: since.map(|micros| micros as f64 / MICROS_PER_SECOND),
        journal: status.journal.map(|tail| JournalLine {
            history: hex(&tail.history),
            sequence: tail.sequence,
            digest: hex(&tail.digest),
        }),
        certificate_not_after: output::optional_time(status.certificate_not_after.as_ref()),
        certificate_days_left: days_left(status.certificate_not_after.as_ref(), now),
        certificates,
        alarms: status.alarms,
        notes: status.notes,
        detail,
    })
}

/// Whole days; less than none where it is over.
fn days_left(until: Option<&prost_types::Timestamp>, now: i64) -> Option<i64> {
    optional_timestamp(until).map(|at| (at.as_micros() - now).div_euclid(MICROS_PER_DAY))
}

fn read_node(node: concord_wire::proto::operations::v1::NodeStatus) -> NodeLine {
    NodeLine {
        hub: (!node.hub.is_empty()).then_some(node.hub),
        hub_connected: node.hub_connected,
        hub_contact_at: output::optional_time(node.hub_contact_at.as_ref()),
        outbox_exchanges: node.outbox_exchanges,
        outbox_statements: node.outbox_statements,
        feed_number: node.feed_number,
        agreements_pending: node.agreements_pending,
        agreements_pending_since: output::optional_time(node.agreements_pending_since.as_ref()),
        clock_offset_seconds: node.clock_offset_seconds,
        mailboxes: node
            .mailboxes
            .into_iter()
            .map(|one| MailboxLine {
                lane: one.lane,
                received_through: one.received_through,
                set_aside: one.set_aside,
                set_aside_waiting: one.set_aside_waiting,
                uncollected: one.uncollected,
            })
            .collect(),
        agencies: node
            .agencies
            .into_iter()
            .map(|one| AgencyLine { name: one.name, lag_items: one.lag_items, lag_seconds: one.lag_seconds })
            .collect(),
        probes: node.probes.into_iter().map(ProbeLine::of).collect(),
    }
}

fn read_hub(hub: concord_wire::proto::operations::v1::HubStatus, now: i64) -> HubLine {
    HubLine {
        health: hub.health.into_iter().map(|one| read_health(one, now)).collect(),
        participants_enrolled: hub.participants_enrolled,
        agreements_in_force: hub.agreements_in_force,
        nodes: hub
            .nodes
            .into_iter()
            .map(|one| ConnectedLine {
                participant: one.participant,
                node: one.node,
                since: output::optional_time(one.since.as_ref()),
                clock_offset_seconds: one.clock_offset_seconds,
            })
            .collect(),
        mailboxes: hub
            .mailboxes
            .into_iter()
            .map(|one| LagLine {
                participant: one.participant,
                lane: one.lane,
                lag_items: one.items,
                lag_seconds: one.seconds,
                oldest_is_exercise: one.oldest_is_exercise,
            })
            .collect(),
    }
}

fn read_health(one: NodeHealth, now: i64) -> HealthLine {
    let lane = |lane: LaneHealth| {
        let LaneHealth { lane, lag_items, lag_seconds, waiting_exchanges, oldest_is_exercise } = lane;
        LaneLine { lane, lag_items, lag_seconds, oldest_is_exercise, waiting_exchanges }
    };
    HealthLine {
        participant: one.participant,
        node: one.node,
        connected: one.connected,
        contact_at: output::optional_time(one.contact_at.as_ref()),
        version: (!one.version.is_empty()).then_some(one.version),
        clock_ahead_seconds: one.clock_ahead_seconds,
        certificate_not_after: output::optional_time(one.certificate_not_after.as_ref()),
        certificate_days_left: days_left(one.certificate_not_after.as_ref(), now),
        alarms: one.alarms,
        notes: one.notes,
        lanes: one.lanes.into_iter().map(lane).collect(),
    }
}
