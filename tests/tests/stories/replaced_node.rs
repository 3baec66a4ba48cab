//! A node whose disk and keys are lost: one with new keys takes its place, has back what the hub has, and the old one is out, even where
//! somebody runs it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use concord_tests::forge::put_list;
use concord_tests::{DEADLINE, Forum, Process, concord, count_in_journal, exchange_ids, get, text_of, words};

use crate::healing_hub::copy_folder;
use crate::healing_node::await_recovered;

const WARNINGS: &str = "KAZ/warnings";
const AGAIN: &str = "KAZ/warnings-again";
const MEASURE: &str = "environmental.5";
const REFERENCE: &str = "note verbale 17/2026";

/// KAZ's node was made anew: enrols it in place of the old one, lets it join, and waits until it has back what the hub has.
pub(crate) fn enrol_in_place(forum: &mut Forum) {
    let dir = forum.node_dir("KAZ");
    let (request, bundle) = (dir.join("join-request.json"), dir.join("bundle.json"));
    let mut enrol = words!["participant", "enrol", request, "--replace", "--reference", REFERENCE, "--out", bundle];
    enrol.extend(words!["--profile", forum.hub_dir().join("officer")]);
    concord(enrol).ok();
    concord(words!["node", "join", bundle, "--dir", dir]).ok();
    concord(words!["agency", "add", "agency", "--dir", dir]).ok();
    forum.start_node("KAZ");
    await_recovered(forum, &dir);
    forum.confirm_agencies(&dir);
}

#[test]
fn a_list_of_an_anchor_that_was_replaced_or_ended_is_a_note_until_its_file_is_removed_and_no_alarm() {
    let mut forum = Forum::of(&["KAZ"]);
    let (dir, hub, lost) = (forum.node_dir("KAZ"), forum.hub_dir(), forum.path().join("lost"));
    forum.stop_node("KAZ");
    fs::rename(&dir, &lost).unwrap();
    let list = forum.path().join("kaz.crl");
    let revoke =
        words!["anchor", "revoke", "node/main", "officer/officer", "--dir", lost.join("anchor"), "--yes", "--out"];
    concord([revoke, words![list]].concat()).ok();
    let put = put_list(&hub, "kaz.crl", fs::read(&list).unwrap());
    concord(words!["node", "init", "--dir", dir, "--participant", "KAZ"]).ok();
    enrol_in_place(&mut forum);
    forum.await_alarm(&hub, "revocation-past");
    forum.stop_hub();
    forum.start_hub();
    forum.await_alarm(&hub, "revocation-past");
    let told = get(&forum.address(&hub, "admin"), "/readyz").body;
    assert!(told.contains("\"ready\":true") && !told.contains("revocation-invalid"), "{told}");
    fs::remove_file(put).unwrap();
    let is_told = |forum: &Forum, dir: &Path| forum.status(dir)["alarms"].to_string().contains("revocation-");
    let since = Instant::now();
    while is_told(&forum, &hub) {
        assert!(since.elapsed() < DEADLINE, "the file is gone");
    }

    // The same of an anchor that was ended, at its own node.
    concord(words!["operator", "add", "night", "--dir", dir]).ok();
    concord(words!["operator", "remove", "night", "--dir", dir, "--yes"]).ok();
    concord(words!["anchor", "next", "--dir", dir]).ok();
    concord(words!["node", "renew", "--all", "--dir", dir]).ok();
    concord(words!["anchor", "end", "--dir", dir]).ok();
    let since = Instant::now();
    while concord(words!["status", "--profile", dir.join("operator")]).code != Some(0) {
        assert!(since.elapsed() < DEADLINE, "the node shows its certificate under the next anchor");
    }
    forum.await_alarm(&dir, "revocation-past");
    let told = get(&forum.address(&dir, "admin"), "/readyz").body;
    assert!(!told.contains("revocation-invalid"), "{told}");
    fs::remove_file(dir.join("revocation/kaz.crl")).unwrap();
    let since = Instant::now();
    while is_told(&forum, &dir) {
        assert!(since.elapsed() < DEADLINE, "the file is gone");
    }
}

