//! What the forum decided about its participants: recorded by an officer of the secretariat, with the paper, and told to all.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use concord_ledger::{DecisionContent, ForumDecision};
use concord_model::{Participant, ParticipantCode, ParticipantKind, Title};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::feed::v1::LocalName;
use concord_wire::proto::operations::v1::RegistryDecision;
use concord_wire::proto::operations::v1::registry_decision::What;
use concord_wire::registry::parse_kind;
use serde::Serialize;

use super::{registered, unknown};
use crate::cli::ClientArgs;
use crate::client::Client;
use crate::commands::statement::say;
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, safe};

/// A name with its language: `en=Kazakhstan`.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    language: String,
    name: String,
}

fn named(text: &str) -> Result<Named, String> {
    let (language, name) = text.split_once('=').ok_or("write it with its language, like en=Kazakhstan")?;
    Ok(Named { language: language.trim().to_owned(), name: name.trim().to_owned() })
}

fn by_language(names: Vec<Named>) -> Result<BTreeMap<String, String>, Failure> {
    let mut by_language = BTreeMap::new();
    for Named { language, name } in names {
        if by_language.insert(language.clone(), name).is_some() {
            return Err(Failure::usage(format!("the name for {language} is given twice")));
        }
    }
    Ok(by_language)
}

/// What a participant can be.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// A member state.
    Member,
    /// A state that observes.
    #[value(alias = "observer-state")]
    Observer,
    /// An organisation that observes.
    #[value(alias = "observer-organisation")]
    Organisation,
}

impl From<Kind> for ParticipantKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Member => Self::Member,
            Kind::Observer => Self::ObserverState,
            Kind::Organisation => Self::ObserverOrganisation,
        }
    }
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant add TKM --kind observer --name en=Turkmenistan --reference \"decision 4 of 2026\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct AddArgs {
    /// Its code: one that nobody has or had.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
    /// What it is.
    #[arg(long)]
    kind: Kind,
    /// Its name in one language, such as en=Kazakhstan; repeatable, and en is needed.
    #[arg(long = "name", required = true, value_name = "LANGUAGE=NAME", value_parser = named)]
    names: Vec<Named>,
    /// The paper of the forum's decision, in one line: told to all.
    #[arg(long, value_name = "TEXT")]
    reference: Title,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant rename TUR --name en=Türkiye --reference \"note verbale 31/2022\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct RenameArgs {
    /// Its code, which stays.
    code: ParticipantCode,
    #[command(flatten)]
    client: ClientArgs,
    /// Its new name in one language; repeatable.
    #[arg(long = "name", required = true, value_name = "LANGUAGE=NAME", value_parser = named)]
    names: Vec<Named>,
    /// The paper that it rests on, in one line: told to all.
    #[arg(long, value_name = "TEXT")]
    reference: Title,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord participant set-kind TKM member --reference \"decision 9 of 2027\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct SetKindArgs {
    /// Its code.
    code: ParticipantCode,
    /// What it is from now on.
    kind: Kind,
    #[command(flatten)]
    client: ClientArgs,
    /// The paper of the forum's decision, in one line: told to all.
    #[arg(long, value_name = "TEXT")]
    reference: Title,
}

#[derive(Serialize)]
struct DecidedLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<String>,
    decided: &'static str,
    reference: String,
    state: &'static str,
}

/// One decision, as `show` and `list` tell it.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionLine {
    decided: &'static str,
    /// What it is by it.
    now: BTreeMap<String, String>,
    /// What it was.
    before: BTreeMap<String, String>,
    reference: String,
    by: String,
    at: Option<String>,
}

impl DecisionLine {
    /// The paper that it rests on.
    pub(crate) fn paper(&self) -> String {
        safe(&self.reference)
    }

    /// In one line.
    pub(crate) fn words(&self) -> String {
        let shown = |what: &BTreeMap<String, String>| {
            what.iter().map(|(key, value)| format!("{key} {}", safe(value))).collect::<Vec<_>>().join(", ")
        };
        let was = if self.before.is_empty() { String::new() } else { format!(" (was {})", shown(&self.before)) };
        let at = output::short_time(self.at.as_deref());
        format!("{}: {}{was}; {}, recorded by {} {at}", self.decided, shown(&self.now), safe(&self.reference), self.by)
    }
}

