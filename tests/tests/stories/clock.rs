//! A clock that jumped while a node stood still is raised and not believed, until the hub's clock agrees; order and repeats rest on
//! numbers, and do not notice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use concord_tests::{DEADLINE, Forum, count_in_journal, exchange_ids, get};

const AGREEMENT: &str = "KAZ/warnings";
const SUSPECT: &str = "clock-suspect";
/// More than the hour that is believed.
const JUMP: [(&str, &str); 1] = [("CONCORD_CLOCK_OFFSET_SECONDS", "7200")];

fn is_suspected(forum: &Forum, dir: &Path) -> bool {
    let since = Instant::now();
    loop {
        let alarms = forum.status(dir)["alarms"].clone();
        let is_raised = alarms.as_array().unwrap().iter().any(|alarm| alarm.as_str().unwrap().starts_with(SUSPECT));
        let metrics = get(&forum.address(dir, "admin"), "/metrics").body;
        let gauge = metrics.lines().find(|line| line.starts_with("concord_alarm{") && line.contains(SUSPECT));
        if is_raised == gauge.is_some_and(|line| line.ends_with(" 1")) {
            return is_raised;
        }
        // It may have gone between the two questions.
        assert!(since.elapsed() < DEADLINE, "status: {alarms}, metrics: {gauge:?}");
    }
}

#[test]
fn a_clock_that_jumped_is_raised_until_a_peer_agrees_and_changes_neither_order_nor_repeats() {
    let jumped = BTreeMap::from(JUMP);
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let request = "--request-id r-1 --title T";
    let before = irn.submit("before the jump", request);
    assert_eq!(exchange_ids(&kaz.receive(1)), [before.id.clone()]);
    irn.await_taken(&before.id, "KAZ");
    let dir = forum.node_dir("IRN");
    assert!(!is_suspected(&forum, &dir));

    forum.stop_node("IRN");
    let waited = kaz.submit("while it stood still", "--wait recorded");
    forum.start_node_with("IRN", &jumped);
    assert!(is_suspected(&forum, &dir));
    let ready = get(&forum.address(&dir, "admin"), "/readyz");
    assert!(ready.status == 200 && ready.body.contains(SUSPECT), "{}: {}", ready.status, ready.body);
    // The hub's clock does not agree; everything goes on in its order, and a repeat is one.
    let first = irn.submit("first", "--wait delivered");
    let second = irn.submit("second", "--wait delivered");
    assert_eq!(irn.submit("before the jump", request).id, before.id);
    assert_eq!(exchange_ids(&kaz.receive(2)), [first.id.clone(), second.id.clone()]);
    let after = kaz.submit("after the jump", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(2)), [waited.id.clone(), after.id.clone()]);
    assert!(is_suspected(&forum, &dir));

    // A hub that shows the same time vouches for it.
    forum.stop_hub();
    forum.start_hub_with(&jumped);
    let since = Instant::now();
    while is_suspected(&forum, &dir) {
        assert!(since.elapsed() < DEADLINE, "the hub's clock did not clear it");
    }
    let last = irn.submit("when it agrees", "--wait delivered");
    assert_eq!(exchange_ids(&kaz.receive(1)), [last.id.clone()]);
    irn.await_taken(&last.id, "KAZ");
    assert!(irn.receive_rest().is_empty() && kaz.receive_rest().is_empty());
    assert_eq!(count_in_journal(&forum.node_dir("KAZ"), &[before.id, first.id, second.id, last.id]), (4, 4));
    assert_eq!(count_in_journal(&dir, &[waited.id, after.id]), (2, 2));
}
