//! Only the agreed: what an amendment, an end, a term or a hold changes for everybody, and what it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use concord_tests::{DEADLINE, Ended, Forum, concord, exchange_ids, text_of, words};
use serde_json::Value;

const ID: &str = "KAZ/drugs";
const MEASURE: &str = "challenges.2";

fn as_secretariat(forum: &Forum, command: &[&str]) -> Ended {
    let mut line: Vec<std::ffi::OsString> = command.iter().map(Into::into).collect();
    line.extend(words!["--profile", forum.hub_dir().join("officer")]);
    concord(line)
}

/// Consents to the amendment that waits, as soon as the node knows of it.
#[track_caller]
fn consent_to_version(forum: &Forum, code: &str, version: u64) {
    await_that(|| {
        let shown = forum.as_officer(code, &format!("agreement show {ID}"));
        let shown = if shown.code == Some(0) { shown.json() } else { return false };
        shown["version"] == version || shown["amendment"]["version"] == version
    });
    let said = forum.as_officer(code, &format!("agreement consent {ID}")).ok().lines();
    assert_eq!(said.last().unwrap()["version"], version);
}

/// Nothing calls a command that asks: it is asked again.
#[track_caller]
fn await_that(mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < DEADLINE, "it does not come");
    }
}

#[track_caller]
fn await_version(forum: &Forum, code: &str, version: u64) {
    await_that(|| {
        let shown = forum.agreement(ID, code);
        shown["version"] == version && shown["state"] == "in-force"
    });
}

fn in_seconds(seconds: u64) -> (String, SystemTime) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = UNIX_EPOCH + Duration::from_secs(now + seconds);
    (prost_types::Timestamp::from(at).to_string(), at)
}

fn rules(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| format!("{} {}", text_of(line, "participant"), text_of(line, "rule"))).collect()
}

#[test]
fn an_amendment_changes_who_sends_and_receives_once_all_have_consented_and_its_history_stays() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    let kaz = forum.agency("KAZ");
    let first = kaz.submit("to the first three", "");
    assert_eq!(kaz.settled(&first.id), ["IRN delivered", "TUR delivered"]);

    // A member that did not propose the first version; TUR is to go, UZB to come and to receive only.
    let amend =
        format!("agreement amend {ID} --remove-participant TUR --add-participant UZB:receive --handling-max GREEN");
    forum.as_officer("UZB", &amend).refused(3, "AGREEMENT_UNKNOWN");
    assert_eq!(forum.as_officer("IRN", &amend).ok().json()["version"], 2);
    for code in ["KAZ", "TUR"] {
        consent_to_version(&forum, code, 2);
    }
    // One has not: all is as it was, also for whoever is to come.
    let before = kaz.submit("still to the first three", "--handling AMBER");
    assert_eq!(kaz.settled(&before.id), ["IRN delivered", "TUR delivered"]);
    forum.agency("UZB").try_submit("early", &format!("--agreement {ID}")).refused(3, "AGREEMENT_NOT_IN_FORCE");

    // What waits for TUR when it goes is not delivered to it, and its sender hears why.
    forum.stop_node("TUR");
    let waits = kaz.submit("for TUR while it is away", "--to TUR --wait recorded");
    consent_to_version(&forum, "UZB", 2);
    for code in ["KAZ", "IRN", "UZB"] {
        await_version(&forum, code, 2);
    }
    forum.start_node("TUR");
    assert_eq!(kaz.settled(&waits.id), ["TUR withheld REMOVED"]);

    let after = kaz.submit("to the second three", "");
    assert_eq!(kaz.settled(&after.id), ["IRN delivered", "UZB delivered"]);
    assert_eq!(exchange_ids(&forum.agency("UZB").receive(1)), [after.id.clone()]);
    kaz.try_submit("too secret", "--handling AMBER").refused(3, "HANDLING_NOT_ALLOWED");
    forum
        .agency("UZB")
        .try_submit("by whoever only receives", &format!("--agreement {ID} --measure {MEASURE}"))
        .refused(3, "ROLE_NOT_ALLOWED");
    await_that(|| text_of(&forum.agreement(ID, "TUR"), "state") == "amended");
    forum
        .agency("TUR")
        .try_submit("by whoever went", &format!("--agreement {ID}"))
        .refused(3, "AGREEMENT_NOT_IN_FORCE");

    let explained = |id: &str, about: &str| {
        let line = words!["explain", id, "--participant", about, "--profile", kaz.profile];
        let shown = concord(line).ok().json();
        format!(
            "{} {} {} {}",
            shown["version"],
            shown["in_audience"],
            text_of(&shown, "rule"),
            shown["state"].as_str().unwrap_or("-")
        )
    };
    assert_eq!(explained(&waits.id, "TUR"), "1 true RECEIVES withheld");
    assert_eq!(explained(&waits.id, "IRN"), "1 false NOT_NAMED -");
    kaz.await_taken(&after.id, "UZB");
    assert_eq!(explained(&after.id, "UZB"), "2 true RECEIVES taken");
    assert_eq!(explained(&after.id[..10], "TUR"), "2 false NOT_ON_VERSION -");
    assert_eq!(explained(&after.id, "KAZ"), "2 false IS_ORIGIN -");
    let others = words!["explain", after.id, "--participant", "TUR", "--profile", forum.agency("IRN").profile];
    concord(others).refused(3, "EXCHANGE_UNKNOWN");

    let history = |code: &str| forum.as_officer(code, &format!("agreement history {ID}")).ok().lines();
    let versions = |code: &str| {
        history(code)
            .iter()
            .map(|one| (one["version"].as_u64().unwrap(), text_of(one, "state").to_owned()))
            .collect::<Vec<_>>()
    };
    let (second, first) = ((2, "in-force".to_owned()), (1, "amended".to_owned()));
    assert_eq!(versions("KAZ"), [second.clone(), first.clone()]);
    assert_eq!(versions("UZB"), [second.clone()], "what was before it came is not its matter");
    assert_eq!(history("IRN")[1]["participants"].as_array().unwrap().len(), 3);
    let at_hub = as_secretariat(&forum, &["agreement", "history", ID]).ok().lines();
    assert_eq!(at_hub.len(), 2);
    // The secretariat alone adds no reader, to what it sees all of.
    as_secretariat(&forum, &["agreement", "amend", ID, "--add-participant", "SEC"]).refused(3, "AGREEMENT_NOT_OWN");
}

