//! Making certificates: a participant's anchor with its key, the leaves under it, and requests to another CA.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use concord_model::{Fingerprint, Identity, ParticipantCode, Role, Timestamp};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use crate::anchor::{Anchor, AnchorError};
use crate::certificate::parse;
use crate::chain::INTERMEDIATES_MAX;
use crate::files::{self, FileError};
use crate::leaf_key::{CertificateSigner, LeafKey, LeafKeyKind, LeafPublicKey};
use crate::moment::{from_seconds, plus_seconds, rfc3339, to_date_time};
use crate::refusal::CertificateRefusal;
use crate::signing::KeyError;

/// How long an anchor is valid. Its holder makes a new one before; peers keep trusting it until it is replaced.
pub const ANCHOR_LIFETIME_DAYS: i64 = 20 * 365;
/// How long a leaf is valid unless its request says otherwise. After it, peers refuse it as expired.
pub const LEAF_LIFETIME_DAYS: i64 = 365;
/// How far before its making a certificate is valid, for peers whose clocks are behind.
pub const LEAF_BACKDATED_SECONDS: i64 = 10 * 60;

pub(crate) const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
const ANCHOR_NAME_SUFFIX: &str = " trust anchor";

/// A certificate or a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name cannot stand in a certificate.
    #[error("'{0}' cannot stand in a certificate; use an address or a DNS name in ASCII")]
    Name(String),
    /// A moment out of the reach of X.509.
    #[error("the validity is out of range; is the clock right?")]
    Validity,
    /// The anchor was not made here, so its leaves must be made where it was.
    #[error("this anchor was not made by concord; issue the certificate with the CA that made it")]
    ForeignAnchor,
    /// The key is not the anchor's.
    #[error("the private key does not belong to this anchor")]
    KeyMismatch,
    /// An anchor is there already.
    #[error("{} has an anchor already; all that it issued would lose its trust with it. Choose another folder", .0.display())]
    AnchorExists(PathBuf),
    /// What the anchor would issue ends before it begins.
    #[error("the anchor itself ended on {}; make a new one, and have it enrolled in its place", rfc3339(*.0))]
    AnchorEnded(Timestamp),
    /// Somebody was put out with it.
    #[error(
        "the key {} of {holder} was taken back, and whoever has it would be let in again; have a new key made, and a request with that",
        key.grouped()
    )]
    KeyTakenBack {
        /// For whom it was to be.
        holder: String,
        /// The key.
        key: Fingerprint,
    },
    /// What was issued cannot be read back.
    #[error(transparent)]
    Issued(#[from] CertificateRefusal),
    /// The certificate is no anchor.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The key could not be made, read or kept.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The library refused to encode or sign.
    #[error("the certificate could not be encoded: {0}")]
    Encoding(#[from] rcgen::Error),
}

/// What a leaf certificate is to say. [`CertificateRequest::leaf`] fills it in as peers want it; every field may then
/// be changed, and whether the result is acceptable is for those to judge who are shown it.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    /// The subject: participant, role, name. For people; nobody verifies it.
    pub subject: [String; 3],
    /// URI names; peers accept exactly one.
    pub uri_names: Vec<String>,
    /// DNS names and IP addresses, for software that is not ours.
    pub hosts: Vec<String>,
    /// The key it speaks for.
    pub key: LeafPublicKey,
    /// Extended key usage clientAuth.
    pub client: bool,
    /// Extended key usage serverAuth.
    pub server: bool,
    /// First moment of its validity, whole seconds.
    pub not_before: Timestamp,
    /// Last moment of its validity, whole seconds.
    pub not_after: Timestamp,
}

impl CertificateRequest {
    /// One URI name, valid from now for [`LEAF_LIFETIME_DAYS`]; for servers too if the role is that of one.
    pub fn leaf(identity: &Identity, key: LeafPublicKey, now: Timestamp) -> Self {
        Self {
            subject: [identity.participant.to_string(), identity.role.to_string(), identity.name.to_string()],
            uri_names: vec![identity.to_string()],
            hosts: Vec::new(),
            key,
            client: true,
            server: matches!(identity.role, Role::Hub | Role::Node),
            not_before: plus_seconds(now, -LEAF_BACKDATED_SECONDS),
            not_after: plus_seconds(now, LEAF_LIFETIME_DAYS * SECONDS_PER_DAY),
        }
    }

    /// The same, valid for so many days from now.
    #[must_use]
    pub fn lasting(mut self, now: Timestamp, days: u32) -> Self {
        self.not_after = plus_seconds(now, i64::from(days) * SECONDS_PER_DAY);
        self
    }

    /// The same as a PKCS#10 request in PEM, for a CA that is not concord's. `key` is the private half of its key.
    pub fn to_pkcs10_pem(&self, key: &LeafKey) -> Result<String, IssueError> {
        if key.public() != self.key {
            return Err(IssueError::KeyMismatch);
        }
        let request = self.params()?.serialize_request(&CertificateSigner::new(key))?;
        Ok(request.pem()?)
    }

