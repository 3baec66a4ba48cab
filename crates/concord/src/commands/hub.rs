//! `concord hub`: set a hub up, run it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use concord_backup::Owner;
use concord_hub::{HubError, InitOptions, Seed};
use concord_model::{Name, Role};
use serde::Serialize;

use super::backup::{self, BackupArgs, RestoreArgs};
use super::check::{self, CheckArgs};
use super::retention::{self, RetentionCommand};
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, facts};
use crate::signals::Stop;

use super::again::unless_full;

/// The name of the seed that is built in.
const SEED_BUILT_IN: &str = "cica-2007";

#[derive(Subcommand)]
pub(crate) enum HubCommand {
    /// Make a hub: its trust anchor and keys, its profiles, its settings, its registry.
    Init(InitArgs),
    /// Run a hub until Ctrl-C or SIGTERM.
    Serve(ServeArgs),
    /// Check a hub's folder and its machine, also while it serves.
    #[command(
        after_help = "Example:\n  concord hub check --dir /srv/concord/hub\n\nEach line is OK, or the cause and the next step. Exit 0 only if all hold. It takes no lock, and a hub that runs does not notice."
    )]
    Check(CheckArgs),
    /// Back a running hub up: its journal, bodies included, its settings and certificates; never a private key.
    #[command(after_help = "Example:\n  concord hub backup --profile /srv/concord/hub/officer --out hub.backup")]
    Backup(BackupArgs),
    /// Put a backup in place of a hub's journal, and begin a new history.
    #[command(
        after_help = "Example:\n  concord hub restore hub.backup --dir /srv/concord/hub\n\nThe hub must not run, and its keys must be in the folder. What is there is moved aside, not deleted."
    )]
    Restore(RestoreArgs),
    /// What may go of the bodies that the hub keeps, and letting it go.
    #[command(
        subcommand,
        after_help = "Example:\n  concord hub retention preview --profile /srv/concord/hub/operator --days 365"
    )]
    Retention(RetentionCommand),
    /// Make the journal of a hub anew where it is lost, there is no backup, and the keys are there.
    Refound(RefoundArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord hub init --dir /srv/concord/hub --listen 0.0.0.0:7443 --announce hub.example.org:7443 --dns hub.example.org"
)]
pub(crate) struct InitArgs {
    /// The hub's folder; absent or empty.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The hub's name.
    #[arg(long, default_value = "main")]
    name: Name,
    /// Where nodes connect. Port 0: the system chooses one, which stays.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// Where health and metrics are served.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    admin: String,
    /// The addresses that nodes are told, the best first; where none is named, the one that it listens on.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    announce: Vec<String>,
    /// DNS names or addresses for the hub's certificate.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    dns: Vec<String>,
    /// The registry and catalogue to begin with: cica-2007, or a TOML file of the same shape.
    #[arg(long, default_value = SEED_BUILT_IN, value_name = "cica-2007|FILE")]
    seed: String,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord hub serve --dir /srv/concord/hub")]
pub(crate) struct ServeArgs {
    /// The hub's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord hub refound --dir /srv/concord/hub")]
pub(crate) struct RefoundArgs {
    /// The hub's folder, with its keys in it.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The registry and catalogue to begin with: those that it began with at first.
    #[arg(long, default_value = SEED_BUILT_IN, value_name = "cica-2007|FILE")]
    seed: String,
}

#[derive(Serialize)]
struct InitLine {
    hub: String,
    dir: String,
    fingerprint: String,
}

pub(crate) async fn run(command: HubCommand, output: Output) -> Result<(), Failure> {
    match command {
        HubCommand::Init(args) => init(args, output),
        HubCommand::Serve(args) => {
            start_log()?;
            let mut stop = Stop::listen()?;
            let ended = concord_hub::serve(&args.dir).await;
            unless_full(&args.dir, &mut stop, ended, HubError::may_want_room).await
        }
        HubCommand::Check(args) => check::hub(args, output).await,
        HubCommand::Backup(args) => backup::backup(args, Owner::Hub, output).await,
        HubCommand::Restore(args) => backup::restore_hub(&args, output),
        HubCommand::Retention(command) => retention::run(command, Role::Hub, output).await,
        HubCommand::Refound(args) => backup::refound(&args.dir, read_seed(&args.seed)?, output),
    }
}

/// The log of a server; client commands only talk.
pub(crate) fn start_log() -> Result<(), Failure> {
    concord_server::init_logging().map_err(|error| Failure::usage(error.to_string()))
}

fn init(args: InitArgs, output: Output) -> Result<(), Failure> {
    let seed = read_seed(&args.seed)?;
    let InitArgs { dir, name, listen, admin, announce, dns, .. } = args;
    let hub = name.to_string();
    let made = concord_hub::init(InitOptions { dir: dir.clone(), name, listen, admin, announce, dns, seed })?;
    let line = InitLine { hub, dir: dir.display().to_string(), fingerprint: made.fingerprint.grouped() };
    output.result(&line, || {
        facts(&[
            ("hub", line.hub.clone()),
            ("folder", line.dir.clone()),
            ("fingerprint", line.fingerprint.clone()),
            ("settings", dir.join("hub.toml").display().to_string()),
        ])
    })?;
    hint::next(output, "run the hub", &[Line::new("hub serve --dir").path(&dir)]);
    Ok(())
}

fn read_seed(seed: &str) -> Result<Seed, Failure> {
    if seed == SEED_BUILT_IN {
        return Ok(Seed::cica_2007()?);
    }
    let text = std::fs::read_to_string(seed).map_err(|error| {
        Failure::usage(format!("the seed {seed} cannot be read: {error}")).help("give cica-2007 or a TOML file")
    })?;
    Seed::from_toml(&text).map_err(|error| Failure::usage(format!("the seed {seed}: {error}")).help("correct the file"))
}
