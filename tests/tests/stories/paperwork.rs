//! Agreements as paperwork: in force among each who consents, declined with a reason, come back to after a leave, shown as a paper.

use std::process::Command;
use std::time::Instant;

use concord_tests::{DEADLINE, Forum, concord, exchange_ids, executable, on_a_terminal, run, text_of, words};
use serde_json::Value;

const ID: &str = "KAZ/drugs";
const MEASURE: &str = "challenges.2";

/// Nothing calls a command that asks: it is asked again.
#[track_caller]
fn await_that(mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < DEADLINE, "it does not come");
    }
}

fn as_secretariat(forum: &Forum, command: &[&str]) {
    let mut line = words!["--profile", forum.hub_dir().join("officer")];
    line.splice(0..0, command.iter().map(Into::into));
    concord(line).ok();
}

/// Who is on the agreement as a node knows it, each with its state.
fn parties(forum: &Forum, code: &str) -> Vec<String> {
    let shown = forum.as_officer(code, &format!("agreement show {ID}"));
    if shown.code != Some(0) {
        return Vec::new();
    }
    let shown = shown.json();
    let party = |one: &Value| format!("{} {}", text_of(one, "participant"), text_of(one, "state"));
    shown["participants"].as_array().unwrap().iter().map(party).collect()
}

fn propose_among_each(forum: &Forum, on: &[&str]) {
    let mut line = words!["agreement", "propose", ID, "--title", "Flood", "--measure", MEASURE, "--in-force", "each"];
    line.extend(words!["--participant", on.join(","), "--profile", forum.officer(on[0])]);
    concord(line).ok();
}

/// A node that has not yet heard of its own leave takes a consent for a repeat, which the hub refuses.
#[track_caller]
fn come_back(forum: &Forum, code: &str) {
    await_that(|| {
        let said = forum.as_officer(code, &format!("agreement consent {ID}"));
        if said.reason().as_deref() == Some("AGREEMENT_NOT_PENDING") {
            return false;
        }
        assert_eq!(said.ok().lines().last().unwrap()["said"], "return");
        true
    });
    await_that(|| parties(forum, code).contains(&format!("{code} consented")));
}

