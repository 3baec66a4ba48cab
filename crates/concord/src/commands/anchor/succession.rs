//! `concord anchor next` and `concord anchor end`: one anchor of a server's participant follows another, with both for a while.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use concord_identity::{Anchor, read_text};
use concord_model::{Fingerprint, Identity, Reason, Role};
use concord_server::FolderKind;
use concord_server::holders::{Holders, HoldersError};
use concord_wire::agreement::{DraftContent, keys};
use concord_wire::proto::operations::v1::{GetStatusRequest, get_status_response};
use serde::Serialize;

use super::super::approval;
use super::super::certificates::{holders, until_it_looked};
use super::super::compare::ask_for;
use super::super::rotate::{Own, connect, hub_of, profile_of, signing_keys};
use super::super::statement::{Said, say_it};
use crate::client::{Client, call};
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{self, Output, facts};

/// How long a server may take to see what was written for it: it looks once a second.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How a handshake ends while one side has yet to see what was written for it.
const LOOKS_AGAIN: [&str; 2] = ["REFUSED_BY_PEER", "UNKNOWN_ISSUER"];

#[derive(Args)]
pub(crate) struct NextArgs {
    /// The node's or hub's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The certificate of the next anchor, whose key is elsewhere; where none is given, one is made in DIR/anchor-next.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// The fingerprint of that anchor, as `concord anchor init` showed it where it is kept; else a terminal is asked.
    #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::parse, requires = "anchor")]
    fingerprint: Option<Fingerprint>,
    /// Make the next anchor, with its key, in this folder, also where the key of the present one is not here.
    #[arg(long, conflicts_with = "anchor")]
    here: bool,
    /// The profile of the officer who says so; where none is named, DIR/officer.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct EndArgs {
    /// The node's or hub's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// End it also where somebody has no certificate under the present one yet, or, of a hub, a node is away: they are shut out.
    #[arg(long)]
    anyway: bool,
    /// The profile of the officer who says so; where none is named, DIR/officer.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<PathBuf>,
}

#[derive(Serialize)]
struct SuccessionLine {
    participant: String,
    /// The anchor that counts from now on, or is to.
    anchor: String,
    /// The one before, while it counts too, or the one that was ended.
    before: Option<String>,
    statement: &'static str,
}

impl SuccessionLine {
    fn tell(&self, before: &'static str, output: Output) -> Result<(), Failure> {
        output.result(self, || {
            facts(&[
                ("anchor of", self.participant.clone()),
                ("next", self.anchor.clone()),
                (before, self.before.clone().unwrap_or_else(|| "-".to_owned())),
                ("statement", self.statement.to_owned()),
            ])
        })
    }
}

