//! `concord agency`: which national agencies there are, and what each may send and receive.

mod rights;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use concord_model::{MeasureCode, Name, Role};
use concord_node::{AgencyCertificate, AgencyKey};
use concord_server::FolderKind;
use concord_server::holders::HoldersError;
use serde::Serialize;

use super::certificates::{
    CertificateLine, DaysArgs, NextUpdateArgs, read_request, tell, tell_asked, tell_moved, tell_removed,
};
use super::p12::P12Args;
use super::statement::confirm;
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts};
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
    /// List the agencies and what each may send and receive; with --dir, their certificates.
    List(ListArgs),
    /// Make an agency's certificate anew, also one that has expired.
    Renew(RenewArgs),
    /// End an agency for good, and take its certificates back.
    Remove(RemoveArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency add drug-control --dir /srv/concord/node --measure challenges.2\n  concord agency add drug-control --request --dir /srv/concord/node\n  concord agency add drug-control --cert from-the-ca.pem --dir /srv/concord/node\n\nIt gets what is recorded from now on, and what nobody else had the right to; it sees only its own submissions."
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
    /// A request (PKCS#10, PEM) that the agency made with any tool: its key stays with it. The name is given here, whatever it asks for.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Make the key here and write a request, for an anchor whose key is elsewhere; --days is said there.
    #[arg(long, conflicts_with_all = ["csr", "p12", "days", "address"])]
    request: bool,
    /// A certificate (PEM) that an authority of yours made for a key that the agency keeps, under the anchor that this node goes by.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csr", "request", "p12", "days"])]
    cert: Option<PathBuf>,
    /// Where the agency reaches the node from another machine, for its profile.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    p12: P12Args,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency renew drug-control --dir /srv/concord/node\n  concord agency renew drug-control --dir /srv/concord/node --csr agency.csr\n\nWithout --csr and --new-key it is for the key that the agency has, wherever that is: put the new certificate.pem beside it."
)]
pub(crate) struct RenewArgs {
    /// The agency's name.
    name: Name,
    /// The node's folder.
    #[arg(long, value_name = "NODEDIR")]
    dir: PathBuf,
    /// For a new key, made here.
    #[arg(long, conflicts_with = "csr")]
    new_key: bool,
    /// For a new key of the agency's, by its request.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    #[command(flatten)]
    p12: P12Args,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord agency remove drug-control --dir /srv/concord/node --yes\n\nIts streams end, its certificates are refused, and its name is not used again."
)]
pub(crate) struct RemoveArgs {
    /// The agency's name.
    name: Name,
    /// The node's folder.
    #[arg(long, value_name = "NODEDIR")]
    dir: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    next_update: NextUpdateArgs,
}

#[derive(Serialize)]
struct AddLine {
    agency: String,
    profile: String,
    measures: Vec<String>,
    /// It has nothing until an officer confirms it.
    unconfirmed: bool,
    /// Its key is with the agency, which puts it into the profile.
    key_elsewhere: bool,
    /// Over its key, in groups, which is compared with the agency where that keeps it; none where the certificate has yet to come.
    key: Option<String>,
    /// The last moment of its certificate; none where that has yet to come.
    not_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p12: Option<String>,
}

pub(crate) async fn run(command: AgencyCommand, output: Output) -> Result<(), Failure> {
    match command {
        AgencyCommand::Add(args) => add(args, output).await,
        AgencyCommand::Grant(args) => rights::grant(args, output).await,
        AgencyCommand::Confirm(args) => rights::confirm_all(args, output).await,
        AgencyCommand::Revoke(args) => rights::revoke(args, output).await,
        AgencyCommand::List(args) => rights::list(args, output).await,
        AgencyCommand::Renew(args) => renew(&args, output),
        AgencyCommand::Remove(args) => remove(&args, output).await,
    }
}