#[test]
fn an_agreement_among_each_is_in_force_among_two_and_who_consents_later_gets_nothing_of_before() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR", "UZB"]);
    propose_among_each(&forum, &["KAZ", "IRN", "TUR", "UZB"]);
    let (kaz, tur) = (forum.agency("KAZ"), forum.agency("TUR"));
    let under = format!("--agreement {ID} --measure {MEASURE}");
    kaz.try_submit("before two have consented", &under).refused(3, "AGREEMENT_NOT_IN_FORCE");
    forum.consent(ID, "IRN");
    forum.await_in_force(ID, "KAZ");
    forum.await_in_force(ID, "TUR");

    // TUR and UZB see it, and that it waits for them; nothing goes to them, nor from them.
    let preview = || forum.as_officer("KAZ", &format!("agreement preview {ID}")).ok().lines();
    let rules = |lines: &[Value]| -> Vec<String> {
        lines
            .iter()
            .map(|one| format!("{} {} {}", text_of(one, "participant"), text_of(one, "rule"), one["receives"]))
            .collect()
    };
    let not_yet =
        ["IRN RECEIVES true", "KAZ IS_ORIGIN false", "TUR HAS_NOT_CONSENTED false", "UZB HAS_NOT_CONSENTED false"];
    assert_eq!(rules(&preview()), not_yet);
    assert_eq!(forum.as_officer("TUR", "agreement pending").ok().lines().len(), 1);
    let status = forum.status(&forum.node_dir("TUR"));
    assert!(status["agreements_pending"] == 1 && status["agreements_pending_since"].is_string(), "{status}");
    assert_eq!(forum.status(&forum.node_dir("IRN"))["agreements_pending"], 0);
    let early = tur.try_submit("by one who has not consented", &under);
    early.refused(3, "AGREEMENT_NOT_IN_FORCE");
    assert!(early.message().contains("TUR has not consented"), "{early}");
    let first = kaz.submit("to the first two", "");
    assert_eq!(kaz.settled(&first.id), ["IRN delivered"]);
    let explained = words!["explain", first.id, "--participant", "TUR", "--profile", kaz.profile];
    assert_eq!(text_of(&concord(explained).ok().json(), "rule"), "HAS_NOT_CONSENTED");

    // UZB declines, with a reason that all see, and the others go on without it.
    let why = ["agreement", "decline", ID, "--reason", "Нет мандата до весенней сессии"];
    let mut decline: Vec<std::ffi::OsString> = why.iter().map(Into::into).collect();
    decline.extend(words!["--profile", forum.officer("UZB")]);
    concord(decline).ok();
    for code in ["KAZ", "TUR"] {
        await_that(|| parties(&forum, code).contains(&"UZB declined".to_owned()));
        let shown = forum.agreement(ID, code);
        assert_eq!(shown["state"], "in-force");
        assert_eq!(shown["participants"][3]["reason"], "Нет мандата до весенней сессии");
    }
    await_that(|| forum.as_officer("UZB", "agreement pending").ok().lines().is_empty());

    // TUR joins: what is sent from then on is its, and nothing of before.
    forum.consent(ID, "TUR");
    await_that(|| parties(&forum, "TUR").contains(&"TUR consented".to_owned()));
    await_that(|| parties(&forum, "KAZ").contains(&"TUR consented".to_owned()));
    let second = kaz.submit("to all three", "");
    assert_eq!(kaz.settled(&second.id), ["IRN delivered", "TUR delivered"]);
    assert_eq!(exchange_ids(&tur.receive(1)), [second.id.clone()]);
    assert_eq!(forum.status(&forum.node_dir("TUR"))["mailboxes"].to_string().matches("\"set_aside\":0").count(), 3);
    let by_it = tur.submit("by the one that joined", "");
    assert_eq!(tur.settled(&by_it.id), ["IRN delivered", "KAZ delivered"]);

    // What changes for all who consented is changed with the word of all of them.
    forum.as_officer("IRN", &format!("agreement amend {ID} --remove-participant UZB --handling-max GREEN")).ok();
    await_that(|| forum.agreement(ID, "TUR")["amendment"]["version"] == 2);
    for code in ["KAZ", "TUR"] {
        await_that(|| forum.agreement(ID, code)["amendment"]["version"] == 2);
        forum.as_officer(code, &format!("agreement consent {ID}")).ok();
    }
    await_that(|| forum.agreement(ID, "KAZ")["version"] == 2);
    assert_eq!(forum.agreement(ID, "KAZ")["in_force_among"], "all");
}

#[test]
fn who_comes_back_after_a_leave_has_nothing_of_the_time_between_in_either_direction() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR", "UZB"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR", "UZB"]);
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    // What waits for IRN when it leaves, since its node is held, is never its.
    as_secretariat(&forum, &["participant", "hold", "IRN", "--reason", "its node floods"]);
    let waits = kaz.submit("waits for IRN", "--to IRN --wait recorded");
    forum.leave(ID, "IRN");
    await_that(|| parties(&forum, "KAZ").contains(&"IRN left".to_owned()));
    let between = kaz.submit("of the time between", "");
    assert_eq!(kaz.settled(&between.id), ["TUR delivered", "UZB delivered"]);
    irn.try_submit("by one that left", &format!("--agreement {ID}")).refused(3, "AGREEMENT_UNKNOWN");
    // While it is away UZB leaves, and TUR leaves and comes back.
    forum.leave(ID, "UZB");
    await_that(|| parties(&forum, "TUR").contains(&"UZB left".to_owned()));
    come_back(&forum, "UZB");
    forum.leave(ID, "TUR");
    await_that(|| parties(&forum, "KAZ").contains(&"TUR left".to_owned()));

    // It reads first what it would consent to again, as it stood when it left.
    await_that(|| parties(&forum, "IRN").contains(&"IRN left".to_owned()));
    forum.as_officer("IRN", &format!("agreement show {ID} --text")).ok();
    come_back(&forum, "IRN");
    // It is told what the others said meanwhile, each word signed.
    assert_eq!(parties(&forum, "IRN"), ["IRN consented", "KAZ consented", "TUR left", "UZB consented"]);
    as_secretariat(&forum, &["participant", "release", "IRN"]);
    await_that(|| parties(&forum, "KAZ").contains(&"IRN consented".to_owned()));
    let after = kaz.submit("after its return", "");
    assert_eq!(kaz.settled(&after.id), ["IRN delivered", "UZB delivered"]);
    assert_eq!(kaz.settled(&waits.id), ["IRN withheld LEFT"]);
    assert_eq!(exchange_ids(&irn.receive(1)), [after.id.clone()]);
    let mailboxes = forum.status(&forum.node_dir("IRN"))["mailboxes"].to_string();
    assert_eq!(mailboxes.matches("\"set_aside\":0").count(), 3, "{mailboxes}");
    let by_it = irn.submit("by the one that came back", "");
    assert_eq!(irn.settled(&by_it.id), ["KAZ delivered", "UZB delivered"]);
    let explained = words!["explain", between.id, "--participant", "IRN", "--profile", kaz.profile];
    assert_eq!(text_of(&concord(explained).ok().json(), "rule"), "LEFT");

    // When it is over there is nothing to come back to; why, is nobody's matter who left.
    for code in ["IRN", "UZB", "KAZ"] {
        forum.as_officer(code, &format!("agreement end {ID} --yes")).ok();
    }
    await_that(|| text_of(&forum.agreement(ID, "KAZ"), "state") == "ended");
    forum.as_officer("TUR", &format!("agreement consent {ID}")).refused(3, "AGREEMENT_NOT_IN_FORCE");
    assert_eq!(exchange_ids(&tur.receive_rest()), [between.id.clone()]);
}

