//! Contact points and roles: said by whom they are whose to say, told to all, and kept through everything.

use std::ffi::OsString;
use std::time::Instant;

use concord_tests::{DEADLINE, Ended, Forum, concord, text_of, words};
use serde_json::Value;

fn with_profile(mut line: Vec<OsString>, profile: impl Into<OsString>) -> Ended {
    line.extend([OsString::from("--profile"), profile.into()]);
    concord(line)
}

fn as_secretariat(forum: &Forum, line: Vec<OsString>) -> Ended {
    with_profile(line, forum.hub_dir().join("officer"))
}

fn set(office: &str, rest: Vec<OsString>) -> Vec<OsString> {
    let mut line = words!["contact", "set", "--office", office, "--telephone", "+7 7172 70-15-22"];
    line.extend(words!["--hours", "Mon-Fri 9-18 UTC+5", "--language", "ru,kk,en"]);
    line.extend(rest);
    line
}

fn grant(code: &str, role: &str, rest: Vec<OsString>) -> Vec<OsString> {
    let mut line = words!["role", "grant", code, role, "--reference", "SOC decision 14/2026"];
    line.extend(rest);
    line
}

/// What a list says, in these fields of each line.
fn told(ended: &Ended, fields: &[&str]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words = |line: &Value| fields.iter().map(|field| text(&line[*field])).collect::<Vec<_>>().join(" ");
    ended.lines().iter().map(words).collect()
}

/// Nothing calls a command that asks: it is asked again.
#[track_caller]
fn await_told(expected: &[&str], fields: &[&str], ask: impl Fn() -> Ended) {
    let since = Instant::now();
    loop {
        let found = told(&ask().ok(), fields);
        if found == expected {
            return;
        }
        assert!(since.elapsed() < DEADLINE, "{found:?} is told, and never {expected:?}");
    }
}

#[test]
fn whom_one_calls_is_each_states_own_word_and_every_participants_to_read() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    with_profile(set("Дежурная часть", words![]), forum.officer("KAZ")).ok();
    with_profile(set("Наркоконтроль", words!["--measure", "challenges.2"]), forum.officer("KAZ")).ok();
    as_secretariat(&forum, set("Secretariat, duty officer", words![])).ok();
    let fields = ["participant", "measure", "office"];
    let all = ["KAZ null Дежурная часть", "KAZ challenges.2 Наркоконтроль", "SEC null Secretariat, duty officer"];
    // What was said before has come wherever what was said last has.
    as_secretariat(&forum, grant("IRN", "chair", words![])).ok();
    await_told(&["chair"], &["role"], || with_profile(words!["role", "list"], forum.officer("IRN")));
    // Officer and agency of another state, and the secretariat.
    assert_eq!(told(&with_profile(words!["contact", "list"], forum.officer("IRN")).ok(), &fields), all);
    assert_eq!(told(&with_profile(words!["contact", "list"], irn.profile.clone()).ok(), &fields), all);
    assert_eq!(told(&as_secretariat(&forum, words!["contact", "list"]).ok(), &fields), all);
    let listed = with_profile(words!["contact", "list", "--participant", "KAZ"], &irn.profile).ok().lines();
    let (first, about) = (&listed[0], &listed[1]);
    assert_eq!((text_of(first, "telephone"), text_of(first, "set_by")), ("+7 7172 70-15-22".into(), "officer".into()));
    assert_eq!(about["languages"], serde_json::json!(["ru", "kk", "en"]));
    // About one measure: who is named for it, and else who is named for everything.
    for (measure, expected) in [
        ("challenges.2", ["KAZ challenges.2 Наркоконтроль", "SEC null Secretariat, duty officer"]),
        ("economic.4", ["KAZ null Дежурная часть", "SEC null Secretariat, duty officer"]),
    ] {
        let listed = with_profile(words!["contact", "list", "--measure", measure], &irn.profile).ok();
        assert_eq!(told(&listed, &fields), expected);
    }

    // It is an officer's word, well formed, and about something that there is.
    with_profile(set("us", words![]), kaz.profile.clone()).refused(3, "CALLER_NOT_ALLOWED");
    let unknown = words!["--measure", "challenges.99"];
    with_profile(set("us", unknown), forum.officer("KAZ")).refused(3, "MEASURE_UNKNOWN");
    with_profile(words!["contact", "remove"], forum.officer("IRN")).refused(3, "CONTACT_UNKNOWN");
    let twice = words!["--language", "RU"];
    with_profile(set("us", twice), forum.officer("KAZ")).refused(2, "USAGE");

    // What is removed is no more, what is set again is the new, also for a hub and a node that start again.
    with_profile(words!["contact", "remove"], forum.officer("KAZ")).ok();
    with_profile(set("Ночная смена", words!["--measure", "challenges.2"]), forum.officer("KAZ")).ok();
    let newest = ["KAZ challenges.2 Ночная смена", "SEC null Secretariat, duty officer"];
    await_told(&newest, &fields, || with_profile(words!["contact", "list"], forum.officer("IRN")));
    forum.stop_hub();
    forum.stop_node("IRN");
    forum.start_hub();
    forum.start_node("IRN");
    await_told(&newest, &fields, || with_profile(words!["contact", "list"], forum.officer("IRN")));
    await_told(&newest, &fields, || as_secretariat(&forum, words!["contact", "list"]));
}

#[test]
fn roles_are_the_forums_decisions_recorded_by_the_secretariat_and_one_chair_at_a_time() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    let list = |code: &str| with_profile(words!["role", "list"], forum.officer(code));
    as_secretariat(&forum, grant("KAZ", "chair", words![])).ok();
    let part = || words!["--measure", "challenges.2", "--words", "drug control"];
    as_secretariat(&forum, grant("IRN", "coordinator", part())).ok();
    // Not every member has a node, and a role needs none.
    as_secretariat(&forum, grant("TUR", "coordinator", words!["--area", "challenges"])).ok();
    let fields = ["role", "participant", "area", "measure", "words", "reference"];
    let decision = "SOC decision 14/2026";
    let of = |line: &str| format!("{line} {decision}");
    let all = [
        of("chair KAZ null null null"),
        of("coordinator IRN null challenges.2 drug control"),
        of("coordinator TUR challenges null null"),
    ];
    await_told(&all.each_ref().map(String::as_str), &fields, || list("IRN"));

    // No state gives itself a role, and no role is what it cannot be.
    with_profile(grant("IRN", "chair", words![]), forum.officer("IRN")).refused(3, "CALLER_NOT_ALLOWED");
    as_secretariat(&forum, grant("KAZ", "chair", words![])).refused(3, "ROLE_EXISTS");
    as_secretariat(&forum, grant("JPN", "coordinator", part())).refused(3, "ARGUMENT_INVALID");
    as_secretariat(&forum, grant("KAZ", "coordinator", words![])).refused(3, "ARGUMENT_INVALID");
    let mut revoke = words!["role", "revoke", "TUR", "coordinator", "--reference", "note verbale 3"];
    revoke.extend(part());
    as_secretariat(&forum, revoke).refused(3, "ROLE_UNKNOWN");

    // The chair goes to the next, and a coordinator gives its part back.
    as_secretariat(&forum, grant("IRN", "chair", words![])).ok();
    let mut revoke = words!["role", "revoke", "IRN", "coordinator", "--reference", "note verbale 3"];
    revoke.extend(part());
    as_secretariat(&forum, revoke).ok();
    let rest = [of("chair IRN null null null"), of("coordinator TUR challenges null null")];
    for code in ["KAZ", "IRN"] {
        await_told(&rest.each_ref().map(String::as_str), &fields, || list(code));
    }
}
