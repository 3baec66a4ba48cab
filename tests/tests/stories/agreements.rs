//! How states come to agree, and who may see that they did.

use std::time::Instant;

use concord_tests::{DEADLINE, Forum, concord, text_of, words};

const ID: &str = "KAZ/drugs";

#[test]
fn an_agreement_is_in_force_when_all_on_it_have_consented_and_not_before() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.propose(ID, "challenges.2", &["KAZ", "IRN", "TUR"]);
    let kaz = forum.agency("KAZ");
    kaz.try_submit("early", "--agreement KAZ/drugs --measure challenges.2").refused(3, "AGREEMENT_NOT_IN_FORCE");
    forum.consent(ID, "IRN");
    kaz.try_submit("early", "--agreement KAZ/drugs --measure challenges.2").refused(3, "AGREEMENT_NOT_IN_FORCE");
    forum.as_officer("KAZ", "agreement show KAZ/drugs --wait in-force --timeout 0").refused(4, "WAIT_EXPIRED");
    let pending = forum.as_officer("TUR", "agreement pending").ok().lines();
    assert_eq!(pending.len(), 1);
    assert_eq!(text_of(&pending[0], "state"), "proposed");
    forum.consent(ID, "TUR");
    for code in ["KAZ", "IRN", "TUR"] {
        forum.await_in_force(ID, code);
        let shown = forum.agreement(ID, code);
        assert_eq!(shown["digest"], pending[0]["digest"]);
        assert!(shown["participants"].as_array().unwrap().iter().all(|one| one["state"] == "consented"), "{shown}");
    }
    assert!(forum.as_officer("TUR", "agreement pending").ok().lines().is_empty());
    kaz.submit("in time", "--wait delivered");
}

#[test]
fn a_decline_ends_the_proposal_and_whoever_waits_is_told() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.propose(ID, "challenges.2", &["KAZ", "IRN"]);
    while forum.as_officer("IRN", "agreement decline KAZ/drugs").reason().as_deref() == Some("AGREEMENT_UNKNOWN") {}
    forum.as_officer("KAZ", "agreement show KAZ/drugs --wait in-force").refused(3, "AGREEMENT_NOT_IN_FORCE");
    assert_eq!(text_of(&forum.agreement(ID, "KAZ"), "state"), "declined");
    forum.as_officer("IRN", "agreement consent KAZ/drugs").refused(3, "AGREEMENT_NOT_PENDING");
    // It may be proposed again, as another version.
    forum.agree(ID, "challenges.2", &["KAZ", "IRN"]);
    assert_eq!(forum.agreement(ID, "IRN")["version"], 2);
}

#[test]
fn every_wrong_word_of_an_officer_is_refused_and_the_right_one_still_works() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    let propose = |id: &str, measure: &str, on: &str| {
        forum.as_officer("KAZ", &format!("agreement propose {id} --title T --measure {measure} --participant {on}"))
    };
    propose("IRN/drugs", "challenges.2", "IRN").refused(3, "AGREEMENT_NOT_OWN");
    propose(ID, "challenges.999", "IRN").refused(3, "MEASURE_UNKNOWN");
    propose(ID, "challenges.2", "XXX").refused(3, "PARTICIPANT_UNKNOWN");
    propose(ID, "challenges.2", "KOR").refused(3, "PARTICIPANT_NOT_ENROLLED");
    assert_eq!(propose("drugs", "challenges.2", "IRN").code, Some(2));
    propose(ID, "challenges.2", "IRN").ok();
    propose(ID, "challenges.2", "IRN,TUR").refused(3, "AGREEMENT_EXISTS");
    // Who is not on it is told what it would be told of one that is not there.
    for word in ["consent", "decline", "show", "leave --yes"] {
        let there = forum.as_officer("TUR", &format!("agreement {word} KAZ/drugs"));
        let nowhere = forum.as_officer("TUR", &format!("agreement {word} KAZ/nowhere"));
        there.refused(3, "AGREEMENT_UNKNOWN");
        assert_eq!(there.message().replace("drugs", "nowhere"), nowhere.message());
    }
    forum.as_officer("IRN", "agreement leave KAZ/drugs --yes");
    assert_eq!(
        forum.as_officer("IRN", "agreement leave KAZ/drugs").code,
        Some(2),
        "nobody is asked without a terminal"
    );
    // An agency cannot speak for its state, nor an operator.
    for profile in [forum.agency("IRN").profile, forum.node_dir("IRN").join("operator")] {
        concord(words!["agreement", "consent", ID, "--profile", profile]).refused(3, "CALLER_NOT_ALLOWED");
    }
}

#[test]
fn who_is_who_is_shown_with_names_in_more_than_one_language_and_enrolling_is_the_secretariats() {
    let forum = Forum::of(&["KAZ"]);
    // The node is told who there is once it has reached the hub.
    let since = Instant::now();
    while forum.as_officer("KAZ", "participant list").ok().lines().len() <= 20 {
        assert!(since.elapsed() < DEADLINE, "it is not told");
    }
    let shown = forum.as_officer("KAZ", "participant show KAZ").ok().json();
    assert!(shown["enrolled_at"].is_string() && shown["names"]["ru"].is_string(), "{shown}");
    forum.as_officer("KAZ", "participant show XXX").refused(3, "PARTICIPANT_UNKNOWN");

    let dir = forum.node_dir("IRN");
    concord(words!["node", "init", "--dir", dir, "--participant", "IRN"]).ok();
    let request = dir.join("join-request.json");
    concord(words!["participant", "enrol", request, "--profile", forum.officer("KAZ")])
        .refused(3, "CALLER_NOT_ALLOWED");
    concord(words!["participant", "enrol", request, "--profile", forum.hub_dir().join("operator")])
        .refused(3, "CALLER_NOT_ALLOWED");
    let enrol = || concord(words!["participant", "enrol", request, "--profile", forum.hub_dir().join("officer")]);
    let (first, again) = (enrol().ok().json(), enrol());
    // A repeat with the same keys is harmless or refused in words; other keys are refused.
    assert!(again.code == Some(0) || again.reason().as_deref() == Some("PARTICIPANT_ALREADY_ENROLLED"), "{again}");
    let other = forum.path().join("other");
    let made = concord(words!["node", "init", "--dir", other, "--participant", "IRN"]).ok().json();
    assert_ne!(made["fingerprint"], first["fingerprint"]);
    let request = other.join("join-request.json");
    concord(words!["participant", "enrol", request, "--profile", forum.hub_dir().join("officer")])
        .refused(3, "PARTICIPANT_ALREADY_ENROLLED");
}

#[test]
fn a_bundle_of_somebody_else_is_not_joined() {
    let forum = Forum::of(&["KAZ"]);
    let dir = forum.node_dir("IRN");
    concord(words!["node", "init", "--dir", dir, "--participant", "IRN"]).ok();
    let bundle = forum.node_dir("KAZ").join("bundle.json");
    concord(words!["node", "join", bundle, "--dir", dir]).refused(3, "BUNDLE_OF_ANOTHER");
    let text = std::fs::read_to_string(&bundle).unwrap();
    std::fs::write(&bundle, &text[..text.len() / 2]).unwrap();
    concord(words!["node", "join", bundle, "--dir", dir]).refused(3, "PAPER_INVALID");
}
