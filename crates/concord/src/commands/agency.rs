//! `concord agency`: which national agencies there are, and what each may send and receive.

mod rights;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use concord_model::{MeasureCode, Name};
use serde::Serialize;

use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, facts};
use rights::{ConfirmArgs, GrantArgs, ListArgs, RevokeArgs};

#[derive(Subcommand)]
pub(crate) enum AgencyCommand {
    /// Let an agency in, also while the node runs, and make its profile.
    Add(AddArgs),
    /// Give an agency a right more, as an officer; at once, on open streams too.
    Grant(GrantArgs),
    /// Confirm agencies, as an officer, behind a restore or rebuild of the node: until then they have nothing.
    Confirm(ConfirmArgs),
    /// Take a right from an agency, or end it, as an operator or officer; at once, on open streams too.
    Revoke(RevokeArgs),
    /// List the agencies and what each may send and receive.
    List(ListArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency add drug-control --dir /srv/concord/node --measure challenges.2\n\nIt gets what is recorded from now on, and what nobody else had the right to; it sees only its own submissions."
)]
pub(crate) struct AddArgs {
    /// The agency's name: a-z, 0-9 and '-'.
    name: Name,
    /// The node's folder.
    #[arg(long, value_name = "NODEDIR")]
    dir: PathBuf,
    /// What it may send and receive, under all agreements; none named means all measures.
    #[arg(long = "measure", value_delimiter = ',', value_name = "CODE")]
    measures: Vec<MeasureCode>,
}

#[derive(Serialize)]
struct AddLine {
    agency: String,
    profile: String,
    measures: Vec<String>,
    /// It has nothing until an officer confirms it.
    unconfirmed: bool,
}

pub(crate) async fn run(command: AgencyCommand, output: Output) -> Result<(), Failure> {
    match command {
        AgencyCommand::Add(args) => add(args, output).await,
        AgencyCommand::Grant(args) => rights::grant(args, output).await,
        AgencyCommand::Confirm(args) => rights::confirm_all(args, output).await,
        AgencyCommand::Revoke(args) => rights::revoke(args, output).await,
        AgencyCommand::List(args) => rights::list(args, output).await,
    }
}

async fn add(args: AddArgs, output: Output) -> Result<(), Failure> {
    let added = concord_node::add_agency(&args.dir, args.name.clone(), args.measures.clone()).await?;
    let line = AddLine {
        agency: args.name.to_string(),
        profile: added.profile_dir.display().to_string(),
        measures: args.measures.iter().map(ToString::to_string).collect(),
        unconfirmed: added.unconfirmed,
    };
    output.result(&line, || {
        let measures = if line.measures.is_empty() { "all".to_owned() } else { line.measures.join(", ") };
        facts(&[("agency", line.agency.clone()), ("measures", measures), ("profile", line.profile.clone())])
    })?;
    if added.unconfirmed {
        let officer = args.dir.join("officer");
        hint::next(
            output,
            "the journal of this node was put back or made anew: run the node, and let its officer confirm the agency; with --past if it was \
             let in before",
            &[Line::new("agency confirm").text(args.name.as_str()).words("--profile").path(&officer)],
        );
    }
    let profile = &added.profile_dir;
    hint::next(
        output,
        "run the node if it does not run yet, then use the profile",
        &[
            Line::new("node serve --dir").path(&args.dir),
            Line::new("receive --profile").path(profile).words("--out received"),
            Line::new("submit FILE --profile").path(profile),
        ],
    );
    Ok(())
}
