//! Which agency of a state may send and receive what: given, taken away, ended, while everything runs.

use std::time::{Duration, Instant};

use concord_tests::{Ended, Forum, concord, exchange_ids, text_of, words};
use serde_json::Value;

/// From a grant on, an open stream gets what it gives within so long.
const EFFECT_SECONDS_MAX: u64 = 5;

/// Two agreements; at IRN an agency for everything, and one for cybercrime only.
fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/drugs", "challenges.2", &["KAZ", "IRN"]);
    forum.agree("KAZ/cyber", "challenges.3", &["KAZ", "IRN"]);
    concord(words!["agency", "add", "cert", "--dir", forum.node_dir("IRN"), "--measure", "challenges.3"]).ok();
    forum
}

/// A command about IRN's agencies.
fn agency(forum: &Forum, by: &str, command: &str) -> Ended {
    let mut line: Vec<std::ffi::OsString> = format!("agency {command}").split_whitespace().map(Into::into).collect();
    line.extend(words!["--profile", forum.node_dir("IRN").join(by)]);
    concord(line)
}

fn agreements(profile: &std::path::Path) -> Vec<String> {
    let listed = concord(words!["agreement", "list", "--profile", profile]).ok().lines();
    listed.iter().map(|one| text_of(one, "id")).collect()
}

#[test]
fn an_open_stream_gets_what_is_granted_within_seconds_and_nothing_more_of_what_is_revoked() {
    let mut forum = forum();
    let (kaz, cert) = (forum.agency("KAZ"), forum.agency_named("IRN", "cert"));
    let follows = cert.follow();
    let drugs = |body: &str| kaz.submit(body, "--agreement KAZ/drugs --wait delivered").id;
    let cyber = |body: &str| kaz.submit(body, "--agreement KAZ/cyber --wait delivered").id;
    let next = |from: &concord_tests::Process| text_of(&from.json(), "exchange_id");

    let _not_for_cert = drugs("one");
    let first = cyber("two");
    assert_eq!(next(&follows), first, "an agency was given what it has no right to");

    agency(&forum, "officer", "grant cert --receive --measure challenges.2 --agreement KAZ/drugs").ok();
    let granted = Instant::now();
    let second = drugs("three");
    assert_eq!(next(&follows), second);
    assert!(granted.elapsed() < Duration::from_secs(EFFECT_SECONDS_MAX), "{:?}", granted.elapsed());

    agency(&forum, "operator", "revoke cert --receive --measure challenges.2 --yes").ok();
    let _taken_away = drugs("four");
    let third = cyber("five");
    assert_eq!(next(&follows), third, "an agency was given what was taken from it");
    kaz.await_taken(&third, "IRN");
    drop(follows);

    // What holds, holds after a restart.
    forum.kill_node("IRN");
    forum.start_node("IRN");
    let _taken_away = drugs("six");
    let fourth = cyber("seven");
    assert_eq!(exchange_ids(&cert.receive(1)), [fourth]);
    assert!(cert.receive_rest().is_empty());
    // The agency that had the right to all of it gets all of it.
    assert_eq!(forum.agency("IRN").receive(7).len(), 7);

    // It may send what it may, and that only.
    cert.try_submit("x", "--agreement KAZ/cyber").ok();
    agency(&forum, "operator", "revoke cert --send --measure challenges.3 --yes").ok();
    cert.try_submit("y", "--agreement KAZ/cyber").refused(3, "MEASURE_NOT_ALLOWED");
}

