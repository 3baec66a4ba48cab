//! Verifying a chain: the leaf's one name chooses the participant, and only that participant's anchors count.

use concord_model::{Identity, ParticipantCode, Timestamp};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::anchor::Anchor;
use crate::certificate::{Leaf, parse};
use crate::moment;
use crate::refusal::CertificateRefusal;

/// Certificates between a leaf and its anchor. With more, the handshake ends with an alert and a statement is refused.
pub const INTERMEDIATES_MAX: usize = 1;

/// One certificate of a chain. A larger one is refused unread, with an alert.
pub const CERTIFICATE_SIZE_MAX_BYTES: usize = 16 * 1024;

/// Which end of a connection the certificate must be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Client,
    Server,
}

/// Verifies the chain at a moment and returns what the leaf says, which then holds.
pub(crate) fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors_of: impl Fn(&ParticipantCode) -> Vec<Anchor>,
    purpose: Purpose,
    now: UnixTime,
) -> Result<Leaf, CertificateRefusal> {
    check_size(leaf, intermediates)?;
    let read = Leaf::read(leaf)?;
    check_purpose(&read, purpose)?;

    let anchors = anchors_of(&read.identity.participant);
    let anchors: Vec<TrustAnchor<'_>> = anchors.iter().map(Anchor::trust_anchor).collect();
    // Of an issuer, the usage is needed only where it names any; the leaf's own was checked above.
    let usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server => KeyUsage::server_auth(),
    };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let verified = EndEntityCert::try_from(leaf).and_then(|end_entity| {
        end_entity.verify_for_usage(algorithms.all, &anchors, intermediates, now, usage, None, None).map(|_| ())
    });
    match verified {
        Ok(()) if intermediates.iter().all(|der| may_issue(der)) => Ok(read),
        Ok(()) => {
            let detail = "the key usage of its issuer does not include keyCertSign".to_owned();
            Err(CertificateRefusal::Unverified { identity: read.identity, detail })
        }
        Err(error) => Err(refusal(error, read, purpose)),
    }
}

/// Path verification asks an issuer only whether it is a CA. One that names what its key may be used for and leaves this out
/// may not issue (RFC 5280, 4.2.1.3).
fn may_issue(der: &CertificateDer<'_>) -> bool {
    let usage = parse(der).and_then(|certificate| match certificate.key_usage() {
        Ok(usage) => Ok(usage.is_none_or(|usage| usage.value.key_cert_sign())),
        Err(error) => Err(error.to_string()),
    });
    usage.unwrap_or(false) || concord_faults::planted("let-any-authority-issue")
}

/// Who a client certificate of this participant names, if the participant's anchors stand behind it at a moment.
pub fn verify_certificate(
    participant: &ParticipantCode,
    anchors: &[Anchor],
    leaf_der: &[u8],
    now: Timestamp,
) -> Result<Identity, CertificateRefusal> {
    let of_participant = |code: &ParticipantCode| if code == participant { anchors.to_vec() } else { Vec::new() };
    let now = crate::moment::to_unix_time(now);
    verify_chain(&CertificateDer::from(leaf_der), &[], of_participant, Purpose::Client, now).map(|leaf| leaf.identity)
}

fn check_size(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), CertificateRefusal> {
    if intermediates.len() > INTERMEDIATES_MAX {
        return Err(CertificateRefusal::ChainTooLong { sent: intermediates.len() });
    }
    let mut all = std::iter::once(leaf).chain(intermediates);
    if all.any(|certificate| certificate.len() > CERTIFICATE_SIZE_MAX_BYTES) {
        return Err(CertificateRefusal::Malformed(format!("it is larger than {CERTIFICATE_SIZE_MAX_BYTES} bytes")));
    }
    Ok(())
}

fn check_purpose(leaf: &Leaf, purpose: Purpose) -> Result<(), CertificateRefusal> {
    let named = match purpose {
        Purpose::Client => leaf.for_clients,
        Purpose::Server => leaf.for_servers,
    };
    let missing = match (named, leaf.for_signatures) {
        (false, _) => purpose.in_words(),
        (true, false) => "digital signatures",
        (true, true) => return Ok(()),
    };
    Err(CertificateRefusal::WrongPurpose { identity: leaf.identity.clone(), purpose: missing })
}

impl Purpose {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Client => "clients (extended key usage clientAuth)",
            Self::Server => "servers (extended key usage serverAuth)",
        }
    }
}

fn refusal(error: webpki::Error, leaf: Leaf, purpose: Purpose) -> CertificateRefusal {
    let identity = leaf.identity;
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            CertificateRefusal::Expired { identity, not_after: moment::from_unix_time(not_after) }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            CertificateRefusal::NotYetValid { identity, not_before: moment::from_unix_time(not_before) }
        }
        // A signature that fails under the anchor's key means another key of the same name issued it.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateRefusal::UnknownIssuer { identity }
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            CertificateRefusal::WrongPurpose { identity, purpose: purpose.in_words() }
        }
        other => CertificateRefusal::Unverified { identity, detail: other.to_string() },
    }
}
