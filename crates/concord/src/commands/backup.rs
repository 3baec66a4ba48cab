//! `backup`, `restore` and making a lost journal anew: the same commands for hub and node.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use concord_backup::{Backup, Manifest, Owner};
use concord_journal::Tail;
use concord_model::{Reason, Role, Timestamp};
use concord_wire::proto::operations::v1::CreateBackupRequest;
use serde::Serialize;
use tonic::Request;

use crate::cli::ClientArgs;
use crate::client::Client;
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts};

/// How often a backup begins again when files of the journal changed meanwhile.
const ATTEMPTS_MAX: usize = 3;
/// Bodies are in it.
const FILE_MODE: u32 = 0o600;

#[derive(Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder, with its keys in it.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
pub(crate) struct NodeRestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE", required_unless_present = "here", conflicts_with = "here")]
    file: Option<PathBuf>,
    /// Declare that the journal that is there is an older copy.
    #[arg(long)]
    here: bool,
    /// The folder, with its keys in it.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Serialize)]
pub(crate) struct BackupLine {
    file: String,
    owner: Owner,
    participant: String,
    name: String,
    taken_at: String,
    entries: u64,
    last: u64,
    history: String,
    digest: String,
    bytes: u64,
}

impl BackupLine {
    fn of(backup: &Backup, entries: u64) -> Self {
        let manifest: &Manifest = backup.manifest();
        Self {
            file: backup.path().display().to_string(),
            owner: manifest.owner,
            participant: manifest.participant.clone(),
            name: manifest.name.clone(),
            taken_at: output::time(manifest.taken_at()),
            entries,
            last: manifest.tail.sequence,
            history: manifest.tail.history.clone(),
            digest: manifest.tail.digest.clone(),
            bytes: backup.size_bytes(),
        }
    }

    pub(crate) fn show(&self) -> String {
        facts(&[
            ("backup", self.file.clone()),
            ("of", format!("{} {} of {}", self.owner, self.name, self.participant)),
            ("taken", self.taken_at.clone()),
            ("holds", format!("{} entries, the last is {}", self.entries, self.last)),
            ("size", format!("{} bytes", self.bytes)),
            ("history", self.history.clone()),
            ("digest", self.digest.clone()),
        ])
    }
}

/// Makes a backup of a running hub or node.
pub(crate) async fn backup(args: BackupArgs, owner: Owner, output: Output) -> Result<(), Failure> {
    let mut client = Client::connect(&args.client).await?;
    let served_by = client.profile().settings().server.role;
    let wanted = if owner == Owner::Hub { Role::Hub } else { Role::Node };
    if served_by != wanted {
        let message = format!("the profile is one of a {served_by}, this command backs up a {owner}");
        return Err(Failure::usage(message).help(format!("use `concord {served_by} backup`")));
    }
    if args.out.exists() {
        let message = format!("{} is there already", args.out.display());
        return Err(Failure::failed("FILE_EXISTS", message).help("choose another name: a backup replaces nothing"));
    }
    let temporary = part_of(&args.out);
    let made = fetch(&mut client, &temporary, output).await;
    let line = match made {
        Ok(line) => line,
        Err(failure) => {
            // What is left of it is of no use to anybody.
            let _ = std::fs::remove_file(&temporary);
            return Err(failure);
        }
    };
    std::fs::rename(&temporary, &args.out)
        .and_then(|()| File::open(folder_of(&args.out))?.sync_all())
        .map_err(|error| unwritten(&args.out, &error))?;
    let line = BackupLine { file: args.out.display().to_string(), ..line };
    output.result(&line, || line.show())?;
    output.say(&format!("\nit holds no private key: keep those of the {owner}'s folder in a safe of their own, in"));
    let keys = if owner == Owner::Hub { HUB_KEYS } else { NODE_KEYS };
    keys.iter().for_each(|key| output.say(&format!("  {key}")));
    hint::next(
        output,
        "should the folder be lost, put the keys back and run",
        &[Line::new(&format!("{owner} restore")).path(&args.out).words("--dir DIR")],
    );
    Ok(())
}

const HUB_KEYS: &[&str] = &["anchor/key.pem", "tls/key.pem", "signing/key.pem", "officer/", "operator/"];
const NODE_KEYS: &[&str] = &["anchor/key.pem", "tls/key.pem", "signing/key.pem", "officer/", "operator/", "agencies/"];

