//! `concord why`: where an exchange is, and what it waits for.

use clap::Args;
use concord_model::ParticipantCode;
use concord_wire::proto::agency::v1::WhyRequest;
use concord_wire::proto::exchange::v1::{AgreementRef, Whereabouts};
use concord_wire::proto::operations::v1::ExplainExchangeRequest;
use serde::Serialize;

use super::explain::whole_id;
use super::track::{self, stated};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::output::{self, Output, hex, safe, short_time};

#[derive(Args)]
#[command(after_help = "Example:\n  concord why 3f9a12bc --profile /srv/concord/node/agencies/drug-control")]
pub(crate) struct WhyArgs {
    /// Its id; at a node the first 8 digits of it or more are enough.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    #[command(flatten)]
    client: ClientArgs,
    /// At the hub: look only through what is before this entry of its journal.
    #[arg(long, value_name = "ENTRY", value_parser = clap::value_parser!(u64).range(1..))]
    before: Option<u64>,
}

#[derive(Serialize)]
struct WhyLine {
    exchange_id: String,
    origin: String,
    agreement: Option<String>,
    version: Option<u32>,
    expires_at: Option<String>,
    not_current: Option<track::NotCurrent>,
    exercise: bool,
    whereabouts: Vec<WhereLine>,
}

#[derive(Serialize)]
struct WhereLine {
    /// None: of the exchange as a whole.
    participant: Option<String>,
    code: String,
    reason: Option<String>,
    said: String,
    next: Option<String>,
    since: Option<String>,
    /// Nothing is waited for any more.
    ended: bool,
    /// It waits for longer than its lane should.
    overdue: bool,
}

pub(crate) async fn run(args: WhyArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let line = if client.profile().own().identity.participant == ParticipantCode::secretariat() {
        at_hub(&client, args).await?
    } else {
        if args.before.is_some() {
            return Err(Failure::usage("--before is for the hub, which looks through its journal"));
        }
        at_node(&client, args).await?
    };
    output.result(&line, || shown(&line))
}

async fn at_node(client: &Client, args: WhyArgs) -> Result<WhyLine, Failure> {
    let answer = client.agency().why(call(WhyRequest { exchange_id: args.exchange })).await?.into_inner();
    let (agreement, version) = named(answer.agreement.as_ref());
    Ok(WhyLine {
        exchange_id: hex(&answer.exchange_id),
        origin: answer.origin,
        agreement,
        version,
        expires_at: output::optional_time(answer.expires_at.as_ref()),
        not_current: answer.not_current.as_ref().map(track::not_current).transpose()?,
        exercise: answer.exercise,
        whereabouts: answer.whereabouts.into_iter().map(read).collect(),
    })
}

async fn at_hub(client: &Client, args: WhyArgs) -> Result<WhyLine, Failure> {
    let before = args.before.unwrap_or_default();
    let request = ExplainExchangeRequest { exchange_id: whole_id(&args.exchange)?, participant: String::new(), before };
    let answer = client.operations().explain_exchange(call(request)).await?.into_inner();
    let (agreement, version) = named(answer.agreement.as_ref());
    let parties = answer.parties.into_iter().filter_map(|party| party.whereabouts);
    Ok(WhyLine {
        exchange_id: hex(&answer.exchange_id),
        origin: answer.origin,
        agreement,
        version,
        expires_at: None,
        not_current: None,
        exercise: answer.exercise,
        whereabouts: answer.whereabouts.into_iter().chain(parties).map(read).collect(),
    })
}

fn named(agreement: Option<&AgreementRef>) -> (Option<String>, Option<u32>) {
    (agreement.map(|agreement| agreement.id.clone()), agreement.map(|agreement| agreement.version))
}

fn read(at: Whereabouts) -> WhereLine {
    WhereLine {
        participant: stated(&at.participant),
        code: at.code,
        reason: stated(&at.reason),
        said: at.said,
        next: stated(&at.next),
        since: output::optional_time(at.since.as_ref()),
        ended: at.ended,
        overdue: at.overdue,
    }
}

fn shown(line: &WhyLine) -> String {
    let id = track::marked(&line.exchange_id, line.exercise);
    let mut text = format!("exchange {id} from {}\n", safe(&line.origin));
    if let Some(why) = &line.not_current {
        text += &format!("not current any more: {}\n", why.in_words());
    }
    for at in &line.whereabouts {
        let since =
            at.since.as_deref().map_or_else(String::new, |since| format!(" (since {})", short_time(Some(since))));
        let party = at.participant.as_deref().map_or_else(String::new, |code| format!("{}: ", safe(code)));
        text += &format!("\n{party}{}{since}\n", safe(&at.said));
        if let Some(next) = &at.next {
            text += &format!("  next: {}\n", safe(next));
        }
    }
    text
}
