//! `concord participant`: the registry, and enrolling, which is the secretariat's.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use concord_identity::write_public;
use concord_model::{Digest, Fingerprint, ParticipantCode, Reason, Refusal, Title};
use concord_node::paper::{self, JoinPaper};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::operations::v1::{GetBundleRequest, ListParticipantsRequest, RegisteredParticipant};
use concord_wire::registry::parse_participant;
use serde::Serialize;

use super::statement::{Said, say};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, hex, safe, table};

#[derive(Subcommand)]
pub(crate) enum ParticipantCommand {
    /// Bind a state to the anchor and keys of its node, as an officer of the secretariat.
    Enrol(EnrolArgs),
    /// List all participants.
    List(ListArgs),
    /// Show one participant with its fingerprints.
    Show(ShowArgs),
    /// Keep a state's node from receiving and consigning for a technical reason, told to all; its mail waits. An officer of the
    /// secretariat may, and of the state itself.
    Hold(HoldArgs),
    /// Lift the own side's hold.
    Release(ReleaseArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant hold KAZ --reason \"its node repeats itself without end\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct HoldArgs {
    /// Its code.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
    /// Why, in one line: told to all.
    #[arg(long, value_name = "TEXT")]
    reason: Title,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord participant release KAZ --profile /srv/concord/hub/officer")]
pub(crate) struct ReleaseArgs {
    /// Its code.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant enrol join-request.json --profile /srv/concord/hub/officer --out bundle.json\n  concord participant enrol join-request.json --replace --reference \"note verbale 17/2026\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct EnrolArgs {
    /// The join request that the node made.
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    /// The node's own keys are lost: these take their place, and the chains go on in a new epoch.
    #[arg(long, requires = "reference")]
    replace: bool,
    /// The paper that a replacement rests on, in one line: told to all.
    #[arg(long, requires = "replace", value_name = "TEXT")]
    reference: Option<String>,
    /// Where the bundle for the node goes; beside the request where it is not said.
    #[arg(long, value_name = "BUNDLE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord participant list --profile /srv/concord/node/officer")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord participant show KAZ --profile /srv/concord/node/officer")]
pub(crate) struct ShowArgs {
    /// Its code.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct EnrolLine {
    participant: String,
    node: String,
    fingerprint: String,
    hub: String,
    bundle: String,
    bundle_fingerprint: String,
}

#[derive(Serialize)]
struct ParticipantLine {
    participant: String,
    kind: String,
    names: std::collections::BTreeMap<String, String>,
    node: Option<String>,
    enrolled_at: Option<String>,
    fingerprint: Option<String>,
    anchor_fingerprint: Option<String>,
    signing_key_fingerprint: Option<String>,
    holds: Vec<HoldLine>,
}

#[derive(Serialize)]
struct HoldLine {
    by: String,
    reason: String,
    since: Option<String>,
}

#[derive(Serialize)]
struct HeldLine {
    participant: String,
    said: &'static str,
    state: &'static str,
}

pub(crate) async fn run(command: ParticipantCommand, output: Output) -> Result<(), Failure> {
    match command {
        ParticipantCommand::Enrol(args) => enrol(&args, output).await,
        ParticipantCommand::List(args) => list(&args, output).await,
        ParticipantCommand::Show(args) => show(&args, output).await,
        ParticipantCommand::Hold(args) => hold(args, output).await,
        ParticipantCommand::Release(args) => release(&args, output).await,
    }
}

async fn enrol(args: &EnrolArgs, output: Output) -> Result<(), Failure> {
    let asked = read_request(&args.request)?;
    let content = match &args.reference {
        None => DraftContent::Enrol(asked.request.clone()),
        Some(reference) => {
            let reference = Title::parse(reference).map_err(|error| Failure::usage(error.to_string()))?;
            DraftContent::Replace(asked.request.clone(), reference)
        }
    };
    let client = Client::connect(&args.client).await?;
    if say(&client, content).await? == Said::Queued {
        return Err(Failure::answer("the hub answered as a node does"));
    }
    let asking = GetBundleRequest { participant: asked.participant.to_string() };
    let answer = client.registry().get_bundle(call(asking)).await?.into_inner();
    let bundle = answer.bundle.ok_or_else(|| Failure::answer("the bundle is missing"))?;

    let out = args.out.clone().unwrap_or_else(|| beside(&args.request));
    let text = paper::bundle_to_json(&bundle).map_err(Failure::answer)?;
    let bundle_fingerprint = paper::fingerprint_of(&bundle).map_err(Failure::answer)?;
    write_public(&out, text.as_bytes()).map_err(|error| Failure::failed("FILE", error.to_string()))?;

    let line = EnrolLine {
        participant: asked.participant.to_string(),
        node: asked.node.to_string(),
        fingerprint: asked.fingerprint.grouped(),
        hub: bundle.hub,
        bundle: out.display().to_string(),
        bundle_fingerprint: bundle_fingerprint.grouped(),
    };
    output.result(&line, || {
        facts(&[
            ("enrolled", format!("{}, node {}", line.participant, line.node)),
            ("fingerprint", line.fingerprint.clone()),
            ("bundle", line.bundle.clone()),
            ("bundle's fingerprint", line.bundle_fingerprint.clone()),
        ])
    })?;
    output.say("compare both fingerprints with the node's operator by telephone");
    hint::next(
        output,
        "send the bundle to the node, and let it join there",
        &[Line::new("node join --dir NODEDIR").path(&out)],
    );
    Ok(())
}

fn read_request(path: &Path) -> Result<JoinPaper, Failure> {
    let unreadable = |why: String| {
        Failure::usage(format!("the join request {} cannot be read: {why}", path.display()))
            .help("give the join-request.json that `concord node init` made")
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    paper::join_request_from_json(&text).map_err(|error| unreadable(error.to_string()))
}

fn beside(request: &Path) -> PathBuf {
    request.with_file_name("bundle.json")
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let lines = registered(&client).await?.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    output.results(&lines, || {
        table(
            &["participant", "kind", "name", "node", "enrolled", "held by"],
            lines.iter().map(|line| {
                vec![
                    line.participant.clone(),
                    line.kind.clone(),
                    safe(line.names.get("en").map_or("-", String::as_str)),
                    line.node.clone().unwrap_or_else(|| "-".to_owned()),
                    output::short_time(line.enrolled_at.as_deref()),
                    match line.holds.as_slice() {
                        [] => "-".to_owned(),
                        holds => holds.iter().map(|hold| hold.by.as_str()).collect::<Vec<_>>().join(" "),
                    },
                ]
            }),
        )
    })
}

async fn show(args: &ShowArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let all = registered(&client).await?;
    let found = all.iter().find(|one| one.participant.as_ref().is_some_and(|one| one.code == args.code.as_str()));
    let line = line(found.ok_or_else(|| unknown(&args.code))?)?;
    output.result(&line, || {
        let mut rows = vec![("participant", line.participant.clone()), ("kind", line.kind.clone())];
        rows.extend(line.names.iter().map(|(language, name)| ("name", format!("{} ({language})", safe(name)))));
        let mut add = |name, value: &Option<String>| {
            rows.push((name, value.clone().unwrap_or_else(|| "-".to_owned())));
        };
        add("node", &line.node);
        add("enrolled", &line.enrolled_at);
        add("fingerprint", &line.fingerprint);
        add("anchor", &line.anchor_fingerprint);
        add("signing key", &line.signing_key_fingerprint);
        for hold in &line.holds {
            let since = output::short_time(hold.since.as_deref());
            rows.push(("held", format!("by {} since {since}: {}", hold.by, safe(&hold.reason))));
        }
        facts(&rows)
    })
}

async fn hold(args: HoldArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let said = say(&client, DraftContent::Hold(args.code.clone(), args.reason)).await?;
    tell_held(&args.code, "hold", said, output)?;
    let why = "its mail waits, its words and the feed go on; all are told the reason. This lifts it";
    let release =
        Line::new("participant release").text(args.code.as_str()).words("--profile").path(&args.client.profile);
    hint::next(output, why, &[release]);
    Ok(())
}

/// A hold is lifted by its own name, which the registry shows: so an older word never lifts a newer hold.
async fn release(args: &ReleaseArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let own = client.profile().settings().identity.participant.to_string();
    let all = registered(&client).await?;
    let found = all.iter().find(|one| one.participant.as_ref().is_some_and(|one| one.code == args.code.as_str()));
    let holds = &found.ok_or_else(|| unknown(&args.code))?.holds;
    let hold = holds.iter().find(|hold| hold.by == own).ok_or_else(|| {
        let others: Vec<&str> = holds.iter().map(|hold| hold.by.as_str()).collect();
        let whose = match others.as_slice() {
            [] => "nobody holds it".to_owned(),
            others => format!("it is held by {}, whose officer alone can release it", others.join(", ")),
        };
        Failure::from(Refusal::new(Reason::HoldUnknown, format!("{own} has laid no hold on {}: {whose}", args.code)))
    })?;
    let digest = Digest::from_slice(&hold.statement).map_err(Failure::answer)?;
    let said = say(&client, DraftContent::Release(digest)).await?;
    tell_held(&args.code, "release", said, output)?;
    let others: Vec<&str> = holds.iter().map(|hold| hold.by.as_str()).filter(|by| *by != own).collect();
    if !others.is_empty() {
        output.say(&format!("{} is still held by {}", args.code, others.join(", ")));
    }
    Ok(())
}

fn tell_held(code: &ParticipantCode, verb: &'static str, said: Said, output: Output) -> Result<(), Failure> {
    let line = HeldLine { participant: code.to_string(), said: verb, state: said.as_str() };
    output.result(&line, || {
        facts(&[("participant", line.participant.clone()), ("said", format!("{verb} ({})", line.state))])
    })
}

/// The whole registry, with the keys of those enrolled.
pub(crate) async fn registered(client: &Client) -> Result<Vec<RegisteredParticipant>, Failure> {
    let answer = client.registry().list_participants(call(ListParticipantsRequest {})).await?;
    Ok(answer.into_inner().participants)
}

/// What is said of a code that is not in the registry.
pub(crate) fn unknown(code: &ParticipantCode) -> Failure {
    Refusal::new(Reason::ParticipantUnknown, format!("there is no participant {code} in the registry")).into()
}

fn line(one: &RegisteredParticipant) -> Result<ParticipantLine, Failure> {
    let participant = one.participant.as_ref().ok_or_else(|| Failure::answer("a participant is missing"))?;
    let participant = parse_participant(participant).map_err(Failure::answer)?;
    let keys = one.enrolled.as_ref();
    let shown = |bytes: &[u8]| Some(grouped(bytes));
    Ok(ParticipantLine {
        participant: participant.code.to_string(),
        kind: participant.kind.to_string(),
        names: participant.names,
        node: keys.map(|keys| keys.node.clone()),
        enrolled_at: keys.and_then(|keys| output::optional_time(keys.enrolled_at.as_ref())),
        fingerprint: keys.and_then(|keys| shown(&keys.enrolment_fingerprint)),
        anchor_fingerprint: keys.and_then(|keys| shown(&keys.anchor_fingerprint)),
        signing_key_fingerprint: keys.and_then(|keys| shown(&keys.signing_key_fingerprint)),
        holds: one
            .holds
            .iter()
            .map(|hold| HoldLine {
                by: hold.by.clone(),
                reason: hold.reason.clone(),
                since: output::optional_time(hold.since.as_ref()),
            })
            .collect(),
    })
}

fn grouped(bytes: &[u8]) -> String {
    concord_model::Digest::from_slice(bytes).map_or_else(|_| hex(bytes), |digest| Fingerprint(digest).grouped())
}
