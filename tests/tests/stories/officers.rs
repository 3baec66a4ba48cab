//! What the secretariat's officers decide: an enrolment takes several of them, whoever is asked may say no, and who signed is known to
//! all; what the forum decides about itself is recorded by one, with its paper.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use concord_tests::{DEADLINE, Ended, Forum, concord, exchange_ids, on_a_terminal, text_of, words};
use serde_json::Value;

use crate::healing_hub::copy_folder;
use crate::healing_node::await_recovered;

const MEASURE: &str = "environmental.5";
/// Before somebody is asked again.
const AGAIN: Duration = Duration::from_millis(100);
const NEW_MEASURE: &str = "challenges.6";

/// A hub that asks for two officers.
fn of_two() -> Forum {
    Forum::seeded(words!["--quorum", "2"])
}

fn first(forum: &Forum) -> PathBuf {
    forum.hub_dir().join("officer")
}

fn second(forum: &Forum) -> PathBuf {
    forum.hub_dir().join("officers/officer-2")
}

fn make_node(forum: &Forum, code: &str) -> PathBuf {
    let dir = forum.node_dir(code);
    concord(words!["node", "init", "--dir", dir, "--participant", code]).ok();
    dir.join("join-request.json")
}

/// One officer enrols, and the id by which another one approves comes back.
fn enrol(forum: &Forum, request: &Path) -> String {
    let said = concord(words!["participant", "enrol", request, "--yes", "--profile", first(forum)]).ok();
    assert!(said.stderr.contains("waits for 1 more signature"), "{said}");
    let said = said.json();
    assert_eq!((said["state"].as_str(), said["signatures_missing"].as_u64()), (Some("waits"), Some(1)));
    text_of(&said, "approval")
}

fn approve(id: &str, profile: &Path) -> Ended {
    concord(words!["approval", "approve", id, "--yes", "--profile", profile])
}

fn bundle(forum: &Forum, code: &str) -> (Ended, PathBuf) {
    let out = forum.path().join(format!("{code}.bundle.json"));
    (concord(words!["participant", "bundle", code, "--out", out, "--profile", first(forum)]), out)
}

/// Enrolled by two, joined, and running.
fn join(forum: &mut Forum, code: &str) {
    let request = make_node(forum, code);
    let id = enrol(forum, &request);
    let approved = approve(code, &second(forum)).ok().json();
    assert_eq!((text_of(&approved, "id"), approved["state"].as_str()), (id, Some("in-effect")));
    start(forum, code);
}

fn start(forum: &mut Forum, code: &str) {
    let (written, bundle) = bundle(forum, code);
    written.ok();
    let dir = forum.node_dir(code);
    concord(words!["node", "join", bundle, "--yes", "--dir", dir]).ok();
    concord(words!["agency", "add", "agency", "--dir", dir]).ok();
    forum.start_node(code);
}

/// A participant, as a profile's server knows it, once it is as it should be.
fn await_shown(profile: &Path, code: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let shown = concord(words!["participant", "show", code, "--profile", profile]);
        if shown.code == Some(0) && is_so(&shown.json()) {
            return shown.json();
        }
        assert!(Instant::now() < end, "{shown}");
        std::thread::sleep(AGAIN);
    }
}

fn is_signed_by_both(shown: &Value) -> bool {
    shown["approved_by"] == serde_json::json!(["officer", "officer-2"])
}

