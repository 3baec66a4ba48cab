//! Golden vectors of what officers and joining nodes sign.

use bytes::Bytes;
use concord_ledger::{DecisionContent, ForumDecision};
use concord_model::{Digest, Measure, MeasureCode, Name, Participant, ParticipantCode, ParticipantKind, Title};
use concord_wire::agreement::{
    DraftContent, JoinProof, STATEMENT_DOMAIN, agreement_digest, encode_statement, encode_text, in_domain,
    parse_join_request, parse_text,
};
use prost::Message as _;

use crate::fixtures::{agreement_ref, agreement_text, key};
use crate::golden::Golden;
use crate::statements::{
    contact_setting, draft, epoch_opening, join_request, role_decision, rotation, signed, succession,
};

#[test]
fn an_agreement_text() {
    let bytes = encode_text(&agreement_text());
    assert_eq!(parse_text(&bytes).unwrap(), agreement_text());
    let about = "An agreement text. Digest = SHA-256(`concord agreement v1` ‖ 0 ‖ bytes).";
    let mut golden = Golden::new("agreement.txt", about);
    golden.message("text", "concord.agreement.v1.AgreementText", &bytes);
    golden.text("digest", agreement_digest(&bytes).0).check();
}

fn decided(content: DecisionContent) -> DraftContent {
    DraftContent::Decided(ForumDecision { content, reference: Title::parse("decision 4 of 2026").unwrap() })
}

fn participant(code: &str, name: &str) -> Participant {
    let names = [("en", name), ("ru", "Туркменистан")].map(|(tag, name)| (tag.to_owned(), name.to_owned()));
    Participant {
        code: ParticipantCode::parse(code).unwrap(),
        kind: ParticipantKind::ObserverState,
        names: names.into_iter().collect(),
    }
}

fn renamed() -> DecisionContent {
    let Participant { code: participant, names, .. } = participant("TUR", "Türkiye");
    DecisionContent::Rename { participant, revision: 1, names }
}

fn kind_set() -> DecisionContent {
    let participant = ParticipantCode::parse("TKM").unwrap();
    DecisionContent::SetKind { participant, revision: 2, kind: ParticipantKind::Member }
}

fn measure() -> Measure {
    let code = MeasureCode::parse("challenges.7").unwrap();
    Measure { code, slug: Name::parse("water").unwrap(), title: "Shared rivers".to_owned() }
}

#[test]
fn statements_of_every_kind() {
    let about = "Statements, signed over `concord statement v1` ‖ 0 ‖ statement. The key's private half is `officer of KAZ`, padded with zeros.";
    let officer = key("officer of KAZ");
    let mut golden = Golden::new("statement.txt", about);
    golden.bytes("public key", &officer.public.bytes);
    for (number, (kind, content)) in (1..).zip([
        ("proposal", DraftContent::Propose(agreement_text())),
        ("consent", DraftContent::Consent(agreement_ref())),
        ("decline", DraftContent::Decline(agreement_ref(), None)),
        ("leave", DraftContent::Leave(agreement_ref())),
        ("enrolment", DraftContent::Enrol(join_request())),
        ("epoch", DraftContent::OpenEpoch(epoch_opening())),
        ("replacement", DraftContent::Replace(join_request(), Title::parse("note verbale 17/2026").unwrap())),
        ("decline with its reason", DraftContent::Decline(agreement_ref(), Some(Title::parse("Нет мандата").unwrap()))),
        ("return", DraftContent::Return(agreement_ref(), Digest([7; 32]))),
        ("approval", DraftContent::Approve(Digest([0xab; 32]))),
        ("rejection", DraftContent::Reject(Digest([0xab; 32]))),
        ("participant", decided(DecisionContent::AddParticipant(participant("TKM", "Turkmenistan")))),
        ("name", decided(renamed())),
        ("kind", decided(kind_set())),
        ("measure", decided(DecisionContent::AddMeasure(measure()))),
        ("contact", DraftContent::SetContact(contact_setting())),
        ("role", DraftContent::Role(role_decision())),
        ("key rotation", DraftContent::RotateKey(rotation(Some(epoch_opening())))),
        ("key rotation of the hub", DraftContent::RotateKey(rotation(None))),
        ("anchor succession", DraftContent::SucceedAnchor(succession())),
        ("anchor end", DraftContent::EndAnchor(concord_model::Fingerprint(Digest([0xcd; 32])))),
    ]) {
        let statement = encode_statement(&draft(number, content));
        let signed = signed(statement.clone());
        assert!(officer.holds(&in_domain(STATEMENT_DOMAIN, &statement), &signed.signature));
        golden.section(kind).message("signed", "concord.agreement.v1.SignedStatement", &signed.encode_to_vec());
        golden.bytes("statement", &statement).bytes("signature", &signed.signature);
    }
    golden.check();
}

#[test]
fn a_join_request_and_a_bundle() {
    let request = join_request();
    let (_, JoinProof { signed_message, signature, .. }) = parse_join_request(&request).unwrap();
    assert!(key("UZB").holds(&signed_message, &signature));
    let bundle = concord_wire::proto::operations::v1::Bundle {
        hub: "main".into(),
        addresses: vec!["hub.example:7400".into(), "192.0.2.1:7400".into()],
        anchor: Bytes::from_static(b"the anchor of SEC, DER"),
        signing_key: Bytes::copy_from_slice(&key("SEC").public.bytes),
        participant: "UZB".into(),
        enrolment_fingerprint: Bytes::from_static(&[0xef; 32]),
        history: Bytes::copy_from_slice(&crate::fixtures::HISTORY),
        replaces: true,
        present_anchors: vec![Bytes::from_static(b"the next anchor of SEC, DER")],
    };
    let about = "What a node brings to be enrolled, and what it gets to join. Possession is signed over `concord join v1` ‖ 0 ‖ the request \
                 without it; the key's private half is `UZB`, padded with zeros.";
    let mut golden = Golden::new("join.txt", about);
    golden.section("join request").message("request", "concord.agreement.v1.JoinRequest", &request);
    golden.bytes("signed message", &signed_message);
    golden.section("bundle").message("bundle", "concord.operations.v1.Bundle", &bundle.encode_to_vec());
    golden.check();
}
