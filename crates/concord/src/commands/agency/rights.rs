//! What an agency may send and receive: given, taken away, listed.

use std::path::PathBuf;

use clap::Args;
use concord_model::{AgreementId, MeasureCode, Name, Right, Role, Scope};
use concord_wire::proto::operations::v1::revoke_agency_request::What;
use concord_wire::proto::operations::v1::{
    AgencyRule, ConfirmAgencyRequest, EndOfAgency, GrantAgencyRequest, ListAgenciesRequest, ListedAgency,
    RevokeAgencyRequest,
};
use concord_wire::right::{parse_right, right};
use serde::Serialize;

use crate::cli::ClientArgs;
use crate::client::{Client, call};
use crate::commands::certificates::tell_held;
use crate::commands::statement::confirm;
use crate::exit::Failure;
use crate::output::{self, Output, facts, table};

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency grant cert --receive --measure challenges.3 --profile /srv/concord/node/officer\n  concord agency grant cert --agreement KAZ/cyber --profile /srv/concord/node/officer\n\nIt is given what lies ahead of its cursor and it may have now, and what nobody else had the right to. What it passed without the right, and another agency had, it is not given."
)]
pub(crate) struct GrantArgs {
    /// The agency's name.
    name: Name,
    #[command(flatten)]
    what: WhatArgs,
    /// Everything: all measures under all agreements.
    #[arg(long, conflicts_with_all = ["measures", "agreements"])]
    all: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency revoke cert --send --measure challenges.3 --yes --profile /srv/concord/node/operator\n  concord agency revoke cert --all --yes --profile /srv/concord/node/operator\n\nWith --all, or with nothing named, the agency is ended: its name is not used again."
)]
pub(crate) struct RevokeArgs {
    /// The agency's name.
    name: Name,
    #[command(flatten)]
    what: WhatArgs,
    /// End the agency.
    #[arg(long, conflicts_with_all = ["measures", "agreements", "send", "receive"])]
    all: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency list --profile /srv/concord/node/officer\n  concord agency confirm cert police --profile /srv/concord/node/officer\n  concord agency confirm --all --profile /srv/concord/node/officer\n\nWhat was taken from an agency, or that it was ended, between a backup and its restore is forgotten: take it away again first. One that the backup knew goes on from its own cursors. One that was added behind the restore begins there, unless --past says that it was let in before: then what came back is given to it."
)]
pub(crate) struct ConfirmArgs {
    /// The agencies' names.
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<Name>,
    /// All that wait for it, with the rights that `agency list` shows.
    #[arg(long)]
    all: bool,
    /// What came back is given also to those that were added behind the restore.
    #[arg(long)]
    past: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args)]
struct WhatArgs {
    /// To send. Neither this nor --receive means both.
    #[arg(long)]
    send: bool,
    /// To receive.
    #[arg(long)]
    receive: bool,
    /// Of these measures; none named means all.
    #[arg(long = "measure", value_delimiter = ',', value_name = "CODE")]
    measures: Vec<MeasureCode>,
    /// Under these agreements; none named means all, those to come too.
    #[arg(long = "agreement", value_delimiter = ',', value_name = "ID")]
    agreements: Vec<AgreementId>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency list --profile /srv/concord/node/operator\n  concord agency list --dir /srv/concord/node"
)]
pub(crate) struct ListArgs {
    /// The profile folder of an operator or officer: what each may.
    #[arg(long, value_name = "DIR", required_unless_present = "dir")]
    profile: Option<PathBuf>,
    /// The node's folder: the certificates of each.
    #[arg(long, value_name = "NODEDIR", conflicts_with = "profile")]
    dir: Option<PathBuf>,
}

impl WhatArgs {
    fn names_nothing(&self) -> bool {
        self.measures.is_empty() && self.agreements.is_empty()
    }

    fn right(self) -> Right {
        let both = self.send == self.receive;
        Right {
            send: self.send || both,
            receive: self.receive || both,
            measures: scope(self.measures),
            agreements: scope(self.agreements),
        }
    }
}

fn scope<T: Ord>(named: Vec<T>) -> Scope<T> {
    if named.is_empty() { Scope::All } else { Scope::These(named.into_iter().collect()) }
}

#[derive(Serialize)]
struct ChangeLine {
    agency: String,
    change: &'static str,
    /// None where the agency was ended.
    right: Option<RightLine>,
}

#[derive(Serialize)]
struct RightLine {
    send: bool,
    receive: bool,
    /// None means all.
    measures: Option<Vec<String>>,
    /// None means all.
    agreements: Option<Vec<String>>,
}

impl RightLine {
    fn of(right: &Right) -> Self {
        Self {
            send: right.send,
            receive: right.receive,
            measures: names(&right.measures),
            agreements: names(&right.agreements),
        }
    }
}

fn names<T: Ord + ToString>(scope: &Scope<T>) -> Option<Vec<String>> {
    match scope {
        Scope::All => None,
        Scope::These(these) => Some(these.iter().map(ToString::to_string).collect()),
    }
}

#[derive(Serialize)]
struct AgencyLine {
    agency: String,
    ended: bool,
    /// It has nothing of its rules until an officer confirms it.
    unconfirmed: bool,
    rules: Vec<RuleLine>,
}

