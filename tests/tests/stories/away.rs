//! The hub or a node is away for a while: what is pending goes through by itself when it is back.

use concord_tests::{Forum, concord, exchange_ids, get, text_of, words};

const AGREEMENT: &str = "KAZ/warnings";

#[test]
fn what_is_submitted_while_the_hub_is_away_goes_through_in_order_when_it_is_back() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_hub();

    let sent: Vec<_> = (0..5).map(|number| kaz.submit(format!("routine {number}"), "")).collect();
    let flash = kaz.submit("urgent", "--lane flash");
    for one in sent.iter().chain([&flash]) {
        assert_eq!(text_of(&one.answer, "state"), "queued");
        let tracked = kaz.track(&one.id);
        assert_eq!(text_of(&tracked, "state"), "queued");
        assert!(tracked["recorded_at"].is_null() && tracked["queued_at"].is_string(), "{tracked}");
    }
    kaz.try_submit("late", "--wait recorded --timeout 1").refused(4, "WAIT_EXPIRED");
    assert_eq!(forum.status(&forum.node_dir("KAZ"))["outbox_exchanges"], 7);
    // The node outlives a restart without the hub too.
    forum.kill_node("KAZ");
    forum.start_node("KAZ");
    assert_eq!(forum.status(&forum.node_dir("KAZ"))["hub_connected"], false);

    forum.start_hub();
    let received = irn.receive(7);
    let routine: Vec<_> = received.iter().filter(|one| one["lane"] == "routine").cloned().collect();
    assert_eq!(exchange_ids(&routine)[..5], sent.iter().map(|one| one.id.clone()).collect::<Vec<_>>());
    for one in &sent {
        assert_eq!(kaz.settled(&one.id).len(), 1);
        assert_ne!(text_of(&kaz.track(&one.id), "state"), "queued");
    }
    assert!(irn.receive_rest().is_empty());
    assert_eq!(forum.status(&forum.node_dir("KAZ"))["outbox_exchanges"], 0);
}

#[test]
fn an_officers_word_while_the_hub_is_away_is_queued_and_said_when_it_is_back() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.propose(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    forum.consent(AGREEMENT, "IRN");
    forum.await_in_force(AGREEMENT, "KAZ");
    forum.stop_hub();
    let left = forum.leave(AGREEMENT, "IRN");
    assert_eq!(text_of(&left, "state"), "queued");
    let kaz = forum.agency("KAZ");
    let sent = kaz.submit("said when IRN had left, unknown to KAZ", "");
    forum.start_hub();
    // Whichever came first at the hub: refused where the leave did, else withheld, unless it was out before.
    let tracked = concord(words!["track", sent.id, "--wait", "delivered", "--profile", kaz.profile]);
    let answer = tracked.json();
    let has_it = match (answer["state"].as_str().unwrap(), &answer["recipients"][0]["state"]) {
        ("refused", _) => {
            assert_eq!((tracked.code, &answer["reason"]), (Some(3), &"AGREEMENT_NOT_IN_FORCE".into()), "{tracked}");
            false
        }
        (_, recipient) => {
            assert!(recipient == "withheld" || recipient == "delivered", "{tracked}");
            recipient == "delivered"
        }
    };
    assert_eq!(!forum.agency("IRN").list().is_empty(), has_it, "{tracked}");
    let since = std::time::Instant::now();
    while text_of(&forum.agreement(AGREEMENT, "KAZ"), "state") != "ended" {
        assert!(since.elapsed() < concord_tests::DEADLINE, "the leave was not said");
    }
}

#[test]
fn a_node_that_was_away_gets_everything_once_and_flash_first() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN", "TUR"]);
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    forum.kill_node("IRN");

    let mut sent: Vec<_> = (0..3).map(|number| kaz.submit(format!("routine {number}"), "")).collect();
    sent.push(kaz.submit("urgent", "--lane flash"));
    // The others do not wait for it.
    assert_eq!(tur.receive(4).len(), 4);
    for one in &sent {
        kaz.await_taken(&one.id, "TUR");
        let state = &kaz.track(&one.id)["recipients"][0];
        assert_eq!((&state["participant"], &state["state"]), (&"IRN".into(), &"recorded".into()), "{state}");
    }
    let lag = forum.status(&forum.hub_dir());
    let of_irn: u64 = lag["mailboxes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["participant"] == "IRN")
        .map(|one| one["lag_items"].as_u64().unwrap())
        .sum();
    assert_eq!(of_irn, 4, "{lag}");

    forum.start_node("IRN");
    for one in &sent {
        assert_eq!(kaz.settled(&one.id)[0], "IRN delivered");
    }
    let received = exchange_ids(&irn.receive(4));
    let mut expected: Vec<_> = sent.iter().map(|one| one.id.clone()).collect();
    expected.rotate_right(1);
    assert_eq!(received, expected);
    assert!(irn.receive_rest().is_empty());
}

#[test]
fn a_following_agency_outlives_its_nodes_restart() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let following = irn.follow();
    let first = kaz.submit("one", "");
    assert_eq!(text_of(&following.json(), "exchange_id"), first.id);
    kaz.await_taken(&first.id, "IRN");
    forum.stop_node("IRN");
    let second = kaz.submit("two", "--wait recorded");
    forum.start_node("IRN");
    assert_eq!(text_of(&following.json(), "exchange_id"), second.id);
    kaz.await_taken(&second.id, "IRN");
    assert_eq!(following.terminate().code(), Some(0));
}

#[test]
fn a_hub_that_is_gone_is_noticed_and_told_by_the_node() {
    let mut forum = Forum::of(&["KAZ"]);
    let dir = forum.node_dir("KAZ");
    let admin = forum.address(&dir, "admin");
    assert_eq!(get(&admin, "/readyz").status, 200);
    assert_eq!(forum.status(&dir)["hub_connected"], true);
    forum.kill_hub();
    let since = std::time::Instant::now();
    while forum.status(&dir)["hub_connected"] == true {
        assert!(since.elapsed() < concord_tests::DEADLINE, "the node did not notice");
    }
    assert!(forum.status(&dir)["hub_contact_at"].is_string());
}