pub(super) async fn next(args: &NextArgs, output: Output) -> Result<(), Failure> {
    let (holders, kind) = holders(&args.dir)?;
    if holders.has_anchor_of_hub() {
        return Err(of_hub(
            "a node of the secretariat's has the anchor of its hub, which follows another there",
            "next",
            &args.dir,
        ));
    }
    let given = given(args, &holders, output)?;
    let is_prepared_before = holders.next_anchor()?.is_some();
    let client = connect_patiently(&holders, &args.dir, args.profile.as_deref()).await?;
    let own = Own::of(&client, &holders, kind).await?;
    let (present, ending) = (own.anchor()?, own.ending_anchor()?);
    let mut known = known(&holders, &client)?;
    let both = |first: &[Anchor], then: &[Anchor]| [first, then].concat();
    if let (Some(ending), None) = (ending, holders.next_anchor()?) {
        let goes_by = known.iter().find(|anchor| anchor.fingerprint() == present).cloned();
        if given.as_ref().is_some_and(|given| Some(given) != goes_by.as_ref()) {
            let what = format!("the anchor {} before the present one still counts", ending.grouped());
            return Err(Failure::new(Exit::Refused, "ANCHOR_ENDING", what).help(
                "make the certificates under it anew, and end it with `concord anchor end`; then bring the next",
            ));
        }
        let Some(goes_by) = goes_by else {
            let what = format!("the registry has the anchor {}, which this folder does not know", present.grouped());
            return Err(Failure::failed("ANCHOR_OTHER", what).help("is this an older copy of the folder, or of a node beside the hub? Use the folder where `concord anchor next` was run"));
        };
        {
            // The same again: it is done, but for what a crash may have left out, and the one before has yet to be ended.
            known.retain(|anchor| *anchor != goes_by);
            holders.know_by(&both(std::slice::from_ref(&goes_by), &known))?;
            let done = SuccessionLine {
                participant: own.participant.to_string(),
                anchor: present.grouped(),
                before: Some(ending.grouped()),
                statement: Said::Accepted.as_str(),
            };
            done.tell("before it", output)?;
            tell_renewing(args, kind, output);
            return Ok(());
        }
    }
    let is_prepared = holders.next_anchor()?.is_some_and(|next| next.fingerprint() == present);
    if !is_prepared && !known.iter().any(|anchor| anchor.fingerprint() == present) {
        // Else nobody here would know the server any more, before the next anchor counts.
        let what = format!(
            "neither this folder nor the officer's profile has the certificate of the anchor that counts, {}: nothing was done",
            present.grouped()
        );
        return Err(Failure::failed("ANCHOR_UNKNOWN", what)
            .help("put that certificate into tls/anchor.pem of the folder, from where the anchor is kept"));
    }
    if given.is_none() && !is_prepared_before && !args.here && !holders.has_anchor_key() {
        let what = "the key of the present anchor is not in this folder, and the next one's would be made here: nothing was done";
        return Err(Failure::new(Exit::Refused, "ANCHOR_KEY_ELSEWHERE", what).help(
            "where anchors are kept elsewhere, make the next one there (`concord anchor init`) and give its certificate with --anchor FILE; with --here it is \
             made in this folder",
        ));
    }
    let before = known.clone();
    let next = holders.prepare_next_anchor(given, output::now())?;
    known.retain(|anchor| *anchor != next);
    let line = |statement, before: Option<Fingerprint>| SuccessionLine {
        participant: own.participant.to_string(),
        anchor: next.fingerprint().grouped(),
        before: before.map(|before| before.grouped()),
        statement,
    };
    if present != next.fingerprint() {
        // Everybody here knows both before the first certificate under the next is made.
        holders.know_by(&both(&known, std::slice::from_ref(&next)))?;
        let key = own.present(&signing_keys(&args.dir))?;
        let hub = hub_of(&client).await?;
        let message = keys::succession(&own.participant, &hub, next.der(), &key.public(), |bytes| key.sign(bytes));
        let said = match say_it(&client, DraftContent::SucceedAnchor(message)).await {
            // Said before, and recorded since: the node hears of it by its feed.
            Err(refused) if refused.reason == Reason::ParticipantAlreadyEnrolled.code() => {
                await_heard(&client, &holders, kind, next.fingerprint(), refused).await?;
                None
            }
            // What nobody heard of is not to stay here as one that counts.
            Err(refused) if refused.exit == Exit::Refused && !is_prepared_before => {
                holders.give_up_next_anchor(&before)?;
                return Err(refused);
            }
            said => Some(said?),
        };
        if let Some((said, statement)) = said.filter(|(said, _)| *said != Said::Accepted) {
            line(said.as_str(), Some(present)).tell("before it", output)?;
            match said {
                Said::Waits(missing) => approval::tell_waits(missing, &statement, output),
                _ => output.say("the node forwards it when the hub can be reached"),
            }
            output.say("run the same command again once it is recorded: then the folder goes by the next anchor");
            return Ok(());
        }
    }
    holders.follow_anchor(&next)?;
    holders.know_by(&both(std::slice::from_ref(&next), &known))?;
    if kind == FolderKind::Node {
        // A hub goes by its registry: whoever had a certificate under the next anchor before its node looked would be refused.
        until_it_looked().await;
    }
    let before = if present == next.fingerprint() { ending } else { Some(present) };
    line(Said::Accepted.as_str(), before).tell("before it", output)?;
    tell_renewing(args, kind, output);
    Ok(())
}

/// A node of the secretariat's has no anchor of its own to change.
fn of_hub(what: &str, command: &str, dir: &Path) -> Failure {
    let next = format!(
        "run `concord anchor {command} --dir HUBDIR`, where the hub's folder is; this node follows by `concord node renew --all --dir {} --anchor HUBDIR/anchor`",
        dir.display()
    );
    Failure::new(Exit::Refused, "ANCHOR_OF_HUB", what).help(next)
}

