//! Keys that follow others by their owner's own word: who may say so, from where on they count, and what stands.

use concord_ledger::{
    AnchorSuccession, Audience, ChainTip, Command, Consign, Decision, EpochOpening, Handed, JoinRequest, KeyRotation,
    Quorum, Replacement, StatementContent, Stood, needs_others,
};
use concord_model::{ChainKey, ConsignmentDigest, Fingerprint, Lane, Reason, Refusal, Timestamp, Title};

use crate::forum::{Forum, chain, digest, join_request, public_key, reason, t};

fn rotation(before: &str, next: &str, epoch: u32) -> StatementContent {
    let opening = Some(EpochOpening { node: t("node"), epoch });
    StatementContent::RotateKey(KeyRotation { opening, before: public_key(before), signing_key: public_key(next) })
}

fn of_hub(before: &str, next: &str) -> StatementContent {
    StatementContent::RotateKey(KeyRotation {
        opening: None,
        before: public_key(before),
        signing_key: public_key(next),
    })
}

fn anchor(name: &str, voucher: &str) -> StatementContent {
    StatementContent::SucceedAnchor(AnchorSuccession {
        anchor: name.as_bytes().to_vec(),
        anchor_fingerprint: Fingerprint(digest(name)),
        signing_key: public_key(voucher),
    })
}

fn replacement() -> StatementContent {
    let request = JoinRequest { participant: t("KAZ"), ..join_request("NEW") };
    StatementContent::Replace(Replacement { request, reference: Title::parse("note verbale 17/2026").unwrap() })
}

#[test]
fn a_state_s_key_follows_only_the_present_one_at_its_own_node_in_the_next_epoch() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let mut say = |who: &str, content| reason(forum.say(who, content));
    assert_eq!(
        say("IRN", rotation("KAZ", "next", 2)),
        Err(Reason::SigningKeyUnknown),
        "another's key vouches for nothing"
    );
    assert_eq!(say("KAZ", rotation("IRN", "next", 2)), Err(Reason::SigningKeyUnknown));
    assert_eq!(say("KAZ", rotation("KAZ", "next", 3)), Err(Reason::EpochOutOfOrder));
    for known in ["KAZ", "IRN", "SEC"] {
        assert_eq!(say("KAZ", rotation("KAZ", known, 2)), Err(Reason::ParticipantAlreadyEnrolled), "{known}");
    }
    let elsewhere = KeyRotation {
        opening: Some(EpochOpening { node: t("other"), epoch: 2 }),
        before: public_key("KAZ"),
        signing_key: public_key("next"),
    };
    assert_eq!(say("KAZ", StatementContent::RotateKey(elsewhere)), Err(Reason::ChainMismatch));
    assert_eq!(say("KAZ", of_hub("SEC", "next")), Err(Reason::CallerNotAllowed), "the hub's is the secretariat's");
    say("KAZ", rotation("KAZ", "next", 2)).unwrap();
    assert_eq!(forum.last_statement().told.len(), 3, "everybody hears of it");
    let mut say = |who: &str, content| reason(forum.say(who, content));
    assert_eq!(
        say("KAZ", rotation("KAZ", "third", 3)),
        Err(Reason::SigningKeyUnknown),
        "the one before vouches no more"
    );
    assert_eq!(
        say("KAZ", rotation("next", "KAZ", 3)),
        Err(Reason::ParticipantAlreadyEnrolled),
        "nor does it come back"
    );
    say("KAZ", rotation("next", "third", 3)).unwrap();
}

#[test]
fn a_rotated_key_counts_from_its_epoch_on_and_the_one_before_for_what_it_signed() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ"]);
    let next = |forum: &mut Forum| {
        let header = forum.header("KAZ", &agreement);
        let item = forum.item(header);
        forum.consign("KAZ", Lane::Routine, vec![item])
    };
    let recorded = next(&mut forum);
    forum.consigned(recorded.clone()).unwrap();
    let late = next(&mut forum);
    forum.say("KAZ", rotation("KAZ", "next", 2)).unwrap();
    let tip = ChainTip { number: 1, digest: recorded.digest };
    assert_eq!(forum.last_statement().closes.as_ref().unwrap().tip(Lane::Routine), tip);
    assert_eq!(reason(forum.run(&Command::Consign(late))), Err(Reason::EpochClosed));
    forum.run(&Command::Consign(recorded.clone())).unwrap();
    let (old, new) = (public_key("KAZ").fingerprint, public_key("next").fingerprint);
    let key = ChainKey { epoch: 2, ..chain("KAZ", Lane::Routine) };
    let previous = ConsignmentDigest(digest("what names the tip"));
    let first = Consign { chain: key, number: 1, previous, begins_after: Some(tip), ..next(&mut forum) };
    assert_eq!(
        reason(forum.run(&Command::Consign(Consign { key: old, ..first.clone() }))),
        Err(Reason::SigningKeyUnknown)
    );
    let recorded = forum.consigned(Consign { key: new, ..first }).unwrap();
    assert_eq!(recorded.groups.len(), 1, "the agreement goes on, with nobody's new consent");
    let keys = forum.ledger.registry().enrolment(&t("KAZ")).unwrap();
    assert_eq!(keys.succession().collect::<Vec<_>>(), [(old, false), (new, true)]);
    assert!(keys.speaks_with(&new) && keys.speaks_with(&old), "what was signed before may be on its way");
    assert_eq!(forum.ledger.anchors().count(), 3);
}

