//! `concord node check`, `concord hub check`: a line for each check, and at the end whether any does not hold.

use std::path::PathBuf;

use clap::Args;
use concord_node::HubTried;
use concord_server::checks::{Check, Verdict};

use crate::exit::Failure;
use crate::output::{Output, safe};

#[derive(Args)]
pub(crate) struct NodeCheckArgs {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Try the hub there, and not at the addresses of the bundle; before the node joins, as far as a hub can be tried that is not known yet.
    #[arg(long, value_name = "HOST:PORT")]
    hub: Option<String>,
    /// The secretariat's bundle, before the node has joined by it: whose hub is to answer, and where.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct HubCheckArgs {
    /// The hub's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) async fn node(args: NodeCheckArgs, output: Output) -> Result<(), Failure> {
    let hub = HubTried { address: args.hub, bundle: args.bundle };
    tell(&concord_node::check(&args.dir, hub).await, output)
}

pub(crate) async fn hub(args: HubCheckArgs, output: Output) -> Result<(), Failure> {
    tell(&concord_hub::check(&args.dir).await, output)
}

fn tell(checks: &[Check], output: Output) -> Result<(), Failure> {
    output.results(checks, || checks.iter().map(shown).collect())?;
    let named = |result: Verdict| {
        let names: Vec<_> = checks.iter().filter(|check| check.result == result).map(|check| check.check).collect();
        names.join(", ")
    };
    let (failed, untried, warned) = (named(Verdict::Failed), named(Verdict::Untried), named(Verdict::Warning));
    if !warned.is_empty() {
        output.say(&format!("warnings: {warned}"));
    }
    if failed.is_empty() {
        if !untried.is_empty() {
            output.say(&format!("not tried yet: {untried}"));
        }
        return Ok(());
    }
    let said = [("does not hold", failed), ("could not be tried", untried)];
    let said: Vec<_> =
        said.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what}: {names}")).collect();
    Err(Failure::failed("CHECK_FAILED", said.join("; ")).help("each line says the next step; then check again"))
}

fn shown(check: &Check) -> String {
    let word = match check.result {
        Verdict::Ok => "OK",
        Verdict::Warning => "WARNING",
        Verdict::Failed => "FAILED",
        Verdict::Untried => "-",
    };
    let next = if check.next.is_empty() { String::new() } else { format!("{:27}next: {}\n", "", safe(&check.next)) };
    format!("{word:8} {:17} {}\n{next}", check.check, safe(&check.message))
}
