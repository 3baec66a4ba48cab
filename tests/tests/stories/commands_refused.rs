//! Bad input to the commands: each a clear refusal with its exit code and stable reason, and nothing else disturbed.

use std::fs;

use concord_tests::{Forum, concord, exchange_ids, words};

const FLASH_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 4 * 1024 * 1024;

#[test]
fn every_bad_submission_is_refused_with_its_reason_and_an_honest_one_still_goes_through() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/drugs", "challenges.2", &["KAZ", "IRN"]);
    forum.agree("IRN/cyber", "challenges.3", &["IRN", "TUR"]);
    forum.propose("KAZ/waiting", "environmental.5", &["KAZ", "TUR"]);
    let kaz = forum.agency("KAZ");
    kaz.submit("first", "--request-id used --title T --agreement KAZ/drugs --wait delivered");
    let large = |size: usize| vec![b'x'; size];
    let table: &[(&str, Vec<u8>, &str, i32, &str)] = &[
        ("unknown agreement", large(1), "--agreement KAZ/nothing", 3, "AGREEMENT_UNKNOWN"),
        ("not a party", large(1), "--agreement IRN/cyber", 3, "AGREEMENT_UNKNOWN"),
        ("not in force", large(1), "--agreement KAZ/waiting", 3, "AGREEMENT_NOT_IN_FORCE"),
        ("measure not in it", large(1), "--agreement KAZ/drugs --measure challenges.3", 3, "MEASURE_NOT_IN_AGREEMENT"),
        ("measure of no catalogue", large(1), "--agreement KAZ/drugs --measure challenges.99", 3, "MEASURE_UNKNOWN"),
        ("outside the list", large(1), "--agreement KAZ/drugs --to TUR", 3, "NARROWING_INVALID"),
        ("partly outside the list", large(1), "--agreement KAZ/drugs --to IRN,TUR", 3, "NARROWING_INVALID"),
        ("to no participant", large(1), "--agreement KAZ/drugs --to XXX", 3, "NARROWING_INVALID"),
        ("to oneself only", large(1), "--agreement KAZ/drugs --to KAZ", 3, "AUDIENCE_EMPTY"),
        ("empty file", Vec::new(), "--agreement KAZ/drugs", 3, "BODY_EMPTY"),
        ("over the limit", large(BODY_MAX + 1), "--agreement KAZ/drugs", 3, "BODY_TOO_LARGE"),
        ("over the limit of flash", large(FLASH_MAX + 1), "--agreement KAZ/drugs --lane flash", 3, "BODY_TOO_LARGE"),
        ("request id reused", large(1), "--agreement KAZ/drugs --title T --request-id used", 3, "REQUEST_ID_CONFLICT"),
        ("malformed participant", large(1), "--agreement KAZ/drugs --to kaz", 2, "USAGE"),
        ("malformed agreement", large(1), "--agreement drugs", 2, "USAGE"),
        ("malformed measure", large(1), "--agreement KAZ/drugs --measure 7", 2, "USAGE"),
        ("malformed lane", large(1), "--agreement KAZ/drugs --lane fast", 2, "USAGE"),
        ("malformed media type", large(1), "--agreement KAZ/drugs --media-type text", 2, "USAGE"),
        ("empty narrowing", large(1), "--agreement KAZ/drugs --to ,", 2, "USAGE"),
        ("unknown option", large(1), "--urgent", 2, "USAGE"),
    ];
    for (name, body, options, code, reason) in table {
        println!("{name}");
        kaz.try_submit(body, options).refused(*code, reason);
    }
    for title in [String::new(), "x".repeat(1025), "two\nlines".to_owned()] {
        let path = forum.path().join("titled.txt");
        fs::write(&path, "x").unwrap();
        let submit = words!["submit", path, "--profile", kaz.profile, "--agreement", "KAZ/drugs", "--title", title];
        concord(submit).refused(2, "USAGE");
    }
    // Exactly at the limits it passes.
    let flash = kaz.submit(large(FLASH_MAX), "--agreement KAZ/drugs --lane flash --wait delivered");
    let routine = kaz.submit(large(BODY_MAX), "--agreement KAZ/drugs --wait delivered");
    let received = exchange_ids(&forum.agency("IRN").receive(3));
    assert_eq!((&received[0], &received[2]), (&flash.id, &routine.id));
    assert!(forum.agency("TUR").receive_rest().is_empty());
}

