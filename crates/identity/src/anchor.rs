//! A participant's trust anchor: the CA certificate under which its names are valid.

use std::fmt;
use std::sync::Arc;

use concord_model::{Fingerprint, Timestamp};
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{certificate_fingerprint, parse};
use crate::chain::CERTIFICATE_SIZE_MAX_BYTES;
use crate::files;
use crate::moment;

/// Anchors in one file.
pub const ANCHORS_PER_FILE_MAX: usize = 4;

/// A certificate that cannot be a trust anchor, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a usable trust anchor: {0}")]
pub struct AnchorError(String);

/// A CA certificate that is trusted for one participant. Cheap to clone.
///
/// Its own validity is not judged: it stands until the registry, or whoever pinned it, replaces it.
#[derive(Clone, PartialEq, Eq)]
pub struct Anchor(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    not_after: Timestamp,
    trust_anchor: TrustAnchor<'static>,
}

impl Anchor {
    /// Takes a certificate that is a CA and may sign certificates.
    pub fn from_der(der: &[u8]) -> Result<Self, AnchorError> {
        if der.len() > CERTIFICATE_SIZE_MAX_BYTES {
            let why = format!("it is larger than {CERTIFICATE_SIZE_MAX_BYTES} bytes");
            return Err(AnchorError(why));
        }
        let certificate = parse(der).map_err(AnchorError)?;
        let wrong = |error: x509_parser::error::X509Error| AnchorError(error.to_string());
        let basic = certificate.basic_constraints().map_err(wrong)?;
        if !basic.is_some_and(|basic| basic.value.ca) {
            return Err(AnchorError("it is not the certificate of a CA".to_owned()));
        }
        let usage = certificate.key_usage().map_err(wrong)?;
        if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
            return Err(AnchorError("its key usage does not include keyCertSign".to_owned()));
        }
        let not_after = moment::from_seconds(certificate.validity().not_after.timestamp());
        let der = CertificateDer::from(der.to_vec());
        let trust_anchor =
            webpki::anchor_from_trusted_cert(&der).map_err(|error| AnchorError(error.to_string()))?.to_owned();
        Ok(Self(Arc::new(Inner { fingerprint: certificate_fingerprint(&der), not_after, trust_anchor, der })))
    }

    /// Takes a PEM text with exactly one certificate.
    pub fn from_pem(text: &str) -> Result<Self, AnchorError> {
        let certificates = files::certificates_from_pem(text).map_err(AnchorError)?;
        match certificates.as_slice() {
            [certificate] => Self::from_der(certificate),
            several => {
                Err(AnchorError(format!("the text has {} certificates where exactly one is needed", several.len())))
            }
        }
    }

    /// Takes a PEM text with one certificate, or with the old one and the new one while an anchor is rolled over.
    pub fn several_from_pem(text: &str) -> Result<Vec<Self>, AnchorError> {
        let certificates = files::certificates_from_pem(text).map_err(AnchorError)?;
        if certificates.len() > ANCHORS_PER_FILE_MAX {
            let why = format!("the text has {} certificates, more than {ANCHORS_PER_FILE_MAX}", certificates.len());
            return Err(AnchorError(why));
        }
        certificates.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The last moment that its certificate names. Nothing ends with it here; other software may think otherwise.
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// The certificate as text.
    pub fn to_pem(&self) -> String {
        files::certificates_to_pem(std::slice::from_ref(&self.0.der))
    }

    /// SHA-256 of the certificate, as people compare it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    pub(crate) fn trust_anchor(&self) -> TrustAnchor<'_> {
        self.0.trust_anchor.clone()
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({})", self.0.fingerprint)
    }
}
