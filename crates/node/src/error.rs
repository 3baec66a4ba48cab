//! Why a node cannot be set up or cannot go on.

use std::io;
use std::path::PathBuf;

use concord_identity::{
    AnchorError, CertificateRefusal, FileError, IssueError, KeyError, ProfileError, StatementError, TlsError,
};
use concord_journal::{AppendError, OpenError, ReadError};
use concord_model::{Fingerprint, ParticipantCode, Refusal};
use concord_server::holders::HoldersError;
use concord_server::{AdminError, BindError, ConnectError, FolderError, MetricsError, ReflectionError, ServeError};
use concord_views::{CatchUpError, ViewsError};
use concord_wire::stored::StoredError;

use crate::state::{DirectoryError, FoldError};
use crate::writer::WriterError;
use concord_server::NoRandomness;

/// Why a node cannot be set up or cannot go on; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file of keys, settings or papers.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder inside could not be made.
    #[error("cannot make {}: {source}", path.display())]
    MakeFolder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot tell the addresses: {0}")]
    Output(io::Error),
    /// `node.toml`.
    #[error("{} cannot be used: {why}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        why: String,
    },
    /// The configuration, the journal and the keys are of different nodes.
    #[error("{0}")]
    Mismatch(String),
    /// A join request or a bundle.
    #[error("{0}")]
    Paper(String),
    /// The hub's bundle says something impossible.
    #[error("the bundle cannot be used: {0}")]
    Bundle(#[from] DirectoryError),
    /// The bundle was made for another participant.
    #[error("the bundle was made for {bundle}, this node is {own}'s; ask the secretariat for the right one")]
    OtherParticipant {
        /// For whom it is.
        bundle: ParticipantCode,
        /// Whose node this is.
        own: ParticipantCode,
    },
    /// The secretariat enrolled other keys than this node has.
    #[error(
        "the secretariat enrolled a request with the fingerprint {bundle}, this node's is {own}; was the right join-request.json \
         handed in?"
    )]
    OtherEnrolment {
        /// What the bundle names.
        bundle: Fingerprint,
        /// What this node has.
        own: Fingerprint,
    },
    /// Joined before.
    #[error("this node joined the hub {hub} with other keys before; a change of hub is not built yet")]
    JoinedBefore {
        /// Which.
        hub: String,
    },
    /// A refusal by a rule.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A certificate could not be made, requested, installed or taken back.
    #[error(transparent)]
    Holders(#[from] HoldersError),
    /// The folder was set up by request, and its certificates have yet to come.
    #[error(
        "certificates have yet to come for: {}; have {} signed where the trust anchor is (`concord anchor sign`), then run `concord node \
         install-cert`", .missing.join(", "), .request.display()
    )]
    CertificatesAwaited {
        /// Whose.
        missing: Vec<String>,
        /// The file of requests.
        request: PathBuf,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An anchor.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The own certificate.
    #[error("the node's own certificate cannot be used: {0}")]
    Certificate(#[from] CertificateRefusal),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A statement's signer.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The journal does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal does not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal does not take an entry.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// An entry cannot be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// An entry cannot be applied.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A backup cannot be made or put back.
    #[error(transparent)]
    Backup(#[from] concord_backup::BackupError),
    /// The journal is absent, holds although it was to be lost, or is being put back.
    #[error(transparent)]
    Standing(#[from] concord_backup::StandingError),
    /// The views.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The views do not follow.
    #[error(transparent)]
    CatchUp(#[from] CatchUpError),
    /// The writer ended: what it was writing has to be found out by a new start.
    #[error("the node ends, because what it writes is no longer certain: {0}. Start it again: it goes on by itself")]
    Writer(#[from] WriterError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Reflection.
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    /// The gRPC server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The running node was not reached.
    #[error("the node runs, but was not reached to let the agency in: {0}")]
    Connect(#[from] ConnectError),
    /// Signals, threads or sockets of the system.
    #[error("the system failed while {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl NodeError {
    /// Whether it may be what a full disk does: to what is derived from the journal, or to an opening, which writes too. A failed append
    /// is not: its outcome is unknown, whatever the reason.
    pub fn may_want_room(&self) -> bool {
        matches!(
            self,
            Self::Views(_)
                | Self::CatchUp(_)
                | Self::Open(_)
                | Self::Writer(WriterError::Views(_) | WriterError::Index(_))
        )
    }

    /// The refusal behind it, if it is one by a rule.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}