#[test]
fn one_signature_is_not_enough_and_the_second_lets_the_node_in() {
    let mut forum = of_two();
    let request = make_node(&forum, "KAZ");
    let id = enrol(&forum, &request);
    // Nothing of it counts: there is no bundle, and nobody has it in the registry.
    bundle(&forum, "KAZ").0.refused(3, "PARTICIPANT_NOT_ENROLLED");
    let shown = || concord(words!["participant", "show", "KAZ", "--profile", first(&forum)]).ok().json();
    assert_eq!(shown()["node"], Value::Null);
    // Neither the same officer again, nor the same request.
    approve(&id, &first(&forum)).refused(3, "APPROVAL_REPEATED");
    concord(words!["participant", "enrol", request, "--profile", first(&forum)]).refused(3, "APPROVAL_EXISTS");
    assert_eq!(shown()["node"], Value::Null);

    forum.kill_hub();
    forum.start_hub();
    forum.await_alarm(&forum.hub_dir(), "approvals-waiting");
    let waiting = concord(words!["approval", "list", "--profile", second(&forum)]).ok().json();
    assert_eq!((text_of(&waiting, "id"), text_of(&waiting, "kind")), (id.clone(), "enrol".to_owned()));
    assert_eq!((waiting["missing"].as_u64(), waiting["signed_by"].clone()), (Some(1), serde_json::json!(["officer"])));
    let own: Value = serde_json::from_slice(&fs::read(&request).unwrap()).unwrap();
    assert_eq!(text_of(&waiting, "fingerprint"), text_of(&own, "fingerprint"));
    // The second officer compares, too.
    let other = text_of(&own, "fingerprint").replace(['0', '1', '2'], "3");
    let wrong = words!["approval", "approve", id[..8], "--fingerprint", other, "--profile", second(&forum)];
    concord(wrong).refused(3, "FINGERPRINT_MISMATCH");
    let fingerprint = text_of(&own, "fingerprint");
    let right = words!["approval", "approve", id[..8], "--fingerprint", fingerprint, "--profile", second(&forum)];
    assert_eq!(concord(right).ok().json()["state"], "in-effect");
    assert!(concord(words!["approval", "list", "--profile", second(&forum)]).ok().lines().is_empty());
    start(&mut forum, "KAZ");
    join(&mut forum, "IRN");
    let since = Instant::now();
    while forum.status(&forum.hub_dir())["notes"].to_string().contains("approvals-waiting") {
        assert!(since.elapsed() < DEADLINE, "it is still said that something waits");
        std::thread::sleep(AGAIN);
    }

    // Who signed is known to all, and by a node that verified each signature.
    await_shown(&forum.officer("IRN"), "KAZ", is_signed_by_both);
    await_shown(&forum.officer("KAZ"), "IRN", is_signed_by_both);
    forum.agree("KAZ/warnings", MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let sent = kaz.submit("to a state that two let in", "--wait delivered").id;
    assert_eq!(exchange_ids(&irn.receive(1)), [sent]);
    let audit = concord(words!["audit", "--profile", first(&forum)]).ok().text();
    assert!(audit.contains("approve") && audit.contains("enrol KAZ node main"), "{audit}");
}

#[test]
fn one_rejection_ends_an_enrolment_and_a_hold_is_lifted_by_two() {
    let mut forum = of_two();
    let request = make_node(&forum, "TUR");
    let id = enrol(&forum, &request);
    concord(words!["approval", "reject", id, "--profile", second(&forum)]).refused(2, "USAGE");
    concord(words!["approval", "reject", id, "--yes", "--profile", second(&forum)]).ok();
    assert!(concord(words!["approval", "list", "--profile", first(&forum)]).ok().lines().is_empty());
    approve(&id, &second(&forum)).refused(3, "APPROVAL_UNKNOWN");
    bundle(&forum, "TUR").0.refused(3, "PARTICIPANT_NOT_ENROLLED");

    join(&mut forum, "KAZ");
    let held = |shown: &Value| shown["holds"].as_array().is_some_and(|holds| !holds.is_empty());
    concord(words!["participant", "hold", "KAZ", "--reason", "it floods", "--profile", first(&forum)]).ok();
    await_shown(&forum.officer("KAZ"), "KAZ", held);
    let release = concord(words!["participant", "release", "KAZ", "--profile", first(&forum)]).ok();
    assert_eq!(release.json()["state"], "waits");
    let waiting = concord(words!["approval", "list", "--profile", second(&forum)]).ok().json();
    assert_eq!((text_of(&waiting, "kind"), text_of(&waiting, "participant")), ("release".into(), "KAZ".into()));
    assert!(held(&await_shown(&first(&forum), "KAZ", |_| true)));
    // By the code of its participant something else may be meant, and so by a fingerprint.
    approve("KAZ", &second(&forum)).refused(2, "USAGE");
    let id = text_of(&waiting, "id");
    let none = "00010203 04050607 08090a0b 0c0d0e0f 00010203 04050607 08090a0b 0c0d0e0f";
    concord(words!["approval", "approve", id, "--fingerprint", none, "--profile", second(&forum)]).refused(2, "USAGE");
    assert!(held(&await_shown(&first(&forum), "KAZ", |_| true)));
    let approved = approve(&id, &second(&forum)).ok();
    assert!(approved.stderr.contains("release KAZ") && approved.stderr.contains("said by officer"), "{approved}");
    await_shown(&forum.officer("KAZ"), "KAZ", |shown| !held(shown));
}

#[test]
fn an_officer_who_is_lost_is_replaced_and_what_it_said_is_not_completed() {
    let mut forum = of_two();
    let hub = forum.hub_dir();
    let request = make_node(&forum, "KAZ");
    let id = enrol(&forum, &request);
    let stolen = hub.join("stolen");
    copy_folder(&first(&forum), &stolen);
    concord(words!["officer", "remove", "officer", "--dir", hub, "--yes"]).ok();
    let since = Instant::now();
    while concord(words!["approval", "list", "--profile", stolen]).code == Some(0) {
        assert!(since.elapsed() < DEADLINE, "the officer is let in still");
        std::thread::sleep(AGAIN);
    }
    let check = || concord(words!["hub", "check", "--dir", hub]).ok().lines();
    let says = |name: &str| check().into_iter().find(|line| line["check"] == name).unwrap();
    assert_eq!((&says("officers")["result"], &says("officers")["values"]["officers"]), (&"warning".into(), &1.into()));
    concord(words!["officer", "add", "marat", "--dir", hub]).ok();
    assert_eq!(says("officers")["result"], "ok");
    let third = hub.join("officers/marat");

    approve(&id, &second(&forum)).refused(3, "APPROVAL_SIGNER_REVOKED");
    assert_eq!(says("approvals")["values"]["waiting"], 1);
    concord(words!["approval", "reject", id, "--yes", "--profile", third]).ok();
    assert_eq!(says("approvals")["result"], "ok");
    concord(words!["participant", "enrol", request, "--yes", "--profile", third]).ok();
    approve("KAZ", &second(&forum)).ok();
    let out = forum.path().join("KAZ.bundle.json");
    concord(words!["participant", "bundle", "KAZ", "--out", out, "--profile", third]).ok();
    let dir = forum.node_dir("KAZ");
    concord(words!["node", "join", out, "--yes", "--dir", dir]).ok();
    forum.start_node("KAZ");
    await_shown(&forum.officer("KAZ"), "KAZ", |shown| {
        shown["approved_by"] == serde_json::json!(["marat", "officer-2"])
    });
}

#[test]
fn keys_are_replaced_by_two_and_the_old_ones_count_until_then() {
    let mut forum = of_two();
    join(&mut forum, "KAZ");
    join(&mut forum, "IRN");
    forum.agree("KAZ/warnings", MEASURE, &["KAZ", "IRN"]);
    let irn = forum.agency("IRN");
    let before = irn.submit("to the old node", "--wait delivered").id;
    let shown = concord(words!["participant", "show", "KAZ", "--profile", first(&forum)]).ok().json();
    forum.stop_node("KAZ");
    let dir = forum.node_dir("KAZ");
    fs::rename(&dir, forum.path().join("lost")).unwrap();
    let request = make_node(&forum, "KAZ");
    let replace = words!["participant", "enrol", request, "--replace", "--reference", "note 17", "--yes"];
    let said = concord([replace, words!["--profile", first(&forum)]].concat()).ok().json();
    assert_eq!(said["state"], "waits");
    let now = || concord(words!["participant", "show", "KAZ", "--profile", first(&forum)]).ok().json();
    assert_eq!(now()["fingerprint"], shown["fingerprint"]);
    let waiting = concord(words!["approval", "list", "--profile", second(&forum)]).ok().json();
    assert_eq!((text_of(&waiting, "kind"), text_of(&waiting, "reference")), ("replace".into(), "note 17".into()));
    approve(&text_of(&said, "approval"), &second(&forum)).ok();
    assert_eq!(now()["fingerprint"], waiting["fingerprint"]);

    start(&mut forum, "KAZ");
    await_recovered(&forum, &dir);
    forum.confirm_agencies(&dir);
    let after = irn.submit("to the new node", "--wait delivered").id;
    assert_eq!(exchange_ids(&forum.agency("KAZ").receive(2)), [before, after]);
    await_shown(&forum.officer("IRN"), "KAZ", |shown| {
        is_signed_by_both(shown) && shown["fingerprint"] == waiting["fingerprint"]
    });
}

#[test]
fn on_a_terminal_the_fingerprint_is_asked_for_before_anything_is_done() {
    let forum = Forum::empty();
    let request = make_node(&forum, "KAZ");
    let own: Value = serde_json::from_slice(&fs::read(&request).unwrap()).unwrap();
    let (fingerprint, bundle) = (text_of(&own, "fingerprint"), forum.path().join("kaz.bundle.json"));
    let enrol = || words!["participant", "enrol", request, "--profile", first(&forum), "--out", bundle];
    // Two groups of it are too few, and what is asked for is not shown before it is typed.
    for typed in ["", "yes", "00000000 00000000 00000000 00000000", &fingerprint[..17]] {
        let (code, shown) = on_a_terminal(typed, enrol());
        assert_eq!(code, Some(3), "{shown}");
        assert!(shown.contains("FINGERPRINT_MISMATCH"), "{shown}");
        // A terminal shows what is typed.
        let told = shown.replacen(typed, "", 1);
        assert!(!told.contains(&fingerprint[..8]), "it could be typed from the screen: {shown}");
        assert!(!bundle.exists(), "nothing was done");
    }
    let (code, shown) = on_a_terminal(&fingerprint[..35], enrol());
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(&fingerprint), "{shown}");
    let said: Value = serde_json::from_slice(&fs::read(&bundle).unwrap()).unwrap();
    let join = || words!["node", "join", bundle, "--dir", forum.node_dir("KAZ")];
    let (code, shown) = on_a_terminal("no", join());
    assert_eq!(code, Some(3), "{shown}");
    let (code, shown) = on_a_terminal(&text_of(&said, "fingerprint"), join());
    assert_eq!(code, Some(0), "{shown}");
}

