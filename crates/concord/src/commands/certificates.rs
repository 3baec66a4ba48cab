//! What the commands that make, renew, install and list certificates have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use concord_identity::{CertificateFacts, Requested, read_text};
use concord_model::Identity;
use concord_server::holders::{
    Asked, Held, Holders, HoldersError, LEAF_LIFETIME_DAYS, LIFETIME_MAX_DAYS, Lifetime, Removed,
};
use concord_server::{CERTIFICATE_CHECK_MILLISECONDS, Folder, FolderError, FolderKind};
use serde::Serialize;

use super::rotate::tell_taking_back;
use crate::exit::Failure;
use crate::hint::{self, Line};
use crate::output::{self, Output, facts, table};

/// How long a list of what was taken back says that it holds, at most, in days.
const LIST_LIFETIME_MAX_DAYS: u64 = 3650;

/// `--days` of every command that issues.
#[derive(Args, Clone, Copy)]
pub(crate) struct DaysArgs {
    /// How long the certificate is valid, in days; never longer than the anchor.
    #[arg(long, default_value_t = LEAF_LIFETIME_DAYS, value_name = "N",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=u64::from(LIFETIME_MAX_DAYS)))]
    pub(crate) days: u32,
}

impl DaysArgs {
    pub(crate) fn life(self) -> Lifetime {
        Lifetime { days: self.days, now: output::now() }
    }
}

/// `--next-update` of every command that makes a list of what was taken back.
#[derive(Args, Clone, Copy)]
pub(crate) struct NextUpdateArgs {
    /// After how many days the list of what was taken back is to be followed by the next one.
    #[arg(long, default_value_t = concord_identity::LIST_LIFETIME_DAYS, value_name = "DAYS",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=LIST_LIFETIME_MAX_DAYS))]
    pub(crate) next_update: u32,
}

/// `node renew` and `hub renew`.
#[derive(Args)]
pub(crate) struct RenewArgs {
    /// The server's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// For a new key; the old one goes when the new certificate is there.
    #[arg(long)]
    pub(crate) new_key: bool,
    /// For everybody of the folder, and not for the server alone: also for those whose profiles were moved to their persons.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write a file of requests instead, for an anchor whose key is elsewhere; --days is said there.
    #[arg(long, conflicts_with = "days")]
    pub(crate) csr: bool,
    /// Renew no certificate, but the list of what was taken back: the same again, with a later next update.
    #[arg(long, conflicts_with_all = ["new_key", "all", "csr", "days"])]
    pub(crate) list: bool,
    /// Of a node of the secretariat's, whose anchor is its hub's: the folder of the anchor that followed there. It is known here from then on, beside the one before.
    #[arg(long, value_name = "ANCHORDIR", conflicts_with_all = ["list", "csr"])]
    pub(crate) anchor: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) days: DaysArgs,
    #[command(flatten)]
    pub(crate) next_update: NextUpdateArgs,
}

/// One certificate, as it is told.
#[derive(Serialize)]
pub(crate) struct CertificateLine {
    pub(crate) name: String,
    pub(crate) serial: String,
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    /// Over the key, in groups.
    pub(crate) key: Option<String>,
    /// The folder of the profile, or of the server's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) folder: Option<String>,
}

impl CertificateLine {
    pub(crate) fn of(certificate: &CertificateFacts, folder: Option<&Path>) -> Self {
        Self {
            name: certificate.identity.to_string(),
            serial: certificate.serial.clone(),
            not_before: output::time(certificate.not_before),
            not_after: output::time(certificate.not_after),
            key: certificate.key_fingerprint().map(|key| key.grouped()),
            folder: folder.map(|folder| folder.display().to_string()),
        }
    }
}

/// Tells certificates that were made.
pub(crate) fn tell(lines: &[CertificateLine], output: Output) -> Result<(), Failure> {
    output.results(lines, || {
        let rows = lines.iter().map(|line| {
            facts(&[
                ("certificate of", line.name.clone()),
                ("valid until", line.not_after.clone()),
                ("serial", line.serial.clone()),
                ("key", line.key.clone().unwrap_or_default()),
                ("folder", line.folder.clone().unwrap_or_else(|| "-".to_owned())),
            ])
        });
        rows.collect::<Vec<_>>().join("\n")
    })
}