pub(crate) fn line(decision: &RegistryDecision) -> Result<DecisionLine, Failure> {
    let names = |names: &[LocalName]| -> BTreeMap<String, String> {
        names.iter().map(|local| (local.language.clone(), local.name.clone())).collect()
    };
    let kind = |kind: i32| -> BTreeMap<String, String> {
        parse_kind(kind).ok().map(|kind| ("kind".to_owned(), kind.to_string())).into_iter().collect()
    };
    let (decided, now, before) = match &decision.what {
        Some(What::Added(added)) => {
            let mut now = names(&added.names);
            now.extend(kind(added.kind));
            ("added", now, BTreeMap::new())
        }
        Some(What::Renamed(renamed)) => ("renamed", names(&renamed.names), names(&renamed.before)),
        Some(What::KindChanged(changed)) => ("kind", kind(changed.kind), kind(changed.before)),
        Some(What::MeasureAdded(measure)) => {
            let now = [("code", &measure.code), ("slug", &measure.slug), ("title", &measure.title)];
            let now = now.map(|(key, value)| (key.to_owned(), value.clone()));
            ("added", now.into_iter().collect(), BTreeMap::new())
        }
        None => return Err(Failure::answer("a decision says nothing that this version knows")),
    };
    Ok(DecisionLine {
        decided,
        now,
        before,
        reference: decision.reference.clone(),
        by: decision.officer.clone(),
        at: output::optional_time(decision.at.as_ref()),
    })
}

pub(super) async fn add(args: AddArgs, output: Output) -> Result<(), Failure> {
    let names = by_language(args.names)?;
    let participant = Participant { code: args.code.clone(), kind: args.kind.into(), names };
    let client = Client::connect(&args.client).await?;
    record(&client, DecisionContent::AddParticipant(participant), args.reference, "added", output).await?;
    hint::next(
        output,
        "all are told. It is nobody's keys yet: its node makes a join request, and this enrols it",
        &[Line::new("participant enrol REQUEST --profile").path(&args.client.profile)],
    );
    Ok(())
}

pub(super) async fn rename(args: RenameArgs, output: Output) -> Result<(), Failure> {
    let names = by_language(args.names)?;
    let client = Client::connect(&args.client).await?;
    let revision = next_revision(&client, &args.code).await?;
    let content = DecisionContent::Rename { participant: args.code.clone(), revision, names };
    record(&client, content, args.reference, "renamed", output).await?;
    tell_shown(&args.code, &args.client, output);
    Ok(())
}

pub(super) async fn set_kind(args: SetKindArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let revision = next_revision(&client, &args.code).await?;
    let content = DecisionContent::SetKind { participant: args.code.clone(), revision, kind: args.kind.into() };
    record(&client, content, args.reference, "kind", output).await?;
    tell_shown(&args.code, &args.client, output);
    Ok(())
}

/// The number that the next change of a participant has.
async fn next_revision(client: &Client, code: &ParticipantCode) -> Result<u32, Failure> {
    let all = registered(client).await?;
    let found = all.iter().find(|one| one.participant.as_ref().is_some_and(|one| one.code == code.as_str()));
    let decisions = &found.ok_or_else(|| unknown(code))?.decisions;
    Ok(decisions.iter().map(|decision| decision.revision).max().unwrap_or(0).saturating_add(1))
}

/// Says it, and tells that it is recorded.
pub(crate) async fn record(
    client: &Client,
    content: DecisionContent,
    reference: Title,
    decided: &'static str,
    output: Output,
) -> Result<(), Failure> {
    let (participant, measure) = match &content {
        DecisionContent::AddParticipant(added) => (Some(added.code.to_string()), None),
        DecisionContent::Rename { participant, .. } | DecisionContent::SetKind { participant, .. } => {
            (Some(participant.to_string()), None)
        }
        DecisionContent::AddMeasure(added) => (None, Some(added.code.to_string())),
    };
    let shown = reference.to_string();
    let said = say(client, DraftContent::Decided(ForumDecision { content, reference })).await?;
    let line = DecidedLine { participant, measure, decided, reference: shown, state: said.as_str() };
    output.result(&line, || {
        let whose = match (&line.participant, &line.measure) {
            (Some(participant), _) => ("participant", participant.clone()),
            (None, measure) => ("measure", measure.clone().unwrap_or_default()),
        };
        facts(&[whose, ("decided", decided.to_owned()), ("reference", safe(&line.reference))])
    })
}

fn tell_shown(code: &ParticipantCode, client: &ClientArgs, output: Output) {
    let show = Line::new("participant show").text(code.as_str()).words("--profile").path(&client.profile);
    hint::next(output, "all are told, with the reference; this shows what was decided and when", &[show]);
}
