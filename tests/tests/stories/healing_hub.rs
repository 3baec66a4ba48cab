//! A hub that lost data: put back from an older copy, cut at its end. Its nodes notice at the first contact and hand back what they
//! have, and every exchange has exactly one effect.

use std::fs;
use std::path::Path;
use std::time::Instant;

use concord_model::Lane;
use concord_tests::{
    Agency, DEADLINE, Forum, RawNode, Sent, concord, count_in_journal, exchange_ids, get, last_segment, words,
};
use tonic::Code;

const WARNINGS: &str = "KAZ/warnings";
const FLOODS: &str = "IRN/floods";
const MEASURE: &str = "environmental.5";

/// What happened before and after the hub's folder was copied. Everything after it is what the copy does not know.
struct Told {
    forum: Forum,
    kaz: Agency,
    irn: Agency,
    tur: Agency,
    taken: Sent,
    after_leave: Sent,
    floods: Sent,
    waits: Sent,
    from_tur: Sent,
    /// Whether a process may have ended since that had something to note.
    killed: bool,
}

impl Told {
    /// A hub that was copied, and then: an exchange to both, taken by one; a leave; an agreement of its own; exchanges under both,
    /// one of which has not been delivered.
    fn begin() -> Self {
        let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
        forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN", "TUR"]);
        let [kaz, irn, tur] = ["KAZ", "IRN", "TUR"].map(|code| forum.agency(code));
        let before = kaz.submit("before the copy", "--wait delivered");
        assert_eq!(exchange_ids(&irn.receive(1)), [before.id.clone()]);
        kaz.await_taken(&before.id, "IRN");
        let (profile, file) = (forum.hub_dir().join("officer"), forum.path().join("backup"));
        concord(words!["hub", "backup", "--profile", profile, "--out", file]).ok();
        forum.stop_hub();
        copy_folder(&forum.hub_dir(), &forum.path().join("copy"));
        forum.start_hub();

        let taken = kaz.submit("taken after the copy", "--wait delivered");
        assert_eq!(exchange_ids(&irn.receive(1)), [taken.id.clone()]);
        kaz.await_taken(&taken.id, "IRN");
        let from_tur = tur.submit("of one who leaves", "--wait delivered");
        forum.leave(WARNINGS, "TUR");
        let after_leave = kaz.submit("after the leave", "--wait delivered");
        forum.agree(FLOODS, MEASURE, &["IRN", "KAZ"]);
        let floods = kaz.submit("under an agreement of later", &format!("--agreement {FLOODS} --wait delivered"));
        forum.stop_node("IRN");
        let waits = kaz.submit("not delivered yet", &format!("--agreement {WARNINGS} --wait recorded"));
        Self { forum, kaz, irn, tur, taken, after_leave, floods, waits, from_tur, killed: false }
    }

    /// Puts the copy in the place of the hub that stands still.
    fn put_the_copy_back(&self) {
        fs::remove_dir_all(self.forum.hub_dir()).unwrap();
        fs::rename(self.forum.path().join("copy"), self.forum.hub_dir()).unwrap();
    }

    /// Everything is as if nothing had been lost.
    fn check(self) -> Forum {
        let Self { mut forum, kaz, irn, tur, taken, after_leave, floods, waits, from_tur, killed } = self;
        let last = kaz.submit("after all", &format!("--agreement {WARNINGS} --wait delivered"));
        // Of what the agency had taken nothing comes again, and of the rest everything once.
        let expected = [&from_tur, &after_leave, &floods, &waits, &last].map(|sent| sent.id.clone());
        assert_eq!(sorted(exchange_ids(&irn.receive(5))), sorted(expected.to_vec()));
        assert!(irn.receive_rest().is_empty());
        for sent in [&taken, &after_leave, &floods, &waits, &last] {
            kaz.await_taken(&sent.id, "IRN");
        }
        tur.await_taken(&from_tur.id, "IRN");
        let all = [&taken, &from_tur, &after_leave, &floods, &waits, &last].map(|sent| sent.id.clone());
        assert_eq!(count_in_journal(&forum.node_dir("IRN"), &all), (6, 6), "one entry for each exchange");

        // The leave is not forgotten: its state has what came before it, and nothing after.
        let after = [&after_leave, &floods, &waits, &last].map(|sent| sent.id.clone());
        assert_eq!(count_in_journal(&forum.node_dir("TUR"), &after), (0, 0));
        assert_eq!(exchange_ids(&tur.receive_rest()).len(), 2);
        for sent in [&after_leave, &waits, &last] {
            assert_eq!(kaz.settled(&sent.id), ["IRN taken"]);
        }
        let shown = concord(words!["agreement", "show", WARNINGS, "--profile", forum.hub_dir().join("officer")]).ok();
        let left = shown.json()["participants"]
            .as_array()
            .unwrap()
            .iter()
            .any(|party| party["participant"] == "TUR" && party["state"] == "left");
        assert!(left, "{}", shown.text());

        // Said while somebody has yet to come, and a note when all have.
        let note = |note: &'static str| if killed { "" } else { note };
        await_ready(&forum, &forum.hub_dir(), note("history-lost"));
        for code in ["KAZ", "IRN", "TUR"] {
            await_ready(&forum, &forum.node_dir(code), note("hub-lost-data"));
        }
        // Officers' numbers and agreements go on.
        forum.leave(FLOODS, "KAZ");
        forum.agree("KAZ/later", MEASURE, &["KAZ", "IRN", "TUR"]);
        let again = kaz.submit("to one who came again", "--agreement KAZ/later --wait delivered");
        assert_eq!(exchange_ids(&tur.receive(1)), [again.id]);
        forum.stop_hub();
        for code in ["KAZ", "IRN", "TUR"] {
            forum.stop_node(code);
        }
        for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN"), forum.node_dir("TUR")] {
            concord(words!["verify", dir]).ok();
        }
        forum
    }
}

