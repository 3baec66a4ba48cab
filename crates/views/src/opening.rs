//! Opening: resume where the folder agrees with the journal, and in every other case start anew.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use concord_journal::{Digest, Journal, ReadError, Tail};

use crate::{
    ViewsError,
    aside::{Aside, at, beside, move_aside},
    groups::Groups,
    store::{OpenFailure, Store},
    views::Written,
    watermark::Watermark,
};

/// How views were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There were none, or nothing had been applied to them.
    Fresh,
    /// They agree with the journal up to here.
    Resumed {
        /// Their watermark.
        at: Tail,
    },
    /// What was there could not be used; these are new and empty.
    Rebuilding {
        /// Why.
        because: Reason,
        /// Where the old folder is now.
        moved_to: Option<PathBuf>,
    },
}

impl Opened {
    /// Whether the views had applied an entry that the journal no longer has: entries are applied only after they
    /// are durable, so acknowledged data was lost. The caller must raise an alarm.
    #[must_use]
    pub fn shows_lost_entries(&self) -> bool {
        matches!(self, Opened::Rebuilding { because, .. } if because.shows_lost_entries())
    }
}

/// Why views are rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The folder is damaged, or its last opening did not end; with what was found.
    Unopenable(String),
    /// They were written by another version of the projection.
    OtherVersion {
        /// The version that wrote them.
        found: u32,
    },
    /// They stand at an entry that the journal was trimmed of: an older copy of them was put back, or their end was lost.
    BeforeBase {
        /// Where the views stood.
        watermark: Tail,
    },
    /// The journal has another entry where the watermark stands.
    Disagrees {
        /// Where the views stood.
        watermark: Tail,
        /// The digest of the journal's entry at that sequence.
        journal_digest: Digest,
    },
    /// The watermark stands beyond the end of the journal.
    WatermarkAhead {
        /// Where the views stood.
        watermark: Tail,
        /// Where the journal ends.
        journal: Tail,
    },
}

impl Reason {
    fn shows_lost_entries(&self) -> bool {
        matches!(self, Reason::WatermarkAhead { .. } | Reason::Disagrees { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unopenable(what) => write!(formatter, "the views could not be opened: {what}"),
            Reason::OtherVersion { found } => {
                write!(formatter, "the views were written by version {found} of the projection")
            }
            Reason::BeforeBase { watermark } => {
                write!(formatter, "the views stand at entry {}, of which the journal was trimmed", watermark.sequence)
            }
            Reason::Disagrees { watermark, .. } => write!(
                formatter,
                "the views had applied another entry {} than the journal has: acknowledged data was lost",
                watermark.sequence
            ),
            Reason::WatermarkAhead { watermark, journal } => write!(
                formatter,
                "the views had applied entry {} but the journal ends at {}: acknowledged data was lost",
                watermark.sequence, journal.sequence
            ),
        }
    }
}

/// What an opening leaves in hand.
pub(crate) struct Found {
    pub(crate) store: Store,
    pub(crate) written: Written,
    pub(crate) opened: Opened,
    pub(crate) lock: File,
}

pub(crate) fn open(
    folder: &Path,
    projection_version: u32,
    journal: &dyn Journal,
    checked_rows_max: u64,
) -> Result<Found, ViewsError> {
    let lock = lock(folder)?;
    concord_faults::point("views.open.begin");
    let because = if is_missing(folder)? {
        None
    } else {
        match Store::open(folder, checked_rows_max) {
            Ok((store, (watermark, groups))) => match judge(&watermark, projection_version, journal)? {
                None => {
                    let opened = watermark.applied().map_or(Opened::Fresh, |at| Opened::Resumed { at });
                    return Ok(Found { store, written: Written { watermark, groups }, opened, lock });
                }
                // The store closes here, before its folder is moved: sled writes by path.
                because => because,
            },
            Err(OpenFailure::Unusable(what)) => Some(Reason::Unopenable(what)),
            Err(OpenFailure::Error(error)) => return Err(error),
        }
    };
    let opened = match because {
        None => Opened::Fresh,
        Some(because) => {
            concord_faults::point("views.aside.before");
            let why = if because.shows_lost_entries() { Aside::Ahead } else { Aside::Broken };
            let moved_to = Some(move_aside(folder, why)?);
            concord_faults::point("views.aside.moved");
            tracing::warn!(folder = %folder.display(), %because, "views are rebuilt");
            Opened::Rebuilding { because, moved_to }
        }
    };
    concord_faults::point("views.create");
    let watermark = Watermark::nothing(projection_version);
    let store = Store::create(folder, watermark).map_err(|failure| match failure {
        OpenFailure::Error(error) => error,
        OpenFailure::Unusable(what) => ViewsError::Failed { path: folder.to_path_buf(), what },
    })?;
    let written = Written { watermark, groups: Groups::none() };
    Ok(Found { store, written, opened, lock })
}

/// Why sound views cannot be used with this journal and projection, if so.
fn judge(watermark: &Watermark, projection_version: u32, journal: &dyn Journal) -> Result<Option<Reason>, ViewsError> {
    // The journal before the version: lost data must not go unnoticed because a program was updated too.
    if let Some(applied) = watermark.applied() {
        let tail = journal.tail();
        if applied.sequence > tail.sequence {
            return Ok(Some(Reason::WatermarkAhead { watermark: applied, journal: tail }));
        }
        let journal_digest = match journal.head(applied.sequence) {
            Ok(entry) => entry.digest,
            // What the views stand at was trimmed and not kept: nothing says whether it was the same.
            Err(ReadError::EntryAbsent { first, .. }) if applied.sequence < first => {
                return Ok(Some(Reason::BeforeBase { watermark: applied }));
            }
            // No entry where the journal says it has one: it was cut between the two calls, which is no agreement.
            Err(ReadError::EntryAbsent { .. }) => Digest::ZERO,
            Err(error) => return Err(error.into()),
        };
        if journal_digest != applied.digest {
            return Ok(Some(Reason::Disagrees { watermark: applied, journal_digest }));
        }
    }
    let found = watermark.projection_version;
    Ok((found != projection_version).then_some(Reason::OtherVersion { found }))
}

/// Beside the folder, not in it: the lock must outlive the moving of the folder.
fn lock(folder: &Path) -> Result<File, ViewsError> {
    let path = beside(folder, ".lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(at("make", parent))?;
    }
    let lock = File::options().create(true).write(true).truncate(false).open(&path).map_err(at("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ViewsError::Locked { path: folder.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(at("lock", &path)(source)),
    }
}

/// Whether there is nothing, or an empty folder that somebody made for us.
fn is_missing(folder: &Path) -> Result<bool, ViewsError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(at("list", folder)(source)),
    }
}
