//! `concord verify`: walks a journal, beside its writer and without a lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use concord_journal::{Disk, RealDisk, VerifyError};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Output, facts};

/// Where hub and node keep their journal.
const JOURNAL_FOLDER: &str = "journal";

#[derive(Args)]
#[command(after_help = "Example:\n  concord verify /srv/concord/hub")]
pub(crate) struct VerifyArgs {
    /// The folder of a hub or node, its journal's folder, or a backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct VerifyLine {
    holds: bool,
    journal: String,
    entries: u64,
    first: u64,
    last: u64,
    history: String,
    digest: String,
    segments: u64,
    bytes: u64,
    /// Entries of before the first that a trim kept; absent where nothing was trimmed.
    kept_entries: Option<u64>,
    /// A commit that is being written, or was cut short: where it begins.
    unfinished: Option<UnfinishedLine>,
}

#[derive(Serialize)]
struct UnfinishedLine {
    file: String,
    offset: u64,
    bytes: u64,
}

pub(crate) fn run(args: &VerifyArgs, output: Output) -> Result<(), Failure> {
    if args.dir.is_file() {
        let line = super::backup::checked(&args.dir)?;
        return output.result(&line, || line.show());
    }
    let (folder, disk) = open(&args.dir)?;
    let verified = concord_journal::verify(disk).map_err(|error| failure(&error))?;
    let tail = verified.tail.ok_or_else(|| none(&args.dir))?;
    let line = VerifyLine {
        holds: true,
        journal: folder.display().to_string(),
        entries: verified.entries,
        first: verified.first,
        last: tail.sequence,
        history: tail.history.to_string(),
        digest: tail.digest.to_string(),
        segments: verified.segments,
        bytes: verified.bytes,
        kept_entries: verified.kept_entries,
        unfinished: verified.unfinished.map(|part| UnfinishedLine {
            file: part.file,
            offset: part.offset,
            bytes: part.bytes,
        }),
    };
    output.result(&line, || {
        let mut rows = vec![
            ("journal", line.journal.clone()),
            ("holds", format!("{} entries, {} to {}", line.entries, line.first, line.last)),
            ("size", format!("{} bytes in {} segments", line.bytes, line.segments)),
            ("history", line.history.clone()),
            ("digest", line.digest.clone()),
        ];
        if let Some(kept) = line.kept_entries {
            rows.push(("kept", format!("{kept} entries of before, without bodies")));
        }
        if let Some(part) = &line.unfinished {
            let where_it_is = format!("{} bytes of a commit in {} at byte {}", part.bytes, part.file, part.offset);
            rows.push(("unfinished", format!("{where_it_is}: being written, or cut by the next start")));
        }
        facts(&rows)
    })
}

/// The journal of a data folder or a backup, or the folder itself if it is the journal's.
pub(super) fn open(dir: &Path) -> Result<(PathBuf, Arc<dyn Disk>), Failure> {
    if dir.is_file() {
        return Ok((dir.to_owned(), concord_backup::Backup::open(dir)?.journal()));
    }
    let inside = dir.join(JOURNAL_FOLDER);
    let folder = if inside.is_dir() { inside } else { dir.to_owned() };
    let disk = RealDisk::open(&folder).map_err(|error| {
        Failure::failed("JOURNAL_UNREADABLE", format!("{} cannot be read: {error}", folder.display()))
            .help("give the folder of a hub or node")
    })?;
    Ok((folder, Arc::new(disk)))
}

/// What is said of a folder without a journal.
pub(super) fn none(dir: &Path) -> Failure {
    Failure::failed("JOURNAL_ABSENT", format!("{} holds no journal", dir.display()))
        .help("give the folder of a hub or node")
}

pub(super) fn failure(error: &VerifyError) -> Failure {
    let help = "keep the folder as it is, and restore the journal or let its peers heal it";
    match error {
        VerifyError::Damaged { .. } => {
            Failure::failed("JOURNAL_DAMAGED", format!("the journal does not hold: {error}")).help(help)
        }
        VerifyError::Disk { .. } => {
            Failure::failed("JOURNAL_UNREADABLE", error.to_string()).help("see whether you may read the folder")
        }
    }
}
