//! Backups of running hubs and nodes, and putting them back: whole, only where they belong, and whatever ends the restore.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::healing_node::await_recovered;
use concord_tests::{Ended, Forum, concord, exchange_ids, executable, flip_bit, text_of, words};

const AGREEMENT: &str = "KAZ/warnings";

fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    forum
}

fn backup(forum: &Forum, kind: &str, dir: &Path) -> (PathBuf, serde_json::Value) {
    let out = forum.path().join(format!("{}.backup", dir.file_name().unwrap().to_string_lossy()));
    let made = concord(words![kind, "backup", "--profile", dir.join("officer"), "--out", out]).ok().json();
    (out, made)
}

fn restore(kind: &str, file: &Path, dir: &Path) -> Ended {
    concord(words![kind, "restore", file, "--dir", dir])
}

#[test]
fn a_backup_of_running_servers_checks_and_holds_what_was_acknowledged_and_no_key() {
    let forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let sent = kaz.submit("the-body-in-the-backup", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [sent.id]);
    for (kind, dir) in [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ")), ("node", forum.node_dir("IRN"))] {
        let (file, made) = backup(&forum, kind, &dir);
        let verified = concord(words!["verify", file]).ok().json();
        assert_eq!(verified["digest"], made["digest"]);
        assert!(verified["entries"].as_u64().unwrap() > 3, "{verified}");
        let shown = concord(words!["journal", "show", file]).ok().lines();
        assert_eq!(shown.last().unwrap()["digest"], made["digest"]);
        let bytes = fs::read(&file).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"the-body-in-the-backup"));
        assert!(!has(b"PRIVATE KEY"));
        // It replaces nothing, and is not an operator's.
        let again = |profile: &str| words![kind, "backup", "--profile", dir.join(profile), "--out", file];
        concord(again("officer")).refused(1, "FILE_EXISTS");
        let other = forum.path().join("other.backup");
        concord(words![kind, "backup", "--profile", dir.join("operator"), "--out", other])
            .refused(3, "CALLER_NOT_ALLOWED");
        assert!(!other.exists());
    }
}

#[test]
fn backups_while_everybody_is_at_work_are_whole() {
    let forum = forum();
    let agency = forum.agency("KAZ");
    std::thread::scope(|scope| {
        let submitting = scope.spawn(|| (0..60).for_each(|number| drop(agency.submit(format!("number {number}"), ""))));
        let mut number = 0;
        while !submitting.is_finished() || number < 3 {
            for (kind, dir) in [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ"))] {
                let out = forum.path().join(format!("{kind}-{number}"));
                concord(words![kind, "backup", "--profile", dir.join("officer"), "--out", out]).ok();
                concord(words!["verify", out]).ok();
            }
            number += 1;
        }
    });
}

#[test]
fn a_folder_of_which_only_the_keys_are_left_is_restored_and_everything_goes_on() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let before = kaz.submit("before the backup", "--wait delivered");
    let dirs = [("hub", forum.hub_dir()), ("node", forum.node_dir("KAZ")), ("node", forum.node_dir("IRN"))];
    // Nobody does anything between the backups and the loss: nothing is to be healed here.
    forum.stop_node("KAZ");
    forum.stop_node("IRN");
    forum.stop_hub();
    forum.start_hub();
    let hub = backup(&forum, "hub", &dirs[0].1).0;
    forum.stop_hub();
    forum.start_node("KAZ");
    let node = backup(&forum, "node", &dirs[1].1).0;
    forum.stop_node("KAZ");
    for (kind, dir, file) in [("hub", &dirs[0].1, &hub), ("node", &dirs[1].1, &node)] {
        for lost in ["journal", "views", "concord.json", "tls/certificate.pem"] {
            let path = dir.join(lost);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        fs::remove_file(dir.join(format!("{kind}.toml"))).unwrap();
        let restored = restore(kind, file, dir).ok().json();
        assert_eq!(restored["aside"], serde_json::Value::Null);
        let shown = concord(words!["journal", "show", dir]).ok().lines();
        assert_eq!(shown.iter().filter(|entry| entry["kind"] == "history").count(), 2, "{shown:?}");
        concord(words!["verify", dir]).ok();
    }
    forum.start_hub();
    forum.start_node("IRN");
    forum.start_node("KAZ");
    // A restored node asks the hub first what it may have lost.
    await_recovered(&forum, &forum.node_dir("KAZ"));
    forum.confirm_agencies(&forum.node_dir("KAZ"));
    let after = kaz.submit("after the restore", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(2)), [before.id.clone(), after.id]);
    kaz.await_taken(&before.id, "IRN");
}

