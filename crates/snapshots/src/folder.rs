//! The folder of snapshots: written beside each other, the newest used first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use concord_journal::{Journal, ReadError, Tail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file::{Form, SNAPSHOT_SIZE_MAX_BYTES, Unusable, decode, encode};

/// How many snapshots are kept, and how many broken ones beside them: if the newest is damaged, the one before it still helps.
pub const SNAPSHOTS_KEPT: usize = 2;

const SUFFIX: &str = "snapshot";
const BROKEN_SUFFIX: &str = "broken";
/// Of one that knew more than the journal: the proof stays, by its name, until a person removes it.
const LOST_SUFFIX: &str = "ahead";
const UNFINISHED_SUFFIX: &str = "writing";

/// Why a snapshot could not be written. The journal has everything: only the next start is slower.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused something.
    #[error("cannot {doing} {}: {source}; check that the disk works and has room", path.display())]
    Disk {
        /// What was attempted, as in "cannot … PATH".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The state cannot be written.
    #[error("the state cannot be written as a snapshot: {0}")]
    State(String),
}

/// The snapshots of one journal, in one folder. The folder's lock is the caller's.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
    form: Form,
    /// The last one of a clean end may come while one of the background is being written.
    writing: Arc<Mutex<()>>,
}

/// What was found for a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<S> {
    /// The newest state that the journal agrees with, and the entry after which it stood.
    pub state: Option<(S, Tail)>,
    /// A snapshot knew an entry that the journal does not have. Snapshots are made of durable entries only, so
    /// acknowledged data was lost, and the caller must raise it.
    pub lost: Option<Tail>,
}

impl Snapshots {
    /// Over this folder, which need not exist yet.
    pub fn new(folder: PathBuf, form: Form) -> Self {
        Self { folder, form, writing: Arc::default() }
    }

    /// What they hold.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Writes the state that `tail` folds to, durably, and removes what is older than the last [`SNAPSHOTS_KEPT`].
    ///
    /// Blocks. It may be killed at any point: a file has its name only once it is whole.
    pub fn write<S: Serialize>(&self, state: &S, tail: Tail) -> Result<(), SnapshotError> {
        let bytes = encode(self.form, state, tail).map_err(SnapshotError::State)?;
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(at("make the folder", &self.folder))?;
        let path = self.path(tail.sequence, SUFFIX);
        let unfinished = self.path(tail.sequence, UNFINISHED_SUFFIX);
        let written = write_file(&unfinished, &bytes).and_then(|()| {
            fs::rename(&unfinished, &path).map_err(at("rename", &unfinished))?;
            let folder = File::open(&self.folder).map_err(at("open", &self.folder))?;
            folder.sync_all().map_err(at("sync", &self.folder))
        });
        if written.is_err() {
            // On a full disk it would only take room.
            let _gone_or_left_for_the_next_time = fs::remove_file(&unfinished);
        }
        written?;
        self.prune()
    }

    /// At a clean end, so that the next start folds nothing. A failure is logged: only that start is slower.
    pub fn write_last<S: Serialize>(&self, state: &S, tail: Tail) {
        if let Err(error) = self.write(state, tail) {
            tracing::warn!(%error, "the last snapshot could not be written: the next start folds more entries");
        }
    }

