use concord_ledger::{Command, JoinRequest, StatementContent};
use concord_model::{Fingerprint, Reason};

use crate::forum::{Forum, digest, founding, join_request, public_key, reason, t};

#[test]
fn a_hub_is_founded_once_and_enrols_the_secretariat_under_its_own_name() {
    let mut forum = Forum::founded(["KAZ"]);
    let again = forum.run(&Command::Found(founding(&["KAZ"])));
    assert_eq!(reason(again), Err(Reason::ArgumentInvalid));
    let registry = forum.ledger.registry();
    assert_eq!(registry.hub_keys().map(|keys| &keys.node), forum.ledger.hub());
    assert_eq!(registry.shown_keys(&t("SEC")), registry.hub_keys());
    assert_eq!(registry.enrolment(&t("SEC")), None, "it runs no node yet");
    assert_eq!(forum.ledger.anchors().count(), 1);
}

#[test]
fn a_founding_names_the_secretariat_and_nobody_twice() {
    let empty = concord_ledger::Ledger::default();
    let at = Forum::founded([]).at();
    let mut without = founding(&["KAZ"]);
    without.participants.remove(0);
    let mut same_measure = founding(&[]);
    same_measure.measures.push(same_measure.measures[0].clone());
    for wrong in [without, founding(&["KAZ", "IRN", "KAZ"]), same_measure] {
        let refused = empty.decide(&Command::Found(wrong), at);
        assert_eq!(reason(refused), Err(Reason::ArgumentInvalid));
    }
}

#[test]
fn the_secretariat_has_one_anchor_and_its_node_a_signing_key_of_its_own() {
    let mut forum = Forum::of(["KAZ"]);
    let before = forum.ledger.registry().hub_keys().cloned();
    let of_hub = join_request("SEC");
    let own_key = JoinRequest { signing_key: public_key("papers"), ..join_request("SEC") };
    let own_anchor = JoinRequest { anchor: b"another".to_vec(), ..own_key.clone() };
    let enrol = |forum: &mut Forum, request| reason(forum.say("SEC", StatementContent::Enrol(request)).map(drop));
    assert_eq!(reason(forum.propose("KAZ/papers", &["KAZ", "SEC"]).map(drop)), Err(Reason::ParticipantNotEnrolled));
    for wrong in [of_hub, own_anchor] {
        assert_eq!(enrol(&mut forum, wrong), Err(Reason::ParticipantAlreadyEnrolled));
    }
    assert_eq!(enrol(&mut forum, own_key.clone()), Ok(()));
    let registry = forum.ledger.registry();
    assert_eq!(registry.hub_keys().cloned(), before, "what signs receipts is what it was");
    assert_eq!(registry.enrolment(&t("SEC")).unwrap().signing_key, own_key.signing_key);
    assert_eq!(forum.ledger.anchors().count(), 2);
    // With the hub's own key it is no party.
    assert_eq!(reason(forum.propose("KAZ/papers", &["KAZ", "SEC"]).map(drop)), Err(Reason::FingerprintMismatch));
}

#[test]
fn everybody_is_told_of_a_founding_under_number_one_and_of_an_enrolment_next() {
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    for code in ["SEC", "KAZ", "IRN"] {
        assert_eq!(forum.ledger.feed_last(&t(code)), 1);
    }
    forum.enrol("KAZ").unwrap();
    for code in ["SEC", "KAZ", "IRN"] {
        assert_eq!(forum.ledger.feed_last(&t(code)), 2);
    }
}

#[test]
fn an_enrolment_is_of_a_known_participant_by_the_secretariat_and_never_changes() {
    let check = |by: &str, request: JoinRequest, expected: Result<(), Reason>| {
        let mut forum = Forum::of(["KAZ", "IRN"]);
        let before = forum.ledger.registry().clone();
        let heard = forum.say(by, StatementContent::Enrol(request.clone()));
        assert_eq!(reason(heard), expected, "{by} enrols {request:?}");
        assert_eq!(*forum.ledger.registry(), before, "nothing of the registry may change here");
    };
    let taken = Err(Reason::ParticipantAlreadyEnrolled);
    check("SEC", join_request("KAZ"), Ok(()));
    check("SEC", join_request("CHN"), Err(Reason::ParticipantUnknown));
    check("KAZ", join_request("KAZ"), Err(Reason::CallerNotAllowed));
    check("SEC", join_request("SEC"), taken);
    let mut other_key = join_request("KAZ");
    other_key.signing_key.fingerprint = Fingerprint(digest("another"));
    check("SEC", other_key, taken);
    let mut other_anchor = join_request("KAZ");
    other_anchor.anchor.push(0);
    check("SEC", other_anchor, taken);
    let mut other_node = join_request("KAZ");
    other_node.node = t("second");
    check("SEC", other_node, taken);
}

#[test]
fn a_repeated_enrolment_tells_only_the_secretariat() {
    let mut forum = Forum::of(["KAZ"]);
    forum.enrol("KAZ").unwrap();
    let told: Vec<_> = forum.last_statement().told.iter().map(|told| told.participant.as_str()).collect();
    assert_eq!(told, ["SEC"]);
}

#[test]
fn a_signing_key_is_found_only_under_its_own_participant_and_fingerprint() {
    let forum = Forum::of(["KAZ", "IRN"]);
    let registry = forum.ledger.registry();
    let kaz = crate::forum::public_key("KAZ");
    assert_eq!(registry.signing_key(&t("KAZ"), &kaz.fingerprint), Some(&kaz));
    assert_eq!(registry.signing_key(&t("IRN"), &kaz.fingerprint), None);
    assert_eq!(registry.signing_key(&t("CHN"), &kaz.fingerprint), None);
}