#[test]
fn on_a_terminal_the_second_officer_compares_before_it_signs_and_says_yes_to_what_has_nothing_to_compare() {
    let mut forum = of_two();
    let request = make_node(&forum, "KAZ");
    let id = enrol(&forum, &request);
    let own: Value = serde_json::from_slice(&fs::read(&request).unwrap()).unwrap();
    let fingerprint = text_of(&own, "fingerprint");
    let approve_kaz = || words!["approval", "approve", "KAZ", "--profile", second(&forum)];
    for typed in ["", "yes", &fingerprint[..17]] {
        let (code, shown) = on_a_terminal(typed, approve_kaz());
        assert_eq!(code, Some(3), "{shown}");
        assert!(shown.contains("FINGERPRINT_MISMATCH"), "{shown}");
        // What is asked for does not stand on the screen before it is typed.
        assert!(!shown.replacen(typed, "", 1).contains(&fingerprint[..8]), "{shown}");
    }
    let waiting = concord(words!["approval", "list", "--profile", second(&forum)]).ok().json();
    assert_eq!((text_of(&waiting, "id"), waiting["missing"].as_u64()), (id, Some(1)), "nothing was signed");
    let (code, shown) = on_a_terminal(&fingerprint, approve_kaz());
    assert_eq!(code, Some(0), "{shown}");
    start(&mut forum, "KAZ");

    concord(words!["participant", "hold", "KAZ", "--reason", "it floods", "--profile", first(&forum)]).ok();
    let held = |shown: &Value| shown["holds"].as_array().is_some_and(|holds| !holds.is_empty());
    await_shown(&first(&forum), "KAZ", held);
    concord(words!["participant", "release", "KAZ", "--profile", first(&forum)]).ok();
    let waiting = concord(words!["approval", "list", "--profile", second(&forum)]).ok().json();
    let release = || words!["approval", "approve", text_of(&waiting, "id"), "--profile", second(&forum)];
    let (code, shown) = on_a_terminal("no", release());
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("nothing was done"), "{shown}");
    assert!(held(&await_shown(&first(&forum), "KAZ", |_| true)));
    let (code, shown) = on_a_terminal(&text_of(&waiting, "id")[..8], release());
    assert_eq!(code, Some(0), "{shown}");
    await_shown(&first(&forum), "KAZ", |shown| !held(shown));
}

