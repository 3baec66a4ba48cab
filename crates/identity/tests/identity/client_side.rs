//! A client talks to the server it means, whoever answers at the address.

use std::sync::Arc;

use concord_identity::{
    Admission, AnchorKeys, Anchors, Application, Credentials, ExpectedServer, HandshakeRefusal, LeafKey, LeafKeyKind,
    TlsError, client_config, server_config,
};

use rustls::sign::SingleCertAndKey;

use crate::foreign::mismatched;
use crate::support::{HUB, NODE, World, anchor_keys, code, connect, identity, leaf};

/// The server shows `credentials`; the client, with `pinned` for SEC, expects `expected`.
async fn answer(
    world: &World,
    credentials: &Credentials,
    pinned: &AnchorKeys,
    expected: ExpectedServer,
    spoken: Application,
) -> Result<Vec<u8>, HandshakeRefusal> {
    let server = server_config(credentials, &world.anchors, Admission::hub(), Application::Grpc).unwrap();
    let pinned = Anchors::pinned(code("SEC"), pinned.anchor().clone());
    let client = client_config(&leaf(&world.kaz, NODE, |_| {}), &pinned, expected, spoken).unwrap();
    connect(server, client).await.client
}

async fn check(world: &World, shown: &Credentials, expected: ExpectedServer, code: Option<&str>) {
    let answer = answer(world, shown, &world.sec, expected, Application::Grpc).await;
    assert_eq!(answer.as_ref().err().map(HandshakeRefusal::code), code, "{answer:?}");
}

#[tokio::test]
async fn only_the_server_that_was_called_is_talked_to() {
    let world = World::new();
    let exactly = || ExpectedServer::Exactly(identity(HUB));
    let second = "spiffe://sec.concord/hub/second";
    let node = "spiffe://sec.concord/node/main";
    check(&world, &leaf(&world.sec, HUB, |_| {}), exactly(), None).await;
    check(&world, &leaf(&world.sec, second, |_| {}), exactly(), Some("OTHER_SERVER")).await;
    check(&world, &leaf(&world.sec, second, |_| {}), ExpectedServer::AnyHub, None).await;
    check(&world, &leaf(&world.sec, node, |_| {}), ExpectedServer::AnyHub, Some("OTHER_SERVER")).await;
    // Under KAZ's anchor, which the client knows nothing of.
    check(&world, &leaf(&world.kaz, HUB, |_| {}), exactly(), Some("UNKNOWN_ISSUER")).await;
    check(&world, &leaf(&world.kaz, NODE, |_| {}), exactly(), Some("UNKNOWN_ISSUER")).await;
    let for_clients = leaf(&world.sec, HUB, |request| request.server = false);
    check(&world, &for_clients, exactly(), Some("CERTIFICATE_PURPOSE")).await;
    let two_names = leaf(&world.sec, HUB, |request| request.uri_names.push(second.to_owned()));
    check(&world, &two_names, exactly(), Some("URI_NAMES")).await;
}

#[tokio::test]
async fn the_right_name_under_another_anchor_than_the_pinned_one_is_refused() {
    let world = World::new();
    let shown = leaf(&world.sec, HUB, |_| {});
    let other = anchor_keys("SEC");
    let expected = ExpectedServer::Exactly(identity(HUB));
    let refusal = answer(&world, &shown, &other, expected, Application::Grpc).await.unwrap_err();
    assert_eq!(refusal.code(), "UNKNOWN_ISSUER", "{refusal}");
}

#[tokio::test]
async fn a_server_with_a_stolen_certificate_is_refused() {
    let world = World::new();
    let stolen = leaf(&world.sec, HUB, |_| {}).chain();
    let thief = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let mut server = (*world.hub()).clone();
    server.cert_resolver = Arc::new(SingleCertAndKey::from(mismatched(stolen, &thief)));
    let client = world.client(&leaf(&world.kaz, NODE, |_| {}));
    let refusal = connect(Arc::new(server), client).await.client.unwrap_err();
    assert_eq!(refusal.code(), "TLS_PROTOCOL", "{refusal}");
    assert!(refusal.to_string().contains("BadSignature"), "{refusal}");
}

#[tokio::test]
async fn a_client_that_speaks_another_protocol_is_refused() {
    let world = World::new();
    let shown = leaf(&world.sec, HUB, |_| {});
    let refusal = answer(&world, &shown, &world.sec, ExpectedServer::AnyHub, Application::Admin).await;
    assert_eq!(refusal, Err(HandshakeRefusal::RefusedByPeer("NoApplicationProtocol".to_owned())));
}

#[test]
fn a_key_that_is_not_the_certificates_is_found_before_a_connection() {
    let world = World::new();
    let certificate = leaf(&world.kaz, NODE, |_| {}).chain();
    let other = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let mixed = Credentials::new(certificate, &other).unwrap();
    let pinned = Anchors::pinned(code("SEC"), world.sec.anchor().clone());
    let result = client_config(&mixed, &pinned, ExpectedServer::AnyHub, Application::Grpc);
    assert!(matches!(result, Err(TlsError::Refused(_))));
    let result = server_config(&mixed, &world.anchors, Admission::hub(), Application::Grpc);
    assert!(matches!(result, Err(TlsError::Refused(_))));
}
