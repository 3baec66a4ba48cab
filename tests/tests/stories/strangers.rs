//! Whoever connects without a certificate that counts: refused in the handshake, told little, and nobody else disturbed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use concord_identity::{
    Anchor, AnchorKeys, CertificateRequest, Credentials, LeafKey, LeafKeyKind, Profile, ProfileSettings, SigningKey,
    read_text,
};
use concord_model::{Identity, Name, ParticipantCode, Role, Timestamp};
use concord_tests::{Forum, RawNode, concord, exchange_ids, words};

const DAY_MICROS: i64 = 86_400_000_000;

fn identity(code: &str, role: Role) -> Identity {
    Identity { participant: ParticipantCode::parse(code).unwrap(), role, name: Name::parse("main").unwrap() }
}

fn anchor(dir: &Path) -> AnchorKeys {
    AnchorKeys::load(&dir.join("anchor/certificate.pem"), &dir.join("anchor/key.pem")).unwrap()
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // Certificates tell whole seconds.
    Timestamp::from_micros(i64::try_from(since.as_secs()).unwrap() * 1_000_000)
}

fn days(days: i64) -> Timestamp {
    Timestamp::from_micros(now().as_micros() + days * DAY_MICROS)
}

/// Connects to the hub with a certificate of KAZ's anchor, or another's, after changing what it says.
fn connect(
    forum: &Forum,
    anchor: &AnchorKeys,
    identity: &Identity,
    change: impl FnOnce(&mut CertificateRequest),
) -> Result<(), String> {
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let mut request = CertificateRequest::leaf(identity, key.public(), now());
    change(&mut request);
    let credentials = Credentials::new(vec![anchor.issue(&request).unwrap()], &key).unwrap();
    let raw = RawNode::with(forum, "KAZ", credentials, SigningKey::generate().unwrap());
    raw.try_connect().map_err(|error| error.to_string())
}

#[test]
fn only_certificates_that_count_get_through_the_hubs_door() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let own = anchor(&forum.node_dir("KAZ"));
    let node = identity("KAZ", Role::Node);
    let foreign = AnchorKeys::create(&ParticipantCode::parse("KAZ").unwrap(), now()).unwrap();
    let not_enrolled = AnchorKeys::create(&ParticipantCode::parse("TUR").unwrap(), now()).unwrap();

    assert_eq!(connect(&forum, &own, &node, |_| {}), Ok(()), "a good certificate is let in");
    let refusals = [
        ("another anchor", connect(&forum, &foreign, &node, |_| {})),
        ("another state's anchor", connect(&forum, &anchor(&forum.node_dir("IRN")), &node, |_| {})),
        ("not enrolled", connect(&forum, &not_enrolled, &identity("TUR", Role::Node), |_| {})),
        (
            "expired",
            connect(&forum, &own, &node, |request| (request.not_before, request.not_after) = (days(-9), days(-1))),
        ),
        (
            "not yet valid",
            connect(&forum, &own, &node, |request| (request.not_before, request.not_after) = (days(1), days(9))),
        ),
        (
            "two URI names",
            connect(&forum, &own, &node, |request| request.uri_names.push(identity("KAZ", Role::Officer).to_string())),
        ),
        ("no URI name", connect(&forum, &own, &node, |request| request.uri_names.clear())),
        (
            "a foreign URI name",
            connect(&forum, &own, &node, |request| request.uri_names = vec!["spiffe://example.org/node".to_owned()]),
        ),
        ("an agency", connect(&forum, &own, &identity("KAZ", Role::Agency), |_| {})),
        ("an officer of a state", connect(&forum, &own, &identity("KAZ", Role::Officer), |_| {})),
        ("a hub of a state", connect(&forum, &own, &identity("KAZ", Role::Hub), |_| {})),
        ("for servers only", connect(&forum, &own, &node, |request| (request.client, request.server) = (false, true))),
    ];
    let words: Vec<String> =
        refusals.into_iter().map(|(what, refusal)| refusal.expect_err(&format!("{what} was let in"))).collect();
    // What this side says of its own certificate's time it says by its own clock; see `certificates` for the alert, which is one for all.
    let (by_own_clock, words): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| word.contains("this side's own certificate is valid from"));
    assert_eq!(by_own_clock.len(), 2, "{by_own_clock:#?}");
    // All others hear the same: nothing tells who is enrolled.
    assert!(words.iter().all(|word| *word == words[0] && word.contains("refused the connection")), "{words:#?}");

    let sent = forum.agency("KAZ").submit("all the same", "--wait delivered");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent.id]);
}

#[test]
fn a_command_with_an_expired_or_foreign_certificate_says_so() {
    let forum = Forum::of(&["KAZ"]);
    let dir = forum.node_dir("KAZ");
    let server_anchor = Anchor::from_pem(&read_text(&dir.join("anchor/certificate.pem")).unwrap()).unwrap();
    let receive = |name: &str, anchor: &AnchorKeys, who: &Identity, change: &dyn Fn(&mut CertificateRequest)| {
        let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
        let mut request = CertificateRequest::leaf(who, key.public(), now());
        change(&mut request);
        let settings = ProfileSettings {
            identity: who.clone(),
            server: identity("KAZ", Role::Node),
            address: Some(forum.address(&dir, "listen")),
            addresses_file: None,
        };
        let profile = forum.path().join(name);
        Profile::create(&profile, &settings, &[anchor.issue(&request).unwrap()], &key, &server_anchor).unwrap();
        concord(words!["receive", "--profile", profile])
    };
    let own = anchor(&dir);
    let foreign = AnchorKeys::create(&ParticipantCode::parse("KAZ").unwrap(), now()).unwrap();
    let agency = identity("KAZ", Role::Agency);
    let expired = |request: &mut CertificateRequest| (request.not_before, request.not_after) = (days(-9), days(-1));
    receive("expired", &own, &agency, &expired).refused(3, "CERTIFICATE_EXPIRED");
    receive("foreign", &foreign, &agency, &|_| {}).refused(3, "REFUSED_BY_PEER");
    // A good certificate of an agency that nobody added.
    receive("unknown", &own, &agency, &|_| {}).refused(3, "AGENCY_UNKNOWN");
    assert!(forum.agency("KAZ").receive_rest().is_empty());
}

#[test]
fn garbage_on_the_ports_disturbs_nobody() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\xff\xff",
        &[0xff; 70_000],
        b"\x00",
        b"",
    ];
    let mut open = Vec::new();
    for dir in [forum.hub_dir(), forum.node_dir("KAZ")] {
        for (which, bytes) in garbage.iter().enumerate() {
            for listener in ["listen", "admin"] {
                let mut socket = TcpStream::connect(forum.address(&dir, listener)).unwrap();
                socket.set_read_timeout(Some(concord_tests::DEADLINE)).unwrap();
                // The other side may close before all of it was written.
                let _ = socket.write_all(bytes);
                if which % 2 == 0 && !bytes.is_empty() && bytes.len() > 1 {
                    let _ = socket.shutdown(std::net::Shutdown::Write);
                    let mut answer = Vec::new();
                    // Closed or answered: it does not hang, and what it says is no Concord content.
                    let _ = socket.read_to_end(&mut answer);
                    assert!(!String::from_utf8_lossy(&answer).contains("KAZ/x"));
                } else {
                    open.push(socket);
                }
            }
        }
    }
    // Also while some of them stay open.
    let sent = forum.agency("KAZ").submit("all the same", "--wait delivered");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent.id]);
    for dir in [forum.hub_dir(), forum.node_dir("KAZ")] {
        assert_eq!(forum.status(&dir)["alarms"], serde_json::json!([]));
    }
}
