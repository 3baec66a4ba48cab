//! Whoever is not let in disturbs nobody, and is told what it may know.
#![allow(clippy::unwrap_used)]

mod common;

use common::{AGENCY, Forum, PATIENCE, SERVER, in_time, kaz, listener, start};
use concord_identity::{Admission, Application};
use concord_server::{
    ACCEPTED_WAITING_MAX, CONNECTIONS_PER_CALLER_MAX, ConnectError, Connections, HANDSHAKES_AT_ONCE_MAX, accept,
};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic_health::pb::HealthCheckRequest;

#[tokio::test]
async fn garbage_and_idle_handshakes_do_not_disturb_an_honest_client() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let mut honest = forum.health(server.address, AGENCY).await;

    let mut strangers = Vec::new();
    for _ in 0..40 {
        let mut garbage = TcpStream::connect(server.address).await.unwrap();
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        strangers.push(garbage);
    }
    // More than there are places: without one that gives way, nobody else would get one.
    for _ in 0..HANDSHAKES_AT_ONCE_MAX + 40 {
        strangers.push(TcpStream::connect(server.address).await.unwrap());
    }
    honest.check(HealthCheckRequest::default()).await.unwrap();
    // Far sooner than an idle handshake's own time would free a place.
    let began = std::time::Instant::now();
    let mut late = forum.health(server.address, AGENCY).await;
    late.check(HealthCheckRequest::default()).await.unwrap();
    assert!(began.elapsed().as_secs() < concord_server::HANDSHAKE_TIMEOUT_SECONDS / 2);
}

#[tokio::test]
async fn an_idle_handshake_is_closed_when_its_time_is_over() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let read = in_time("the close", idle.read_to_end(&mut Vec::new())).await;
    assert_eq!(read.unwrap(), 0);
}

#[tokio::test]
async fn a_verified_connection_that_the_server_does_not_take_over_is_closed_when_its_time_is_over() {
    const TOO_MANY: usize = 2;
    let forum = Forum::new();
    let (listener, address) = listener().await;
    let tls = forum.server_tls(Admission::node(&kaz()));
    let mut incoming = accept(
        listener,
        tls,
        Connections::new(),
        kaz(),
        concord_server::Door { audit: concord_server::audit::Audit::off(), name: "grpc" },
    );
    let agencies = ["a", "b", "c"].map(|name| forum.client_tls(&format!("spiffe://kaz.concord/agency/{name}")));
    let mut peers = FuturesUnordered::new();
    for number in 0..ACCEPTED_WAITING_MAX + TOO_MANY {
        let connector = TlsConnector::from(agencies[number % agencies.len()].clone());
        let stream = TcpStream::connect(address).await.unwrap();
        let server = concord_identity::server_name("127.0.0.1:1");
        let mut stream = connector.connect(server, stream).await.unwrap();
        peers.push(async move { stream.read_to_end(&mut Vec::new()).await });
    }
    for _ in 0..TOO_MANY {
        drop(in_time("the close", peers.next()).await.unwrap());
    }
    assert!(futures::poll!(peers.next()).is_pending(), "those with a place keep it");
    for _ in 0..ACCEPTED_WAITING_MAX {
        in_time("a connection", incoming.next()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_caller_of_another_forum_or_role_is_refused_alike_and_knows_that_it_was() {
    let forum = Forum::new();
    let other_forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let mut told = Vec::new();
    for credentials in [
        other_forum.credentials(AGENCY),
        forum.credentials("spiffe://uzb.concord/agency/cert"),
        forum.credentials(SERVER),
    ] {
        let tls = forum.tls_with(&credentials, SERVER, Application::Grpc);
        let error = concord_server::connect(&server.address.to_string(), tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::TlsRefused { .. }), "{error}");
        told.push(error.to_string());
    }
    assert!(told[0].contains("the other side refused the connection"), "{}", told[0]);
    assert!(told.iter().all(|words| *words == told[0]), "{told:?}");
    assert_eq!(server.connections.list(), []);
}

#[tokio::test]
async fn a_client_says_why_it_did_not_connect() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let credentials = forum.credentials(AGENCY);
    let other = forum.tls_with(&credentials, "spiffe://kaz.concord/node/other", Application::Grpc);
    let error = concord_server::connect(&server.address.to_string(), other).await.unwrap_err();
    assert!(error.to_string().contains("spiffe://kaz.concord/node/main answered"), "{error}");

    let (closed, address) = listener().await;
    drop(closed);
    let error = forum.connect(address, AGENCY).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotReached { .. }), "{error}");

    let tls = forum.client_tls(AGENCY);
    for address in ["", "hub", "hub:", ":", "hub:x", "a b:1", "user@hub:1", "hub:1/x", "https://hub:1"] {
        let error = concord_server::connect(address, tls.clone()).await.unwrap_err();
        assert!(matches!(error, ConnectError::AddressMalformed { .. }), "{address}: {error}");
    }
    let error = concord_server::connect("no-such-host.invalid:7443", tls).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotResolved { .. } | ConnectError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let forum = Forum::new();
    let (silent, address) = listener().await;
    let error = forum.connect(address, AGENCY).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    drop(silent);
}

#[tokio::test]
async fn a_caller_over_its_number_of_connections_is_told_and_others_are_not_touched() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_CALLER_MAX {
        open.push(forum.connect(server.address, AGENCY).await.unwrap());
    }
    let error = forum.connect(server.address, AGENCY).await.unwrap_err();
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
    let other = forum.connect(server.address, "spiffe://kaz.concord/agency/other").await;
    assert!(other.is_ok());
    drop(open);
    let again = async { while forum.connect(server.address, AGENCY).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}
