//! Why a hub cannot be made or cannot serve.

use std::path::PathBuf;

use concord_identity::{AnchorError, FileError, IssueError, KeyError, ProfileError, TlsError};
use concord_server::holders::HoldersError;
use concord_server::{AdminError, BindError, FolderError, MetricsError, ReflectionError, ServeError};

/// Why a hub cannot be made or cannot serve; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The configuration.
    #[error("{} cannot be used: {what}", .path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The seed.
    #[error("the seed cannot be used: {0}")]
    Seed(String),
    /// An address given to `hub init`.
    #[error("{0}")]
    Argument(String),
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file in it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The trust anchor.
    #[error("the hub's trust anchor: {0}")]
    Anchor(#[from] AnchorError),
    /// A certificate could not be made, requested, installed or taken back.
    #[error(transparent)]
    Holders(#[from] HoldersError),
    /// The folder was set up by request, and its certificates have yet to come.
    #[error(
        "certificates have yet to come to this hub; have {} signed where the trust anchor is (`concord anchor sign`), then run `concord hub \
         install-cert`", .request.display()
    )]
    CertificatesAwaited {
        /// The file of requests.
        request: PathBuf,
    },
    /// Issuing a certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate that the hub serves with.
    #[error("the hub's TLS certificate: {0}")]
    Tls(#[from] TlsError),
    /// The same.
    #[error("the hub's TLS certificate: {0}")]
    Certificate(#[from] concord_identity::CertificateRefusal),
    /// A profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The gRPC server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Reflection.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    /// The metrics recorder.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The journal cannot be opened.
    #[error("the journal: {0}")]
    Open(#[from] concord_journal::OpenError),
    /// The journal cannot be read.
    #[error("the journal: {0}")]
    Read(#[from] concord_journal::ReadError),
    /// The outcome of a write is unknown: only a new start finds out.
    #[error("the journal: {0}; the process ends so that its next start finds out what is durable")]
    Append(#[from] concord_journal::AppendError),
    /// An entry is not of this version.
    #[error("the journal: {0}")]
    Stored(#[from] concord_wire::stored::StoredError),
    /// The journal does not begin with a hub.
    #[error("the journal in {} does not hold this hub: {what}", .path.display())]
    OtherHub {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A backup cannot be made or put back.
    #[error(transparent)]
    Backup(#[from] concord_backup::BackupError),
    /// The journal is absent, holds although it was to be lost, or is being put back.
    #[error(transparent)]
    Standing(#[from] concord_backup::StandingError),
    /// The views.
    #[error("the views: {0}")]
    Views(#[from] concord_views::ViewsError),
    /// Projecting into the views.
    #[error("the views: {0}")]
    CatchUp(#[from] concord_views::CatchUpError),
    /// Random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Signals.
    #[error("signals cannot be watched: {0}")]
    Signals(std::io::Error),
    /// Standard output.
    #[error("cannot tell the addresses: {0}")]
    Output(std::io::Error),
    /// A task of the hub ended with a panic.
    #[error("a task of the hub failed: {0}")]
    Task(String),
}

impl HubError {
    /// Whether it may be what a full disk does: to what is derived from the journal, or to an opening, which writes too. A failed append
    /// is not: its outcome is unknown, whatever the reason.
    pub fn may_want_room(&self) -> bool {
        matches!(self, Self::Views(_) | Self::CatchUp(_) | Self::Open(_))
    }
}