#[test]
fn a_hub_that_was_put_back_from_an_older_copy_is_healed_with_one_effect_for_each_exchange() {
    let mut told = Told::begin();
    told.forum.stop_hub();
    told.put_the_copy_back();
    told.forum.start_hub();
    told.forum.start_node("IRN");
    told.check();
}

#[test]
fn a_hub_that_was_restored_from_an_older_backup_is_healed_with_one_effect_for_each_exchange() {
    let mut told = Told::begin();
    told.forum.stop_hub();
    let (file, dir) = (told.forum.path().join("backup"), told.forum.hub_dir());
    concord(words!["hub", "restore", file, "--dir", dir]).ok();
    told.forum.start_hub();
    told.forum.start_node("IRN");
    told.check();
}

#[test]
fn a_hub_with_an_empty_disk_that_is_founded_anew_takes_everything_back_from_its_nodes() {
    let mut told = Told::begin();
    told.forum.stop_hub();
    let hub = told.forum.hub_dir();
    for lost in ["journal", "views", "snapshots"] {
        fs::remove_dir_all(hub.join(lost)).unwrap();
    }
    concord(words!["hub", "refound", "--dir", hub]).ok();
    told.forum.start_hub();
    // Their papers are on paper still: the join requests of then.
    for code in ["KAZ", "IRN", "TUR"] {
        let (request, bundle) = (told.forum.node_dir(code).join("join-request.json"), told.forum.path().join(code));
        concord(words!["participant", "enrol", request, "--profile", hub.join("officer"), "--out", bundle]).ok();
    }
    told.forum.start_node("IRN");
    told.check();
}

#[test]
fn a_hub_and_nodes_that_are_killed_while_they_heal_begin_again_and_end_the_same() {
    let mut told = Told::begin();
    told.forum.stop_hub();
    told.put_the_copy_back();
    told.forum.start_hub();
    told.forum.start_node("IRN");
    told.killed = true;
    for round in 0..6_u64 {
        // It has to be right at every moment.
        std::thread::sleep(std::time::Duration::from_millis(40 + round * 90));
        match round % 3 {
            0 => {
                told.forum.kill_hub();
                told.forum.start_hub();
            }
            1 => {
                told.forum.kill_node("IRN");
                told.forum.start_node("IRN");
            }
            _ => {
                told.forum.kill_node("KAZ");
                told.forum.kill_hub();
                told.forum.start_hub();
                told.forum.start_node("KAZ");
            }
        }
    }
    told.check();
}

#[test]
fn a_hub_or_a_node_that_dies_at_any_point_of_healing_begins_again_and_ends_the_same() {
    let mut told = Told::begin();
    let copy = told.forum.path().join("copy");
    told.forum.stop_hub();
    told.forum.start_node("IRN");
    told.killed = true;
    let points = concord_faults::POINTS.iter().filter(|point| point.contains(".heal."));
    for point in points {
        fs::remove_dir_all(told.forum.hub_dir()).unwrap();
        copy_folder(&copy, &told.forum.hub_dir());
        if point.starts_with("hub.") {
            told.forum.start_hub_to_die_at(point);
            told.forum.start_hub();
        } else {
            told.forum.kill_node("KAZ");
            told.forum.start_hub();
            told.forum.start_node_to_die_at(point, "KAZ");
            told.forum.start_node("KAZ");
        }
        // All of it healed before the next loss, so that each point is passed.
        told.kaz.await_taken(&told.taken.id, "IRN");
        await_ready(&told.forum, &told.forum.hub_dir(), "");
        told.forum.kill_hub();
    }
    told.forum.start_hub();
    told.check();
}