#[test]
fn who_consented_to_keys_that_vouch_for_the_present_ones_is_joined_by_others_and_replaced_keys_are_not() {
    let consents = |change: StatementContent, who: &str| {
        let mut forum = Forum::of(["KAZ", "IRN"]);
        let reference = forum.propose("KAZ/floods", &["IRN", "KAZ"]).unwrap();
        forum.say(who, change).unwrap();
        reason(forum.consent("IRN", &reference))
    };
    assert_eq!(consents(rotation("KAZ", "next", 2), "KAZ"), Ok(()));
    assert_eq!(consents(anchor("next anchor", "KAZ"), "KAZ"), Ok(()));
    assert_eq!(consents(replacement(), "SEC"), Err(Reason::FingerprintMismatch));
    // One unvouched step is enough.
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let reference = forum.propose("KAZ/floods", &["IRN", "KAZ"]).unwrap();
    forum.say("KAZ", rotation("KAZ", "next", 2)).unwrap();
    forum.say("SEC", replacement()).unwrap();
    forum.say("KAZ", rotation("NEW", "third", 4)).unwrap();
    assert_eq!(reason(forum.consent("IRN", &reference)), Err(Reason::FingerprintMismatch));
}

#[test]
fn both_anchors_count_until_the_one_before_is_ended_and_a_third_waits_for_that() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let before = forum.ledger.registry().enrolment(&t("KAZ")).unwrap().anchor_fingerprint;
    assert_eq!(reason(forum.say("KAZ", anchor("next", "IRN"))), Err(Reason::SigningKeyUnknown));
    assert_eq!(
        reason(forum.say("KAZ", StatementContent::EndAnchor(before))),
        Err(Reason::AnchorUnknown),
        "the present one"
    );
    let of_kaz = |forum: &Forum| forum.ledger.anchors().filter(|(code, _)| code.as_str() == "KAZ").count();
    forum.say("KAZ", anchor("next", "KAZ")).unwrap();
    assert_eq!(forum.last_statement().told.len(), 3);
    assert_eq!(of_kaz(&forum), 2);
    assert_eq!(reason(forum.say("KAZ", anchor("third", "KAZ"))), Err(Reason::AnchorEnding));
    assert_eq!(reason(forum.say("IRN", StatementContent::EndAnchor(before))), Err(Reason::AnchorUnknown), "another's");
    forum.say("KAZ", StatementContent::EndAnchor(before)).unwrap();
    assert_eq!(of_kaz(&forum), 1);
    assert_eq!(reason(forum.say("KAZ", StatementContent::EndAnchor(before))), Err(Reason::AnchorUnknown));
    let registry = forum.ledger.registry();
    assert_eq!(registry.anchors_of(&t("KAZ")).count(), 2, "what was signed under it is verified for ever");
    let old = String::from_utf8(registry.enrolment(&t("KAZ")).unwrap().first_keys().0.to_vec()).unwrap();
    assert_eq!(reason(forum.say("KAZ", anchor(&old, "KAZ"))), Err(Reason::ParticipantAlreadyEnrolled));
    forum.say("KAZ", anchor("third", "KAZ")).unwrap();
}

#[test]
fn a_replacement_ends_every_anchor_of_before() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    forum.say("KAZ", anchor("next", "KAZ")).unwrap();
    forum.say("SEC", replacement()).unwrap();
    assert_eq!(forum.ledger.anchors().filter(|(code, _)| code.as_str() == "KAZ").count(), 1);
}

