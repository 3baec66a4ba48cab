//! Agreements and statements: what is read is what was said.

use bytes::Bytes;
use concord_journal::Digest as JournalDigest;
use concord_ledger::{
    AnchorSuccession, ContactSetting, EpochOpening, KeyRotation, Replacement, RoleDecision, StatementContent,
};
use concord_model::limits::STATEMENT_SIZE_MAX_BYTES;
use concord_model::{
    Contact, Digest, Fingerprint, ForumRole, Language, Languages, MeasureCode, ParticipantCode, Reason, RoleScope,
    ShortLine, Telephone, Title,
};
use concord_wire::agreement::{
    Draft, DraftContent, STATEMENT_DOMAIN, agreement_digest, certificate_fingerprint, encode_join_request,
    encode_statement, encode_text, in_domain, keys, parse_join_request, parse_statement, parse_text, public_key,
};
use concord_wire::proto::agreement::v1 as pb;
use proptest::prelude::*;
use prost::Message as _;

use crate::fixtures::{NOW, agreement_text, any_statement, any_text, code, key, name};

pub(crate) fn draft(number: u64, content: DraftContent) -> Draft {
    Draft { participant: code("KAZ"), officer: name("officer"), hub: name("main"), number, made_at: NOW, content }
}

/// Signed by the officer of `KAZ`.
pub(crate) fn signed(statement: Bytes) -> pb::SignedStatement {
    let signature = key("officer of KAZ").sign(&in_domain(STATEMENT_DOMAIN, &statement));
    pb::SignedStatement {
        statement,
        certificates: vec![Bytes::from_static(b"the officer's certificate, DER")],
        suite: concord_wire::SUITE_ED25519,
        signature: Bytes::copy_from_slice(&signature),
    }
}

pub(crate) fn join_request() -> Bytes {
    let uzb = key("UZB");
    let (anchor, certificate) = (b"the anchor of UZB, DER", b"the certificate of its node, DER");
    encode_join_request(&code("UZB"), &name("main"), anchor, &uzb.public, certificate, |message| uzb.sign(message))
}

pub(crate) fn epoch_opening() -> EpochOpening {
    EpochOpening { node: name("main"), epoch: 2 }
}

#[test]
fn a_join_request_proves_the_key_that_it_brings() {
    let (request, proof) = parse_join_request(&join_request()).unwrap();
    assert_eq!(request.signing_key, key("UZB").public);
    assert_eq!(request.anchor, b"the anchor of UZB, DER");
    assert_eq!(&proof.node_certificate[..], b"the certificate of its node, DER");
    assert!(key("UZB").holds(&proof.signed_message, &proof.signature));

    // Any word changed: what the key signed is not what the request says.
    let mut changed = pb::JoinRequest::decode(join_request()).unwrap();
    changed.anchor = Bytes::from_static(b"another anchor");
    let (_, proof) = parse_join_request(&changed.encode_to_vec()).unwrap();
    assert!(!key("UZB").holds(&proof.signed_message, &proof.signature));
}

pub(crate) fn rotation(opening: Option<EpochOpening>) -> pb::KeyRotation {
    let (before, next) = (key("KAZ"), key("KAZ next"));
    let rotation = KeyRotation { opening, before: before.public.clone(), signing_key: next.public.clone() };
    keys::rotation(&code("KAZ"), &name("main"), &rotation, |bytes| before.sign(bytes), |bytes| next.sign(bytes))
}

pub(crate) fn succession() -> pb::AnchorSuccession {
    let present = key("KAZ");
    let anchor = b"the next anchor of KAZ, DER";
    keys::succession(&code("KAZ"), &name("main"), anchor, &present.public, |bytes| present.sign(bytes))
}

#[test]
fn keys_that_follow_are_vouched_for_by_those_before() {
    let proofs = |content| keys::proofs(&signed(encode_statement(&draft(1, content)))).unwrap();
    let hold = |content: DraftContent, of: &[&str]| {
        let proofs = proofs(content);
        assert_eq!(proofs.len(), of.len());
        let each = proofs.iter().zip(of);
        each.clone().for_each(|(proof, of)| assert_eq!(proof.key, key(of).public));
        each.map(|(proof, of)| key(of).holds(&proof.signed_message, &proof.signature)).collect::<Vec<_>>()
    };
    let both = ["KAZ", "KAZ next"];
    assert_eq!(hold(DraftContent::RotateKey(rotation(Some(epoch_opening()))), &both), [true, true]);
    assert_eq!(hold(DraftContent::SucceedAnchor(succession()), &["KAZ"]), [true]);
    assert_eq!(hold(DraftContent::Enrol(join_request()), &["UZB"]), [true]);
    assert!(proofs(DraftContent::EndAnchor(Fingerprint(Digest([1; 32])))).is_empty());

    // Any word changed: the keys signed something else.
    let changes: [&dyn Fn(&mut pb::KeyRotation); 4] = [
        &|rotation| rotation.hub = "other".into(),
        &|rotation| rotation.participant = "IRN".into(),
        &|rotation| rotation.opening = None,
        &|rotation| rotation.opening.as_mut().unwrap().epoch = 3,
    ];
    for change in changes {
        let mut changed = rotation(Some(epoch_opening()));
        change(&mut changed);
        assert_eq!(hold(DraftContent::RotateKey(changed), &both), [false, false]);
    }
    let changed = pb::AnchorSuccession { anchor: Bytes::from_static(b"another anchor"), ..succession() };
    assert_eq!(hold(DraftContent::SucceedAnchor(changed), &["KAZ"]), [false]);
}