#[test]
fn a_node_with_an_empty_disk_and_new_keys_takes_the_place_of_the_lost_one() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let sent: Vec<String> =
        ["--lane flash", "--lane routine"].map(|lane| kaz.submit(lane, &format!("{lane} --wait delivered")).id).into();
    let taken = irn.submit("to KAZ", "--wait delivered").id;
    assert_eq!(exchange_ids(&kaz.receive(1)), [taken.clone()]);
    irn.await_taken(&taken, "KAZ");
    forum.stop_node("KAZ");
    let (dir, lost) = (forum.node_dir("KAZ"), forum.path().join("lost"));
    fs::rename(&dir, &lost).unwrap();
    // Somebody else has it, and runs it: what it acknowledges nobody reads.
    let old = Process::start(&forum.log("old"), words!["node", "serve", "--dir", lost]);
    old.line_after("admin ");
    let waits = irn.submit("to KAZ while its node is lost", "--wait delivered").id;
    assert_eq!(forum.status(&lost)["hub_connected"], true);

    concord(words!["node", "init", "--dir", dir, "--participant", "KAZ"]).ok();
    let (request, bundle) = (dir.join("join-request.json"), dir.join("bundle.json"));
    let enrol = words!["participant", "enrol", request, "--profile", forum.hub_dir().join("officer"), "--out", bundle];
    concord(enrol.clone()).refused(3, "PARTICIPANT_ALREADY_ENROLLED");
    // A replacement rests on a paper.
    concord([enrol, words!["--replace"]].concat()).refused(2, "USAGE");
    enrol_in_place(&mut forum);

    // What the hub has is here again, and what was signed with the old key stands.
    let kaz = forum.agency("KAZ");
    for id in &sent {
        assert_eq!(kaz.settled(id), ["IRN delivered"], "{id}");
    }
    assert_eq!(exchange_ids(&kaz.receive(2)), [taken.clone(), waits.clone()]);
    irn.await_taken(&waits, "KAZ");
    assert_eq!(exchange_ids(&irn.receive(2)).len(), 2);

    // IRN's officer consented to the old keys: what the new one signs is set aside there until it says otherwise. To it, everything goes.
    let under_the_old = format!("--agreement {WARNINGS}");
    let aside = kaz.submit("before IRN's officer said anything", &under_the_old).id;
    assert_eq!(kaz.settled(&aside), ["IRN set-aside KEY_NOT_PINNED"]);
    let on = irn.submit("to the new node under the old keys", &format!("{under_the_old} --wait delivered")).id;
    assert_eq!(exchange_ids(&kaz.receive(1)), [on.clone()]);
    forum.agree(AGAIN, MEASURE, &["KAZ", "IRN"]);
    let new = kaz.submit("after it", &format!("--agreement {AGAIN} --wait delivered")).id;
    assert_eq!(exchange_ids(&irn.receive(1)), [new.clone()]);
    kaz.await_taken(&new, "IRN");
    let back = irn.submit("to the new node", &format!("--agreement {AGAIN} --wait delivered")).id;
    assert_eq!(exchange_ids(&kaz.receive(1)), [back.clone()]);
    assert_eq!(count_in_journal(&dir, &[taken, waits, on, back.clone()]), (4, 4), "one entry for each");

    // The old node is out: neither its feed nor its mail comes to it, and what it takes goes nowhere.
    let marker = irn.submit("not to the old node", &format!("--agreement {AGAIN} --wait delivered")).id;
    assert_eq!(forum.status(&lost)["hub_connected"], false);
    assert_eq!(count_in_journal(&lost, &[back, marker]), (0, 0));
    assert_eq!(old.terminate().code(), Some(0));

    // Everybody was told, with the paper.
    for dir in [forum.hub_dir(), dir, forum.node_dir("IRN")] {
        let shown = concord(words!["journal", "show", dir]).ok().lines();
        let told = |entry: &serde_json::Value| text_of(entry, "about").contains(REFERENCE);
        assert!(shown.iter().any(told), "{}", dir.display());
        concord(words!["verify", dir]).ok();
    }
}

#[test]
fn a_hub_that_forgot_a_replacement_hears_of_it_from_another_node_and_takes_back_both_epochs() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(WARNINGS, MEASURE, &["KAZ", "IRN"]);
    let kaz = forum.agency("KAZ");
    let mut all = vec![kaz.submit("before the copy", "--wait delivered").id];
    forum.stop_hub();
    let copy = forum.path().join("copy");
    copy_folder(&forum.hub_dir(), &copy);
    forum.start_hub();
    all.push(kaz.submit("after the copy, under the old key", "--wait delivered").id);
    forum.stop_node("KAZ");
    let dir = forum.node_dir("KAZ");
    fs::rename(&dir, forum.path().join("lost")).unwrap();
    concord(words!["node", "init", "--dir", dir, "--participant", "KAZ"]).ok();
    enrol_in_place(&mut forum);
    forum.agree(AGAIN, MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let under = format!("--agreement {AGAIN} --wait delivered");
    all.push(kaz.submit("under the new key", &under).id);

    forum.stop_hub();
    fs::remove_dir_all(forum.hub_dir()).unwrap();
    copy_folder(&copy, &forum.hub_dir());
    forum.start_hub();
    // The new node is a stranger to this hub, until IRN's has told it.
    all.push(kaz.submit("after the loss", &under).id);
    let back = irn.submit("to the new node", &under).id;
    assert_eq!(exchange_ids(&kaz.receive(1)), [back.clone()]);
    assert_eq!(exchange_ids(&irn.receive(4)), all);
    all.iter().for_each(|id| kaz.await_taken(id, "IRN"));
    assert!(irn.receive_rest().is_empty());
    assert_eq!(count_in_journal(&dir, &[back]), (1, 1));
    for dir in [forum.hub_dir(), dir, forum.node_dir("IRN")] {
        concord(words!["verify", dir]).ok();
    }
}
