//! What disks do: views gone or broken, torn tails, flipped bits. And what may be read of a journal without its owner.

use std::fs;
use std::path::Path;

use concord_tests::{
    Forum, append_to_last_segment, concord, count_in_journal, exchange_ids, flip_bit, last_segment, remove_views,
    text_of, words,
};

const AGREEMENT: &str = "KAZ/warnings";

fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    forum
}

/// Damages the stopped folders between two halves of a story: what was before stays, what comes after follows, nothing twice.
fn check(damage: impl Fn(&Path)) -> Forum {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let taken = kaz.submit("taken before", "--wait delivered");
    assert_eq!(irn.receive(1).len(), 1);
    kaz.await_taken(&taken.id, "IRN");
    let waiting = kaz.submit("waits at the recipient's node", "--wait delivered");
    forum.stop_node("IRN");
    let recorded = kaz.submit("waits at the hub", "--wait recorded");
    forum.stop_hub();
    let queued = kaz.submit("waits at the sender's node", "--request-id queued --title T");
    forum.stop_node("KAZ");

    let dirs = [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")];
    dirs.iter().for_each(|dir| damage(dir));
    forum.start_node("IRN");
    forum.start_node("KAZ");
    forum.start_hub();

    let again = kaz.submit("waits at the sender's node", "--request-id queued --title T");
    assert_eq!(again.id, queued.id);
    let after = kaz.submit("after", "--wait delivered");
    let ids = [waiting.id, recorded.id, queued.id, after.id];
    assert_eq!(exchange_ids(&irn.receive(4)), ids);
    assert!(irn.receive_rest().is_empty());
    for id in ids.iter().chain([&taken.id]) {
        kaz.await_taken(id, "IRN");
    }
    assert_eq!(count_in_journal(&dirs[2], &ids), (4, 4));
    for dir in &dirs {
        concord(words!["verify", dir]).ok();
    }
    forum
}

#[test]
fn views_that_were_removed_are_rebuilt_with_nothing_lost_and_nothing_twice() {
    let forum = check(remove_views);
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")] {
        assert_eq!(forum.status(&dir)["alarms"], serde_json::json!([]));
    }
}

#[test]
fn views_that_are_broken_are_moved_away_and_rebuilt() {
    let forum = check(|dir| {
        let mut files = Vec::new();
        collect(&dir.join("views"), &mut files);
        assert!(!files.is_empty());
        for file in files {
            let length = fs::metadata(&file).unwrap().len() as usize;
            fs::write(&file, vec![0xa5; length.max(64)]).unwrap();
        }
    });
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")] {
        assert_eq!(forum.status(&dir)["alarms"], serde_json::json!([]));
    }
}

#[test]
fn a_torn_tail_is_cut_a_new_history_begins_and_the_peers_go_on_silently() {
    // Half a frame, as a write that a power cut ended leaves it.
    let forum = check(|dir| {
        let bytes = fs::read(last_segment(dir)).unwrap();
        let frame = bytes.windows(4).rposition(|window| window == b"CNJF").unwrap();
        let half = &bytes[frame..frame + (bytes.len() - frame) / 2];
        append_to_last_segment(dir, half);
        let verified = concord(words!["verify", dir]).ok().json();
        assert_eq!(verified["unfinished"]["bytes"], half.len());
    });
    for name in ["hub", "KAZ", "IRN"] {
        let dir = if name == "hub" { forum.hub_dir() } else { forum.node_dir(name) };
        let shown = concord(words!["journal", "show", dir]).ok().lines();
        let begun = shown.iter().filter(|entry| entry["kind"] == "history").count();
        assert_eq!(begun, 2, "{name}: {shown:?}");
        // What was cut is told, and nobody stops for it.
        let status = forum.status(&dir);
        let alarms = status["alarms"].as_array().unwrap();
        assert!(!alarms.is_empty(), "{name}: a cut is not told");
        assert!(alarms.iter().all(|alarm| alarm.as_str().unwrap().starts_with("journal-cut")), "{alarms:?}");
    }
}

#[test]
fn garbage_after_the_last_entry_is_cut_too() {
    check(|dir| append_to_last_segment(dir, b"CNJF and then nothing that makes sense"));
}

