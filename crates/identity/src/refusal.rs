//! Why a certificate or a handshake was refused: for this side's log. The peer gets one TLS alert, always the same.

use std::io;
use std::sync::Arc;

use concord_model::{Identity, ParseError, Timestamp};
use rustls::{CertificateError, OtherError};

use crate::chain::INTERMEDIATES_MAX;
use crate::moment::rfc3339;
use crate::revocation::Unfit;

/// Why a certificate chain is not accepted. An identity named here is what the certificate *claims*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// Not an X.509 certificate that can be read without doubt.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// Not exactly one URI name.
    #[error("the certificate has {found} URI names where exactly one is needed")]
    UriNames {
        /// How many it has.
        found: usize,
    },
    /// One URI name that is none of ours.
    #[error("{0}")]
    UriNameMalformed(ParseError),
    /// More certificates than a chain may have.
    #[error("{sent} certificates stand between the leaf and its anchor where at most {INTERMEDIATES_MAX} may")]
    ChainTooLong {
        /// How many were sent besides the leaf.
        sent: usize,
    },
    /// The leaf or its issuer is past its time.
    #[error("the certificate that claims {identity}, or its issuer's, expired on {}; renew it", rfc3339(*not_after))]
    Expired {
        /// Whom it claims to be.
        identity: Identity,
        /// Its last moment.
        not_after: Timestamp,
    },
    /// The leaf or its issuer is before its time.
    #[error("the certificate that claims {identity}, or its issuer's, is not valid before {}; compare the clocks", rfc3339(*not_before))]
    NotYetValid {
        /// Whom it claims to be.
        identity: Identity,
        /// Its first moment.
        not_before: Timestamp,
    },
    /// Its issuer took it back, or the certificate of that issuer was.
    #[error("the certificate of {identity}, or its issuer's, is on a revocation list; it needs a new one")]
    Revoked {
        /// Who it was.
        identity: Identity,
    },
    /// What its issuer took back is not known any more.
    #[error(
        "the newest revocation list here that could name the certificate of {identity}, or its issuer's, has lapsed; the next list of its \
         issuer has to be put into revocation/"
    )]
    ListLapsed {
        /// Who it is.
        identity: Identity,
    },
    /// The key may not be used for this side of a connection, or for signing.
    #[error("the certificate that claims {identity} is not made for {purpose}")]
    WrongPurpose {
        /// Whom it claims to be.
        identity: Identity,
        /// What it is needed for.
        purpose: &'static str,
    },
    /// No anchor of the named participant stands behind it.
    #[error("the certificate claims {identity}, but no anchor known here for that participant issued it")]
    UnknownIssuer {
        /// Whom it claims to be.
        identity: Identity,
    },
    /// Anything else that path verification found.
    #[error("the certificate that claims {identity} does not verify: {detail}")]
    Unverified {
        /// Whom it claims to be.
        identity: Identity,
        /// What the verification said.
        detail: String,
    },
    /// Verified, but nobody of this role is expected here.
    #[error("{identity} is who it says, but this listener is not for it")]
    NotAdmitted {
        /// Who it is.
        identity: Identity,
    },
    /// Verified, but another server than the one that was called.
    #[error("{found} answered where {expected} was called; check the address")]
    OtherServer {
        /// Who answered.
        found: Identity,
        /// Who was called.
        expected: String,
    },
}

impl CertificateRefusal {
    /// A stable word for counters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "CERTIFICATE_MALFORMED",
            Self::UriNames { .. } => "URI_NAMES",
            Self::UriNameMalformed(_) => "URI_NAME_MALFORMED",
            Self::ChainTooLong { .. } => "CHAIN_TOO_LONG",
            Self::Expired { .. } => "CERTIFICATE_EXPIRED",
            Self::NotYetValid { .. } => "CERTIFICATE_NOT_YET_VALID",
            Self::Revoked { .. } => "CERTIFICATE_REVOKED",
            Self::ListLapsed { .. } => "REVOCATION_LIST_LAPSED",
            Self::WrongPurpose { .. } => "CERTIFICATE_PURPOSE",
            Self::UnknownIssuer { .. } => "UNKNOWN_ISSUER",
            Self::Unverified { .. } => "CERTIFICATE_UNVERIFIED",
            Self::NotAdmitted { .. } => "NOT_ADMITTED",
            Self::OtherServer { .. } => "OTHER_SERVER",
        }
    }

    pub(crate) fn unfit(unfit: Unfit, identity: Identity) -> Self {
        match unfit {
            Unfit::Revoked => Self::Revoked { identity },
            Unfit::Lapsed => Self::ListLapsed { identity },
        }
    }

    /// `Other` for all of them: the alert is then the same whatever was wrong, and says nothing about who is enrolled.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// Why a handshake did not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeRefusal {
    /// The peer's certificate is not accepted here.
    #[error("{0}")]
    Certificate(#[from] CertificateRefusal),
    /// The peer presented none.
    #[error("the peer presented no certificate; every connection needs one")]
    NoCertificate,
    /// The peer refused us and said so by an alert.
    #[error("the other side refused the connection ({0}); if it is about our certificate, its log has the reason")]
    RefusedByPeer(String),
    /// No common version, cipher or protocol, a bad signature, or not TLS at all.
    #[error("the handshake failed: {0}")]
    Protocol(String),
    /// The connection broke, or the peer went away.
    #[error("the connection ended in the handshake: {0}")]
    Connection(String),
}

impl HandshakeRefusal {
    /// Reads what tokio-rustls's accept or connect returned.
    pub fn from_io(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        inner.map_or_else(|| Self::Connection(error.to_string()), Self::from_rustls)
    }

    /// Reads what rustls said.
    pub fn from_rustls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(source))) => {
                match source.downcast_ref::<CertificateRefusal>() {
                    Some(refusal) => Self::Certificate(refusal.clone()),
                    None => Self::Protocol(error.to_string()),
                }
            }
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::RefusedByPeer(format!("{alert:?}")),
            other => Self::Protocol(other.to_string()),
        }
    }

    /// A stable word for counters.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Certificate(refusal) => refusal.code(),
            Self::NoCertificate => "NO_CERTIFICATE",
            Self::RefusedByPeer(_) => "REFUSED_BY_PEER",
            Self::Protocol(_) => "TLS_PROTOCOL",
            Self::Connection(_) => "CONNECTION_ENDED",
        }
    }
}
