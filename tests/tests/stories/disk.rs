//! Disks that fill up and disks that fail: what is refused, what goes on, and that it recovers by itself.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use concord_tests::{
    DEADLINE, Forum, SmallDisk, concord, count_in_journal, exchange_ids, get, replace_line, text_of, words,
};

const AGREEMENT: &str = "KAZ/warnings";
const MEBIBYTE: u64 = 1024 * 1024;
const DISK_SIZE_BYTES: u64 = 48 * MEBIBYTE;
const RESERVE_BYTES: u64 = 8 * MEBIBYTE;

#[track_caller]
fn await_so(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A forum whose hub or node `small` has a small disk; none where that cannot be had.
fn forum(small: &str) -> Option<(Forum, SmallDisk)> {
    let reserve = |settings: &str| replace_line(settings, "disk_reserve_bytes", &RESERVE_BYTES.to_string());
    let mut disk = None;
    let mut forum = Forum::empty_at(|forum| {
        let dir = if small == "hub" { forum.hub_dir() } else { forum.node_dir(small) };
        disk = SmallDisk::mount(&dir, DISK_SIZE_BYTES);
    });
    let disk = disk?;
    for code in ["KAZ", "IRN"] {
        forum.join(code);
    }
    if small == "hub" {
        forum.configure_hub(reserve);
    } else {
        let path = forum.node_dir(small).join("node.toml");
        fs::write(&path, reserve(&fs::read_to_string(&path).unwrap())).unwrap();
    }
    forum.start_node("KAZ");
    forum.start_node("IRN");
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    Some((forum, disk))
}

fn is_full(forum: &Forum, name: &str) -> bool {
    let dir = if name == "hub" { forum.hub_dir() } else { forum.node_dir(name) };
    let page = get(&forum.address(&dir, "admin"), "/readyz");
    let full = page.body.contains("disk-full");
    assert!(!full || page.status == 503, "{page:?}");
    full
}

#[test]
fn a_hub_whose_disk_is_full_refuses_what_is_new_and_goes_on_with_what_is_under_way() {
    let Some((mut forum, disk)) = forum("hub") else { return };
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let before = kaz.submit("recorded before", "--wait delivered");
    assert!(!is_full(&forum, "hub"));

    disk.fill(RESERVE_BYTES / 2);
    await_so("the hub says that its disk is full", || is_full(&forum, "hub"));
    let metrics = get(&forum.address(&forum.hub_dir(), "admin"), "/metrics").body;
    assert!(metrics.contains("concord_disk_available_bytes"), "{metrics}");
    let mut waiting = vec![kaz.submit("waits at the sender's node", "")];
    await_so("the sender's node says why", || {
        forum.status(&forum.node_dir("KAZ"))["alarms"].to_string().contains("hub-full")
    });
    // It is a note: the node takes whatever its agencies have.
    assert_eq!(get(&forum.address(&forum.node_dir("KAZ"), "admin"), "/readyz").status, 200);
    assert_eq!(text_of(&kaz.track(&waiting[0].id), "state"), "queued");
    // What needs little room goes on within the reserve: an acknowledgement, an officer's word.
    assert_eq!(exchange_ids(&irn.receive(1)), [before.id.clone()]);
    kaz.await_taken(&before.id, "IRN");
    forum.agree("IRN/other", "environmental.4", &["IRN", "KAZ"]);

    // Not one byte is left: also that is refused, and ends nothing.
    disk.fill(0);
    // An officer's word that is larger than what is left of the last page.
    let title = "T".repeat(1_000);
    for name in ["third", "fourth", "fifth", "sixth", "seventh"] {
        forum.propose_titled(&format!("KAZ/{name}"), "environmental.4", &["KAZ", "IRN"], &title);
    }
    waiting.push(kaz.submit("waits too", &format!("--lane flash --agreement {AGREEMENT}")));
    await_so("an append found no room", || {
        let page = get(&forum.address(&forum.hub_dir(), "admin"), "/metrics").body;
        page.lines().any(|line| line.starts_with("concord_appends_without_room_total") && !line.ends_with(" 0"))
    });
    assert_eq!(forum.status(&forum.hub_dir())["participants_enrolled"], 3, "it answers");
    assert_eq!(text_of(&kaz.track(&before.id), "state"), "taken");

    disk.empty();
    await_so("the hub is ready again", || !is_full(&forum, "hub"));
    for one in &waiting {
        assert_eq!(kaz.settled(&one.id), ["IRN delivered"]);
    }
    await_so("the sender's node has nothing to say any more", || {
        forum.status(&forum.node_dir("KAZ"))["alarms"] == serde_json::json!([])
    });
    await_so("the officers' words were said", || {
        let shown = concord(words!["agreement", "show", "KAZ/seventh", "--profile", forum.officer("IRN")]);
        shown.code == Some(0)
    });
    assert_eq!(irn.receive(2).len(), 2);
    let ids: Vec<String> = waiting.iter().map(|one| one.id.clone()).collect();
    assert_eq!(count_in_journal(&forum.node_dir("IRN"), &ids), (2, 2));
    concord(words!["verify", forum.hub_dir()]).ok();
    // Nothing of the full time is left behind that a start would stumble over.
    forum.stop_hub();
    forum.start_hub();
    kaz.submit("after", &format!("--wait delivered --agreement {AGREEMENT}"));
}

#[test]
fn a_node_whose_disk_is_full_refuses_submissions_and_goes_on_with_what_is_under_way() {
    let Some((mut forum, disk)) = forum("KAZ") else { return };
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_hub();
    let queued = kaz.submit("queued before", "--request-id r-1 --title T");
    disk.fill(RESERVE_BYTES / 2);
    await_so("the node says that its disk is full", || is_full(&forum, "KAZ"));
    let refused = kaz.try_submit("new", "--request-id r-2");
    refused.refused(4, "DISK_FULL");
    // A repeat needs no room.
    assert_eq!(kaz.submit("queued before", "--request-id r-1 --title T").id, queued.id);

    // What waits for the hub flows, its receipts come back, mail comes in, and the agency acknowledges it.
    forum.start_hub();
    assert_eq!(kaz.settled(&queued.id), ["IRN delivered"]);
    let mail = irn.submit("to a full node", "--wait delivered");
    assert_eq!(exchange_ids(&kaz.receive(1)), [mail.id.clone()]);
    irn.await_taken(&mail.id, "KAZ");

    disk.fill(0);
    // Larger than what is left of the last page.
    let late = irn.submit([b'l'; 50_000], "--wait recorded");
    await_so("an append found no room", || {
        let page = get(&forum.address(&forum.node_dir("KAZ"), "admin"), "/metrics").body;
        page.lines().any(|line| line.starts_with("concord_appends_without_room_total") && !line.ends_with(" 0"))
    });
    assert!(kaz.list().is_empty());
    assert_eq!(text_of(&irn.track(&late.id)["recipients"][0], "state"), "recorded");

    disk.empty();
    await_so("the node is ready again", || !is_full(&forum, "KAZ"));
    assert_eq!(irn.settled(&late.id), ["KAZ delivered"]);
    let accepted = kaz.submit("new", "--request-id r-2 --wait delivered");
    assert_eq!(exchange_ids(&kaz.receive(1)), [late.id.clone()]);
    assert_eq!(exchange_ids(&irn.receive(2)), [queued.id, accepted.id]);
    assert_eq!(count_in_journal(&forum.node_dir("KAZ"), &[mail.id, late.id]), (2, 2));
    concord(words!["verify", forum.node_dir("KAZ")]).ok();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    kaz.submit("after", "--wait delivered");
}

#[test]
fn a_failed_sync_ends_the_process_with_a_clear_message_and_the_next_start_goes_on() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    // The first is the opening's.
    let failing = BTreeMap::from([("CONCORD_FAIL_AT", "journal.sync:2")]);

    forum.stop_hub();
    forum.start_hub_with(&failing);
    let at_hub = kaz.submit("the hub's sync fails", "");
    let (ended, shown) = forum.await_end_of_hub();
    assert_eq!(ended.code(), Some(1), "{shown}");
    assert!(shown.contains("the outcome of the append is unknown") && shown.contains("a test lets it fail"), "{shown}");
    assert_eq!(text_of(&kaz.track(&at_hub.id), "state"), "queued", "nobody was told that it is recorded");
    forum.start_hub();
    assert_eq!(kaz.settled(&at_hub.id), ["IRN delivered"]);

    forum.stop_node("KAZ");
    forum.start_node_with("KAZ", &failing);
    let refused = kaz.try_submit("the node's sync fails", "--request-id r-1 --title T");
    assert_eq!(refused.code, Some(4), "{refused}");
    let (ended, shown) = forum.await_end_of_node("KAZ");
    assert_eq!(ended.code(), Some(1), "{shown}");
    assert!(shown.contains("no longer certain") && shown.contains("a test lets it fail"), "{shown}");
    forum.start_node("KAZ");
    let again = kaz.submit("the node's sync fails", "--request-id r-1 --title T --wait delivered");
    assert_eq!(exchange_ids(&irn.receive(2)), [at_hub.id, again.id]);
    assert!(irn.receive_rest().is_empty());
    for dir in [forum.hub_dir(), forum.node_dir("KAZ")] {
        concord(words!["verify", dir]).ok();
    }
}
