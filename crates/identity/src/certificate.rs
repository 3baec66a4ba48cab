//! Reading a leaf certificate: the one URI name, what the key may be used for, and until when.

use concord_model::{Digest, Fingerprint, Identity, PublicKey, Timestamp};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::moment;
use crate::refusal::CertificateRefusal;
use crate::signing::public_key_from_spki;

/// Who is at the other end of a connection, after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The one URI name of its certificate.
    pub identity: Identity,
    /// SHA-256 of the certificate.
    pub certificate_fingerprint: Fingerprint,
    /// The certificate's last moment. A connection should not outlive it.
    pub not_after: Timestamp,
}

impl Caller {
    /// Reads the leaf of a handshake *that came to an end*: this only reads, the verifier has verified.
    pub fn from_verified_certificate(der: &[u8]) -> Result<Self, CertificateRefusal> {
        let leaf = Leaf::read(der)?;
        Ok(Self {
            identity: leaf.identity,
            certificate_fingerprint: certificate_fingerprint(der),
            not_after: leaf.not_after,
        })
    }
}

pub(crate) fn certificate_fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint(Digest(Sha256::digest(der).into()))
}

/// From when to when a certificate says that it is valid. Nothing of it is verified.
pub fn validity(der: &[u8]) -> Result<(Timestamp, Timestamp), CertificateRefusal> {
    let certificate = parse(der).map_err(CertificateRefusal::Malformed)?;
    let validity = certificate.validity();
    let moment = |at: x509_parser::time::ASN1Time| moment::from_seconds(at.timestamp());
    Ok((moment(validity.not_before), moment(validity.not_after)))
}

/// What a leaf says of itself. Nothing here is verified yet.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) identity: Identity,
    pub(crate) not_after: Timestamp,
    /// The extended key usages it names; a leaf that names none is for nothing.
    pub(crate) for_clients: bool,
    pub(crate) for_servers: bool,
    /// False only where the key usage extension stands and leaves digitalSignature out.
    pub(crate) for_signatures: bool,
    /// Only an Ed25519 key can sign statements.
    pub(crate) signing_key: Option<PublicKey>,
}

impl Leaf {
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateRefusal> {
        let certificate = parse(der).map_err(CertificateRefusal::Malformed)?;
        let malformed = |error: x509_parser::error::X509Error| CertificateRefusal::Malformed(error.to_string());
        let usages = certificate.extended_key_usage().map_err(malformed)?;
        let key_usage = certificate.key_usage().map_err(malformed)?;
        Ok(Self {
            identity: identity(&certificate)?,
            not_after: moment::from_seconds(certificate.validity().not_after.timestamp()),
            for_clients: usages.as_ref().is_some_and(|usages| usages.value.client_auth),
            for_servers: usages.as_ref().is_some_and(|usages| usages.value.server_auth),
            for_signatures: key_usage.is_none_or(|usage| usage.value.digital_signature()),
            signing_key: public_key_from_spki(certificate.public_key().raw).ok(),
        })
    }
}

/// The whole of the bytes is one certificate: nothing may hide behind it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("bytes follow the certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Names of other kinds are for other software and mean nothing here.
fn identity(certificate: &X509Certificate<'_>) -> Result<Identity, CertificateRefusal> {
    let names =
        certificate.subject_alternative_name().map_err(|error| CertificateRefusal::Malformed(error.to_string()))?;
    let names = names.map_or([].as_slice(), |names| names.value.general_names.as_slice());
    let mut found = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(name) => found.push(*name),
            // It could be a URI name that another reader reads.
            GeneralName::Invalid(..) => {
                return Err(CertificateRefusal::Malformed("one of its names is not text".to_owned()));
            }
            _ => {}
        }
    }
    match found.as_slice() {
        [name] => name.parse().map_err(CertificateRefusal::UriNameMalformed),
        _ => Err(CertificateRefusal::UriNames { found: found.len() }),
    }
}
