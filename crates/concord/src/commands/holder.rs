//! `concord officer` and `concord operator`: the people of a hub's or node's folder.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use concord_identity::KEY_FILE;
use concord_model::{Name, Role};
use concord_server::FolderKind;
use concord_server::holders::HoldersError;

use super::certificates::{
    CertificateLine, DaysArgs, NextUpdateArgs, holders, read_request, tell, tell_asked, tell_held, tell_moved,
    tell_removed,
};
use super::statement::confirm;
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output};

#[derive(Subcommand)]
pub(crate) enum OfficerCommand {
    /// Make an officer: a key, a certificate and a profile.
    #[command(after_help = "Example:\n  concord officer add aigerim --dir /srv/concord/node")]
    Add(AddArgs),
    /// Make an officer's certificate anew, also one that has expired.
    #[command(
        after_help = "Example:\n  concord officer renew aigerim --dir /srv/concord/node --new-key\n  concord officer renew aigerim --dir /srv/concord/hub\n\nOf a profile that was moved to its person the key is not here: the new certificate.pem is for the same key, and is put into that profile."
    )]
    Renew(RenewArgs),
    /// Take back all certificates of an officer; the running server ends what is open with them.
    #[command(after_help = "Example:\n  concord officer remove aigerim --dir /srv/concord/node --yes")]
    Remove(RemoveArgs),
    /// List the officers and their certificates.
    #[command(after_help = "Example:\n  concord officer list --dir /srv/concord/node")]
    List(ListArgs),
}

#[derive(Subcommand)]
pub(crate) enum OperatorCommand {
    /// Make an operator: a key, a certificate and a profile.
    #[command(after_help = "Example:\n  concord operator add night-shift --dir /srv/concord/node")]
    Add(AddArgs),
    /// Make an operator's certificate anew, also one that has expired.
    #[command(
        after_help = "Example:\n  concord operator renew night-shift --dir /srv/concord/node --new-key\n  concord operator renew night-shift --dir /srv/concord/hub\n\nOf a profile that was moved to its person the key is not here: the new certificate.pem is for the same key, and is put into that profile."
    )]
    Renew(RenewArgs),
    /// Take back all certificates of an operator; the running server ends what is open with them.
    #[command(after_help = "Example:\n  concord operator remove night-shift --dir /srv/concord/node --yes")]
    Remove(RemoveArgs),
    /// List the operators and their certificates.
    #[command(after_help = "Example:\n  concord operator list --dir /srv/concord/node")]
    List(ListArgs),
}

/// The same of both roles.
pub(crate) enum HolderCommand {
    Add(AddArgs),
    Renew(RenewArgs),
    Remove(RemoveArgs),
    List(ListArgs),
}

impl OfficerCommand {
    pub(crate) fn into_inner(self) -> HolderCommand {
        match self {
            Self::Add(args) => HolderCommand::Add(args),
            Self::Renew(args) => HolderCommand::Renew(args),
            Self::Remove(args) => HolderCommand::Remove(args),
            Self::List(args) => HolderCommand::List(args),
        }
    }
}

impl OperatorCommand {
    pub(crate) fn into_inner(self) -> HolderCommand {
        match self {
            Self::Add(args) => HolderCommand::Add(args),
            Self::Renew(args) => HolderCommand::Renew(args),
            Self::Remove(args) => HolderCommand::Remove(args),
            Self::List(args) => HolderCommand::List(args),
        }
    }
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// The name: a-z, 0-9 and '-'.
    name: Name,
    /// The folder of the hub or node.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the server is reached from another machine, for the profile.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Make the key here and write a request instead, for an anchor whose key is elsewhere; --days is said there.
    #[arg(long, conflicts_with = "days")]
    request: bool,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Args)]
pub(crate) struct RenewArgs {
    /// The name.
    name: Name,
    /// The folder of the hub or node.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// For a new key; the old one goes when the new certificate is there.
    #[arg(long)]
    new_key: bool,
    /// Write a request instead, for an anchor whose key is elsewhere; --days is said there.
    #[arg(long, conflicts_with = "days")]
    request: bool,
    /// For the key of a request (PKCS#10, PEM) that its holder made: of a profile that was moved away, the present one's or a new one's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_key", "request"])]
    csr: Option<PathBuf>,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// The name.
    name: Name,
    /// The folder of the hub or node.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    next_update: NextUpdateArgs,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// The folder of the hub or node.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(command: HolderCommand, role: Role, output: Output) -> Result<(), Failure> {
    match command {
        HolderCommand::Add(args) => add(args, role, output),
        HolderCommand::Renew(args) => renew(&args, role, output),
        HolderCommand::Remove(args) => remove(&args, role, output),
        HolderCommand::List(args) => {
            let (holders, _) = holders(&args.dir)?;
            tell_held(&holders, &holders.list(Some(role), output::now())?, output)
        }
    }
}

