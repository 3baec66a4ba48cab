//! Why a certificate cannot be made, requested, installed or taken back; each says what to do.

use std::path::PathBuf;

use concord_identity::{
    AnchorError, CertificateRefusal, FileError, IssueError, KeyError, ProfileError, RequestError, TlsError,
};
use concord_model::Identity;

/// Why a certificate cannot be made, requested, installed or taken back.
#[derive(Debug, thiserror::Error)]
pub enum HoldersError {
    /// Of another participant, or of a role that this server has none of.
    #[error("{holder} has no place in the folder of {server}; check the name and --dir")]
    NotOfHere {
        /// Who.
        holder: Identity,
        /// Whose folder it is.
        server: Identity,
    },
    /// A name that is none.
    #[error("{0}")]
    Name(String),
    /// Added before.
    #[error("{0} was added before; renew it, or remove it first")]
    Known(Identity),
    /// Nobody of that name.
    #[error("{0} has no certificate here; `list` shows who has one")]
    Unknown(Identity),
    /// The anchor's key is elsewhere.
    #[error("the trust anchor's key is needed, and {} cannot be used: {source}", path.display())]
    AnchorKey {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: IssueError,
    },
    /// No anchor was ever said.
    #[error(
        "no trust anchor is known here yet, and the file has no certificate of a CA; give the CA's certificate with --anchor"
    )]
    AnchorUnknown,
    /// More than one CA in the file.
    #[error("the file has certificates of {0} authorities; give the one that signs by itself with --anchor")]
    AnchorsSeveral(usize),
    /// Another anchor than the one this folder goes by.
    #[error(
        "the anchor with the fingerprint {given} is not the one that this folder goes by, {known}; certificates of another anchor would be \
         known by nobody"
    )]
    AnchorOther {
        /// Of the file or option.
        given: String,
        /// Of the folder.
        known: String,
    },
    /// An anchor that came in a file, and that nobody compared.
    #[error(
        "the anchor of the file has the fingerprint {fingerprint}, and this folder does not go by it yet: whoever could change the file on its way \
         could have put an anchor of their own there. Nothing was installed; compare the fingerprint with the one that is known where the \
         anchor is kept, and give that with --fingerprint"
    )]
    AnchorUncompared {
        /// Of the file.
        fingerprint: String,
    },
    /// Another one than was said.
    #[error(
        "the anchor has the fingerprint {given}, and what was said is {said}: nothing was installed. Somebody may have put another file in \
         its place: get it again another way, and compare again"
    )]
    FingerprintMismatch {
        /// Of the file or folder.
        given: String,
        /// By whoever installs.
        said: String,
    },
    /// Out, and to stay out.
    #[error(
        "the certificates of {0} were taken back, and none of them is renewed; `remove` again puts away a profile that was left; whoever is \
         to come back is added anew, with a new key, an agency under another name"
    )]
    TakenBack(Identity),
    /// The file has no leaf.
    #[error("the file has no certificate of a holder, only of authorities; give what was made from the request")]
    NoLeaf,
    /// What is wrong with the certificates of a file, all of it.
    #[error("nothing was installed: {}", .0.join("; "))]
    Unfit(Vec<String>),
    /// Its key is not here.
    #[error("the key of {holder} is not here; give a request that its holder made (--csr)")]
    KeyElsewhere {
        /// Who.
        holder: Identity,
    },
    /// Its profile is elsewhere, and the register was written before it kept keys.
    #[error(
        "the profile of {holder} is elsewhere, and the register has no key of it, since it was issued by an older version; give a request \
         that its holder made with the key of the profile (--csr FILE)"
    )]
    KeyUnregistered {
        /// Who.
        holder: Identity,
    },
    /// A certificate of the same name counts already.
    #[error(
        "the anchor issued a certificate to {0} before, which counts: with another key of the same name nobody could tell the two apart; \
         give another name"
    )]
    IssuedBefore(Identity),
    /// Another key is here than the request is for.
    #[error("the key of {holder} in {} is another one than that of the request; nothing was issued", key.display())]
    KeyOther {
        /// Who.
        holder: Identity,
        /// Where it is.
        key: PathBuf,
    },
    /// A request cannot be taken.
    #[error("{}: {source}", path.display())]
    Request {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: RequestError,
    },
    /// A revocation list could not be written for want of what is there already.
    #[error("{}: {why}; put it right or remove it first, so that nothing it takes back is lost", path.display())]
    List {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Issuing.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate that is here.
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
    /// A pair of certificate and key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The anchor.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// A profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl HoldersError {
    /// The stable word for it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotOfHere { .. } => "HOLDER_NOT_OF_HERE",
            Self::Name(_) => "NAME_INVALID",
            Self::Known(_) | Self::IssuedBefore(_) => "HOLDER_KNOWN",
            Self::Unknown(_) => "HOLDER_UNKNOWN",
            Self::AnchorKey { .. } => "ANCHOR_KEY_ABSENT",
            Self::AnchorUnknown | Self::AnchorsSeveral(_) => "ANCHOR_UNKNOWN",
            Self::AnchorOther { .. } => "ANCHOR_OTHER",
            Self::AnchorUncompared { .. } => "ANCHOR_UNCOMPARED",
            Self::FingerprintMismatch { .. } => "FINGERPRINT_MISMATCH",
            Self::TakenBack(_) => "HOLDER_TAKEN_BACK",
            Self::Issue(IssueError::KeyTakenBack { .. }) => "KEY_TAKEN_BACK",
            Self::NoLeaf | Self::Unfit(_) => "CERTIFICATE_UNFIT",
            Self::KeyElsewhere { .. } | Self::KeyUnregistered { .. } => "KEY_ABSENT",
            Self::KeyOther { .. } => "KEY_OTHER",
            Self::Request { .. } => "REQUEST_INVALID",
            Self::List { .. } => "REVOCATION_LIST_UNUSABLE",
            Self::Issue(_) => "ISSUE",
            Self::Key(_) | Self::Certificate(_) | Self::Tls(_) | Self::Anchor(_) | Self::Profile(_) => "KEYS_UNUSABLE",
            Self::File(_) => "FILE",
        }
    }
}
