//! `concord anchor`: a trust anchor on a machine of its own, which needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use concord_identity::{
    AnchorFolder, CertificateFacts, CertificateRequest, LeafKeyKind, Requested, certificates_to_pem, write_public,
};
use concord_model::{Identity, ParticipantCode, Role};
use concord_server::holders::{HoldersError, read_list, read_requests, refuse_if_of_another};
use serde::Serialize;

mod succession;

use succession::{EndArgs, NextArgs};

use super::certificates::{CertificateLine, DaysArgs, NextUpdateArgs, parse_holder};
use super::statement::confirm;
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, table};

#[derive(Subcommand)]
pub(crate) enum AnchorCommand {
    /// Make a trust anchor: its certificate, which others trust, and its key, which never leaves this folder.
    Init(InitArgs),
    /// Issue what a file of requests asks for.
    Sign(SignArgs),
    /// Take back all certificates of somebody, or single ones by their numbers, and write the list that says so.
    Revoke(RevokeArgs),
    /// List what the anchor issued.
    List(ListArgs),
    /// Bring the next anchor of a state, or of the hub: it counts beside the present one, until that is ended.
    #[command(
        after_help = "Example:\n  concord anchor next --dir /srv/concord/node\n  concord anchor next --dir /srv/concord/node --anchor next.pem\n\nThe server runs meanwhile. Run it again where it was cut short, or where other officers had to sign it first."
    )]
    Next(NextArgs),
    /// End the anchor before the present one: certificates under it count no more.
    #[command(
        after_help = "Example:\n  concord anchor end --dir /srv/concord/node\n\nOnly once everybody here has a certificate under the present one: `concord node renew --dir /srv/concord/node --all` makes them."
    )]
    End(EndArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord anchor init --dir /media/anchor --participant KAZ")]
pub(crate) struct InitArgs {
    /// The anchor's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Whose anchor: the code of the state or organisation; where none is said, the secretariat's.
    #[arg(long, value_name = "CODE")]
    participant: Option<ParticipantCode>,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord anchor sign certificate-request.pem --dir /media/anchor --out certificates.pem\n  concord anchor sign agency.csr --as agency/drug-control --dir /media/anchor --out agency.pem\n\nCompare each key's fingerprint with the one that was shown where the request was made."
)]
pub(crate) struct SignArgs {
    /// The file of requests (PKCS#10, PEM).
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    /// The anchor's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the certificates go; REQUEST with the ending .certificates.pem where nothing is said.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The name for the one request of the file, ROLE/NAME or a whole URI name, where it asks for none.
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    days: DaysArgs,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  concord anchor revoke officer/aigerim --dir /media/anchor --out kaz.crl\n  concord anchor revoke --serial 3f9a12bc77e04d1e --dir /media/anchor --out kaz.crl\n\nWith --serial the certificates of these numbers go, and no others: so the one before a `rotate` or a `renew --new-key` is taken back, and the new one stays. `concord anchor list` has the numbers. A list that is there at LIST is replaced by one that names all that it named."
)]
pub(crate) struct RevokeArgs {
    /// Whose, ROLE/NAME or whole URI names: all that was issued to them. None, and no number: the same list again, with a later next update.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The anchor's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where the list goes.
    #[arg(long, value_name = "LIST")]
    out: PathBuf,
    /// The serial number, in hexadecimal, of one certificate: this one alone, also one that the register does not have; repeatable.
    #[arg(long = "serial", value_name = "HEX")]
    serials: Vec<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    next_update: NextUpdateArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord anchor list --dir /media/anchor")]
pub(crate) struct ListArgs {
    /// The anchor's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct InitLine {
    participant: String,
    dir: String,
    fingerprint: String,
}

pub(crate) async fn run(command: AnchorCommand, output: Output) -> Result<(), Failure> {
    match command {
        AnchorCommand::Init(args) => init(args, output),
        AnchorCommand::Sign(args) => sign(&args, output),
        AnchorCommand::Revoke(args) => revoke(&args, output),
        AnchorCommand::List(args) => list(&args, output),
        AnchorCommand::Next(args) => succession::next(&args, output).await,
        AnchorCommand::End(args) => succession::end(&args, output).await,
    }
}

fn init(args: InitArgs, output: Output) -> Result<(), Failure> {
    let participant = args.participant.unwrap_or_else(ParticipantCode::secretariat);
    let made = AnchorFolder::create(&args.dir, &participant, output::now())?;
    let line = InitLine {
        participant: participant.to_string(),
        dir: args.dir.display().to_string(),
        fingerprint: made.anchor().fingerprint().grouped(),
    };
    output.result(&line, || {
        facts(&[
            ("anchor of", line.participant.clone()),
            ("folder", line.dir.clone()),
            ("fingerprint", line.fingerprint.clone()),
        ])
    })?;
    let line = Line::new("node init --csr --dir NODEDIR --participant").text(participant.as_str());
    let line =
        if participant == ParticipantCode::secretariat() { Line::new("hub init --csr --dir HUBDIR") } else { line };
    hint::next(
        output,
        "keep the folder in a safe, with a copy; on the server's machine, make keys and requests",
        &[line],
    );
    Ok(())
}

fn sign(args: &SignArgs, output: Output) -> Result<(), Failure> {
    let anchor = AnchorFolder::open(&args.dir)?;
    let wanted = wanted(args, anchor.participant())?;
    for (holder, requested) in &wanted {
        output.say(&format!("{holder}\n  key  {}", requested.key.fingerprint().grouped()));
        requested.hosts.iter().for_each(|host| output.say(&format!("  host {}", output::safe(host))));
    }
    tell_others_of_the_name(&anchor, &wanted, output)?;
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage("signing needs a yes, and there is no terminal to ask").help("add --yes"));
        }
        let question = "Are these the fingerprints that were shown where the requests were made?";
        confirm(output, "signing", question, "yes")?;
    }
    let life = args.days.life();
    let mut certificates = Vec::with_capacity(wanted.len() + 1);
    let mut lines = Vec::with_capacity(wanted.len());
    for (holder, requested) in &wanted {
        let mut request =
            CertificateRequest::leaf(holder, requested.key.clone(), life.now).lasting(life.now, life.days);
        if request.server {
            request.hosts.clone_from(&requested.hosts);
        }
        let certificate = anchor.issue(&request)?;
        let certificate_facts = CertificateFacts::read(&certificate).map_err(HoldersError::from)?;
        lines.push(CertificateLine::of(&certificate_facts, None));
        certificates.push(certificate);
    }
    certificates.push(anchor.anchor().der().clone());
    let out = args.out.clone().unwrap_or_else(|| args.request.with_extension("certificates.pem"));
    write_public(&out, certificates_to_pem(&certificates).as_bytes())?;
    output.results(&lines, || {
        let rows = lines.iter().map(|line| vec![line.name.clone(), line.not_after.clone(), line.serial.clone()]);
        format!(
            "{}{}",
            table(&["issued to", "valid until", "serial"], rows),
            facts(&[("file", out.display().to_string())])
        )
    })?;
    let fingerprint = anchor.anchor().fingerprint().grouped();
    output.say(&format!("the anchor's fingerprint, which is compared where the file is installed:\n  {fingerprint}"));
    // Of the secretariat's folders only the hub's itself says which of them it was; its people may be of its node for papers, too.
    let is_hubs = wanted.iter().any(|(holder, _)| holder.role == Role::Hub);
    let (install, dir) = if is_hubs { ("hub install-cert", "HUBDIR") } else { ("node install-cert", "NODEDIR") };
    hint::next(
        output,
        "carry the file back to where the requests were made, and the fingerprint another way",
        &[Line::new(install).path(&out).words(&format!("--dir {dir} --fingerprint")).text(&fingerprint)],
    );
    Ok(())
}

