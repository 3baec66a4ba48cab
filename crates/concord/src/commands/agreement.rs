//! `concord agreement`: what an officer says for its state, and what it may see.

mod view;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use concord_model::{
    AgreementId, AgreementRef, AgreementText, Digest, Fingerprint, MeasureCode, ParticipantCode, Party, Reason,
    Refusal, Title,
};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::agreement::v1::{Agreement, AgreementState, GetAgreementRequest, ListAgreementsRequest};
use serde::Serialize;

use super::participant::{registered, unknown};
use super::statement::{Said, confirm, say};
use crate::cli::ClientArgs;
use crate::client::{CALL_TIMEOUT, Client, WAIT_MARGIN, call, call_within, duration};
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{Output, facts};
use view::Shown;

/// The longest single wait that is asked of a server, which allows a little more.
const ONE_WAIT_MAX: Duration = Duration::from_secs(50);

#[derive(Subcommand)]
pub(crate) enum AgreementCommand {
    /// Propose an agreement; the proposer is on it and consents with the proposal.
    Propose(ProposeArgs),
    /// Consent to an agreement that waits for this state.
    Consent(ConsentArgs),
    /// Decline an agreement that waits for consents; that ends it.
    Decline(DeclineArgs),
    /// Leave an agreement, at once, for everything not yet delivered too.
    Leave(LeaveArgs),
    /// List what waits for this state's consent.
    Pending(PendingArgs),
    /// List the agreements that this state is on.
    List(ListArgs),
    /// Show one agreement; may wait until it is in force.
    Show(ShowArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement propose KAZ/flood-warnings --profile /srv/concord/node/officer --title \"Flood warnings\" --measure environmental.5 --participant KGZ,UZB"
)]
pub(crate) struct ProposeArgs {
    /// CODE/name, beginning with your own code.
    #[arg(value_name = "ID")]
    pub(crate) id: AgreementId,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// What it is about, in words.
    #[arg(long)]
    pub(crate) title: String,
    /// The measures that it covers.
    #[arg(long = "measure", value_delimiter = ',', required = true, value_name = "CODE")]
    pub(crate) measures: Vec<MeasureCode>,
    /// Those on it; you are added.
    #[arg(long = "participant", value_delimiter = ',', required = true, value_name = "CODE")]
    pub(crate) participants: Vec<ParticipantCode>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement consent KAZ/flood-warnings --profile /srv/concord/node/officer")]
pub(crate) struct ConsentArgs {
    #[command(flatten)]
    one: OneArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement decline KAZ/flood-warnings --profile /srv/concord/node/officer")]
pub(crate) struct DeclineArgs {
    #[command(flatten)]
    one: OneArgs,
}

#[derive(Args)]
struct OneArgs {
    /// CODE/name.
    #[arg(value_name = "ID")]
    id: AgreementId,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement leave KAZ/flood-warnings --profile /srv/concord/node/officer --yes"
)]
pub(crate) struct LeaveArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement pending --profile /srv/concord/node/officer")]
pub(crate) struct PendingArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord agreement list --profile /srv/concord/node/officer")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// What `show` may wait for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    InForce,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agreement show KAZ/flood-warnings --profile /srv/concord/node/officer --wait in-force --timeout 60"
)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Answer only when it is in force, or can no longer come into force.
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
}

#[derive(Serialize)]
struct SaidLine<'a> {
    agreement: String,
    version: u32,
    digest: String,
    said: &'a str,
    state: &'a str,
}

pub(crate) async fn run(command: AgreementCommand, output: Output) -> Result<(), Failure> {
    match command {
        AgreementCommand::Propose(args) => propose(args, output).await,
        AgreementCommand::Consent(args) => consent(&args.one, output).await,
        AgreementCommand::Decline(args) => decline(&args.one, output).await,
        AgreementCommand::Leave(args) => leave(&args, output).await,
        AgreementCommand::Pending(args) => list(&args.client, true, output).await,
        AgreementCommand::List(args) => list(&args.client, false, output).await,
        AgreementCommand::Show(args) => show(&args, output).await,
    }
}

async fn propose(args: ProposeArgs, output: Output) -> Result<(), Failure> {
    let title = Title::parse(&args.title)?;
    let client = Client::connect(&args.client).await?;
    let mut participants = args.participants;
    participants.push(client.profile().settings().identity.participant.clone());
    participants.sort();
    participants.dedup();
    let mut measures = args.measures;
    measures.sort();
    measures.dedup();
    let text = AgreementText {
        version: next_version(&client, &args.id).await?,
        id: args.id,
        title,
        measures,
        parties: parties(&client, &participants).await?,
    };
    let digest = concord_wire::agreement::agreement_digest(&concord_wire::agreement::encode_text(&text));
    let reference = AgreementRef { id: text.id.clone(), version: text.version, digest };
    let said = say(&client, DraftContent::Propose(text)).await?;
    tell(&reference, "propose", said, output)?;
    let others = participants.iter().filter(|code| **code != client.profile().settings().identity.participant);
    let others: Vec<_> = others.map(ToString::to_string).collect();
    hint::next(
        output,
        &format!("the officers of {} consent; then it is in force", others.join(", ")),
        &[
            Line::new("agreement consent").text(reference.id.as_str()).words("--profile NODEDIR/officer"),
            Line::new("agreement show")
                .text(reference.id.as_str())
                .words("--wait in-force --profile")
                .path(&args.client.profile),
        ],
    );
    Ok(())
}