#[test]
fn one_whose_leave_the_hub_forgot_gets_no_mail_before_its_feed_is_shown_and_a_notice_after() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN", "TUR"]);
    forum.stop_node("TUR");
    forum.agency("KAZ").submit("waits for one who leaves", "--wait recorded");
    forum.stop_hub();
    let copy = forum.path().join("copy");
    copy_folder(&forum.hub_dir(), &copy);
    forum.start_hub();
    // Whoever holds the keys of TUR's node says no more than it wants to.
    let raw = RawNode::of(&forum, "TUR");
    raw.follow(&[], 0).unwrap();
    raw.leave(&forum.officer("TUR"), &forum.agreement(WARNINGS, "KAZ"));
    assert_left(&forum, "KAZ");
    forum.stop_node("KAZ");
    forum.stop_node("IRN");
    forum.stop_hub();
    fs::remove_dir_all(forum.hub_dir()).unwrap();
    fs::rename(copy, forum.hub_dir()).unwrap();
    forum.start_hub();

    let raw = RawNode::of(&forum, "TUR");
    let early = raw.mailbox(Lane::Routine, &[], 0, Vec::new(), 1);
    assert_eq!(early.refused, Some((Code::Unavailable, "HEALING".to_owned())));
    assert_eq!((early.deliveries.len(), early.withheld.len()), (0, 0));

    forum.start_node("KAZ");
    assert_left(&forum, "KAZ");
    forum.start_node("IRN");
    let officer = forum.hub_dir().join("officer");
    await_left(|| concord(words!["agreement", "show", WARNINGS, "--profile", officer]).ok().json());
    let ready = get(&forum.address(&forum.hub_dir(), "admin"), "/readyz");
    assert!(ready.status == 503 && ready.body.contains("history-lost"), "TUR has yet to come: {}", ready.body);
    assert_eq!(raw.mailbox(Lane::Routine, &[], 0, Vec::new(), 1).refused, early.refused);
    raw.follow(&[], 0).unwrap();
    await_ready(&forum, &forum.hub_dir(), "history-lost");
    let late = raw.mailbox(Lane::Routine, &[], 0, Vec::new(), 1);
    assert_eq!((late.deliveries.len(), late.withheld.len()), (0, 1));
}

/// Waits until a node knows that TUR has left.
fn assert_left(forum: &Forum, code: &str) {
    await_left(|| forum.agreement(WARNINGS, code));
}

fn await_left(show: impl Fn() -> serde_json::Value) {
    let since = Instant::now();
    loop {
        let shown = show();
        let parties = shown["participants"].as_array().unwrap();
        if parties.iter().any(|party| party["participant"] == "TUR" && party["state"] == "left") {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "{shown}");
    }
}

#[test]
fn a_hub_that_lost_more_while_it_was_healing_is_healed_again() {
    let mut told = Told::begin();
    told.forum.stop_hub();
    copy_folder(&told.forum.path().join("copy"), &told.forum.path().join("second-copy"));
    told.put_the_copy_back();
    told.forum.start_hub();
    told.forum.start_node("IRN");
    told.kaz.await_taken(&told.taken.id, "IRN");
    await_ready(&told.forum, &told.forum.hub_dir(), "history-lost");
    told.forum.stop_hub();
    fs::rename(told.forum.path().join("second-copy"), told.forum.path().join("copy")).unwrap();
    told.put_the_copy_back();
    told.forum.start_hub();
    told.check();
}

/// The last commit of the hub's journal held an acknowledged consignment; `cut` takes it away.
fn check_cut(cut: impl Fn(&Path)) {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let first = kaz.submit("before", "--wait delivered");
    irn.receive(1);
    kaz.await_taken(&first.id, "IRN");
    forum.stop_node("IRN");
    let acknowledged = kaz.submit("acknowledged", "--wait recorded");
    forum.kill_hub();
    cut(&last_segment(&forum.hub_dir()));
    forum.start_hub();
    // The sender's receipt brings it back, in its place.
    let after = kaz.submit("after", "--wait recorded");
    forum.start_node("IRN");
    assert_eq!(exchange_ids(&irn.receive(2)), [acknowledged.id.clone(), after.id]);
    assert!(irn.receive_rest().is_empty());
    kaz.await_taken(&acknowledged.id, "IRN");
    await_ready(&forum, &forum.hub_dir(), "history-lost");
    forum.stop_hub();
    concord(words!["verify", forum.hub_dir()]).ok();
}

#[test]
fn an_acknowledged_consignment_in_a_commit_that_the_disk_tore_comes_back_with_its_receipt() {
    check_cut(|segment| {
        let bytes = fs::read(segment).unwrap();
        let frame = last_frame(&bytes);
        let torn = frame + (bytes.len() - frame) / 2;
        fs::write(segment, &bytes[..torn]).unwrap();
    });
}

#[test]
fn an_acknowledged_consignment_that_the_disk_lost_without_a_trace_comes_back_with_its_receipt() {
    check_cut(|segment| {
        let bytes = fs::read(segment).unwrap();
        fs::write(segment, &bytes[..last_frame(&bytes)]).unwrap();
    });
}

fn last_frame(bytes: &[u8]) -> usize {
    bytes.windows(4).rposition(|window| window == b"CNJF").unwrap()
}

/// Waits until what was raised has become a note, and the process is ready.
fn await_ready(forum: &Forum, dir: &Path, note: &str) {
    let since = Instant::now();
    loop {
        let ready = get(&forum.address(dir, "admin"), "/readyz");
        let alarms = forum.status(dir)["alarms"].to_string();
        if ready.status == 200 {
            assert!(alarms.contains(note), "{note} was not told: {alarms}");
            return;
        }
        assert!(since.elapsed() < DEADLINE, "not ready: {alarms}");
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
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
