//! A node that lost data: what the hub has comes back by itself, nothing is numbered twice, and every exchange has one effect.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use concord_tests::{
    Agency, DEADLINE, Forum, Process, concord, count_in_journal, exchange_ids, executable, flip_bit_of_body, get,
    replace_line, text_of, words,
};

use crate::healing_hub::copy_folder;

const WARNINGS: &str = "KAZ/warnings";
const MEASURE: &str = "environmental.5";

/// What KAZ's node did and got after its journal was copied. Everything here is what the copy does not know.
struct Lost {
    forum: Forum,
    kaz: Agency,
    irn: Agency,
    /// Of KAZ, delivered to IRN.
    sent: Vec<String>,
    /// To KAZ, acknowledged by its agency.
    taken: Vec<String>,
    /// To KAZ, acknowledged by its node only.
    waits: String,
}

impl Lost {
    fn forum() -> Forum {
        let forum = Forum::of(&["KAZ", "IRN"]);
        forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
        let before = forum.agency("IRN").submit("before the backup", "--wait delivered");
        assert_eq!(exchange_ids(&forum.agency("KAZ").receive(1)), [before.id.clone()]);
        forum.agency("IRN").await_taken(&before.id, "KAZ");
        forum
    }

    fn after(forum: Forum) -> Self {
        let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
        let mut sent: Vec<String> =
            (0..3).map(|number| kaz.submit(format!("lost {number}"), "--wait delivered").id).collect();
        sent.push(kaz.submit("lost and urgent", "--lane flash --wait delivered").id);
        let taken: Vec<String> =
            (0..2).map(|number| irn.submit(format!("to KAZ {number}"), "--wait delivered").id).collect();
        assert_eq!(exchange_ids(&kaz.receive(2)), taken);
        taken.iter().for_each(|id| irn.await_taken(id, "KAZ"));
        let waits = irn.submit("to KAZ, and not taken", "--wait delivered").id;
        for id in ["KAZ/kept", "KAZ/left"] {
            forum.agree(id, "challenges.3", &["KAZ", "IRN"]);
        }
        forum.leave("KAZ/left", "KAZ");
        Self { forum, kaz, irn, sent, taken, waits }
    }

    fn dir(&self) -> PathBuf {
        self.forum.node_dir("KAZ")
    }

    /// All that was lost is here again, once; what is new follows.
    fn check(self) -> Forum {
        let (forum, kaz, irn) = (&self.forum, &self.kaz, &self.irn);
        await_recovered(forum, &self.dir());
        forum.confirm_agencies(&self.dir());
        for id in &self.sent {
            assert_eq!(kaz.settled(id), ["IRN delivered"], "{id}");
        }
        let after = kaz.submit("after the restore", &format!("--agreement {WARNINGS} --wait delivered")).id;
        // What the agency had acknowledged since the backup comes again, under the same ids: its word was lost with the journal.
        let all_to_kaz = [self.taken.as_slice(), std::slice::from_ref(&self.waits)].concat();
        assert_eq!(exchange_ids(&kaz.receive(3)), all_to_kaz);
        irn.await_taken(&self.waits, "KAZ");
        let new = irn.submit("new to KAZ", &format!("--agreement {WARNINGS} --wait delivered")).id;
        assert_eq!(exchange_ids(&kaz.receive(1)), [new.clone()]);
        irn.await_taken(&new, "KAZ");
        assert!(kaz.receive_rest().is_empty());

        assert_eq!(count_in_journal(&self.dir(), &all_to_kaz), (3, 3), "one entry for each exchange");
        let all_to_irn = [self.sent.as_slice(), std::slice::from_ref(&after)].concat();
        assert_eq!(count_in_journal(&forum.node_dir("IRN"), &all_to_irn), (5, 5), "one entry for each exchange");
        irn.receive(5);
        all_to_irn.iter().for_each(|id| kaz.await_taken(id, "IRN"));

        // What its officer said is known, and its numbers go on.
        assert_eq!(text_of(&forum.agreement("KAZ/kept", "KAZ"), "state"), "in-force");
        assert!(forum.has_left("KAZ/left", "KAZ"));
        forum.agree("KAZ/later", MEASURE, &["KAZ", "IRN"]);
        for dir in [forum.hub_dir(), self.dir(), forum.node_dir("IRN")] {
            concord(words!["verify", dir]).ok();
        }
        self.forum
    }
}

