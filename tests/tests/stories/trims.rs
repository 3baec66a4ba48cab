//! Retention of old segments: they go on hub and node, and whatever is asked is answered as before.

use std::fs;
use std::path::{Path, PathBuf};

use concord_tests::{Agency, Ended, Forum, concord, count_in_journal, exchange_ids, remove_views, replace_line, words};

use crate::healing_hub::copy_folder;
use crate::healing_node::await_recovered;

const AGREEMENT: &str = "KAZ/warnings";
const MEASURE: &str = "environmental.5";
/// The smallest segments that a configuration may ask for.
const SEGMENT_SIZE_BYTES: usize = 64 * 1024;
/// Exchanges that fill a few of them.
const SETTLED_COUNT: usize = 6;
const ALL: &[&str] = &["--days", "0", "--entries-days", "0"];

/// KAZ and IRN with small segments, and settled exchanges of KAZ in them.
struct Settled {
    forum: Forum,
    kaz: Agency,
    irn: Agency,
    ids: Vec<String>,
}

impl Settled {
    fn new() -> Self {
        let mut forum = Forum::of(&["KAZ", "IRN"]);
        let small =
            |settings: &str| replace_line(settings, "journal_segment_size_bytes", &SEGMENT_SIZE_BYTES.to_string());
        forum.configure_hub(small);
        ["KAZ", "IRN"].iter().for_each(|code| forum.configure_node(code, small));
        forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
        let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
        let mut settled = Self { forum, kaz, irn, ids: Vec::new() };
        (0..SETTLED_COUNT).for_each(|number| settled.settle(number));
        settled
    }

    /// One more exchange that everybody has.
    fn settle(&mut self, number: usize) {
        let sent = self.kaz.submit(body(number), &request(number));
        assert_eq!(exchange_ids(&self.irn.receive(1)), [sent.id.clone()]);
        self.kaz.await_taken(&sent.id, "IRN");
        self.ids.push(sent.id);
    }

    fn dirs(&self) -> [(&'static str, PathBuf); 3] {
        [("hub", self.forum.hub_dir()), ("node", self.forum.node_dir("KAZ")), ("node", self.forum.node_dir("IRN"))]
    }

    fn trim_all(&self) {
        for (kind, dir) in self.dirs() {
            let done = retention(kind, "run", &dir, "officer", ALL).ok().json();
            assert!(done["old_segments"]["segments"].as_u64() > Some(0), "{}: {done}", dir.display());
        }
    }

    /// Everything that is known of what is settled.
    fn check(&self) {
        for (number, id) in self.ids.iter().enumerate() {
            let repeated = self.kaz.submit(body(number), &request(number));
            assert_eq!(repeated.id, *id, "a repeat gets the first answer");
            self.kaz.try_submit("other content", &request(number)).refused(3, "REQUEST_ID_CONFLICT");
            assert_eq!(self.kaz.settled(id), ["IRN taken"], "{id}");
        }
        assert!(self.irn.receive_rest().is_empty(), "nothing comes twice");
        let all = (self.ids.len(), self.ids.len());
        assert_eq!(count_in_journal(&self.forum.node_dir("IRN"), &self.ids), all, "what goes is shown on");
        for (_, dir) in self.dirs() {
            concord(words!["verify", dir]).ok();
        }
    }

    fn restart(&mut self, between: impl FnOnce(&Self)) {
        self.forum.stop_hub();
        ["KAZ", "IRN"].iter().for_each(|code| self.forum.stop_node(code));
        between(self);
        self.forum.start_hub();
        ["KAZ", "IRN"].iter().for_each(|code| self.forum.start_node(code));
    }
}

/// The options of a submission; the file's name is in no title, so that a repeat is one.
fn request(number: usize) -> String {
    format!("--request-id request-{number} --title settled --agreement {AGREEMENT} --wait delivered")
}

fn body(number: usize) -> Vec<u8> {
    format!("body {number} ").repeat(5_500).into_bytes()
}

fn retention(kind: &str, what: &str, dir: &Path, who: &str, options: &[&str]) -> Ended {
    let mut all = words![kind, "retention", what, "--profile", dir.join(who)];
    all.extend(options.iter().map(Into::into));
    concord(all)
}

/// Names and sizes of the journal's files, but of seals.
fn journal_files(dir: &Path) -> Vec<(String, u64)> {
    let files = fs::read_dir(dir.join("journal")).unwrap().map(Result::unwrap);
    let named = files.map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len()));
    let mut all: Vec<_> = named.filter(|(name, _)| !name.ends_with(".seal")).collect();
    all.sort_unstable();
    all
}

fn size(files: &[(String, u64)]) -> u64 {
    files.iter().map(|(_, size)| size).sum()
}

