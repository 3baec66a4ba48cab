//! What can go wrong with views, and what to do next.

use std::{io, path::PathBuf};

use concord_journal::ReadError;

/// A failure of the views. None of them means that data was lost: views are rebuilt from the journal.
#[derive(Debug, thiserror::Error)]
pub enum ViewsError {
    /// Another process, or another `Views` of this one, has the folder open. It is left alone.
    #[error(
        "the views at {} are in use by another process: stop that process, or give this one another folder",
        path.display()
    )]
    Locked {
        /// The folder of the views.
        path: PathBuf,
    },
    /// The file system refused something outside sled.
    #[error("cannot {doing} {}: {source}; check that the folder is on a working disk with free space and \
             belongs to the user that runs this process, then start again", path.display())]
    Folder {
        /// What was attempted, as in "cannot … PATH".
        doing: &'static str,
        /// The file or folder it was attempted on.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// sled failed or panicked. The folder is marked, so that the next opening rebuilds it; until then every call
    /// on the same `Views` answers this.
    #[error(
        "the views at {} failed ({what}): stop the process and start it again, they are rebuilt; \
         if it fails again, check the disk and remove that folder before starting",
        path.display()
    )]
    Failed {
        /// The folder of the views.
        path: PathBuf,
        /// What sled said.
        what: String,
    },
    /// sled neither opened the folder nor gave up in time. The next start does not try again, it rebuilds.
    #[error(
        "the views at {} did not open within {seconds} seconds: stop the process and start it again, \
         they are rebuilt",
        path.display()
    )]
    OpenHangs {
        /// The folder of the views.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The journal could not be read.
    #[error("the views cannot be compared with their journal: {0}")]
    Journal(#[from] ReadError),
    /// A key or a value is larger than a row may be: an error of the projection, nothing was written.
    #[error(
        "a view's row of {key_size} + {value_size} bytes is over the limit of {} + {} bytes: \
         the projection is wrong, report this as a bug",
        crate::KEY_SIZE_MAX_BYTES,
        crate::VALUE_SIZE_MAX_BYTES
    )]
    RowTooLarge {
        /// Size of the key in bytes.
        key_size: usize,
        /// Size of the value in bytes.
        value_size: usize,
    },
    /// A batch would move the watermark back or leave it in place: an error of the caller, nothing was written.
    #[error(
        "the views stand at sequence {current} and cannot be moved to {asked}: \
         only later entries can be applied, report this as a bug"
    )]
    NotForward {
        /// Sequence of the watermark.
        current: u64,
        /// Sequence that the batch was to be applied with.
        asked: u64,
    },
}
