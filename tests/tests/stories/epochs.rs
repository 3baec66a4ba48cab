//! A node whose chains do not fit the hub's any more goes on in a new epoch, which its officer opens: nothing that waits is lost, nothing
//! is recorded twice, and the order is kept.

use std::fs;
use std::path::PathBuf;

use concord_tests::{
    Agency, Forum, concord, count_in_journal, exchange_ids, flip_bit_of_body, replace_line, text_of, words,
};

use crate::healing_hub::copy_folder;
use crate::healing_node::await_recovered;

const WARNINGS: &str = "KAZ/warnings";
const MEASURE: &str = "environmental.5";
/// Three of them do not go into one commit of what is packed anew.
const LARGE_SIZE_BYTES: usize = 700 * 1024;

/// An older copy of KAZ's node took submissions before it reached the hub, under numbers under which the hub has others.
struct Forked {
    forum: Forum,
    kaz: Agency,
    irn: Agency,
    /// Recorded from the newer copy, which is gone.
    theirs: Vec<String>,
    /// Queued in the older copy, in their order.
    mine: Vec<String>,
}

impl Forked {
    fn new() -> Self {
        let mut forum = Forum::of(&["KAZ", "IRN"]);
        forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
        let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
        kaz.submit("before", "--wait delivered");
        assert_eq!(irn.receive(1).len(), 1);
        forum.stop_node("KAZ");
        let copy = forum.path().join("copy");
        copy_folder(&forum.node_dir("KAZ"), &copy);
        forum.start_node("KAZ");
        let theirs: Vec<String> =
            (0..2).map(|number| kaz.submit(format!("theirs {number}"), "--wait delivered").id).collect();
        forum.stop_node("KAZ");
        fs::remove_dir_all(forum.node_dir("KAZ")).unwrap();
        fs::rename(&copy, forum.node_dir("KAZ")).unwrap();
        forum.stop_hub();
        forum.start_node("KAZ");
        let mine = (0..4)
            .map(|number| {
                let body = [format!("mine {number}").as_bytes(), &vec![b'.'; LARGE_SIZE_BYTES]].concat();
                kaz.submit(body, &format!("--agreement {WARNINGS}")).id
            })
            .collect();
        let mut forked = Self { forum, kaz, irn, theirs, mine };
        forked.forum.stop_node("KAZ");
        concord(words!["node", "restore", "--here", "--dir", forked.dir()]).ok();
        forked.forum.start_hub();
        forked.forum.start_node("KAZ");
        await_recovered(&forked.forum, &forked.dir());
        forked.forum.confirm_agencies(&forked.dir());
        forked
    }

    fn dir(&self) -> PathBuf {
        self.forum.node_dir("KAZ")
    }

    fn open_epoch(&self) -> serde_json::Value {
        open_epoch(&self.forum)
    }

    /// All of it arrives, once and in order; what the other copy handed in is known here too.
    fn check(&self) {
        let Self { forum, kaz, irn, theirs, mine } = self;
        let all = [theirs.as_slice(), mine.as_slice()].concat();
        assert_eq!(exchange_ids(&irn.receive(all.len())), all);
        for id in &all {
            assert_eq!(kaz.settled(id).len(), 1, "{id}");
            kaz.await_taken(id, "IRN");
        }
        let after = kaz.submit("after", &format!("--agreement {WARNINGS} --wait delivered")).id;
        assert_eq!(exchange_ids(&irn.receive(1)), [after]);
        assert!(irn.receive_rest().is_empty());
        assert_eq!(count_in_journal(&forum.node_dir("IRN"), &all), (all.len(), all.len()), "one effect for each");
        for dir in [forum.hub_dir(), self.dir(), forum.node_dir("IRN")] {
            concord(words!["verify", dir]).ok();
        }
        let alarms = forum.status(&self.dir())["alarms"].to_string();
        assert!(!alarms.contains("uplink"), "{alarms}");
    }
}

fn open_epoch(forum: &Forum) -> serde_json::Value {
    concord(words!["node", "epoch", "open", "--yes", "--profile", forum.officer("KAZ")]).ok().json()
}

