//! Content that a disk damages while somebody waits for it: whoever has it still gives it again, and nobody else waits longer than that.

use std::path::Path;

use concord_tests::{
    Agency, DEADLINE, Forum, body_of, concord, exchange_ids, flip_bit_of_body, replace_line, text_of, words,
};

/// Two states, whose journals begin a new segment soon: damage in a full one stops no start.
fn forum() -> Forum {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/warnings", "environmental.5", &["KAZ", "IRN"]);
    let small = |settings: &str| replace_line(settings, "journal_segment_size_bytes", "65536");
    forum.configure_hub(small);
    forum.configure_node("KAZ", small);
    forum.configure_node("IRN", small);
    forum
}

/// Large enough that each body begins a segment, or the next does.
fn send(from: &Agency, beginning: &str, options: &str) -> String {
    from.submit(format!("{beginning} {}", ".".repeat(50_000)), options).id
}

/// Also the one of a check of the whole journal that saw it.
fn await_no_alarm(forum: &Forum, dir: &Path) {
    let since = std::time::Instant::now();
    let is_damaged = |alarms: String| alarms.contains("body-damaged") || alarms.contains("journal-damaged");
    while is_damaged(forum.status(dir)["alarms"].to_string()) {
        assert!(since.elapsed() < DEADLINE, "{}", forum.status(dir));
    }
}

fn assert_holds(dir: &Path) {
    assert_eq!(concord(words!["verify", dir]).ok().json()["holds"], true);
}

/// All of what waited comes in order, the damaged one whole, and a flash beside it does not wait.
fn assert_all_come_beside_a_flash(kaz: &Agency, irn: &Agency, waited: &[String]) {
    let flash = kaz.submit("a flash", "--lane flash --wait delivered").id;
    let rest = irn.receive(waited.len() + 1);
    let mut came = exchange_ids(&rest);
    came.retain(|id| *id != flash);
    assert_eq!(came, waited);
    assert!(rest.iter().any(|received| body_of(received).starts_with(b"the damaged")));
}

#[test]
fn content_that_is_damaged_at_the_hub_is_given_again_by_its_origin_and_all_of_it_arrives() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_node("IRN");
    let ids = ["the first", "the damaged", "the last", "one more"].map(|body| send(&kaz, body, "--wait recorded"));
    flip_bit_of_body(&forum.hub_dir(), b"the damaged");
    concord(words!["verify", forum.hub_dir()]).refused(1, "JOURNAL_DAMAGED");
    // Its origin is away: the lane waits for it, which is said, and another lane does not.
    forum.stop_node("KAZ");
    forum.start_node("IRN");
    assert_eq!(exchange_ids(&irn.receive(1)), ids[..1]);
    let alarms = forum.await_alarm(&forum.hub_dir(), "body-damaged");
    assert!(alarms.contains("KAZ"), "{alarms}");
    forum.start_node("KAZ");
    assert_all_come_beside_a_flash(&kaz, &irn, &ids[1..]);
    await_no_alarm(&forum, &forum.hub_dir());
    assert_holds(&forum.hub_dir());
}

#[test]
fn content_that_is_damaged_at_the_hub_while_its_origin_is_there_is_asked_for_at_once() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_node("IRN");
    let ids = ["the first", "the damaged", "the last"].map(|body| send(&kaz, body, "--wait recorded"));
    flip_bit_of_body(&forum.hub_dir(), b"the damaged");
    forum.start_node("IRN");
    assert_eq!(exchange_ids(&irn.receive(3)), ids);
    await_no_alarm(&forum, &forum.hub_dir());
    let alarms = forum.status(&forum.hub_dir())["alarms"].to_string();
    assert!(!alarms.contains("not-healed"), "{alarms}");
}

#[test]
fn content_that_nobody_has_any_more_is_listed_and_told_and_holds_up_nothing() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_node("IRN");
    let bodies = ["the first", "the damaged", "the last", "one more"];
    let ids = bodies.map(|body| send(&kaz, body, "--wait recorded"));
    flip_bit_of_body(&forum.hub_dir(), b"the damaged");
    flip_bit_of_body(&forum.node_dir("KAZ"), b"the damaged");
    forum.start_node("IRN");
    assert_eq!(exchange_ids(&irn.receive(3)), [&ids[..1], &ids[2..]].concat());
    assert_eq!(kaz.settled(&ids[1]), ["IRN withheld BODY_LOST"]);
    let alarms = forum.await_alarm(&forum.hub_dir(), "not-healed");
    assert!(alarms.contains(&ids[1]) && alarms.contains("IRN"), "{alarms}");
    await_no_alarm(&forum, &forum.hub_dir());
    assert_eq!(text_of(&kaz.track_delivered(&ids[1]), "state"), "withheld");
}

