//! The demo, as somebody sees it who has just built the project.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;

use concord_tests::{Process, concord, executable, run, text_of, words};
use rustix::process::Signal;
use serde_json::Value;

/// What it may take, by its contract.
const STORY_SECONDS_MAX: u64 = 15;

fn events<'a>(all: &'a [Value], name: &str) -> Vec<&'a Value> {
    all.iter().filter(|event| event["event"] == name).collect()
}

#[test]
fn the_demo_tells_its_story_once_and_every_expectation_holds() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("it's kept");
    let ended = concord(words!["demo", "--once", "--dir", dir]).ok();
    let all = ended.lines();
    assert_eq!(events(&all, "node-ready").len(), 4);
    assert_eq!(events(&all, "agreement-in-force").len(), 3);
    let outcome = events(&all, "outcome")[0];
    assert_eq!(outcome["held"], true, "{outcome}");
    assert!(outcome["milliseconds"].as_u64().unwrap() < STORY_SECONDS_MAX * 1000, "{outcome}");

    // Who received what, counted here from the events, against what was agreed.
    let mut received: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for reached in events(&all, "reached").into_iter().filter(|event| event["state"] == "received") {
        received.entry(text_of(reached, "exchange_id")).or_default().push(text_of(reached, "participant"));
    }
    let submitted = events(&all, "submitted");
    let expected = [
        ("KAZ", "flash", vec!["IRN", "KOR", "TUR"]),
        ("IRN", "routine", vec!["KAZ", "TUR"]),
        ("KOR", "routine", vec!["KAZ"]),
        ("KAZ", "routine", vec!["IRN", "KOR", "TUR"]),
    ];
    assert_eq!(submitted.len(), expected.len());
    for (event, (from, lane, to)) in submitted.iter().zip(expected) {
        assert_eq!((text_of(event, "participant"), text_of(event, "lane")), (from.to_owned(), lane.to_owned()));
        let mut who = received.remove(&text_of(event, "exchange_id")).unwrap();
        who.sort();
        assert_eq!(who, to, "{event}");
    }
    assert!(received.is_empty());
    let titles: String = submitted.iter().map(|event| text_of(event, "title")).collect();
    assert!(titles.chars().any(|character| ('а'..='я').contains(&character)), "no title in Russian: {titles}");
    let stopped = events(&all, "stopped")[0];
    assert_eq!((&stopped["kept"], dir.is_dir()), (&Value::Bool(true), true));
    concord(words!["verify", dir.join("hub")]).ok();
}

#[test]
fn the_demo_is_told_in_its_five_words_and_leaves_nothing_behind() {
    let mut command = Command::new(executable());
    command.args(["demo", "--once"]);
    let text = run(command).ok().text();
    for word in
        ["mailbox", "lane", "feed", "ledger", "journal", "consignment", "sequencer", "uplink", "audience", "mTLS"]
    {
        assert!(!text.to_lowercase().contains(word), "'{word}' in:\n{text}");
    }
    for word in ["hub", "node", "agency", "agreement", "exchange", "Everybody received as agreed"] {
        assert!(text.contains(word), "no '{word}' in:\n{text}");
    }
    let folder = text.lines().find_map(|line| line.strip_prefix("stopped; the folder ")).unwrap();
    let path = folder.strip_suffix(" was removed").unwrap();
    assert!(!std::path::Path::new(path).exists());
}

#[test]
fn the_printed_commands_run_as_printed_and_ctrl_c_ends_everything() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a demo's folder");
    let mut command = Command::new(executable());
    command.arg("demo").arg("--dir").arg(&dir);
    let demo = Process::start_command(&place.path().join("log"), command);
    demo.line_after("It all runs on.");
    let mut commands = Vec::new();
    loop {
        let line = demo.line().expect("the demo stays up");
        if line.starts_with("Ctrl-C") {
            break;
        }
        if line.starts_with("  '") {
            commands.push(line.trim().to_owned());
        }
    }
    assert!(commands.len() >= 8, "{commands:#?}");
    for line in &commands {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir("/");
        run(shell).ok();
    }
    let addresses: Vec<String> =
        ["hub", "node-kaz", "node-irn", "node-tur", "node-kor"].map(|name| listen(&dir.join(name))).into();
    for address in &addresses {
        TcpStream::connect(address).unwrap();
    }
    demo.signal(Signal::INT);
    let (status, rest) = demo.wait();
    assert_eq!(status.code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("was kept")), "{rest:?}");
    for address in &addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} still answers");
    }
    // What it left can be served again.
    concord(words!["verify", dir.join("node-kor")]).ok();
}

#[test]
fn a_killed_demo_leaves_no_process_behind() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("demo");
    let demo = Process::start(&place.path().join("log"), words!["demo", "--dir", dir]);
    while demo.json()["event"] != "try" {}
    let addresses: Vec<String> = ["hub", "node-kaz", "node-kor"].map(|name| listen(&dir.join(name))).into();
    demo.kill();
    let since = std::time::Instant::now();
    // They drain, each by itself.
    while addresses.iter().any(|address| TcpStream::connect(address).is_ok()) {
        assert!(since.elapsed() < concord_tests::DEADLINE, "a process was left");
    }
}

fn listen(dir: &std::path::Path) -> String {
    let text = std::fs::read_to_string(dir.join("addresses.json")).unwrap();
    text_of(&serde_json::from_str(&text).unwrap(), "listen")
}