#[test]
fn an_agency_sees_agreements_only_where_it_has_a_right_and_only_its_officer_gives_one() {
    let forum = forum();
    let cert = forum.agency_named("IRN", "cert");
    assert_eq!(agreements(&cert.profile), ["KAZ/cyber"]);
    assert_eq!(agreements(&forum.officer("IRN")).len(), 2);
    let show = |id: &str| concord(words!["agreement", "show", id, "--profile", cert.profile]);
    show("KAZ/cyber").ok();
    // What is not for it is to it as what is not there.
    for (there, nowhere) in [
        (show("KAZ/drugs"), show("KAZ/nowhere")),
        (cert.try_submit("x", "--agreement KAZ/drugs"), cert.try_submit("x", "--agreement KAZ/nowhere")),
    ] {
        assert_eq!(there.message().replace("drugs", "nowhere"), nowhere.message());
        there.refused(3, "AGREEMENT_UNKNOWN");
    }

    let grant = "grant cert --agreement KAZ/drugs";
    for other in ["operator", "agencies/agency", "agencies/cert"] {
        agency(&forum, other, grant).refused(3, "CALLER_NOT_ALLOWED");
    }
    agency(&forum, "agencies/cert", "revoke agency --all --yes").refused(3, "CALLER_NOT_ALLOWED");
    agency(&forum, "agencies/cert", "list").refused(3, "CALLER_NOT_ALLOWED");
    assert_eq!(agency(&forum, "operator", "revoke cert --all").code, Some(2), "nobody is asked without a terminal");
    assert_eq!(agency(&forum, "officer", "grant cert").code, Some(2), "nothing is given by leaving words out");
    agency(&forum, "officer", "grant nobody --all").refused(3, "AGENCY_UNKNOWN");
    agency(&forum, "officer", "grant cert --measure challenges.999").refused(3, "MEASURE_UNKNOWN");
    agency(&forum, "officer", "grant cert --agreement KAZ/nowhere").refused(3, "AGREEMENT_UNKNOWN");
    let rules = |forum: &Forum| -> Value {
        let listed = agency(forum, "operator", "list").ok().lines();
        listed.into_iter().find(|line| line["agency"] == "cert").unwrap()["rules"].clone()
    };
    assert_eq!(rules(&forum).as_array().unwrap().len(), 2, "what was refused left something");

    agency(&forum, "officer", grant).ok();
    assert_eq!(agreements(&cert.profile).len(), 2);
    let all = rules(&forum);
    assert_eq!(all.as_array().unwrap().len(), 4, "{all}");
    assert_eq!((&all[3]["granted"], &all[3]["receive"]), (&true.into(), &true.into()), "{all}");
    assert_eq!((&all[3]["agreements"], &all[3]["measures"]), (&serde_json::json!(["KAZ/drugs"]), &Value::Null));
    // What it may is its officer's word, and no certificate's: the journal tells who has what.
    let journal = concord(words!["journal", "show", forum.node_dir("IRN")]).ok().text();
    assert!(journal.contains("agency-granted") && journal.contains("KAZ/drugs"), "{journal}");
}

#[test]
fn an_agency_that_is_ended_is_out_at_once_and_for_good_and_what_it_leaves_waits_for_another() {
    let mut forum = forum();
    let (kaz, all, cert) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency_named("IRN", "cert"));
    let (mut ends, goes_on) = (all.follow(), cert.follow());
    let first = kaz.submit("one", "--agreement KAZ/drugs --wait delivered");
    assert_eq!(text_of(&ends.json(), "exchange_id"), first.id);
    kaz.await_taken(&first.id, "IRN");

    agency(&forum, "operator", "revoke agency --all --yes").ok();
    while ends.ended().is_none() {
        assert_eq!(ends.line(), None, "an agency that was ended was given something");
    }
    assert_eq!(ends.ended().unwrap().code(), Some(3));
    let left = kaz.submit("two", "--agreement KAZ/drugs --wait delivered");
    let for_cert = kaz.submit("three", "--agreement KAZ/cyber --wait delivered");
    assert_eq!(text_of(&goes_on.json(), "exchange_id"), for_cert.id);
    kaz.await_taken(&for_cert.id, "IRN");
    drop(goes_on);

    let add = words!["agency", "add", "agency", "--dir", forum.node_dir("IRN")];
    for restart in [false, true] {
        if restart {
            forum.kill_node("IRN");
            forum.start_node("IRN");
        }
        // Its certificate is not let in any more.
        let out = concord(words!["receive", "--profile", all.profile]);
        assert_eq!(out.code, Some(3), "{out}");
        assert!(["REFUSED_BY_PEER", "AGENCY_UNKNOWN"].contains(&out.reason().unwrap().as_str()), "{out}");
        concord(&add).refused(3, "AGENCY_EXISTS");
        let listed = agency(&forum, "operator", "list").ok().lines();
        let ended: Vec<String> =
            listed.iter().filter(|line| line["ended"] == true).map(|line| text_of(line, "agency")).collect();
        assert_eq!(ended, ["agency"]);
        // Nobody may have what came for it: it is told, and waits.
        let status = forum.status(&forum.node_dir("IRN"));
        let routine = status["mailboxes"].as_array().unwrap().iter().find(|one| one["lane"] == "routine").unwrap();
        assert_eq!(routine["uncollected"], 1, "{status}");
    }
    let track = kaz.track(&left.id);
    assert_eq!(text_of(&track, "state"), "delivered", "taken by nobody: {track}");

    agency(&forum, "officer", "grant cert --receive --measure challenges.2").ok();
    assert_eq!(exchange_ids(&cert.receive(1)), [left.id.clone()]);
    kaz.await_taken(&left.id, "IRN");
    assert!(cert.receive_rest().is_empty(), "it came twice");
}

