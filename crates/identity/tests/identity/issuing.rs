//! Anchors and leaves are what they are said to be, and survive their files.

use concord_identity::{
    Anchor, AnchorKeys, Caller, CertificateRequest, IssueError, LeafKey, LeafKeyKind, certificates_from_pem,
    certificates_to_pem,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};

use crate::support::{NODE, anchor_keys, days_from_now, identity, leaf, now};

#[test]
fn an_anchor_and_its_key_survive_their_files_and_still_issue() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("anchor.pem"), folder.path().join("anchor-key.pem"));
    let made = anchor_keys("KAZ");
    made.save(&certificate, &key).unwrap();
    let read = AnchorKeys::load(&certificate, &key).unwrap();
    assert_eq!(read.participant(), made.participant());
    assert_eq!(read.anchor(), made.anchor());
    assert_eq!(Anchor::from_pem(&read.anchor().to_pem()).unwrap(), *made.anchor());
    assert_ne!(anchor_keys("KAZ").anchor().fingerprint(), made.anchor().fingerprint());

    let credentials = leaf(&read, NODE, |_| {});
    let chain = credentials.chain();
    let (_, issued) = X509Certificate::from_der(chain.first().unwrap()).unwrap();
    let (_, anchor) = X509Certificate::from_der(made.anchor().der()).unwrap();
    assert_eq!(issued.issuer().as_raw(), anchor.subject().as_raw());
    assert_eq!(anchor.subject().to_string(), "CN=KAZ trust anchor");
}

#[test]
fn an_anchor_with_anothers_key_or_of_other_software_issues_nothing() {
    let other = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let result = AnchorKeys::from_parts(anchor_keys("KAZ").anchor().clone(), other);
    assert!(matches!(result, Err(IssueError::KeyMismatch)));

    let key = KeyPair::generate().unwrap();
    let anchor = Anchor::from_der(&authority(|_| {}, &key)).unwrap();
    let key = LeafKey::from_pkcs8_der(key.serialized_der()).unwrap();
    let result = AnchorKeys::from_parts(anchor, key);
    assert!(matches!(result, Err(IssueError::ForeignAnchor)));
}

#[test]
fn what_cannot_sign_certificates_is_no_anchor() {
    let key = KeyPair::generate().unwrap();
    let check = |change: fn(&mut CertificateParams), expected: &str| {
        let message = Anchor::from_der(&authority(change, &key)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(|params| params.is_ca = IsCa::NoCa, "not the certificate of a CA");
    check(|params| params.is_ca = IsCa::ExplicitNoCa, "not the certificate of a CA");
    check(|params| params.key_usages.clear(), "keyCertSign");
    check(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign], "keyCertSign");
    let mut trailing = authority(|_| {}, &key);
    trailing.push(0);
    assert!(Anchor::from_der(&trailing).is_err());
    assert!(Anchor::from_der(&[]).is_err());
    assert!(Anchor::from_pem("no PEM").is_err());
}

fn authority(change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    params.self_signed(key).unwrap().der().to_vec()
}

#[test]
fn two_leaves_for_one_key_have_different_serial_numbers() {
    let kaz = anchor_keys("KAZ");
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let request = CertificateRequest::leaf(&identity(NODE), key.public(), now());
    let serial = || {
        let der = kaz.issue(&request).unwrap();
        X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
    };
    let (first, second) = (serial(), serial());
    assert_ne!(first, second);
    assert_eq!((first.len(), second.len()), (16, 16));
}

#[test]
fn only_nodes_and_hubs_are_certified_as_servers() {
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap().public();
    for (uri, server) in [
        (NODE, true),
        ("spiffe://sec.concord/hub/main", true),
        ("spiffe://kaz.concord/agency/cert", false),
        ("spiffe://kaz.concord/officer/first", false),
        ("spiffe://kaz.concord/operator/night", false),
    ] {
        let request = CertificateRequest::leaf(&identity(uri), key.clone(), now());
        assert_eq!((request.client, request.server), (true, server), "{uri}");
    }
}

#[test]
fn a_request_to_another_authority_says_the_same_and_proves_its_key() {
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let mut request = CertificateRequest::leaf(&identity(NODE), key.public(), now());
    request.hosts = vec!["node.example.org".to_owned()];
    let text = request.to_pkcs10_pem(&key).unwrap();
    let der = pem::parse(&text).unwrap();
    assert_eq!(der.tag(), "CERTIFICATE REQUEST");
    let (rest, read) = X509CertificationRequest::from_der(der.contents()).unwrap();
    assert!(rest.is_empty());
    assert_eq!(read.certification_request_info.subject_pki.subject_public_key.data.as_ref(), key.public().as_bytes());
    assert!(format!("{read:?}").contains(NODE));
    let other = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    assert!(matches!(request.to_pkcs10_pem(&other), Err(IssueError::KeyMismatch)));
}

#[test]
fn names_and_times_that_x509_cannot_say_are_refused() {
    let kaz = anchor_keys("KAZ");
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let request = CertificateRequest::leaf(&identity(NODE), key.public(), now());
    let name = CertificateRequest { hosts: vec!["узел.example.org".to_owned()], ..request.clone() };
    assert!(matches!(kaz.issue(&name), Err(IssueError::Name(_))));
    let beyond = days_from_now(0).as_micros().saturating_mul(100_000);
    let time = CertificateRequest { not_after: concord_model::Timestamp::from_micros(beyond), ..request };
    assert!(matches!(kaz.issue(&time), Err(IssueError::Validity)));
}

#[test]
fn a_chain_survives_its_text() {
    let kaz = anchor_keys("KAZ");
    let mut chain = leaf(&kaz, NODE, |_| {}).chain();
    chain.push(kaz.anchor().der().clone());
    let text = certificates_to_pem(&chain);
    assert_eq!(certificates_from_pem(&text).unwrap(), chain);
    assert!(!text.contains('\r'));
    let caller = Caller::from_verified_certificate(chain.first().unwrap()).unwrap();
    assert_eq!(caller.identity, identity(NODE));
}

/// The general form of issuing keeps what it was asked for; it is for verifiers to refuse it.
#[test]
fn a_request_may_ask_for_what_verifiers_refuse() {
    let kaz = anchor_keys("KAZ");
    let key = LeafKey::generate(LeafKeyKind::EcdsaP256).unwrap();
    let mut request = CertificateRequest::leaf(&identity(NODE), key.public(), now());
    request.uri_names.push(NODE.to_owned());
    assert!(kaz.issue(&request).is_ok());
}
