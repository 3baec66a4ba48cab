//! Requests that anything made, and lists that take back what an anchor issued.

use concord_identity::{
    AnchorFolder, CertificateFacts, CertificateRequest, IssueError, LeafKey, LeafKeyKind, RequestError, Requested,
    RevocationFile, is_only_of, revoked_in,
};
use concord_model::{Identity, Timestamp};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

use crate::support::{DAY_MICROS, NODE, code, days_from_now, identity, now};

fn requested(key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::URI(NODE.try_into().unwrap()));
    params.subject_alt_names.push(SanType::DnsName("node.example.kz".try_into().unwrap()));
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn requests_of_every_kind_of_key_are_read_and_certified_with_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let anchor = AnchorFolder::create(folder.path(), &code("KAZ"), now()).unwrap();
    for key in [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    ] {
        let read = Requested::from_pem(&requested(&key)).unwrap();
        assert_eq!(read.identity().unwrap(), identity(NODE));
        assert_eq!(read.hosts, ["node.example.kz"]);
        let made = anchor.issue(&CertificateRequest::leaf(&identity(NODE), read.key.clone(), now())).unwrap();
        assert_eq!(CertificateFacts::read(&made).unwrap().key, Some(read.key));
    }
    let names: Vec<_> = AnchorFolder::register_in(folder.path()).read().unwrap();
    assert_eq!(names.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), [NODE; 3]);
}

#[test]
fn a_request_that_does_not_prove_its_key_or_carries_a_key_is_refused() {
    let key = KeyPair::generate().unwrap();
    let text = requested(&key);
    let mut block = pem::parse(&text).unwrap().into_contents();
    // A bit of the host, which the signature covers.
    let at = block.windows(4).position(|window| window == b"node").unwrap();
    block[at] ^= 1;
    let changed = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", block));
    assert_eq!(Requested::from_pem(&changed), Err(RequestError::NotProven));
    let with_key = format!("{text}{}", key.serialize_pem());
    assert_eq!(Requested::from_pem(&with_key), Err(RequestError::OtherBlock("PRIVATE KEY".to_owned())));
    assert_eq!(Requested::from_pem("nothing"), Err(RequestError::Absent));
    assert!(matches!(Requested::from_pem(&text.repeat(2)), Err(RequestError::Malformed(_))));
    let plain = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(Requested::from_pem(&plain).unwrap().identity(), Err(RequestError::UriNames { found: 0 }));
}

#[test]
fn a_new_list_names_all_that_those_before_it_named() {
    let folder = tempfile::tempdir().unwrap();
    let anchor = AnchorFolder::create(folder.path(), &code("KAZ"), now()).unwrap();
    let officer: Identity = "spiffe://kaz.concord/officer/first".parse().unwrap();
    let mut held = anchor.hold().unwrap();
    let first = anchor.revoke(&mut held, &[(Some(officer.clone()), "0a".to_owned())], &[], now(), 30).unwrap();
    // A list of the same anchor that its register knows nothing of: made before there was one, or elsewhere.
    std::fs::remove_file(folder.path().join("issued.jsonl")).unwrap();
    let mut held = anchor.hold().unwrap();
    let second =
        anchor.revoke(&mut held, &[(Some(officer), "0b".to_owned())], &[first.text.into_bytes()], now(), 30).unwrap();
    let named = revoked_in([second.text.as_bytes()], anchor.anchor());
    assert_eq!(named.keys().collect::<Vec<_>>(), ["0a", "0b"]);
    assert_eq!(second.named, 2);
    let days = (second.next_update.as_micros() - now().as_micros()) / DAY_MICROS;
    assert!((29..=30).contains(&days), "{days} days");
    let other = AnchorFolder::create(&folder.path().join("other"), &code("KAZ"), now()).unwrap();
    assert!(revoked_in([second.text.as_bytes()], other.anchor()).is_empty(), "a namesake's list is not its own");
}

