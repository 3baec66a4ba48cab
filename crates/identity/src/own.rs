//! Whether a certificate may take the place of the one that a server shows.

use concord_model::{Identity, Role, Timestamp};

use crate::anchor::Anchor;
use crate::certificate::Caller;
use crate::chain::{Purpose, verify_chain};
use crate::moment;
use crate::refusal::CertificateRefusal;
use crate::tls::{Credentials, TlsError};

/// Why it may not.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// Key and certificate do not belong together.
    #[error(transparent)]
    Pair(#[from] TlsError),
    /// It is another's.
    #[error("the certificate is of {found}, and this server is {expected}")]
    OtherName {
        /// Whom it names.
        found: Identity,
        /// Who this server is.
        expected: Identity,
    },
    /// Peers would not take it.
    #[error("peers would refuse it: {0}")]
    Refused(#[from] CertificateRefusal),
}

/// Asks of a server's own certificate what its peers will: key and leaf belong together, it has this name, and one of its own anchors
/// stands behind it at this moment; a node's as a client's, too.
pub fn check_own(
    credentials: &Credentials,
    anchors: &[Anchor],
    expected: &Identity,
    now: Timestamp,
) -> Result<Caller, OwnError> {
    credentials.check_pair()?;
    let caller = credentials.caller()?;
    if caller.identity != *expected {
        return Err(OwnError::OtherName { found: caller.identity, expected: expected.clone() });
    }
    let chain = credentials.chain();
    let (leaf, intermediates) =
        chain.split_first().ok_or_else(|| CertificateRefusal::Malformed("there is none".to_owned()))?;
    let purposes: &[Purpose] = match expected.role {
        Role::Node => &[Purpose::Server, Purpose::Client],
        _ => &[Purpose::Server],
    };
    for purpose in purposes {
        verify_chain(leaf, intermediates, |_| anchors.to_vec(), *purpose, moment::to_unix_time(now))?;
    }
    Ok(caller)
}