#[test]
fn what_vouches_for_keys_at_one_hub_or_of_one_state_does_so_nowhere_else() {
    let refused = |content| parse_statement(&signed(encode_statement(&draft(1, content)))).unwrap_err().reason;
    let elsewhere = |change: &dyn Fn(&mut pb::KeyRotation)| {
        let mut changed = rotation(None);
        change(&mut changed);
        refused(DraftContent::RotateKey(changed))
    };
    assert_eq!(elsewhere(&|rotation| rotation.hub = "other".into()), Reason::StatementMalformed);
    assert_eq!(elsewhere(&|rotation| rotation.participant = "IRN".into()), Reason::StatementMalformed);
    assert_eq!(elsewhere(&|rotation| rotation.signing_key = Bytes::new()), Reason::StatementMalformed);
    let changed = pb::AnchorSuccession { hub: "other".into(), ..succession() };
    assert_eq!(refused(DraftContent::SucceedAnchor(changed)), Reason::StatementMalformed);
}

#[test]
fn a_signature_of_one_kind_never_passes_for_another() {
    let text = encode_text(&agreement_text());
    let domains = ["concord statement v1", "concord join v1", "concord receipt v1", "concord consignment v1"];
    for domain in domains {
        let signature = key("KAZ").sign(&in_domain(domain, &text));
        for other in domains {
            assert_eq!(key("KAZ").holds(&in_domain(other, &text), &signature), domain == other, "{domain} as {other}");
        }
    }
}

#[test]
fn a_statement_of_wrong_form_is_refused() {
    let check = |expectation: Reason, tamper: &dyn Fn(&mut pb::SignedStatement)| {
        let mut statement = signed(encode_statement(&draft(1, DraftContent::Propose(agreement_text()))));
        tamper(&mut statement);
        assert_eq!(parse_statement(&statement).unwrap_err().reason, expectation);
    };
    let content = |signed: &mut pb::SignedStatement, change: &dyn Fn(&mut pb::Statement)| {
        let mut inner = pb::Statement::decode(signed.statement.clone()).unwrap();
        change(&mut inner);
        signed.statement = inner.encode_to_vec().into();
    };
    check(Reason::StatementMalformed, &|signed| signed.suite = 0);
    check(Reason::StatementMalformed, &|signed| signed.suite = 2);
    check(Reason::StatementMalformed, &|signed| {
        signed.certificates = vec![Bytes::from(vec![0; STATEMENT_SIZE_MAX_BYTES])];
    });
    check(Reason::StatementMalformed, &|signed| signed.statement = Bytes::new());
    check(Reason::StatementMalformed, &|signed| content(signed, &|inner| inner.content = None));
    check(Reason::StatementMalformed, &|signed| content(signed, &|inner| inner.made_at = None));
    check(Reason::StatementMalformed, &|signed| content(signed, &|inner| inner.officer = "The Officer".into()));
    check(Reason::StatementMalformed, &|signed| {
        content(signed, &|inner| {
            inner.content = Some(pb::statement::Content::Consent(pb::Consent { agreement: None }))
        });
    });
    check(Reason::StatementMalformed, &|signed| {
        let request = Bytes::from_static(b"not a request");
        content(signed, &|inner| {
            inner.content = Some(pb::statement::Content::Enrolment(pb::Enrolment { request: request.clone() }));
        });
    });
    check(Reason::AgreementMalformed, &|signed| {
        let text = Bytes::from_static(b"not a text");
        content(signed, &|inner| {
            inner.content = Some(pb::statement::Content::Proposal(pb::Proposal { text: text.clone() }));
        });
    });
}