fn backup(forum: &Forum, code: &str) -> PathBuf {
    let out = forum.path().join(format!("{code}.backup"));
    concord(words!["node", "backup", "--profile", forum.officer(code), "--out", out]).ok();
    out
}

/// Waits until a restored node has fetched back what the hub has: all three lanes.
pub(crate) fn await_recovered(forum: &Forum, dir: &Path) {
    let since = Instant::now();
    loop {
        let shown = concord(words!["journal", "show", dir]).ok().lines();
        if shown.iter().filter(|entry| entry["kind"] == "recovered").count() >= 3 {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "it did not recover: {}", forum.status(dir));
    }
}

#[test]
fn a_node_restored_from_an_older_backup_gets_back_what_the_hub_has_and_makes_no_fork() {
    let forum = Lost::forum();
    let file = backup(&forum, "KAZ");
    let mut lost = Lost::after(forum);
    let dir = lost.dir();
    lost.forum.stop_node("KAZ");
    fs::remove_dir_all(dir.join("journal")).unwrap();
    concord(words!["node", "restore", file, "--dir", dir]).ok();
    // Without the hub it takes nothing, since it does not know which numbers it gave out.
    lost.forum.stop_hub();
    lost.forum.start_node("KAZ");
    lost.forum.confirm_agencies(&dir);
    lost.kaz.try_submit("too early", &format!("--agreement {WARNINGS}")).refused(4, "RECOVERING");
    lost.forum.start_hub();
    let forum = lost.check();
    let alarms = forum.status(&dir)["alarms"].to_string();
    assert!(alarms.contains("this node was restored; 4 consignments came back"), "{alarms}");
    let status = forum.status(&forum.hub_dir());
    assert!(status["alarms"].to_string().contains("node-restored"));
    assert!(status["notes"].to_string().contains("node-restored"), "it is no alarm: the hub is ready");
}

#[test]
fn a_node_whose_journal_is_lost_without_a_backup_is_rebuilt_and_gets_back_what_the_hub_has() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
    let mut lost = Lost::after(forum);
    let dir = lost.dir();
    lost.forum.stop_node("KAZ");
    fs::remove_dir_all(dir.join("journal")).unwrap();
    fs::remove_dir_all(dir.join("views")).unwrap();
    concord(words!["node", "rebuild", "--dir", dir]).ok();
    lost.forum.start_node("KAZ");
    // Its agency is let in when all has come back already, and gets what it had acknowledged and what waited for it.
    await_recovered(&lost.forum, &dir);
    let since = Instant::now();
    while lost.forum.agency("IRN").settled(&lost.waits) != ["KAZ delivered"] {
        assert!(since.elapsed() < DEADLINE, "it does not come again");
    }
    concord(words!["agency", "add", "agency", "--dir", dir]).ok();
    lost.kaz.try_submit("too early", &format!("--agreement {WARNINGS}")).refused(4, "AGENCY_UNCONFIRMED");
    lost.check();
}

#[test]
fn a_restored_node_that_is_killed_while_it_fetches_goes_on_where_it_was() {
    let forum = Lost::forum();
    let file = backup(&forum, "KAZ");
    let mut lost = Lost::after(forum);
    let dir = lost.dir();
    lost.forum.stop_node("KAZ");
    concord(words!["node", "restore", file, "--dir", dir]).ok();
    let points = [
        "node.recover.kept:1",
        // Of the first lane: behind the last one there is nothing to go on with.
        "node.recover.lane:1",
        "node.recover.kept:1",
        "node.recover.taken:1",
        "node.recover.fetched:1",
    ];
    for point in points {
        let mut command = Command::new(executable());
        command.args(["--json", "--with-parent"]).args(words!["node", "serve", "--dir", dir]);
        command.env("CONCORD_CRASH_AT", point);
        let killed = concord_tests::run(command);
        assert_eq!(killed.code, None, "{point}: {killed}");
    }
    lost.forum.start_node("KAZ");
    lost.check();
}