#[test]
fn a_bundle_whose_place_nobody_gave_goes_into_the_present_folder_and_replaces_nothing() {
    let forum = Forum::empty();
    forum.enrol("KAZ");
    let here = forum.path().join("here");
    fs::create_dir(&here).unwrap();
    let bundle = || {
        let mut command = std::process::Command::new(concord_tests::executable());
        command.current_dir(&here).args(["--json", "--with-parent", "participant", "bundle", "KAZ", "--profile"]);
        command.arg(first(&forum));
        concord_tests::run(command)
    };
    assert_eq!(text_of(&bundle().ok().json(), "bundle"), "kaz.bundle.json");
    let written = here.join("kaz.bundle.json");
    let text = fs::read(&written).unwrap();
    fs::write(&written, "somebody's own").unwrap();
    let again = bundle();
    again.refused(1, "FILE_EXISTS");
    assert!(again.stderr.contains("--out"), "{again}");
    assert_eq!(fs::read(&written).unwrap(), b"somebody's own");
    fs::remove_file(&written).unwrap();
    bundle().ok();
    assert_eq!(fs::read(&written).unwrap(), text);
}

#[test]
fn a_hub_that_was_put_back_has_who_was_approved_since() {
    let mut forum = of_two();
    join(&mut forum, "KAZ");
    let request = make_node(&forum, "IRN");
    let id = enrol(&forum, &request);
    forum.stop_hub();
    copy_folder(&forum.hub_dir(), &forum.path().join("copy"));
    forum.start_hub();
    // What the copy does not know: the second signature for IRN, and that there is a TKM at all.
    approve(&id, &second(&forum)).ok();
    start(&mut forum, "IRN");
    let add = words!["participant", "add", "TKM", "--kind", "member", "--name", "en=T", "--reference", "decision 4"];
    concord([add, words!["--profile", first(&forum)]].concat()).ok();
    join(&mut forum, "TKM");
    forum.agree("KAZ/warnings", MEASURE, &["KAZ", "IRN", "TKM"]);
    for code in ["IRN", "TKM"] {
        await_shown(&forum.officer("KAZ"), code, is_signed_by_both);
    }

    forum.stop_hub();
    fs::remove_dir_all(forum.hub_dir()).unwrap();
    fs::rename(forum.path().join("copy"), forum.hub_dir()).unwrap();
    forum.start_hub();
    for code in ["IRN", "TKM"] {
        await_shown(&first(&forum), code, is_signed_by_both);
    }
    assert!(concord(words!["approval", "list", "--profile", second(&forum)]).ok().lines().is_empty());
    let sent = forum.agency("TKM").submit("after it was put back", "--wait delivered").id;
    for code in ["KAZ", "IRN"] {
        assert_eq!(exchange_ids(&forum.agency(code).receive(1)), [sent.clone()]);
    }
}

