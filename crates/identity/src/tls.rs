//! The TLS of every connection: version 1.3 only, both sides with certificates, nothing ever resumed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use concord_model::{Identity, Timestamp};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, InconsistentKeys, NamedGroup, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};

use crate::admission::{Admission, ExpectedServer};
use crate::anchor::Anchor;
use crate::anchors::Anchors;
use crate::certificate::Caller;
use crate::chain::{Purpose, verify_chain};
use crate::files::FileError;
use crate::leaf_key::LeafKey;
use crate::moment::to_unix_time;
use crate::pair;
use crate::refusal::CertificateRefusal;
use crate::signing::KeyError;
use crate::verifier::{CallerVerifier, ServerVerifier};

/// Certificates and key cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what it should be.
    #[error("{file} is not usable: {why}")]
    Content {
        /// Which file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The library does not take them, for instance because key and certificate do not belong together.
    #[error("certificate and private key cannot be used for TLS: {0}; do they belong together?")]
    Refused(#[from] rustls::Error),
}

/// What one side shows of itself: its chain, leaf first, and the leaf's key. Clones share it: what one renews, every configuration
/// that was made of it shows from the next handshake on. Shows only its length.
#[derive(Clone)]
pub struct Credentials(Arc<ArcSwap<CertifiedKey>>);

impl Credentials {
    /// Puts a chain, leaf first, and its key together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &LeafKey) -> Result<Self, TlsError> {
        Self::of(chain, key.to_rustls()?)
    }

    fn of(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let key = default_provider().key_provider.load_private_key(key)?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(CertifiedKey::new(chain, key)))))
    }

    /// Reads a PEM file of certificates, leaf first, and one with a private key of any kind that TLS 1.3 knows. Of several keys the
    /// leaf's is taken: while a pair is replaced both stand there.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let (chain, key) = pair::load(certificates, key)?;
        Self::of(chain, key)
    }

    /// Refuses a key that is not the leaf's: two files may be read while only one of them is the new one.
    pub fn check_pair(&self) -> Result<(), TlsError> {
        match self.0.load().keys_match() {
            // A kind of key that cannot say whose it is fails in the handshake.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows from the next handshake on what the other has, chain and key in one step.
    pub fn renew(&self, with: &Self) {
        self.0.store(with.0.load_full());
    }

    /// Who the holder of these is, by the rules that the peer will apply to the leaf's names.
    /// Servers ask at their start, so that a wrong certificate is found before a port opens.
    pub fn caller(&self) -> Result<Caller, CertificateRefusal> {
        let shown = self.0.load();
        let leaf = shown.cert.first().ok_or_else(|| CertificateRefusal::Malformed("there is none".to_owned()))?;
        Caller::from_verified_certificate(leaf)
    }

    /// Who the holder is, if the anchors of that participant stand behind the chain at a moment, for clients and for servers alike.
    pub fn verify_under(&self, anchors: &[Anchor], now: Timestamp) -> Result<Identity, CertificateRefusal> {
        let chain = self.chain();
        let (leaf, issuers) =
            chain.split_first().ok_or_else(|| CertificateRefusal::Malformed("there is none".to_owned()))?;
        let verify = |purpose| verify_chain(leaf, issuers, |_| anchors.to_vec(), purpose, to_unix_time(now));
        verify(Purpose::Client)?;
        verify(Purpose::Server).map(|leaf| leaf.identity)
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.load().cert.clone()
    }

    fn shown(&self) -> Result<Arc<Shown>, TlsError> {
        self.check_pair()?;
        Ok(Arc::new(Shown(self.clone())))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} certificates)", self.0.load().cert.len())
    }
}

/// Hands a handshake the pair that is the present one when it asks.
#[derive(Debug)]
struct Shown(Credentials);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.0.load_full())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What is spoken inside (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// gRPC over HTTP/2.
    Grpc,
    /// The admin listener's HTTP/1.1.
    Admin,
}

impl Application {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![b"h2".to_vec()],
            Self::Admin => vec![b"http/1.1".to_vec()],
        }
    }
}

/// Whether a client offers the hybrid key exchange, X25519MLKEM768. Its first message is then larger than one packet, which some
/// devices between drop; whoever records the traffic without it can read it once there is a quantum computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HybridKey {
    /// Offered first; every server of ours takes it.
    #[default]
    Prefer,
    /// Not offered.
    Off,
}

impl HybridKey {
    /// As a configuration names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefer => "prefer",
            Self::Off => "off",
        }
    }
}

