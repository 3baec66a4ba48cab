//! `concord hub restore` and `concord hub refound`: a journal takes its place in a folder that has the hub's keys.
//!
//! Invariant: a restored hub never goes on in the history of its backup, since its nodes may know what came later in it.

use std::path::{Path, PathBuf};

use concord_backup::{Backup, BackupError, Owner, Staged, refuse_if_holds};
use concord_identity::{Credentials, SigningKeys};
use concord_journal::{FileJournal, HistoryId, Journal as _, SEGMENT_SIZE_DEFAULT_BYTES, Tail};
use concord_ledger::Ledger;
use concord_model::Timestamp;
use concord_server::audit::{Audit, Event, Object};
use concord_server::holders::HoldersError;
use concord_server::{Clock as _, Folder, FolderKind, SystemClock};
use futures::executor::block_on;

use crate::config::Config;
use crate::error::HubError;
use crate::init::{files, found_journal, founding, of_name, open_journal, random};
use crate::seed::Seed;
use crate::serve::check_owner;
use crate::snapshot;

/// What was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The tail of the backup, parent of the history that began; none where the journal was made anew.
    pub parent: Option<Tail>,
    /// When the backup was taken: what was recorded later, the nodes hand in again.
    pub taken_at: Option<Timestamp>,
    /// The tail of the journal that is in place now.
    pub tail: Tail,
    /// Where the journal is that was there before.
    pub aside: Option<PathBuf>,
}

/// Puts the journal of a backup in place and begins a new history. The hub must not run; its keys must be there.
pub fn restore(file: &Path, dir: &Path) -> Result<Restored, HubError> {
    let backup = Backup::open(file)?;
    let of_another = |what: String| BackupError::OfAnother { folder: dir.to_owned(), what };
    let manifest = backup.manifest();
    if manifest.owner != Owner::Hub {
        return Err(of_another(format!("it is of a {}", manifest.owner)).into());
    }
    let signing_keys = keys(dir)?;
    if !signing_keys.held().iter().any(|key| manifest.key() == Some(key.public().bytes)) {
        return Err(of_another("it was signed with a key that signing/key.pem does not have".to_owned()).into());
    }
    let checked = backup.check()?;
    concord_backup::lay_public_files(&backup, &checked, dir)?;
    let folder = Folder::open(dir, FolderKind::Hub)?;
    let _lock = folder.lock()?;
    let config = Config::load(dir)?;

    let staged = concord_backup::stage(&backup, &checked, dir)?;
    let now = SystemClock.now();
    let (journal, _) = open_journal(&staged.journal, now, SEGMENT_SIZE_DEFAULT_BYTES)?;
    check_owner(
        &folded(&journal, &staged.journal)?,
        &config,
        &credentials(dir)?.caller()?,
        &signing_keys,
        &staged.journal,
    )?;
    let parent = journal.tail();
    let last = journal.head(parent.sequence)?.recorded_at;
    let tail = if concord_faults::planted("restore-in-the-old-history") {
        parent
    } else {
        let begun = journal.begin_history(parent, HistoryId(random()?), now.as_micros().max(last));
        block_on(begun)?.tail
    };
    journal.close();
    let aside = concord_backup::put_in_place(dir, staged, &label(now))?;
    note(dir, "restore", tail.history);
    Ok(Restored { parent: Some(parent), taken_at: Some(manifest.taken_at()), tail, aside })
}

/// Makes the journal of a hub anew whose journal is lost and whose keys are there: participants are enrolled again, and their
/// nodes hand in the rest. Refuses where a journal is there and holds.
pub fn refound(dir: &Path, seed: Seed) -> Result<Restored, HubError> {
    let signing_keys = keys(dir)?;
    let folder = Folder::open(dir, FolderKind::Hub)?;
    let _lock = folder.lock()?;
    let config = Config::load(dir)?;
    refuse_if_holds(dir)?;
    let anchor = of_name(dir, &config.name).anchor()?.ok_or(HoldersError::AnchorUnknown)?;
    let now = SystemClock.now();
    let founding = founding(&config, &anchor, signing_keys.first(), seed);
    let staged: Staged = concord_backup::staging_folder(dir)?;
    found_journal(&staged.journal, &founding, now)?;
    let (journal, _) = open_journal(&staged.journal, now, SEGMENT_SIZE_DEFAULT_BYTES)?;
    check_owner(
        &folded(&journal, &staged.journal)?,
        &config,
        &credentials(dir)?.caller()?,
        &signing_keys,
        &staged.journal,
    )?;
    let tail = journal.tail();
    journal.close();
    let aside = concord_backup::put_in_place(dir, staged, &label(now))?;
    note(dir, "refound", tail.history);
    Ok(Restored { parent: None, taken_at: None, tail, aside })
}

/// What was done is done, also where it could not be noted.
fn note(dir: &Path, what: &'static str, history: HistoryId) {
    if let Err(error) = Audit::write_stopped(dir, &Event::local(what, Object::history(history))) {
        tracing::warn!(%error, what, "the audit log could not be written");
    }
}

/// All of it: no snapshot stands beside a journal that has no place yet.
fn folded(journal: &FileJournal, staging: &Path) -> Result<Ledger, HubError> {
    Ok(snapshot::restore(&snapshot::in_folder(staging), journal)?.state)
}

/// The keys that no backup holds have to be there before anything is changed.
fn keys(dir: &Path) -> Result<SigningKeys, HubError> {
    if let Some(absent) = files::KEYS.iter().map(|key| dir.join(key)).find(|path| !path.exists()) {
        return Err(BackupError::KeyAbsent { path: absent }.into());
    }
    Ok(SigningKeys::load(&dir.join(files::SIGNING_KEY))?)
}

fn credentials(dir: &Path) -> Result<Credentials, HubError> {
    Ok(Credentials::load(&dir.join(files::TLS_CERTIFICATE), &dir.join(files::TLS_KEY))?)
}

/// Names where the old journal goes: the time, in whole seconds.
fn label(now: Timestamp) -> String {
    (now.as_micros() / 1_000_000).to_string()
}