#[test]
fn a_restore_is_refused_wherever_it_does_not_belong_and_changes_nothing() {
    let mut forum = forum();
    forum.agency("KAZ").submit("something", "--wait delivered");
    let (hub_dir, kaz_dir, irn_dir) = (forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN"));
    let (hub, _) = backup(&forum, "hub", &hub_dir);
    let (kaz, _) = backup(&forum, "node", &kaz_dir);
    concord(words!["node", "backup", "--profile", hub_dir.join("officer"), "--out", forum.path().join("x")])
        .refused(2, "USAGE");

    restore("hub", &hub, &hub_dir).refused(1, "FOLDER_IN_USE");
    restore("node", &kaz, &kaz_dir).refused(1, "FOLDER_IN_USE");
    forum.stop_node("KAZ");
    forum.stop_node("IRN");
    forum.stop_hub();
    let before = digests(&[&hub_dir, &kaz_dir, &irn_dir]);
    restore("node", &kaz, &irn_dir).refused(1, "BACKUP_OF_ANOTHER");
    restore("hub", &kaz, &hub_dir).refused(1, "BACKUP_OF_ANOTHER");
    restore("node", &hub, &kaz_dir).refused(1, "BACKUP_OF_ANOTHER");
    restore("hub", &hub, &forum.path().join("nowhere")).refused(1, "KEY_ABSENT");
    restore("hub", &hub_dir.join("hub.toml"), &hub_dir).refused(1, "BACKUP_UNKNOWN");
    assert_eq!(restore("hub", &forum.path().join("absent"), &hub_dir).code, Some(1));

    let whole = fs::read(&hub).unwrap();
    let segment = whole.windows(8).rposition(|window| window == b"CNCRDSEG").unwrap() + 200;
    let manifest = whole.windows(8).position(|window| window == b"taken_at").unwrap() + 14;
    for at in [manifest, segment, whole.len() - 1, whole.len() - 80, whole.len() - 110] {
        flip_bit(&hub, at);
        restore("hub", &hub, &hub_dir).refused(1, "BACKUP_DAMAGED");
        concord(words!["verify", hub]).refused(1, "BACKUP_DAMAGED");
        flip_bit(&hub, at);
    }
    for length in [whole.len() - 1, whole.len() / 2, 40] {
        fs::write(&hub, &whole[..length]).unwrap();
        restore("hub", &hub, &hub_dir).refused(1, "BACKUP_DAMAGED");
    }
    concord(words!["hub", "refound", "--dir", hub_dir]).refused(1, "JOURNAL_HOLDS");
    concord(words!["node", "rebuild", "--dir", kaz_dir]).refused(1, "JOURNAL_HOLDS");
    assert_eq!(digests(&[&hub_dir, &kaz_dir, &irn_dir]), before);
}

fn digests(dirs: &[&Path]) -> Vec<String> {
    let digest = |dir: &&Path| text_of(&concord(words!["verify", *dir]).ok().json(), "digest").to_owned();
    dirs.iter().map(digest).collect()
}

#[test]
fn a_restore_that_is_killed_at_any_step_is_noticed_and_can_be_run_again() {
    let mut forum = forum();
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let sent = kaz.submit("before the backup", "--wait delivered");
    assert_eq!(irn.receive(1).len(), 1);
    let dir = forum.hub_dir();
    forum.stop_node("KAZ");
    forum.stop_node("IRN");
    let (file, _) = backup(&forum, "hub", &dir);
    forum.stop_hub();
    for point in ["restore.staged", "restore.moved-aside", "restore.placed"] {
        let mut command = Command::new(executable());
        command.args(["--json", "--with-parent"]).args(words!["hub", "restore", file, "--dir", dir]);
        let killed = concord_tests::run({
            command.env("CONCORD_CRASH_AT", point);
            command
        });
        assert_eq!(killed.code, None, "{point}: {killed}");
        if point == "restore.placed" {
            continue;
        }
        concord(words!["hub", "serve", "--dir", dir]).refused(1, "RESTORE_INTERRUPTED");
        restore("hub", &file, &dir).ok();
        concord(words!["verify", dir]).ok();
    }
    forum.start_hub();
    forum.start_node("IRN");
    forum.start_node("KAZ");
    kaz.await_taken(&sent.id, "IRN");
    let after = kaz.submit("after", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [after.id]);
}
