//! `concord hub`: set a hub up, run it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use concord_backup::Owner;
use concord_hub::{HubError, InitOptions, Initialised, Seed};
use concord_identity::AnchorFolder;
use concord_model::{Name, Role};
use concord_server::FolderKind;
use serde::Serialize;

use super::backup::{self, BackupArgs, RestoreArgs};
use super::certificates::{DaysArgs, RenewArgs, renew_server, tell_asked};
use super::check::{self, HubCheckArgs};
use super::install_cert::{self, tell_installed, tell_missing};
use super::retention::{self, RetentionCommand};
use super::rotate::{self, RotateArgs};
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
    /// Put in certificates that were made elsewhere from the hub's requests; the first time, make its registry.
    InstallCert(HubInstallArgs),
    /// Make the hub's certificate anew under the same anchor, also one that has expired; nobody else has to do anything.
    #[command(
        after_help = "Example:\n  concord hub renew --dir /srv/concord/hub\n  concord hub renew --dir /srv/concord/hub --new-key --all\n  concord hub renew --dir /srv/concord/hub --csr\n  concord hub renew --dir /srv/concord/hub --list"
    )]
    Renew(RenewArgs),
    /// Give the hub new keys of its own: for its certificate, and for the receipts that it signs.
    #[command(
        after_help = "Example:\n  concord hub rotate --dir /srv/concord/hub\n\nThe hub runs meanwhile. The present key vouches for the new one, and the feed tells every node. With a quorum other officers sign it too: `concord approval list`."
    )]
    Rotate(RotateArgs),
    /// Run a hub until Ctrl-C or SIGTERM.
    Serve(ServeArgs),
    /// Check a hub's folder and its machine, also while it serves.
    #[command(
        after_help = "Example:\n  concord hub check --dir /srv/concord/hub\n\nEach line is OK, or the cause and the next step. Exit 1 if one does not hold. It takes no lock, and a hub that runs does not notice."
    )]
    Check(HubCheckArgs),
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
    after_help = "Example:\n  concord hub init --dir /srv/concord/hub --officer aigerim --officer bolat\n  concord hub init --dir /srv/concord/hub --listen 0.0.0.0:7443 --announce hub.example.org:7443 --dns hub.example.org"
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
    /// How many officers of the secretariat must sign an enrolment, a replacement of keys, the release of a hold of the secretariat's, or new
    /// keys of the hub's own (`hub rotate`, `anchor next`, `anchor end`).
    #[arg(long, default_value_t = concord_hub::QUORUM_DEFAULT, value_name = "N")]
    quorum: u32,
    /// An officer of the secretariat by name, several by several; where none is named, as many as must sign: officer, officer-2 …
    #[arg(long = "officer", value_delimiter = ',', value_name = "NAME")]
    officers: Vec<Name>,
    /// Make no trust anchor: write a file of requests for an anchor that is elsewhere. --seed goes with `hub install-cert` then.
    #[arg(long)]
    csr: bool,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord hub install-cert certificates.pem --dir /srv/concord/hub\n\nNothing is put in under an anchor whose fingerprint was not compared."
)]
pub(crate) struct HubInstallArgs {
    #[command(flatten)]
    certificates: install_cert::InstallArgs,
    /// The registry and catalogue that a new hub begins with.
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
        HubCommand::InstallCert(args) => install(&args, output),
        HubCommand::Renew(args) => renew_server(&args, FolderKind::Hub, output).await,
        HubCommand::Rotate(args) => rotate::run(&args, FolderKind::Hub, output).await,
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
    if args.csr && args.seed != SEED_BUILT_IN {
        let what = "with --csr the registry comes with the certificates, so --seed here would count for nothing";
        return Err(Failure::usage(what).help("leave --seed out, and give it to `concord hub install-cert`"));
    }
    let seed = read_seed(&args.seed)?;
    let InitArgs { dir, name, listen, admin, announce, dns, quorum, officers, csr, days, .. } = args;
    let hub = name.to_string();
    let days = days.days;
    let options = InitOptions { dir: dir.clone(), name, listen, admin, announce, dns, quorum, officers, days, seed };
    if csr {
        return tell_asked(&concord_hub::init_by_request(options)?, &dir, FolderKind::Hub, output);
    }
    tell_made(hub, &dir, &concord_hub::init(options)?, output)
}

fn tell_made(hub: String, dir: &Path, made: &Initialised, output: Output) -> Result<(), Failure> {
    let line = InitLine { hub, dir: dir.display().to_string(), fingerprint: made.fingerprint.grouped() };
    output.result(&line, || {
        facts(&[
            ("hub", line.hub.clone()),
            ("folder", line.dir.clone()),
            ("fingerprint", line.fingerprint.clone()),
            ("settings", dir.join("hub.toml").display().to_string()),
        ])
    })?;
    tell_officers(dir, output)?;
    hint::next(output, "run the hub", &[Line::new("hub serve --dir").path(dir)]);
    Ok(())
}

/// Who signs, where that takes several; and that they are too few while nothing waits for them yet.
fn tell_officers(dir: &Path, output: Output) -> Result<(), Failure> {
    let quorum = concord_hub::Config::load(dir)?.quorum.get();
    let holders = concord_hub::holders(dir)?;
    let officers = holders.everybody().into_iter().filter(|one| one.role == Role::Officer);
    let folders = officers.map(|one| holders.folder_of(&one)).collect::<Result<Vec<_>, _>>().map_err(HubError::from)?;
    if quorum > 1 {
        let profiles = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
        output.say(&format!("{quorum} officers sign what lets a state in (`quorum` in hub.toml): move their profiles out of this folder, to as many people: {profiles}"));
    }
    if folders.len() < quorum as usize {
        let has_anchor = AnchorFolder::key_in(&holders.anchor_folder()).exists();
        let add = if has_anchor { "officer add NAME --dir" } else { "officer add NAME --request --dir" };
        let add = Line::new(add).path(dir);
        hint::next(output, &format!("of {quorum} officers {} are here: make the others", folders.len()), &[add]);
    }
    Ok(())
}

fn install(args: &HubInstallArgs, output: Output) -> Result<(), Failure> {
    let HubInstallArgs { certificates: args, seed } = args;
    let seed = read_seed(seed)?;
    let holders = concord_hub::holders(&args.dir)?;
    let (text, said) = args.read(&holders, output)?;
    let (installed, made) = concord_hub::install_certificates(&args.dir, &text, args.anchor.as_deref(), said, seed)?;
    tell_installed(&installed, output)?;
    if let Some(made) = made {
        return tell_made(holders.server().name.to_string(), &args.dir, &made, output);
    }
    tell_missing(&installed, output);
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