#[test]
fn what_was_taken_from_agencies_after_a_backup_is_not_theirs_again_by_its_restore() {
    let mut forum = forum();
    let (dir, kaz) = (forum.node_dir("IRN"), forum.agency("KAZ"));
    let (main, cert) = (forum.agency("IRN"), forum.agency_named("IRN", "cert"));
    let file = forum.path().join("irn.backup");
    concord(words!["node", "backup", "--profile", dir.join("officer"), "--out", file]).ok();
    agency(&forum, "operator", "revoke cert --all --yes").ok();
    agency(&forum, "operator", "revoke agency --receive --measure challenges.2 --yes").ok();
    forum.kill_node("IRN");
    concord(words!["node", "restore", file, "--dir", dir]).ok();
    forum.start_node("IRN");

    // Both are back with their rights of then, and have nothing of them; what comes waits.
    let note = forum.await_alarm(&dir, "agencies-unconfirmed");
    assert!(
        note.contains("agency, cert may send and receive nothing") && note.contains("concord agency confirm"),
        "{note}"
    );
    let drugs = kaz.submit("one", "--agreement KAZ/drugs --wait delivered").id;
    let cyber = kaz.submit("two", "--agreement KAZ/cyber --wait delivered").id;
    for one in [&main, &cert] {
        concord(words!["receive", "--profile", one.profile]).refused(4, "AGENCY_UNCONFIRMED");
        one.try_submit("out", "--agreement KAZ/cyber").refused(4, "AGENCY_UNCONFIRMED");
    }
    agency(&forum, "operator", "confirm --all").refused(3, "CALLER_NOT_ALLOWED");
    agency(&forum, "officer", "grant agency --measure challenges.3").refused(4, "AGENCY_UNCONFIRMED");
    // The officer says again what was taken away, then confirms the rest.
    agency(&forum, "officer", "revoke cert --all --yes").ok();
    agency(&forum, "officer", "revoke agency --receive --measure challenges.2 --yes").ok();
    let waiting = |forum: &Forum| {
        let listed = agency(forum, "officer", "list").ok().lines();
        listed.iter().filter(|one| one["unconfirmed"] == true).map(|one| text_of(one, "agency")).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&forum), ["agency"]);
    agency(&forum, "officer", "confirm --all").ok();
    assert_eq!(exchange_ids(&main.receive(1)), [cyber]);
    assert!(main.receive_rest().is_empty() && waiting(&forum).is_empty());

    // Who is added from now on waits for the officer's word, too, and is given nothing of before: what nobody may have stays.
    let added = concord(words!["agency", "add", "police", "--dir", dir]).ok().json();
    assert_eq!(added["unconfirmed"], true);
    agency(&forum, "officer", "confirm police").ok();
    let police = forum.agency_named("IRN", "police");
    let new = kaz.submit("three", "--agreement KAZ/drugs --wait delivered").id;
    assert_eq!(exchange_ids(&police.receive(1)), [new.clone()]);
    assert!(police.receive_rest().is_empty());
    agency(&forum, "officer", "grant agency --receive --measure challenges.2").ok();
    assert_eq!(exchange_ids(&main.receive_rest()), [new, drugs], "what nobody had is the officer's to give");
    let alarms = forum.status(&dir)["alarms"].to_string();
    assert!(!alarms.contains("agencies-unconfirmed"), "{alarms}");
}
