//! What somebody is not to have, it does not get, and does not learn of.

use concord_tests::{Forum, concord, exchange_ids, text_of, words};

#[test]
fn who_is_not_on_the_agreement_gets_the_later_bulletin_with_nothing_before_it() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/cybercrime", "challenges.3", &["KAZ", "IRN"]);
    forum.agree("KAZ/bulletins", "environmental.3", &["KAZ", "IRN", "TUR"]);
    let kaz = forum.agency("KAZ");
    let secret = kaz.submit("the-secret-body", "--agreement KAZ/cybercrime --title the-secret-title --wait delivered");
    let bulletin = kaz.submit("for all", "--agreement KAZ/bulletins --wait delivered");

    assert_eq!(exchange_ids(&forum.agency("TUR").receive(1)), [bulletin.id.clone()]);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(2)), [secret.id.clone(), bulletin.id]);
    // Neither in its journal, nor in any other file of its node, nor in what it can list.
    let mail = concord(words!["journal", "show", forum.node_dir("TUR"), "--bodies"]).ok().text();
    assert!(mail.contains("routine: 1 from KAZ") && !mail.contains(&secret.id[..16]), "{mail}");
    for word in ["the-secret-body", "the-secret-title", "KAZ/cybercrime"] {
        assert_eq!(files_with(&forum.node_dir("TUR"), word), Vec::<String>::new(), "{word}");
    }
    let list = concord(words!["agreement", "list", "--profile", forum.officer("TUR")]).ok().lines();
    assert_eq!(list.iter().map(|one| text_of(one, "id")).collect::<Vec<_>>(), ["KAZ/bulletins"]);
    concord(words!["agreement", "show", "KAZ/cybercrime", "--profile", forum.officer("TUR")])
        .refused(3, "AGREEMENT_UNKNOWN");
}

#[test]
fn who_leaves_is_out_at_once_for_everything_not_yet_delivered_and_the_sender_is_told() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/warnings", "environmental.5", &["KAZ", "IRN", "TUR"]);
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    let before = kaz.submit("before", "--wait delivered");

    // IRN's node goes away; its officer leaves when it is back, in the same moment as the mail could come.
    forum.stop_node("IRN");
    let pending: Vec<_> = (0..3).map(|number| kaz.submit(format!("pending {number}"), "--wait recorded")).collect();
    leave_before_the_mail(&mut forum);

    for one in &pending {
        assert_eq!(kaz.settled(&one.id), ["IRN withheld LEFT", "TUR delivered"]);
    }
    let after = kaz.submit("after", "--wait delivered");
    assert_eq!(kaz.settled(&after.id), ["TUR delivered"]);
    // What was delivered stays delivered; nothing else came.
    assert_eq!(exchange_ids(&irn.receive(1)), [before.id.clone()]);
    assert!(irn.receive_rest().is_empty());
    let mut all = vec![before.id];
    all.extend(pending.iter().map(|one| one.id.clone()).chain([after.id]));
    assert_eq!(exchange_ids(&tur.receive(5)), all);

    irn.try_submit("from outside", "--agreement KAZ/warnings").refused(3, "AGREEMENT_UNKNOWN");
    assert_eq!(text_of(&forum.agreement("KAZ/warnings", "KAZ"), "state"), "in-force");
    // Below two it ends.
    assert_eq!(text_of(&forum.leave("KAZ/warnings", "TUR"), "state"), "accepted");
    let since = std::time::Instant::now();
    while text_of(&forum.agreement("KAZ/warnings", "KAZ"), "state") != "ended" {
        assert!(since.elapsed() < concord_tests::DEADLINE, "the agreement did not end");
    }
    kaz.try_submit("to nobody", "--agreement KAZ/warnings").refused(3, "AGREEMENT_NOT_IN_FORCE");
}

/// IRN's leave reaches the hub while IRN's mail does not reach IRN: the officer's statement is handed in with the node's own
/// certificate and nothing else of the node runs.
fn leave_before_the_mail(forum: &mut Forum) {
    let agreement = forum.agreement("KAZ/warnings", "KAZ");
    concord_tests::RawNode::of(forum, "IRN").leave(&forum.officer("IRN"), &agreement);
    forum.start_node("IRN");
}

#[test]
fn late_joiners_get_nothing_old() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/warnings", "environmental.5", &["KAZ", "IRN"]);
    let kaz = forum.agency("KAZ");
    kaz.submit("old", "--wait delivered");
    forum.join("TUR");
    forum.start_node("TUR");
    forum.agree("KAZ/all", "environmental.5", &["KAZ", "IRN", "TUR"]);
    let new = kaz.submit("new", "--agreement KAZ/all --wait delivered");
    assert_eq!(exchange_ids(&forum.agency("TUR").receive(1)), [new.id]);
    assert!(forum.agency("TUR").receive_rest().is_empty());
}

/// The files below a folder that hold a text.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}
