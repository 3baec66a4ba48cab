//! `concord role`: the chair, and who coordinates what, as the forum decided and its secretariat records it.

use clap::{Args, Subcommand};
use concord_ledger::RoleDecision;
use concord_model::{ForumRole, MeasureCode, Name, ParticipantCode, RoleScope, ShortLine, Title};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::operations::v1::{ListRolesRequest, RolePlace};
use serde::Serialize;

use super::statement::say;
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, safe, short_time, table};

#[derive(Subcommand)]
pub(crate) enum RoleCommand {
    /// Record that the forum gave a role to a member, as an officer of the secretariat; told to all participants. It gives no right. The chair
    /// goes from whoever has it.
    Grant(DecisionArgs),
    /// Record that the forum took a role, or that its holder gave it back.
    #[command(
        after_help = "Example:\n  concord role revoke IRN coordinator --measure challenges.2 --words \"drug control\" --reference \"SOC decision 14/2026\" --profile /srv/concord/hub/officer"
    )]
    Revoke(DecisionArgs),
    /// List the chair and who coordinates what.
    List(ListArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord role grant IRN coordinator --measure challenges.2 --words \"drug control\" --reference \"SOC decision 14/2026\" --profile /srv/concord/hub/officer\n  concord role grant KAZ chair --reference \"summit declaration, para 9\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct DecisionArgs {
    /// Whose role it is.
    code: ParticipantCode,
    /// chair, coordinator or co-coordinator.
    role: ForumRole,
    #[command(flatten)]
    client: ClientArgs,
    /// Over this area of the catalogue.
    #[arg(long, value_name = "AREA", conflicts_with = "measure")]
    area: Option<Name>,
    /// Over this measure.
    #[arg(long, value_name = "MEASURE")]
    measure: Option<MeasureCode>,
    /// The part of it, or what is in no catalogue, in one line.
    #[arg(long, value_name = "TEXT")]
    words: Option<ShortLine>,
    /// The paper of the decision, in one line: told to all.
    #[arg(long, value_name = "TEXT")]
    reference: Title,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord role list --profile /srv/concord/node/officer")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only of this participant.
    #[arg(long, value_name = "CODE")]
    participant: Option<ParticipantCode>,
}

#[derive(Serialize)]
struct SaidLine {
    participant: String,
    role: String,
    over: Option<String>,
    said: &'static str,
    state: &'static str,
}

#[derive(Serialize)]
struct RoleLine {
    participant: String,
    role: String,
    area: Option<String>,
    measure: Option<String>,
    words: Option<String>,
    reference: String,
    since: Option<String>,
}

pub(crate) async fn run(command: RoleCommand, output: Output) -> Result<(), Failure> {
    match command {
        RoleCommand::Grant(args) => record(args, true, output).await,
        RoleCommand::Revoke(args) => record(args, false, output).await,
        RoleCommand::List(args) => list(&args, output).await,
    }
}

/// Says what comes after the newest decision that is known; where another officer was quicker it is refused, and nothing is lost.
async fn record(args: DecisionArgs, is_given: bool, output: Output) -> Result<(), Failure> {
    let DecisionArgs { code, role, client: of, area, measure, words, reference } = args;
    let scope = RoleScope { area, measure, words };
    let client = Client::connect(&of).await?;
    let is_about = |place: &RolePlace| {
        place.role == role.as_str()
            && (role == ForumRole::Chair || place.of == code.as_str())
            && place.area == scope.area.as_ref().map_or("", Name::as_str)
            && place.measure == scope.measure.as_ref().map_or("", MeasureCode::as_str)
            && place.words == scope.words.as_ref().map_or("", ShortLine::as_str)
    };
    let known = places(&client).await?.into_iter().find(is_about);
    let revision = known.as_ref().map_or(0, |place| place.revision).saturating_add(1);
    let over = Some(scope.to_string()).filter(|over| !over.is_empty());
    let decision = RoleDecision { participant: code.clone(), role, scope, revision, is_given, reference };
    let state = say(&client, DraftContent::Role(decision)).await?;
    let said = if is_given { "grant" } else { "revoke" };
    let line = SaidLine { participant: code.to_string(), role: role.to_string(), over, said, state: state.as_str() };
    output.result(&line, || {
        facts(&[
            ("participant", line.participant.clone()),
            ("role", line.role.clone()),
            ("over", safe(line.over.as_deref().unwrap_or("the forum"))),
            ("said", format!("{said} ({})", line.state)),
        ])
    })?;
    if let Some(before) = known.map(|place| place.holder).filter(|before| is_given && !before.is_empty()) {
        output.say(&format!("it was {before}'s before"));
    }
    let all = Line::new("role list").words("--profile").path(&of.profile);
    hint::next(output, "all participants are told, with the reference. This shows who has which role", &[all]);
    Ok(())
}

async fn places(client: &Client) -> Result<Vec<RolePlace>, Failure> {
    Ok(client.registry().list_roles(call(ListRolesRequest {})).await?.into_inner().roles)
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let is_asked = |place: &RolePlace| match &args.participant {
        Some(participant) => place.holder == participant.as_str(),
        None => !place.holder.is_empty(),
    };
    let lines: Vec<RoleLine> = places(&client).await?.into_iter().filter(is_asked).map(line).collect();
    output.results(&lines, || {
        table(
            &["role", "participant", "over", "in words", "since", "by"],
            lines.iter().map(|line| {
                let over = line.measure.as_ref().or(line.area.as_ref());
                let of_forum = if line.words.is_none() { "the forum" } else { "-" };
                vec![
                    line.role.clone(),
                    line.participant.clone(),
                    over.map_or_else(|| of_forum.to_owned(), |over| safe(over)),
                    safe(line.words.as_deref().unwrap_or("-")),
                    short_time(line.since.as_deref()),
                    safe(&line.reference),
                ]
            }),
        )
    })
}

fn line(place: RolePlace) -> RoleLine {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    RoleLine {
        participant: place.holder,
        role: place.role,
        area: some(place.area),
        measure: some(place.measure),
        words: some(place.words),
        reference: place.reference,
        since: output::optional_time(place.at.as_ref()),
    }
}
