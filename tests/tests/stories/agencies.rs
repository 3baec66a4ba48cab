//! What each agency of a state may have and see.

use concord_tests::{Forum, concord, exchange_ids, words};

fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/both", "challenges.2,challenges.3", &["KAZ", "IRN"]);
    forum
}

#[test]
fn an_agency_limited_to_a_measure_gets_and_sends_only_that() {
    let forum = forum();
    concord(words!["agency", "add", "cert", "--dir", forum.node_dir("IRN"), "--measure", "challenges.3"]).ok();
    let (kaz, irn, cert) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency_named("IRN", "cert"));
    let drugs = kaz.submit("drugs", "--measure challenges.2 --wait delivered");
    let cyber = kaz.submit("cyber", "--measure challenges.3 --wait delivered");
    assert_eq!(exchange_ids(&cert.receive(1)), [cyber.id.clone()]);
    assert!(cert.receive_rest().is_empty());
    assert_eq!(exchange_ids(&irn.receive(2)), [drugs.id, cyber.id]);

    cert.try_submit("x", "--measure challenges.2").refused(3, "MEASURE_NOT_ALLOWED");
    // Only one measure fits it, so that it need not be named; for the other agency two fit.
    let sent = cert.submit("x", "");
    assert_eq!(sent.answer["measure"], "challenges.3");
    irn.try_submit("x", "").refused(3, "MEASURE_AMBIGUOUS");
}

#[test]
fn an_agency_that_is_added_later_while_the_node_runs_gets_only_what_comes_after() {
    let forum = forum();
    let kaz = forum.agency("KAZ");
    let before = kaz.submit("before", "--measure challenges.2 --wait delivered");
    concord(words!["agency", "add", "late", "--dir", forum.node_dir("IRN")]).ok();
    let after = kaz.submit("after", "--measure challenges.2 --wait delivered");
    assert_eq!(exchange_ids(&forum.agency_named("IRN", "late").receive(1)), [after.id.clone()]);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(2)), [before.id, after.id]);
}

#[test]
fn each_agency_has_its_own_cursor_and_sees_only_its_own_submissions() {
    let mut forum = forum();
    concord(words!["agency", "add", "second", "--dir", forum.node_dir("IRN")]).ok();
    let (kaz, first) = (forum.agency("KAZ"), forum.agency("IRN"));
    let second = forum.agency_named("IRN", "second");
    let one = kaz.submit("one", "--measure challenges.2 --wait delivered");
    let two = kaz.submit("two", "--measure challenges.2 --wait delivered");
    assert_eq!(exchange_ids(&first.receive(1)), [one.id.clone()]);
    forum.kill_node("IRN");
    forum.start_node("IRN");
    assert_eq!(exchange_ids(&second.receive(2)), [one.id.clone(), two.id.clone()]);
    assert_eq!(exchange_ids(&first.receive_rest()), [two.id]);
    assert!(second.receive_rest().is_empty());

    let own = second.submit("own", "--measure challenges.2 --wait delivered");
    assert_eq!(second.track(&own.id)["state"], "delivered");
    first.try_track(&own.id).refused(3, "EXCHANGE_UNKNOWN");
    kaz.try_track(&own.id).refused(3, "EXCHANGE_UNKNOWN");
}

#[test]
fn adding_again_is_harmless_and_adding_otherwise_a_conflict() {
    let forum = forum();
    let add = |name: &str, measure: &str| {
        let mut add = words!["agency", "add", name, "--dir", forum.node_dir("IRN")];
        if !measure.is_empty() {
            add.extend(words!["--measure", measure]);
        }
        concord(add)
    };
    add("agency", "").ok();
    add("agency", "challenges.2").refused(3, "AGENCY_EXISTS");
    add("new", "challenges.999").refused(3, "MEASURE_UNKNOWN");
    assert_eq!(add("New Agency", "").code, Some(2));
    // The anchor's key may be kept elsewhere; without it nobody is let in, and everything else goes on.
    let key = forum.node_dir("IRN").join("anchor/key.pem");
    let text = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let absent = add("other", "");
    assert_eq!(absent.code, Some(1), "{absent}");
    forum.agency("IRN").submit("all the same", "--measure challenges.2 --wait delivered");
    std::fs::write(&key, text).unwrap();
    add("other", "").ok();
}
