//! Where things stand in a node's data folder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::error::NodeError;

const FOLDER_MODE: u32 = 0o700;

/// What goes into a backup: public, and needed beside the journal.
pub(crate) const PUBLIC_FILES: &[&str] = &[
    "concord.json",
    "node.toml",
    "anchor/certificate.pem",
    "tls/certificate.pem",
    "tls/anchor.pem",
    "join-request.json",
    "hub.json",
];

/// The paths below one data folder.
#[derive(Debug, Clone)]
pub(crate) struct Paths(PathBuf);

impl Paths {
    pub(crate) fn of(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    pub(crate) fn views(&self) -> PathBuf {
        self.0.join("views")
    }

    pub(crate) fn tls_certificate(&self) -> PathBuf {
        self.0.join("tls/certificate.pem")
    }

    pub(crate) fn tls_key(&self) -> PathBuf {
        self.0.join("tls/key.pem")
    }

    /// The anchor's certificate again: the running node knows its own people by it.
    pub(crate) fn tls_anchor(&self) -> PathBuf {
        self.0.join("tls/anchor.pem")
    }

    pub(crate) fn signing_key(&self) -> PathBuf {
        self.0.join("signing/key.pem")
    }

    pub(crate) fn operator(&self) -> PathBuf {
        self.0.join("operator")
    }

    pub(crate) fn join_request(&self) -> PathBuf {
        self.0.join("join-request.json")
    }

    /// The bundle that was joined with, for people; the journal has it too, and that one counts.
    pub(crate) fn hub(&self) -> PathBuf {
        self.0.join("hub.json")
    }

    /// Makes the folder of a file or profile, for its owner only.
    pub(crate) fn make(folder: &Path) -> Result<(), NodeError> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(|source| NodeError::MakeFolder { path: folder.to_owned(), source })
    }
}