#[test]
fn old_segments_go_and_everything_is_answered_as_before() {
    let mut story = Settled::new();
    // IRN's node is away, so that hub and KAZ keep what it is to have; its own keeps what its agency is to have.
    story.forum.stop_node("IRN");
    // So much that its segments are not the last ones, which never go.
    let send = |number: usize| story.kaz.submit(body(number), "--wait recorded").id;
    let waits: Vec<String> = (100..100 + SETTLED_COUNT).map(send).collect();

    for (kind, dir) in story.dirs() {
        if dir == story.forum.node_dir("IRN") {
            story.forum.start_node("IRN");
            waits.iter().for_each(|id| drop(story.kaz.track_delivered(id)));
        }
        let before = journal_files(&dir);
        retention(kind, "preview", &dir, "operator", &["--days", "3", "--entries-days", "2"])
            .refused(3, "ARGUMENT_INVALID");
        let young = retention(kind, "run", &dir, "officer", &["--days", "1", "--entries-days", "1"]).ok().json();
        assert_eq!(young["old_segments"]["segments"], 0, "{young}");
        assert!(retention(kind, "preview", &dir, "operator", &["--days", "0"]).ok().json()["old_segments"].is_null());
        let preview = retention(kind, "preview", &dir, "operator", ALL).ok().json();
        assert_eq!(journal_files(&dir), before, "a preview takes nothing away");

        let done = retention(kind, "run", &dir, "officer", ALL).ok().json();
        let (told, previewed) = (&done["old_segments"], &preview["old_segments"]);
        assert_eq!((&told["segments"], &told["entries"]), (&previewed["segments"], &previewed["entries"]), "{kind}");
        assert!(told["segments"].as_u64() > Some(1) && told["bytes"] == previewed["bytes"], "{done}");
        let after = journal_files(&dir);
        assert_eq!(after.iter().filter(|(name, _)| name.ends_with(".base")).count(), 1, "{after:?}");
        let gone = before.iter().filter(|file| !after.iter().any(|(name, _)| *name == file.0));
        assert_eq!(gone.count() as u64, told["segments"].as_u64().unwrap());
        assert!(size(&before) - size(&after) > 2 * SEGMENT_SIZE_BYTES as u64, "{before:?}, {after:?}");
        let again = retention(kind, "run", &dir, "officer", ALL).ok().json();
        assert_eq!(again["old_segments"]["segments"], 0, "{again}");
    }
    assert_eq!(exchange_ids(&story.irn.receive(waits.len())), waits, "what somebody waits for stays");
    waits.iter().for_each(|id| story.kaz.await_taken(id, "IRN"));
    story.check();

    // The same where views and snapshots are made anew from what is left; then the next segments go.
    story.restart(|story| {
        for (_, dir) in story.dirs() {
            remove_views(&dir);
            fs::remove_dir_all(dir.join("snapshots")).unwrap();
        }
    });
    story.check();
    (6..12).for_each(|number| story.settle(number));
    story.trim_all();
    story.check();
    story.restart(|_| {});
    story.check();
    story.settle(12);
}

#[test]
fn backups_of_trimmed_journals_are_restored_and_a_rebuilt_node_is_given_all_of_its_past() {
    let mut story = Settled::new();
    story.forum.agree("KAZ/left", "challenges.3", &["KAZ", "IRN"]);
    story.forum.leave("KAZ/left", "KAZ");
    story.trim_all();
    let backups = story.dirs().map(|(kind, dir)| {
        let out = story.forum.path().join(format!("{}.backup", dir.file_name().unwrap().to_string_lossy()));
        concord(words![kind, "backup", "--profile", dir.join("officer"), "--out", out]).ok();
        concord(words!["verify", out]).ok();
        (kind, dir, out)
    });
    story.settle(SETTLED_COUNT);
    let (_, hub, hub_backup) = &backups[0];
    let (_, irn, irn_backup) = &backups[2];
    // Both lose what came after their backups, and get it back from each other: the hub from KAZ, IRN from the hub.
    story.restart(|_| {
        for (kind, dir, backup) in [("hub", hub, hub_backup), ("node", irn, irn_backup)] {
            fs::remove_dir_all(dir.join("journal")).unwrap();
            concord(words![kind, "restore", backup, "--dir", dir]).ok();
        }
    });
    await_recovered(&story.forum, irn);
    story.forum.confirm_agencies(irn);
    // Its agency had acknowledged that one before it was restored, and a hub that was restored too does not know it: KAZ hands it in again.
    assert_eq!(exchange_ids(&story.irn.receive(1)), story.ids[SETTLED_COUNT..]);
    story.check();
    story.settle(SETTLED_COUNT + 1);

    // Nothing is left of KAZ's journal: chain, receipts, feed and officers' numbers come from a trimmed hub.
    let kaz = story.forum.node_dir("KAZ");
    story.trim_all();
    story.forum.stop_node("KAZ");
    ["journal", "views", "snapshots"].iter().for_each(|name| fs::remove_dir_all(kaz.join(name)).unwrap());
    concord(words!["node", "rebuild", "--dir", kaz]).ok();
    concord(words!["agency", "add", "agency", "--dir", kaz]).ok();
    story.forum.start_node("KAZ");
    await_recovered(&story.forum, &kaz);
    story.forum.confirm_agencies(&kaz);
    for id in &story.ids {
        assert_eq!(story.kaz.settled(id), ["IRN taken"], "{id}");
    }
    assert!(story.forum.has_left("KAZ/left", "KAZ"));
    story.forum.agree("KAZ/later", "challenges.3", &["KAZ", "IRN"]);
    let new = story.kaz.submit("behind it", &format!("--agreement {AGREEMENT} --wait delivered")).id;
    assert_eq!(exchange_ids(&story.irn.receive(1)), [new]);
}

