//! Participants with real certificates, and a server of KAZ's node on a real socket.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use concord_identity::{
    Admission, AnchorKeys, Anchors, Application, CertificateRequest, Credentials, ExpectedServer, LeafKey, LeafKeyKind,
    client_config, server_config,
};
use concord_model::{Identity, ParticipantCode, Timestamp};
use concord_server::{
    ConnectError, Connections, GrpcServer, Health, MethodTable, Readiness, Row, ServeError, Shutdown,
};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

/// Longer than anything that these tests wait for, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const SERVER: &str = "spiffe://kaz.concord/node/main";
pub const AGENCY: &str = "spiffe://kaz.concord/agency/cert";
pub const OFFICER: &str = "spiffe://kaz.concord/officer/aliya";
pub const OPERATOR: &str = "spiffe://kaz.concord/operator/ops";

pub fn kaz() -> ParticipantCode {
    ParticipantCode::parse("KAZ").unwrap()
}

pub fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap())
}

/// Participants, each with its own anchor.
pub struct Forum {
    keys: BTreeMap<ParticipantCode, AnchorKeys>,
    pub anchors: Anchors,
}

impl Forum {
    pub fn new() -> Self {
        let keys: BTreeMap<_, _> = ["KAZ", "UZB", "SEC"]
            .map(|code| {
                let code = ParticipantCode::parse(code).unwrap();
                (code.clone(), AnchorKeys::create(&code, now()).unwrap())
            })
            .into();
        let anchors = Anchors::none();
        anchors.replace(keys.iter().map(|(code, keys)| (code.clone(), vec![keys.anchor().clone()])).collect());
        Self { keys, anchors }
    }

    pub fn credentials(&self, identity: &str) -> Credentials {
        self.credentials_until(identity, None)
    }

    pub fn credentials_until(&self, identity: &str, not_after: Option<Timestamp>) -> Credentials {
        let identity: Identity = identity.parse().unwrap();
        let key = LeafKey::generate(LeafKeyKind::for_role(identity.role)).unwrap();
        let mut request = CertificateRequest::leaf(&identity, key.public(), now());
        request.not_after = not_after.unwrap_or(request.not_after);
        let leaf = self.keys[&identity.participant].issue(&request).unwrap();
        Credentials::new(vec![leaf], &key).unwrap()
    }

    pub fn server_tls(&self, admission: Admission) -> Arc<ServerConfig> {
        server_config(&self.credentials(SERVER), &self.anchors, admission, Application::Grpc).unwrap()
    }

    pub fn client_tls(&self, identity: &str) -> Arc<ClientConfig> {
        self.tls_with(&self.credentials(identity), SERVER, Application::Grpc)
    }

    pub fn tls_with(&self, credentials: &Credentials, server: &str, application: Application) -> Arc<ClientConfig> {
        let expected = ExpectedServer::Exactly(server.parse().unwrap());
        client_config(credentials, &self.anchors, expected, application).unwrap()
    }

    pub async fn connect(&self, address: SocketAddr, identity: &str) -> Result<Channel, ConnectError> {
        concord_server::connect(&address.to_string(), self.client_tls(identity)).await
    }

    pub async fn health(&self, address: SocketAddr, identity: &str) -> HealthClient<Channel> {
        HealthClient::new(self.connect(address, identity).await.unwrap())
    }
}

pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub connections: Connections,
    pub readiness: Readiness,
    pub shutdown: Shutdown,
    pub ended: JoinHandle<Result<(), ServeError>>,
}

/// Health, reflection and nothing else.
pub async fn start(forum: &Forum, admission: Admission, rows: &[Row]) -> Running {
    let (health, service) = Health::new(&[]).await;
    let reflection = concord_server::reflection(&["concord.agency.v1.AgencyService"]).unwrap();
    let routes = Routes::new(service).add_service(reflection);
    start_with(forum, admission, rows, routes, health, Shutdown::new()).await
}

pub async fn start_with(
    forum: &Forum,
    admission: Admission,
    rows: &[Row],
    routes: Routes,
    health: Health,
    shutdown: Shutdown,
) -> Running {
    start_over(forum.server_tls(admission), rows, routes, health, shutdown).await
}

pub async fn start_over(
    tls: Arc<ServerConfig>,
    rows: &[Row],
    routes: Routes,
    health: Health,
    shutdown: Shutdown,
) -> Running {
    let (listener, address) = listener().await;
    let connections = Connections::new();
    let readiness = Readiness::new();
    let server = GrpcServer {
        audit: concord_server::audit::Audit::off(),
        routes,
        table: Arc::new(MethodTable::new(kaz(), rows)),
        health,
        connections: connections.clone(),
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
    };
    let ended = tokio::spawn(server.serve(listener, tls));
    Running { address, connections, readiness, shutdown, ended }
}

pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}
