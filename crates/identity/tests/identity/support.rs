//! Three participants, certificates in every state of repair, and one connection with both its ends' outcomes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use concord_identity::{
    Admission, AnchorKeys, Anchors, Application, Caller, CertificateRequest, Credentials, ExpectedServer,
    HandshakeRefusal, LeafKey, LeafKeyKind, client_config, server_config, server_name,
};
use concord_model::{Identity, ParticipantCode, Timestamp};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) const DAY_MICROS: i64 = 86_400_000_000;
pub(crate) const NODE: &str = "spiffe://kaz.concord/node/main";
pub(crate) const HUB: &str = "spiffe://sec.concord/hub/main";

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

pub(crate) fn days_from_now(days: i64) -> Timestamp {
    Timestamp::from_micros(now().as_micros() + days * DAY_MICROS)
}

pub(crate) fn code(text: &str) -> ParticipantCode {
    ParticipantCode::parse(text).unwrap()
}

pub(crate) fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// An anchor with its keys, made now.
pub(crate) fn anchor_keys(participant: &str) -> AnchorKeys {
    AnchorKeys::create(&code(participant), now()).unwrap()
}

/// A leaf for this URI name, changed before it is issued.
pub(crate) fn leaf(issuer: &AnchorKeys, uri: &str, change: impl FnOnce(&mut CertificateRequest)) -> Credentials {
    let identity = identity(uri);
    let key = LeafKey::generate(LeafKeyKind::for_role(identity.role)).unwrap();
    let mut request = CertificateRequest::leaf(&identity, key.public(), now());
    change(&mut request);
    Credentials::new(vec![issuer.issue(&request).unwrap()], &key).unwrap()
}

pub(crate) struct World {
    pub(crate) kaz: AnchorKeys,
    pub(crate) uzb: AnchorKeys,
    pub(crate) sec: AnchorKeys,
    /// What the hub trusts: all three.
    pub(crate) anchors: Anchors,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            kaz: anchor_keys("KAZ"),
            uzb: anchor_keys("UZB"),
            sec: anchor_keys("SEC"),
            anchors: Anchors::none(),
        };
        world.enrol(&[&world.kaz, &world.uzb, &world.sec]);
        world
    }

    pub(crate) fn enrol(&self, participants: &[&AnchorKeys]) {
        let table: BTreeMap<_, _> =
            participants.iter().map(|keys| (keys.participant().clone(), vec![keys.anchor().clone()])).collect();
        self.anchors.replace(table);
    }

    /// The hub's listener.
    pub(crate) fn hub(&self) -> Arc<ServerConfig> {
        let credentials = leaf(&self.sec, HUB, |_| {});
        server_config(&credentials, &self.anchors, Admission::hub(), Application::Grpc).unwrap()
    }

    /// A client with these credentials that calls the hub and has its anchor pinned.
    pub(crate) fn client(&self, credentials: &Credentials) -> Arc<ClientConfig> {
        let pinned = Anchors::pinned(code("SEC"), self.sec.anchor().clone());
        let expected = ExpectedServer::Exactly(identity(HUB));
        client_config(credentials, &pinned, expected, Application::Grpc).unwrap()
    }
}

/// What a listener knows of a connection it let in.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) caller: Caller,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) kind: Option<HandshakeKind>,
    pub(crate) application: Option<Vec<u8>>,
    pub(crate) request: Vec<u8>,
}

/// How the two ends fared: the listener's view, and the answer that the client got to its request.
pub(crate) struct Outcome {
    pub(crate) server: Result<Accepted, HandshakeRefusal>,
    pub(crate) client: Result<Vec<u8>, HandshakeRefusal>,
}

const REQUEST: &[u8; 7] = b"request";

/// Connects once over 127.0.0.1; the client sends its request as early as TLS lets it.
pub(crate) async fn connect(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client_done, wait_for_client) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        match TlsAcceptor::from(server).accept(socket).into_fallible().await {
            Ok(mut stream) => {
                let connection = stream.get_ref().1;
                let certificate = connection.peer_certificates().unwrap().first().unwrap();
                let mut accepted = Accepted {
                    caller: Caller::from_verified_certificate(certificate).unwrap(),
                    group: connection.negotiated_key_exchange_group().map(|group| group.name()),
                    kind: connection.handshake_kind(),
                    application: connection.alpn_protocol().map(<[u8]>::to_vec),
                    request: vec![0; REQUEST.len()],
                };
                stream.read_exact(&mut accepted.request).await.unwrap();
                stream.write_all(b"answer").await.unwrap();
                stream.shutdown().await.unwrap();
                Ok(accepted)
            }
            Err((error, socket)) => {
                // Open until the client has read its alert: closing now could reset the connection before.
                wait_for_client.await.unwrap();
                drop(socket);
                Err(HandshakeRefusal::from_io(&error))
            }
        }
    });
    let exchange = async {
        let socket = TcpStream::connect(address).await?;
        let name = server_name(&address.to_string());
        let mut stream = TlsConnector::from(client).connect(name, socket).await?;
        stream.write_all(REQUEST).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let client = exchange.await.map_err(|error: std::io::Error| HandshakeRefusal::from_io(&error));
    // Nobody waits for it when the handshake came to an end.
    let _ = client_done.send(());
    Outcome { server: serving.await.unwrap(), client }
}