#[test]
fn the_hub_s_keys_follow_by_the_secretariat_s_word_which_needs_the_others_of_its_officers() {
    let mut forum = Forum::of(["KAZ"]);
    assert_eq!(reason(forum.say("SEC", of_hub("KAZ", "next"))), Err(Reason::SigningKeyUnknown));
    let papers = JoinRequest { signing_key: public_key("papers"), ..join_request("SEC") };
    forum.say("SEC", StatementContent::Enrol(papers)).unwrap();
    let hub = forum.ledger.registry().hub_keys().unwrap().signing_key.clone();
    let content = |next: &str| {
        StatementContent::RotateKey(KeyRotation { opening: None, before: hub.clone(), signing_key: public_key(next) })
    };
    let asks = |forum: &mut Forum, who: &str, content| {
        let statement = forum.statement(who, content);
        needs_others(forum.ledger.registry(), &statement)
    };
    assert!(asks(&mut forum, "SEC", content("next")));
    assert!(asks(&mut forum, "SEC", StatementContent::EndAnchor(Fingerprint(digest("any")))));
    assert!(!asks(&mut forum, "KAZ", rotation("KAZ", "next", 2)), "a state needs nobody's signature but its own");
    forum.say("SEC", content("next")).unwrap();
    let next = StatementContent::SucceedAnchor(AnchorSuccession {
        anchor: b"next anchor".to_vec(),
        anchor_fingerprint: Fingerprint(digest("next anchor")),
        signing_key: public_key("next"),
    });
    forum.say("SEC", next).unwrap();
    let registry = forum.ledger.registry();
    let keys = registry.hub_keys().unwrap();
    assert!(keys.known_key(&hub.fingerprint).is_some() && keys.signing_key == public_key("next"));
    assert_eq!(keys.first_keys().1, &hub);
    let node = registry.enrolment(&t("SEC")).unwrap();
    assert_eq!(node.anchor, b"next anchor", "its node has the hub's anchor");
    assert_eq!(node.signing_key, public_key("papers"));
    forum.say("SEC", rotation("papers", "papers next", 2)).unwrap();
}

fn handed(forum: &mut Forum, content: StatementContent, by: &str) -> Handed {
    Handed {
        statement: forum.statement("KAZ", content),
        by: t(by),
        was_told: true,
        refused: None,
        closes: None,
        approvals: Vec::new(),
        quorum: Quorum::ONE,
    }
}

#[test]
fn a_rotation_that_a_hub_lost_comes_back_by_anybody_who_was_told_and_its_node_goes_on_from_its_own_end() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ"]);
    let next = |forum: &mut Forum| {
        let header = forum.header("KAZ", &agreement);
        let item = forum.item(header);
        forum.consign("KAZ", Lane::Routine, vec![item])
    };
    let audience = Audience { agreement: agreement.clone(), recipients: vec![t("IRN")] };
    let forgotten = Consign { stood: Some(vec![Stood::Recorded(audience)]), ..next(&mut forum) };
    let by_another = handed(&mut forum, rotation("KAZ", "next", 2), "IRN");
    let Decision::Fact { refusal: None, .. } = forum.run(&Command::HandBack(by_another.clone())).unwrap() else {
        panic!("it is refused")
    };
    assert_eq!(forum.ledger.registry().enrolment(&t("KAZ")).unwrap().signing_key, public_key("next"));
    let tip = ChainTip { number: 1, digest: forgotten.digest };
    let mut closes = forum.ledger.chains().tips(&chain("KAZ", Lane::Routine));
    closes.tips[Lane::Routine.slot()] = tip;
    let own = Handed { by: t("KAZ"), closes: Some(closes), ..by_another };
    assert_eq!(forum.run(&Command::HandBack(own)).unwrap(), Decision::Nothing);
    // What the hub had lost of the epoch that was closed is handed in again first, under the key of then.
    forum.consigned(forgotten).unwrap();
    let consign = next(&mut forum);
    let first = Consign {
        chain: ChainKey { epoch: 2, ..chain("KAZ", Lane::Routine) },
        number: 1,
        previous: ConsignmentDigest(digest("what names the tip")),
        begins_after: Some(tip),
        key: public_key("next").fingerprint,
        ..consign
    };
    forum.consigned(first).unwrap();
}

#[test]
fn a_succession_whose_voucher_has_yet_to_come_back_is_heard_again() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let (first, second) = (rotation("KAZ", "next", 2), anchor("next anchor", "next"));
    let second = handed(&mut forum, second, "IRN");
    let refused = |decision: Decision| match decision {
        Decision::Fact { refusal, .. } => refusal.map(|refusal: Refusal| refusal.reason),
        _ => None,
    };
    let early = forum.run(&Command::HandBack(second.clone())).unwrap();
    assert_eq!(refused(early), Some(Reason::SigningKeyUnknown));
    let first = handed(&mut forum, first, "IRN");
    assert_eq!(refused(forum.run(&Command::HandBack(first)).unwrap()), None);
    let again = forum.run(&Command::HandBack(second)).unwrap();
    assert!(matches!(again, Decision::Fact { refusal: None, .. }), "{again:?}");
    assert_eq!(forum.ledger.registry().enrolment(&t("KAZ")).unwrap().anchor, b"next anchor");
}

#[test]
fn a_fold_believes_no_voucher_but_the_present_key() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let known = forum.ledger.registry().clone();
    for content in [rotation("IRN", "next", 2), anchor("next", "IRN")] {
        let mut told = known.clone();
        told.apply(&forum.statement("KAZ", content), &[], Timestamp::from_micros(1));
        assert_eq!(told, known);
    }
    // What is said anew to a hub that lost it changes nothing where it is known.
    let said = forum.statement("KAZ", rotation("KAZ", "next", 2));
    let mut told = known;
    told.apply(&said, &[], Timestamp::from_micros(1));
    let once = told.clone();
    told.apply(&said, &[], Timestamp::from_micros(2));
    assert_eq!(told, once);
}
