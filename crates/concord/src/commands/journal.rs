//! `concord journal`: entries in words; titles and bodies only where they are asked for.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use concord_journal::Entry;
use serde::Serialize;

use super::journal_words::{Words, words};
use super::secretariat::Agreed;
use super::verify;
use crate::exit::Failure;
use crate::output::{self, Output};

#[derive(Subcommand)]
pub(crate) enum JournalCommand {
    /// Print the entries of a hub's or node's journal.
    Show(ShowArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  concord journal show /srv/concord/hub --from 12")]
pub(crate) struct ShowArgs {
    /// The folder of a hub or node, its journal's folder, or a backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Begin with this entry.
    #[arg(long, default_value_t = 1, value_name = "N")]
    from: u64,
    /// Show titles and bodies too. At a hub only of exchanges whose agreement says that the secretariat reads.
    #[arg(long)]
    bodies: bool,
}

#[derive(Serialize)]
struct EntryLine {
    sequence: u64,
    recorded_at: String,
    kind: &'static str,
    digest: String,
    previous: String,
    blobs: usize,
    #[serde(flatten)]
    words: Words,
}

pub(crate) fn run(command: &JournalCommand, output: Output) -> Result<(), Failure> {
    let JournalCommand::Show(args) = command;
    let (_, disk) = verify::open(&args.dir)?;
    let walk = concord_journal::walk(disk, args.bodies).map_err(|error| verify::failure(&error))?;
    let (mut last, mut agreed) = (0, Agreed::default());
    // Every entry is verified on the way, also those that are not shown.
    for entry in walk {
        let entry = entry.map_err(|error| verify::failure(&error))?;
        last = entry.sequence;
        if args.bodies {
            agreed.learn(&entry);
        }
        if entry.sequence >= args.from {
            show(&entry, args.bodies.then_some(&agreed), output)?;
        }
    }
    match last {
        0 => Err(verify::none(&args.dir)),
        last if args.from > last => {
            output.say(&format!("the journal ends with entry {last}"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn show(entry: &Entry, with_content: Option<&Agreed>, output: Output) -> Result<(), Failure> {
    let (kind, words) =
        words(entry, with_content).map_err(|error| Failure::failed("ENTRY_UNKNOWN", error.to_string()))?;
    let line = EntryLine {
        sequence: entry.sequence,
        recorded_at: output::time(concord_model::Timestamp::from_micros(entry.recorded_at)),
        kind,
        digest: entry.digest.to_string(),
        previous: entry.previous.to_string(),
        blobs: entry.commitments.len(),
        words,
    };
    output.result(&line, || {
        let digest = line.digest.get(..8).unwrap_or_default();
        let at = output::short_time(Some(&line.recorded_at));
        let mut text = format!("{:>6}  {at}  {digest}  {kind:<13}  {}", line.sequence, output::safe(&line.words.about));
        for content in line.words.content.iter().flatten() {
            text.push_str(&format!("\n        {}", content.shown()));
        }
        text
    })
}