#[test]
fn a_flipped_bit_is_found_and_named_and_stops_the_start() {
    let mut forum = forum();
    let kaz = forum.agency("KAZ");
    for number in 0..5 {
        kaz.submit(format!("number {number}"), "--wait delivered");
    }
    // Also while everybody is at work.
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")] {
        let verified = concord(words!["verify", dir]).ok().json();
        assert_eq!(verified["holds"], true);
        assert!(verified["entries"].as_u64().unwrap() > 5, "{verified}");
    }
    forum.stop_node("KAZ");
    forum.stop_hub();
    for dir in [forum.hub_dir(), forum.node_dir("KAZ")] {
        let segment = last_segment(&dir);
        let name = segment.file_name().unwrap().to_string_lossy().into_owned();
        let length = fs::metadata(&segment).unwrap().len() as usize;
        for offset in [length / 4, length / 2] {
            flip_bit(&segment, offset);
            let verified = concord(words!["verify", dir]);
            verified.refused(1, "JOURNAL_DAMAGED");
            assert!(verified.message().contains(&name), "{verified}");
            concord(words!["journal", "show", dir]).refused(1, "JOURNAL_DAMAGED");
            let kind = if dir == forum.hub_dir() { "hub" } else { "node" };
            let served = concord(words![kind, "serve", "--dir", dir]);
            served.refused(1, "JOURNAL_UNUSABLE");
            assert!(served.message().contains(&name), "{served}");
            flip_bit(&segment, offset);
        }
    }
    // Put right, everything goes on.
    forum.start_hub();
    forum.start_node("KAZ");
    kaz.submit("after", "--wait delivered");
    assert_eq!(forum.agency("IRN").receive(6).len(), 6);
}

#[test]
fn a_restored_older_copy_of_the_hub_is_noticed_and_healed_and_nothing_is_given_under_old_numbers() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    kaz.submit("before the copy", "--wait delivered");
    forum.stop_hub();
    let copy = forum.path().join("copy");
    copy_folder(&forum.hub_dir(), &copy);
    forum.start_hub();
    kaz.submit("after the copy", "--wait delivered");
    assert_eq!(irn.receive(2).len(), 2);

    forum.stop_hub();
    fs::remove_dir_all(forum.hub_dir()).unwrap();
    fs::rename(&copy, forum.hub_dir()).unwrap();
    forum.start_hub();
    let waited = kaz.submit("waits for healing", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [waited.id]);
    assert!(irn.receive_rest().is_empty(), "what was there before came twice");
    for (dir, note) in [(forum.hub_dir(), "history-lost"), (forum.node_dir("KAZ"), "hub-lost-data")] {
        let alarms = await_alarm(&forum, &dir);
        assert!(alarms.contains(note), "{}: {alarms}", dir.display());
    }
}

#[test]
fn a_restored_older_copy_of_a_node_is_noticed_and_makes_no_fork() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    kaz.submit("before the copy", "--wait delivered");
    forum.stop_node("KAZ");
    let copy = forum.path().join("copy");
    copy_folder(&forum.node_dir("KAZ"), &copy);
    forum.start_node("KAZ");
    let after = kaz.submit("after the copy", "--wait delivered");

    forum.stop_node("KAZ");
    fs::remove_dir_all(forum.node_dir("KAZ")).unwrap();
    fs::rename(&copy, forum.node_dir("KAZ")).unwrap();
    forum.start_node("KAZ");
    let alarms = await_alarm(&forum, &forum.node_dir("KAZ"));
    assert!(alarms.contains("NODE_ROLLED_BACK"), "{alarms}");
    // It takes nothing that it would number as the hub has numbered something else.
    kaz.try_submit("under a number that the hub knows", "").refused(1, "NODE_ROLLED_BACK");
    assert_eq!(exchange_ids(&irn.receive(2))[1], after.id);
    // The others do not suffer.
    irn.submit("to a node that is not served", "--lane flash --wait recorded");
    assert!(irn.receive_rest().is_empty());
}

fn await_alarm(forum: &Forum, dir: &Path) -> String {
    let since = std::time::Instant::now();
    loop {
        let status = forum.status(dir);
        if !status["alarms"].as_array().unwrap().is_empty() {
            return status["alarms"].to_string();
        }
        assert!(since.elapsed() < concord_tests::DEADLINE, "no alarm: {status}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_journal_is_shown_without_titles_and_bodies_unless_they_are_asked_for() {
    let forum = forum();
    forum.agency("KAZ").submit("the-secret-body", "--title the-secret-title --wait delivered");
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")] {
        for line in [words!["journal", "show", dir], words!["journal", "show", dir.join("journal")]] {
            let shown = concord(line).ok().text();
            assert!(!shown.contains("the-secret") && !shown.contains("An agreement"), "{shown}");
        }
        let bodies = concord(words!["journal", "show", dir, "--bodies"]).ok().text();
        // What a hub shows is what the agreement lets the secretariat read: `agreed.rs`.
        let is_nodes = dir != forum.hub_dir();
        let secrets = ["the-secret-title", "the-secret-body"];
        assert_eq!(secrets.map(|secret| bodies.contains(secret)), [is_nodes; 2], "{bodies}");
        let all = concord(words!["journal", "show", dir]).ok().lines();
        let last = concord(words!["journal", "show", dir, "--from", all.len().to_string()]).ok().lines();
        assert_eq!(text_of(&last[0], "digest"), text_of(all.last().unwrap(), "digest"));
    }
    let empty = forum.path().join("empty");
    fs::create_dir(&empty).unwrap();
    concord(words!["verify", empty]).refused(1, "JOURNAL_ABSENT");
    assert_eq!(concord(words!["verify", forum.path().join("nowhere")]).code, Some(1));
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