/// One request in a file of requests.
#[derive(Serialize)]
struct RequestLine {
    name: String,
    /// Over the key, in groups: what is compared where it is signed.
    key: String,
    file: String,
}

/// Tells a file of requests, and what to do with it. `kind` is `node` or `hub`.
pub(crate) fn tell_asked(asked: &Asked, dir: &Path, kind: FolderKind, output: Output) -> Result<(), Failure> {
    let file = asked.path.display().to_string();
    let line = |(name, key): &(Identity, concord_identity::LeafPublicKey)| RequestLine {
        name: name.to_string(),
        key: key.fingerprint().grouped(),
        file: file.clone(),
    };
    let lines: Vec<RequestLine> = asked.requests.iter().map(line).collect();
    output.results(&lines, || {
        let rows = lines.iter().map(|line| vec![line.name.clone(), line.key.clone()]);
        format!("{}{}", table(&["request for", "key"], rows), facts(&[("file", file.clone())]))
    })?;
    hint::next(
        output,
        "carry the file to where the anchor is, compare the keys there, sign it, and bring the certificates back",
        &[
            Line::new("anchor sign").path(&asked.path).words("--dir ANCHORDIR --out certificates.pem"),
            Line::new(&format!("{kind} install-cert certificates.pem --dir")).path(dir),
        ],
    );
    Ok(())
}

/// The holders of a hub's or node's folder, whichever it is.
pub(crate) fn holders(dir: &Path) -> Result<(Holders, FolderKind), Failure> {
    match Folder::open(dir, FolderKind::Node) {
        Err(FolderError::OtherKind { .. }) => Ok((concord_hub::holders(dir)?, FolderKind::Hub)),
        Err(error) => Err(concord_node::NodeError::from(error).into()),
        Ok(_) => Ok((concord_node::holders(dir)?, FolderKind::Node)),
    }
}

/// Reads a file with exactly one request.
pub(crate) fn read_request(path: &Path) -> Result<Requested, Failure> {
    let read = Requested::from_pem(&read_text(path)?);
    read.map_err(|source| HoldersError::Request { path: path.to_owned(), source }.into())
}