#[test]
fn what_an_officer_signed_who_was_lost_since_does_not_come_back_and_with_another_one_all_of_it_does() {
    let mut forum = of_two();
    let hub = forum.hub_dir();
    concord(words!["officer", "add", "marat", "--dir", hub]).ok();
    join(&mut forum, "KAZ");
    forum.stop_hub();
    copy_folder(&hub, &forum.path().join("copy"));
    forum.start_hub();
    join(&mut forum, "IRN");
    forum.agree("KAZ/warnings", MEASURE, &["KAZ", "IRN"]);
    forum.stop_node("IRN");

    forum.stop_hub();
    fs::remove_dir_all(&hub).unwrap();
    fs::rename(forum.path().join("copy"), &hub).unwrap();
    concord(words!["officer", "remove", "officer-2", "--dir", hub, "--yes"]).ok();
    forum.start_hub();
    // KAZ's node brings back an enrolment that one counts for, and what IRN's officers said, for whom nobody answers yet.
    let waiting = || concord(words!["approval", "list", "--profile", first(&forum)]).ok().lines();
    let since = Instant::now();
    while waiting().is_empty() {
        assert!(since.elapsed() < DEADLINE, "nothing came back");
        std::thread::sleep(AGAIN);
    }
    let shown = concord(words!["participant", "show", "IRN", "--profile", first(&forum)]).ok().json();
    assert_eq!(shown["node"], Value::Null);
    approve("IRN", &hub.join("officers/marat")).ok();
    let since = Instant::now();
    let show = || concord(words!["agreement", "show", "KAZ/warnings", "--profile", first(&forum)]);
    while !show().text().contains("in-force") {
        assert!(since.elapsed() < DEADLINE, "{}", show());
        std::thread::sleep(AGAIN);
    }
    forum.start_node("IRN");
    let sent = forum.agency("KAZ").submit("after all of it came back", "--wait delivered").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
}

