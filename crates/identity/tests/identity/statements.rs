//! A statement counts only with an officer's signature, under the anchor of the state it speaks for, in its time.

use concord_identity::{
    AnchorKeys, CertificateRefusal, CertificateRequest, LeafKey, LeafKeyKind, STATEMENT_DOMAIN, StatementError,
    StatementSigner, verify_statement,
};
use concord_model::{Identity, Timestamp};

use crate::support::{anchor_keys, code, days_from_now, identity, now};

const OFFICER: &str = "spiffe://kaz.concord/officer/first";
const BYTES: &[u8] = b"KAZ consents";

/// A statement as it arrives, each part open to alteration.
struct Arrived {
    participant: &'static str,
    anchors: Vec<concord_identity::Anchor>,
    chain: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    signature: Vec<u8>,
    now: Timestamp,
}

impl Arrived {
    fn verify(&self) -> Result<Identity, StatementError> {
        verify_statement(&code(self.participant), &self.anchors, &self.chain, &self.bytes, &self.signature, self.now)
    }
}

fn certified(issuer: &AnchorKeys, uri: &str, kind: LeafKeyKind) -> (Vec<Vec<u8>>, LeafKey) {
    let key = LeafKey::generate(kind).unwrap();
    let request = CertificateRequest::leaf(&identity(uri), key.public(), now());
    (vec![issuer.issue(&request).unwrap().to_vec()], key)
}

/// Signs whatever the certificate says, as somebody would who does not keep the rules.
fn signed(issuer: &AnchorKeys, uri: &str) -> Arrived {
    let (chain, key) = certified(issuer, uri, LeafKeyKind::Ed25519);
    let key = key.into_signing_key().unwrap();
    Arrived {
        participant: "KAZ",
        anchors: vec![issuer.anchor().clone()],
        chain,
        bytes: BYTES.to_vec(),
        signature: key.sign(&[STATEMENT_DOMAIN, BYTES].concat()).to_vec(),
        now: now(),
    }
}

fn check(cell: &str, alter: impl FnOnce(&mut Arrived), expected: fn(&StatementError) -> bool) {
    let mut arrived = signed(&anchor_keys("KAZ"), OFFICER);
    assert_eq!(arrived.verify().unwrap(), identity(OFFICER), "{cell}: before");
    alter(&mut arrived);
    let error = arrived.verify().expect_err(cell);
    assert!(expected(&error), "{cell}: {error}");
}

#[test]
fn what_was_altered_on_the_way_does_not_hold() {
    let signature = |error: &StatementError| matches!(error, StatementError::Signature(_));
    check("bytes", |it| it.bytes[0] ^= 1, signature);
    check("bytes added", |it| it.bytes.push(0), signature);
    check("signature", |it| it.signature[63] ^= 1, signature);
    check("signature cut", |it| it.signature.truncate(63), signature);
    check("no signature", |it| it.signature.clear(), signature);
    check("no certificate", |it| it.chain.clear(), |error| matches!(error, StatementError::NoCertificate));
    check(
        "another officer's certificate",
        |it| {
            let kaz = anchor_keys("KAZ");
            it.anchors = vec![kaz.anchor().clone()];
            it.chain = certified(&kaz, "spiffe://kaz.concord/officer/second", LeafKeyKind::Ed25519).0;
        },
        signature,
    );
}

#[test]
fn a_signature_without_the_domain_does_not_hold() {
    let kaz = anchor_keys("KAZ");
    let (chain, key) = certified(&kaz, OFFICER, LeafKeyKind::Ed25519);
    let signature = key.into_signing_key().unwrap().sign(BYTES);
    let result = verify_statement(&code("KAZ"), &[kaz.anchor().clone()], &chain, BYTES, &signature, now());
    assert!(matches!(result, Err(StatementError::Signature(_))));
}

#[test]
fn only_the_states_own_anchor_at_that_moment_counts() {
    let unknown =
        |error: &StatementError| matches!(error, StatementError::Certificate(CertificateRefusal::UnknownIssuer { .. }));
    check("another anchor", |it| it.anchors = vec![anchor_keys("KAZ").anchor().clone()], unknown);
    check("no anchor", |it| it.anchors.clear(), unknown);
    check(
        "another state's statement",
        |it| it.participant = "UZB",
        |error| matches!(error, StatementError::OtherParticipant { .. }),
    );
    check(
        "long after",
        |it| it.now = days_from_now(400),
        |error| matches!(error, StatementError::Certificate(CertificateRefusal::Expired { .. })),
    );
    check(
        "long before",
        |it| it.now = days_from_now(-400),
        |error| matches!(error, StatementError::Certificate(CertificateRefusal::NotYetValid { .. })),
    );
    check(
        "two intermediates",
        |it| it.chain = vec![it.chain[0].clone(); 3],
        |error| matches!(error, StatementError::Certificate(CertificateRefusal::ChainTooLong { sent: 2 })),
    );
}

#[test]
fn nobody_but_an_officer_speaks_for_a_state() {
    let kaz = anchor_keys("KAZ");
    for uri in
        ["spiffe://kaz.concord/agency/cert", "spiffe://kaz.concord/node/main", "spiffe://kaz.concord/operator/night"]
    {
        let error = signed(&kaz, uri).verify().unwrap_err();
        assert!(matches!(error, StatementError::NotAnOfficer(_)), "{uri}: {error}");
    }
    // UZB's anchor, presented as if it were KAZ's, cannot vouch for another state's officer.
    let foreign = signed(&anchor_keys("UZB"), "spiffe://uzb.concord/officer/first");
    assert!(matches!(foreign.verify(), Err(StatementError::OtherParticipant { .. })));
}

#[test]
fn an_officers_certificate_needs_the_key_that_signs() {
    let kaz = anchor_keys("KAZ");
    let (chain, _) = certified(&kaz, OFFICER, LeafKeyKind::EcdsaP256);
    let result = verify_statement(&code("KAZ"), &[kaz.anchor().clone()], &chain, BYTES, &[0; 64], now());
    assert!(matches!(result, Err(StatementError::NotEd25519(_))));
}

#[test]
fn a_signer_refuses_what_no_verifier_would_accept() {
    let kaz = anchor_keys("KAZ");
    let (officer, key) = certified(&kaz, OFFICER, LeafKeyKind::Ed25519);
    let (agency, agency_key) = certified(&kaz, "spiffe://kaz.concord/agency/cert", LeafKeyKind::Ed25519);
    let signer = |chain: &[Vec<u8>], key: LeafKey| {
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into()).collect();
        StatementSigner::new(&chain, key.into_signing_key().unwrap())
    };
    assert!(matches!(signer(&agency, agency_key), Err(StatementError::NotAnOfficer(_))));
    let other = LeafKey::generate(LeafKeyKind::Ed25519).unwrap();
    assert!(matches!(signer(&officer, other), Err(StatementError::KeyMismatch(_))));
    assert!(matches!(StatementSigner::new(&[], key.into_signing_key().unwrap()), Err(StatementError::NoCertificate)));
}