/// The number after the last version that this participant knows; the hub refuses it while that one lives.
async fn next_version(client: &Client, id: &AgreementId) -> Result<u32, Failure> {
    match get(client, id, None).await {
        Ok(agreement) => Ok(Shown::read(&agreement)?.text.version.saturating_add(1)),
        Err(failure) if failure.reason == Reason::AgreementUnknown.code() => Ok(1),
        Err(failure) => Err(failure),
    }
}

/// Each party with the keys that it is enrolled with: what a consent pins.
async fn parties(client: &Client, participants: &[ParticipantCode]) -> Result<Vec<Party>, Failure> {
    let all = registered(client).await?;
    participants
        .iter()
        .map(|code| {
            let is_it = |one: &&_| {
                let one: &concord_wire::proto::operations::v1::RegisteredParticipant = one;
                one.participant.as_ref().is_some_and(|participant| participant.code == code.as_str())
            };
            let found = all.iter().find(is_it).ok_or_else(|| unknown(code))?;
            let keys = found.enrolled.as_ref().ok_or_else(|| {
                Refusal::new(Reason::ParticipantNotEnrolled, format!("{code} has no enrolled keys yet"))
            })?;
            let fingerprint = |bytes: &[u8]| Digest::from_slice(bytes).map(Fingerprint).map_err(Failure::answer);
            Ok(Party {
                participant: code.clone(),
                anchor: fingerprint(&keys.anchor_fingerprint)?,
                signing_key: fingerprint(&keys.signing_key_fingerprint)?,
            })
        })
        .collect()
}

async fn consent(args: &OneArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let shown = Shown::read(&get(&client, &args.id, None).await?)?;
    output.say(&shown.with_fingerprints());
    let said = say(&client, DraftContent::Consent(shown.reference.clone())).await?;
    tell(&shown.reference, "consent", said, output)?;
    let next = Line::new("agreement show")
        .text(args.id.as_str())
        .words("--wait in-force --profile")
        .path(&args.client.profile);
    hint::next(output, "wait until all on it have consented", &[next]);
    Ok(())
}

async fn decline(args: &OneArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let shown = Shown::read(&get(&client, &args.id, None).await?)?;
    let said = say(&client, DraftContent::Decline(shown.reference.clone())).await?;
    tell(&shown.reference, "decline", said, output)
}

async fn leave(args: &LeaveArgs, output: Output) -> Result<(), Failure> {
    let id = &args.one.id;
    if !args.yes {
        let what = format!("leaving {id}");
        confirm(output, &what, &format!("Leave {id}? What is not yet delivered will not be."), id.as_str())?;
    }
    let client = Client::connect(&args.one.client).await?;
    let shown = Shown::read(&get(&client, id, None).await?)?;
    let said = say(&client, DraftContent::Leave(shown.reference.clone())).await?;
    tell(&shown.reference, "leave", said, output)
}

async fn list(args: &ClientArgs, pending: bool, output: Output) -> Result<(), Failure> {
    let client = Client::connect(args).await?;
    let answer = client.agreements().list_agreements(call(ListAgreementsRequest { pending })).await?.into_inner();
    let all = answer.agreements.iter().map(Shown::read).collect::<Result<Vec<_>, _>>()?;
    view::list(&all, output)
}

async fn show(args: &ShowArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.one.client).await?;
    let wait = args.wait.map(|WaitFor::InForce| Duration::from_secs(args.timeout));
    let agreement = get(&client, &args.one.id, wait).await?;
    view::show(&Shown::read(&agreement)?, output)?;
    if wait.is_some() && agreement.state() != AgreementState::InForce {
        let message = format!("{} can no longer come into force", args.one.id);
        return Err(Failure::new(Exit::Refused, Reason::AgreementNotInForce.code(), message)
            .help(Reason::AgreementNotInForce.help()));
    }
    Ok(())
}

/// One agreement; with `wait`, when it is in force or can no longer be. A server waits only so long for one call: then it is
/// asked again, until the time is over.
async fn get(client: &Client, id: &AgreementId, wait: Option<Duration>) -> Result<Agreement, Failure> {
    let end = wait.map(|wait| Instant::now() + wait);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let one_wait = left.map(|left| left.min(ONE_WAIT_MAX));
        let request = GetAgreementRequest { id: id.to_string(), wait_in_force: one_wait.map(duration) };
        let deadline = one_wait.map_or(CALL_TIMEOUT, |wait| wait + WAIT_MARGIN);
        match client.agreements().get_agreement(call_within(request, deadline)).await.map_err(Failure::from) {
            Ok(answer) => {
                let agreement = answer.into_inner().agreement;
                return agreement.ok_or_else(|| Failure::answer("the agreement is missing"));
            }
            Err(failure) if failure.reason == Reason::WaitExpired.code() && left > one_wait => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn tell(reference: &AgreementRef, verb: &'static str, said: Said, output: Output) -> Result<(), Failure> {
    let line = SaidLine {
        agreement: reference.id.to_string(),
        version: reference.version,
        digest: reference.digest.0.to_string(),
        said: verb,
        state: said.as_str(),
    };
    output.result(&line, || {
        facts(&[
            ("agreement", format!("{} version {}", line.agreement, line.version)),
            ("digest", line.digest.clone()),
            ("said", format!("{verb} ({})", line.state)),
        ])
    })?;
    if said == Said::Queued {
        output.say(
            "the hub has not answered yet: the node keeps it and hands it on by itself; see `concord agreement show`",
        );
    }
    Ok(())
}
