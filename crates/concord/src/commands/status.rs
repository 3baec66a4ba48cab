//! `concord status`: how a node or the hub is.

mod view;

use clap::Args;
use concord_wire::convert::optional_timestamp;
use concord_wire::proto::operations::v1::{GetStatusRequest, GetStatusResponse, get_status_response::Role};
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{self, Output, hex};

const MICROS_PER_SECOND: f64 = 1e6;
const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

#[derive(Args)]
#[command(after_help = "Example:\n  concord status --profile /srv/concord/node/operator")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
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
    alarms: Vec<String>,
    /// The names of those that are notes.
    notes: Vec<String>,
    #[serde(flatten)]
    detail: Detail,
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
    mailboxes: Vec<MailboxLine>,
    agencies: Vec<AgencyLine>,
}

#[derive(Serialize)]
struct MailboxLine {
    lane: String,
    received_through: u64,
    set_aside: u64,
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
}

#[derive(Serialize)]
struct ConnectedLine {
    participant: String,
    node: String,
    since: Option<String>,
}

#[derive(Serialize)]
struct LagLine {
    participant: String,
    lane: String,
    lag_items: u64,
    lag_seconds: f64,
}

pub(crate) async fn run(args: StatusArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let status = client.operations().get_status(call(GetStatusRequest {})).await?.into_inner();
    let line = read(status)?;
    output.result(&line, || view::shown(&line))
}

fn read(status: GetStatusResponse) -> Result<StatusLine, Failure> {
    let now = output::now().as_micros();
    let since = optional_timestamp(status.started_at.as_ref()).map(|at| now - at.as_micros());
    let left = optional_timestamp(status.certificate_not_after.as_ref()).map(|at| at.as_micros() - now);
    let (role, detail) = match status.role.ok_or_else(|| Failure::answer("neither node nor hub"))? {
        Role::Node(node) => ("node", Detail::Node(read_node(node))),
        Role::Hub(hub) => ("hub", Detail::Hub(read_hub(hub))),
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
        certificate_days_left: left.map(|micros| micros.div_euclid(MICROS_PER_DAY)),
        alarms: status.alarms,
        notes: status.notes,
        detail,
    })
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
        mailboxes: node
            .mailboxes
            .into_iter()
            .map(|one| MailboxLine {
                lane: one.lane,
                received_through: one.received_through,
                set_aside: one.set_aside,
                uncollected: one.uncollected,
            })
            .collect(),
        agencies: node
            .agencies
            .into_iter()
            .map(|one| AgencyLine { name: one.name, lag_items: one.lag_items, lag_seconds: one.lag_seconds })
            .collect(),
    }
}

fn read_hub(hub: concord_wire::proto::operations::v1::HubStatus) -> HubLine {
    HubLine {
        participants_enrolled: hub.participants_enrolled,
        agreements_in_force: hub.agreements_in_force,
        nodes: hub
            .nodes
            .into_iter()
            .map(|one| ConnectedLine {
                participant: one.participant,
                node: one.node,
                since: output::optional_time(one.since.as_ref()),
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
            })
            .collect(),
    }
}
