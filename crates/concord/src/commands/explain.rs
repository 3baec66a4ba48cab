//! `concord explain`: why an exchange did, or did not, go to a participant.

use clap::Args;
use concord_model::ParticipantCode;
use concord_wire::proto::agency::v1::{ExplainRequest, ExplainResponse, TrackState};
use concord_wire::proto::exchange::v1::AgreementRef;
use concord_wire::proto::operations::v1::{
    ExplainExchangeRequest, ExplainExchangeResponse, ExplainedParty, ExplainedState,
};
use serde::Serialize;

use super::{agreement, track};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{self, Output, facts, hex, safe, short_time, table};

const ID_DIGITS: usize = 64;

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord explain 3f9a12bc --participant TUR --profile /srv/concord/node/agencies/drug-control"
)]
pub(crate) struct ExplainArgs {
    /// Its id; of an agency the first 8 digits of it or more are enough.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    #[command(flatten)]
    client: ClientArgs,
    /// About whom. Left out: at a node the own state; at the hub all who are on the version. An agency that did not submit the exchange is
    /// answered about its own state only.
    #[arg(long, value_name = "CODE")]
    participant: Option<ParticipantCode>,
    /// At the hub: look only through what is before this entry of its journal.
    #[arg(long, value_name = "ENTRY", value_parser = clap::value_parser!(u64).range(1..))]
    before: Option<u64>,
}

#[derive(Serialize)]
struct ExplainLine {
    exchange_id: String,
    origin: String,
    agreement: String,
    version: u32,
    participant: String,
    in_audience: bool,
    rule: Option<String>,
    /// None of one that a rule kept out.
    state: Option<&'static str>,
    reason: Option<String>,
    recorded_at: Option<String>,
    delivered_at: Option<String>,
    not_current: Option<track::NotCurrent>,
    expired_at: Option<String>,
    exercise: bool,
}

/// What the hub tells.
#[derive(Serialize)]
struct HubLine {
    exchange_id: String,
    origin: String,
    agreement: String,
    version: u32,
    recorded_at: Option<String>,
    refused: Option<String>,
    withdraws: Option<String>,
    exercise: bool,
    parties: Vec<PartyLine>,
}

#[derive(Serialize)]
struct PartyLine {
    participant: String,
    in_audience: bool,
    rule: Option<String>,
    state: Option<&'static str>,
    reason: Option<String>,
    at: Option<String>,
}

pub(crate) async fn run(args: ExplainArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    if client.profile().own().identity.participant == ParticipantCode::secretariat() {
        return at_hub(&client, args, output).await;
    }
    if args.before.is_some() {
        return Err(Failure::usage("--before is for the hub, which looks through its journal"));
    }
    let participant = args.participant.map(|code| code.to_string()).unwrap_or_default();
    let request = ExplainRequest { exchange_id: args.exchange, participant };
    let line = read(&client.agency().explain(call(request)).await?.into_inner())?;
    output.result(&line, || shown(&line))
}

/// The hub has no index by the first digits.
pub(super) fn whole_id(text: &str) -> Result<String, Failure> {
    match text.len() == ID_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(text.to_owned()),
        false => Err(Failure::usage(format!("'{}' is not a whole id, and the hub finds an exchange by nothing less", safe(text)))
            .help(format!("give all {ID_DIGITS} digits; its sender and its recipients have them from `concord track` and `concord why`"))),
    }
}

async fn at_hub(client: &Client, args: ExplainArgs, output: Output) -> Result<(), Failure> {
    let request = ExplainExchangeRequest {
        exchange_id: whole_id(&args.exchange)?,
        participant: args.participant.map(|code| code.to_string()).unwrap_or_default(),
        before: args.before.unwrap_or_default(),
    };
    let line = read_hub(&client.operations().explain_exchange(call(request)).await?.into_inner())?;
    output.result(&line, || shown_by_hub(&line))
}

fn version(agreement: Option<&AgreementRef>) -> Result<(String, u32), Failure> {
    let agreement = agreement.ok_or_else(|| Failure::answer("the agreement is missing"))?;
    Ok((agreement.id.clone(), agreement.version))
}

