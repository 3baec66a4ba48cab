//! `concord explain`: why an exchange did, or did not, go to a participant.

use clap::Args;
use concord_model::ParticipantCode;
use concord_wire::proto::agency::v1::ExplainRequest;
use serde::Serialize;

use super::{agreement, track};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{self, Output, facts, hex};

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord explain 3f9a12bc --participant TUR --profile /srv/concord/node/agencies/drug-control\n  concord explain 3f9a12bc --profile /srv/concord/hub/officer"
)]
pub(crate) struct ExplainArgs {
    /// Its id, or the first 8 digits of it or more.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    #[command(flatten)]
    client: ClientArgs,
    /// About whom; left out: an agency's own state, at the hub all who are on the version. Of what an agency did not submit it hears only
    /// about its own state.
    #[arg(long, value_name = "CODE")]
    participant: Option<ParticipantCode>,
}

#[derive(Serialize)]
struct ExplainLine {
    exchange_id: String,
    agreement: String,
    version: u32,
    participant: String,
    in_audience: bool,
    rule: Option<String>,
    state: &'static str,
    reason: Option<String>,
    recorded_at: Option<String>,
}

pub(crate) async fn run(args: ExplainArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let request = ExplainRequest { exchange_id: args.exchange, participant: args.participant.to_string() };
    let answer = client.agency().explain(call(request)).await?.into_inner();
    let agreement = answer.agreement.as_ref().ok_or_else(|| Failure::answer("the agreement is missing"))?;
    let line = ExplainLine {
        exchange_id: hex(&answer.exchange_id),
        agreement: agreement.id.clone(),
        version: agreement.version,
        participant: answer.participant.clone(),
        in_audience: answer.in_audience,
        rule: track::stated(&answer.rule),
        state: track::word(answer.state())?,
        reason: track::stated(&answer.reason),
        recorded_at: output::optional_time(answer.recorded_at.as_ref()),
    };
    output.result(&line, || {
        let goes = if line.in_audience { "is in its audience" } else { "is not in its audience" };
        let state = match &line.reason {
            Some(reason) => format!("{} ({reason})", line.state),
            None => line.state.to_owned(),
        };
        facts(&[
            ("exchange", line.exchange_id.clone()),
            ("agreement", format!("{} version {}", line.agreement, line.version)),
            ("recorded", output::short_time(line.recorded_at.as_deref())),
            ("participant", format!("{} {goes}", line.participant)),
            ("because it", line.rule.as_deref().map_or("-", agreement::rule_in_words).to_owned()),
            ("state", state),
        ])
    })
}