    fn params(&self) -> Result<CertificateParams, IssueError> {
        let mut params = CertificateParams::default();
        let [participant, role, name] = &self.subject;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, participant);
        params.distinguished_name.push(DnType::OrganizationalUnitName, role);
        params.distinguished_name.push(DnType::CommonName, name);
        for uri in &self.uri_names {
            params.subject_alt_names.push(SanType::URI(ascii(uri)?));
        }
        for host in &self.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(ascii(host)?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if self.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if self.server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.not_before = to_date_time(self.not_before).ok_or(IssueError::Validity)?;
        params.not_after = to_date_time(self.not_after).ok_or(IssueError::Validity)?;
        Ok(params)
    }
}

fn ascii(name: &str) -> Result<Ia5String, IssueError> {
    Ia5String::try_from(name).map_err(|_| IssueError::Name(name.chars().take(80).collect()))
}

/// A participant's anchor together with its private key, which can issue leaves. Need never be on a node.
pub struct AnchorKeys {
    participant: ParticipantCode,
    anchor: Anchor,
    not_after: Timestamp,
    key: LeafKey,
}

impl AnchorKeys {
    /// Makes a new anchor: ECDSA P-256, valid for [`ANCHOR_LIFETIME_DAYS`], with room for one CA below it.
    pub fn create(participant: &ParticipantCode, now: Timestamp) -> Result<Self, IssueError> {
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256)?;
        let mut params = anchor_params(participant);
        params.serial_number = Some(random_serial()?);
        let not_after = plus_seconds(now, ANCHOR_LIFETIME_DAYS * SECONDS_PER_DAY);
        params.not_before = to_date_time(plus_seconds(now, -LEAF_BACKDATED_SECONDS)).ok_or(IssueError::Validity)?;
        params.not_after = to_date_time(not_after).ok_or(IssueError::Validity)?;
        let certificate = params.self_signed(&CertificateSigner::new(&key))?;
        Self::from_parts(Anchor::from_der(certificate.der())?, key)
    }

    /// Reads what [`AnchorKeys::save`] wrote.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IssueError> {
        let anchor = Anchor::from_pem(&files::read_text(certificate)?)?;
        Self::from_parts(anchor, LeafKey::load(key)?)
    }

    /// Puts an anchor that was made by [`AnchorKeys::create`] and its key together again.
    pub fn from_parts(anchor: Anchor, key: LeafKey) -> Result<Self, IssueError> {
        let (public, participant, not_after) = read_own(&anchor).ok_or(IssueError::ForeignAnchor)?;
        if public != key.public().subject_public_key_info() {
            return Err(IssueError::KeyMismatch);
        }
        Ok(Self { participant, anchor, not_after, key })
    }

    /// Writes the certificate for all to read and the key with mode 0600, both durable when this returns.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), IssueError> {
        self.key.save(key)?;
        Ok(files::write_public(certificate, self.anchor.to_pem().as_bytes())?)
    }

    /// Issues what the request asks for, with a random serial number; none lasts longer than the anchor.
    pub fn issue(&self, request: &CertificateRequest) -> Result<CertificateDer<'static>, IssueError> {
        let mut params = request.params()?;
        let end = to_date_time(self.not_after).ok_or(IssueError::Validity)?;
        if end <= params.not_before {
            return Err(IssueError::AnchorEnded(self.not_after));
        }
        params.not_after = params.not_after.min(end);
        params.serial_number = Some(random_serial()?);
        params.use_authority_key_identifier_extension = true;
        let issuer_params = anchor_params(&self.participant);
        let issuer = Issuer::from_params(&issuer_params, CertificateSigner::new(&self.key));
        Ok(params.signed_by(&request.key, &issuer)?.into())
    }

    pub(crate) fn sign_list(&self, list: CertificateRevocationListParams) -> Result<String, IssueError> {
        let issuer_params = anchor_params(&self.participant);
        let issuer = Issuer::from_params(&issuer_params, CertificateSigner::new(&self.key));
        Ok(list.signed_by(&issuer)?.pem()?)
    }

    /// Whose anchor this is.
    pub fn participant(&self) -> &ParticipantCode {
        &self.participant
    }

    /// The certificate, which others are to trust.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }
}

impl fmt::Debug for AnchorKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnchorKeys({}, {:?})", self.participant, self.anchor)
    }
}

fn anchor_params(participant: &ParticipantCode) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{participant}{ANCHOR_NAME_SUFFIX}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(INTERMEDIATES_MAX as u8));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The public key, the participant and the last moment of an anchor of our own form. Leaves repeat their issuer's name byte for byte,
/// and only that form can be written again.
fn read_own(anchor: &Anchor) -> Option<(Vec<u8>, ParticipantCode, Timestamp)> {
    let certificate = parse(anchor.der()).ok()?;
    let names: Vec<_> = certificate.subject().iter_attributes().collect();
    let [common_name] = names.as_slice() else {
        return None;
    };
    let code = common_name.as_str().ok()?.strip_suffix(ANCHOR_NAME_SUFFIX)?;
    let public = certificate.public_key().raw.to_vec();
    let not_after = from_seconds(certificate.validity().not_after.timestamp());
    Some((public, ParticipantCode::parse(code).ok()?, not_after))
}

fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::Library { action: "draw a serial number" })?;
    // RFC 5280: positive and without a leading zero byte.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