#[test]
fn an_agreement_text_over_its_limits_is_refused() {
    let check = |expectation: bool, measures: usize, parties: usize| {
        let mut text = agreement_text();
        text.measures = vec![text.measures[0].clone(); measures];
        text.parties = vec![text.parties[0].clone(); parties];
        let parsed = parse_text(&encode_text(&text));
        assert_eq!(
            parsed.map(|_| ()).map_err(|refusal| refusal.reason),
            match expectation {
                true => Ok(()),
                false => Err(Reason::AgreementMalformed),
            }
        );
    };
    check(true, 256, 256);
    check(false, 257, 2);
    check(false, 1, 257);
}

pub(crate) fn contact_setting() -> ContactSetting {
    let languages = ["ru", "kk", "en"].map(|tag| Language::parse(tag).unwrap());
    let contact = Contact {
        office: ShortLine::parse("Агентство по борьбе с наркотиками").unwrap(),
        telephone: Telephone::parse("+7 7172 70-15-22 ext 14").unwrap(),
        hours: ShortLine::parse("Mon-Fri 9-18 UTC+5").unwrap(),
        languages: Languages::new(languages.into()).unwrap(),
    };
    let measure = Some(MeasureCode::parse("challenges.2").unwrap());
    ContactSetting { measure, revision: 3, contact: Some(contact) }
}

pub(crate) fn role_decision() -> RoleDecision {
    let words = Some(ShortLine::parse("drug control").unwrap());
    RoleDecision {
        participant: ParticipantCode::parse("IRN").unwrap(),
        role: ForumRole::Coordinator,
        scope: RoleScope { area: None, measure: Some(MeasureCode::parse("challenges.2").unwrap()), words },
        revision: 1,
        is_given: true,
        reference: Title::parse("SOC decision 14/2026").unwrap(),
    }
}

proptest! {
    #[test]
    fn an_agreement_text_survives_the_wire(text in any_text()) {
        prop_assert_eq!(parse_text(&encode_text(&text)), Ok(text));
    }

    #[test]
    fn a_statement_survives_the_wire(draft in any_statement()) {
        let serialised = encode_statement(&draft);
        let read = parse_statement(&signed(serialised.clone())).unwrap();
        prop_assert_eq!(
            (read.participant, read.officer, read.hub, read.number, read.made_at),
            (draft.participant, draft.officer, draft.hub, draft.number, draft.made_at)
        );
        prop_assert_eq!(read.digest, Digest(JournalDigest::of(STATEMENT_DOMAIN, &[&serialised]).0));
        let expected = match draft.content {
            DraftContent::Propose(text) => {
                let digest = agreement_digest(&encode_text(&text));
                StatementContent::Propose { text, digest }
            }
            DraftContent::Consent(agreement) => StatementContent::Consent(agreement),
            DraftContent::Decline(agreement, reason) => StatementContent::Decline(agreement, reason),
            DraftContent::Return(agreement, leave) => StatementContent::Return(agreement, leave),
            DraftContent::Leave(agreement) => StatementContent::Leave(agreement),
            DraftContent::End(agreement) => StatementContent::End(agreement),
            DraftContent::Hold(participant, reason) => StatementContent::Hold { participant, reason },
            DraftContent::Release(hold) => StatementContent::Release(hold),
            DraftContent::SetContact(setting) => StatementContent::SetContact(setting),
            DraftContent::Role(decision) => StatementContent::Role(decision),
            DraftContent::Replace(request, reference) => {
                let request = parse_join_request(&request).unwrap().0;
                StatementContent::Replace(Replacement { request, reference })
            }
            DraftContent::OpenEpoch(opening) => StatementContent::OpenEpoch(opening),
            DraftContent::RotateKey(rotation) => StatementContent::RotateKey(KeyRotation {
                opening: rotation.opening.map(|opening| EpochOpening { node: name(&opening.node), epoch: opening.epoch }),
                before: public_key(rotation.signing_key_before[..].try_into().unwrap()),
                signing_key: public_key(rotation.signing_key[..].try_into().unwrap()),
            }),
            DraftContent::SucceedAnchor(next) => StatementContent::SucceedAnchor(AnchorSuccession {
                anchor: next.anchor.to_vec(),
                anchor_fingerprint: certificate_fingerprint(&next.anchor),
                signing_key: public_key(next.signing_key[..].try_into().unwrap()),
            }),
            DraftContent::EndAnchor(anchor) => StatementContent::EndAnchor(anchor),
            DraftContent::Approve(statement) => StatementContent::Approve(statement),
            DraftContent::Reject(statement) => StatementContent::Reject(statement),
            DraftContent::Decided(decision) => StatementContent::Decided(decision),
            DraftContent::Enrol(request) => StatementContent::Enrol(parse_join_request(&request).unwrap().0),
        };
        prop_assert_eq!(read.content, expected);
    }
}
