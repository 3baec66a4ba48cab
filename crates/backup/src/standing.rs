//! How a data folder's journal stands: whether it is served from, made anew, or neither.
//!
//! Invariant: a journal that holds is never made anew, and nobody serves from a folder in which another one is taking its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_journal::RealDisk;

use crate::Owner;
use crate::place::{JOURNAL_FOLDER, RESTORING_FOLDER};

/// Why a data folder is not served from, or its journal not made anew; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// A restore was begun and did not end.
    #[error("a restore of {} was interrupted; run it again, or remove {} to go on with what was there before", .folder.display(), .staging.display())]
    Interrupted {
        /// The data folder.
        folder: PathBuf,
        /// What the restore was making.
        staging: PathBuf,
    },
    /// There is no journal, or none that began: it was lost, or the setting up did not end.
    #[error(
        "{} holds no journal of this {owner}: it was lost, or `concord {owner} init` did not end. Put it back from a backup (`concord {owner} \
         restore`), or make it anew from keys and papers (`concord {owner} {anew}`); where nothing was set up yet, remove the folder and run init again",
        .path.display(),
        anew = made_anew_by(*.owner)
    )]
    Absent {
        /// Whose it would be.
        owner: Owner,
        /// The journal's folder.
        path: PathBuf,
    },
    /// The journal holds: there is nothing to make anew.
    #[error("the journal in {} holds; only a lost one is made anew: move it away first if it must go", .path.display())]
    Holds {
        /// The journal's folder.
        path: PathBuf,
    },
}

fn made_anew_by(owner: Owner) -> &'static str {
    match owner {
        Owner::Hub => "refound",
        Owner::Node => "rebuild",
    }
}

/// A folder in which a restore did not end has its journal under another name, or is about to get another one.
pub fn refuse_if_interrupted(folder: &Path) -> Result<(), StandingError> {
    let staging = folder.join(RESTORING_FOLDER);
    if staging.exists() {
        return Err(StandingError::Interrupted { folder: folder.to_owned(), staging });
    }
    Ok(())
}

/// Whoever makes a journal anew asks this first.
pub fn refuse_if_holds(folder: &Path) -> Result<(), StandingError> {
    let path = folder.join(JOURNAL_FOLDER);
    let Ok(disk) = RealDisk::open(&path) else { return Ok(()) };
    match concord_journal::verify(Arc::new(disk)) {
        // One entry that begins a history is what was made in the place of a lost one.
        Ok(verified) if verified.entries > 1 || verified.kept_entries.is_some() => Err(StandingError::Holds { path }),
        _ => Ok(()),
    }
}