/// The way to the server, which may have yet to look at the anchors and certificates that a step before this one wrote.
async fn connect_patiently(holders: &Holders, dir: &Path, profile: Option<&Path>) -> Result<Client, Failure> {
    let since = Instant::now();
    loop {
        match connect(holders, dir, profile).await {
            Err(refused) if LOOKS_AGAIN.contains(&refused.reason.as_str()) && since.elapsed() < SEEN_WITHIN => {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            connected => return connected,
        }
    }
}

/// Looks until it holds, for as long as a server may take to see what was written for it; whether it came to hold.
async fn until_seen(mut holds: impl AsyncFnMut() -> Result<bool, Failure>) -> Result<bool, Failure> {
    let since = Instant::now();
    loop {
        if holds().await? {
            return Ok(true);
        }
        if since.elapsed() >= SEEN_WITHIN {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Until the server's own registry has what the hub recorded.
async fn await_heard(
    client: &Client,
    holders: &Holders,
    kind: FolderKind,
    next: Fingerprint,
    refused: Failure,
) -> Result<(), Failure> {
    if until_seen(async || Ok(Own::of(client, holders, kind).await?.anchor()? == next)).await? {
        return Ok(());
    }
    Err(Failure::new(Exit::Unavailable, "ANCHOR_WAITS", refused.message).help(
        "where the statement waited for the hub, it is recorded by now and this node has yet to hear of it by its feed: run the same command again; an anchor \
         that was followed before does not come back",
    ))
}

/// Waits until the server shows a certificate under this anchor: whoever knew it by that alone would refuse the one before.
async fn await_shown_under(client: &Client, args: &EndArgs, kept: &Anchor, output: Output) -> Result<(), Failure> {
    let profile = profile_of(&args.dir, args.profile.as_deref());
    if !until_seen(async || client.sees_server_under(kept, &profile).await).await? {
        output.say(&format!(
            "note: after {} s the server still shows no certificate under the anchor {}: whoever knows it by that alone is not let to it until it has one",
            SEEN_WITHIN.as_secs(),
            kept.fingerprint().grouped()
        ));
    }
    Ok(())
}

/// By what this folder's people are known; where the folder does not say it, since the anchor's was taken away, the officer's profile does.
fn known(holders: &Holders, client: &Client) -> Result<Vec<Anchor>, Failure> {
    let known = holders.anchors()?;
    Ok(if known.is_empty() { client.profile().server_anchors().to_vec() } else { known })
}

fn tell_renewing(args: &NextArgs, kind: FolderKind, output: Output) {
    let whose = match kind {
        FolderKind::Node => "",
        FolderKind::Hub => {
            ", and each node has heard of it (`concord status --profile` of the secretariat: connected, and no lag)"
        }
    };
    let anchors = args.dir.join("tls/anchor.pem");
    output.say(&format!(
        "both anchors count. Once every profile that is not in this folder, of officers, operators and agencies on other machines, has {} as its \
         server-anchor.pem{whose}, certificates are made anew under the next, then the one before is ended",
        anchors.display()
    ));
    hint::next(
        output,
        "make everybody's certificate anew, then end the anchor before",
        &[
            Line::new(&format!("{kind} renew --all --dir")).path(&args.dir),
            Line::new("anchor end --dir").path(&args.dir),
        ],
    );
}

/// The anchor of a file, compared: whoever could change the file could have put one of their own there.
fn given(args: &NextArgs, holders: &Holders, output: Output) -> Result<Option<Anchor>, Failure> {
    let Some(path) = &args.anchor else { return Ok(None) };
    let anchor = Anchor::from_pem(&read_text(path)?).map_err(HoldersError::from)?;
    if holders.next_anchor()?.as_ref() == Some(&anchor) {
        return Ok(Some(anchor));
    }
    match args.fingerprint {
        Some(said) if said == anchor.fingerprint() => {}
        Some(said) => {
            let what = format!(
                "the anchor of the file has the fingerprint {}, and what was said is {}: nothing was done",
                anchor.fingerprint().grouped(),
                said.grouped()
            );
            return Err(Failure::new(Exit::Refused, "FINGERPRINT_MISMATCH", what)
                .help("somebody may have put another file in its place: get it again another way"));
        }
        None if !std::io::stdin().is_terminal() => {
            return Err(HoldersError::AnchorUncompared { fingerprint: anchor.fingerprint().grouped() }.into());
        }
        None => {
            let question =
                "Type the anchor's fingerprint, or its first four groups, as it is known where the anchor is kept:";
            ask_for("the anchor", question, anchor.fingerprint(), output)?;
        }
    }
    Ok(Some(anchor))
}

pub(super) async fn end(args: &EndArgs, output: Output) -> Result<(), Failure> {
    let (holders, kind) = holders(&args.dir)?;
    let client = connect_patiently(&holders, &args.dir, args.profile.as_deref()).await?;
    let own = Own::of(&client, &holders, kind).await?;
    let anchors = known(&holders, &client)?;
    let present = own.anchor()?;
    let ending = own.ending_anchor()?;
    if ending.is_some() && holders.has_anchor_of_hub() {
        return Err(of_hub(
            "the hub's anchor before the present one still counts, and is ended there first",
            "end",
            &args.dir,
        ));
    }
    let Some(kept) = anchors.iter().find(|anchor| anchor.fingerprint() == present) else {
        let what = format!("this folder does not go by the anchor that the registry has, {}", present.grouped());
        if holders.has_anchor_of_hub() {
            return Err(of_hub(&what, "next", &args.dir));
        }
        return Err(Failure::failed("ANCHOR_OTHER", what)
            .help("run `concord anchor next` once more: it ends what was cut short"));
    };
    let mut line = SuccessionLine {
        participant: own.participant.to_string(),
        anchor: present.grouped(),
        before: None,
        statement: Said::Accepted.as_str(),
    };
    let waits = holders.next_anchor()?.filter(|next| next.fingerprint() != present);
    if ending.is_none() && (waits.is_some() || anchors.len() < 2) {
        let failure = |what: String| Failure::new(Exit::Refused, "NOTHING_TO_END", what);
        return Err(match waits {
            Some(next) => failure(format!("the next anchor, {}, is not recorded yet, and none was followed: nothing was done", next.fingerprint().grouped()))
                .help("run `concord anchor next` again first: it says what it waits for, the hub or other officers (`concord approval list`)"),
            None => failure(format!("one anchor counts, {}, and none before it: nothing was done", present.grouped()))
                .help("`concord anchor next` brings another one"),
        });
    }
    if let Some(ending) = ending {
        let late = holders.not_under(kept, output::now())?;
        if !holders.has_register_before() {
            output.say(
                "note: the register of the anchor before is not here, so that nobody can tell who else, with a profile elsewhere, has no other \
                 certificate; bring its folder back as anchor-before to have it looked at",
            );
        }
        if !late.is_empty() && !args.anyway {
            let names: Vec<_> = late.iter().map(ToString::to_string).collect();
            let what = format!("these have no certificate under the present anchor that holds: {}", names.join(", "));
            let help = format!(
                "make them anew: {}; or end it all the same with --anyway: they are shut out then",
                renewing(&late, kind, &args.dir)
            );
            return Err(Failure::new(Exit::Refused, "CERTIFICATES_LEFT", what).help(help));
        }
        if kind == FolderKind::Hub && !args.anyway {
            refuse_if_away(&client).await?;
        }
        line.before = Some(ending.grouped());
        let (said, statement) = say_it(&client, DraftContent::EndAnchor(ending)).await?;
        line.statement = said.as_str();
        if said != Said::Accepted {
            line.tell("ended", output)?;
            match said {
                Said::Waits(missing) => approval::tell_waits(missing, &statement, output),
                _ => output.say("the node forwards it when the hub can be reached"),
            }
            output.say(
                "run the same command again once it is recorded: then nobody here goes by the one before any more",
            );
            return Ok(());
        }
    }
    // The server's certificate may have been made anew a moment ago.
    await_shown_under(&client, args, kept, output).await?;
    holders.know_by(std::slice::from_ref(kept))?;
    line.tell("ended", output)
}

/// The commands that make these certificates anew.
fn renewing(late: &[Identity], kind: FolderKind, dir: &Path) -> String {
    let (of_node, own): (Vec<_>, Vec<_>) =
        late.iter().partition(|holder| kind == FolderKind::Hub && matches!(holder.role, Role::Node | Role::Agency));
    let mut commands = Vec::new();
    if !own.is_empty() {
        commands.push(format!("`concord {kind} renew --all --dir {}`", dir.display()));
    }
    for holder in own.iter().filter(|holder| !matches!(holder.role, Role::Hub | Role::Node)) {
        commands.push(format!(
            "`concord {} renew {} --dir {}`, with --csr FILE where its holder has a new key",
            holder.role,
            holder.name,
            dir.display()
        ));
    }
    if !of_node.is_empty() {
        commands.push(format!(
            "at the secretariat's node `concord node renew --all --dir NODEDIR --anchor {}`",
            dir.join("anchor").display()
        ));
    }
    commands.join("; ")
}

/// A node that hears of nothing until the anchor before is ended knows no way to the hub any more.
async fn refuse_if_away(client: &Client) -> Result<(), Failure> {
    let mut gone = Vec::new();
    let are_here = async || {
        gone = away(client).await?;
        Ok(gone.is_empty())
    };
    // A node that a changed certificate made connect anew is back within seconds.
    if until_seen(are_here).await? {
        return Ok(());
    }
    let what =
        format!("the nodes of these are not connected, and may not know the present anchor: {}", gone.join(", "));
    Err(Failure::new(Exit::Refused, "NODES_AWAY", what).help(
        "wait until `concord status` of the secretariat shows each connected and without lag; or end it all the same with --anyway: whoever does not know the \
         present anchor then joins again with a new bundle (`concord participant bundle CODE`)",
    ))
}

async fn away(client: &Client) -> Result<Vec<String>, Failure> {
    let status = client.operations().get_status(call(GetStatusRequest {})).await?.into_inner();
    let Some(get_status_response::Role::Hub(hub)) = status.role else {
        return Err(Failure::answer("it is no hub's"));
    };
    let away = hub.health.into_iter().filter(|node| !node.connected);
    Ok(away.map(|node| output::safe(&node.participant)).collect())
}
