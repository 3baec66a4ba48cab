//! `concord node restore` and `concord node rebuild`: a journal takes its place in a folder that has the node's keys.
//!
//! Invariant: a restored node never goes on in the history of its backup: by the new one the hub tells it from a second copy.

use std::path::{Path, PathBuf};

use concord_backup::{Backup, BackupError, Owner, refuse_if_holds, refuse_if_interrupted};
use concord_identity::{Anchor, Credentials, SigningKeys, read_text};
use concord_journal::{HistoryId, Journal as _, SEGMENT_SIZE_DEFAULT_BYTES, Tail};
use concord_model::{Identity, Role, Timestamp};
use concord_server::audit::{Audit, Event, Object};
use concord_server::{Clock as _, Folder, FolderKind, SystemClock, fresh};
use concord_wire::stored::node as stored;
use futures::executor::block_on;

use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::folders::Paths;
use crate::join::check_bundle;
use crate::open::{append, fold, open_journal, snapshots};
use crate::serve::check_founded;

/// What was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The tail of the backup, parent of the history that began; none where the journal was made anew.
    pub parent: Option<Tail>,
    /// When the backup was taken: what was done later is not in it.
    pub taken_at: Option<Timestamp>,
    /// The tail of the journal that is in place now.
    pub tail: Tail,
    /// Where the journal is that was there before.
    pub aside: Option<PathBuf>,
    /// Agencies that have a profile and are to be let in again, since who may do what stood in the journal.
    pub agencies: Vec<String>,
}