#[test]
fn a_body_that_is_damaged_at_the_hub_is_missing_alone_and_all_else_comes_back() {
    let mut forum = Lost::forum();
    // So that what comes next begins a segment of its own soon: damage in a full one stops no start.
    forum.configure_hub(|settings| replace_line(settings, "journal_segment_size_bytes", "65536"));
    let file = backup(&forum, "KAZ");
    let kaz = forum.agency("KAZ");
    let mut send = |body: &str| kaz.submit(format!("{body} {}", ".".repeat(40_000)), "--wait delivered").id;
    let damaged = send("the body that will be damaged");
    let rest = ["one", "two", "three"].map(&mut send);
    forum.stop_node("KAZ");
    flip_bit_of_body(&forum.hub_dir(), b"the body that will be damaged");
    let dir = forum.node_dir("KAZ");
    concord(words!["node", "restore", file, "--dir", dir]).ok();
    forum.start_node("KAZ");
    await_recovered(&forum, &dir);
    forum.confirm_agencies(&dir);
    for id in rest.iter().chain([&damaged]) {
        assert_eq!(kaz.settled(id), ["IRN delivered"], "{id}");
    }
    let alarms = forum.status(&dir)["alarms"].to_string();
    assert!(alarms.contains("Of 1 own exchanges the hub has the content no more"), "{alarms}");
    let alarms = forum.status(&forum.hub_dir())["alarms"].to_string();
    assert!(alarms.contains("not-healed") && alarms.contains(&damaged), "{alarms}");
}

#[test]
fn an_older_copy_that_is_put_back_silently_is_refused_and_alarmed_and_healed_by_a_command() {
    let mut forum = Lost::forum();
    forum.stop_node("KAZ");
    let copy = forum.path().join("copy");
    copy_folder(&forum.node_dir("KAZ"), &copy);
    forum.start_node("KAZ");
    let mut lost = Lost::after(forum);
    let (dir, hub_dir) = (lost.dir(), lost.forum.hub_dir());
    lost.forum.stop_node("KAZ");
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&copy, &dir).unwrap();
    lost.forum.start_node("KAZ");
    lost.forum.await_alarm(&dir, "NODE_ROLLED_BACK");
    lost.forum.await_alarm(&hub_dir, "node-rolled-back");
    assert_eq!(get(&lost.forum.address(&dir, "admin"), "/readyz").status, 503);
    assert!(get(&lost.forum.address(&hub_dir, "admin"), "/metrics").body.contains("concord_node_copies_refused_total"));
    lost.kaz.try_submit("too late", &format!("--agreement {WARNINGS}")).refused(1, "NODE_ROLLED_BACK");

    concord(words!["node", "restore", "--here", "--dir", dir]).refused(1, "FOLDER_IN_USE");
    lost.forum.stop_node("KAZ");
    let mut killed = Command::new(executable());
    killed.args(["--json", "--with-parent"]).args(words!["node", "restore", "--here", "--dir", dir]);
    killed.env("CONCORD_CRASH_AT", "restore.declared");
    assert_eq!(concord_tests::run(killed).code, None);
    concord(words!["node", "restore", "--here", "--dir", dir]).ok();
    lost.forum.start_node("KAZ");
    lost.check();
}