#[test]
fn an_agreement_is_shown_as_a_paper_with_what_a_consent_signs_and_who_signed() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    let paper = || {
        let mut command = Command::new(executable());
        command.args(words!["agreement", "show", ID, "--profile", forum.officer("IRN")]);
        run(command).ok().text()
    };
    let (text, shown) = (paper(), forum.agreement(ID, "IRN"));
    assert_eq!(text, paper(), "the same words again");
    let digest = text_of(&shown, "digest");
    let grouped: Vec<_> = digest.as_bytes().chunks(8).map(|eight| std::str::from_utf8(eight).unwrap()).collect();
    assert!(text.contains(&grouped.join(" ")), "{text}");
    for party in shown["participants"].as_array().unwrap() {
        for fingerprint in ["anchor_fingerprint", "signing_key_fingerprint"] {
            assert!(text.contains(&text_of(party, fingerprint)), "{fingerprint} of {party}: {text}");
        }
        assert_eq!(party["signed"]["officer"], "officer");
    }
    assert!(text.contains("Казахстан") && text.contains("  challenges.2\n    | "), "{text}");
    assert!(text.contains("KAZ: signed by officer officer at "), "{text}");
    // A program has the facts, and the words where it asks for them; who wants a few lines says so.
    assert!(shown["text"].is_null(), "{shown}");
    let with_text = forum.as_officer("IRN", &format!("agreement show {ID} --text")).ok().json();
    assert_eq!(with_text["text"].as_str().map(str::trim_end), Some(text.trim_end()));
    assert_eq!(with_text["digest"], shown["digest"]);
    let mut short = Command::new(executable());
    short.args(words!["agreement", "show", ID, "--short", "--profile", forum.officer("IRN")]);
    let short = run(short).ok().text();
    assert!(short.contains("challenges.2") && !short.contains("WHAT A CONSENT SIGNS"), "{short}");
}

