//! Views are not truth: whatever becomes of their files, also while they open, they are made again from the journal, with nothing lost
//! and nothing twice.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use concord_tests::{DEADLINE, Forum, Process, concord, count_in_journal, exchange_ids, words};
use serde_json::Value;

const AGREEMENT: &str = "KAZ/warnings";
const SECTOR_SIZE_BYTES: usize = 512;
const PAGE_SIZE_BYTES: usize = 4096;
/// SIGKILL.
const KILLED: i32 = 9;

/// A kind of damage, and what does it.
type Way = (&'static str, fn(&mut Vec<u8>));

/// What a disk does to one file.
const WAYS: [Way; 7] = [
    ("a bit in every kilobyte", |bytes| {
        (0..bytes.len()).step_by(1024).for_each(|at| bytes[at] ^= 1 << (at / 1024 % 8))
    }),
    ("one bit in the middle", |bytes| {
        let middle = bytes.len() / 2;
        bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
    }),
    ("half of it", |bytes| bytes.truncate(bytes.len() / 2)),
    ("all of it", Vec::clear),
    ("a sector of zeros", |bytes| zero(bytes, SECTOR_SIZE_BYTES)),
    ("a page of zeros", |bytes| zero(bytes, PAGE_SIZE_BYTES)),
    ("two pages in each other's place", |bytes| {
        if bytes.len() >= 2 * PAGE_SIZE_BYTES {
            let (first, rest) = bytes.split_at_mut(PAGE_SIZE_BYTES);
            first.swap_with_slice(&mut rest[..PAGE_SIZE_BYTES]);
        }
    }),
];

fn zero(bytes: &mut [u8], size: usize) {
    // The first one has what a database begins with, and is in use whatever else is.
    let until = size.min(bytes.len());
    bytes[..until].fill(0);
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn views_damaged_in_any_way_are_made_again_with_nothing_lost_and_nothing_twice() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let dirs = [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")];
    let mut all = Vec::new();
    for (number, (way, damage)) in WAYS.iter().enumerate() {
        let request = format!("--request-id r-{number} --title T");
        forum.stop_node("IRN");
        let recorded = kaz.submit("waits at the hub", "--wait recorded");
        forum.stop_hub();
        let queued = kaz.submit("waits at the sender's node", &request);
        forum.stop_node("KAZ");
        let mut damaged = Vec::new();
        dirs.iter().for_each(|dir| files(&dir.join("views"), &mut damaged));
        assert!(damaged.len() >= 3, "{way}: {damaged:?}");
        for file in damaged {
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
        }
        forum.start_hub();
        forum.start_node("KAZ");
        forum.start_node("IRN");
        assert_eq!(kaz.submit("waits at the sender's node", &request).id, queued.id, "{way}");
        let ids = [recorded.id, queued.id];
        assert_eq!(exchange_ids(&irn.receive(2)), ids, "{way}");
        for id in &ids {
            kaz.await_taken(id, "IRN");
        }
        for dir in &dirs {
            assert_eq!(forum.status(dir)["alarms"], serde_json::json!([]), "{way}");
        }
        all.extend(ids);
    }
    assert!(irn.receive_rest().is_empty());
    assert_eq!(count_in_journal(&dirs[2], &all), (all.len(), all.len()));
    for dir in &dirs {
        concord(words!["verify", dir]).ok();
    }
}

#[test]
fn a_process_killed_while_its_views_open_or_are_made_again_starts_all_the_same() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let before = kaz.submit("before", "--wait delivered");
    forum.stop_hub();
    forum.stop_node("IRN");
    // One after another without a whole start between: each begins where the kill before it left the folder.
    let points = [
        "views.open.marked",
        "views.aside.before",
        "views.aside.moved",
        "views.create",
        "views.open.opened",
        "views.open.checked",
        "views.open.unmarked",
        "views.follow.read",
    ];
    for (kind, name, dir) in [("hub", "hub", forum.hub_dir()), ("node", "IRN", forum.node_dir("IRN"))] {
        let mut killed = 0;
        for point in points {
            let armed = BTreeMap::from([("CONCORD_CRASH_AT", point)]);
            let process = Process::start_with(&forum.log(name), &armed, words![kind, "serve", "--dir", dir]);
            // A point that the state of the folder does not lead to lets it serve: then it is killed while it does.
            match process.line() {
                Some(_) => drop(process.kill()),
                None => {
                    assert_eq!(process.wait().0.signal(), Some(KILLED), "{name} at {point}");
                    killed += 1;
                }
            }
        }
        assert!(killed >= 6, "only {killed} of {} points were reached at {name}", points.len());
    }
    forum.start_hub();
    forum.start_node("IRN");
    let after = kaz.submit("after", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(2)), [before.id, after.id]);
    assert!(irn.receive_rest().is_empty());
    for dir in [forum.hub_dir(), forum.node_dir("IRN")] {
        assert_eq!(forum.status(&dir)["alarms"], serde_json::json!([]));
        concord(words!["verify", dir]).ok();
    }
}