/// Two keys of one name count side by side, and cannot be told apart: that may be a renewal, or somebody else.
fn tell_others_of_the_name(
    anchor: &AnchorFolder,
    wanted: &[(Identity, Requested)],
    output: Output,
) -> Result<(), Failure> {
    for (holder, requested) in wanted {
        let key = Some(requested.key.fingerprint());
        let issued = anchor.issued_to(std::slice::from_ref(holder))?;
        let other = issued.iter().rev().find(|one| {
            let lasts = one.validity().1.is_none_or(|end| end >= output::now());
            lasts && one.revoked.is_none() && one.key_fingerprint() != key
        });
        if let Some(other) = other {
            output.say(&format!(
                "note: {holder} has another key too, with the certificate {} until {}: both count. Where it is lost, take it back with `concord \
                 anchor revoke --serial`; where it is somebody else's, do not let both have one name",
                other.serial, other.not_after
            ));
        }
    }
    Ok(())
}

/// Who is to be certified with which key: nobody of another participant, nobody twice.
fn wanted(args: &SignArgs, participant: &ParticipantCode) -> Result<Vec<(Identity, Requested)>, Failure> {
    let requests = read_requests(&args.request)?;
    let named = args.name.as_deref().map(|name| parse_holder(participant, name)).transpose()?;
    if named.is_some() && requests.len() != 1 {
        let what = format!("--as names one, and the file has {} requests", requests.len());
        return Err(Failure::usage(what).help("give a file with one request"));
    }
    let mut wanted: Vec<(Identity, Requested)> = Vec::with_capacity(requests.len());
    for requested in requests {
        let holder = match &named {
            Some(holder) => holder.clone(),
            None => {
                requested.identity().map_err(|source| HoldersError::Request { path: args.request.clone(), source })?
            }
        };
        if holder.participant != *participant {
            let what =
                format!("{holder} is not of {participant}, whose anchor this is: nobody would believe its certificate");
            return Err(
                Failure::new(Exit::Refused, "REQUEST_OF_ANOTHER", what).help("sign it with its own state's anchor")
            );
        }
        if holder.role == Role::Officer && requested.key.own_kind() != Some(LeafKeyKind::Ed25519) {
            let what =
                format!("the key for {holder} is not Ed25519, with which officers sign: it would not be installed");
            return Err(
                Failure::new(Exit::Refused, "REQUEST_INVALID", what).help("make the request with an Ed25519 key")
            );
        }
        if wanted.iter().any(|(other, _)| *other == holder) {
            let what = format!("the file asks twice for {holder}");
            return Err(Failure::new(Exit::Refused, "REQUEST_INVALID", what).help("make the file anew"));
        }
        wanted.push((holder, requested));
    }
    Ok(wanted)
}

