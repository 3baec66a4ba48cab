//! `concord withdraw`: takes an exchange back. Its recipients are told; what they had, they had.

use clap::Args;
use concord_model::{RequestId, Title};
use concord_wire::proto::agency::v1::WithdrawRequest;
use serde::Serialize;

use super::statement::confirm;
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{Output, hex};

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord withdraw 3f9a12bc --reason \"the wrong file\" --profile /srv/concord/node/agencies/drug-control --yes"
)]
pub(crate) struct WithdrawArgs {
    /// The exchange's id, or its first 8 digits or more.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    /// Told to those who had it, as a title is.
    #[arg(long, value_name = "R")]
    reason: Option<Title>,
    #[command(flatten)]
    client: ClientArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Names this request, so that it can be repeated; made for you where it is left out.
    #[arg(long, value_name = "R")]
    request_id: Option<RequestId>,
}

#[derive(Serialize)]
struct WithdrawLine {
    request_id: String,
    exchange_id: String,
    withdraws: String,
    agreement: String,
    was_withdrawn: bool,
}

pub(crate) async fn run(args: WithdrawArgs, output: Output) -> Result<(), Failure> {
    let WithdrawArgs { exchange, reason, client, yes, request_id } = args;
    if !yes {
        let question = format!("Withdraw {exchange}? Who has not got it never does, and it is not undone.");
        confirm(output, &format!("withdrawing {exchange}"), &question, &exchange)?;
    }
    let client = Client::connect(&client).await?;
    let request_id = request_id.map_or_else(|| uuid::Uuid::now_v7().to_string(), |id| id.to_string());
    let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
    let request = WithdrawRequest { request_id, exchange_id: exchange, reason };
    let answer = client.agency().withdraw(call(request)).await?.into_inner();
    let line = WithdrawLine {
        request_id: answer.request_id,
        exchange_id: hex(&answer.exchange_id),
        withdraws: hex(&answer.withdraws),
        agreement: answer.agreement_id,
        was_withdrawn: answer.was_withdrawn,
    };
    output.result(&line, || {
        let WithdrawLine { exchange_id, withdraws, agreement, was_withdrawn, .. } = &line;
        let state = if *was_withdrawn { "was withdrawn before" } else { "queued" };
        format!("{state}  {exchange_id}  withdraws {withdraws}  {agreement}")
    })
}