async fn add(args: AddArgs, output: Output) -> Result<(), Failure> {
    // First what can fail without an effect.
    let requested = args.csr.as_deref().map(read_request).transpose()?;
    let p12 = args.p12.wanted(output)?;
    let key_elsewhere = requested.is_some() || args.cert.is_some();
    let certificate = match (requested, &args.cert) {
        (Some(requested), _) => AgencyCertificate::Requested(requested),
        (None, Some(path)) => AgencyCertificate::Certified(concord_identity::read_text(path)?),
        (None, None) if args.request => AgencyCertificate::Awaited,
        (None, None) => AgencyCertificate::Made,
    };
    let key = AgencyKey { certificate, address: args.address.clone(), days: args.days.days };
    let added = concord_node::add_agency(&args.dir, args.name.clone(), args.measures.clone(), key).await?;
    if let Some(p12) = &p12 {
        p12.write(&added.profile_dir, args.name.as_str())?;
    }
    let holders = concord_node::holders(&args.dir)?;
    let certificate = match &added.asked {
        Some(_) => None,
        None => Some(holders.certificate_of(&holders.named(Role::Agency, &args.name))?),
    };
    let line = AddLine {
        agency: args.name.to_string(),
        profile: added.profile_dir.display().to_string(),
        measures: args.measures.iter().map(ToString::to_string).collect(),
        unconfirmed: added.unconfirmed,
        key_elsewhere,
        key: certificate.as_ref().and_then(|certificate| certificate.key_fingerprint()).map(|key| key.grouped()),
        not_after: certificate.as_ref().map(|certificate| output::time(certificate.not_after)),
        p12: p12.as_ref().map(|p12| p12.out.display().to_string()),
    };
    output.result(&line, || {
        let measures = if line.measures.is_empty() { "all".to_owned() } else { line.measures.join(", ") };
        facts(&[
            ("agency", line.agency.clone()),
            ("measures", measures),
            ("profile", line.profile.clone()),
            ("valid until", line.not_after.clone().unwrap_or_else(|| "-".to_owned())),
        ])
    })?;
    if let Some(asked) = &added.asked {
        tell_asked(asked, &args.dir, FolderKind::Node, output)?;
    }
    if key_elsewhere {
        output.say(&format!(
            "next: compare the key with the agency, {}; copy it the folder {}, into which it puts its key as key.pem: it is used there",
            line.key.as_deref().unwrap_or_default(),
            line.profile
        ));
    }
    if added.unconfirmed {
        let officer = args.dir.join("officer");
        hint::next(
            output,
            "the journal of this node was put back or made anew: run the node, and let its officer confirm the agency; with --past if it was \
             let in before",
            &[Line::new("agency confirm").text(args.name.as_str()).words("--profile").path(&officer)],
        );
    }
    if added.asked.is_some() {
        return Ok(());
    }
    if key_elsewhere {
        // Without the key nothing could be called with that profile on this machine.
        let serve = [Line::new("node serve --dir").path(&args.dir)];
        hint::next(output, "run the node if it does not run yet", &serve);
        return Ok(());
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

fn renew(args: &RenewArgs, output: Output) -> Result<(), Failure> {
    let requested = args.csr.as_deref().map(read_request).transpose()?;
    let p12 = args.p12.wanted(output)?;
    let holders = concord_node::holders(&args.dir)?;
    let holder = holders.named(Role::Agency, &args.name);
    let (anchor, folder) = (holders.open_anchor()?, holders.folder_of(&holder)?);
    if holders.is_moved(&holder)? {
        if args.new_key || p12.is_some() {
            return Err(HoldersError::KeyElsewhere { holder }.into());
        }
        let (made, folder) = holders.renew_moved(&anchor, &holder, requested.as_ref(), args.days.life())?;
        tell(&[CertificateLine::of(&made, Some(&folder))], output)?;
        tell_moved(&folder, output);
        return Ok(());
    }
    if p12.is_some() && !folder.join(concord_identity::KEY_FILE).exists() {
        return Err(HoldersError::KeyElsewhere { holder }.into());
    }
    let made = match &requested {
        Some(requested) => holders.renew_requested(&anchor, &holder, requested, args.days.life())?,
        None => holders.renew(&anchor, &holder, args.new_key, args.days.life())?,
    };
    if let Some(p12) = &p12 {
        p12.write(&folder, args.name.as_str())?;
    }
    tell(&[CertificateLine::of(&made, Some(&folder))], output)?;
    output.say("next: where the agency has a copy of its profile, put the new certificate.pem there too (and key.pem, if that is new)");
    Ok(())
}

async fn remove(args: &RemoveArgs, output: Output) -> Result<(), Failure> {
    let holders = concord_node::holders(&args.dir)?;
    let holder = holders.named(Role::Agency, &args.name);
    if !args.yes {
        let question =
            format!("End the agency {} and take its certificates back? Its name is not used again.", args.name);
        confirm(output, &format!("removing {}", args.name), &question, args.name.as_str())?;
    }
    // The end counts by itself, also where the anchor's key is elsewhere: nobody of that name is admitted any more.
    concord_node::end_agency(&args.dir, &args.name).await?;
    match holders.remove(&holder, output::now(), args.next_update.next_update) {
        Ok(removed) => tell_removed(&holder.to_string(), &removed, &args.dir, FolderKind::Node, output),
        Err(error @ HoldersError::AnchorKey { .. }) => {
            let failure = Failure::from(error);
            let message = format!("the agency is ended; its certificates are not on a list yet: {}", failure.message);
            Err(Failure { message, ..failure })
        }
        Err(error) => Err(error.into()),
    }
}