#[test]
fn a_hub_that_forgot_is_healed_by_trimmed_nodes() {
    let mut story = Settled::new();
    let (hub, older) = (story.forum.hub_dir(), story.forum.path().join("older"));
    story.forum.stop_hub();
    copy_folder(&hub, &older);
    story.forum.start_hub();
    let ids = ["KAZ/kept", "KAZ/left"];
    ids.iter().for_each(|id| story.forum.agree(id, "challenges.3", &["KAZ", "IRN"]));
    story.forum.leave("KAZ/left", "KAZ");
    (SETTLED_COUNT..SETTLED_COUNT + 6).for_each(|number| story.settle(number));
    // What the hub is about to forget stands in segments that the nodes have no more.
    story.trim_all();
    story.restart(|_| {
        fs::remove_dir_all(&hub).unwrap();
        copy_folder(&older, &hub);
    });
    story.forum.await_in_force("KAZ/kept", "IRN");
    let new = story.kaz.submit("behind it", &format!("--agreement {AGREEMENT} --wait delivered")).id;
    assert_eq!(exchange_ids(&story.irn.receive(1)), [new]);
    assert!(story.forum.has_left("KAZ/left", "KAZ"));
    story.check();
    // Their bodies are gone at their origin too: the hub cannot have them again, and goes on to say which.
    let forgotten = &story.ids[SETTLED_COUNT..];
    let listed = |story: &Settled| {
        let alarms = story.forum.status(&story.forum.hub_dir())["alarms"].to_string();
        assert!(alarms.contains("not-healed"), "{alarms}");
        forgotten.iter().for_each(|id| assert!(alarms.contains(id), "{id} is not listed: {alarms}"));
    };
    listed(&story);
    story.forum.stop_hub();
    story.forum.start_hub();
    listed(&story);
}

#[test]
fn a_kill_at_any_step_of_a_trim_is_finished_or_forgotten_by_the_next_start() {
    let mut story = Settled::new();
    let steps = ["written", "prepared", "anchored", "removing", "removed", "done"];
    for (round, step) in steps.iter().enumerate() {
        let point = format!("journal.trim.{step}:1");
        let armed = [("CONCORD_CRASH_AT", point.as_str())].into();
        for which in ["hub", "KAZ"] {
            let (kind, dir) = match which {
                "hub" => ("hub", story.forum.hub_dir()),
                code => ("node", story.forum.node_dir(code)),
            };
            if which == "hub" {
                story.forum.stop_hub();
                story.forum.start_hub_with(&armed);
            } else {
                story.forum.stop_node(which);
                story.forum.start_node_with(which, &armed);
            }
            assert_ne!(retention(kind, "run", &dir, "officer", ALL).code, Some(0), "{which}, {step}");
            let finishes = "journal.trim.finishing:1";
            // What was begun for good is finished by the next start, also where that is killed.
            let is_begun = !["removed", "done"].contains(step);
            if which == "hub" {
                story.forum.await_end_of_hub();
                concord(words!["verify", dir]).ok();
                if is_begun {
                    story.forum.start_hub_to_die_at(finishes);
                }
                story.forum.start_hub();
            } else {
                story.forum.await_end_of_node(which);
                concord(words!["verify", dir]).ok();
                if is_begun {
                    story.forum.start_node_to_die_at(finishes, which);
                }
                story.forum.start_node(which);
            }
            retention(kind, "run", &dir, "officer", ALL).ok();
            assert_eq!(journal_files(&dir).iter().filter(|(name, _)| name.ends_with(".base")).count(), 1);
        }
        story.check();
        let next = SETTLED_COUNT + 3 * round;
        (next..next + 3).for_each(|number| story.settle(number));
    }
    story.check();
}