#[test]
fn what_waits_behind_a_fork_goes_on_in_the_epoch_that_the_officer_opens() {
    let mut forked = Forked::new();
    // The alarm says what to do; the node takes what comes meanwhile, and it waits behind the rest.
    forked.forum.await_alarm(&forked.dir(), "concord node epoch open");
    let later = forked.kaz.submit("later", &format!("--agreement {WARNINGS}")).id;
    assert_eq!(text_of(&forked.kaz.track(&later), "state"), "queued");
    forked.mine.push(later);

    let officer = forked.forum.officer("KAZ");
    concord(words!["node", "epoch", "open", "--profile", officer]).refused(2, "USAGE");
    let opened = forked.open_epoch();
    assert_eq!((opened["epoch"].as_u64(), text_of(&opened, "state").as_str()), (Some(2), "accepted"));
    forked.check();
    // What is told of the epoch stands in the journals of both.
    for dir in [forked.forum.hub_dir(), forked.dir()] {
        let shown = concord(words!["journal", "show", dir]).ok().lines();
        assert!(shown.iter().any(|entry| entry.to_string().contains("opens epoch 2")), "{}", dir.display());
    }
    // A healthy node may open one too: then nothing waits, and all goes on.
    assert_eq!(forked.open_epoch()["epoch"].as_u64(), Some(3));
    let last = forked.kaz.submit("in epoch 3", &format!("--agreement {WARNINGS} --wait delivered")).id;
    assert_eq!(exchange_ids(&forked.irn.receive(1)), [last]);
}

#[test]
fn a_node_and_a_hub_that_are_killed_while_an_epoch_is_opened_and_packed_go_on_where_they_were() {
    let mut forked = Forked::new();
    // It is said while the hub is away, so that each of the processes below meets it by itself.
    forked.forum.stop_hub();
    assert_eq!(text_of(&forked.open_epoch(), "state"), "queued");
    forked.forum.stop_node("KAZ");
    // The hub may tell of the epoch before it dies.
    let dying = forked.forum.begin_node_to_die_at("node.pack.fetched", "KAZ");
    forked.forum.start_hub_to_die_at("hub.statement.decided");
    forked.forum.start_hub();
    dying.await_death();
    for point in ["node.pack.going", "node.pack.packed", "node.pack.entered"] {
        forked.forum.start_node_to_die_at(point, "KAZ");
    }
    forked.forum.start_node("KAZ");
    forked.check();
}

#[test]
fn what_is_damaged_on_the_disk_of_its_node_is_refused_alone_once_the_officer_opens_an_epoch() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    // So that what comes next begins a segment of its own: damage in a full one stops no start.
    forum.configure_node("KAZ", |settings| replace_line(settings, "journal_segment_size_bytes", "65536"));
    forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn, dir) = (forum.agency("KAZ"), forum.agency("IRN"), forum.node_dir("KAZ"));
    forum.stop_hub();
    let send = |what: &str| kaz.submit(format!("{what} {}", ".".repeat(70_000)), &format!("--agreement {WARNINGS}")).id;
    let [first, damaged, last] = ["the first", "the one that will be damaged", "the last"].map(send);
    forum.stop_node("KAZ");
    flip_bit_of_body(&dir, b"the one that will be damaged");
    forum.start_node("KAZ");
    forum.start_hub();
    // The lane waits for a person; what stood before the damage has gone.
    assert_eq!(exchange_ids(&irn.receive(1)), [first]);
    forum.await_alarm(&dir, "is damaged on this node's disk");
    assert_eq!(text_of(&kaz.track(&damaged), "state"), "queued");

    assert_eq!(text_of(&open_epoch(&forum), "state"), "accepted");
    assert_eq!(exchange_ids(&irn.receive(1)), [last]);
    let alarms = forum.await_alarm(&dir, "not-healed");
    assert!(alarms.contains(&damaged) && !alarms.contains("uplink"), "{alarms}");
    let tracked = kaz.track(&damaged);
    assert_eq!(
        (text_of(&tracked, "state"), text_of(&tracked, "reason")),
        ("refused".to_owned(), "BLOB_MISMATCH".to_owned())
    );
    assert!(irn.receive_rest().is_empty());
}
