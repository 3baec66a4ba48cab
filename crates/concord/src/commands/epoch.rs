//! `concord node epoch`: an officer closes the epoch of its node's chains.

use clap::{Args, Subcommand};
use concord_ledger::EpochOpening;
use concord_model::Name;
use concord_wire::agreement::DraftContent;
use concord_wire::proto::agreement::v1::PrepareRequest;
use serde::Serialize;

use super::statement::{Said, confirm, say};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{Output, facts};

#[derive(Subcommand)]
pub(crate) enum EpochCommand {
    /// Close the present epoch of the node's chains and open the next: what the hub has not recorded is packed anew.
    #[command(
        after_help = "Example:\n  concord node epoch open --profile /srv/concord/node/officer\n\nFor a node that says FORK, or that its chains do not fit the hub's: after a restore, or where a second copy of it ran. Stop the other copy first. Exchanges keep their ids, and none is recorded twice."
    )]
    Open(OpenArgs),
}

#[derive(Args)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct OpenLine {
    node: String,
    epoch: u32,
    state: &'static str,
}

pub(crate) async fn run(command: EpochCommand, output: Output) -> Result<(), Failure> {
    let EpochCommand::Open(OpenArgs { client, yes }) = command;
    let client = Client::connect(&client).await?;
    let prepared = client.statements().prepare(call(PrepareRequest {})).await?.into_inner();
    if prepared.node.is_empty() {
        let what = "the secretariat's hub has no chains: a state's officer opens an epoch for its own node";
        return Err(Failure::usage(what).help("use the profile of an officer of the node's state"));
    }
    let epoch = prepared.epoch.saturating_add(1);
    if !yes {
        let question = format!(
            "Close epoch {} of the chains of node {}? Nothing more is recorded in it; what waits goes on in epoch {epoch}.",
            prepared.epoch, prepared.node
        );
        confirm(output, "opening an epoch", &question, &prepared.node)?;
    }
    let node = Name::parse(&prepared.node).map_err(Failure::answer)?;
    let said = say(&client, DraftContent::OpenEpoch(EpochOpening { node, epoch })).await?;
    let line = OpenLine { node: prepared.node, epoch, state: said.as_str() };
    output.result(&line, || {
        facts(&[("node", line.node.clone()), ("epoch", epoch.to_string()), ("statement", line.state.to_owned())])
    })?;
    match said {
        Said::Accepted => output.say("the node packs anew what the hub has not recorded, and sends it"),
        Said::Waits(_) => return Err(Failure::answer("a node's officer needs nobody's signature but its own")),
        Said::Queued => output.say("the node forwards it when the hub can be reached"),
    }
    Ok(())
}
