//! `concord anchor next` and `concord anchor end`: one anchor of a server's participant follows another, with both for a while.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use concord_identity::{Anchor, read_text};
use concord_model::Fingerprint;
use concord_server::holders::{Holders, HoldersError};
use concord_server::{CERTIFICATE_CHECK_MILLISECONDS, FolderKind};
use concord_wire::agreement::{DraftContent, keys};
use serde::Serialize;

use super::super::approval;
use super::super::certificates::holders;
use super::super::compare::ask_for;
use super::super::rotate::{Own, connect, hub_of, signing_keys};
use super::super::statement::{Said, say_it};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::hint::{self, Line};
use crate::output::{self, Output, facts};

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
    /// The profile of the officer who says so; where none is named, DIR/officer.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct EndArgs {
    /// The node's or hub's folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// End it also where somebody here has no certificate under the present one yet: they are shut out.
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
    let given = given(args, &holders, output)?;
    let client = connect(&holders, &args.dir, args.profile.as_deref()).await?;
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
        let (said, statement) = say_it(&client, DraftContent::SucceedAnchor(message)).await?;
        if said != Said::Accepted {
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

/// A server looks at its files once a second.
async fn until_it_looked() {
    tokio::time::sleep(Duration::from_millis(2 * CERTIFICATE_CHECK_MILLISECONDS)).await;
}

/// By what this folder's people are known; where the folder does not say it, since the anchor's was taken away, the officer's profile does.
fn known(holders: &Holders, client: &Client) -> Result<Vec<Anchor>, Failure> {
    let known = holders.anchors()?;
    Ok(if known.is_empty() { client.profile().server_anchors().to_vec() } else { known })
}

fn tell_renewing(args: &NextArgs, kind: FolderKind, output: Output) {
    let whose = match kind {
        FolderKind::Node => "",
        FolderKind::Hub => ", and each node has heard of it (`concord status --profile` of the secretariat: no lag)",
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
    let client = connect(&holders, &args.dir, args.profile.as_deref()).await?;
    let own = Own::of(&client, &holders, kind).await?;
    let anchors = known(&holders, &client)?;
    let present = own.anchor()?;
    let Some(kept) = anchors.iter().find(|anchor| anchor.fingerprint() == present) else {
        let what = format!("this folder does not go by the anchor that the registry has, {}", present.grouped());
        return Err(Failure::failed("ANCHOR_OTHER", what)
            .help("run `concord anchor next` once more: it ends what was cut short"));
    };
    let mut line = SuccessionLine {
        participant: own.participant.to_string(),
        anchor: present.grouped(),
        before: None,
        statement: Said::Accepted.as_str(),
    };
    if let Some(ending) = own.ending_anchor()? {
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
            return Err(Failure::new(Exit::Refused, "CERTIFICATES_LEFT", what).help(
                "make them anew (`renew --all`; `officer renew NAME`, `operator renew NAME` or `agency renew NAME`, each with --csr where its holder has \
                 a new key), or end it all the same with --anyway: they are shut out then",
            ));
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
    // The server's certificate may have been made anew a moment ago: whoever knows the present anchor alone would refuse the one before.
    until_it_looked().await;
    holders.know_by(std::slice::from_ref(kept))?;
    line.tell("ended", output)
}