fn add(args: AddArgs, role: Role, output: Output) -> Result<(), Failure> {
    let (holders, kind) = holders(&args.dir)?;
    let holder = holders.named(role, &args.name);
    let folder = holders.folder_of(&holder)?;
    if args.request {
        if args.address.is_some() {
            let what = "--address is for the profile, which is laid out when the certificate comes";
            return Err(
                Failure::usage(what).help("leave it out; put `address = \"HOST:PORT\"` into the profile.toml then")
            );
        }
        if holders.certificate_of(&holder).is_ok() {
            return Err(HoldersError::Known(holder).into());
        }
        return tell_asked(&holders.request(&[holder], None, false, output::now())?, &args.dir, kind, output);
    }
    let made = holders.add(&holders.open_anchor()?, &holder, args.address, args.days.life())?;
    tell(&[CertificateLine::of(&made, Some(&folder))], output)?;
    hint::next(output, "give the folder to whoever it is for", &[Line::new("status --profile").path(&folder)]);
    Ok(())
}

fn renew(args: &RenewArgs, role: Role, output: Output) -> Result<(), Failure> {
    let (holders, kind) = holders(&args.dir)?;
    let holder = holders.named(role, &args.name);
    let folder = holders.folder_of(&holder)?;
    let requested = args.csr.as_deref().map(read_request).transpose()?;
    if holders.is_moved(&holder)? {
        if args.new_key || args.request {
            return Err(HoldersError::KeyElsewhere { holder }.into());
        }
        let (made, folder) =
            holders.renew_moved(&holders.open_anchor()?, &holder, requested.as_ref(), args.days.life())?;
        tell(&[CertificateLine::of(&made, Some(&folder))], output)?;
        tell_moved(&folder, output);
        return Ok(());
    }
    if args.request {
        holders.certificate_to_renew(&holder)?;
        return tell_asked(&holders.request(&[holder], None, args.new_key, output::now())?, &args.dir, kind, output);
    }
    let anchor = holders.open_anchor()?;
    let made = match &requested {
        Some(requested) => holders.renew_requested(&anchor, &holder, requested, args.days.life())?,
        None => holders.renew(&anchor, &holder, args.new_key, args.days.life())?,
    };
    tell(&[CertificateLine::of(&made, Some(&folder))], output)?;
    if !folder.join(KEY_FILE).exists() {
        output.say("the key is elsewhere: put the new certificate.pem beside it");
    }
    Ok(())
}

fn remove(args: &RemoveArgs, role: Role, output: Output) -> Result<(), Failure> {
    let (holders, kind) = holders(&args.dir)?;
    let holder = holders.named(role, &args.name);
    // First what can fail, so that nobody says yes for nothing. Without the anchor's key there is still something to do for whom a list
    // names.
    let is_out = holders.certificate_of(&holder).is_ok_and(|here| holders.taken_back().is_ok_and(|all| all.has(&here)));
    if !is_out {
        holders.open_anchor()?;
    }
    if !args.yes {
        let question = format!("Take back all certificates of {holder}? Nobody gives them back.");
        confirm(output, &format!("removing {}", args.name), &question, args.name.as_str())?;
    }
    let removed = holders.remove(&holder, output::now(), args.next_update.next_update)?;
    tell_removed(&holder.to_string(), &removed, &args.dir, kind, output)?;
    told_to_the_hub(role, kind, &removed.list, output);
    Ok(())
}

/// What an officer signed may wait at its node, or come from another copy of its key: the hub judges statements by its own lists.
fn told_to_the_hub(role: Role, kind: FolderKind, list: &std::path::Path, output: Output) {
    if role == Role::Officer && kind == FolderKind::Node {
        let list = list.display();
        output.say(&format!(
            "next: send {list} to the secretariat, which puts it into revocation/ of the hub: then nothing that this officer signed is \
             taken any more"
        ));
    }
}
