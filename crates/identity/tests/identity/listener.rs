//! A listener lets in exactly those it is for, and nobody else gets a request byte across.

use std::sync::Arc;

use concord_identity::{Credentials, HandshakeRefusal, LeafKey, LeafKeyKind};
use rcgen::{CustomExtension, KeyUsagePurpose};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::foreign::{Authority, KGZ_NODE, Presents, presenting, self_signed};
use crate::support::{NODE, World, anchor_keys, connect, days_from_now, identity, leaf};

#[derive(Clone, Copy)]
enum Expectation {
    /// Let in under this name, and answered.
    Accepted(&'static str),
    /// Refused with this code in the listener's log.
    Refused(&'static str),
}
use Expectation::{Accepted, Refused};

async fn check(world: &World, cell: &str, credentials: Credentials, expectation: Expectation) {
    check_client(world, cell, world.client(&credentials), expectation).await;
}

async fn check_client(world: &World, cell: &str, client: Arc<ClientConfig>, expectation: Expectation) {
    let outcome = connect(world.hub(), client).await;
    match (expectation, outcome.server) {
        (Accepted(expected), Ok(accepted)) => {
            assert_eq!(accepted.caller.identity, identity(expected), "{cell}");
            assert_eq!(accepted.request, b"request", "{cell}");
            assert_eq!(outcome.client.as_deref(), Ok(b"answer".as_slice()), "{cell}");
        }
        (Refused(expected), Err(refusal)) => {
            assert_eq!(refusal.code(), expected, "{cell}: {refusal}");
            let alert = match expected {
                "NO_CERTIFICATE" => "CertificateRequired",
                "TLS_PROTOCOL" => "DecryptError",
                // One alert for every certificate: the peer learns nothing about who is enrolled.
                _ => "CertificateUnknown",
            };
            let told = HandshakeRefusal::RefusedByPeer(alert.to_owned());
            assert_eq!(outcome.client, Err(told), "{cell}");
        }
        (Accepted(_), Err(refusal)) => panic!("{cell}: refused, {refusal}"),
        (Refused(code), Ok(accepted)) => panic!("{cell}: {code} expected, but let in: {accepted:?}"),
    }
}

#[tokio::test]
async fn those_it_is_for_are_let_in_under_their_own_name() {
    let world = World::new();
    for (issuer, uri) in [
        (&world.kaz, NODE),
        (&world.uzb, "spiffe://uzb.concord/node/main"),
        (&world.sec, "spiffe://sec.concord/officer/registrar"),
        (&world.sec, "spiffe://sec.concord/operator/night"),
    ] {
        check(&world, uri, leaf(issuer, uri, |_| {}), Accepted(uri)).await;
    }
    let with_hosts = leaf(&world.kaz, NODE, |request| {
        request.hosts = vec!["node.example.org".to_owned(), "::1".to_owned()];
    });
    check(&world, "names of other kinds beside it", with_hosts, Accepted(NODE)).await;
}

#[tokio::test]
async fn a_caller_carries_its_certificates_fingerprint_and_end() {
    let world = World::new();
    let credentials = leaf(&world.kaz, NODE, |_| {});
    let own = credentials.caller().unwrap();
    let outcome = connect(world.hub(), world.client(&credentials)).await;
    assert_eq!(outcome.server.unwrap().caller, own);
    let remaining = own.not_after.as_micros() - days_from_now(365).as_micros();
    assert!(remaining.abs() < 60_000_000, "{remaining} microseconds off");
}

#[tokio::test]
async fn a_name_that_its_anchor_does_not_vouch_for_is_refused() {
    let world = World::new();
    let impostor = leaf(&world.uzb, NODE, |_| {});
    check(&world, "another participant's anchor", impostor, Refused("UNKNOWN_ISSUER")).await;
    let namesake = leaf(&anchor_keys("KAZ"), NODE, |_| {});
    check(&world, "an anchor of the same name", namesake, Refused("UNKNOWN_ISSUER")).await;
    let stranger = leaf(&anchor_keys("TJK"), "spiffe://tjk.concord/node/main", |_| {});
    check(&world, "a participant not enrolled", stranger, Refused("UNKNOWN_ISSUER")).await;
    check(&world, "self-signed", self_signed(), Refused("UNKNOWN_ISSUER")).await;
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_and_named_as_such() {
    let world = World::new();
    let expired = leaf(&world.kaz, NODE, |request| {
        (request.not_before, request.not_after) = (days_from_now(-3), days_from_now(-1));
    });
    check(&world, "expired", expired, Refused("CERTIFICATE_EXPIRED")).await;
    let early = leaf(&world.kaz, NODE, |request| request.not_before = days_from_now(1));
    check(&world, "not yet valid", early, Refused("CERTIFICATE_NOT_YET_VALID")).await;
}

#[tokio::test]
async fn anything_but_exactly_one_well_formed_uri_name_is_refused() {
    let world = World::new();
    for (names, code) in [
        (vec![], "URI_NAMES"),
        (vec![NODE, "spiffe://kaz.concord/node/other"], "URI_NAMES"),
        (vec![NODE, NODE], "URI_NAMES"),
        (vec![NODE, "https://example.org/"], "URI_NAMES"),
        (vec!["https://example.org/"], "URI_NAME_MALFORMED"),
        (vec!["spiffe://kaz.concord/hub/main"], "URI_NAME_MALFORMED"),
        (vec!["spiffe://KAZ.concord/node/main"], "URI_NAME_MALFORMED"),
    ] {
        let credentials = leaf(&world.kaz, NODE, |request| {
            request.hosts = vec!["node.example.org".to_owned()];
            request.uri_names = names.iter().map(|name| (*name).to_owned()).collect();
        });
        check(&world, &format!("{names:?}"), credentials, Refused(code)).await;
    }
}

#[tokio::test]
async fn a_role_that_the_listener_is_not_for_is_refused() {
    let world = World::new();
    for (issuer, uri) in [
        (&world.kaz, "spiffe://kaz.concord/agency/cert"),
        (&world.kaz, "spiffe://kaz.concord/officer/first"),
        (&world.kaz, "spiffe://kaz.concord/operator/night"),
        (&world.sec, "spiffe://sec.concord/agency/cert"),
        (&world.sec, "spiffe://sec.concord/hub/other"),
    ] {
        check(&world, uri, leaf(issuer, uri, |_| {}), Refused("NOT_ADMITTED")).await;
    }
}

#[tokio::test]
async fn a_certificate_for_another_purpose_is_refused() {
    let world = World::new();
    for (client, server) in [(false, true), (false, false)] {
        let credentials = leaf(&world.kaz, NODE, |request| {
            (request.client, request.server) = (client, server);
        });
        let cell = format!("client {client}, server {server}");
        check(&world, &cell, credentials, Refused("CERTIFICATE_PURPOSE")).await;
    }
    let authority = Authority::enrolled(&world);
    let credentials = authority.leaf(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    let refused = Refused("CERTIFICATE_PURPOSE");
    check(&world, "key usage without digitalSignature", credentials, refused).await;
}

#[tokio::test]
async fn a_chain_may_have_one_intermediate_and_not_two() {
    let world = World::new();
    let first = Authority::enrolled(&world);
    let second = first.subordinate(true);
    let third = second.subordinate(true);
    check(&world, "no intermediate", first.leaf(|_| {}), Accepted(KGZ_NODE)).await;
    check(&world, "one", second.leaf(|_| {}), Accepted(KGZ_NODE)).await;
    check(&world, "two", third.leaf(|_| {}), Refused("CHAIN_TOO_LONG")).await;
    let no_authority = first.subordinate(false);
    let refused = Refused("CERTIFICATE_UNVERIFIED");
    check(&world, "an issuer that is no CA", no_authority.leaf(|_| {}), refused).await;
}

#[tokio::test]
async fn an_unknown_critical_extension_is_refused() {
    let world = World::new();
    let (chain, key) = Authority::enrolled(&world).certify(|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let client = presenting(&world, Presents::certificate(chain, &key));
    let refused = Refused("CERTIFICATE_UNVERIFIED");
    check_client(&world, "unknown critical", client, refused).await;
}

#[tokio::test]
async fn a_connection_without_a_certificate_or_with_a_stolen_one_is_refused() {
    let world = World::new();
    let nothing = presenting(&world, Presents::default());
    check_client(&world, "no certificate", nothing, Refused("NO_CERTIFICATE")).await;
    let certificate = leaf(&world.kaz, NODE, |_| {}).chain();
    let thief = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let stolen = presenting(&world, Presents::certificate(certificate, &thief));
    check_client(&world, "a stolen certificate", stolen, Refused("TLS_PROTOCOL")).await;
}

#[tokio::test]
async fn the_handshake_names_no_authorities() {
    let world = World::new();
    let presents = Presents::default();
    let hints = Arc::clone(&presents.hints);
    connect(world.hub(), presenting(&world, presents)).await;
    assert_eq!(*hints.lock().unwrap(), Some(0));
}

#[tokio::test]
async fn the_hybrid_group_is_negotiated_and_a_second_connection_is_a_full_handshake() {
    let world = World::new();
    let (server, client) = (world.hub(), world.client(&leaf(&world.kaz, NODE, |_| {})));
    // A client of somebody else's, which would resume if it were given a ticket.
    let mut eager = (*client).clone();
    eager.resumption = rustls::client::Resumption::default();
    for client in [client, Arc::new(eager)] {
        for _ in 0..2 {
            let outcome = connect(Arc::clone(&server), Arc::clone(&client)).await;
            let accepted = outcome.server.unwrap();
            assert_eq!(accepted.group, Some(NamedGroup::X25519MLKEM768));
            assert_eq!(accepted.kind, Some(HandshakeKind::Full));
            assert_eq!(accepted.application.as_deref(), Some(b"h2".as_slice()));
            outcome.client.unwrap();
        }
    }
}

#[tokio::test]
async fn tls_1_2_is_refused_with_the_alert_for_it() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    client.write_all(&tls_1_2_hello()).await.unwrap();
    let Err((error, socket)) = TlsAcceptor::from(world.hub()).accept(socket).into_fallible().await else {
        panic!("TLS 1.2 was let in");
    };
    drop(socket);
    assert_eq!(HandshakeRefusal::from_io(&error).code(), "TLS_PROTOCOL");
    let mut alert = [0; 7];
    client.read_exact(&mut alert).await.unwrap();
    let (alert_record, fatal, protocol_version) = (21, 2, 70);
    assert_eq!((alert[0], alert[5], alert[6]), (alert_record, fatal, protocol_version));
}

/// A ClientHello as a TLS 1.2 client writes it (RFC 5246): one suite, P-256, ECDSA with SHA-256.
fn tls_1_2_hello() -> Vec<u8> {
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [groups, signatures].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}