#[test]
fn what_was_taken_back_without_a_list_can_be_taken_back_again_and_its_key_is_never_certified_again() {
    let folder = tempfile::tempdir().unwrap();
    let anchor = AnchorFolder::create(folder.path(), &code("KAZ"), now()).unwrap();
    let officer: Identity = "spiffe://kaz.concord/officer/first".parse().unwrap();
    let key = LeafKey::generate(LeafKeyKind::Ed25519).unwrap();
    let request = CertificateRequest::leaf(&officer, key.public(), now());
    anchor.issue(&request).unwrap();
    let issued = || anchor.issued_to(std::slice::from_ref(&officer)).unwrap();
    let these: Vec<_> = issued().into_iter().map(|one| (Some(officer.clone()), one.serial)).collect();
    // The list was never written: a full disk, a crash.
    drop(anchor.revoke(&mut anchor.hold().unwrap(), &these, &[], now(), 30).unwrap());
    let again: Vec<_> = issued().into_iter().map(|one| (Some(officer.clone()), one.serial)).collect();
    assert_eq!(again, these);
    let made = anchor.revoke(&mut anchor.hold().unwrap(), &again, &[], now(), 30).unwrap();
    assert!(revoked_in([made.text.as_bytes()], anchor.anchor()).contains_key(&these[0].1));
    assert!(matches!(anchor.issue(&request), Err(IssueError::KeyTakenBack { .. })));
    let other = LeafKey::generate(LeafKeyKind::Ed25519).unwrap();
    anchor.issue(&CertificateRequest::leaf(&officer, other.public(), now())).unwrap();
}

#[test]
fn who_makes_a_list_holds_up_the_next_one_until_the_list_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let anchor = AnchorFolder::create(folder.path(), &code("KAZ"), now()).unwrap();
    let officer: Identity = "spiffe://kaz.concord/officer/first".parse().unwrap();
    let list = folder.path().join("kaz.crl");
    std::thread::scope(|scope| {
        for serial in ["0a", "0b", "0c", "0d"] {
            let (anchor, officer, list) = (&anchor, &officer, &list);
            scope.spawn(move || {
                let mut held = anchor.hold().unwrap();
                let beside: Vec<_> = std::fs::read(list).into_iter().collect();
                let these = [(Some(officer.clone()), serial.to_owned())];
                let made = anchor.revoke(&mut held, &these, &beside, now(), 30).unwrap();
                assert_eq!(
                    made.named,
                    beside.first().map_or(0, |list| revoked_in([list.as_slice()], anchor.anchor()).len()) + 1
                );
                std::fs::write(list, made.text).unwrap();
            });
        }
    });
    assert_eq!(revoked_in([std::fs::read(&list).unwrap().as_slice()], anchor.anchor()).len(), 4);
}

#[test]
fn of_a_key_that_stands_where_requests_or_lists_belong_nothing_is_repeated_in_words() {
    for damaged in ["-----BEGIN PRIVATE KEY-----c2VjcmV0\n", "-----BEGIN X\nc2VjcmV0\n\nMIIB\n-----END X-----\n"] {
        let why = Requested::all_from_pem(damaged).map(drop).unwrap_err().to_string();
        assert!(!why.contains("c2VjcmV0"), "{why}");
        let why = RevocationFile::parse(damaged.as_bytes()).map(drop).unwrap_err();
        assert!(!why.contains("c2VjcmV0"), "{why}");
    }
    let header = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n\nMIIB\n-----END PRIVATE KEY-----\n";
    assert!(pem::parse_many(header).unwrap_err().to_string().contains("c2VjcmV0"), "the library repeats it");
    for why in [
        Requested::all_from_pem(header).map(drop).unwrap_err().to_string(),
        RevocationFile::parse(header.as_bytes()).map(drop).unwrap_err(),
    ] {
        assert!(!why.contains("c2VjcmV0"), "{why}");
    }
}

#[test]
fn a_file_with_a_block_that_has_no_end_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let anchor = AnchorFolder::create(folder.path(), &code("KAZ"), now()).unwrap();
    let text = anchor.revoke(&mut anchor.hold().unwrap(), &[], &[], now(), 30).unwrap().text;
    assert!(is_only_of(text.as_bytes(), anchor.anchor()));
    let torn = format!("{text}-----BEGIN X509 CRL-----\nMIIB\n");
    assert!(!is_only_of(torn.as_bytes(), anchor.anchor()), "what it took back would be lost");
}

#[test]
fn nothing_outlives_its_anchor() {
    let folder = tempfile::tempdir().unwrap();
    let made = days_from_now(-20 * 365 + 10);
    let anchor = AnchorFolder::create(folder.path(), &code("KAZ"), made).unwrap();
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let request = |now: Timestamp| CertificateRequest::leaf(&identity(NODE), key.public(), now).lasting(now, 365);
    let facts = CertificateFacts::read(&anchor.issue(&request(now())).unwrap()).unwrap();
    assert!(facts.not_after < days_from_now(11) && facts.not_after > days_from_now(9));
    let late = anchor.issue(&request(days_from_now(12)));
    assert!(matches!(late, Err(IssueError::AnchorEnded(_))), "{late:?}");
    assert!(matches!(AnchorFolder::create(folder.path(), &code("KAZ"), made), Err(IssueError::AnchorExists(_))));
}
