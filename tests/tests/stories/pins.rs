//! Keys that changed without their owner's own word: what they sign is set aside by each who consented to the earlier ones, until an
//! officer there has compared them by telephone.

use std::fs;

use concord_tests::{Forum, concord, exchange_ids, text_of, words};

use crate::replaced_node::enrol_in_place;

const AGREEMENT: &str = "KAZ/warnings";

#[test]
fn what_unannounced_keys_sign_is_set_aside_until_an_officer_has_confirmed_them_and_goes_on_then() {
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
    for _ in 0..2 {
        confirm("KAZ", &fingerprint.to_uppercase(), &officer).ok();
    }
    assert_eq!(of_kaz()["state"], "confirmed");

    // From here on it goes to IRN; TUR has said nothing.
    let sent = kaz.submit("confirmed", "").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent.clone()]);
    assert_eq!(kaz.settled(&sent)[1..], ["TUR set-aside KEY_NOT_PINNED"]);
    assert!(!forum.status(&irn)["alarms"].to_string().contains("pins-unconfirmed"));
    assert!(forum.status(&forum.node_dir("TUR"))["alarms"].to_string().contains("pins-unconfirmed"));
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
