//! What a node set aside waits for a word: it holds when it is judged again, once, or an officer discards it.

use std::collections::BTreeMap;
use std::time::Instant;

use concord_tests::{DEADLINE, Ended, Forum, concord, exchange_ids, text_of, words};
use serde_json::Value;

/// The node of an older version: it reads no header that comes.
const OLDER: [(&str, &str); 1] = [("CONCORD_FAIL_AT", "node.judge.reads-header")];

fn set_aside(forum: &Forum, who: &str, command: &str) -> Ended {
    let mut line = vec!["set-aside".into()];
    line.extend(command.split_whitespace().map(Into::into));
    line.extend(words!["--profile", forum.node_dir("IRN").join(who)]);
    concord(line)
}

/// Asks its sender until it is told this of IRN.
fn await_state(forum: &Forum, id: &str, state: &str, reason: Option<&str>) {
    let since = Instant::now();
    loop {
        let tracked = forum.agency("KAZ").track(id);
        let one = tracked["recipients"].as_array().unwrap()[0].clone();
        if one["state"] == state && one["reason"].as_str() == reason {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "not {state} {reason:?}: {tracked}");
    }
}

/// A forum in which IRN has set two aside that KAZ sent, and its agency has passed them.
fn two_set_aside() -> (Forum, [String; 2]) {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    forum.stop_node("IRN");
    forum.start_node_with("IRN", &OLDER.into());
    let sent = ["one", "two"].map(|body| forum.agency("KAZ").submit(body, "--wait recorded").id);
    for id in &sent {
        await_state(&forum, id, "set-aside", Some("HEADER_INVALID"));
    }
    assert!(forum.agency("IRN").receive_rest().is_empty());
    (forum, sent)
}

#[test]
fn what_was_set_aside_is_shown_without_content_and_delivered_once_when_it_holds_also_over_a_kill() {
    let (mut forum, [one, two]) = two_set_aside();
    let listed = set_aside(&forum, "operator", "list").ok();
    assert_eq!(exchange_ids(&listed.lines()), [one.clone(), two.clone()]);
    assert!(listed.stderr.contains("next: "), "{listed}");
    let first = &listed.lines()[0];
    assert_eq!((text_of(first, "reason"), text_of(first, "origin")), ("HEADER_INVALID".to_owned(), "KAZ".to_owned()));
    assert!(first["since"].is_string() && first["size_bytes"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(first["key_id"], first["consented_key_id"], "{first}");
    let shown = set_aside(&forum, "operator", &format!("show {}", &one[..8])).ok();
    assert_eq!((shown.json(), shown.json().to_string().contains("\"title\"")), (first.clone(), false));
    let status = forum.status(&forum.node_dir("IRN"));
    assert!(status["notes"].to_string().contains("set-aside"), "{status}");

    // The same program judges as it did before.
    let again = set_aside(&forum, "operator", "retry --all");
    again.refused(3, "STAYS_SET_ASIDE");
    assert!(again.message().contains("2 of 2"), "{again}");
    assert!(
        again.lines().iter().all(|line| line["delivered"] == false && line["reason"] == "HEADER_INVALID"),
        "{again}"
    );
    assert!(forum.agency("IRN").receive_rest().is_empty());

    // A newer one dies behind its decision, and before it says so.
    forum.stop_node("IRN");
    forum.start_node_with("IRN", &BTreeMap::from([("CONCORD_CRASH_AT", "node.aside.retried")]));
    assert_ne!(set_aside(&forum, "operator", &format!("retry {one}")).code, Some(0));
    forum.await_end_of_node("IRN");
    forum.start_node("IRN");
    for _ in 0..2 {
        let held = set_aside(&forum, "operator", &format!("retry {one} {two}")).ok();
        assert!(held.lines().iter().all(|line| line["delivered"] == true && line["reason"].is_null()), "{held}");
    }
    assert!(set_aside(&forum, "operator", "list").ok().lines().is_empty());
    let nothing = set_aside(&forum, "operator", "retry --all").ok();
    assert!(nothing.stderr.contains("nothing is set aside"), "{nothing}");
    let received = forum.agency("IRN").receive(2);
    assert_eq!(exchange_ids(&received), [one.clone(), two.clone()]);
    assert!(forum.agency("IRN").receive_rest().is_empty(), "given for the second time");
    for id in [&one, &two] {
        forum.agency("KAZ").await_taken(id, "IRN");
    }
    // What comes then is taken in its turn, and the note goes.
    let next = forum.agency("KAZ").submit("three", "--wait delivered");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [next.id.clone()]);
    forum.agency("KAZ").await_taken(&next.id, "IRN");
    let since = Instant::now();
    while forum.status(&forum.node_dir("IRN"))["notes"].to_string().contains("set-aside") {
        assert!(since.elapsed() < DEADLINE, "the note stays");
    }
}

#[test]
fn what_an_officer_discards_reaches_nobody_and_its_sender_and_the_secretariat_are_told_so() {
    let (mut forum, [one, two]) = two_set_aside();
    set_aside(&forum, "operator", &format!("discard {one} --reason no --yes")).refused(3, "CALLER_NOT_ALLOWED");
    set_aside(&forum, "officer", "discard 00000000 --reason no --yes").refused(3, "EXCHANGE_UNKNOWN");
    for _ in 0..2 {
        set_aside(&forum, "officer", &format!("discard {one} --reason sent-again --yes")).ok();
    }
    await_state(&forum, &one, "set-aside", Some("DISCARDED"));
    set_aside(&forum, "officer", &format!("retry {one}")).refused(3, "EXCHANGE_UNKNOWN");
    // A newer version does not take it in either.
    forum.stop_node("IRN");
    forum.start_node("IRN");
    let held = set_aside(&forum, "officer", "retry --all").ok();
    assert_eq!(exchange_ids(&held.lines()), [two.clone()]);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [two.clone()]);
    assert!(forum.agency("IRN").receive_rest().is_empty());
    let explain = |id: &String, profile| concord(words!["explain", id, "--profile", profile]).ok().json();
    let said = explain(&one, forum.agency("IRN").profile);
    assert_eq!((text_of(&said, "state"), text_of(&said, "reason")), ("set-aside".to_owned(), "DISCARDED".to_owned()));
    let at_hub = |id: &String| {
        let said = explain(id, forum.hub_dir().join("officer"));
        let parties = said["parties"].as_array().unwrap().clone();
        parties.into_iter().find(|party| text_of(party, "participant") == "IRN").unwrap()
    };
    forum.agency("KAZ").await_taken(&two, "IRN");
    assert_eq!(
        (&at_hub(&one)["state"], &at_hub(&one)["reason"]),
        (&Value::from("set-aside"), &Value::from("DISCARDED"))
    );
    assert_eq!(at_hub(&two)["state"], "delivered");
    // Who did it, and about what: in the audit log; why: in the journal.
    let audit = concord(words!["audit", "--profile", forum.officer("IRN")]).ok().lines();
    let acts =
        audit.iter().filter(|line| text_of(line, "method").ends_with("/DiscardSetAside") && line["outcome"] == "ok");
    assert_eq!(acts.map(|line| text_of(line, "about")).collect::<Vec<_>>(), [format!("exchange {one}")]);
    forum.stop_node("IRN");
    let entries = concord(words!["journal", "show", forum.node_dir("IRN")]).ok().lines();
    let discarded = entries.iter().find(|entry| entry["kind"] == "aside-discarded").unwrap();
    assert!(text_of(discarded, "about").contains("sent-again"), "{discarded}");
}