/// Puts the journal of a backup in place and begins a new history. The node must not run; its keys must be there.
pub fn restore(file: &Path, dir: &Path) -> Result<Restored, NodeError> {
    let backup = Backup::open(file)?;
    let of_another = |what: String| BackupError::OfAnother { folder: dir.to_owned(), what };
    let manifest = backup.manifest();
    if manifest.owner != Owner::Node {
        return Err(of_another(format!("it is of a {}", manifest.owner)).into());
    }
    let signing_keys = keys(dir)?;
    if !signing_keys.held().iter().any(|key| manifest.key() == Some(key.public().bytes)) {
        let what = format!(
            "it is of {}'s node and was signed with a key that signing/key.pem does not have",
            manifest.participant
        );
        return Err(of_another(what).into());
    }
    let checked = backup.check()?;
    concord_backup::lay_public_files(&backup, &checked, dir)?;
    let folder = Folder::open(dir, FolderKind::Node)?;
    let _lock = folder.lock()?;
    let config = NodeConfig::load(dir)?;
    check_certificate(dir, &config)?;

    let staged = concord_backup::stage(&backup, &checked, dir)?;
    let now = SystemClock.now();
    let (journal, _) = open_journal(&staged.journal, &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
    check_founded(
        &fold(&snapshots(staged.journal.join("snapshots")), journal.as_ref())?.state,
        &config.participant,
        &config.name,
    )?;
    let parent = journal.tail();
    let last = journal.head(parent.sequence)?.recorded_at;
    let at = Timestamp::from_micros(now.as_micros().max(last));
    block_on(journal.begin_history(parent, HistoryId(fresh()?), at.as_micros()))?;
    append(&journal, stored::restored(stored::Restored::FromBackup(manifest.taken_at()), at))?;
    let tail = journal.tail();
    journal.close();
    let aside = concord_backup::put_in_place(dir, staged, &label(now))?;
    note(dir, &Event::local("restore", Object::history(tail.history)));
    Ok(Restored { parent: Some(parent), taken_at: Some(manifest.taken_at()), tail, aside, agencies: Vec::new() })
}

/// Declares that the journal that is there is an older copy: it goes on in a new history, and fetches back what the hub has. The node
/// must not run. A repeat only begins one more history.
pub fn declare(dir: &Path) -> Result<Restored, NodeError> {
    keys(dir)?;
    let folder = Folder::open(dir, FolderKind::Node)?;
    let _lock = folder.lock()?;
    refuse_if_interrupted(dir)?;
    let config = NodeConfig::load(dir)?;
    check_certificate(dir, &config)?;
    let paths = Paths::of(dir);
    let (journal, _) = open_journal(&paths.journal(), &SystemClock, config.journal_segment_size_bytes)?;
    check_founded(&fold(&snapshots(paths.snapshots()), journal.as_ref())?.state, &config.participant, &config.name)?;
    let parent = journal.tail();
    let last = last_done(journal.as_ref())?;
    let at = SystemClock.now().max(last);
    block_on(journal.begin_history(parent, HistoryId(fresh()?), at.as_micros()))?;
    concord_faults::point("restore.declared");
    append(&journal, stored::restored(stored::Restored::Declared(last), at))?;
    let tail = journal.tail();
    journal.close();
    note(dir, &Event::local("restore --here", Object::history(tail.history)));
    Ok(Restored { parent: Some(parent), taken_at: Some(last), tail, aside: None, agencies: Vec::new() })
}

/// When the copy was last at work: what came later is only that it was started, and refused.
fn last_done(journal: &dyn concord_journal::Journal) -> Result<Timestamp, NodeError> {
    let mut sequence = journal.tail().sequence;
    loop {
        let entries = journal.read(sequence, 1)?;
        let Some(entry) = entries.first() else { return Ok(Timestamp::default()) };
        let is_start = matches!(
            stored::read(entry)?,
            stored::NodeEntry::HistoryBegun(_)
                | stored::NodeEntry::RunBegun(_)
                | stored::NodeEntry::Fenced(_)
                | stored::NodeEntry::Restored(_)
        );
        if !is_start || sequence == journal.first_sequence() {
            return Ok(Timestamp::from_micros(entry.recorded_at));
        }
        sequence -= 1;
    }
}

/// Makes the journal of a node anew whose journal is lost and whose keys and bundle are there. Refuses where a journal is there
/// and holds.
pub fn rebuild(dir: &Path) -> Result<Restored, NodeError> {
    let signing_keys = keys(dir)?;
    let folder = Folder::open(dir, FolderKind::Node)?;
    let _lock = folder.lock()?;
    let config = NodeConfig::load(dir)?;
    check_certificate(dir, &config)?;
    let paths = Paths::of(dir);
    refuse_if_holds(dir)?;
    let anchors = Anchor::several_from_pem(&read_text(&paths.tls_anchor())?)?;
    let paper = check_bundle(&read_text(&paths.hub())?, &config, &anchors, &signing_keys)?;

    let now = SystemClock.now();
    let staged = concord_backup::staging_folder(dir)?;
    let (journal, _) = open_journal(&staged.journal, &SystemClock, SEGMENT_SIZE_DEFAULT_BYTES)?;
    append(&journal, stored::founded(&config.participant, &config.name, now))?;
    append(&journal, stored::joined(paper.bundle, now))?;
    append(&journal, stored::restored(stored::Restored::Rebuilt, now))?;
    let tail = journal.tail();
    journal.close();
    let aside = concord_backup::put_in_place(dir, staged, &label(now))?;
    note(dir, &Event::local("rebuild", Object::history(tail.history)));
    Ok(Restored { parent: None, taken_at: None, tail, aside, agencies: profiles(&dir.join("agencies")) })
}

/// Notes what was done while no node runs here; it is done also where it could not be noted.
pub(crate) fn note(dir: &Path, event: &Event) {
    if let Err(error) = Audit::write_stopped(dir, event) {
        tracing::warn!(%error, what = event.method, "the audit log could not be written");
    }
}

/// The keys that no backup holds have to be there before anything is changed.
fn keys(dir: &Path) -> Result<SigningKeys, NodeError> {
    let paths = Paths::of(dir);
    if let Some(path) = [paths.tls_key(), paths.signing_key()].into_iter().find(|path| !path.exists()) {
        return Err(BackupError::KeyAbsent { path }.into());
    }
    Ok(SigningKeys::load(&paths.signing_key())?)
}

fn check_certificate(dir: &Path, config: &NodeConfig) -> Result<(), NodeError> {
    let paths = Paths::of(dir);
    let caller = Credentials::load(&paths.tls_certificate(), &paths.tls_key())?.caller()?;
    let expected = Identity { participant: config.participant.clone(), role: Role::Node, name: config.name.clone() };
    if caller.identity != expected {
        let what = format!("node.toml is for {expected}, the certificate in tls/ for {}", caller.identity);
        return Err(NodeError::Mismatch(what));
    }
    Ok(())
}

/// The names of the profiles that are there, sorted.
fn profiles(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Names where the old journal goes: the time, in whole seconds.
fn label(now: Timestamp) -> String {
    (now.as_micros() / 1_000_000).to_string()
}