#[test]
fn an_agreement_ends_when_the_last_of_its_members_says_so_and_lapses_at_its_time() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    let end = format!("agreement end {ID} --yes");
    forum.as_officer("KAZ", &end).ok();
    let kaz = forum.agency("KAZ");
    let sent = kaz.submit("one has not said so", "");
    assert_eq!(kaz.settled(&sent.id), ["IRN delivered"]);
    forum.as_officer("IRN", &end).ok();
    await_that(|| text_of(&forum.agreement(ID, "KAZ"), "state") == "ended");
    kaz.try_submit("both have", &format!("--agreement {ID} --measure {MEASURE}")).refused(3, "AGREEMENT_NOT_IN_FORCE");

    let (until, at) = in_seconds(8);
    let propose =
        format!("agreement propose {ID} --title T --measure {MEASURE} --participant IRN --valid-until {until}");
    forum.as_officer("KAZ", &propose).ok();
    consent_to_version(&forum, "IRN", 2);
    await_version(&forum, "KAZ", 2);
    kaz.submit("in time", "--wait delivered");
    for code in ["KAZ", "IRN"] {
        await_that(|| text_of(&forum.agreement(ID, code), "state") == "lapsed");
        assert!(SystemTime::now() >= at, "before its time");
    }
    kaz.try_submit("too late", &format!("--agreement {ID} --measure {MEASURE}")).refused(3, "AGREEMENT_NOT_IN_FORCE");
    forum.as_officer("KAZ", &propose).refused(3, "AGREEMENT_MALFORMED");
}

