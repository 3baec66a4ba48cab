//! Why an exchange did, or did not, go somewhere: as a recipient hears it of itself, and the secretariat of everybody, without content.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use concord_tests::{Agency, DEADLINE, Ended, Forum, concord, exchange_ids, text_of, words};
use serde_json::Value;

const ID: &str = "KAZ/drugs";
const MEASURE: &str = "challenges.2";

fn try_explain(agency: &Agency, id: &str, options: &str) -> Ended {
    let mut line = words!["explain", id, "--profile", agency.profile];
    line.extend(options.split_whitespace().map(Into::into));
    concord(line)
}

fn try_at_hub(forum: &Forum, role: &str, id: &str, options: &str) -> Ended {
    let mut line = words!["explain", id, "--profile", forum.hub_dir().join(role)];
    line.extend(options.split_whitespace().map(Into::into));
    concord(line)
}

#[track_caller]
fn at_hub(forum: &Forum, id: &str, options: &str) -> Value {
    try_at_hub(forum, "officer", id, options).ok().json()
}

#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < DEADLINE, "it does not come: {what}");
    }
}

/// Each party with its rule, and what became of it there.
fn parties(shown: &Value) -> Vec<String> {
    let one = |party: &Value| {
        let said = ["rule", "state", "reason"].map(|field| party[field].as_str().unwrap_or("-").to_owned());
        assert_eq!(party["in_audience"], said[0] == "RECEIVES");
        assert_eq!(party["at"].is_null(), matches!(said[1].as_str(), "-" | "waits"), "{party}");
        format!("{} {}", text_of(party, "participant"), said.join(" "))
    };
    shown["parties"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_recipient_hears_of_what_it_may_have_what_became_of_it_and_of_all_else_what_it_hears_of_nothing() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    let border = words!["agency", "add", "border", "--measure", "challenges.3", "--dir", forum.node_dir("IRN")];
    concord(border).ok();
    let [kaz, irn, tur, border] =
        [forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"), forum.agency_named("IRN", "border")];
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3;
    let expires = prost_types::Timestamp::from(UNIX_EPOCH + Duration::from_secs(soon));
    let brief = kaz.submit("for a short time", &format!("--to IRN --expires {expires} --wait delivered")).id;
    let sent = kaz.submit("for IRN alone", "--to IRN --wait delivered").id;

    let of = |id: &str, options: &str| try_explain(&irn, id, options).ok().json();
    let shown = of(&sent, "");
    let said = [&shown["version"], &shown["in_audience"], &shown["rule"], &shown["state"], &shown["not_current"]];
    assert_eq!(said, [&Value::from(1), &true.into(), &"RECEIVES".into(), &"delivered".into(), &Value::Null]);
    assert_eq!((text_of(&shown, "origin"), text_of(&shown, "participant")), ("KAZ".into(), "IRN".into()));
    // As it was told, and no more than that: no number of a mailbox or of the journal.
    let fields: Vec<&String> = shown.as_object().unwrap().keys().collect();
    let known =
        ["exchange_id", "origin", "agreement", "version", "participant", "in_audience", "rule", "state", "reason"];
    let times = ["recorded_at", "delivered_at", "not_current", "expired_at", "exercise"];
    assert!(
        fields.iter().all(|field| known.contains(&field.as_str()) || times.contains(&field.as_str())),
        "{fields:?}"
    );
    let received = irn.receive(2);
    let recorded = received.iter().find(|one| one["exchange_id"] == sent).map(|one| &one["recorded_at"]).unwrap();
    assert_eq!(*recorded, shown["recorded_at"]);
    kaz.await_taken(&sent, "IRN");
    assert_eq!(text_of(&of(&sent[..8], "--participant IRN"), "state"), "taken");

    // Nobody hears of another, nor whoever may not have it of itself.
    let none = "0".repeat(64);
    for (agency, about) in [
        (&irn, "KAZ"),
        (&irn, "TUR"),
        (&irn, "XXX"),
        (&tur, ""),
        (&tur, "TUR"),
        (&tur, "IRN"),
        (&border, ""),
        (&border, "IRN"),
    ] {
        let options = if about.is_empty() { String::new() } else { format!("--participant {about}") };
        let (real, of_none) = (try_explain(agency, &sent, &options), try_explain(agency, &none, &options));
        real.refused(3, "EXCHANGE_UNKNOWN");
        of_none.refused(3, "EXCHANGE_UNKNOWN");
        assert_eq!(real.message(), of_none.message());
    }

    let withdraw = words!["withdraw", sent, "--yes", "--profile", kaz.profile];
    let withdrawal = text_of(&concord(withdraw).ok().json(), "exchange_id");
    assert_eq!(exchange_ids(&irn.receive(1)), [withdrawal.clone()]);
    let shown = of(&sent, "");
    assert_eq!(text_of(&shown, "state"), "taken", "that it was had stays so");
    let not_current = &shown["not_current"];
    assert_eq!((text_of(not_current, "kind"), text_of(not_current, "withdrawal")), ("withdrawn".into(), withdrawal));
    await_that("its time is over", || SystemTime::now() >= UNIX_EPOCH + Duration::from_secs(soon));
    assert!(!of(&brief, "")["expired_at"].is_null() && of(&sent, "")["expired_at"].is_null());

    // A right that goes takes it with it, and the sender hears as before.
    forum.as_officer("IRN", "agency revoke agency --receive --yes").ok();
    assert_eq!(try_explain(&irn, &brief, "").reason().unwrap(), "EXCHANGE_UNKNOWN");
    let by_sender = try_explain(&kaz, &brief, "--participant IRN").ok().json();
    assert_eq!((text_of(&by_sender, "rule"), text_of(&by_sender, "state")), ("RECEIVES".into(), "taken".into()));
    assert_eq!(text_of(&try_explain(&kaz, &brief, "").ok().json(), "rule"), "IS_ORIGIN");
}

#[test]
fn the_secretariats_officer_hears_where_an_exchange_went_and_why_and_nothing_of_what_is_in_it() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    let kaz = forum.agency("KAZ");
    let first = kaz.submit("canary-body", "--to IRN --title canary-title --wait delivered").id;
    assert_eq!(
        parties(&at_hub(&forum, &first, "")),
        ["IRN RECEIVES delivered -", "KAZ IS_ORIGIN - -", "TUR NOT_NAMED - -"]
    );
    assert_eq!(parties(&at_hub(&forum, &first, "--participant UZB")), ["UZB NOT_ON_VERSION - -"]);

    forum.stop_node("TUR");
    let waits = kaz.submit("canary-body", "--title canary-title --wait recorded").id;
    await_that("it is delivered to IRN", || parties(&at_hub(&forum, &waits, ""))[0] == "IRN RECEIVES delivered -");
    let shown = at_hub(&forum, &waits, "");
    assert_eq!(parties(&shown)[1..], ["KAZ IS_ORIGIN - -", "TUR RECEIVES waits -"]);
    assert_eq!((text_of(&shown, "agreement"), shown["version"].as_u64()), (ID.into(), Some(1)));
    let recorded_at = |shown: &Value| text_of(shown, "recorded_at");
    assert_eq!((text_of(&shown, "origin"), recorded_at(&shown)), ("KAZ".into(), recorded_at(&kaz.track(&waits))));
    let withdraw = words!["withdraw", waits, "--yes", "--profile", kaz.profile];
    let withdrawal = text_of(&concord(withdraw).ok().json(), "exchange_id");
    concord(words!["track", withdrawal, "--wait", "recorded", "--profile", kaz.profile]).ok();
    forum.start_node("TUR");
    assert_eq!(kaz.settled(&waits), ["IRN delivered", "TUR withheld WITHDRAWN"]);
    assert_eq!(parties(&at_hub(&forum, &waits, "--participant TUR")), ["TUR RECEIVES withheld WITHDRAWN"]);
    assert_eq!(text_of(&at_hub(&forum, &withdrawal, ""), "withdraws"), waits);

    // A leave does not change what was decided then, and counts for what comes after.
    forum.leave(ID, "IRN");
    let after = kaz.submit("canary-body", "--title canary-title --wait delivered").id;
    assert_eq!(parties(&at_hub(&forum, &after, "--participant IRN")), ["IRN LEFT - -"]);
    assert_eq!(parties(&at_hub(&forum, &first, "--participant IRN")), ["IRN RECEIVES delivered -"]);

    // What the hub refused went to nobody.
    forum.stop_hub();
    let soon = UNIX_EPOCH + Duration::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 5);
    let expires = prost_types::Timestamp::from(soon);
    let late = kaz.submit("canary-body", &format!("--title canary-title --expires {expires}")).id;
    await_that("its time is over", || SystemTime::now() > soon);
    forum.start_hub();
    await_that("the hub has it", || text_of(&kaz.track(&late), "state") == "refused");
    let shown = at_hub(&forum, &late, "");
    assert_eq!(text_of(&shown, "refused"), "EXCHANGE_EXPIRED");
    assert_eq!(parties(&shown), ["IRN - - -", "KAZ - - -", "TUR - - -"]);

    // It says how far it looked; and nobody else is answered.
    let none = "0".repeat(64);
    let nothing = try_at_hub(&forum, "officer", &none, "");
    nothing.refused(3, "EXCHANGE_UNKNOWN");
    assert!(nothing.message().contains("none of the entries 1 to ") && !nothing.message().contains("--before"));
    try_at_hub(&forum, "officer", &first, "--before 2").refused(3, "EXCHANGE_UNKNOWN");
    try_at_hub(&forum, "officer", &first, "--participant XXX").refused(3, "PARTICIPANT_UNKNOWN");
    try_at_hub(&forum, "officer", &first[..8], "").refused(2, "USAGE");
    try_at_hub(&forum, "operator", &first, "").refused(3, "CALLER_NOT_ALLOWED");
    let officer_of_node = words!["explain", first, "--profile", forum.officer("KAZ")];
    concord(officer_of_node).refused(3, "CALLER_NOT_ALLOWED");
    let told = [&first, &waits, &after, &late, &withdrawal].map(|id| at_hub(&forum, id, "").to_string());
    assert!(told.iter().all(|line| !line.contains("canary")), "{told:?}");
    let audit = concord(words!["audit", "--profile", forum.hub_dir().join("officer")]).ok().lines();
    let noted = |id: &str, outcome: &str| {
        let is_it = |line: &&Value| line["about"] == format!("exchange {id}") && line["outcome"] == outcome;
        audit.iter().filter(is_it).count()
    };
    assert!(noted(&first, "ok") > 0 && noted(&none, "EXCHANGE_UNKNOWN") == 1, "{audit:#?}");
}
