//! What `node install-cert` and `hub install-cert` have in common. The first anchor of a folder comes in a file: it is compared with what is
//! known where the anchor is kept, before anything is installed.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use concord_identity::{Anchor, read_text};
use concord_model::Fingerprint;
use concord_server::holders::{Holders, Installed};
use serde::Serialize;

use super::certificates::CertificateLine;
use super::compare::ask_for;
use crate::exit::Failure;
use crate::output::{Output, facts, table};

#[derive(Args)]
pub(crate) struct InstallArgs {
    /// The certificates (PEM).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The certificate of the CA that signed them, where the file does not have it.
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// The server's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The anchor's fingerprint as `concord anchor` shows it where the anchor is kept, grouped or not; needed once, where this folder goes
    /// by no anchor yet and there is no terminal to ask.
    #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::parse)]
    fingerprint: Option<Fingerprint>,
}

impl InstallArgs {
    /// The certificates, and what was said of the anchor that would come with them.
    pub(crate) fn read(&self, holders: &Holders, output: Output) -> Result<(String, Option<Fingerprint>), Failure> {
        let text = read_text(&self.file)?;
        let comes = holders.anchor_to_come(&text, self.anchor.as_deref())?;
        let said = self.said(comes.as_ref(), output)?;
        Ok((text, said))
    }

    /// What was said of the anchor that would come: by the option, or on a terminal.
    fn said(&self, comes: Option<&Anchor>, output: Output) -> Result<Option<Fingerprint>, Failure> {
        let (None, Some(anchor)) = (self.fingerprint, comes) else { return Ok(self.fingerprint) };
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let question = "Type the anchor's fingerprint, or its first four groups, as it is known where the anchor is kept (`concord anchor sign` shows it there):";
        ask_for("the anchor", question, anchor.fingerprint(), output)?;
        Ok(Some(anchor.fingerprint()))
    }
}

#[derive(Serialize)]
struct InstalledLine {
    installed: Vec<CertificateLine>,
    missing: Vec<String>,
    anchor: String,
}

/// Tells what was put in, and by what it is under.
pub(crate) fn tell_installed(installed: &Installed, output: Output) -> Result<(), Failure> {
    let line = InstalledLine {
        installed: installed.certificates.iter().map(|one| CertificateLine::of(one, None)).collect(),
        missing: installed.missing.iter().map(ToString::to_string).collect(),
        anchor: installed.anchor.fingerprint().grouped(),
    };
    output.result(&line, || {
        let rows = line.installed.iter().map(|one| vec![one.name.clone(), one.not_after.clone()]);
        let missing = if line.missing.is_empty() { "none".to_owned() } else { line.missing.join(", ") };
        let rest = facts(&[("anchor", line.anchor.clone()), ("missing", missing)]);
        format!("{}{rest}", table(&["installed", "valid until"], rows))
    })
}

/// Tells the next step where some have yet to come.
pub(crate) fn tell_missing(installed: &Installed, output: Output) {
    if !installed.missing.is_empty() {
        output.say("next: have the missing ones signed from the same file of requests, and run this again");
    }
}
