//! `concord why`: where an exchange is and what it waits for, to those who may have it tracked or explained, and to nobody else.

use std::collections::BTreeMap;
use std::time::Instant;

use concord_tests::{DEADLINE, Ended, Forum, concord, text_of, words};
use serde_json::Value;

fn why(profile: &std::path::Path, id: &str) -> Ended {
    concord(words!["why", id, "--profile", profile])
}

/// What is said of a participant, or of the whole.
fn of(said: &Value, code: Option<&str>) -> Value {
    let all = said["whereabouts"].as_array().unwrap();
    let one = all.iter().find(|one| one["participant"].as_str() == code);
    one.unwrap_or_else(|| panic!("nothing of {code:?}: {said}")).clone()
}

/// Asks again until this is said.
fn await_code(profile: &std::path::Path, id: &str, about: Option<&str>, code: &str) -> Value {
    let since = Instant::now();
    loop {
        let said = why(profile, id).ok().json();
        let all = said["whereabouts"].as_array().unwrap();
        if let Some(one) = all.iter().find(|one| one["participant"].as_str() == about && one["code"] == code) {
            let sentence = text_of(one, "said");
            assert!(sentence.ends_with('.') && sentence.len() > 15, "{one}");
            assert!(one["ended"] == true || one["next"].is_string(), "{one}");
            return one.clone();
        }
        assert!(since.elapsed() < DEADLINE, "{about:?} is not {code}: {said}");
    }
}

#[test]
fn it_says_where_an_exchange_is_at_every_step_of_its_way_to_sender_recipient_and_secretariat() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN", "TUR"]);
    let (sender, officer) = (forum.agency("KAZ").profile, forum.officer("KAZ"));
    let secretariat = forum.hub_dir().join("officer");

    // The hub is away, then one recipient is, then nobody of it takes it.
    forum.stop_hub();
    let id = forum.agency("KAZ").submit("one", "").id;
    let waits = await_code(&sender, &id[..8], None, "HUB_AWAY");
    assert!(text_of(&waits, "next").contains("node check"), "{waits}");
    assert_eq!(of(&why(&officer, &id).ok().json(), None)["code"], "HUB_AWAY");
    forum.stop_node("IRN");
    forum.start_hub();
    await_code(&sender, &id, Some("IRN"), "ON_ITS_WAY");
    await_code(&sender, &id, Some("TUR"), "WAITS_FOR_AGENCY");
    await_code(&secretariat, &id, Some("IRN"), "NODE_AWAY");
    await_code(&secretariat, &id, Some("TUR"), "DELIVERED");
    for who in [forum.agency("TUR").profile, forum.officer("TUR")] {
        let said = why(&who, &id).ok().json();
        assert_eq!(said["whereabouts"].as_array().unwrap().len(), 1, "of itself only: {said}");
        assert_eq!(
            (of(&said, Some("TUR"))["code"].clone(), text_of(&said, "origin")),
            ("WAITS_FOR_AGENCY".into(), "KAZ".to_owned())
        );
    }
    // Which agencies there are is its officer's to know.
    let revoke = "agency revoke agency --receive --measure environmental.5 --yes";
    forum.as_officer("TUR", revoke).ok();
    await_code(&forum.officer("TUR"), &id, Some("TUR"), "UNCOLLECTED");
    why(&forum.agency("TUR").profile, &id).refused(3, "EXCHANGE_UNKNOWN");
    forum.as_officer("TUR", "agency grant agency --receive --measure environmental.5").ok();
    forum.agency("TUR").receive(1);
    await_code(&sender, &id, Some("TUR"), "TAKEN");
    await_code(&forum.officer("TUR"), &id, Some("TUR"), "TAKEN");

    // A held recipient's mail waits.
    concord(words!["participant", "hold", "IRN", "--reason", "it-floods", "--profile", secretariat]).ok();
    await_code(&sender, &id, Some("IRN"), "RECIPIENT_HELD");
    await_code(&secretariat, &id, Some("IRN"), "RECIPIENT_HELD");
    concord(words!["participant", "release", "IRN", "--profile", secretariat]).ok();
    await_code(&sender, &id, Some("IRN"), "ON_ITS_WAY");

    // Taken back on its way; and one that did not verify.
    concord(words!["withdraw", id, "--yes", "--profile", sender]).ok();
    await_code(&sender, &id, Some("IRN"), "WITHDRAWN");
    let said = why(&sender, &id).ok().json();
    assert_eq!(said["not_current"]["kind"], "withdrawn", "{said}");
    forum.start_node_with("IRN", &BTreeMap::from([("CONCORD_FAIL_AT", "node.judge.reads-header")]));
    let aside = forum.agency("KAZ").submit("two", "").id;
    for who in [sender.clone(), officer.clone(), secretariat.clone(), forum.officer("IRN"), forum.agency("IRN").profile]
    {
        let said = await_code(&who, &aside, Some("IRN"), "SET_ASIDE");
        assert_eq!(text_of(&said, "reason"), "HEADER_INVALID");
    }
    concord(words!["set-aside", "discard", aside, "--reason", "no", "--yes", "--profile", forum.officer("IRN")]).ok();
    await_code(&sender, &aside, Some("IRN"), "DISCARDED");
    await_code(&forum.officer("IRN"), &aside, Some("IRN"), "DISCARDED");
    // In words, for people.
    let told = std::process::Command::new(concord_tests::executable())
        .args(words!["why", aside, "--profile", sender])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("IRN: It did not verify") && text.contains("next: "), "{text}");
}

#[test]
fn who_has_no_right_to_an_exchange_hears_what_it_would_hear_of_none() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let id = forum.agency("KAZ").submit("secret", "--wait delivered").id;
    let none = "00".repeat(32);
    let others = [forum.agency("TUR").profile, forum.officer("TUR"), forum.officer("KAZ"), forum.agency("KAZ").profile];
    for (at, who) in others.iter().enumerate() {
        let of_none = why(who, &none);
        of_none.refused(3, "EXCHANGE_UNKNOWN");
        if at < 2 {
            let heard = why(who, &id);
            assert_eq!((heard.code, heard.stderr.clone()), (of_none.code, of_none.stderr.clone()));
        }
    }
    // The hub takes no less than all of it.
    let short = why(&forum.hub_dir().join("officer"), &id[..8]);
    short.refused(2, "USAGE");
    assert!(short.message().contains("not a whole id"), "{short}");
    for who in [forum.node_dir("KAZ").join("operator"), forum.hub_dir().join("operator")] {
        why(&who, &id).refused(3, "CALLER_NOT_ALLOWED");
    }
}