fn read(answer: &ExplainResponse) -> Result<ExplainLine, Failure> {
    let (agreement, version) = version(answer.agreement.as_ref())?;
    Ok(ExplainLine {
        exchange_id: hex(&answer.exchange_id),
        origin: answer.origin.clone(),
        agreement,
        version,
        participant: answer.participant.clone(),
        in_audience: answer.in_audience,
        rule: track::stated(&answer.rule),
        state: match answer.state() {
            TrackState::Unspecified => None,
            state => Some(track::word(state)?),
        },
        reason: track::stated(&answer.reason),
        recorded_at: output::optional_time(answer.recorded_at.as_ref()),
        delivered_at: output::optional_time(answer.delivered_at.as_ref()),
        not_current: answer.not_current.as_ref().map(track::not_current).transpose()?,
        expired_at: output::optional_time(answer.expired_at.as_ref()),
        exercise: answer.exercise,
    })
}

fn read_hub(answer: &ExplainExchangeResponse) -> Result<HubLine, Failure> {
    let (agreement, version) = version(answer.agreement.as_ref())?;
    Ok(HubLine {
        exchange_id: hex(&answer.exchange_id),
        origin: answer.origin.clone(),
        agreement,
        version,
        recorded_at: output::optional_time(answer.recorded_at.as_ref()),
        refused: track::stated(&answer.refused),
        withdraws: track::stated(&hex(&answer.withdraws)),
        exercise: answer.exercise,
        parties: answer.parties.iter().map(party).collect(),
    })
}

fn party(answer: &ExplainedParty) -> PartyLine {
    let state = match answer.state() {
        ExplainedState::Unspecified => None,
        ExplainedState::Waits => Some("waits"),
        ExplainedState::Delivered => Some("delivered"),
        ExplainedState::Withheld => Some("withheld"),
        ExplainedState::SetAside => Some("set-aside"),
    };
    PartyLine {
        participant: answer.participant.clone(),
        in_audience: answer.in_audience,
        rule: track::stated(&answer.rule),
        state,
        reason: track::stated(&answer.reason),
        at: output::optional_time(answer.at.as_ref()),
    }
}

fn with_reason(state: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| state.to_owned(), |reason| format!("{state} ({reason})"))
}

fn shown(line: &ExplainLine) -> String {
    let goes = if line.in_audience { "is in its audience" } else { "is not in its audience" };
    let mut rows = vec![
        ("exchange", track::marked(&line.exchange_id, line.exercise)),
        ("from", line.origin.clone()),
        ("agreement", format!("{} version {}", line.agreement, line.version)),
        ("recorded", short_time(line.recorded_at.as_deref())),
        ("participant", format!("{} {goes}", line.participant)),
        ("because it", line.rule.as_deref().map_or("-", agreement::rule_in_words).to_owned()),
        ("state", with_reason(line.state.unwrap_or("-"), line.reason.as_deref())),
    ];
    rows.extend(line.delivered_at.iter().map(|at| ("came", short_time(Some(at)))));
    rows.extend(line.not_current.iter().map(|why| ("not current", why.in_words())));
    rows.extend(line.expired_at.iter().map(|at| ("expired", short_time(Some(at)))));
    facts(&rows)
}

fn shown_by_hub(line: &HubLine) -> String {
    let mut rows = vec![
        ("exchange", track::marked(&line.exchange_id, line.exercise)),
        ("from", line.origin.clone()),
        ("agreement", format!("{} version {}", line.agreement, line.version)),
        ("recorded", short_time(line.recorded_at.as_deref())),
    ];
    rows.extend(line.refused.iter().map(|reason| ("refused", reason.clone())));
    rows.extend(line.withdraws.iter().map(|id| ("withdraws", id.clone())));
    let parties = line.parties.iter().map(|one| {
        let rule = one.rule.as_deref().map_or("-", agreement::rule_in_words).to_owned();
        let state = match one.state {
            None if one.in_audience => "not among the entries that were looked through",
            state => state.unwrap_or("-"),
        };
        vec![one.participant.clone(), rule, with_reason(state, one.reason.as_deref()), short_time(one.at.as_deref())]
    });
    format!("{}\n{}", facts(&rows), table(&["participant", "because it", "state", "at"], parties))
}