/// `node renew` and `hub renew`.
pub(crate) async fn renew_server(args: &RenewArgs, wanted: FolderKind, output: Output) -> Result<(), Failure> {
    let (holders, kind) = holders(&args.dir)?;
    if kind != wanted {
        let what = format!("{} is the folder of a {kind}, and this renews a {wanted}", args.dir.display());
        return Err(
            Failure::usage(what).help(format!("`concord {kind} renew --dir {}`, if that is meant", args.dir.display()))
        );
    }
    if args.list {
        return renew_list(&holders, args.next_update, output);
    }
    follow_anchor_of_hub(&holders, args, output).await?;
    if let Some(next) = holders.next_anchor()?.filter(|_| !args.csr) {
        output.say(&format!(
            "note: the next anchor, {}, waits to be recorded: these certificates are under the present one. Run `concord anchor next` again first, \
             where they are to be under the next",
            next.fingerprint().grouped()
        ));
    }
    let mut who = vec![holders.server().clone()];
    let mut moved = Vec::new();
    if args.all {
        // Of who was taken back the profile may have been left.
        let taken_back = holders.taken_back()?;
        let is_in = |holder: &Identity| {
            let here = holders.certificate_of(holder);
            here.is_ok_and(|here| *holder == *holders.server() || !taken_back.has(&here))
        };
        let (with_key, without): (Vec<_>, Vec<_>) =
            holders.everybody().into_iter().filter(is_in).partition(|holder| has_key(&holders, holder));
        who = with_key;
        for holder in &without {
            tell_skipped(
                holder,
                &args.dir,
                "its key is with its holder, who is to be given the new certificate",
                output,
            );
        }
        moved = holders.moved()?;
    }
    if args.csr {
        for one in &moved {
            let why = "its profile is elsewhere, with its key: its holder makes the request, which is signed where the anchor is, and puts the \
                       certificate into the profile";
            output.say(&format!("skipped: {}: {why}", one.holder));
        }
        let asked = holders.request(&who, None, args.new_key, output::now())?;
        return tell_asked(&asked, &args.dir, kind, output);
    }
    let anchor = holders.open_anchor()?;
    let mut lines = Vec::with_capacity(who.len());
    let mut serial_before = None;
    for holder in &who {
        let before = holders.certificate_of(holder).ok().map(|before| before.serial);
        let renewed = holders.renew(&anchor, holder, args.new_key, args.days.life())?;
        lines.push(CertificateLine::of(&renewed, Some(&holders.folder_of(holder)?)));
        if *holder == *holders.server() {
            serial_before = args.new_key.then_some(before).flatten();
        }
    }
    for one in &moved {
        let why = match (one.not_after, &one.key) {
            (Some(end), _) if end < output::now() => {
                format!(
                    "its profile is elsewhere, and its certificate ended {}; if it is to come back",
                    output::time(end)
                )
            }
            _ if !one.counts => "its anchor was ended, so that it was shut out; if it is to come back".to_owned(),
            (_, None) => {
                "its profile is elsewhere, and the register has no key of it: with --csr, by a request of its holder's"
                    .to_owned()
            }
            _ => {
                match holders.renew_moved(&anchor, &one.holder, None, args.days.life()) {
                    Ok((made, folder)) => {
                        lines.push(CertificateLine::of(&made, Some(&folder)));
                        tell_moved(&folder, output);
                        continue;
                    }
                    // The others have theirs, and are told.
                    Err(error) => error.to_string(),
                }
            }
        };
        tell_skipped(&one.holder, &args.dir, &why, output);
    }
    if kind == FolderKind::Node && args.dir.join("join-request.json").exists() {
        concord_node::refresh_join_request(&args.dir)?;
    }
    tell(&lines, output)?;
    match serial_before {
        Some(serial) => tell_taking_back(&holders, &serial, output),
        None => Ok(()),
    }
}

/// What a node of the secretariat's has to hear of the hub's next anchor, before the first certificate under it is made.
async fn follow_anchor_of_hub(holders: &Holders, args: &RenewArgs, output: Output) -> Result<(), Failure> {
    if args.anchor.is_some() && !holders.has_anchor_of_hub() {
        let what = "--anchor is for a node of the secretariat's, which has its hub's anchor";
        return Err(Failure::usage(what)
            .help(format!("`concord anchor next --dir {}` brings the next one", args.dir.display())));
    }
    if let Some(next) = holders.follow_anchor_of_hub(args.anchor.as_deref())? {
        output.say(&format!(
            "this node goes by the anchor that followed the hub's, {}, and by the one before; `concord anchor end --dir {}` takes that away once it is \
             ended at the hub",
            next.fingerprint().grouped(),
            args.dir.display()
        ));
        until_it_looked().await;
    }
    Ok(())
}

/// A server looks at its files once a second, and refuses a certificate under an anchor that it has yet to see. Whether it knows another anchor of
/// callers by then, only such a certificate could find out.
pub(super) async fn until_it_looked() {
    tokio::time::sleep(Duration::from_millis(2 * CERTIFICATE_CHECK_MILLISECONDS)).await;
}

/// Nobody is left out without a word.
fn tell_skipped(holder: &Identity, dir: &Path, why: &str, output: Output) {
    let renew = Line::new(&format!("{} renew", holder.role)).text(holder.name.as_str()).words("--dir").path(dir);
    output.say(&format!("skipped: {holder}: {why}: {renew}"));
}

/// Where the certificate of a profile that is elsewhere has to go.
pub(crate) fn tell_moved(folder: &Path, output: Output) {
    output.say(&format!(
        "the profile is elsewhere: put certificate.pem and server-anchor.pem of {} into it, in the place of those that are there; its key.pem and \
         profile.toml stay",
        folder.display()
    ));
}

#[derive(Serialize)]
struct ListLine {
    list: String,
    named: usize,
    next_update: String,
}