#[test]
fn a_join_request_or_a_bundle_that_somebody_swapped_is_found_out_before_anything_is_done() {
    let forum = Forum::empty();
    let request = make_node(&forum, "KAZ");
    let own: Value = serde_json::from_slice(&fs::read(&request).unwrap()).unwrap();
    let fingerprint = text_of(&own, "fingerprint");
    let swapped = forum.path().join("swapped");
    concord(words!["node", "init", "--dir", swapped, "--participant", "KAZ"]).ok();
    let swapped = swapped.join("join-request.json");
    let officer = first(&forum);
    let bundle = forum.path().join("kaz.bundle.json");
    let enrol = |request: &Path, said: &str| {
        concord(words!["participant", "enrol", request, "--fingerprint", said, "--profile", officer, "--out", bundle])
    };
    enrol(&swapped, &fingerprint).refused(3, "FINGERPRINT_MISMATCH");
    assert!(!bundle.exists(), "nothing was done");
    enrol(&request, "not a fingerprint").refused(2, "USAGE");
    let typed = fingerprint.replace(' ', "").to_uppercase();
    let enrolled = enrol(&request, &typed).ok().json();
    // Off a terminal nobody is asked, and it says so.
    let quiet = concord(words!["participant", "enrol", request, "--profile", officer, "--out", bundle]).ok();
    assert!(quiet.stderr.contains("was not compared"), "{quiet}");

    // Another hub made a bundle for the same node.
    let other = Forum::empty();
    let false_bundle = other.path().join("kaz.bundle.json");
    let by_other = words!["participant", "enrol", request, "--yes", "--profile", first(&other), "--out", false_bundle];
    concord(by_other).ok();
    let said = text_of(&enrolled, "bundle_fingerprint");
    let dir = forum.node_dir("KAZ");
    let join = |bundle: &Path| concord(words!["node", "join", bundle, "--fingerprint", said, "--dir", dir]);
    join(&false_bundle).refused(3, "FINGERPRINT_MISMATCH");
    // Had it been installed, the true one would be refused now.
    assert_eq!(text_of(&join(&bundle).ok().json(), "fingerprint"), said);
}

