//! `concord node`: set a node up, let it join, run it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use concord_backup::Owner;
use concord_model::{Name, ParticipantCode, Role};
use concord_node::{InitOptions, Initialised, NodeError};
use concord_server::FolderKind;
use serde::Serialize;

use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{Output, facts};
use crate::signals::Stop;

use super::again::unless_full;
use super::backup::{self, BackupArgs, NodeRestoreArgs};
use super::certificates::{DaysArgs, RenewArgs, renew_server, tell_asked};
use super::check::{self, NodeCheckArgs};
use super::compare::Compared;
use super::epoch::{self, EpochCommand};
use super::hub::start_log;
use super::install_cert::{self, tell_installed, tell_missing};
use super::retention::{self, RetentionCommand};
use super::rotate::{self, RotateArgs};
use super::status::probe::{self, ProbeArgs};

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Make a node: its state's trust anchor, its keys, its profiles, its settings, its request to join.
    Init(InitArgs),
    /// Put in certificates that were made elsewhere from the node's requests; the first time, make the request to join.
    #[command(
        after_help = "Example:\n  concord node install-cert certificates.pem --dir /srv/concord/node\n  concord node install-cert from-the-ca.pem --anchor ca.pem --dir /srv/concord/node\n\nEach is checked against the key that was made here, its URI name, usages and anchor. Nothing is put in unless all of them are fit, nor under an anchor whose fingerprint was not compared."
    )]
    InstallCert(install_cert::InstallArgs),
    /// Make the node's certificate anew under the same anchor, also one that has expired; nobody else has to do anything.
    #[command(
        after_help = "Example:\n  concord node renew --dir /srv/concord/node\n  concord node renew --dir /srv/concord/node --new-key --all\n  concord node renew --dir /srv/concord/node --csr\n  concord node renew --dir /srv/concord/node --list"
    )]
    Renew(RenewArgs),
    /// Give the node new keys of its own: for its certificate, and for what it signs, from a new epoch of its chains on.
    #[command(
        after_help = "Example:\n  concord node rotate --dir /srv/concord/node\n\nThe node runs meanwhile. The present signing key vouches for the new one, so that nobody else has to do anything. What waits goes on in the next epoch of the node's chains; what was signed before stands."
    )]
    Rotate(RotateArgs),
    /// Let a node join the hub that enrolled it.
    Join(JoinArgs),
    /// Run a node until Ctrl-C or SIGTERM.
    Serve(ServeArgs),
    /// Check a node's folder, its machine and its way to the hub: before it joins, after, and while it serves.
    #[command(
        after_help = "Example:\n  concord node check --dir /srv/concord/node --hub hub.example.org:7443\n  concord node check --dir /srv/concord/node --bundle kaz.bundle.json\n  concord node check --dir /srv/concord/node\n\nBefore the node has joined give the hub's address, or its bundle. Each line is OK, or the cause and the next step; with - what could not be tried. Exit 1 if one does not hold. It takes no lock, and a node that runs does not notice."
    )]
    Check(NodeCheckArgs),
    /// Back a running node up: its journal, bodies included, its settings and certificates; never a private key.
    #[command(after_help = "Example:\n  concord node backup --profile /srv/concord/node/officer --out node.backup")]
    Backup(BackupArgs),
    /// Put a backup in place of a node's journal, and begin a new history.
    #[command(
        after_help = "Example:\n  concord node restore node.backup --dir /srv/concord/node\n  concord node restore --here --dir /srv/concord/node\n\nThe node must not run, and its keys must be in the folder. A journal that is replaced is moved aside, not deleted. With --here the journal that is there goes on: of a node that the hub refuses with NODE_ROLLED_BACK, once no other copy of it runs."
    )]
    Restore(NodeRestoreArgs),
    /// What may go of the bodies that the node keeps, and letting it go.
    #[command(
        subcommand,
        after_help = "Example:\n  concord node retention preview --profile /srv/concord/node/operator --days 365"
    )]
    Retention(RetentionCommand),
    /// The epochs of the node's chains of consignments.
    #[command(subcommand, after_help = "Example:\n  concord node epoch open --profile /srv/concord/node/officer")]
    Epoch(EpochCommand),
    /// Send a probe to the hub and back on each lane, and say how long it took.
    Probe(ProbeArgs),
    /// Make the journal of a node anew where it is lost, there is no backup, and the keys are there.
    Rebuild(RebuildArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord node init --dir /srv/concord/node --participant KAZ --listen 0.0.0.0:7444 --dns node.example.kz\n  concord node init --dir /srv/concord/papers --participant SEC --anchor /srv/concord/hub/anchor"
)]
pub(crate) struct InitArgs {
    /// The node's folder; absent or empty.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The state or organisation whose node it is.
    #[arg(long, value_name = "CODE")]
    participant: ParticipantCode,
    /// The node's name.
    #[arg(long, default_value = "main")]
    name: Name,
    /// Where agencies and officers connect. Port 0: the system chooses one, which stays.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// Where health and metrics are served.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    admin: String,
    /// DNS names or addresses for the node's certificate.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    dns: Vec<String>,
    /// An officer by name, several by several; where none is named, one by the name of officer.
    #[arg(long = "officer", value_delimiter = ',', value_name = "NAME")]
    officers: Vec<Name>,
    /// Make no trust anchor: write a file of requests for an anchor that is elsewhere.
    #[arg(long)]
    csr: bool,
    #[command(flatten)]
    days: DaysArgs,
    /// A folder with certificate.pem and key.pem of a trust anchor that there is; else a new one is made. A node of the secretariat's takes the hub's.
    #[arg(long, value_name = "DIR")]
    anchor: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord node join --dir /srv/concord/node bundle.json\n  concord node join --dir /srv/concord/node bundle.json --fingerprint \"2f1b09aa 77e04d1e 5c0d8e21 90b3f6d4 1a2b3c4d 5e6f7081 92a3b4c5 d6e7f809\""
)]
pub(crate) struct JoinArgs {
    /// The bundle that the secretariat made.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    compared: Compared,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord node serve --dir /srv/concord/node")]
pub(crate) struct ServeArgs {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord node rebuild --dir /srv/concord/node")]
pub(crate) struct RebuildArgs {
    /// The node's folder, with its keys and hub.json in it.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct InitLine {
    participant: String,
    dir: String,
    fingerprint: String,
    join_request: String,
}

#[derive(Serialize)]
struct JoinLine {
    hub: String,
    fingerprint: String,
}

pub(crate) async fn run(command: NodeCommand, output: Output) -> Result<(), Failure> {
    match command {
        NodeCommand::Init(args) => init(args, output),
        NodeCommand::InstallCert(args) => install(&args, output),
        NodeCommand::Renew(args) => renew_server(&args, FolderKind::Node, output).await,
        NodeCommand::Rotate(args) => rotate::run(&args, FolderKind::Node, output).await,
        NodeCommand::Join(args) => join(&args, output),
        NodeCommand::Serve(args) => {
            start_log()?;
            let mut stop = Stop::listen()?;
            let ended = concord_node::serve(&args.dir).await;
            unless_full(&args.dir, &mut stop, ended, NodeError::may_want_room).await
        }
        NodeCommand::Check(args) => check::node(args, output).await,
        NodeCommand::Backup(args) => backup::backup(args, Owner::Node, output).await,
        NodeCommand::Restore(args) => backup::restore_node(&args, output),
        NodeCommand::Retention(command) => retention::run(command, Role::Node, output).await,
        NodeCommand::Epoch(command) => epoch::run(command, output).await,
        NodeCommand::Probe(args) => probe::run(args, output).await,
        NodeCommand::Rebuild(args) => backup::rebuild(&args.dir, output),
    }
}

fn init(args: InitArgs, output: Output) -> Result<(), Failure> {
    let InitArgs { dir, participant, name, listen, admin, dns, officers, csr, days, anchor } = args;
    if participant == ParticipantCode::secretariat() && anchor.is_none() && !csr {
        let what = "a node of the secretariat's has the trust anchor of its hub";
        return Err(Failure::usage(what).help("say where that is, such as --anchor /srv/concord/hub/anchor"));
    }
    let code = participant.to_string();
    let (dir_of_it, days) = (dir.clone(), days.days);
    let options = InitOptions { dir: dir_of_it, participant, name, listen, admin, dns, officers, days, anchor };
    if csr {
        return tell_asked(&concord_node::init_by_request(options)?, &dir, FolderKind::Node, output);
    }
    let made = concord_node::init(options)?;
    tell_made(code.clone(), &dir, &made, output)?;
    if code == ParticipantCode::secretariat().as_str() {
        let profiles = made.profiles.iter().map(|profile| shown(profile)).collect::<Vec<_>>().join(", ");
        output.say(&format!(
            "its officers' and operator's profiles, with names that the anchor had not given yet: {profiles}"
        ));
        let officers = "its officers' profiles are of the secretariat: whoever has one of them, with the hub's address in it, signs there under \
             that name. Keep each like that person's own";
        output.say(officers);
    }
    output.say(&format!(
        "the trust anchor's key is in {}: keep it, but it need not stay on this machine",
        shown(&dir.join("anchor"))
    ));
    Ok(())
}

fn tell_made(participant: String, dir: &Path, made: &Initialised, output: Output) -> Result<(), Failure> {
    let line = InitLine {
        participant,
        dir: dir.display().to_string(),
        fingerprint: made.enrolment_fingerprint.grouped(),
        join_request: made.join_request_path.display().to_string(),
    };
    output.result(&line, || {
        facts(&[
            ("node of", line.participant.clone()),
            ("folder", line.dir.clone()),
            ("request", line.join_request.clone()),
            ("fingerprint", line.fingerprint.clone()),
        ])
    })?;
    hint::next(
        output,
        "send the request to the secretariat, read it the fingerprint by telephone when it asks, and let it run",
        &[Line::new("participant enrol").path(&made.join_request_path).words("--profile HUBDIR/officer")],
    );
    output.say("then join with the bundle that it sends back");
    output.say(&format!("  {}", Line::new("node join --dir").path(dir).words("BUNDLE")));
    Ok(())
}

fn install(args: &install_cert::InstallArgs, output: Output) -> Result<(), Failure> {
    let holders = concord_node::holders(&args.dir)?;
    let (text, said) = args.read(&holders, output)?;
    let (installed, made) = concord_node::install_certificates(&args.dir, &text, args.anchor.as_deref(), said)?;
    tell_installed(&installed, output)?;
    if let Some(made) = made {
        return tell_made(holders.server().participant.to_string(), &args.dir, &made, output);
    }
    tell_missing(&installed, output);
    Ok(())
}

fn join(args: &JoinArgs, output: Output) -> Result<(), Failure> {
    let bundle = std::fs::read_to_string(&args.bundle).map_err(|error| {
        Failure::usage(format!("the bundle {} cannot be read: {error}", args.bundle.display()))
            .help("give the file that the secretariat sent")
    })?;
    let paper = concord_node::paper::bundle_from_json(&bundle)?;
    args.compared.check("the bundle", paper.fingerprint, output)?;
    let joined = concord_node::join(&args.dir, &bundle)?;
    let line = JoinLine { hub: joined.hub.to_string(), fingerprint: joined.fingerprint.grouped() };
    output.result(&line, || facts(&[("hub", line.hub.clone()), ("fingerprint", line.fingerprint.clone())]))?;
    hint::next(
        output,
        "let an agency in, and run the node",
        &[Line::new("agency add NAME --dir").path(&args.dir), Line::new("node serve --dir").path(&args.dir)],
    );
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