#[test]
fn who_left_reads_what_it_was_party_to_also_when_there_is_nothing_to_come_back_to() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    forum.as_officer("KAZ", &format!("agreement amend {ID} --handling-max GREEN")).ok();
    await_that(|| forum.agreement(ID, "IRN")["amendment"]["version"] == 2);
    forum.as_officer("IRN", &format!("agreement consent {ID}")).ok();
    await_that(|| forum.agreement(ID, "IRN")["version"] == 2);
    // On a terminal the id is asked for again, and with another word nothing happens.
    let leave = || words!["agreement", "leave", ID, "--profile", forum.officer("IRN")];
    concord(leave()).refused(2, "USAGE");
    for typed in ["", "yes", "KAZ/drug"] {
        let (code, shown) = on_a_terminal(typed, leave());
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("NOT_CONFIRMED") && shown.contains(ID), "{shown}");
    }
    assert_eq!(parties(&forum, "IRN"), ["IRN consented", "KAZ consented"]);
    let (code, shown) = on_a_terminal(ID, leave());
    assert_eq!(code, Some(0), "{shown}");

    // Between two it is over with that, so that nobody comes back.
    await_that(|| parties(&forum, "IRN").contains(&"IRN left".to_owned()));
    forum.as_officer("IRN", &format!("agreement consent {ID}")).refused(3, "AGREEMENT_NOT_IN_FORCE");
    let history = forum.as_officer("IRN", &format!("agreement history {ID}")).ok().lines();
    let versions: Vec<_> = history.iter().map(|one| one["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [2, 1]);
    let text = text_of(&forum.as_officer("IRN", &format!("agreement show {ID} --text")).ok().json(), "text");
    assert!(text.contains("IRN: signed by officer officer at ") && text.contains("; left at "), "{text}");
    // It is on no list any more, and is its officer's to read.
    assert!(forum.as_officer("IRN", "agreement list").ok().lines().is_empty());
    concord(words!["agreement", "history", ID, "--profile", forum.agency("IRN").profile])
        .refused(3, "AGREEMENT_UNKNOWN");
}

#[test]
fn a_consent_and_a_decline_ask_on_a_terminal_and_a_leave_says_where_it_ends_it_for_all() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    propose_among_each(&forum, &["KAZ", "IRN", "TUR"]);
    for code in ["IRN", "TUR"] {
        await_that(|| forum.as_officer(code, "agreement pending").ok().lines().len() == 1);
    }
    let word = |verb: &str, code: &str| words!["agreement", verb, ID, "--profile", forum.officer(code)];
    let (code, shown) = on_a_terminal("no", word("consent", "IRN"));
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("signing key") && shown.contains("NOT_CONFIRMED"), "{shown}");
    assert!(shown.contains("next: run it again and type yes if it is meant"), "{shown}");
    let (code, shown) = on_a_terminal("yes", word("decline", "TUR"));
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("cannot be taken back") && shown.contains("NOT_CONFIRMED"), "{shown}");
    for code in ["IRN", "TUR"] {
        assert_eq!(forum.as_officer(code, "agreement pending").ok().lines().len(), 1, "nothing was said");
    }
    let (code, shown) = on_a_terminal("yes", word("consent", "IRN"));
    assert_eq!(code, Some(0), "{shown}");
    await_that(|| parties(&forum, "KAZ").contains(&"IRN consented".to_owned()));
    await_that(|| forum.agreement(ID, "IRN")["state"] == "in-force");
    // Once more is harmless, and no promise of what is there already.
    let again = forum.as_officer("IRN", &format!("agreement consent {ID}")).ok();
    assert!(again.stderr.contains("it is in force, and waits for nothing of this state"), "{}", again.stderr);

    let (code, shown) = on_a_terminal(ID, word("leave", "IRN"));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("who has yet to answer can then no longer join"), "{shown}");
    assert!(shown.contains("there is nothing to come back to") && !shown.contains("agreement consent"), "{shown}");
    // Who never answered has it off its list also now, and is told nothing untrue of the others.
    let declined = forum.as_officer("TUR", &format!("agreement decline {ID}")).ok();
    assert!(declined.stderr.contains("whatever becomes of it among those who consented"), "{}", declined.stderr);
}

#[test]
fn a_node_says_in_its_log_at_its_start_what_waits_for_its_states_word() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    propose_among_each(&forum, &["KAZ", "IRN"]);
    await_that(|| forum.status(&forum.node_dir("IRN"))["agreements_pending"] == 1);
    let log = forum.log("IRN");
    let reminded = || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.matches("agreements wait for this state's word: see `concord agreement pending`").count()
    };
    // It may have said so in its first minute, too.
    forum.stop_node("IRN");
    let before = reminded();
    forum.start_node("IRN");
    await_that(|| reminded() > before);
    forum.consent(ID, "IRN");
    await_that(|| forum.status(&forum.node_dir("IRN"))["agreements_pending"] == 0);
    forum.stop_node("IRN");
    let before = reminded();
    forum.start_node("IRN");
    forum.await_in_force(ID, "IRN");
    forum.stop_node("IRN");
    assert_eq!(reminded(), before, "nothing waits any more");
}
