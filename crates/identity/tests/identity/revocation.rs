//! What its issuer took back is refused on both sides, and nobody takes back what another issued.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_identity::{Anchor, AnchorTable, Anchors, ChainNumbers, RevocationFile, Revocations, Unfit};
use concord_model::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use crate::support::{World, code, connect, leaf};

/// A CA of some other software. All have the same name, as those of two states may.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn params(usages: &[KeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages.to_vec();
    params
}

impl Ca {
    fn new(usages: &[KeyUsagePurpose]) -> Self {
        let (params, key) = (params(usages), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().into();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn usual() -> Self {
        Self::new(&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign])
    }

    fn below(&self, serial: u64) -> Self {
        let mut params = params(&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
        params.distinguished_name.push(DnType::OrganizationName, "below");
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().into();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn leaf(&self, uri: &str, serial: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().into()
    }

    fn list(&self, serials: &[u64]) -> Vec<u8> {
        self.list_as(&self.issuer, serials)
    }

    fn list_as(&self, issuer: &Issuer<'_, KeyPair>, serials: &[u64]) -> Vec<u8> {
        Self::list_until(issuer, serials, 2030)
    }

    fn list_until(issuer: &Issuer<'_, KeyPair>, serials: &[u64], year: i32) -> Vec<u8> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(issuer).unwrap().der().to_vec()
    }

    fn anchor(&self) -> Anchor {
        Anchor::from_der(&self.certificate).unwrap()
    }
}

fn table(anchors: &[(&str, &Ca)]) -> AnchorTable {
    anchors.iter().map(|(participant, ca)| (code(participant), vec![ca.anchor()])).collect()
}

fn numbers(participant: &str, chain: &[CertificateDer<'_>]) -> ChainNumbers {
    ChainNumbers::of(&code(participant), chain)
}

fn verified(files: &[&[u8]], anchors: &AnchorTable) -> (Revocations, Vec<Result<(), String>>) {
    let files: Vec<_> = files.iter().map(|bytes| RevocationFile::parse(bytes).unwrap()).collect();
    Revocations::verified(&files.iter().collect::<Vec<_>>(), anchors)
}

#[test]
fn a_list_takes_back_what_its_issuer_issued_and_nothing_of_another_state_that_has_the_same_names_and_numbers() {
    let (kaz, uzb) = (Ca::usual(), Ca::usual());
    let both = table(&[("KAZ", &kaz), ("UZB", &uzb)]);
    let (counted, judged) = verified(&[&kaz.list(&[7])], &both);
    assert_eq!(judged, [Ok(())]);
    let seven = |participant: &str, ca: &Ca| numbers(participant, &[ca.leaf("spiffe://x.concord/node/main", 7)]);
    assert!(counted.name(&seven("KAZ", &kaz)));
    assert!(!counted.name(&seven("UZB", &uzb)));
    assert!(!counted.name(&numbers("KAZ", &[kaz.leaf("spiffe://x.concord/node/main", 8)])));
    // Beside the certificate that is judged, too.
    assert!(counted.name(&numbers("KAZ", &[kaz.leaf("x:y", 8), kaz.leaf("x:y", 7)])));
    assert!(!Revocations::default().name(&seven("KAZ", &kaz)));
}

#[test]
fn an_issuer_lapses_by_its_newest_list_for_its_own_participant_only_and_what_is_named_stays_named() {
    let (kaz, uzb) = (Ca::usual(), Ca::usual());
    let below = kaz.below(3);
    let both = table(&[("KAZ", &kaz), ("UZB", &uzb)]);
    let old = Ca::list_until(&kaz.issuer, &[7], 2021);
    let (counted, _) = verified(&[&old], &both);
    // Its first moment itself is within.
    let first_day = Timestamp::from_micros(1_609_459_200_000_000);
    assert!(!counted.lapsed_before(first_day).1);
    let (lapsed, is_other) = counted.lapsed_before(Timestamp::from_micros(first_day.as_micros() + 1));
    assert!(is_other && !lapsed.lapsed_before(Timestamp::from_micros(first_day.as_micros() + 1)).1);
    let one =
        |participant: &str, ca: &Ca, serial| numbers(participant, &[ca.leaf("spiffe://x.concord/node/main", serial)]);
    assert_eq!(lapsed.refuse(&one("KAZ", &kaz, 8)), Some(Unfit::Lapsed));
    assert_eq!(lapsed.refuse(&one("KAZ", &kaz, 7)), Some(Unfit::Revoked));
    let through = numbers("KAZ", &[below.leaf("x:y", 1), below.certificate.clone()]);
    assert_eq!(
        lapsed.refuse(&through),
        Some(Unfit::Lapsed),
        "nobody knows whether the authority itself was taken back"
    );
    assert_eq!(lapsed.refuse(&one("UZB", &uzb, 8)), None, "of the same name, and another state's");
    assert_eq!(counted.refuse(&one("KAZ", &kaz, 8)), None);
    // A newer list ends it, though the old one lies beside it.
    let (newer, _) = verified(&[&old, &kaz.list(&[])], &both);
    let (newer, is_other) = newer.lapsed_before(Timestamp::from_micros(first_day.as_micros() + 1));
    assert!(!is_other);
    assert_eq!(newer.refuse(&one("KAZ", &kaz, 8)), None);
}

#[test]
fn an_authority_takes_back_what_it_issued_where_its_certificate_stands_beside_its_list() {
    let kaz = Ca::usual();
    let below = kaz.below(3);
    let anchors = table(&[("KAZ", &kaz)]);
    let list = below.list(&[7]);
    let named =
        |counted: &Revocations| counted.name(&numbers("KAZ", &[below.leaf("x:y", 7), below.certificate.clone()]));

    let (counted, judged) = verified(&[&list], &anchors);
    assert!(judged[0].as_ref().is_err_and(|why| why.contains("needs its certificate beside the list")), "{judged:?}");
    assert!(!named(&counted));
    // In another file, or in the same one in PEM.
    let (counted, judged) = verified(&[&list, &below.certificate], &anchors);
    assert_eq!(judged, [Ok(()), Ok(())]);
    assert!(named(&counted));
    let together =
        concord_identity::certificates_to_pem(std::slice::from_ref(&below.certificate)) + &in_pem("X509 CRL", &list);
    assert!(named(&verified(&[together.as_bytes()], &anchors).0));
    // The authority itself, by the anchor.
    let (counted, _) = verified(&[&kaz.list(&[3])], &anchors);
    assert!(named(&counted));
    // Of another state's anchor with the same name it is no authority.
    let (_, judged) = verified(&[&list, &below.certificate], &table(&[("KAZ", &Ca::usual())]));
    assert!(judged.iter().all(Result::is_err), "{judged:?}");
}

#[test]
fn a_list_that_its_issuer_did_not_sign_or_may_not_sign_counts_for_nobody() {
    let (kaz, silent) = (Ca::usual(), Ca::new(&[KeyUsagePurpose::KeyCertSign]));
    let anchors = table(&[("KAZ", &kaz)]);
    let check = |list: &[u8], anchors: &AnchorTable, words: &str| {
        let (counted, judged) = verified(&[list], anchors);
        assert!(judged[0].as_ref().is_err_and(|why| why.contains(words)), "{judged:?}");
        assert_eq!(format!("{counted:?}"), "{}");
    };
    check(&Ca::usual().list(&[7]), &anchors, "its signature is not of");
    let mut flipped = kaz.list(&[7]);
    *flipped.last_mut().unwrap() ^= 1;
    check(&flipped, &anchors, "its signature is not of");
    let key = KeyPair::try_from(silent.issuer.key().serialized_der()).unwrap();
    let allowed = Issuer::new(params(&[KeyUsagePurpose::CrlSign]), key);
    check(&silent.list_as(&allowed, &[7]), &table(&[("KAZ", &silent)]), "cRLSign");
    // A leaf is no authority, whatever it signed.
    let leaf = kaz.leaf("x:y", 9);
    let (_, judged) = verified(&[&leaf], &anchors);
    assert!(judged[0].as_ref().is_err_and(|why| why.contains("of no authority")), "{judged:?}");
}

#[test]
fn what_is_no_list_is_said_to_be_none() {
    let list = Ca::usual().list(&[7]);
    for (bytes, words) in [
        (&b""[..], "it is no usable list"),
        (b"no list", "it is no usable list"),
        (&list[..list.len() - 1], "it is no usable list"),
        (&[&list[..], &[0]].concat(), "it is no usable list"),
        (b"-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----\n", "the PEM text is damaged"),
        (in_pem("PRIVATE KEY", &[1; 40]).as_bytes(), "neither a list nor a certificate"),
        (in_pem("X509 CRL", &[1; 40]).as_bytes(), "it is no usable list"),
        (in_pem("CERTIFICATE", &[1; 40]).as_bytes(), "neither a list nor a certificate"),
    ] {
        let why = RevocationFile::parse(bytes).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    let read = RevocationFile::parse(&list).unwrap();
    let due: Vec<_> = read.lists().map(|(_, due)| due).collect();
    assert_eq!(due, [Timestamp::from_micros(1_893_456_000_000_000)]);
}

/// Whatever of a file with several blocks has been written so far: it is taken only where it ends with a block, and then it says all
/// that stands there.
#[test]
fn a_file_that_was_written_in_part_is_none() {
    let ca = Ca::usual();
    let below = ca.below(3);
    let blocks = [
        in_pem("X509 CRL", &ca.list(&[7])),
        in_pem("CERTIFICATE", &below.certificate),
        in_pem("X509 CRL", &below.list(&[8])),
    ];
    for (line_end, between) in [("\n", ""), ("\r\n", "\r\n"), ("\n", "# the next one\n")] {
        let blocks = blocks.each_ref().map(|block| block.lines().collect::<Vec<_>>().join(line_end) + line_end);
        let text = blocks.join(between);
        RevocationFile::parse(text.as_bytes()).unwrap();
        let mut whole = vec![false; text.len()];
        for (end, _) in text.match_indices("-----END") {
            let end = end + text[end..].find(line_end).unwrap();
            let spaces = text[end..].len() - text[end..].trim_start().len();
            whole[end..(end + spaces + 1).min(text.len())].fill(true);
        }
        for (cut, is_whole) in whole.into_iter().enumerate() {
            let read = RevocationFile::parse(&text.as_bytes()[..cut]);
            assert_eq!(read.is_ok(), is_whole, "the first {cut} bytes: {read:?}");
        }
    }
}

#[tokio::test]
async fn what_was_taken_back_is_refused_from_the_next_handshake_on_whichever_side_shows_it() {
    let world = World::new();
    let ca = Ca::usual();
    let mut anchors = (*world.anchors.table()).clone();
    anchors.insert(code("KGZ"), vec![ca.anchor()]);
    world.anchors.replace(anchors.clone());

    let key = KeyPair::generate().unwrap();
    let node = |usage: ExtendedKeyUsagePurpose, uri: &str| {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from(7));
        let key = concord_identity::LeafKey::from_pkcs8_der(key.serialized_der()).unwrap();
        let chain = vec![params.signed_by(&rcgen_key(&key), &ca.issuer).unwrap().into()];
        concord_identity::Credentials::new(chain, &key).unwrap()
    };
    let client = world.client(&node(ExtendedKeyUsagePurpose::ClientAuth, "spiffe://kgz.concord/node/main"));
    let server = world.hub();
    assert!(connect(Arc::clone(&server), Arc::clone(&client)).await.server.is_ok());
    let (counted, _) = verified(&[&ca.list(&[7])], &anchors);
    world.anchors.replace_revocations(Arc::new(counted));
    let refusal = connect(Arc::clone(&server), client).await.server.unwrap_err();
    assert_eq!(refusal.code(), "CERTIFICATE_REVOKED");
    let others = world.client(&leaf(&world.kaz, crate::support::NODE, |_| {}));
    assert!(connect(server, others).await.server.is_ok());

    // A client that pinned the anchor of the server it calls.
    let pinned = Anchors::pinned(code("KGZ"), ca.anchor());
    let expected = concord_identity::ExpectedServer::Exactly("spiffe://kgz.concord/node/main".parse().unwrap());
    let honest = leaf(&world.kaz, crate::support::NODE, |_| {});
    let spoken = concord_identity::Application::Grpc;
    let config = concord_identity::client_config(&honest, &pinned, expected, spoken).unwrap();
    let serving = node(ExtendedKeyUsagePurpose::ServerAuth, "spiffe://kgz.concord/node/main");
    let admission = concord_identity::Admission::hub();
    let server = concord_identity::server_config(&serving, &world.anchors, admission, spoken).unwrap();
    assert!(connect(Arc::clone(&server), Arc::clone(&config)).await.client.is_ok());
    let (counted, _) = verified(&[&ca.list(&[7])], &BTreeMap::from([(code("KGZ"), vec![ca.anchor()])]));
    pinned.replace_revocations(Arc::new(counted));
    assert_eq!(connect(server, config).await.client.unwrap_err().code(), "CERTIFICATE_REVOKED");
}

fn rcgen_key(key: &concord_identity::LeafKey) -> KeyPair {
    KeyPair::try_from(key.to_pkcs8_der().unwrap().as_slice()).unwrap()
}

fn in_pem(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}
