//! Certificates and revocation lists as any authority could make them, honest or not, and a client that shows whatever it is
//! given.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use concord_identity::{Anchor, Anchors, Application, Credentials, ExpectedServer, LeafKey, client_config, read_text};
use concord_model::ParticipantCode;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::command::DEADLINE;
use crate::forum::Forum;

/// An anchor with its key, or an authority below one.
pub struct Authority {
    name: String,
    serial: SerialNumber,
    issuer: Issuer<'static, KeyPair>,
    /// From this one up to the one below the anchor.
    chain: Vec<CertificateDer<'static>>,
}

/// A certificate with what has to be shown beside it, and a key that need not be its own.
#[derive(Clone)]
pub struct Shown {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key: Vec<u8>,
    /// The leaf's.
    pub serial: SerialNumber,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({} certificates)", self.chain.len())
    }
}

impl Authority {
    /// The anchor in the folder of a hub or node.
    pub fn anchor(dir: &Path, code: &str) -> Self {
        Self::of_key(code, KeyPair::from_pem(&fs::read_to_string(dir.join("anchor/key.pem")).unwrap()).unwrap())
    }

    /// Another anchor of the same name, which nobody enrolled.
    pub fn namesake(code: &str) -> Self {
        Self::of_key(code, KeyPair::generate().unwrap())
    }

    fn of_key(code: &str, key: KeyPair) -> Self {
        let name = format!("{code} trust anchor");
        Self { serial: serial(), issuer: Issuer::new(authority(&name), key), chain: Vec::new(), name }
    }

