//! Putting a journal into a data folder whose old one is moved aside and never deleted.
//!
//! Invariant: at every moment the folder has the old journal whole under its name, or the new one whole under its name, or the
//! new one whole in the staging folder, whose presence keeps hub and node from serving.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::file::{Backup, Checked};
use crate::manifest::FileEntry;
use crate::{BackupError, disk};

/// The journal's folder in a data folder.
pub const JOURNAL_FOLDER: &str = "journal";
/// Where a journal is made before it takes its place.
pub const RESTORING_FOLDER: &str = "journal.restoring";
/// How the folder begins that what stood there before is moved to.
pub const ASIDE_PREFIX: &str = "before-restore-";
/// What does not go with another journal: it is derived from the one that is moved aside.
const MOVED_ASIDE: &[&str] = &[JOURNAL_FOLDER, "views", "snapshots"];
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A journal that stands in the staging folder.
#[derive(Debug)]
pub struct Staged {
    /// The staging folder: open the journal there, and close it again before it is put in place.
    pub journal: PathBuf,
}

/// Makes an empty staging folder; what an interrupted attempt left there goes, since it was made from what is still there.
pub fn staging_folder(folder: &Path) -> Result<Staged, BackupError> {
    let journal = folder.join(RESTORING_FOLDER);
    if journal.exists() {
        fs::remove_dir_all(&journal).map_err(disk("remove", &journal))?;
    }
    DirBuilder::new().mode(FOLDER_MODE).create(&journal).map_err(disk("make the folder", &journal))?;
    sync(folder)?;
    Ok(Staged { journal })
}

/// Writes the public files of a checked backup where the data folder lacks them; what is there stays as it is.
pub fn lay_public_files(backup: &Backup, _checked: &Checked, folder: &Path) -> Result<(), BackupError> {
    for entry in &backup.manifest().files {
        let (at, name) = match entry.path.split_once('/') {
            Some((JOURNAL_FOLDER, _)) => continue,
            Some((within, name)) => (folder.join(within), name),
            None => (folder.to_owned(), entry.path.as_str()),
        };
        if !at.join(name).exists() {
            write(backup, entry, &at, name)?;
        }
    }
    sync(folder)
}

/// Writes the journal of a checked backup into the staging folder; durable when this returns.
pub fn stage(backup: &Backup, _checked: &Checked, folder: &Path) -> Result<Staged, BackupError> {
    let staged = staging_folder(folder)?;
    for entry in &backup.manifest().files {
        if let Some((JOURNAL_FOLDER, name)) = entry.path.split_once('/') {
            write(backup, entry, &staged.journal, name)?;
        }
    }
    sync(folder)?;
    concord_faults::point("restore.staged");
    Ok(staged)
}

/// Writes a file under another name until it is whole: one that has its name is never looked at again.
fn write(backup: &Backup, entry: &FileEntry, folder: &Path, name: &str) -> Result<(), BackupError> {
    if !folder.exists() {
        DirBuilder::new().mode(FOLDER_MODE).create(folder).map_err(disk("make the folder", folder))?;
    }
    let temporary = folder.join(format!("{name}.part"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut file = options.open(&temporary).map_err(disk("write", &temporary))?;
    backup.copy(entry, |bytes| file.write_all(bytes).map_err(disk("write", &temporary)))?;
    file.sync_all().map_err(disk("sync", &temporary))?;
    fs::rename(&temporary, folder.join(name)).map_err(disk("rename", &temporary))?;
    sync(folder)
}

/// Moves what is there aside and the staged journal to its place; durable when this returns. Returns where the old one is now,
/// if there was one. `label` tells attempts apart, such as the time.
pub fn put_in_place(folder: &Path, staged: Staged, label: &str) -> Result<Option<PathBuf>, BackupError> {
    let mut aside = folder.join(format!("{ASIDE_PREFIX}{label}"));
    let mut number = 1;
    while aside.exists() {
        number += 1;
        aside = folder.join(format!("{ASIDE_PREFIX}{label}-{number}"));
    }
    let there: Vec<&str> = MOVED_ASIDE.iter().copied().filter(|name| folder.join(name).exists()).collect();
    if !there.is_empty() {
        DirBuilder::new().mode(FOLDER_MODE).create(&aside).map_err(disk("make the folder", &aside))?;
    }
    // The journal last: what is derived from it must not outlive it under its name.
    for name in there.iter().rev() {
        let from = folder.join(name);
        fs::rename(&from, aside.join(name)).map_err(disk("move aside", &from))?;
    }
    if !there.is_empty() {
        sync(&aside)?;
    }
    sync(folder)?;
    concord_faults::point("restore.moved-aside");
    let journal = folder.join(JOURNAL_FOLDER);
    fs::rename(&staged.journal, &journal).map_err(disk("put in place", &staged.journal))?;
    sync(folder)?;
    concord_faults::point("restore.placed");
    Ok(there.contains(&JOURNAL_FOLDER).then_some(aside))
}

fn sync(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk("sync", folder))
}