#[test]
fn content_that_is_damaged_at_its_recipients_node_is_given_again_by_the_hub() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let ids = ["the first", "the damaged", "the last", "one more"].map(|body| send(&kaz, body, "--wait delivered"));
    let dir = forum.node_dir("IRN");
    flip_bit_of_body(&dir, b"the damaged");
    // Without its hub the lane waits, which is said.
    forum.stop_hub();
    assert_eq!(exchange_ids(&irn.receive_rest()), ids[..1]);
    assert!(irn.receive_rest().is_empty());
    forum.await_alarm(&dir, "body-damaged");
    forum.start_hub();
    // Another lane does not wait.
    assert_all_come_beside_a_flash(&kaz, &irn, &ids[1..]);
    await_no_alarm(&forum, &dir);
    assert_holds(&dir);
    for id in &ids {
        kaz.await_taken(id, "IRN");
    }
}

#[test]
fn content_that_is_damaged_at_its_recipients_node_and_nobody_has_any_more_is_listed_and_holds_up_nothing() {
    let forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let ids = ["the first", "the damaged", "the last", "one more"].map(|body| send(&kaz, body, "--wait delivered"));
    let dir = forum.node_dir("IRN");
    for damaged in [&dir, &forum.hub_dir(), &forum.node_dir("KAZ")] {
        flip_bit_of_body(damaged, b"the damaged");
    }
    assert_eq!(exchange_ids(&irn.receive(3)), [&ids[..1], &ids[2..]].concat());
    let alarms = forum.await_alarm(&dir, "not-healed");
    assert!(alarms.contains(&ids[1]), "{alarms}");
    await_no_alarm(&forum, &dir);
    // Its node has acknowledged it; that an agency took it nobody says.
    for id in [&ids[0], &ids[2], &ids[3]] {
        kaz.await_taken(id, "IRN");
    }
    assert_eq!(kaz.settled(&ids[1]), ["IRN delivered"]);
}

#[test]
fn content_that_is_damaged_at_its_recipients_node_and_at_the_hub_comes_from_its_origin() {
    let forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let ids = ["the first", "the damaged", "the last", "one more"].map(|body| send(&kaz, body, "--wait delivered"));
    let dir = forum.node_dir("IRN");
    flip_bit_of_body(&dir, b"the damaged");
    flip_bit_of_body(&forum.hub_dir(), b"the damaged");
    assert_eq!(exchange_ids(&irn.receive(4)), ids);
    for dir in [&dir, &forum.hub_dir()] {
        await_no_alarm(&forum, dir);
        assert_holds(dir);
    }
}

#[test]
fn a_hub_that_dies_at_any_point_of_mending_mends_it_after_all() {
    const POINTS: [&str; 5] =
        ["hub.mend.found", "journal.mend.begun", "journal.mend.written", "journal.mend.synced", "hub.mend.done"];
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_node("IRN");
    let bodies = POINTS.map(|point| format!("damaged before {point}"));
    let mut ids: Vec<String> = bodies.iter().map(|body| send(&kaz, body, "--wait recorded")).collect();
    ids.push(send(&kaz, "so that the last is in a full segment", "--wait recorded"));
    forum.stop_hub();
    forum.start_node("IRN");
    // Each run has one more that is damaged than the runs before it can have mended.
    for (point, body) in POINTS.into_iter().zip(&bodies) {
        flip_bit_of_body(&forum.hub_dir(), body.as_bytes());
        forum.start_hub_to_die_at(point);
    }
    forum.start_hub();
    assert_eq!(exchange_ids(&irn.receive(ids.len())), ids);
    assert_holds(&forum.hub_dir());
    // Also the alarm of the check with which the last run began goes, when all is mended.
    await_no_alarm(&forum, &forum.hub_dir());
}

#[test]
fn a_node_that_dies_at_any_point_of_mending_mends_it_after_all() {
    const POINTS: [&str; 5] =
        ["node.mend.found", "journal.mend.begun", "journal.mend.written", "journal.mend.synced", "node.mend.done"];
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let bodies = POINTS.map(|point| format!("damaged before {point}"));
    let mut ids: Vec<String> = bodies.iter().map(|body| send(&kaz, body, "--wait delivered")).collect();
    ids.push(send(&kaz, "so that the last is in a full segment", "--wait delivered"));
    forum.stop_node("IRN");
    for (point, body) in POINTS.into_iter().zip(&bodies) {
        flip_bit_of_body(&forum.node_dir("IRN"), body.as_bytes());
        let dying = forum.begin_node_to_die_at(point, "IRN");
        dying.await_serving();
        let follow = irn.follow();
        dying.await_death();
        follow.kill();
    }
    forum.start_node("IRN");
    let _follow = irn.follow();
    for id in &ids {
        kaz.await_taken(id, "IRN");
    }
    assert_holds(&forum.node_dir("IRN"));
    await_no_alarm(&forum, &forum.node_dir("IRN"));
}

#[test]
fn an_origin_that_dies_when_it_has_handed_in_again_does_so_once_more() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_node("IRN");
    let ids = ["the damaged", "the last", "one more"].map(|body| send(&kaz, body, "--wait recorded"));
    forum.stop_node("KAZ");
    flip_bit_of_body(&forum.hub_dir(), b"the damaged");
    forum.start_node("IRN");
    forum.await_alarm(&forum.hub_dir(), "body-damaged");
    forum.start_node_to_die_at("node.mend.handed", "KAZ");
    forum.start_node("KAZ");
    assert_eq!(exchange_ids(&irn.receive(3)), ids);
}