#[test]
fn of_a_node_and_a_second_copy_started_elsewhere_exactly_one_goes_on_and_the_other_is_told() {
    let mut forum = Lost::forum();
    forum.stop_node("KAZ");
    let (dir, elsewhere) = (forum.node_dir("KAZ"), forum.path().join("elsewhere"));
    copy_folder(&dir, &elsewhere);
    forum.start_node("KAZ");
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    // It was in contact: a feed that stands is all that the hub needs to know which one it is.
    await_contact(&forum, &dir);
    for name in ["lock", "addresses.json"] {
        drop(fs::remove_file(elsewhere.join(name)));
    }
    let second = Process::start(&forum.log("second"), words!["node", "serve", "--dir", elsewhere]);
    second.line_after("admin ");
    forum.await_alarm(&elsewhere, "NODE_ROLLED_BACK");
    forum.await_alarm(&forum.hub_dir(), "node-rolled-back");
    let sent = kaz.submit("from the one that goes on", "--wait delivered").id;
    let received = irn.submit("to the one that goes on", "--wait delivered").id;
    assert_eq!(exchange_ids(&kaz.receive(1)), [received.clone()]);
    assert_eq!(count_in_journal(&elsewhere, &[received]), (0, 0));
    assert_eq!(second.terminate().code(), Some(0));

    // Declared, the second takes the place, and the first is told.
    concord(words!["node", "restore", "--here", "--dir", elsewhere]).ok();
    let second = Process::start(&forum.log("second"), words!["node", "serve", "--dir", elsewhere]);
    second.line_after("admin ");
    await_recovered(&forum, &elsewhere);
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    forum.await_alarm(&dir, "NODE_SUPERSEDED");
    forum.await_alarm(&forum.hub_dir(), "node-superseded");
    kaz.try_submit("from the one that was left behind", "").refused(1, "NODE_SUPERSEDED");
    assert_eq!(exchange_ids(&irn.receive(1)), [sent]);
    assert_eq!(second.terminate().code(), Some(0));
}

/// How often the journal of a node says this.
fn count_of(dir: &Path, kind: &str) -> usize {
    concord(words!["journal", "show", dir]).ok().lines().iter().filter(|entry| entry["kind"] == kind).count()
}

#[test]
fn a_copy_that_is_not_served_takes_nothing_after_a_restart_without_the_hub_until_it_is_welcomed() {
    let mut forum = Lost::forum();
    forum.stop_node("KAZ");
    let (dir, elsewhere) = (forum.node_dir("KAZ"), forum.path().join("elsewhere"));
    copy_folder(&dir, &elsewhere);
    forum.start_node("KAZ");
    await_contact(&forum, &dir);
    for name in ["lock", "addresses.json"] {
        drop(fs::remove_file(elsewhere.join(name)));
    }
    let start = |forum: &Forum| {
        let second = Process::start(&forum.log("second"), words!["node", "serve", "--dir", elsewhere]);
        second.line_after("admin ");
        second
    };
    let (first_agency, second_agency) = (forum.agency("KAZ"), forum.agency_in(&elsewhere, "second"));
    let second = start(&forum);
    forum.await_alarm(&elsewhere, "NODE_ROLLED_BACK");
    assert_eq!(second.terminate().code(), Some(0));

    // What it heard stands in its journal: nobody is there who could say it again.
    forum.stop_hub();
    let second = start(&forum);
    second_agency.try_submit("too late", "").refused(1, "NODE_ROLLED_BACK");
    let ready = get(&forum.address(&elsewhere, "admin"), "/readyz");
    assert!(ready.status == 503 && ready.body.contains("not-served"), "{}", ready.body);
    assert!(forum.status(&elsewhere)["alarms"].to_string().contains("NODE_ROLLED_BACK"));
    assert_eq!(second.terminate().code(), Some(0));
    assert_eq!(count_of(&elsewhere, "fenced"), 1);

    // Declared, it goes on, once the hub is there to say so. What came after its last work is only that it was started, and refused.
    let shown = |dir: &Path| concord(words!["journal", "show", dir]).ok().lines();
    let is_work = |entry: &&serde_json::Value| !["history", "run", "fenced"].contains(&entry["kind"].as_str().unwrap());
    let last_work = text_of(shown(&elsewhere).iter().rfind(is_work).unwrap(), "recorded_at");
    concord(words!["node", "restore", "--here", "--dir", elsewhere]).ok();
    let declared = text_of(shown(&elsewhere).last().unwrap(), "about");
    assert!(declared.starts_with("declared") && declared.ends_with(&last_work), "{declared}, and not {last_work}");
    let second = start(&forum);
    forum.confirm_agencies(&elsewhere);
    second_agency.try_submit("too early", "").refused(4, "RECOVERING");
    assert_eq!(count_of(&elsewhere, "fence-lifted"), 0);
    forum.start_hub();
    await_recovered(&forum, &elsewhere);
    assert_eq!(count_of(&elsewhere, "fence-lifted"), 1);
    assert!(!forum.status(&elsewhere)["alarms"].to_string().contains("not-served"));
    let first = second_agency.submit("from the one that took the place", "--wait delivered").id;

    // The other one is the copy that is not served now, and knows it by itself, too.
    forum.await_alarm(&dir, "NODE_SUPERSEDED");
    forum.stop_hub();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    first_agency.try_submit("from the one that was left behind", "").refused(1, "NODE_SUPERSEDED");
    concord(words!["agreement", "leave", WARNINGS, "--yes", "--profile", forum.officer("KAZ")])
        .refused(1, "NODE_SUPERSEDED");
    assert_eq!(second.terminate().code(), Some(0));
    let second = start(&forum);
    let later = second_agency.submit("from a restart without the hub", "").id;
    forum.start_hub();
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(2)), [first, later]);
    assert_eq!(second.terminate().code(), Some(0));
    assert_eq!(count_of(&elsewhere, "fenced"), 1);
    forum.stop_node("KAZ");
    assert_eq!((count_of(&dir, "fenced"), count_of(&dir, "fence-lifted")), (1, 0));
}

