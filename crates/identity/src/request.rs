//! Requests for certificates (PKCS#10), made by anything: which key, which names it asks for, and the proof that whoever asks has the key.

use concord_model::Identity;
use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::leaf_key::{LeafPublicKey, PublicKeyUnsupported};

/// Requests in one file. More are refused.
pub const REQUESTS_PER_FILE_MAX: usize = 256;

const REQUEST_BLOCKS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// A file is no request that a certificate can be made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No block of a request.
    #[error("no certificate request ('BEGIN CERTIFICATE REQUEST') was found; give a PKCS#10 request in PEM")]
    Absent,
    /// More than [`REQUESTS_PER_FILE_MAX`].
    #[error("it has more than {REQUESTS_PER_FILE_MAX} requests")]
    TooMany,
    /// A private key stands where only requests belong.
    #[error("it has a block '{0}' beside the requests; a request needs no secret, and a key must not travel with it")]
    OtherBlock(String),
    /// Not PEM or not PKCS#10.
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    /// Signed with another key than the one it names.
    #[error("its signature does not hold under the key that it names: whoever made it did not have the private key")]
    NotProven,
    /// A key that TLS here does not take.
    #[error(transparent)]
    Key(#[from] PublicKeyUnsupported),
    /// Some names were asked for, and the one that counts is not among them.
    #[error("it names {found} URI names where exactly one of the form spiffe://<code>.concord/<role>/<name> is needed")]
    UriNames {
        /// How many it has.
        found: usize,
    },
}

/// One request, whose signature was checked under the key that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    uri_names: Vec<String>,
    /// DNS names and addresses that it asks for.
    pub hosts: Vec<String>,
    /// The key that the certificate is to speak for.
    pub key: LeafPublicKey,
}

impl Requested {
    /// Reads every request of a PEM text, and refuses the text if one of them does not prove its key.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, RequestError> {
        // The library's own words may repeat a line of it, and a key may stand there by mistake.
        let blocks = pem::parse_many(text)
            .map_err(|_| RequestError::Malformed("its PEM text is damaged; make the request anew".to_owned()))?;
        if blocks.len() > REQUESTS_PER_FILE_MAX {
            return Err(RequestError::TooMany);
        }
        if let Some(other) = blocks.iter().find(|block| !REQUEST_BLOCKS.contains(&block.tag())) {
            return Err(RequestError::OtherBlock(other.tag().chars().take(40).collect()));
        }
        if blocks.is_empty() {
            return Err(RequestError::Absent);
        }
        blocks.iter().map(|block| Self::from_der(block.contents())).collect()
    }

    /// Reads a PEM text with exactly one request.
    pub fn from_pem(text: &str) -> Result<Self, RequestError> {
        let mut all = Self::all_from_pem(text)?;
        match (all.pop(), all.len()) {
            (Some(one), 0) => Ok(one),
            (_, others) => Err(RequestError::Malformed(format!("it has {} requests; give one", others + 1))),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let malformed = |error: String| RequestError::Malformed(error);
        let request = match X509CertificationRequest::from_der(der) {
            Ok(([], request)) => request,
            Ok(_) => return Err(malformed("bytes follow it".to_owned())),
            Err(error) => return Err(malformed(error.to_string())),
        };
        let info = &request.certification_request_info;
        let key = LeafPublicKey::from_spki(info.subject_pki.raw)?;
        // Whoever could have a foreign key certified under its own name would pass for that key's holder.
        if !is_signed(&key, info.raw, &request.signature_value.data) {
            return Err(RequestError::NotProven);
        }
        let (mut uri_names, mut hosts) = (Vec::new(), Vec::new());
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::URI(name) => uri_names.push((*name).to_owned()),
                    GeneralName::DNSName(name) => hosts.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => hosts.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        Ok(Self { uri_names, hosts, key })
    }

    /// The one URI name that it asks for.
    pub fn identity(&self) -> Result<Identity, RequestError> {
        match self.uri_names.as_slice() {
            [name] => {
                name.parse().map_err(|error: concord_model::ParseError| RequestError::Malformed(error.to_string()))
            }
            several => Err(RequestError::UriNames { found: several.len() }),
        }
    }
}

/// An address as it stands in a certificate.
pub(crate) fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string())).ok()
}

fn is_signed(key: &LeafPublicKey, message: &[u8], signature: &[u8]) -> bool {
    let algorithms = default_provider().signature_verification_algorithms;
    let kind = key.algorithm_id();
    let mut of_kind = algorithms.all.iter().filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
    of_kind.any(|algorithm| algorithm.verify_signature(key.as_bytes(), message, signature).is_ok())
        || concord_faults::planted("certify-a-key-without-its-proof")
}
