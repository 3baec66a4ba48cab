//! Quotas: whoever brings more than its share is told so and waits, loses nothing, and the others do not notice.

use std::time::Instant;

use bytes::Bytes;
use concord_model::{ConsignmentDigest, Digest, Lane};
use concord_tests::{Forum, RawNode, Sent, concord, exchange_ids, replace_line, words};
use concord_wire::proto::exchange::v1 as pb;

const AGREEMENT: &str = "KAZ/warnings";
const MEASURE: &str = "environmental.5";

fn ids(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(|one| one.id.clone()).collect()
}

#[test]
fn an_agency_that_floods_its_node_hears_it_and_the_other_agencies_do_not() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    concord(words!["agency", "add", "other", "--dir", forum.node_dir("KAZ")]).ok();
    forum.configure_node("KAZ", |settings| replace_line(settings, "exchanges_per_second", "1"));
    let (flooding, other) = (forum.agency("KAZ"), forum.agency_named("KAZ", "other"));
    let mut queued = Vec::new();
    let refused = loop {
        let ended = flooding.try_submit(format!("flood {}", queued.len()), "");
        if ended.code != Some(0) {
            break ended;
        }
        queued.push(ended.json()["exchange_id"].as_str().unwrap().to_owned());
        assert!(queued.len() < 1000, "it was never refused");
    };
    refused.refused(4, "QUOTA_EXCEEDED");
    // Flash has a share of its own, and so has another agency.
    let flash = flooding.submit("urgent", "--lane flash --wait delivered");
    let theirs = other.submit("from the other agency", "--wait delivered");
    // A share fills up with time.
    let since = Instant::now();
    let later = loop {
        let ended = flooding.try_submit("later", "");
        if ended.code == Some(0) {
            break ended.json()["exchange_id"].as_str().unwrap().to_owned();
        }
        ended.refused(4, "QUOTA_EXCEEDED");
        assert!(since.elapsed() < concord_tests::DEADLINE);
    };
    let received = exchange_ids(&forum.agency("IRN").receive(queued.len() + 3));
    for id in queued.iter().chain([&flash.id, &theirs.id, &later]) {
        assert!(received.contains(id), "{id} is not in {received:?}");
    }
}

#[test]
fn a_node_that_floods_the_hub_waits_and_loses_nothing_and_the_other_states_do_not_wait() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    forum.configure_hub(|settings| replace_line(settings, "exchanges_per_second", "5"));
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    // All at once, however slow the machine is.
    forum.stop_hub();
    let sent: Vec<Sent> = (0..40).map(|number| kaz.submit(format!("flood {number}"), "")).collect();
    forum.start_hub();
    let flash = kaz.submit("urgent", "--lane flash --wait delivered");
    let theirs = irn.submit("from the other state", "--wait delivered");
    let received = exchange_ids(&irn.receive(sent.len() + 1));
    let routine: Vec<String> = received.iter().filter(|id| **id != flash.id).cloned().collect();
    assert_eq!(routine, ids(&sent), "all of it, in order, once");
    assert_eq!(exchange_ids(&kaz.receive(1)), [theirs.id]);
    let metrics = concord_tests::get(&forum.address(&forum.hub_dir(), "admin"), "/metrics");
    assert!(metrics.body.contains("concord_quota_refusals_total"), "the hub refused some of it");
    assert_eq!(forum.status(&forum.node_dir("KAZ"))["alarms"], serde_json::json!([]));
}

#[test]
fn what_waits_for_a_hub_that_is_away_is_bounded_and_goes_on_when_it_is_back() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    forum.configure_node("KAZ", |settings| replace_line(settings, "waiting_exchanges_max", "3"));
    forum.stop_hub();
    let kaz = forum.agency("KAZ");
    let sent: Vec<Sent> = (0..3).map(|number| kaz.submit(format!("waits {number}"), "")).collect();
    kaz.try_submit("one too many", "").refused(4, "QUOTA_EXCEEDED");
    let flash = kaz.submit("urgent", "--lane flash");
    forum.start_hub();
    let expected: Vec<String> = [flash.id].into_iter().chain(ids(&sent)).collect();
    let mut received = exchange_ids(&forum.agency("IRN").receive(4));
    received.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(received, expected);
    kaz.submit("again", "--wait delivered");
}

#[test]
fn one_agency_does_not_take_all_the_room_that_its_node_has_for_a_hub_that_is_away() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    concord(words!["agency", "add", "other", "--dir", forum.node_dir("KAZ")]).ok();
    forum.configure_node("KAZ", |settings| replace_line(settings, "waiting_exchanges_max", "4"));
    let (kaz, other) = (forum.agency("KAZ"), forum.agency_named("KAZ", "other"));
    // What the hub has waits no more.
    kaz.submit("before", "--wait recorded");
    forum.stop_hub();
    let sent: Vec<Sent> = (0..3).map(|number| kaz.submit(format!("waits {number}"), "")).collect();
    let refused = kaz.try_submit("one too many of this agency", "");
    assert!(refused.stderr.contains("the most of one agency is 3"), "{refused}");
    refused.refused(4, "QUOTA_EXCEEDED");
    let last = other.submit("the place that is left", "");
    other.try_submit("one too many of all", "").refused(4, "QUOTA_EXCEEDED");
    forum.start_hub();
    let received = exchange_ids(&forum.agency("IRN").receive(5));
    assert_eq!(received[1..], [ids(&sent), vec![last.id]].concat());
    kaz.submit("again", "--wait delivered");
}

#[test]
fn what_is_handed_in_again_although_the_hub_has_it_costs_its_share() {
    use pb::consign_request::Message;
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.configure_hub(|settings| replace_line(settings, "exchanges_per_second", "5"));
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    let agreement = forum.agreement(AGREEMENT, "KAZ");
    forum.stop_node("KAZ");
    let raw = RawNode::of(&forum, "KAZ");
    let draft = raw.draft(&agreement, MEASURE, Lane::Routine, b"once");
    let (sent, _) = raw.consignment(Lane::Routine, 1, ConsignmentDigest(Digest::ZERO), &[draft]);
    let first = raw.consign(Lane::Routine, vec![sent.clone()]);
    assert!(first.refused.is_none(), "{:?}", first.refused);
    let receipt = first.receipts[0].clone();
    let again = || pb::RehandedConsignment {
        consignment: Some(sent.clone()),
        receipt: Some(receipt.clone()),
        history: Bytes::new(),
    };
    let messages = std::iter::once(raw.hello(Lane::Routine)).chain((0..100).map(|_| Message::Rehanded(again())));
    let answer = raw.say(messages.collect());
    let refused = answer.refused.expect("its share is used up");
    assert!(refused.message().contains("its share") && answer.receipts.len() < 100, "{refused}");
    assert!(answer.receipts.iter().all(|one| *one == receipt), "the same words as the first time");
}

#[test]
fn one_flooding_state_costs_the_others_little() {
    // The goal is a tenth; on a machine that does other things beside, far less would still be a fault.
    const THROUGHPUT_RATIO_MIN: f64 = 0.7;
    let told = concord(words!["bench", "fairness", "--rounds", "1", "--seconds", "3"]).ok().lines();
    let summary = told.last().unwrap();
    assert!(summary["throughput_ratio"].as_f64().unwrap() >= THROUGHPUT_RATIO_MIN, "{told:?}");
    assert!(told[0]["with"]["refused"].as_u64().unwrap() > 0, "the flood was within its quota: {told:?}");
}
