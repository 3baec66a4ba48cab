//! What the secretariat and operators see of how all is: by names and counts, never by content.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use concord_tests::{DEADLINE, Forum, Process, get, text_of, words};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn health(status: &Value, code: &str) -> Value {
    let all = status["health"].as_array().unwrap();
    all.iter().find(|one| text_of(one, "participant") == code).unwrap_or_else(|| panic!("no {code}: {status}")).clone()
}

/// Asks the hub again until it says this of a node.
fn await_health(forum: &Forum, code: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let one = health(&forum.status(&forum.hub_dir()), code);
        if holds(&one) {
            return one;
        }
        assert!(since.elapsed() < DEADLINE, "{code}: {what}: {one}");
    }
}

#[test]
fn the_secretariat_sees_of_every_node_contact_lag_version_clock_certificate_and_names_of_alarms() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    for code in ["KAZ", "IRN"] {
        let one = await_health(&forum, code, "said nothing", |one| one["version"].is_string());
        assert_eq!(text_of(&one, "version"), env!("CARGO_PKG_VERSION"));
        assert!(one["connected"] == true && one["contact_at"].is_string(), "{one}");
        // Of one machine, and of one word that came at once.
        assert!(one["clock_ahead_seconds"].as_f64().unwrap().abs() < 60.0, "{one}");
        assert!(one["certificate_days_left"].as_i64().unwrap() > 300, "{one}");
        assert_eq!(one["alarms"], Value::Array(Vec::new()));
    }

    // What waits for one that is away, and when it was heard last.
    forum.stop_node("IRN");
    let away = await_health(&forum, "IRN", "connected still", |one| one["connected"] == false);
    forum.agency("KAZ").submit("waits", "--wait recorded --lane priority");
    let waits = health(&forum.status(&forum.hub_dir()), "IRN");
    assert_eq!((&waits["contact_at"], waits["connected"] == false), (&away["contact_at"], true));
    let lanes = waits["lanes"].as_array().unwrap();
    let lag = lanes.iter().find(|lane| text_of(lane, "lane") == "priority").unwrap();
    assert!(lag["lag_items"] == 1 && lag["lag_seconds"].as_f64().unwrap() > 0.0, "{waits}");

    // The name of what stands at a node, and not a word of what it says.
    let hold = ["participant", "hold", "KAZ", "--reason", "it-repeats-itself"];
    let officer = forum.hub_dir().join("officer");
    concord_tests::concord(hold.iter().map(Into::into).chain(words!["--profile", officer])).ok();
    let held = await_health(&forum, "KAZ", "says nothing of the hold", |one| one["notes"].to_string().contains("held"));
    assert!(!held.to_string().contains("it-repeats-itself"), "{held}");
    // A hub that was started since has it again.
    forum.stop_hub();
    forum.start_hub();
    await_health(&forum, "KAZ", "said nothing again", |one| one["notes"].to_string().contains("held"));
    let shown = health(&forum.status(&forum.hub_dir()), "IRN");
    assert!(shown["version"].is_null() && shown["contact_at"].is_null(), "{shown}");
}

