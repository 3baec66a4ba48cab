//! The TLS of every connection: version 1.3 only, both sides with certificates, nothing ever resumed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::admission::{Admission, ExpectedServer};
use crate::anchors::Anchors;
use crate::certificate::Caller;
use crate::files::FileError;
use crate::leaf_key::LeafKey;
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

/// What one side shows of itself: its chain, leaf first, and the leaf's key. Shows only its length.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Puts a chain, leaf first, and its key together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &LeafKey) -> Result<Self, TlsError> {
        Ok(Self { chain, key: key.to_rustls()? })
    }

    /// Reads a PEM file of certificates, leaf first, and one with a private key of any kind that TLS 1.3 knows. Of several keys the
    /// leaf's is taken: while a pair is replaced both stand there.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let (chain, key) = pair::load(certificates, key)?;
        Ok(Self { chain, key })
    }

    /// Who the holder of these is, by the rules that the peer will apply to the leaf's names.
    /// Servers ask at their start, so that a wrong certificate is found before a port opens.
    pub fn caller(&self) -> Result<Caller, CertificateRefusal> {
        let leaf = self.chain.first().ok_or_else(|| CertificateRefusal::Malformed("there is none".to_owned()))?;
        Caller::from_verified_certificate(leaf)
    }

    /// The key, to sign a request with.
    pub fn leaf_key(&self) -> Result<LeafKey, KeyError> {
        LeafKey::from_pkcs8_der(self.key.secret_der())
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} certificates)", self.chain.len())
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

/// The configuration of a listener. `anchors` stays shared: replacing its table changes the next handshake.
pub fn server_config(
    credentials: &Credentials,
    anchors: &Anchors,
    admission: Admission,
    application: Application,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier =
        CallerVerifier { anchors: anchors.clone(), admission, algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    // A resumed session would skip the verifier: who left or was held could come back with a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = application.protocols();
    Ok(Arc::new(config))
}

/// The configuration of a client that means to call `expected`, known under the pinned `anchors`.
pub fn client_config(
    credentials: &Credentials,
    anchors: &Anchors,
    expected: ExpectedServer,
    application: Application,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier =
        ServerVerifier { anchors: anchors.clone(), expected, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = application.protocols();
    Ok(Arc::new(config))
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

#[cfg(test)]
mod tests {
    use super::*;

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
