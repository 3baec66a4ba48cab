//! Keys that changed without their owner's own word: what they sign is set aside by each who consented to the earlier ones, until an
//! officer there has compared them by telephone.

use std::fs;

use concord_tests::{Forum, concord, exchange_ids, on_a_terminal, text_of, words};

use crate::replaced_node::enrol_in_place;

const AGREEMENT: &str = "KAZ/warnings";

#[test]
fn what_unannounced_keys_sign_is_set_aside_until_an_officer_has_confirmed_them_and_is_given_once_then() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN", "TUR"]);
    forum.agency("KAZ").submit("with the keys that all consented to", "--wait delivered");
    assert_eq!(forum.agency("IRN").receive(1).len(), 1);
    let irn = forum.node_dir("IRN");
    let [officer, operator] = ["officer", "operator"].map(|role| irn.join(role));
    let list = || concord(words!["pin", "list", "--profile", operator]).ok().lines();
    let of_kaz = || list().into_iter().find(|line| line["participant"] == "KAZ").unwrap();
    assert_eq!((of_kaz()["state"].as_str(), list().len()), (Some("consented"), 2), "{:?}", list());
    let before = text_of(&of_kaz(), "fingerprint");

    forum.stop_node("KAZ");
    let dir = forum.node_dir("KAZ");
    fs::rename(&dir, forum.path().join("lost")).unwrap();
    concord(words!["node", "init", "--dir", dir, "--participant", "KAZ"]).ok();
    enrol_in_place(&mut forum);
    let kaz = forum.agency("KAZ");
    let aside = kaz.submit("before anybody confirmed", "").id;
    assert_eq!(kaz.settled(&aside), ["IRN set-aside KEY_NOT_PINNED", "TUR set-aside KEY_NOT_PINNED"]);
    // Who runs the node is told whose keys, under what, and what to do.
    let told = forum.await_alarm(&irn, "pins-unconfirmed");
    assert!(told.contains("of KAZ (under KAZ/warnings)") && told.contains("concord pin confirm"), "{told}");
    let waits = of_kaz();
    assert_eq!((&waits["state"], &waits["waiting"]), (&"waits".into(), &serde_json::json!([AGREEMENT])), "{waits}");

    // What KAZ reads out counts, and an officer says it: neither an operator, nor what is read out of the earlier keys.
    let shown = concord(words!["participant", "show", "KAZ", "--profile", dir.join("officer")]).ok().json();
    let fingerprint = text_of(&waits, "fingerprint");
    assert_eq!(shown["fingerprint"].as_str().unwrap(), fingerprint);
    let confirm = |code: &str, fingerprint: &str, profile| {
        concord(words!["pin", "confirm", code, "--fingerprint", fingerprint, "--profile", profile])
    };
    confirm("KAZ", &fingerprint, &operator).refused(3, "CALLER_NOT_ALLOWED");
    confirm("KAZ", &before, &officer).refused(3, "FINGERPRINT_MISMATCH");
    confirm("TUR", &fingerprint, &officer).refused(3, "FINGERPRINT_MISMATCH");
    confirm("UZB", &fingerprint, &officer).refused(3, "PARTICIPANT_NOT_ENROLLED");
    confirm("IRN", &fingerprint, &officer).refused(3, "ARGUMENT_INVALID");
    confirm("KAZ", "3f9a", &officer).refused(2, "USAGE");
    let still = kaz.submit("while nobody has confirmed", "").id;
    assert_eq!(kaz.settled(&still).len(), 2);
    // On a terminal it is asked for, and does not stand there to be typed from; off one nobody can be asked.
    let asked = || words!["pin", "confirm", "KAZ", "--profile", officer];
    concord(asked()).refused(2, "USAGE");
    for typed in ["", "yes", &before] {
        let (code, shown) = on_a_terminal(typed, asked());
        assert_eq!(code, Some(3), "{shown}");
        assert!(shown.contains("FINGERPRINT_MISMATCH"), "{shown}");
        assert!(!shown.replacen(typed, "", 1).contains(&fingerprint[..8]), "{shown}");
    }
    assert_eq!(of_kaz()["state"], "waits");
    let (code, shown) = on_a_terminal(&fingerprint[..35], asked());
    assert_eq!(code, Some(0), "{shown}");
    // Said again it changes nothing, however it is grouped.
    for grouped in [fingerprint.to_uppercase(), fingerprint.replace(' ', ""), fingerprint.replace(' ', ":")] {
        confirm("KAZ", &grouped, &officer).ok();
    }
    assert_eq!(of_kaz()["state"], "confirmed");

    // From here on it goes to IRN; TUR has said nothing.
    let sent = kaz.submit("confirmed", "").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent.clone()]);
    assert_eq!(kaz.settled(&sent)[1..], ["TUR set-aside KEY_NOT_PINNED"]);
    assert!(!forum.status(&irn)["alarms"].to_string().contains("pins-unconfirmed"));
    assert!(forum.status(&forum.node_dir("TUR"))["alarms"].to_string().contains("pins-unconfirmed"));
    // What was set aside before is judged again when somebody says so, comes once, and its sender hears of it.
    let aside_list = || concord(words!["set-aside", "list", "--profile", operator]).ok().lines();
    assert_eq!(aside_list().len(), 2);
    let retried = concord(words!["set-aside", "retry", "--all", "--profile", operator]).ok().lines();
    assert!(retried.len() == 2 && retried.iter().all(|one| one["delivered"] == true), "{retried:?}");
    let mut came = exchange_ids(&forum.agency("IRN").receive(2));
    came.sort_unstable();
    let mut expected = [aside.clone(), still.clone()];
    expected.sort_unstable();
    assert_eq!(came, expected);
    for id in [&aside, &still] {
        kaz.await_taken(id, "IRN");
        assert_eq!(kaz.settled(id)[1..], ["TUR set-aside KEY_NOT_PINNED"]);
    }
    assert!(forum.agency("IRN").receive_rest().is_empty(), "each comes once");
    assert!(aside_list().is_empty());
    // The word stands over a restart, in the journal and in the audit.
    forum.stop_node("IRN");
    forum.start_node("IRN");
    let sent = kaz.submit("after a restart", "").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
    let shown = concord(words!["journal", "show", irn]).ok().lines();
    assert_eq!(shown.iter().filter(|entry| entry["kind"] == "pin").count(), 1, "said twice, kept once");
    let audited = concord(words!["audit", "--profile", operator]).ok().text();
    assert!(audited.contains("keys of KAZ"), "{audited}");
}