#[test]
fn the_terms_bind_what_is_sent_are_shown_before_and_travel_with_it() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    let propose = format!(
        "agreement propose {ID} --title T --measure {MEASURE} --participant IRN,TUR:contribute --media-type text/* --max-size 20 \
         --handling-max RED --onward-release none --retention-days 30"
    );
    forum.as_officer("KAZ", &propose).ok();
    forum.consent(ID, "IRN");
    forum.consent(ID, "TUR");
    for code in ["KAZ", "IRN", "TUR"] {
        forum.await_in_force(ID, code);
    }
    let shown = forum.agreement(ID, "IRN");
    assert_eq!((&shown["terms"]["onward_release"], &shown["terms"]["retention_days"]), (&"none".into(), &30.into()));
    let preview = |options: &str| {
        let mut line = words!["agreement", "preview", ID, "--profile", forum.agency("KAZ").profile];
        line.extend(options.split_whitespace().map(Into::into));
        concord(line)
    };
    assert_eq!(rules(&preview("").ok().lines()), ["IRN RECEIVES", "KAZ IS_ORIGIN", "TUR ONLY_CONTRIBUTES"]);
    assert_eq!(rules(&preview("--to TUR").ok().lines()), ["IRN NOT_NAMED", "KAZ IS_ORIGIN", "TUR ONLY_CONTRIBUTES"]);
    preview("--to UZB").refused(3, "NARROWING_INVALID");
    preview("--media-type application/pdf").refused(3, "MEDIA_TYPE_NOT_ALLOWED");
    preview("--size 21").refused(3, "BODY_TOO_LARGE");

    let kaz = forum.agency("KAZ");
    kaz.try_submit("a", "--media-type application/pdf").refused(3, "MEDIA_TYPE_NOT_ALLOWED");
    kaz.try_submit("x".repeat(21), "").refused(3, "BODY_TOO_LARGE");
    kaz.try_submit("to nobody", "--to TUR").refused(3, "AUDIENCE_EMPTY");
    let sent = kaz.submit("within the terms", "--caveat mine");
    assert_eq!(kaz.settled(&sent.id), ["IRN delivered"]);
    let received = forum.agency("IRN").receive(1);
    let caveats: Vec<&str> =
        received[0]["caveats"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(caveats, ["Onward release: not beyond the agencies that were given it.", "mine"]);
    assert_eq!(text_of(&received[0], "handling"), "AMBER");
}

/// What a hub's journal shows of each exchange: its title and body, or why not.
fn shown_at_hub(dir: &Path, options: &str) -> BTreeMap<String, (String, String)> {
    let mut line = words!["journal", "show", dir, "--bodies"];
    line.extend(options.split_whitespace().map(Into::into));
    let entries = concord(line).ok().lines();
    let recorded = entries.iter().filter(|entry| entry["kind"] == "consignment");
    let content = recorded.flat_map(|entry| entry["content"].as_array().cloned().unwrap_or_default());
    let shown = content.map(|one| {
        let text = |key| one[key].as_str().unwrap_or_default().to_owned();
        (
            text("of"),
            if one["title"].is_null() { (text("not_shown"), text("text")) } else { (text("title"), text("text")) },
        )
    });
    shown.collect()
}