#[test]
fn a_watched_status_is_told_again_and_again_also_while_the_server_is_away_until_it_is_ended() {
    let mut forum = Forum::of(&["KAZ"]);
    let operator = forum.hub_dir().join("operator");
    let log = forum.path().join("watch.log");
    let watching = Process::start(&log, words!["status", "--watch", "1", "--profile", operator]);
    assert_eq!(text_of(&watching.json(), "role"), "hub");
    assert_eq!(text_of(&watching.json(), "role"), "hub");
    forum.stop_hub();
    forum.start_hub();
    let since = Instant::now();
    while watching.json()["uptime_seconds"].as_f64().unwrap() > 1.0 + since.elapsed().as_secs_f64() {
        assert!(since.elapsed() < DEADLINE, "the hub that was started again is not seen");
    }
    watching.signal(Signal::TERM);
    let (status, _) = watching.wait();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_probe_goes_to_the_hub_and_back_on_every_lane_and_leaves_nothing_and_a_way_that_is_shut_is_said() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let node = forum.node_dir("KAZ");
    let tail = |forum: &Forum, dir: &std::path::Path| forum.status(dir)["journal"]["sequence"].as_u64().unwrap();
    let probe = || concord_tests::concord(words!["node", "probe", "--profile", node.join("operator")]);
    let sent = forum.agency("KAZ").submit("stands", "--wait delivered");
    forum.agency("IRN").receive(1);
    forum.agency("KAZ").await_taken(&sent.id, "IRN");
    // Until nothing else is journaled beside it, which a busy machine may be late with.
    let since = Instant::now();
    let lines = loop {
        let before = [tail(&forum, &forum.hub_dir()), tail(&forum, &node)];
        let lines = probe().ok().lines();
        if [tail(&forum, &forum.hub_dir()), tail(&forum, &node)] == before {
            break lines;
        }
        assert!(since.elapsed() < DEADLINE, "a probe is recorded nowhere");
    };
    let lanes: Vec<_> = lines.iter().map(|line| text_of(line, "lane")).collect();
    assert_eq!(lanes, ["flash", "priority", "routine"]);
    assert!(lines.iter().all(|line| line["seconds"].as_f64().unwrap() > 0.0 && line["lost"].is_null()), "{lines:?}");
    let probes = forum.status(&node)["probes"].clone();
    assert_eq!(probes.as_array().unwrap().len(), 3);

    // A held node neither hands in nor receives, though its hub is connected.
    let officer = forum.hub_dir().join("officer");
    let hold = ["participant", "hold", "KAZ", "--reason", "it-floods"];
    concord_tests::concord(hold.iter().map(Into::into).chain(words!["--profile", officer])).ok();
    forum.await_alarm(&node, "held");
    let shut = probe();
    shut.refused(4, "PROBE_LOST");
    let lost = shut.lines();
    assert!(lost.iter().all(|line| line["seconds"].is_null() && line["lost"].is_string()), "{lost:?}");
    concord_tests::concord(words!["participant", "release", "KAZ", "--profile", officer]).ok();
    let since = Instant::now();
    while probe().code != Some(0) {
        assert!(since.elapsed() < DEADLINE, "the way stays shut");
    }
    // Nobody else's node takes part in it, and an agency has no probe.
    concord_tests::concord(words!["node", "probe", "--profile", forum.agency("KAZ").profile])
        .refused(3, "CALLER_NOT_ALLOWED");
    concord_tests::concord(words!["node", "probe", "--profile", officer]).refused(3, "CALLER_NOT_ALLOWED");
    forum.stop_hub();
}