#[test]
fn the_registry_and_the_catalogue_grow_by_command_while_nodes_are_connected() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    let officer = first(&forum);
    let say = |line: &str, reference: &str| {
        let mut words: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
        words.extend(words!["--reference", reference, "--profile", officer]);
        concord(words)
    };
    let add = "participant add TKM --kind observer --name en=Turkmenistan --name ru=Туркменистан";
    say(add, "decision 4 of 2026").ok();
    say(add, "decision 5 of 2026").refused(3, "PARTICIPANT_EXISTS");
    say(&format!("measure add {NEW_MEASURE} --slug water --title Rivers"), "decision 6 of 2026").ok();
    say(&format!("measure add {NEW_MEASURE} --slug else --title Else"), "decision 7 of 2026")
        .refused(3, "MEASURE_EXISTS");

    // A state that nobody had heard of joins, and knows all that was told before.
    forum.join("TKM");
    forum.start_node("TKM");
    let at_its_own = forum.officer("TKM");
    await_shown(&at_its_own, "KAZ", |shown| shown["node"] == "main");
    let shown = await_shown(&forum.officer("KAZ"), "TKM", |shown| shown["node"] == "main");
    assert_eq!(
        (text_of(&shown, "kind"), text_of(&shown["names"], "ru")),
        ("observer-state".into(), "Туркменистан".into())
    );
    assert_eq!(text_of(&shown["decisions"][0], "reference"), "decision 4 of 2026");

    forum.agree("TKM/rivers", NEW_MEASURE, &["TKM", "KAZ", "IRN"]);
    let sent = forum.agency("TKM").submit("of a measure that is new", "--wait delivered").id;
    for code in ["KAZ", "IRN"] {
        assert_eq!(exchange_ids(&forum.agency(code).receive(1)), [sent.clone()]);
    }

    say("participant rename TKM --name en=Turkmenia", "note verbale 1/2027").ok();
    say("participant set-kind TKM member", "decision 1 of 2027").ok();
    let is_so = |shown: &Value| shown["kind"] == "member" && shown["names"]["en"] == "Turkmenia";
    let shown = await_shown(&forum.officer("IRN"), "TKM", is_so);
    assert_eq!(shown["names"]["ru"], "Туркменистан", "what was not named stays");
    let renamed = &shown["decisions"][1];
    assert_eq!((renamed["before"]["en"].as_str(), renamed["by"].as_str()), (Some("Turkmenistan"), Some("officer")));
    let measures = concord(words!["measure", "list", "--profile", at_its_own]).ok().lines();
    let added = measures.iter().find(|measure| measure["measure"] == NEW_MEASURE).unwrap();
    assert_eq!(added["added"]["reference"], "decision 6 of 2026");
    assert!(measures.iter().filter(|measure| measure["added"] == Value::Null).count() > 20);
    // It is recorded like any word of an officer: by nobody else.
    let by_a_state = words!["participant", "add", "XYZ", "--kind", "member", "--name", "en=X", "--reference", "none"];
    let ended = concord([by_a_state, words!["--profile", forum.officer("KAZ")]].concat());
    ended.refused(3, "CALLER_NOT_ALLOWED");
    forum.stop_node("TKM");
    forum.stop_hub();
    for dir in [forum.hub_dir(), forum.node_dir("TKM")] {
        concord(words!["verify", dir]).ok();
    }
}