async fn fetch(client: &mut Client, temporary: &Path, output: Output) -> Result<BackupLine, Failure> {
    let mut attempt = 1;
    loop {
        let failure = match receive(client, temporary).await {
            Ok(()) => match check(temporary.to_owned()).await {
                Ok(line) => return Ok(line),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        // Trimming and redaction may run meanwhile: then the copy does not check, or a file is gone.
        let changed = failure.reason == Reason::BackupConflict.code() || failure.reason == "BACKUP_DAMAGED";
        if !changed || attempt == ATTEMPTS_MAX {
            return Err(failure);
        }
        attempt += 1;
        output.say(&format!("the journal's files changed meanwhile: attempt {attempt} of {ATTEMPTS_MAX}"));
    }
}

async fn receive(client: &mut Client, temporary: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| unwritten(temporary, error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut file = options.open(temporary).map_err(|error| failed(&error))?;
    let mut chunks = client.operations().create_backup(Request::new(CreateBackupRequest {})).await?.into_inner();
    while let Some(message) = chunks.message().await? {
        file.write_all(&message.chunk).map_err(|error| failed(&error))?;
    }
    file.sync_all().map_err(|error| failed(&error))
}

/// Reads all of a backup, and says what it holds.
pub(crate) async fn check(file: PathBuf) -> Result<BackupLine, Failure> {
    let checked = tokio::task::spawn_blocking(move || checked(&file)).await;
    checked.unwrap_or_else(|error| Err(Failure::failed("THREAD", format!("a thread failed: {error}"))))
}

/// The same, on this thread.
pub(crate) fn checked(file: &Path) -> Result<BackupLine, Failure> {
    let backup = Backup::open(file)?;
    let entries = backup.check()?.journal.entries;
    Ok(BackupLine::of(&backup, entries))
}

#[derive(Serialize)]
struct RestoreLine {
    dir: String,
    taken_at: Option<String>,
    /// The last entry of the backup.
    parent: Option<u64>,
    history: String,
    last: u64,
    aside: Option<String>,
}

/// What a restore put in place.
struct InPlace {
    parent: Option<Tail>,
    taken_at: Option<Timestamp>,
    tail: Tail,
    aside: Option<PathBuf>,
}

/// Puts the backup of a hub in place.
pub(crate) fn restore_hub(args: &RestoreArgs, output: Output) -> Result<(), Failure> {
    let concord_hub::Restored { parent, taken_at, tail, aside } = concord_hub::restore(&args.file, &args.dir)?;
    tell(&args.dir, InPlace { parent, taken_at, tail, aside }, output)?;
    hint_serve(&args.dir, Owner::Hub, output);
    output.say("what it recorded after the backup, the nodes hand in again as they connect: see `concord status`");
    Ok(())
}

/// Puts the backup of a node in place, or declares that the journal that is there is an older copy.
pub(crate) fn restore_node(args: &NodeRestoreArgs, output: Output) -> Result<(), Failure> {
    let restored = match &args.file {
        Some(file) => concord_node::restore(file, &args.dir)?,
        None => concord_node::declare(&args.dir)?,
    };
    let concord_node::Restored { parent, taken_at, tail, aside, .. } = restored;
    tell(&args.dir, InPlace { parent, taken_at, tail, aside }, output)?;
    hint_serve(&args.dir, Owner::Node, output);
    output.say("what the hub has of it comes back at the first contact; what agencies handed in and the hub never had is lost:");
    output.say("they ask `concord track ID` for each exchange since the backup, and submit again what is unknown");
    hint_confirm(&args.dir, output);
    Ok(())
}

/// Makes the lost journal of a hub anew.
pub(crate) fn refound(dir: &Path, seed: concord_hub::Seed, output: Output) -> Result<(), Failure> {
    let concord_hub::Restored { parent, taken_at, tail, aside } = concord_hub::refound(dir, seed)?;
    tell(dir, InPlace { parent, taken_at, tail, aside }, output)?;
    hint_serve(dir, Owner::Hub, output);
    hint::next(
        output,
        "enrol every participant again from its join request, as the nodes' keys stood in the journal",
        &[Line::new("participant enrol JOIN-REQUEST --profile").path(&dir.join("officer"))],
    );
    Ok(())
}

/// Makes the lost journal of a node anew.
pub(crate) fn rebuild(dir: &Path, output: Output) -> Result<(), Failure> {
    let concord_node::Restored { parent, taken_at, tail, aside, agencies } = concord_node::rebuild(dir)?;
    tell(dir, InPlace { parent, taken_at, tail, aside }, output)?;
    if !agencies.is_empty() {
        let again = |name: &String| Line::new("agency add").text(name).words("--dir").path(dir);
        let lines: Vec<Line> = agencies.iter().map(again).collect();
        hint::next(output, "let the agencies in again, each with its measures (--measure)", &lines);
    }
    hint_serve(dir, Owner::Node, output);
    hint_confirm(dir, output);
    Ok(())
}

/// What was taken from agencies since, or that one was ended, is forgotten: they have nothing before an officer said so.
fn hint_confirm(dir: &Path, output: Output) {
    let officer = dir.join("officer");
    hint::next(
        output,
        "its agencies may send and receive nothing until the officer has looked at their rights and confirmed them",
        &[Line::new("agency list --profile").path(&officer), Line::new("agency confirm NAME --profile").path(&officer)],
    );
}

fn hint_serve(dir: &Path, owner: Owner, output: Output) {
    hint::next(output, &format!("run the {owner}"), &[Line::new(&format!("{owner} serve --dir")).path(dir)]);
}

fn tell(dir: &Path, placed: InPlace, output: Output) -> Result<(), Failure> {
    let line = RestoreLine {
        dir: dir.display().to_string(),
        taken_at: placed.taken_at.map(output::time),
        parent: placed.parent.map(|parent| parent.sequence),
        history: placed.tail.history.to_string(),
        last: placed.tail.sequence,
        aside: placed.aside.map(|aside| aside.display().to_string()),
    };
    output.result(&line, || {
        let mut rows = vec![("folder", line.dir.clone()), ("new history", line.history.clone())];
        rows.extend(line.taken_at.clone().map(|taken_at| ("backup of", taken_at)));
        rows.extend(line.aside.clone().map(|aside| ("old journal", aside)));
        facts(&rows)
    })
}

fn part_of(out: &Path) -> PathBuf {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    folder_of(out).join(format!(".{name}.part"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed("FILE", format!("cannot write {}: {error}", path.display())).help("choose another place")
}