/// What a node says at `/readyz`, once it says this; and how long that took.
#[track_caller]
fn await_readyz(forum: &Forum, dir: &std::path::Path, word: &str, status: u16) -> (String, Duration) {
    let (since, address) = (Instant::now(), forum.address(dir, "admin"));
    loop {
        let page = get(&address, "/readyz");
        if page.body.contains(word) {
            assert_eq!(page.status, status, "{}", page.body);
            return (page.body, since.elapsed());
        }
        assert!(since.elapsed() < 2 * DEADLINE, "{word} is not said: {}", page.body);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_way_that_is_silent_while_the_hub_is_connected_is_an_alarm_by_the_nodes_own_probes_until_one_comes_back() {
    let mut forum = Forum::of(&["KAZ"]);
    let node = forum.node_dir("KAZ");
    forum.configure_node("KAZ", |settings| concord_tests::replace_line(settings, "every_seconds", "10"));
    // By themselves, without anybody who asks.
    let since = Instant::now();
    let probed = |forum: &Forum| forum.status(&node)["probes"].as_array().map_or(0, Vec::len);
    while probed(&forum) < 3 {
        assert!(since.elapsed() < DEADLINE, "no probe goes by itself");
    }
    forum.await_alarm(&node, "[]");

    // The hub is there and takes in what is sent; nothing of it comes back.
    forum.stop_hub();
    forum.start_hub_with(&BTreeMap::from([("CONCORD_FAIL_AT", "hub.probe.goes-back")]));
    let (told, _) = await_readyz(&forum, &node, "probe-silent", 503);
    assert!(told.contains("flash, priority, routine") && told.contains("concord node probe"), "{told}");
    assert_eq!(forum.status(&node)["hub_connected"], true);
    assert!(forum.status(&node)["alarms"].to_string().contains("probe-silent"));
    let metrics = get(&forum.address(&node, "admin"), "/metrics").body;
    assert!(metrics.contains("concord_alarm{alarm=\"probe-silent\"} 1"), "{metrics}");
    // The secretariat is told the name by the node itself, whose reports go another way.
    await_health(&forum, "KAZ", "probe-silent", |one| one["alarms"].to_string().contains("probe-silent"));

    forum.stop_hub();
    forum.start_hub();
    await_readyz(&forum, &node, "\"ready\":true", 200);
    assert!(!forum.status(&node)["alarms"].to_string().contains("probe-silent"));
    assert!(forum.status(&node)["probes"].as_array().unwrap().iter().all(|probe| probe["lost"].is_null()));
}

#[test]
fn a_hub_that_hangs_is_told_after_half_a_minute_without_a_word_and_no_more_when_it_goes_on() {
    let forum = Forum::of(&["KAZ"]);
    let node = forum.node_dir("KAZ");
    await_health(&forum, "KAZ", "its word", |one| one["version"].is_string());
    let hub = Pid::from_raw(i32::try_from(forum.hub_pid()).unwrap()).unwrap();
    kill_process(hub, Signal::STOP).unwrap();
    let (told, took) = await_readyz(&forum, &node, "hub-unreachable", 503);
    println!("a hub that hangs was told after {took:?}");
    // No more than that, and what a busy machine takes: the time until the dead connection is noticed is no part of it.
    assert!(took < Duration::from_secs(45), "{took:?}: {told}");
    // Nor is its port free, though the settings name none.
    let checked = concord_tests::concord(words!["hub", "check", "--dir", forum.hub_dir()]);
    checked.refused(1, "CHECK_FAILED");
    let line = |name: &str| checked.lines().into_iter().find(|line| line["check"] == name).unwrap();
    let (listen, approvals) = (line("listen"), line("approvals"));
    assert_eq!((&listen["result"], &approvals["result"]), (&"failed".into(), &"untried".into()), "{checked}");
    let address = forum.address(&forum.hub_dir(), "listen");
    assert!(text_of(&listen, "message").contains(&address) && text_of(&listen, "next").contains("hangs"), "{listen}");
    kill_process(hub, Signal::CONT).unwrap();
    await_readyz(&forum, &node, "\"ready\":true", 200);
}

#[test]
fn a_node_that_was_here_and_is_away_for_too_long_is_noted_until_it_is_back_unless_it_is_held() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    let hub = forum.hub_dir();
    forum.stop_hub();
    let path = hub.join("hub.toml");
    let changed = concord_tests::replace_line(&std::fs::read_to_string(&path).unwrap(), "away_seconds", "1");
    std::fs::write(&path, changed).unwrap();
    forum.start_hub();
    forum.stop_node("IRN");
    let said = forum.await_alarm(&hub, "node-away");
    assert!(said.contains("IRN since ") && !said.contains("KAZ"), "{said}");
    forum.start_node("IRN");
    let since = Instant::now();
    while forum.status(&hub)["notes"].to_string().contains("node-away") {
        assert!(since.elapsed() < DEADLINE, "it is connected again");
    }
    // Of one that is held nobody expects that it is here.
    let officer = hub.join("officer");
    concord_tests::concord(words![
        "participant",
        "hold",
        "TUR",
        "--reason",
        "its key may be out",
        "--profile",
        officer
    ])
    .ok();
    forum.stop_node("TUR");
    forum.stop_node("IRN");
    let said = forum.await_alarm(&hub, "node-away");
    assert!(said.contains("IRN") && !said.contains("TUR"), "{said}");
}

#[test]
fn what_waits_for_too_long_or_for_nobody_is_noted_where_it_waits_and_told_to_its_sender() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let (hub, kaz, irn) = (forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN"));
    forum.stop_node("KAZ");
    forum.stop_node("IRN");
    forum.stop_hub();
    for (dir, file) in [(&hub, "hub.toml"), (&kaz, "node.toml"), (&irn, "node.toml")] {
        let path = dir.join(file);
        let changed = concord_tests::replace_line(&std::fs::read_to_string(&path).unwrap(), "routine_seconds", "1");
        std::fs::write(&path, changed).unwrap();
    }
    forum.start_node("KAZ");
    let sender = forum.agency("KAZ");
    let sent = sender.submit("waits here", "--exercise");
    let said = forum.await_alarm(&kaz, "overdue");
    assert!(said.contains("EXERCISE: 1 exchanges"), "{said}");
    let tracked = sender.track(&sent.id);
    assert!(tracked["overdue"] == true && text_of(&tracked, "state") == "queued", "{tracked}");
    let why = concord_tests::concord(words!["why", sent.id, "--profile", sender.profile]).ok().json();
    let waits = why["whereabouts"][0].clone();
    assert!(waits["code"] == "HUB_AWAY" && waits["overdue"] == true, "{why}");
    assert!(text_of(&waits, "said").contains("It is overdue"), "{why}");

    // It goes on, and waits for the recipient's node.
    forum.start_hub();
    let said = forum.await_alarm(&hub, "overdue");
    assert!(said.contains("EXERCISE: 1 for IRN"), "{said}");
    let status = forum.status(&hub);
    let routine =
        health(&status, "IRN")["lanes"].as_array().unwrap().iter().find(|lane| lane["lane"] == "routine").cloned();
    assert_eq!(routine.unwrap()["oldest_is_exercise"], true, "{status}");
    assert!(status["mailboxes"].to_string().contains("\"oldest_is_exercise\":true"), "{status}");
    let in_words = concord_tests::run({
        let mut command = std::process::Command::new(concord_tests::executable());
        command.args(words!["status", "--profile", hub.join("operator")]);
        command
    });
    assert!(in_words.ok().text().contains("(the oldest: EXERCISE)"));
    let tracked = sender.track(&sent.id);
    assert!(tracked["recipients"][0]["overdue"] == true, "{tracked}");
    let since = Instant::now();
    while forum.status(&kaz)["notes"].to_string().contains("overdue") {
        assert!(since.elapsed() < DEADLINE, "nothing waits at the sender's node any more");
    }

    // It comes, and no agency may have it.
    forum.start_node("IRN");
    let operator = irn.join("operator");
    concord_tests::concord(words!["agency", "revoke", "agency", "--receive", "--yes", "--profile", operator]).ok();
    let second = sender.submit("for nobody", "--wait delivered");
    let said = forum.await_alarm(&irn, "uncollected");
    assert!(said.contains("concord agency grant") && !said.contains("for nobody"), "{said}");
    // Its sender hears that nobody takes it, and not why: that is its recipient's.
    let since = Instant::now();
    while sender.track(&second.id)["recipients"][0]["overdue"] == false {
        assert!(since.elapsed() < DEADLINE, "its sender is not told that nobody takes it");
    }
    let in_words = std::process::Command::new(concord_tests::executable())
        .args(words!["track", second.id, "--profile", sender.profile])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&in_words.stdout).into_owned();
    assert!(text.contains("delivered, NOT TAKEN YET"), "{text}");
    let said = concord_tests::concord(words!["why", second.id, "--profile", sender.profile]).ok().json();
    assert_eq!(said["whereabouts"][0]["code"], "NOT_TAKEN", "{said}");
    let officer = forum.officer("IRN");
    concord_tests::concord(words!["agency", "grant", "agency", "--receive", "--all", "--profile", officer]).ok();
    forum.agency("IRN").receive(2);
    let since = Instant::now();
    while forum.status(&irn)["notes"].as_array().unwrap().iter().any(|note| note == "uncollected" || note == "overdue")
    {
        assert!(since.elapsed() < DEADLINE, "all is taken");
    }
    while sender.track(&second.id)["overdue"] == true {
        assert!(since.elapsed() < DEADLINE, "it was taken");
    }
}
