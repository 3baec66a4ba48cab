//! `concord set-aside`: what came to a node and did not verify. It waits for a person's word, and nobody is given it until then.

use clap::{Args, Subcommand};
use concord_model::{SetAsideReason, Title};
use concord_wire::proto::operations::v1::{
    DiscardSetAsideRequest, ListSetAsideRequest, RetrySetAsideRequest, RetrySetAsideResponse, SetAsideExchange,
};
use serde::Serialize;

use super::statement::confirm;
use super::track::{marked, stated};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, hex, short_time, table};

#[derive(Subcommand)]
pub(crate) enum SetAsideCommand {
    /// List what waits, with the reason of each.
    #[command(after_help = "Example:\n  concord set-aside list --profile /srv/concord/node/operator")]
    List(ListArgs),
    /// Show the facts of one, without title and body.
    #[command(after_help = "Example:\n  concord set-aside show 3f9a12bc --profile /srv/concord/node/operator")]
    Show(ShowArgs),
    /// Judge it again by what the node knows now; what holds is delivered.
    #[command(
        after_help = "Example:\n  concord set-aside retry --all --profile /srv/concord/node/operator\n\nExit 3 where one of them stays set aside."
    )]
    Retry(RetryArgs),
    /// End it with one: nobody is ever given it, and its sender is told so.
    #[command(
        after_help = "Example:\n  concord set-aside discard 3f9a12bc --reason \"sent again as 77c0de12\" --yes --profile /srv/concord/node/officer"
    )]
    Discard(DiscardArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The exchange's id, or its first 8 digits or more.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
pub(crate) struct RetryArgs {
    /// Ids of exchanges, or their first 8 digits or more.
    #[arg(value_name = "EXCHANGE_ID", required_unless_present = "all")]
    exchanges: Vec<String>,
    /// All that wait.
    #[arg(long, conflicts_with = "exchanges")]
    all: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
pub(crate) struct DiscardArgs {
    /// The exchange's id, or its first 8 digits or more.
    #[arg(value_name = "EXCHANGE_ID")]
    exchange: String,
    /// Why: it stays in the node's journal. The sender is not told it.
    #[arg(long, value_name = "R")]
    reason: Title,
    #[command(flatten)]
    client: ClientArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// One that waits.
#[derive(Serialize)]
struct AsideLine {
    exchange_id: String,
    lane: String,
    reason: String,
    since: Option<String>,
    origin: Option<String>,
    agreement: Option<String>,
    version: Option<u32>,
    measure: Option<String>,
    recorded_at: Option<String>,
    key_id: Option<String>,
    registered_key_id: Option<String>,
    consented_key_id: Option<String>,
    size_bytes: u64,
    exercise: bool,
    next: &'static str,
}

#[derive(Serialize)]
struct RetriedLine {
    exchange_id: String,
    delivered: bool,
    reason: Option<String>,
}

#[derive(Serialize)]
struct DiscardedLine {
    exchange_id: String,
    discarded: bool,
}

pub(crate) async fn run(command: SetAsideCommand, output: Output) -> Result<(), Failure> {
    match command {
        SetAsideCommand::List(args) => list(args, output).await,
        SetAsideCommand::Show(args) => show(args, output).await,
        SetAsideCommand::Retry(args) => retry(args, output).await,
        SetAsideCommand::Discard(args) => discard(args, output).await,
    }
}

async fn list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let request = ListSetAsideRequest { exchange_id: String::new() };
    let answer = client.operations().list_set_aside(call(request)).await?.into_inner();
    let lines: Vec<AsideLine> = answer.set_aside.iter().map(read).collect();
    output.results(&lines, || {
        let row = |line: &AsideLine| {
            let origin = line.origin.clone().unwrap_or_else(|| "?".to_owned());
            let id = marked(line.exchange_id.get(..16).unwrap_or_default(), line.exercise);
            vec![id, line.lane.clone(), origin, line.reason.clone(), short_time(line.since.as_deref())]
        };
        table(&["exchange", "lane", "says it is from", "reason", "since"], lines.iter().map(row))
    })?;
    if answer.count > lines.len() as u64 {
        output.say(&format!("{} in all: what is shown comes first", answer.count));
    }
    if let Some(first) = lines.first() {
        let of = |words: &str| Line::new(words).text(&first.exchange_id).words("--profile").path(&args.client.profile);
        hint::next(
            output,
            "what one of them says, and whether it holds by now:",
            &[of("set-aside show"), Line::new("set-aside retry --all").words("--profile").path(&args.client.profile)],
        );
    }
    Ok(())
}

async fn show(args: ShowArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let request = ListSetAsideRequest { exchange_id: args.exchange };
    let answer = client.operations().list_set_aside(call(request)).await?.into_inner();
    let line = answer.set_aside.first().map(read).ok_or_else(|| Failure::answer("the exchange is missing"))?;
    output.result(&line, || {
        let stated = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let version = line.version.map_or_else(String::new, |version| format!(" version {version}"));
        facts(&[
            ("exchange", marked(&line.exchange_id, line.exercise)),
            ("lane", line.lane.clone()),
            ("set aside", format!("{}, since {}", line.reason, stated(&line.since))),
            ("says it is from", stated(&line.origin)),
            ("agreement", format!("{}{version}", stated(&line.agreement))),
            ("measure", stated(&line.measure)),
            ("recorded", stated(&line.recorded_at)),
            ("signed by key", stated(&line.key_id)),
            ("key by the consent", stated(&line.consented_key_id)),
            ("key by the registry", stated(&line.registered_key_id)),
            ("size", format!("{} bytes", line.size_bytes)),
        ])
    })?;
    let of = |words: &str| Line::new(words).text(&line.exchange_id).words("--profile").path(&args.client.profile);
    hint::next(output, line.next, &[of("set-aside retry")]);
    Ok(())
}

async fn retry(args: RetryArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let mut exchanges = args.exchanges;
    if args.all {
        let request = ListSetAsideRequest { exchange_id: String::new() };
        let answer = client.operations().list_set_aside(call(request)).await?.into_inner();
        exchanges = answer.set_aside.iter().map(|one| hex(&one.exchange_id)).collect();
    }
    let (mut lines, mut failed) = (Vec::with_capacity(exchanges.len()), None);
    for exchange_id in exchanges {
        let request = RetrySetAsideRequest { exchange_id: exchange_id.clone() };
        match client.operations().retry_set_aside(call(request)).await.map_err(Failure::from) {
            Ok(answer) => {
                let RetrySetAsideResponse { exchange_id, delivered, reason } = answer.into_inner();
                lines.push(RetriedLine { exchange_id: hex(&exchange_id), delivered, reason: stated(&reason) });
            }
            // One that is refused by itself holds up none of the others.
            Err(failure) => {
                let is_away = failure.is_unavailable();
                lines.push(RetriedLine { exchange_id, delivered: false, reason: Some(failure.reason.clone()) });
                failed.get_or_insert(failure);
                if is_away {
                    break;
                }
            }
        }
    }
    output.results(&lines, || {
        let row = |line: &RetriedLine| {
            let became = match &line.reason {
                None => "holds, and is delivered".to_owned(),
                Some(reason) => format!("stays set aside: {reason}"),
            };
            vec![line.exchange_id.get(..16).unwrap_or_default().to_owned(), became]
        };
        table(&["exchange", "judged again"], lines.iter().map(row))
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let stays: Vec<_> = lines.iter().filter(|line| !line.delivered).collect();
    let Some(still) = stays.first() else {
        if lines.is_empty() {
            output.say("nothing is set aside: there was nothing to judge again");
        }
        return Ok(());
    };
    let why = next_step(still.reason.as_deref().unwrap_or_default());
    let line = Line::new("set-aside show").text(&still.exchange_id).words("--profile").path(&args.client.profile);
    hint::next(output, why, &[line]);
    // Each by a rule, which judges as it did before.
    let what = format!("{} of {} stay set aside: what they say does not hold yet", stays.len(), lines.len());
    Err(Failure::new(Exit::Refused, STAYS_SET_ASIDE, what)
        .help("do what is said of the reason, then retry; or discard it"))
}

/// What was judged again and does not hold.
const STAYS_SET_ASIDE: &str = "STAYS_SET_ASIDE";

async fn discard(args: DiscardArgs, output: Output) -> Result<(), Failure> {
    let DiscardArgs { exchange, reason, client, yes } = args;
    if !yes {
        let question = format!("Discard {exchange}? No agency is ever given it, and it is not undone.");
        confirm(output, &format!("discarding {exchange}"), &question, &exchange)?;
    }
    let client = Client::connect(&client).await?;
    let request = DiscardSetAsideRequest { exchange_id: exchange, reason: reason.to_string() };
    let answer = client.operations().discard_set_aside(call(request)).await?.into_inner();
    let line = DiscardedLine { exchange_id: hex(&answer.exchange_id), discarded: true };
    output.result(&line, || format!("discarded  {}", line.exchange_id))
}

fn read(one: &SetAsideExchange) -> AsideLine {
    let key = |bytes: &[u8]| stated(&hex(bytes));
    AsideLine {
        exchange_id: hex(&one.exchange_id),
        lane: one.lane.clone(),
        reason: one.reason.clone(),
        since: output::optional_time(one.since.as_ref()),
        origin: stated(&one.origin),
        agreement: one.agreement.as_ref().map(|agreement| agreement.id.clone()),
        version: one.agreement.as_ref().map(|agreement| agreement.version),
        measure: stated(&one.measure),
        recorded_at: output::optional_time(one.recorded_at.as_ref()),
        key_id: key(&one.key_id),
        registered_key_id: key(&one.registered_key_id),
        consented_key_id: key(&one.consented_key_id),
        size_bytes: one.size_bytes,
        exercise: one.exercise,
        next: next_step(&one.reason),
    }
}

/// What a person does about a reason.
pub(crate) fn next_step(reason: &str) -> &'static str {
    match SetAsideReason::from_code(reason) {
        Some(SetAsideReason::KeyNotPinned) => {
            "`concord pin list` shows the fingerprint of that state's present keys: have it read out by telephone. If it is the same, an \
             officer confirms them (`concord pin confirm`), then retry; if not, discard it and tell the secretariat"
        }
        Some(SetAsideReason::HeaderInvalid) => {
            "a newer version of this program may read it: update the node, then retry"
        }
        Some(SetAsideReason::SignatureInvalid) => {
            "somebody on the way changed it, or its sender's node is broken: tell the secretariat, ask its sender to send again, and discard it"
        }
        Some(SetAsideReason::BodyMismatch) => {
            "its content is not what its sender signed: ask its sender to send again, and discard it"
        }
        Some(SetAsideReason::NotAMember) => {
            "by this node's record its sender had no right to send it here: tell the secretariat, and discard it"
        }
        Some(SetAsideReason::TermsBroken) => "it breaks the terms of its agreement: tell its sender, and discard it",
        Some(SetAsideReason::Duplicate | SetAsideReason::Discarded) | None => "nothing needs to be done",
    }
}