#[derive(Serialize)]
struct RuleLine {
    granted: bool,
    #[serde(flatten)]
    right: RightLine,
}

pub(super) async fn grant(args: GrantArgs, output: Output) -> Result<(), Failure> {
    if args.what.names_nothing() && !args.all {
        return Err(Failure::usage("name what is given: --measure, --agreement, or --all"));
    }
    let given = args.what.right();
    let client = Client::connect(&args.client).await?;
    let request = GrantAgencyRequest { name: args.name.to_string(), right: Some(right(&given)) };
    client.operations().grant_agency(call(request)).await?;
    tell(&args.name, "granted", Some(&given), output)
}

pub(super) async fn revoke(args: RevokeArgs, output: Output) -> Result<(), Failure> {
    let RevokeArgs { name, what, yes, client, .. } = args;
    // Everything of one direction can be given back; an end cannot be undone.
    let ends = what.names_nothing() && !what.send && !what.receive;
    if !yes {
        let question = if ends {
            format!("End the agency {name}? Its certificates are admitted no more, and its name is not used again.")
        } else {
            format!("Take from the agency {name} what it may no longer send or receive?")
        };
        confirm(output, &format!("revoking {name}"), &question, name.as_str())?;
    }
    let taken = (!ends).then(|| what.right());
    let client = Client::connect(&client).await?;
    let what = taken.as_ref().map_or(What::End(EndOfAgency {}), |taken| What::Right(right(taken)));
    client.operations().revoke_agency(call(RevokeAgencyRequest { name: name.to_string(), what: Some(what) })).await?;
    tell(&name, if ends { "ended" } else { "revoked" }, taken.as_ref(), output)
}

pub(super) async fn confirm_all(args: ConfirmArgs, output: Output) -> Result<(), Failure> {
    let client = Client::connect(&args.client).await?;
    let mut names = args.names;
    if args.all {
        let listed = client.operations().list_agencies(call(ListAgenciesRequest {})).await?.into_inner();
        let waiting = listed.agencies.iter().filter(|agency| agency.unconfirmed);
        names = waiting.map(|agency| Name::parse(&agency.name)).collect::<Result<_, _>>()?;
    }
    let mut lines = Vec::with_capacity(names.len());
    for name in names {
        let request = ConfirmAgencyRequest { name: name.to_string(), with_past: args.past };
        client.operations().confirm_agency(call(request)).await?;
        lines.push(ChangeLine { agency: name.to_string(), change: "confirmed", right: None });
    }
    output.results(&lines, || {
        table(&["agency", "change"], lines.iter().map(|line| vec![line.agency.clone(), line.change.to_owned()]))
    })
}

fn tell(name: &Name, change: &'static str, right: Option<&Right>, output: Output) -> Result<(), Failure> {
    let line = ChangeLine { agency: name.to_string(), change, right: right.map(RightLine::of) };
    output.result(&line, || {
        let mut rows = vec![("agency", line.agency.clone()), ("change", change.to_owned())];
        rows.extend(right.map(|right| ("right", right.to_string())));
        facts(&rows)
    })
}

pub(super) async fn list(args: ListArgs, output: Output) -> Result<(), Failure> {
    let profile = match (args.profile, args.dir) {
        (Some(profile), _) => profile,
        (None, dir) => {
            let dir = dir.ok_or_else(|| Failure::usage("give --profile or --dir"))?;
            let holders = concord_node::holders(&dir)?;
            return tell_held(&holders, &holders.list(Some(Role::Agency), output::now())?, output);
        }
    };
    let client = Client::connect(&ClientArgs { profile }).await?;
    let listed = client.operations().list_agencies(call(ListAgenciesRequest {})).await?.into_inner();
    let lines = listed.agencies.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    output.results(&lines, || table(&["agency", "may", "measures", "agreements"], lines.iter().flat_map(shown)))
}

fn read(agency: &ListedAgency) -> Result<AgencyLine, Failure> {
    let rule = |rule: &AgencyRule| {
        let right = parse_right(&rule.right.clone().unwrap_or_default())?;
        Ok::<_, Failure>(RuleLine { granted: rule.granted, right: RightLine::of(&right) })
    };
    let rules = agency.rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(AgencyLine { agency: agency.name.clone(), ended: agency.ended, unconfirmed: agency.unconfirmed, rules })
}

fn shown(line: &AgencyLine) -> Vec<Vec<String>> {
    if line.rules.is_empty() {
        let state = if line.ended { "ended" } else { "nothing" };
        return vec![vec![line.agency.clone(), state.to_owned(), "-".to_owned(), "-".to_owned()]];
    }
    let row = |rule: &RuleLine| {
        let may = if rule.right.send { "send" } else { "receive" };
        let may = if rule.granted { may.to_owned() } else { format!("not {may}") };
        let may = if line.unconfirmed { format!("{may}, unconfirmed") } else { may };
        let all =
            |names: &Option<Vec<String>>| names.as_ref().map_or_else(|| "all".to_owned(), |names| names.join(", "));
        vec![line.agency.clone(), may, all(&rule.right.measures), all(&rule.right.agreements)]
    };
    line.rules.iter().map(row).collect()
}
