//! `concord participant`: the registry; enrolling, and what the forum decided about itself, which are the secretariat's.

use clap::{Args, Subcommand};
use concord_model::{Digest, Fingerprint, ParticipantCode, Reason, Refusal, Title};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::operations::v1::{ListParticipantsRequest, RegisteredParticipant};
use concord_wire::registry::parse_participant;
use serde::Serialize;

use super::approval;
use super::statement::{Said, say, say_it};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, hex, safe, table};

pub(crate) mod decisions;
mod enrol;

use decisions::DecisionLine;

#[derive(Subcommand)]
pub(crate) enum ParticipantCommand {
    /// Bind a state to the anchor and keys of its node, as an officer of the secretariat.
    Enrol(enrol::EnrolArgs),
    /// Write the bundle with which an enrolled node joins, again.
    Bundle(enrol::BundleArgs),
    /// Record that the forum took a participant in.
    Add(decisions::AddArgs),
    /// Record new names of a participant; names in other languages stay.
    Rename(decisions::RenameArgs),
    /// Record what the forum makes of a participant from now on.
    SetKind(decisions::SetKindArgs),
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

/// Of keys that a participant took by itself.
const OWN_WORD: &str = "own-word";

#[derive(Serialize)]
struct ParticipantLine {
    participant: String,
    kind: String,
    names: std::collections::BTreeMap<String, String>,
    node: Option<String>,
    /// Since when the present keys count.
    enrolled_at: Option<String>,
    /// By whose word they do: the secretariat's officers' who enrolled them, or its own, by the keys before them.
    keys_by: Option<&'static str>,
    fingerprint: Option<String>,
    anchor_fingerprint: Option<String>,
    /// The anchor before it, while that counts too.
    ending_anchor_fingerprint: Option<String>,
    signing_key_fingerprint: Option<String>,
    /// The signing keys that it followed, the first first.
    earlier_signing_keys: Vec<String>,
    /// Of the secretariat: the fingerprint over the present keys of its hub.
    hub_fingerprint: Option<String>,
    /// The officers of the secretariat who signed for these keys; where those are by its own word, for the ones that vouch for them.
    approved_by: Vec<String>,
    holds: Vec<HoldLine>,
    decisions: Vec<DecisionLine>,
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
        ParticipantCommand::Enrol(args) => enrol::enrol(&args, output).await,
        ParticipantCommand::Bundle(args) => enrol::bundle(&args, output).await,
        ParticipantCommand::Add(args) => decisions::add(args, output).await,
        ParticipantCommand::Rename(args) => decisions::rename(args, output).await,
        ParticipantCommand::SetKind(args) => decisions::set_kind(args, output).await,
        ParticipantCommand::List(args) => list(&args, output).await,
        ParticipantCommand::Show(args) => show(&args, output).await,
        ParticipantCommand::Hold(args) => hold(args, output).await,
        ParticipantCommand::Release(args) => release(&args, output).await,
    }
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let lines = registered(&client).await?.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    output.results(&lines, || {
        table(
            &["participant", "kind", "name", "node", "keys since", "held by"],
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
        let by_own_word = line.keys_by == Some(OWN_WORD);
        add(if by_own_word { "keys since" } else { "enrolled" }, &line.enrolled_at);
        if by_own_word {
            add("keys by", &Some("its own word: the keys before vouch for them".to_owned()));
        }
        add("fingerprint", &line.fingerprint);
        add("anchor", &line.anchor_fingerprint);
        add("signing key", &line.signing_key_fingerprint);
        if line.ending_anchor_fingerprint.is_some() {
            add("anchor before, counts", &line.ending_anchor_fingerprint);
        }
        for key in &line.earlier_signing_keys {
            add("signing key before", &Some(key.clone()));
        }
        if line.hub_fingerprint.is_some() {
            add("hub", &line.hub_fingerprint);
        }
        // Officers who enrolled it never saw the keys that it took by itself.
        let approved = if by_own_word { "approved by, before" } else { "approved by" };
        add(approved, &Some(line.approved_by.join(", ")).filter(|officers| !officers.is_empty()));
        for hold in &line.holds {
            let since = output::short_time(hold.since.as_deref());
            rows.push(("held", format!("by {} since {since}: {}", hold.by, safe(&hold.reason))));
        }
        rows.extend(line.decisions.iter().map(|decision| ("decided", decision.words())));
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
    let (said, statement) = say_it(&client, DraftContent::Release(digest)).await?;
    tell_held(&args.code, "release", said, output)?;
    if let Said::Waits(missing) = said {
        approval::tell_waits(missing, &statement, output);
        return Ok(());
    }
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
        keys_by: keys.map(|keys| match keys.earlier.last() {
            Some(before) if before.vouch => OWN_WORD,
            _ => "secretariat",
        }),
        fingerprint: keys.and_then(|keys| shown(&keys.enrolment_fingerprint)),
        anchor_fingerprint: keys.and_then(|keys| shown(&keys.anchor_fingerprint)),
        signing_key_fingerprint: keys.and_then(|keys| shown(&keys.signing_key_fingerprint)),
        ending_anchor_fingerprint: keys.and_then(|keys| {
            shown(&keys.ending_anchor_fingerprint).filter(|_| !keys.ending_anchor_fingerprint.is_empty())
        }),
        earlier_signing_keys: {
            let present = keys.map(|keys| &keys.signing_key_fingerprint);
            let earlier =
                keys.into_iter().flat_map(|keys| &keys.earlier).map(|earlier| &earlier.signing_key_fingerprint);
            let mut earlier: Vec<_> = earlier.filter(|key| Some(*key) != present).map(|key| grouped(key)).collect();
            earlier.dedup();
            earlier
        },
        hub_fingerprint: one.hub.as_ref().and_then(|keys| shown(&keys.enrolment_fingerprint)),
        approved_by: keys.map(|keys| keys.signed_by.clone()).unwrap_or_default(),
        decisions: one.decisions.iter().map(decisions::line).collect::<Result<_, _>>()?,
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