#[test]
fn officers_of_a_new_hub_have_the_names_that_were_given_and_three_must_sign() {
    let officers = words!["--quorum", "3", "--officer", "aigerim", "--officer", "bolat", "--officer", "chen"];
    let mut forum = Forum::seeded(officers);
    let request = make_node(&forum, "KAZ");
    let of = |name: &str| forum.hub_dir().join("officers").join(name);
    let said = concord(words!["participant", "enrol", request, "--yes", "--profile", of("aigerim")]).ok().json();
    assert_eq!(said["signatures_missing"], 2);
    let second = approve("KAZ", &of("chen")).ok().json();
    assert_eq!((second["state"].as_str(), second["signatures_missing"].as_u64()), (Some("waits"), Some(1)));
    approve("KAZ", &of("chen")).refused(3, "APPROVAL_REPEATED");
    let out = forum.path().join("KAZ.bundle.json");
    let bundle = || concord(words!["participant", "bundle", "KAZ", "--out", out, "--profile", of("aigerim")]);
    bundle().refused(3, "PARTICIPANT_NOT_ENROLLED");
    // Whoever said it may take it back as well as others may, and it is said anew.
    concord(words!["approval", "reject", "KAZ", "--yes", "--profile", of("aigerim")]).ok();
    concord(words!["participant", "enrol", request, "--yes", "--profile", of("bolat")]).ok();
    approve("KAZ", &of("aigerim")).ok();
    assert_eq!(approve("KAZ", &of("chen")).ok().json()["state"], "in-effect");
    bundle().ok();
    let shown = concord(words!["participant", "show", "KAZ", "--profile", of("chen")]).ok().json();
    assert_eq!(shown["approved_by"], serde_json::json!(["bolat", "aigerim", "chen"]));
    forum.stop_hub();
    // Two who are named are not enough for three who must sign, and it is said at once.
    let dir = forum.path().join("other");
    let few = concord(words!["hub", "init", "--dir", dir, "--quorum", "3", "--officer", "aigerim,bolat"]).ok();
    assert!(few.stderr.contains("officer add NAME"), "{few}");
    let check = concord(words!["hub", "check", "--dir", dir]).ok().lines();
    assert!(check.iter().any(|line| line["check"] == "officers" && line["result"] == "warning"), "{check:?}");
}

#[test]
fn a_profile_works_where_its_person_takes_it_and_where_it_cannot_the_line_to_write_is_said() {
    let listen = format!("127.0.0.1:{}", concord_tests::port_of_its_own());
    let forum = Forum::seeded(words!["--listen", listen]);
    let hub = forum.hub_dir();
    concord(words!["officer", "add", "second", "--dir", hub]).ok();
    for (folder, home) in [("officer", "home-1"), ("officers/second", "home-2"), ("operator", "home-3")] {
        let home = forum.path().join(home);
        fs::rename(hub.join(folder), &home).unwrap();
        concord(words!["status", "--profile", home]).ok();
    }
    // By the name that its certificate has, for whom it is made later too.
    let node = forum.path().join("node-of-tur");
    let init = words!["node", "init", "--dir", node, "--participant", "TUR", "--dns", "node.example.tr"];
    concord([init, words!["--listen", "0.0.0.0:7444"]].concat()).ok();
    concord(words!["operator", "add", "night", "--dir", node]).ok();
    concord(words!["agency", "add", "narcotics", "--dir", node]).ok();
    for folder in ["officer", "operators/night", "agencies/narcotics"] {
        let settings = fs::read_to_string(node.join(folder).join("profile.toml")).unwrap();
        assert!(settings.contains("address = \"node.example.tr:7444\""), "{folder}: {settings}");
    }
    // A port that the system chooses is known only in the folder.
    let (node, home) = (forum.path().join("node-of-uzb"), forum.path().join("home-4"));
    concord(words!["node", "init", "--dir", node, "--participant", "UZB"]).ok();
    let never = concord(words!["status", "--profile", node.join("officer")]);
    never.refused(4, "ADDRESS_UNKNOWN");
    assert!(never.message().contains("has not been started yet"), "{never}");
    fs::rename(node.join("officer"), &home).unwrap();
    let away = concord(words!["status", "--profile", home]);
    away.refused(4, "ADDRESS_UNKNOWN");
    assert!(away.message().contains("not in its server's folder any more"), "{away}");
    let line = format!(
        "`address = \"HOST:PORT\"`, where the server is reached from here, into {}",
        home.join("profile.toml").display()
    );
    assert!(away.help().contains(&line), "{away}");
}