/// An agency hands in one body after the other until the node says that it is not the one that is served; the ids of what was queued.
fn submit_until_superseded(agency: &Agency, lane: &str, queued: &Sender<()>) -> Vec<String> {
    let (since, mut ids) = (Instant::now(), Vec::new());
    loop {
        let ended = agency.try_submit(format!("{lane} {}", ids.len()), &format!("--lane {lane}"));
        if ended.code != Some(0) {
            ended.refused(1, "NODE_SUPERSEDED");
            return ids;
        }
        ids.push(text_of(&ended.json(), "exchange_id"));
        // Whoever waited for the first of them need not hear of the rest.
        let _heard = queued.send(());
        assert!(since.elapsed() < DEADLINE, "the node that is not served any more goes on queueing");
    }
}

#[test]
fn an_active_node_is_told_the_moment_that_its_restored_copy_is_served_and_every_exchange_has_one_effect() {
    let mut forum = Lost::forum();
    forum.stop_node("KAZ");
    let (dir, elsewhere) = (forum.node_dir("KAZ"), forum.path().join("elsewhere"));
    copy_folder(&dir, &elsewhere);
    forum.start_node("KAZ");
    concord(words!["node", "restore", backup(&forum, "KAZ"), "--dir", elsewhere]).ok();
    for name in ["lock", "addresses.json"] {
        drop(fs::remove_file(elsewhere.join(name)));
    }
    let (old, irn, restored) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency_in(&elsewhere, "restored"));
    let taking = old.follow();
    let taken_over = AtomicBool::new(false);
    let (second, to_kaz, handed_in) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = Vec::new();
            while !taken_over.load(Ordering::Relaxed) {
                sent.push(irn.submit(format!("to KAZ {}", sent.len()), "").id);
            }
            sent
        });
        let (tell, queued) = channel();
        let submitting = ["flash", "priority", "routine"].map(|lane| {
            let (old, tell) = (&old, tell.clone());
            scope.spawn(move || submit_until_superseded(old, lane, &tell))
        });
        // All of it is under way, in both directions.
        (0..12).for_each(|_| queued.recv_timeout(DEADLINE).unwrap());
        let second = Process::start(&forum.log("second"), words!["node", "serve", "--dir", elsewhere]);
        second.line_after("admin ");
        let handed_in = submitting.map(|lane| lane.join().unwrap()).concat();
        await_recovered(&forum, &elsewhere);
        forum.confirm_agencies(&elsewhere);
        taken_over.store(true, Ordering::Relaxed);
        (second, sending.join().unwrap(), handed_in)
    });
    // Nobody restarted it: its own streams told it.
    forum.await_alarm(&dir, "NODE_SUPERSEDED");
    let ready = get(&forum.address(&dir, "admin"), "/readyz");
    assert!(ready.status == 503 && ready.body.contains("NODE_SUPERSEDED"), "{}", ready.body);
    concord(words!["agreement", "leave", WARNINGS, "--yes", "--profile", forum.officer("KAZ")])
        .refused(1, "NODE_SUPERSEDED");
    taking.terminate();

    // What the old one handed in was recorded before the new one was served, which has it then, or never.
    let (known, lost): (Vec<_>, Vec<_>) = handed_in.into_iter().partition(|id| restored.try_track(id).code == Some(0));
    assert!(!known.is_empty(), "nothing of the old one was recorded: this shows nothing");
    println!("{} recorded of the old one, {} not; {} sent to it meanwhile", known.len(), lost.len(), to_kaz.len());
    known.iter().for_each(|id| assert!(restored.settled(id)[0].starts_with("IRN "), "{id}"));
    let at_irn = forum.node_dir("IRN");
    assert_eq!(count_in_journal(&at_irn, &known), (known.len(), known.len()), "one entry for each exchange");
    assert_eq!(count_in_journal(&at_irn, &lost), (0, 0), "recorded, and the one that is served does not know it");
    // What was sent to KAZ meanwhile is at the one that is served, each once; its chains and mailboxes go on.
    to_kaz.iter().for_each(|id| assert!(irn.settled(id)[0].starts_with("KAZ "), "{id}"));
    assert_eq!(count_in_journal(&elsewhere, &to_kaz), (to_kaz.len(), to_kaz.len()), "one entry for each exchange");
    for lane in ["flash", "priority", "routine"] {
        restored.submit("after it", &format!("--lane {lane} --wait delivered"));
        irn.submit("to the one that is served", &format!("--lane {lane} --wait delivered"));
    }
    let received = exchange_ids(&restored.receive_rest());
    assert_eq!(received.iter().collect::<BTreeSet<_>>().len(), received.len(), "given twice: {received:?}");
    assert_eq!(second.terminate().code(), Some(0));
    forum.stop_node("KAZ");
    for dir in [forum.hub_dir(), elsewhere, at_irn] {
        concord(words!["verify", dir]).ok();
    }
}