#[test]
fn a_wrong_file_in_a_list_means_that_nothing_is_sent() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/drugs", "challenges.2", &["KAZ", "IRN"]);
    let kaz = forum.agency("KAZ");
    let good = forum.path().join("good.txt");
    fs::write(&good, "good").unwrap();
    let submit = |other: std::path::PathBuf| concord(words!["submit", good, other, "--profile", kaz.profile]);
    submit(forum.path().join("absent.txt")).refused(2, "USAGE");
    submit(forum.path().to_owned()).refused(2, "USAGE");
    let reused = words!["submit", good, good, "--profile", kaz.profile, "--request-id", "one"];
    concord(reused).refused(2, "USAGE");
    let honest = kaz.submit("honest", "--wait delivered");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive_rest()), [honest.id]);
}

#[test]
fn two_agreements_that_fit_have_to_be_told_apart() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    let kaz = forum.agency("KAZ");
    kaz.try_submit("x", "").refused(3, "AGREEMENT_UNKNOWN");
    forum.agree("KAZ/one", "challenges.2", &["KAZ", "IRN"]);
    kaz.submit("x", "");
    forum.agree("KAZ/two", "challenges.2,challenges.3", &["KAZ", "IRN"]);
    kaz.try_submit("x", "").refused(3, "AGREEMENT_AMBIGUOUS");
    kaz.try_submit("x", "--agreement KAZ/two").refused(3, "MEASURE_AMBIGUOUS");
    let sent = kaz.submit("x", "--measure challenges.3");
    assert_eq!(sent.answer["agreement"], "KAZ/two");
}

#[test]
fn wrong_profiles_and_absent_servers_are_told_apart() {
    let mut forum = Forum::of(&["KAZ"]);
    let profile = forum.agency("KAZ").profile;
    let nobody = |profile: &std::path::Path| concord(words!["receive", "--profile", profile]);
    nobody(&forum.path().join("nothing")).refused(2, "PROFILE_UNKNOWN");
    nobody(&forum.officer("KAZ")).refused(3, "CALLER_NOT_ALLOWED");
    concord(words!["status", "--profile", profile]).refused(3, "CALLER_NOT_ALLOWED");
    forum.stop_node("KAZ");
    nobody(&profile).refused(4, "UNAVAILABLE");
    // Never started: it has no address yet.
    let dir = forum.node_dir("IRN");
    concord(words!["node", "init", "--dir", dir, "--participant", "IRN"]).ok();
    concord(words!["status", "--profile", dir.join("operator")]).refused(4, "ADDRESS_UNKNOWN");
    // Settings that do not parse end with the exit code that a unit does not start anew after, in one line that names theirs.
    let settings = fs::read_to_string(dir.join("node.toml")).unwrap();
    fs::write(dir.join("node.toml"), format!("participants = \"IRN\"\n{settings}")).unwrap();
    let served = concord(words!["node", "serve", "--dir", dir]);
    served.refused(2, "CONFIG_INVALID");
    assert!(served.message().contains("line 1, `participants = ") && !served.message().contains('\n'), "{served}");
    // Another server answers at its address: not the one that the profile pins.
    fs::copy(forum.hub_dir().join("addresses.json"), forum.node_dir("KAZ").join("addresses.json")).unwrap();
    let other = nobody(&profile);
    assert_eq!(other.code, Some(3), "{other}");
    forum.start_node("KAZ");
    assert!(nobody(&profile).ok().lines().is_empty());
}
