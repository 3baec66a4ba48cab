//! What a certificate says of itself, for those who keep, compare and renew it. Nothing here is verified.

use concord_model::{Fingerprint, Identity, Timestamp};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;

use crate::certificate::{Leaf, parse};
use crate::leaf_key::LeafPublicKey;
use crate::moment;
use crate::refusal::CertificateRefusal;
use crate::request::address;

/// A leaf as a register, a list or a renewal wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The one URI name.
    pub identity: Identity,
    /// The serial number in hexadecimal, without leading zeros: what a revocation list names.
    pub serial: String,
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
    /// DNS names and addresses.
    pub hosts: Vec<String>,
    /// The key that it speaks for; none where it is of a kind that connections here do not take.
    pub key: Option<LeafPublicKey>,
}

impl CertificateFacts {
    /// Reads a leaf.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateRefusal> {
        let leaf = Leaf::read(der)?;
        let certificate = parse(der).map_err(CertificateRefusal::Malformed)?;
        let malformed = |error: String| CertificateRefusal::Malformed(error);
        let names = certificate.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
        let mut hosts = Vec::new();
        for name in names.map_or([].as_slice(), |names| names.value.general_names.as_slice()) {
            match name {
                GeneralName::DNSName(name) => hosts.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => hosts.extend(address(bytes)),
                _ => {}
            }
        }
        let serial = EndEntityCert::try_from(der).map_err(|error| malformed(error.to_string()))?.serial().to_vec();
        Ok(Self {
            identity: leaf.identity,
            serial: serial_to_hex(&serial),
            not_before: moment::from_seconds(certificate.validity().not_before.timestamp()),
            not_after: leaf.not_after,
            hosts,
            key: LeafPublicKey::from_spki(certificate.public_key().raw).ok(),
        })
    }

    /// SHA-256 of the key, as people compare it.
    pub fn key_fingerprint(&self) -> Option<Fingerprint> {
        self.key.as_ref().map(LeafPublicKey::fingerprint)
    }
}

pub(crate) fn serial_to_hex(bytes: &[u8]) -> String {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes[first..].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn serial_from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}