/// The configuration of a listener. `credentials` and `anchors` stay shared: renewing the one or replacing the other's table changes
/// the next handshake.
pub fn server_config(
    credentials: &Credentials,
    anchors: &Anchors,
    admission: Admission,
    application: Application,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier =
        CallerVerifier { anchors: anchors.clone(), admission, algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_details(Arc::new(provider), Arc::new(MachineTime))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(credentials.shown()?);
    // A resumed session would skip the verifier: who left or was held could come back with a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = application.protocols();
    Ok(Arc::new(config))
}

/// The configuration of a client that means to call `expected`, known under the pinned `anchors`. Both are shared as above.
pub fn client_config(
    credentials: &Credentials,
    anchors: &Anchors,
    expected: ExpectedServer,
    application: Application,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(credentials, anchors, expected, application, HybridKey::Prefer)
}

/// The same, with or without the hybrid key exchange.
pub fn client_config_with(
    credentials: &Credentials,
    anchors: &Anchors,
    expected: ExpectedServer,
    application: Application,
    hybrid: HybridKey,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider_with(hybrid);
    let verifier =
        ServerVerifier { anchors: anchors.clone(), expected, algorithms: provider.signature_verification_algorithms };
    let config = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(MachineTime))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(credentials.shown()?);
    Ok(without_resumption(config, application))
}

/// The configuration of a client that knows nobody and shows nothing of itself: a handshake gets as far as the server's certificate, which
/// it refuses whoever it names. Only for finding out whether handshakes get through, where no anchor is known yet.
pub fn trying_config(application: Application, hybrid: HybridKey) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = ServerVerifier {
        anchors: Anchors::none(),
        expected: ExpectedServer::AnyHub,
        algorithms: provider_with(hybrid).signature_verification_algorithms,
    };
    let config = ClientConfig::builder_with_details(Arc::new(provider_with(hybrid)), Arc::new(MachineTime))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(without_resumption(config, application))
}

fn without_resumption(mut config: ClientConfig, application: Application) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = application.protocols();
    Arc::new(config)
}

/// The same configuration, by which certificates are judged at a given moment and not by this machine's clock. What a server shows
/// that is accepted by it was made by the pinned anchor, and may be over: only for asking such a server for its time, to *say* that a
/// clock is wrong. Nothing may be decided by what it answers.
pub fn judging_at(config: &ClientConfig, moment: Timestamp) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.time_provider = Arc::new(FixedTime(to_unix_time(moment)));
    Arc::new(config)
}

/// What this side would show of itself: its leaf.
pub fn own_leaf(config: &ClientConfig) -> Option<CertificateDer<'static>> {
    let schemes = config.crypto_provider().signature_verification_algorithms.supported_schemes();
    config.client_auth_cert_resolver.resolve(&[], &schemes)?.cert.first().cloned()
}

/// The machine's clock, as it is shown to everything else of this process, too.
#[derive(Debug)]
struct MachineTime;

impl TimeProvider for MachineTime {
    fn current_time(&self) -> Option<UnixTime> {
        let shift = concord_faults::clock_offset_micros() / 1_000_000;
        let seconds = UnixTime::now().as_secs();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds.saturating_add_signed(shift))))
    }
}

#[derive(Debug)]
struct FixedTime(UnixTime);

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// The name that goes into the handshake (SNI) for `host:port`, a host or an address. It is never verified, so a
/// host that is no DNS name is not an error: an address takes its place, and rustls then sends no name at all.
pub fn server_name(address: &str) -> ServerName<'static> {
    let host = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            if port.bytes().all(|b| b.is_ascii_digit()) { host } else { address }
        }
        _ => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .unwrap_or_else(|_| ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()))
}

/// Named here and not taken from a process default, which any library could have set. The hybrid group comes first
/// by our order, not by a feature flag: recorded traffic should stay closed to a later quantum computer.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    }
}

fn provider_with(hybrid: HybridKey) -> CryptoProvider {
    let mut provider = provider();
    if hybrid == HybridKey::Off {
        provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_key_is_never_repeated_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let [key, certificates] = ["key.pem", "certificate.pem"].map(|name| folder.path().join(name));
        let anchor = crate::AnchorKeys::create(
            &concord_model::ParticipantCode::parse("KAZ").unwrap(),
            concord_model::Timestamp::from_micros(0),
        )
        .unwrap();
        std::fs::write(&certificates, anchor.anchor().to_pem()).unwrap();
        for damaged in ["-----BEGIN PRIVATE KEY-----c2VjcmV0", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", "c2VjcmV0"] {
            std::fs::write(&key, damaged).unwrap();
            let error = Credentials::load(&certificates, &key).unwrap_err().to_string();
            assert!(error.contains("key.pem is not usable") && !error.contains("c2VjcmV0"), "{error}");
        }
    }

    #[test]
    fn every_address_leads_to_some_server_name() {
        for (address, expected) in [
            ("hub.example.org:7443", "hub.example.org"),
            ("hub.example.org", "hub.example.org"),
            ("127.0.0.1:7443", "127.0.0.1"),
            ("[::1]:7443", "::1"),
            ("::1", "::1"),
            ("no such host!:1", "0.0.0.0"),
            ("", "0.0.0.0"),
        ] {
            assert_eq!(server_name(address).to_str(), expected, "{address}");
        }
    }
}