/// Makes the list of what was taken back anew: the one that is there lapses, and with it all that its anchor issued.
fn renew_list(holders: &Holders, next_update: NextUpdateArgs, output: Output) -> Result<(), Failure> {
    let (path, made) = holders.renew_list(output::now(), next_update.next_update)?;
    let line =
        ListLine { list: path.display().to_string(), named: made.named, next_update: output::time(made.next_update) };
    output.result(&line, || {
        facts(&[
            ("list", line.list.clone()),
            ("names in all", line.named.to_string()),
            ("next list by", line.next_update.clone()),
        ])
    })?;
    output.say("next: where the secretariat or another machine has this list too, send it the new one");
    Ok(())
}

fn has_key(holders: &Holders, holder: &Identity) -> bool {
    holders.folder_of(holder).is_ok_and(|folder| folder.join(concord_identity::KEY_FILE).exists())
}

#[derive(Serialize)]
struct HeldLine {
    name: String,
    state: &'static str,
    serial: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    days_left: Option<i64>,
    /// Over the key, in groups.
    key: Option<String>,
    /// Where it stands, if it does.
    folder: Option<String>,
}

/// Lists certificates.
pub(crate) fn tell_held(holders: &Holders, held: &[Held], output: Output) -> Result<(), Failure> {
    let now = output::now();
    let line = |one: &Held| HeldLine {
        name: one.holder.to_string(),
        state: one.state,
        serial: one.serial.clone(),
        not_before: one.not_before.map(output::time),
        not_after: one.not_after.map(output::time),
        days_left: one.days_left(now),
        key: one.key.clone(),
        folder: holders.folder_of(&one.holder).ok().filter(|_| one.is_here).map(|folder| folder.display().to_string()),
    };
    let lines: Vec<HeldLine> = held.iter().map(line).collect();
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    output.results(&lines, || {
        let row = |line: &HeldLine| {
            let days = line.days_left.map_or_else(|| "-".to_owned(), |days| days.to_string());
            vec![line.name.clone(), line.state.to_owned(), days, or_dash(&line.serial), or_dash(&line.folder)]
        };
        table(&["name", "certificate", "days left", "serial", "folder"], lines.iter().map(row))
    })
}

#[derive(Serialize)]
struct RemovedLine {
    name: String,
    serials: Vec<String>,
    list: String,
    /// None where the list was there already, and the anchor's key is elsewhere.
    next_update: Option<String>,
    aside: Option<String>,
}

/// Tells who was taken back, and by which list.
pub(crate) fn tell_removed(
    name: &str,
    removed: &Removed,
    dir: &Path,
    kind: FolderKind,
    output: Output,
) -> Result<(), Failure> {
    let line = RemovedLine {
        name: name.to_owned(),
        serials: removed.serials.clone(),
        list: removed.list.display().to_string(),
        next_update: removed.made.as_ref().map(|made| output::time(made.next_update)),
        aside: removed.aside.as_ref().map(|path| path.display().to_string()),
    };
    output.result(&line, || {
        facts(&[
            ("taken back", line.name.clone()),
            ("serials", line.serials.join(", ")),
            ("list", line.list.clone()),
            ("next list by", line.next_update.clone().unwrap_or_else(|| "-".to_owned())),
            ("profile", line.aside.clone().unwrap_or_else(|| "-".to_owned())),
        ])
    })?;
    if let Some(next_update) = &line.next_update {
        let why = format!(
            "make the list anew before {next_update}: soon after that it lapses, and nobody under this anchor is let in any more"
        );
        hint::next(output, &why, &[Line::new(&format!("{kind} renew --list --dir")).path(dir)]);
    }
    Ok(())
}

/// A name, or the end of a URI name such as `officer/first`.
pub(crate) fn parse_holder(holders_of: &concord_model::ParticipantCode, text: &str) -> Result<Identity, Failure> {
    if text.starts_with("spiffe://") {
        return Ok(text.parse::<Identity>()?);
    }
    let code = holders_of.as_str().to_ascii_lowercase();
    Ok(format!("spiffe://{code}.concord/{text}").parse::<Identity>()?)
}
