//! `concord contact`: whom one calls in each state, about a measure or about everything.

use clap::{Args, Subcommand};
use concord_ledger::ContactSetting;
use concord_model::{Contact, Language, Languages, MeasureCode, ParticipantCode, ShortLine, Telephone};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::operations::v1::{ContactPoint, ListContactsRequest};
use serde::Serialize;

use super::statement::say;
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, safe, table};

#[derive(Subcommand)]
pub(crate) enum ContactCommand {
    /// Say whom others call in this state, about one measure or about everything else; told to all participants.
    Set(SetArgs),
    /// Say that nobody is to be called there any more.
    Remove(RemoveArgs),
    /// List whom one calls in each state.
    List(ListArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord contact set --measure challenges.2 --office \"Агентство по борьбе с наркотиками, дежурный\" --telephone \"+7 7172 70-15-22\" --hours \"always\" --language ru,kk,en --profile /srv/concord/node/officer"
)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// About this measure; where it is not said, about everything that has no contact of its own.
    #[arg(long, value_name = "MEASURE")]
    measure: Option<MeasureCode>,
    /// The office, in one line.
    #[arg(long, value_name = "TEXT")]
    office: ShortLine,
    /// As it is dialled from abroad, such as "+7 7172 70-15-22" or "+7 7172 701522 ext 14".
    #[arg(long, value_name = "NUMBER")]
    telephone: Telephone,
    /// When somebody answers, with the time zone, such as "Mon-Fri 9-18 UTC+5" or "always".
    #[arg(long, value_name = "TEXT")]
    hours: ShortLine,
    /// The languages spoken there, the preferred first.
    #[arg(long = "language", value_name = "TAG", required = true, value_delimiter = ',')]
    languages: Vec<Language>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord contact remove --measure challenges.2 --profile /srv/concord/node/officer")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// About this measure; where it is not said, about everything else.
    #[arg(long, value_name = "MEASURE")]
    measure: Option<MeasureCode>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord contact list --profile /srv/concord/node/officer\n  concord contact list --measure environmental.5 --profile drug-control"
)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only of this participant.
    #[arg(long, value_name = "CODE")]
    participant: Option<ParticipantCode>,
    /// Whom one calls about this measure: where a participant has named nobody for it, whom it named for everything else.
    #[arg(long, value_name = "MEASURE")]
    measure: Option<MeasureCode>,
}

#[derive(Serialize)]
struct SaidLine {
    participant: String,
    measure: Option<String>,
    said: &'static str,
    state: &'static str,
}

#[derive(Serialize)]
struct ContactLine {
    participant: String,
    /// About everything that has none of its own, where there is none.
    measure: Option<String>,
    office: String,
    telephone: String,
    hours: String,
    languages: Vec<String>,
    set_by: String,
    set_at: Option<String>,
}

pub(crate) async fn run(command: ContactCommand, output: Output) -> Result<(), Failure> {
    match command {
        ContactCommand::Set(args) => set(args, output).await,
        ContactCommand::Remove(args) => remove(args, output).await,
        ContactCommand::List(args) => list(&args, output).await,
    }
}

async fn set(args: SetArgs, output: Output) -> Result<(), Failure> {
    let SetArgs { client, measure, office, telephone, hours, languages } = args;
    let languages = Languages::new(languages).map_err(|error| Failure::usage(error.to_string()))?;
    let contact = Contact { office, telephone, hours, languages };
    tell(&client, measure, Some(contact), "set", output).await?;
    let all = Line::new("contact list").words("--profile").path(&client.profile);
    hint::next(output, "all participants are told. This shows whom one calls where", &[all]);
    Ok(())
}

async fn remove(args: RemoveArgs, output: Output) -> Result<(), Failure> {
    tell(&args.client, args.measure, None, "remove", output).await?;
    let all = Line::new("contact list").words("--profile").path(&args.client.profile);
    hint::next(output, "all participants are told. This shows whom one calls where", &[all]);
    Ok(())
}

/// Says what comes after the newest setting that is known here; where another officer was quicker it is refused, and nothing is lost.
async fn tell(
    args: &ClientArgs,
    measure: Option<MeasureCode>,
    contact: Option<Contact>,
    said: &'static str,
    output: Output,
) -> Result<(), Failure> {
    let client = Client::connect(args).await?;
    let own = client.profile().settings().identity.participant.to_string();
    let about = measure.as_ref().map_or("", MeasureCode::as_str);
    let known = points(&client, &own).await?.into_iter().find(|point| point.measure == about);
    let revision = known.map_or(0, |point| point.revision).saturating_add(1);
    let state =
        say(&client, DraftContent::SetContact(ContactSetting { measure: measure.clone(), revision, contact })).await?;
    let measure = measure.map(|measure| measure.to_string());
    let line = SaidLine { participant: own, measure, said, state: state.as_str() };
    output.result(&line, || {
        facts(&[
            ("contact of", line.participant.clone()),
            ("about", line.measure.clone().unwrap_or_else(|| EVERYTHING.to_owned())),
            ("said", format!("{said} ({})", line.state)),
        ])
    })
}

/// What stands where no measure is named.
const EVERYTHING: &str = "everything else";

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let whose = args.participant.as_ref().map_or("", ParticipantCode::as_str);
    let points = points(&client, whose).await?;
    let lines: Vec<ContactLine> = match &args.measure {
        None => points.into_iter().filter_map(line).collect(),
        Some(measure) => about(measure, points.into_iter().filter_map(line).collect()),
    };
    output.results(&lines, || {
        table(
            &["participant", "about", "office", "telephone", "hours", "languages"],
            lines.iter().map(|line| {
                vec![
                    line.participant.clone(),
                    line.measure.clone().unwrap_or_else(|| EVERYTHING.to_owned()),
                    safe(&line.office),
                    safe(&line.telephone),
                    safe(&line.hours),
                    safe(&line.languages.join(" ")),
                ]
            }),
        )
    })
}

/// Of each participant the contact for this measure; where it has none, that for everything else.
fn about(measure: &MeasureCode, lines: Vec<ContactLine>) -> Vec<ContactLine> {
    let is_exact = |line: &ContactLine| line.measure.as_deref() == Some(measure.as_str());
    let with_own: Vec<String> =
        lines.iter().filter(|line| is_exact(line)).map(|line| line.participant.clone()).collect();
    let is_asked =
        |line: &ContactLine| is_exact(line) || line.measure.is_none() && !with_own.contains(&line.participant);
    lines.into_iter().filter(|line| is_asked(line)).collect()
}

/// All places of this participant, or of all, page by page.
async fn points(client: &Client, participant: &str) -> Result<Vec<ContactPoint>, Failure> {
    let (mut points, mut after) = (Vec::new(), String::new());
    loop {
        let asked = ListContactsRequest { participant: participant.to_owned(), after: after.clone() };
        let page = client.registry().list_contacts(call(asked)).await?.into_inner();
        points.extend(page.contacts);
        // A page that leads nowhere would be asked for without end.
        if page.more_after <= after {
            return Ok(points);
        }
        after = page.more_after;
    }
}

/// None where nobody is called any more.
fn line(point: ContactPoint) -> Option<ContactLine> {
    let contact = point.contact?;
    Some(ContactLine {
        participant: point.participant,
        measure: Some(point.measure).filter(|measure| !measure.is_empty()),
        office: contact.office,
        telephone: contact.telephone,
        hours: contact.hours,
        languages: contact.languages,
        set_by: point.officer,
        set_at: output::optional_time(point.at.as_ref()),
    })
}
