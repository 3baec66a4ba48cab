//! `concord measure`: the catalogue, and what the forum added to it.

use clap::{Args, Subcommand};
use concord_ledger::DecisionContent;
use concord_model::{Measure, MeasureCode, Name, Title};
use concord_wire::proto::operations::v1::ListMeasuresRequest;
use concord_wire::proto::operations::v1::registry_decision::What;
use serde::Serialize;

use super::participant::decisions::{self, DecisionLine};
use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, safe, table};

#[derive(Subcommand)]
pub(crate) enum MeasureCommand {
    /// Record that the forum put a measure into the catalogue, as an officer of the secretariat.
    Add(AddArgs),
    /// List all measures.
    List(ListArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord measure add challenges.7 --slug water --title \"Shared rivers\" --reference \"decision 4 of 2026\" --profile /srv/concord/hub/officer"
)]
pub(crate) struct AddArgs {
    /// Its code: an area of the catalogue, a dot and a number that nothing has or had.
    code: MeasureCode,
    #[command(flatten)]
    client: ClientArgs,
    /// Its short name.
    #[arg(long, value_name = "NAME")]
    slug: Name,
    /// What it is, in one line.
    #[arg(long, value_name = "TEXT")]
    title: Title,
    /// The paper of the forum's decision, in one line: told to all.
    #[arg(long, value_name = "TEXT")]
    reference: Title,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord measure list --profile /srv/concord/node/officer")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct MeasureLine {
    measure: String,
    slug: String,
    title: String,
    area: String,
    /// By what it joined the catalogue; none of those that it began with.
    added: Option<DecisionLine>,
}

pub(crate) async fn run(command: MeasureCommand, output: Output) -> Result<(), Failure> {
    match command {
        MeasureCommand::Add(args) => add(args, output).await,
        MeasureCommand::List(args) => list(&args, output).await,
    }
}

async fn add(args: AddArgs, output: Output) -> Result<(), Failure> {
    let measure = Measure { code: args.code, slug: args.slug, title: args.title.to_string() };
    let client = Client::connect(&args.client).await?;
    decisions::record(&client, DecisionContent::AddMeasure(measure), args.reference, "added", output).await?;
    let list = Line::new("measure list --profile").path(&args.client.profile);
    hint::next(output, "all are told; it is exchanged once states agree on it. This shows the catalogue", &[list]);
    Ok(())
}

async fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let answer = client.registry().list_measures(call(ListMeasuresRequest {})).await?.into_inner();
    let added = |code: &str| {
        let of_it = |what: &Option<What>| matches!(what, Some(What::MeasureAdded(measure)) if measure.code == code);
        answer.decisions.iter().find(|decision| of_it(&decision.what)).map(decisions::line).transpose()
    };
    let line = |measure: &concord_wire::proto::feed::v1::Measure| {
        let area = measure.code.split('.').next().unwrap_or_default();
        let title = answer.areas.iter().find(|known| known.slug == area).map(|known| known.title.clone());
        Ok(MeasureLine {
            measure: measure.code.clone(),
            slug: measure.slug.clone(),
            title: measure.title.clone(),
            area: title.unwrap_or_default(),
            added: added(&measure.code)?,
        })
    };
    let lines = answer.measures.iter().map(line).collect::<Result<Vec<_>, Failure>>()?;
    output.results(&lines, || {
        table(
            &["measure", "slug", "title", "added by"],
            lines.iter().map(|line| {
                let added = line.added.as_ref().map_or_else(|| "-".to_owned(), DecisionLine::paper);
                vec![line.measure.clone(), line.slug.clone(), safe(&line.title), added]
            }),
        )
    })
}
