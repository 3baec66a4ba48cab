//! What networks do to connections that stand: they swallow, stall, crawl and cut. After each of it everything is there, once and in
//! order; and nobody else waits.

use std::time::{Duration, Instant};

use concord_tests::{Agency, DEADLINE, Flow, Forum, Proxy, Sent, Way, count_in_journal, exchange_ids, get, text_of};

const AGREEMENT: &str = "KAZ/warnings";
/// 1 Mbit/s.
const SLOW_BYTES_PER_SECOND: u64 = 125_000;

/// A forum whose nodes reach the hub through proxies, with one agreement of all.
fn forum(codes: &[&str]) -> (Forum, Vec<Proxy>) {
    let (forum, links) = Forum::through_proxies(codes);
    forum.agree(AGREEMENT, "environmental.5", codes);
    (forum, links)
}

#[track_caller]
fn await_so(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the hub has a connection of this participant's node.
fn is_connected(forum: &Forum, code: &str) -> bool {
    let status = forum.status(&forum.hub_dir());
    status["nodes"].as_array().unwrap().iter().any(|node| node["participant"] == code)
}

/// Whether the node has the hub.
fn has_hub(forum: &Forum, code: &str) -> bool {
    forum.status(&forum.node_dir(code))["hub_connected"] == true
}

/// The recipient takes exactly these, each lane in the order of submission, and has each once in its journal.
#[track_caller]
fn check_all_once(forum: &Forum, recipient: &str, agency: &Agency, sent: &[Sent]) {
    let received = agency.receive(sent.len());
    for lane in ["flash", "priority", "routine"] {
        let of_lane: Vec<_> = received.iter().filter(|one| one["lane"] == lane).cloned().collect();
        let of_lane = exchange_ids(&of_lane);
        let in_order: Vec<_> = sent.iter().map(|one| one.id.clone()).filter(|id| of_lane.contains(id)).collect();
        assert_eq!(of_lane, in_order, "lane {lane}");
    }
    assert!(agency.receive_rest().is_empty());
    let ids: Vec<String> = sent.iter().map(|one| one.id.clone()).collect();
    assert_eq!(count_in_journal(&forum.node_dir(recipient), &ids), (ids.len(), ids.len()));
}

#[test]
fn a_dead_connection_is_noticed_on_both_sides_and_what_waits_goes_through_after_it() {
    let (forum, links) = forum(&["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let mut sent = vec![kaz.submit("before", "--wait delivered")];

    links[0].flow_both(Flow::Swallowed);
    let since = Instant::now();
    for lane in ["routine", "flash", "routine"] {
        sent.push(kaz.submit(format!("while nothing passes, {lane}"), &format!("--lane {lane}")));
    }
    let (mut at_hub, mut at_node) = (None, None);
    await_so("both sides see the other gone", || {
        if at_hub.is_none() && !is_connected(&forum, "KAZ") {
            at_hub = Some(since.elapsed());
        }
        if at_node.is_none() && !has_hub(&forum, "KAZ") {
            at_node = Some(since.elapsed());
        }
        at_hub.is_some() && at_node.is_some()
    });
    println!("dead peer noticed: at the hub after {at_hub:.1?}, at the node after {at_node:.1?}");
    // Not only in the status: whoever watches the node is told, and told when it is over.
    let admin = forum.address(&forum.node_dir("KAZ"), "admin");
    await_so("the node says that it does not reach the hub", || {
        let page = get(&admin, "/readyz");
        page.status == 503 && page.body.contains("hub-unreachable")
    });
    // The others go on.
    assert!(is_connected(&forum, "IRN") && has_hub(&forum, "IRN"));

    links[0].flow_both(Flow::Free);
    for one in &sent {
        assert_eq!(kaz.settled(&one.id), ["IRN delivered"]);
    }
    await_so("the node is ready again", || get(&admin, "/readyz").status == 200);
    check_all_once(&forum, "IRN", &irn, &sent);
}

#[test]
fn a_receipt_or_an_acknowledgement_that_the_network_lost_is_said_again_and_has_one_effect() {
    let (forum, links) = forum(&["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let [kaz_link, irn_link] = &links[..] else { panic!("two links") };

    // The hub has recorded it, its recipient has it, and the sender's node has not heard.
    kaz_link.flow(Way::Down, Flow::Swallowed);
    let unheard = kaz.submit("recorded, and the receipt lost", "");
    assert_eq!(exchange_ids(&irn.receive(1)), [unheard.id.clone()]);
    assert_eq!(text_of(&kaz.track(&unheard.id), "state"), "queued");
    kaz_link.flow_both(Flow::Free);
    kaz_link.cut();
    kaz.await_taken(&unheard.id, "IRN");

    // The recipient's node has it, and the hub has not heard.
    irn_link.flow(Way::Up, Flow::Swallowed);
    let unsaid = kaz.submit("delivered, and the acknowledgement lost", "--wait recorded");
    assert_eq!(exchange_ids(&irn.receive(1)), [unsaid.id.clone()]);
    assert_eq!(text_of(&kaz.track(&unsaid.id)["recipients"][0], "state"), "recorded");
    irn_link.flow_both(Flow::Free);
    irn_link.cut();
    kaz.await_taken(&unsaid.id, "IRN");

    assert!(irn.receive_rest().is_empty());
    let ids = [unheard.id, unsaid.id];
    assert_eq!(count_in_journal(&forum.node_dir("IRN"), &ids), (2, 2));
    let status = forum.status(&forum.node_dir("KAZ"));
    assert_eq!(status["outbox_exchanges"], 0, "{status}");
}

#[test]
fn connections_that_are_cut_after_any_number_of_bytes_lose_nothing_and_double_nothing() {
    let (forum, links) = forum(&["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let mut sent = Vec::new();
    for (number, bytes) in [1, 150, 700].into_iter().enumerate() {
        for (link, way) in [(0, Way::Up), (0, Way::Down), (1, Way::Up), (1, Way::Down)] {
            links[link].cut_after(way, bytes);
            let lane = ["routine", "flash", "priority"][number % 3];
            sent.push(kaz.submit([b'x'; 900], &format!("--lane {lane} --title T{number}-{link}")));
            await_so("the cut came", || !links[link].will_cut(way));
        }
    }
    for one in &sent {
        assert_eq!(kaz.settled(&one.id), ["IRN delivered"]);
    }
    check_all_once(&forum, "IRN", &irn, &sent);
}

#[test]
fn one_byte_a_second_holds_up_nobody_else_and_ends_by_itself() {
    let (forum, links) = forum(&["KAZ", "IRN", "TUR"]);
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    links[0].flow_both(Flow::PerSecond(1));
    let slow = kaz.submit("at one byte a second", "");
    // The hub takes and gives whatever others have, while that one is on its way and its connection stands.
    let others: Vec<Sent> =
        (0..5).map(|number| irn.submit(format!("meanwhile {number}"), "--to TUR --wait delivered")).collect();
    assert_eq!(text_of(&kaz.track(&slow.id), "state"), "queued");
    check_all_once(&forum, "TUR", &tur, &others);
    await_so("the hub has given the slow connections up", || !is_connected(&forum, "KAZ"));

    links[0].flow_both(Flow::Free);
    links[0].cut();
    check_all_once(&forum, "IRN", &irn, std::slice::from_ref(&slow));
    check_all_once(&forum, "TUR", &tur, &[slow]);
}

#[test]
fn on_a_slow_line_flash_overtakes_the_bulk_and_the_largest_body_goes_through() {
    let (forum, links) = forum(&["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    links[0].flow_both(Flow::PerSecond(SLOW_BYTES_PER_SECOND));
    // The first alone takes half a minute, longer than a silent connection is kept.
    let sizes = [3_900_000, 100_000, 100_000, 100_000];
    let mut sent: Vec<Sent> = sizes.into_iter().map(|size| kaz.submit(vec![b'b'; size], "")).collect();
    let since = Instant::now();
    let flash = kaz.submit("urgent", "--lane flash --wait delivered");
    let took = since.elapsed();
    let waiting = forum.status(&forum.node_dir("KAZ"))["outbox_exchanges"].as_u64().unwrap();
    println!("flash on 1 Mbit/s behind 4.2 MB: delivered after {took:.1?}, {waiting} of 4 before it still wait");
    assert_eq!(waiting, 4, "it came behind bulk");
    sent.push(flash);
    for one in &sent {
        assert_eq!(kaz.settled(&one.id), ["IRN delivered"]);
    }
    check_all_once(&forum, "IRN", &irn, &sent);
}

#[test]
fn a_recipient_that_does_not_read_costs_the_others_nothing_and_gets_everything_later() {
    let (forum, links) = forum(&["KAZ", "IRN", "TUR"]);
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    links[1].flow(Way::Down, Flow::Stalled);
    let sent: Vec<Sent> = (0..8).map(|_| kaz.submit(vec![b's'; 1_000_000], "--wait recorded")).collect();
    check_all_once(&forum, "TUR", &tur, &sent);
    await_so("the hub has given the stalled connections up", || !is_connected(&forum, "IRN"));
    links[1].flow_both(Flow::Free);
    check_all_once(&forum, "IRN", &irn, &sent);
    for one in &sent {
        kaz.await_taken(&one.id, "IRN");
    }
}

#[test]
fn an_agency_whose_answer_was_lost_asks_again_and_has_sent_it_once() {
    let (forum, _links) = forum(&["KAZ", "IRN"]);
    let door = Proxy::new(&forum.address(&forum.node_dir("KAZ"), "listen"));
    let (kaz, far, irn) = (forum.agency("KAZ"), forum.agency_through("KAZ", &door), forum.agency("IRN"));
    let (mut sent, mut lost) = (Vec::new(), 0);
    for (number, bytes) in (200..5_000).step_by(400).enumerate() {
        let (body, options) = (format!("number {number}"), format!("--request-id r-{number} --title T"));
        door.cut_after(Way::Down, bytes);
        let first = far.try_submit(&body, &options);
        lost += usize::from(first.code != Some(0));
        // By whatever way it asks again, it hears what it was answered or would have been.
        let again = kaz.submit(&body, &options);
        if first.code == Some(0) {
            assert_eq!(text_of(&first.json(), "exchange_id"), again.id);
        }
        sent.push(again);
    }
    assert!(lost > 3, "only {lost} answers were cut off");
    check_all_once(&forum, "IRN", &irn, &sent);
}

#[test]
fn a_following_agency_outlives_a_network_that_swallows_and_gets_each_exchange_until_it_acknowledged() {
    let (forum, _links) = forum(&["KAZ", "IRN"]);
    let door = Proxy::new(&forum.address(&forum.node_dir("IRN"), "listen"));
    let (kaz, irn, far) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency_through("IRN", &door));
    let following = far.follow();
    let first = kaz.submit("before", "");
    assert_eq!(text_of(&following.json(), "exchange_id"), first.id);
    kaz.await_taken(&first.id, "IRN");

    door.flow_both(Flow::Swallowed);
    let during: Vec<Sent> = (0..3).map(|number| kaz.submit(format!("during {number}"), "--wait delivered")).collect();
    door.flow_both(Flow::Free);
    door.cut();
    let after = kaz.submit("after", "");
    let ids: Vec<String> = during.iter().chain([&after]).map(|one| one.id.clone()).collect();
    assert_eq!(exchange_ids(&following.jsons(4)), ids);
    for id in &ids {
        kaz.await_taken(id, "IRN");
    }
    drop(following);
    assert!(irn.receive_rest().is_empty(), "what was acknowledged came again");
}