    /// An authority below this one, after changing what its certificate says.
    #[must_use]
    pub fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.into()];
        chain.extend(self.chain.iter().cloned());
        let serial = params.serial_number.clone().unwrap();
        Self { name: name.to_owned(), serial, issuer: Issuer::new(params, key), chain }
    }

    /// The certificate that honest software would ask for, after changing what it says.
    pub fn leaf(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        self.leaf_with(KeyPair::generate().unwrap(), uri, change)
    }

    /// The same for a given key.
    pub fn leaf_with(&self, key: KeyPair, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial());
        change(&mut params);
        let serial = params.serial_number.clone().unwrap();
        let mut chain = vec![params.signed_by(&key, &self.issuer).unwrap().into()];
        chain.extend(self.chain.iter().cloned());
        Shown { chain, key: key.serialize_der(), serial }
    }

    /// What a server, which is a client too, would be issued for so many days.
    pub fn server_leaf(&self, uri: &str, days: u64) -> Shown {
        let now = SystemTime::now();
        self.leaf(uri, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.not_before = (now - Duration::from_secs(3600)).into();
            params.not_after = (now + Duration::from_secs(days * 86_400)).into();
        })
    }

    /// A list of these serial numbers, in PEM.
    pub fn list(&self, revoked: &[&SerialNumber]) -> String {
        self.list_until(revoked, 2090)
    }

    /// The same, which the next list was to follow by the first day of this year.
    pub fn list_until(&self, revoked: &[&SerialNumber], year: i32) -> String {
        self.list_between(revoked, date_time_ymd(2020, 1, 1).into(), date_time_ymd(year, 1, 1).into())
    }

    /// The same, put out at one moment and to be followed by the next list at the other.
    pub fn list_between(&self, revoked: &[&SerialNumber], begun: SystemTime, next: SystemTime) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: begun.into(),
            next_update: next.into(),
            crl_number: serial(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Its key.
    pub fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// What its certificate says, as far as those that it issues repeat it.
    pub fn named_as(&self) -> CertificateParams {
        authority(&self.name)
    }

    /// The serial number of its own certificate.
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// The certificates below the anchor, in PEM, as they go beside a list.
    pub fn certificates(&self) -> String {
        concord_identity::certificates_to_pem(&self.chain)
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    params
}

/// One that was not used before.
fn serial() -> SerialNumber {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
    SerialNumber::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The serial number of the certificate in a PEM file.
pub fn serial_in(path: &Path) -> SerialNumber {
    let certificates = concord_identity::certificates_from_pem(&read_text(path).unwrap()).unwrap();
    SerialNumber::from_slice(webpki::EndEntityCert::try_from(&certificates[0]).unwrap().serial())
}

impl Shown {
    /// With its own key, as our software would hold it.
    pub fn credentials(&self) -> Credentials {
        Credentials::new(self.chain.clone(), &LeafKey::from_pkcs8_der(&self.key).unwrap()).unwrap()
    }

    /// Puts key and chain where a server of this folder finds its own, one after the other.
    pub fn install(&self, dir: &Path) {
        LeafKey::from_pkcs8_der(&self.key).unwrap().save(&dir.join("tls/key.pem")).unwrap();
        self.install_chain(dir);
    }

    /// The chain alone.
    pub fn install_chain(&self, dir: &Path) {
        let pem = concord_identity::certificates_to_pem(&self.chain);
        concord_identity::write_public(&dir.join("tls/certificate.pem"), pem.as_bytes()).unwrap();
    }
}

/// A listener, and who is expected to answer there.
#[derive(Clone)]
pub struct Listener {
    /// `host:port`.
    pub address: String,
    /// The anchor of whom it belongs to.
    pub anchor: Anchor,
    /// Whose it is.
    pub participant: ParticipantCode,
    /// The server's own name.
    pub server: String,
    /// What is spoken there.
    pub application: Application,
}

/// What came back to somebody who knocked.
#[derive(Debug)]
pub struct Heard {
    /// The bytes of the application, if any came.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub end: Result<(), String>,
}

/// Puts a file into a server's folder of revocation lists as a careful person does: written beside and renamed.
pub fn put_list(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let folder = dir.join("revocation");
    fs::create_dir_all(&folder).unwrap();
    let (new, path) = (folder.join(format!(".{name}.new")), folder.join(name));
    fs::write(&new, content).unwrap();
    fs::rename(new, &path).unwrap();
    path
}

impl Listener {
    /// Where the hub or node of a folder listens for calls; `server` is its own name.
    pub fn of(forum: &Forum, dir: &Path, server: &str) -> Self {
        let code = server.strip_prefix("spiffe://").unwrap()[..3].to_uppercase();
        Self {
            address: forum.address(dir, "listen"),
            anchor: Anchor::from_pem(&read_text(&dir.join("anchor/certificate.pem")).unwrap()).unwrap(),
            participant: ParticipantCode::parse(&code).unwrap(),
            server: server.to_owned(),
            application: Application::Grpc,
        }
    }

    /// The configuration of a client of ours that shows this.
    pub fn client(&self, shown: &Shown) -> Arc<ClientConfig> {
        let pinned = Anchors::pinned(self.participant.clone(), self.anchor.clone());
        let expected = ExpectedServer::Exactly(self.server.parse().unwrap());
        client_config(&shown.credentials(), &pinned, expected, self.application).unwrap()
    }

    /// The leaf that the server shows to somebody who connects now.
    pub async fn leaf_shown_to(&self, shown: &Shown) -> CertificateDer<'static> {
        let socket = TcpStream::connect(&self.address).await.unwrap();
        let name = concord_identity::server_name(&self.address);
        let stream = TlsConnector::from(self.client(shown)).connect(name, socket).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    /// The configuration of somebody else's client, which shows this, or nothing, and does not ask whether it is of any use.
    pub fn any_client(&self, honest: &Shown, shown: Option<&Shown>) -> Arc<ClientConfig> {
        let certified = shown.map(|shown| {
            let key = PrivateKeyDer::try_from(shown.key.clone()).unwrap();
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            Arc::new(CertifiedKey::new(shown.chain.clone(), key))
        });
        let mut config = (*self.client(honest)).clone();
        config.client_auth_cert_resolver = Arc::new(Presents(certified));
        Arc::new(config)
    }

    /// Connects, says this as early as TLS lets it, or nothing, and hears what comes back until the other side ends it.
    pub async fn knock(&self, config: Arc<ClientConfig>, said: &[u8]) -> Heard {
        self.knock_until(config, said, usize::MAX).await
    }

    /// The same, where nothing is to come back: the first byte is enough.
    pub async fn knock_in_vain(&self, config: Arc<ClientConfig>, said: &[u8]) -> Heard {
        self.knock_until(config, said, 1).await
    }

    async fn knock_until(&self, config: Arc<ClientConfig>, said: &[u8], enough: usize) -> Heard {
        let mut bytes = Vec::new();
        let socket = TcpStream::connect(&self.address).await.unwrap();
        // What is said goes out behind the handshake at once, and not when that was acknowledged.
        socket.set_nodelay(true).unwrap();
        let name = concord_identity::server_name(&self.address);
        let listening = async {
            let mut stream = TlsConnector::from(config).connect(name, socket).await?;
            // The other side may have ended it already.
            let _ = stream.write_all(said).await;
            let _ = stream.flush().await;
            while bytes.len() < enough && stream.read_buf(&mut bytes).await? > 0 {}
            Ok(())
        };
        let end: std::io::Result<()> = timeout(DEADLINE, listening).await.expect("it ends in time");
        Heard { bytes, end: end.map_err(|error| error.to_string()) }
    }
}

#[derive(Debug)]
struct Presents(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