/// Takes the last row of a table away behind the back of the views, each page of sled intact.
fn remove_row(dir: &Path, table: u8) {
    let folder = dir.join("views");
    let database = sled::open(&folder).unwrap();
    let (row, _) = database.scan_prefix([table]).last().unwrap().unwrap();
    assert!(database.remove(row).unwrap().is_some());
    database.flush().unwrap();
    drop(database);
    // sled's own threads let go of it a moment later.
    fs::File::open(folder.join("db")).unwrap().lock().unwrap();
}

/// As with a million rows, which are not all checked before a port opens.
#[test]
fn damaged_views_that_serve_before_they_are_checked_end_the_process_and_are_made_again_with_nothing_lost_and_nothing_twice()
 {
    const HUB_MAILBOXES: u8 = 1;
    const NODE_REQUESTS: u8 = 2;
    const NODE_RECEIVED: u8 = 7;
    let unchecked = BTreeMap::from([("CONCORD_VIEWS_CHECKED_AT_OPENING_ROWS_MAX", "0")]);
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let request = "--request-id r-1 --title T";
    let first = kaz.submit("once", request);
    assert_eq!(exchange_ids(&irn.receive(1)), [first.id.clone()]);
    kaz.await_taken(&first.id, "IRN");
    forum.stop_node("IRN");
    let second = kaz.submit("waits at the hub", "--wait recorded");
    // A row that is still to be written would have the damage found at the opening, before anything is served.
    let since = Instant::now();
    let has_row = |lag: &Value| lag["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0);
    while !forum.status(&forum.hub_dir())["mailboxes"].as_array().unwrap().iter().any(has_row) {
        assert!(since.elapsed() < DEADLINE, "the hub's views do not follow");
    }
    forum.stop_hub();
    forum.stop_node("KAZ");
    let folders = [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN")];
    for (dir, table) in folders.iter().zip([HUB_MAILBOXES, NODE_REQUESTS, NODE_RECEIVED]) {
        remove_row(dir, table);
    }
    // Sound ones would go on serving.
    forum.start_hub_with(&unchecked);
    forum.start_node_with("KAZ", &unchecked);
    forum.start_node_with("IRN", &unchecked);
    // Whoever comes first: the request that has no row any more is never taken for a new one.
    let again = kaz.try_submit("once", request);
    assert_ne!(again.code, Some(0), "answered from rows that nobody wrote: {again:?}");
    for (ended, log) in [forum.await_end_of_hub(), forum.await_end_of_node("KAZ"), forum.await_end_of_node("IRN")] {
        assert!(matches!(ended.code(), Some(code) if code != 0), "{ended}");
        assert!(log.contains("its rows are not those of its watermark"), "{log}");
    }
    forum.start_hub_with(&unchecked);
    forum.start_node_with("KAZ", &unchecked);
    forum.start_node_with("IRN", &unchecked);
    assert_eq!(kaz.submit("once", request).id, first.id);
    assert_eq!(exchange_ids(&irn.receive(1)), [second.id.clone()]);
    kaz.await_taken(&second.id, "IRN");
    assert!(irn.receive_rest().is_empty());
    let all = [first.id, second.id];
    assert_eq!(count_in_journal(&folders[2], &all), (all.len(), all.len()));
    for dir in &folders {
        assert_eq!(forum.status(dir)["alarms"], serde_json::json!([]));
        concord(words!["verify", dir]).ok();
    }
}