    /// The newest state that was written by this program and stands in this journal. What does not is renamed, and logged.
    ///
    /// Only a journal that cannot be read is an error: without a snapshot everything is folded.
    pub fn newest<S: DeserializeOwned>(&self, journal: &dyn Journal) -> Result<Found<S>, ReadError> {
        let mut found = Found { state: None, lost: None };
        let sequences = match self.sequences(SUFFIX) {
            Ok(sequences) => sequences,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "snapshots cannot be listed: all is folded");
                return Ok(found);
            }
        };
        for sequence in sequences.into_iter().rev() {
            let path = self.path(sequence, SUFFIX);
            match self.read(&path) {
                Ok((state, tail)) => match agreement(journal, tail)? {
                    Agreement::Stands => {
                        found.state = Some((state, tail));
                        return Ok(found);
                    }
                    Agreement::Trimmed => tracing::info!(sequence, "a snapshot is older than the journal's base"),
                    Agreement::Lost => {
                        tracing::error!(path = %path.display(), %tail, "a snapshot knew an entry that the journal does not have");
                        found.lost.get_or_insert(tail);
                        self.put_aside(sequence, LOST_SUFFIX);
                    }
                },
                Err(Unused::File(Unusable::OtherVersion)) => {
                    tracing::info!(path = %path.display(), "a snapshot of another version of the program is not used");
                }
                Err(unused) => {
                    tracing::warn!(path = %path.display(), %unused, "a snapshot cannot be used and is put aside");
                    self.put_aside(sequence, BROKEN_SUFFIX);
                }
            }
        }
        Ok(found)
    }

    /// The newest file that an earlier start put aside because it knew an entry which the journal did not have.
    pub fn proof_of_loss(&self) -> Option<PathBuf> {
        let newest = self.sequences(LOST_SUFFIX).ok()?.pop()?;
        Some(self.path(newest, LOST_SUFFIX))
    }

    fn read<S: DeserializeOwned>(&self, path: &Path) -> Result<(S, Tail), Unused> {
        let file = File::open(path)?;
        if file.metadata()?.len() > SNAPSHOT_SIZE_MAX_BYTES {
            return Err(Unused::File(Unusable::Damaged("it is larger than any snapshot")));
        }
        let mut bytes = Vec::new();
        file.take(SNAPSHOT_SIZE_MAX_BYTES).read_to_end(&mut bytes)?;
        decode(self.form, &bytes).map_err(Unused::File)
    }

    /// Kept for whoever looks into it, but never tried again.
    fn put_aside(&self, sequence: u64, suffix: &str) {
        let (path, aside) = (self.path(sequence, SUFFIX), self.path(sequence, suffix));
        if let Err(error) = fs::rename(&path, &aside) {
            tracing::warn!(path = %path.display(), %error, "a snapshot that cannot be used could not be renamed");
        }
    }

    fn prune(&self) -> Result<(), SnapshotError> {
        let kept = [SUFFIX, BROKEN_SUFFIX, LOST_SUFFIX].map(|suffix| (suffix, SNAPSHOTS_KEPT));
        for (suffix, kept) in kept.into_iter().chain([(UNFINISHED_SUFFIX, 0)]) {
            let sequences = self.sequences(suffix).map_err(at("list", &self.folder))?;
            for sequence in sequences.iter().rev().skip(kept) {
                let path = self.path(*sequence, suffix);
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The sequences of the files with this suffix, ascending.
    fn sequences(&self, suffix: &str) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut sequences = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(suffix)?.strip_suffix('.'));
            sequences.extend(name.and_then(|sequence| sequence.parse::<u64>().ok()));
        }
        sequences.sort_unstable();
        Ok(sequences)
    }

    fn path(&self, sequence: u64, suffix: &str) -> PathBuf {
        self.folder.join(format!("{sequence:020}.{suffix}"))
    }
}

#[derive(Debug, thiserror::Error)]
enum Unused {
    #[error("{0}")]
    File(Unusable),
    #[error(transparent)]
    Disk(#[from] io::Error),
}

enum Agreement {
    Stands,
    Trimmed,
    Lost,
}

fn agreement(journal: &dyn Journal, tail: Tail) -> Result<Agreement, ReadError> {
    if tail.sequence < journal.first_sequence() {
        return Ok(Agreement::Trimmed);
    }
    if tail.sequence > journal.tail().sequence {
        return Ok(Agreement::Lost);
    }
    let entry = journal.read(tail.sequence, 1)?.into_iter().next();
    let stands = entry.is_some_and(|entry| entry.tail() == tail || concord_faults::planted("take-any-snapshot"));
    Ok(if stands { Agreement::Stands } else { Agreement::Lost })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let mut options = OpenOptions::new();
    // It says who agreed with whom: as private as the journal's folder.
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path).map_err(at("make", path))?;
    file.write_all(bytes).map_err(at("write", path))?;
    file.sync_all().map_err(at("sync", path))
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_path_buf();
    move |source| SnapshotError::Disk { doing, path, source }
}