#[derive(Serialize)]
struct RevokedLine {
    names: Vec<String>,
    serials: Vec<String>,
    list: String,
    named: usize,
    next_update: String,
}

fn revoke(args: &RevokeArgs, output: Output) -> Result<(), Failure> {
    let anchor = AnchorFolder::open(&args.dir)?;
    let holders = args.names.iter().map(|name| parse_holder(anchor.participant(), name));
    let holders = holders.collect::<Result<Vec<Identity>, _>>()?;
    let serials = args.serials.iter().map(|serial| parse_serial(serial)).collect::<Result<Vec<String>, _>>()?;
    let mut these = match serials.as_slice() {
        [] => all_of(&anchor, &holders)?,
        serials => by_number(&args.dir, &holders, serials, output)?,
    };
    if !these.is_empty() && !args.yes {
        let what = these.iter().map(|(holder, serial)| match holder {
            Some(holder) => format!("{serial} of {holder}"),
            None => serial.clone(),
        });
        let what = what.collect::<Vec<_>>().join(", ");
        let question = format!("Take these certificates back: {what}? Nobody gives them back.");
        confirm(output, "taking back", &question, "yes")?;
    }
    // Held until the list has its name: two at once would each write one without the other's. What was issued during the question goes, too.
    let mut held = anchor.hold()?;
    if serials.is_empty() {
        these = all_of(&anchor, &holders)?;
    }
    let beside = before(&args.out, &anchor)?;
    let made = anchor.revoke(&mut held, &these, &beside, output::now(), args.next_update.next_update)?;
    write_public(&args.out, made.text.as_bytes())?;
    let whose: BTreeSet<String> = these.iter().flat_map(|(holder, _)| holder).map(ToString::to_string).collect();
    let line = RevokedLine {
        names: whose.into_iter().collect(),
        serials: these.iter().map(|(_, serial)| serial.clone()).collect(),
        list: args.out.display().to_string(),
        named: made.named,
        next_update: output::time(made.next_update),
    };
    output.result(&line, || {
        facts(&[
            ("taken back", if line.names.is_empty() { "-".to_owned() } else { line.names.join(", ") }),
            ("serials", if line.serials.is_empty() { "-".to_owned() } else { line.serials.join(", ") }),
            ("list", line.list.clone()),
            ("names in all", line.named.to_string()),
            ("next list by", line.next_update.clone()),
        ])
    })?;
    drop(held);
    output.say(&format!("next: {}", where_it_goes(anchor.participant(), &these)));
    Ok(())
}

/// A certificate by its number, and whose it is, as far as that is known.
type One = (Option<Identity>, String);

/// Everything that was issued to these.
fn all_of(anchor: &AnchorFolder, holders: &[Identity]) -> Result<Vec<One>, Failure> {
    let mut these = Vec::new();
    for holder in holders {
        let issued = anchor.issued_to(std::slice::from_ref(holder))?;
        if issued.is_empty() {
            let what = format!("the register of this anchor has nothing of {holder}");
            return Err(Failure::new(Exit::Refused, "HOLDER_UNKNOWN", what).help(
                "see `concord anchor list`; of a certificate that the register does not have, give the number with --serial",
            ));
        }
        these.extend(issued.into_iter().map(|one| (Some(holder.clone()), one.serial)));
    }
    Ok(these)
}