#[test]
fn commands_on_the_hubs_folder_show_what_the_secretariat_reads_and_nothing_of_what_it_carries() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    for (id, secretariat) in [("KAZ/carried", ""), (ID, "--secretariat reads")] {
        let propose = format!("agreement propose {id} --title T --measure {MEASURE} --participant IRN {secretariat}");
        forum.as_officer("KAZ", &propose).ok();
        forum.consent(id, "IRN");
        for code in ["KAZ", "IRN"] {
            forum.await_in_force(id, code);
        }
    }
    let kaz = forum.agency("KAZ");
    let send = |name: &str, id: &str| {
        kaz.submit(format!("body-{name}"), &format!("--title title-{name} --agreement {id} --wait delivered")).id
    };
    let (carried, read) = (send("carried", "KAZ/carried"), send("read", ID));
    // The version that an exchange names decides: not the one of now, and not one that only waits.
    forum.as_officer("KAZ", &format!("agreement amend {ID} --secretariat carries")).ok();
    let meanwhile = send("meanwhile", ID);
    consent_to_version(&forum, "IRN", 2);
    await_version(&forum, "KAZ", 2);
    let later = send("later", ID);

    let hub = forum.hub_dir();
    let carries = || ("SECRETARIAT_CARRIES".to_owned(), String::new());
    let expected = BTreeMap::from([
        (carried, carries()),
        (read.clone(), ("title-read".to_owned(), "body-read".to_owned())),
        (meanwhile.clone(), ("title-meanwhile".to_owned(), "body-meanwhile".to_owned())),
        (later.clone(), carries()),
    ]);
    assert_eq!(shown_at_hub(&hub, ""), expected);
    let backup = forum.path().join("hub.backup");
    concord(words!["hub", "backup", "--profile", hub.join("officer"), "--out", backup]).ok();
    assert_eq!(shown_at_hub(&backup, ""), expected);
    // Also where the proposal is before what is shown.
    let entries = concord(words!["journal", "show", hub]).ok().lines();
    let consignments = entries.iter().filter(|entry| entry["kind"] == "consignment");
    let from: Vec<_> = consignments.map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    let since_read = shown_at_hub(&hub, &format!("--from {}", from[1]));
    assert_eq!(since_read.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&read, &meanwhile, &later]));
    assert!(since_read.iter().all(|(id, shown)| expected[id] == *shown), "{since_read:?}");
    for dir in [forum.node_dir("KAZ"), forum.node_dir("IRN")] {
        let shown = concord(words!["journal", "show", dir, "--bodies"]).ok().text();
        for name in ["carried", "read", "meanwhile", "later"] {
            assert!(shown.contains(&format!("title-{name}")) && shown.contains(&format!("body-{name}")), "{shown}");
        }
    }
}

#[test]
fn a_handling_code_decides_which_agencies_of_a_recipient_are_given_it() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    // The agency of each node is for all measures; police is for this one by name.
    concord(words!["agency", "add", "police", "--dir", forum.node_dir("IRN"), "--measure", MEASURE]).ok();
    let (kaz, any, police) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency_named("IRN", "police"));
    kaz.try_submit("red to nobody", "--handling RED").refused(3, "ARGUMENT_INVALID");
    let red = kaz.submit("red", "--handling RED --to-agency IRN/police");
    let strict = kaz.submit("strict", "--handling AMBER+STRICT");
    let other = kaz.submit("for the other one", "--to-agency IRN/agency");
    let amber = kaz.submit("amber", "");
    let last = kaz.submit("green", "--handling GREEN");
    assert_eq!(exchange_ids(&any.receive(3)), [other.id.clone(), amber.id.clone(), last.id.clone()]);
    assert_eq!(
        exchange_ids(&police.receive(4)),
        [red.id.clone(), strict.id.clone(), amber.id.clone(), last.id.clone()]
    );
    // Granted by name it is a measure's agency, from then on.
    let grant =
        words!["agency", "grant", "agency", "--receive", "--measure", MEASURE, "--profile", forum.officer("IRN")];
    concord(grant).ok();
    let strict = kaz.submit("strict again", "--handling AMBER+STRICT");
    assert_eq!(exchange_ids(&any.receive(1)), [strict.id.clone()]);
}

#[test]
fn what_expired_before_it_was_delivered_is_not_and_its_sender_hears_so() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    let kaz = forum.agency("KAZ");
    let (past, _) = in_seconds(0);
    kaz.try_submit("too late", &format!("--expires {past}")).refused(3, "EXCHANGE_EXPIRED");
    let (soon, at) = in_seconds(8);
    let in_time = kaz.submit("in time", &format!("--expires {soon}"));
    assert_eq!(kaz.settled(&in_time.id), ["IRN delivered"]);
    forum.stop_node("IRN");
    let waits = kaz.submit("waits too long", &format!("--expires {soon} --wait recorded"));
    let goes_on = kaz.submit("does not expire", "--wait recorded");
    // The clock is what is waited for.
    std::thread::sleep(at.duration_since(SystemTime::now()).unwrap_or_default());
    forum.start_node("IRN");
    assert_eq!(kaz.settled(&waits.id), ["IRN withheld EXPIRED"]);
    assert_eq!(kaz.settled(&goes_on.id), ["IRN delivered"]);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(2)), [in_time.id.clone(), goes_on.id.clone()]);
}