fn await_contact(forum: &Forum, dir: &Path) {
    let since = Instant::now();
    while forum.status(dir)["hub_connected"] != true {
        assert!(since.elapsed() < DEADLINE, "no contact: {}", forum.status(dir));
    }
}

/// The hub forgot numbers that its recipient had, and goes on behind them: one that starts over meets numbers that stand for nothing.
#[test]
fn a_node_that_starts_over_behind_a_hub_that_was_restored_gets_everything_that_follows() {
    let mut forum = Lost::forum();
    let (kaz, dir, hub) = (forum.agency("KAZ"), forum.node_dir("IRN"), forum.hub_dir());
    let send = |body: &str| kaz.submit(body, "--wait delivered").id;
    let mut ids = vec![send("one"), send("two")];
    let file = forum.path().join("hub.backup");
    concord(words!["hub", "backup", "--profile", hub.join("officer"), "--out", file]).ok();
    ids.extend([send("that the hub forgets"), send("and another")]);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(4)), ids);
    forum.stop_hub();
    concord(words!["hub", "restore", file, "--dir", hub]).ok();
    forum.start_hub();
    ids.push(send("after the restore"));
    forum.kill_node("IRN");
    ids.push(kaz.submit("while it is away", "--wait recorded").id);
    for lost in ["journal", "views"] {
        fs::remove_dir_all(dir.join(lost)).unwrap();
    }
    // What a service manager does first: nothing is made in the place of what was lost.
    let served = concord(words!["node", "serve", "--dir", dir]);
    served.refused(1, "JOURNAL_ABSENT");
    assert!(served.message().contains("concord node rebuild"), "{served}");
    assert!(!dir.join("journal").exists());
    concord(words!["node", "rebuild", "--dir", dir]).ok();
    forum.start_node("IRN");
    await_recovered(&forum, &dir);
    ids.push(send("when it is back"));
    for id in &ids {
        let settled = kaz.settled(id);
        assert!(settled == ["IRN delivered"] || settled == ["IRN taken"], "{id}: {settled:?}");
    }
    assert_eq!(count_in_journal(&dir, &ids).0, ids.len(), "each once");
}