/// The certificates of these numbers, and no others: what was issued to the same name before or since goes on to count.
fn by_number(dir: &Path, named: &[Identity], serials: &[String], output: Output) -> Result<Vec<One>, Failure> {
    let named = match named {
        [] => None,
        [one] => Some(one),
        _ => {
            return Err(
                Failure::usage("--serial goes with one name, or with none").help("give the numbers of one at a time")
            );
        }
    };
    let issued = AnchorFolder::register_in(dir).read()?;
    let mut these = Vec::with_capacity(serials.len());
    for serial in serials {
        let registered = issued.iter().find(|one| one.serial == *serial);
        let whose = registered.and_then(|one| one.name.parse::<Identity>().ok());
        if let (Some(named), Some(whose)) = (named, &whose)
            && named != whose
        {
            let what =
                format!("the certificate {serial} was issued to {whose}, and not to {named}: nothing was taken back");
            return Err(Failure::new(Exit::Refused, "SERIAL_OF_ANOTHER", what)
                .help("look at `concord anchor list` again; without a name the number alone is enough"));
        }
        if registered.is_none() {
            output.say(&format!(
                "note: the register of this anchor does not have the certificate {serial}: it is taken back by its number; make sure that it is right"
            ));
        }
        these.push((whose.or_else(|| named.cloned()), serial.clone()));
    }
    Ok(these)
}

/// A list counts where it lies: at each server that is called with what it names.
fn where_it_goes(participant: &ParticipantCode, these: &[One]) -> String {
    let of = |role: Role| these.iter().any(|(holder, _)| holder.as_ref().is_none_or(|holder| holder.role == role));
    if *participant == ParticipantCode::secretariat() {
        let nodes = "send it to every state too, for revocation/ of its node, which calls the hub";
        let hub = "put the list into revocation/ of the hub's folder";
        return if these.is_empty() || of(Role::Hub) { format!("{hub}; {nodes}") } else { hub.to_owned() };
    }
    let node = "put the list into revocation/ of the node's folder";
    let hub = match (these.is_empty(), of(Role::Node), of(Role::Officer)) {
        (true, ..) => "where the secretariat has this list too, send it the new one",
        (_, true, _) => {
            "send it to the secretariat at once, for revocation/ of the hub: until it is there, whoever has that key calls the hub as this node"
        }
        (_, _, true) => {
            "send it to the secretariat too, for revocation/ of the hub: then nothing that this officer signed is taken any more"
        }
        _ => return node.to_owned(),
    };
    format!("{node}; {hub}")
}

/// The list that is replaced; nothing that it names is lost.
fn before(path: &Path, anchor: &AnchorFolder) -> Result<Vec<Vec<u8>>, Failure> {
    refuse_if_of_another(path, anchor.anchor())?;
    Ok(read_list(path).into_iter().collect())
}

/// As registers write it: lower case, without colons and leading zeros.
fn parse_serial(text: &str) -> Result<String, Failure> {
    let digits: String = text.chars().filter(|digit| *digit != ':').collect::<String>().to_ascii_lowercase();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() || digits.len() > 40 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("--serial {} is no number in hexadecimal", output::safe(text))));
    }
    Ok(if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() })
}

fn list(args: &ListArgs, output: Output) -> Result<(), Failure> {
    let issued = AnchorFolder::register_in(&args.dir).read()?;
    output.results(&issued, || {
        // Of a name the newest that counts is the one in use.
        let newest: BTreeMap<&str, &str> = issued
            .iter()
            .filter(|one| one.revoked.is_none())
            .map(|one| (one.name.as_str(), one.serial.as_str()))
            .collect();
        let row = |one: &concord_identity::Registered| {
            let is_newest = newest.get(one.name.as_str()) == Some(&one.serial.as_str());
            let in_use = if is_newest { "newest" } else { "-" };
            let state = one.revoked.as_ref().map_or_else(|| in_use.to_owned(), |at| format!("taken back {at}"));
            let name = if one.name.is_empty() { "-".to_owned() } else { one.name.clone() };
            vec![name, one.not_after.clone(), one.serial.clone(), state]
        };
        table(&["issued to", "valid until", "serial", "state"], issued.iter().map(row))
    })
}