#[test]
fn a_sender_that_left_hears_nothing_of_what_became_of_the_others_since() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR", "UZB"]);
    let kaz = forum.agency("KAZ");
    as_secretariat(&forum, &["participant", "hold", "IRN", "--reason", "its node floods"]).ok();
    let waits = kaz.submit("waits", "--wait recorded");
    forum.leave(ID, "KAZ");
    // It goes by an amendment, which its sender is not told of.
    forum.as_officer("TUR", &format!("agreement amend {ID} --remove-participant IRN")).ok();
    for code in ["IRN", "UZB"] {
        consent_to_version(&forum, code, 2);
    }
    as_secretariat(&forum, &["participant", "release", "IRN"]).ok();
    await_that(|| kaz.settled(&waits.id).contains(&"IRN withheld LEFT".to_owned()));
}

#[test]
fn a_held_node_neither_receives_nor_consigns_and_its_words_and_feed_go_on() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    forum.agree("KAZ/other", "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let drugs = format!("--agreement {ID}");
    let before = kaz.submit("before", &drugs);
    assert_eq!(kaz.settled(&before.id), ["IRN delivered", "TUR delivered"]);

    let hold = ["participant", "hold", "IRN", "--reason", "its node floods"];
    as_secretariat(&forum, &hold).ok();
    as_secretariat(&forum, &hold).refused(3, "HOLD_EXISTS");
    forum.as_officer("KAZ", "participant hold IRN --reason rivalry").refused(3, "CALLER_NOT_ALLOWED");
    forum.as_officer("IRN", "participant release IRN").refused(3, "HOLD_UNKNOWN");
    // Visibly, also to the others.
    await_that(|| {
        let shown = forum.as_officer("TUR", "participant show IRN").ok().json();
        shown["holds"][0]["reason"] == "its node floods" && shown["holds"][0]["by"] == "SEC"
    });
    let to_it = kaz.submit("to the held", &drugs);
    let by_it = irn.submit("by the held", &drugs);
    // It survives a restart of the hub, and of the node.
    forum.stop_hub();
    forum.start_hub();
    forum.stop_node("IRN");
    forum.start_node("IRN");
    await_that(|| forum.status(&forum.node_dir("IRN"))["alarms"].to_string().contains("held"));
    let others = kaz.submit("past the held", &format!("{drugs} --to TUR"));
    assert_eq!(kaz.settled(&others.id), ["TUR delivered"]);
    assert_eq!(text_of(&irn.track(&by_it.id), "state"), "queued");
    let recipients = kaz.track(&to_it.id)["recipients"].clone();
    let of_held = recipients.as_array().unwrap().iter().find(|one| one["participant"] == "IRN").unwrap().clone();
    assert_eq!(text_of(&of_held, "state"), "recorded");
    // Its feed and its statements go on, so that it can leave.
    forum.leave("KAZ/other", "IRN");
    await_that(|| text_of(&forum.agreement("KAZ/other", "KAZ"), "state") == "ended");

    as_secretariat(&forum, &["participant", "release", "IRN"]).ok();
    assert_eq!(kaz.settled(&to_it.id), ["IRN delivered", "TUR delivered"]);
    assert_eq!(irn.settled(&by_it.id), ["KAZ delivered", "TUR delivered"]);
    await_that(|| forum.status(&forum.node_dir("IRN"))["alarms"].as_array().unwrap().is_empty());
    // A state holds its own node, and nobody else's word lifts that.
    forum.as_officer("IRN", "participant hold IRN --reason maintenance").ok();
    as_secretariat(&forum, &["participant", "release", "IRN"]).refused(3, "HOLD_UNKNOWN");
    let own = irn.submit("while it holds itself", &drugs);
    assert_eq!(text_of(&irn.track(&own.id), "state"), "queued");
    forum.as_officer("IRN", "participant release IRN").ok();
    // A release is signed over a digest; whose it is the audit says.
    let audited = concord(words!["audit", "--profile", forum.hub_dir().join("operator")]).ok().lines();
    let releases = audited.iter().filter(|line| text_of(line, "about").ends_with(": release IRN"));
    assert_eq!(releases.filter(|line| text_of(line, "outcome") == "ok").count(), 2, "{audited:#?}");
    assert_eq!(irn.settled(&own.id), ["KAZ delivered", "TUR delivered"]);
}
