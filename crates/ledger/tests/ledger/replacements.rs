//! New keys for a node whose own are lost: who gives them, from where on they count, and that the old ones stand for ever.

use concord_ledger::{ChainTip, Command, Consign, JoinRequest, Replacement, StatementContent};
use concord_model::{ChainKey, ConsignmentDigest, Lane, Reason, Timestamp, Title};

use crate::forum::{Forum, chain, digest, join_request, public_key, reason, t};

/// KAZ's node with another key and another anchor.
fn request() -> JoinRequest {
    let other = join_request("NEW");
    JoinRequest { participant: t("KAZ"), ..other }
}

fn replace(request: JoinRequest) -> StatementContent {
    StatementContent::Replace(Replacement { request, reference: Title::parse("note verbale 17/2026").unwrap() })
}

#[test]
fn only_the_secretariat_replaces_keys_by_new_ones_of_the_same_node() {
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    forum.enrol("KAZ").unwrap();
    let say = |forum: &mut Forum, who: &str, request| reason(forum.say(who, replace(request)));
    assert_eq!(say(&mut forum, "KAZ", request()), Err(Reason::CallerNotAllowed));
    let of_the_hub = JoinRequest { participant: t("SEC"), ..request() };
    assert_eq!(say(&mut forum, "SEC", of_the_hub), Err(Reason::CallerNotAllowed));
    let of_nobody = JoinRequest { participant: t("IRN"), ..request() };
    assert_eq!(say(&mut forum, "SEC", of_nobody), Err(Reason::ParticipantNotEnrolled));
    let of_another_name = JoinRequest { node: t("other"), ..request() };
    assert_eq!(say(&mut forum, "SEC", of_another_name), Err(Reason::StatementMalformed));
    assert_eq!(say(&mut forum, "SEC", join_request("KAZ")), Err(Reason::ParticipantAlreadyEnrolled));
    let with_the_old_anchor = JoinRequest { signing_key: public_key("NEW"), ..join_request("KAZ") };
    assert_eq!(say(&mut forum, "SEC", with_the_old_anchor), Err(Reason::ParticipantAlreadyEnrolled));
    say(&mut forum, "SEC", request()).unwrap();
    // Everybody hears of it.
    assert_eq!(forum.last_statement().told.len(), 3);
    assert_eq!(say(&mut forum, "SEC", request()), Err(Reason::ParticipantAlreadyEnrolled));
    let with_the_old_key = JoinRequest {
        signing_key: public_key("KAZ"),
        ..JoinRequest { participant: t("KAZ"), ..join_request("THIRD") }
    };
    let back = say(&mut forum, "SEC", with_the_old_key);
    assert_eq!(back, Err(Reason::ParticipantAlreadyEnrolled), "a key that was replaced does not come back");
}

#[test]
fn each_key_counts_in_its_own_epochs_and_stays_known() {
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
    forum.say("SEC", replace(request())).unwrap();
    let tip = ChainTip { number: 1, digest: recorded.digest };
    assert_eq!(forum.last_statement().closes.as_ref().unwrap().tip(Lane::Routine), tip);
    assert_eq!(reason(forum.run(&Command::Consign(late))), Err(Reason::EpochClosed));
    // What was recorded gets its receipt again, under the key of then.
    forum.run(&Command::Consign(recorded.clone())).unwrap();
    let key = ChainKey { epoch: 2, ..chain("KAZ", Lane::Routine) };
    let (old, new) = (public_key("KAZ").fingerprint, public_key("NEW").fingerprint);
    let previous = ConsignmentDigest(digest("what names the tip"));
    let first = Consign { chain: key, number: 1, previous, begins_after: Some(tip), ..next(&mut forum) };
    let by_old = Consign { key: old, ..first.clone() };
    assert_eq!(reason(forum.run(&Command::Consign(by_old))), Err(Reason::SigningKeyUnknown));
    let back = Consign { key: new, ..recorded };
    assert_eq!(reason(forum.run(&Command::Consign(back))), Err(Reason::SigningKeyUnknown));
    forum.consigned(Consign { key: new, ..first }).unwrap();
    let registry = forum.ledger.registry();
    assert!([old, new].iter().all(|key| registry.signing_key(&t("KAZ"), key).is_some()));
    assert_eq!(registry.enrolment(&t("KAZ")).unwrap().anchors().count(), 2);
    assert_eq!(forum.ledger.anchors().count(), 3, "only the present anchors vouch for callers");
}

#[test]
fn a_replacement_that_is_said_anew_to_a_hub_that_lost_it_changes_no_keys_where_it_is_known() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    forum.say("SEC", replace(request())).unwrap();
    let known = forum.ledger.registry().clone();
    let mut told_again = known.clone();
    told_again.apply(&forum.last_statement().statement, &[], Timestamp::from_micros(1));
    assert_eq!(told_again, known);
}
