//! A participant's connections can be ended at once, and only its.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::ErrorKind;

use common::{AGENCY, Forum, SERVER, in_time, listener, now, start, start_over};
use concord_identity::{Admission, Application, server_config};
use concord_model::{ParticipantCode, Timestamp};
use concord_server::{Connections, Health, Shutdown, accept};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic_health::pb::HealthCheckRequest;

#[tokio::test]
async fn closing_a_participant_ends_its_streams_at_once_and_leaves_others() {
    let forum = Forum::new();
    let server = start(&forum, Admission::hub(), &[]).await;
    let mut watches = Vec::new();
    for identity in
        ["spiffe://kaz.concord/node/main", "spiffe://kaz.concord/node/two", "spiffe://uzb.concord/node/main"]
    {
        let mut client = forum.health(server.address, identity).await;
        let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        watches.push((client, watch));
    }
    assert_eq!(server.connections.list().len(), 3);

    in_time("the close", server.connections.close(&ParticipantCode::parse("KAZ").unwrap())).await;
    let left: Vec<_> = server.connections.list().into_iter().map(|caller| caller.identity.to_string()).collect();
    assert_eq!(left, ["spiffe://uzb.concord/node/main"]);

    let (mut untouched, mut still) = watches.pop().unwrap();
    for (_, mut watch) in watches {
        in_time("the end of a stream", watch.message()).await.unwrap_err();
    }
    untouched.check(HealthCheckRequest::default()).await.unwrap();
    assert!(futures::poll!(std::pin::pin!(still.message())).is_pending());
}

#[tokio::test]
async fn a_peer_that_does_not_read_cannot_hold_its_connection_open() {
    let forum = Forum::new();
    let (listener, address) = listener().await;
    let connections = Connections::new();
    let mut incoming = accept(
        listener,
        forum.server_tls(Admission::node(&common::kaz())),
        connections.clone(),
        common::kaz(),
        concord_server::Door { audit: concord_server::audit::Audit::off(), name: "grpc" },
    );
    let connector = TlsConnector::from(forum.client_tls(AGENCY));
    let stream = TcpStream::connect(address).await.unwrap();
    let (peer, server) =
        tokio::join!(connector.connect(concord_identity::server_name("127.0.0.1:1"), stream), incoming.next());
    let (peer, mut server) = (peer.unwrap(), server.unwrap().unwrap());
    assert_eq!(server.caller().identity.to_string(), AGENCY);

    let (full, wait_until_full) = tokio::sync::oneshot::channel();
    let writing = tokio::spawn(async move {
        let mut full = Some(full);
        let block = vec![0; 64 * 1024];
        loop {
            let mut write = std::pin::pin!(server.write_all(&block));
            let written = match futures::poll!(write.as_mut()) {
                std::task::Poll::Ready(written) => written,
                std::task::Poll::Pending => {
                    if let Some(full) = full.take() {
                        full.send(()).unwrap();
                    }
                    write.await
                }
            };
            if let Err(error) = written {
                return error.kind();
            }
        }
    });
    in_time("a full socket", wait_until_full).await.unwrap();
    in_time("the close", connections.close_all()).await;
    assert_eq!(writing.await.unwrap(), ErrorKind::ConnectionAborted);
    drop(peer);
}

#[tokio::test]
async fn a_stream_does_not_outlive_its_callers_certificate() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&common::kaz()), &[]).await;
    let not_after = Timestamp::from_micros(now().as_micros() + 3_000_000);
    let credentials = forum.credentials_until(AGENCY, Some(not_after));
    let tls = forum.tls_with(&credentials, common::SERVER, Application::Grpc);
    let channel = concord_server::connect(&server.address.to_string(), tls).await.unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    in_time("the end of a stream", watch.message()).await.unwrap_err();
    assert!(now() >= Timestamp::from_micros(not_after.as_micros() / 1_000_000 * 1_000_000));
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_the_server_and_the_next_one_has_its_renewed_one() {
    let forum = Forum::new();
    let not_after = Timestamp::from_micros(now().as_micros() + 3_000_000);
    let credentials = forum.credentials_until(SERVER, Some(not_after));
    let admission = Admission::node(&common::kaz());
    let tls = server_config(&credentials, &forum.anchors, admission, Application::Grpc).unwrap();
    let (health, service) = Health::new(&[]).await;
    let server = start_over(tls, &[], tonic::service::Routes::new(service), health, Shutdown::new()).await;
    let mut client = forum.health(server.address, AGENCY).await;
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    credentials.renew(&forum.credentials(SERVER));
    assert!(futures::poll!(std::pin::pin!(watch.message())).is_pending(), "what is open goes on");
    in_time("the end of a stream", watch.message()).await.unwrap_err();
    assert!(now() >= Timestamp::from_micros(not_after.as_micros() / 1_000_000 * 1_000_000));
    client.check(HealthCheckRequest::default()).await.unwrap();
}
