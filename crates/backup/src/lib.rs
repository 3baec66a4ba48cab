//! Backups: one file that holds a journal up to a tail, with what is public beside it, and putting such a file back.
//!
//! The format, every number little-endian:
//!
//! | what | bytes |
//! |---|---|
//! | `CONCORD-BACKUP\r\n` | 16 |
//! | version of the format, 1 | 4 |
//! | length of the manifest | 4 |
//! | the manifest: JSON of [`Manifest`] | as named |
//! | the files that the manifest lists, one after the other | as listed |
//! | SHA-256 of each file, in the same order | 32 each |
//! | SHA-256 of everything before | 32 |
//! | Ed25519 over `concord backup v1`, a zero byte and that digest, by the signing key of hub or node | 64 |
//!
//! A backup never holds a private key. The journal in it is a prefix of an append-only record, so that it is consistent
//! whatever was written meanwhile.
//!
//! **What it must not know:** what an entry means, hubs, nodes, gRPC. Whose backup may go into which folder is decided by
//! whoever restores.

mod backups;
mod file;
mod manifest;
mod place;
mod send;
mod standing;

pub use backups::{Backups, CHUNKS_WAITING_MAX};
pub use file::{Backup, Checked};
pub use manifest::{BACKUP_FORMAT, FileEntry, MANIFEST_SIZE_MAX_BYTES, Manifest, ManifestTail, Owner};
pub use place::{
    ASIDE_PREFIX, JOURNAL_FOLDER, RESTORING_FOLDER, Staged, lay_public_files, put_in_place, stage, staging_folder,
};
pub use send::{CHUNK_SIZE_BYTES, Gone, Source, send};
pub use standing::{StandingError, refuse_if_holds, refuse_if_interrupted};

use std::io;
use std::path::PathBuf;

/// What begins every backup. The line end shows a file that was copied as text.
pub(crate) const MAGIC: &[u8; 16] = b"CONCORD-BACKUP\r\n";
/// Magic, version and length of the manifest.
pub(crate) const HEAD_SIZE_BYTES: u64 = 16 + 4 + 4;
pub(crate) const SUM_SIZE_BYTES: u64 = 32;
pub(crate) const SIGNATURE_SIZE_BYTES: u64 = 64;
/// What is signed is this, a zero byte, and the digest of everything before.
pub(crate) const SIGNATURE_DOMAIN: &[u8] = b"concord backup v1\0";

/// Why a backup cannot be made, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is something else.
    #[error("{} is not a backup of Concord: {what}; give the file that `concord hub backup` or `concord node backup` wrote", .path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What shows it.
        what: String,
    },
    /// Another version wrote it.
    #[error("{} has the format {found}, and this version knows {BACKUP_FORMAT}; restore it with the version that made it", .path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Some byte is not as it was written, or is missing.
    #[error("the backup {} is damaged: {what}; it was not used: take another copy of it, or an older backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        what: String,
    },
    /// It is somebody else's.
    #[error("the backup cannot go into {}: {what}; nothing was changed", .folder.display())]
    OfAnother {
        /// The folder that it was to go to.
        folder: PathBuf,
        /// What differs.
        what: String,
    },
    /// A file that has to be there is not.
    #[error("{} is missing: a backup holds no keys; put them back from where they are kept, then restore", .path.display())]
    KeyAbsent {
        /// Which.
        path: PathBuf,
    },
    /// The files changed while they were read: nothing is wrong, it has to begin again.
    #[error("{file} changed while the backup was made ({what}); start the backup again")]
    Changed {
        /// Which.
        file: String,
        /// How.
        what: String,
    },
    /// The storage failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Whoever was sent to is gone.
    #[error("whoever asked for the backup is gone")]
    Gone,
}

/// Makes the error of a failed access.
pub(crate) fn disk(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Disk { action, path, source }
}
