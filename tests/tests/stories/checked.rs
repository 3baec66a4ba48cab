//! `concord node check` and `concord hub check`: before a node joins, after, and while it serves; with each fault the line names the cause
//! and the next step. And a clock that is wrong is said to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use concord_tests::{Ended, Forum, concord, executable, get, replace_line, run, words};
use serde_json::Value;

const LINES: [&str; 13] = [
    "folder",
    "own-certificate",
    "disk",
    "fdatasync",
    "name",
    "tcp",
    "proxy",
    "tls",
    "hub-certificate",
    "hybrid-key",
    "clock",
    "round-trip",
    "registry",
];
const CLOCK: &str = "CONCORD_CLOCK_OFFSET_SECONDS";

fn checked(dir: &Path) -> Ended {
    concord(words!["node", "check", "--dir", dir])
}

/// The same on a machine whose clock is so many seconds off.
fn at(seconds: &str, args: Vec<std::ffi::OsString>) -> Ended {
    let mut command = Command::new(executable());
    command.args(["--json", "--with-parent"]).args(args).env(CLOCK, seconds);
    run(command)
}

fn line(ended: &Ended, name: &str) -> Value {
    let lines = ended.lines();
    lines.iter().find(|line| line["check"] == name).unwrap_or_else(|| panic!("no line {name}: {ended}")).clone()
}

/// These lines do not hold, and no other.
#[track_caller]
fn fails(ended: &Ended, names: &[&str]) {
    ended.refused(1, "CHECK_FAILED");
    let failed: Vec<String> = ended
        .lines()
        .iter()
        .filter(|line| line["result"] == "failed")
        .map(|line| line["check"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(failed, names, "{ended}");
    for name in names {
        assert!(line(ended, name)["next"].as_str().is_some_and(|next| next.len() > 10), "{ended}");
    }
}

#[track_caller]
fn says(ended: &Ended, name: &str, field: &str, words: &str) {
    let found = line(ended, name);
    assert!(
        found[field].as_str().is_some_and(|text| text.contains(words)),
        "{name}.{field} without '{words}': {ended}"
    );
}

#[test]
fn a_node_is_checked_before_it_joins_after_and_while_it_serves_and_does_not_notice() {
    let mut forum = Forum::empty();
    let dir = forum.node_dir("KAZ");
    let bundle = forum.enrol("KAZ");
    // What cannot be tried yet is no failure, and it is said how it can be.
    let before = checked(&dir).ok();
    assert_eq!(before.lines().len(), LINES.len());
    says(&before, "tls", "message", "--hub HOST:PORT, or --bundle FILE");
    assert!(before.stderr.contains("not tried yet: name, tcp"), "{before}");
    assert_eq!(line(&before, "own-certificate")["result"], "ok");

    concord(words!["node", "join", bundle, "--dir", dir]).ok();
    let after = checked(&dir).ok();
    let names: Vec<String> = after.lines().iter().map(|line| line["check"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, LINES);
    assert_eq!(line(&after, "tls")["values"]["key_exchange"], "X25519MLKEM768");

    forum.start_node("KAZ");
    forum.await_alarm(&dir, "[]");
    let fed = forum.status(&dir);
    for _ in 0..3 {
        checked(&dir).ok();
    }
    let still = forum.status(&dir);
    assert_eq!((&fed["hub_connected"], &still["hub_connected"]), (&true.into(), &true.into()));
    assert_eq!(fed["journal"], still["journal"], "a stream began anew, or an entry was made");
    assert!(!fs::read_to_string(forum.log("KAZ")).unwrap().contains("STREAM_REPLACED"));
    let audit = concord(words!["audit", "--refused", "--profile", forum.hub_dir().join("operator")]).ok();
    assert!(audit.lines().is_empty(), "the hub noted a refusal: {audit}");

    let hub = concord(words!["hub", "check", "--dir", forum.hub_dir()]);
    says(&hub, "listen", "message", "this hub serves at");
    forum.stop_hub();
    concord(words!["hub", "check", "--dir", forum.hub_dir()]).ok();

    // What nodes are told leads to this hub, or, while it serves, that is doubted.
    let listen = forum.address(&forum.hub_dir(), "listen");
    let announced = |forum: &mut Forum, address: &str| {
        forum.start_hub();
        forum.configure_hub(|settings| concord_tests::replace_line(settings, "announce", &format!("[{address:?}]")));
        let checked = concord(words!["hub", "check", "--dir", forum.hub_dir()]).ok();
        forum.stop_hub();
        checked
    };
    let right = announced(&mut forum, &listen);
    assert_eq!(line(&right, "announce")["result"], "ok");
    says(&right, "announce", "message", "this hub answers at");
    let wrong = announced(&mut forum, &format!("127.0.0.1:{}", concord_tests::port_of_its_own()));
    assert_eq!(line(&wrong, "announce")["result"], "warning");
    says(&wrong, "announce", "next", "from another network");
}

#[test]
fn before_it_joins_the_way_is_tried_by_the_hubs_address_and_all_of_it_by_the_bundle() {
    let forum = Forum::empty();
    let dir = forum.node_dir("KAZ");
    concord(words!["node", "init", "--dir", dir, "--participant", "KAZ"]).ok();
    let [hub, admin] = ["listen", "admin"].map(|which| forum.address(&forum.hub_dir(), which));
    let by = |dir: &Path, options: Vec<std::ffi::OsString>| {
        concord([words!["node", "check", "--dir", dir], options].concat())
    };
    let results = |ended: &Ended| -> BTreeMap<String, String> {
        let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
        ended.lines().iter().map(|line| (text(line, "check"), text(line, "result"))).collect()
    };
    // A hub that nothing is known of but where it is.
    let reached = by(&dir, words!["--hub", hub]).ok();
    let of = results(&reached);
    for name in ["name", "tcp", "proxy", "tls", "hybrid-key", "clock"] {
        assert_eq!(of[name], "ok", "{name}: {reached}");
    }
    for name in ["hub-certificate", "round-trip", "registry"] {
        assert_eq!(of[name], "untried", "{name}: {reached}");
    }
    says(&reached, "tls", "message", "reached, not known yet");
    says(&reached, "hub-certificate", "message", "--bundle FILE");
    assert_eq!(line(&reached, "hybrid-key")["values"], serde_json::json!({"with": true, "without": true}));
    // Nobody there, and something else there.
    let port = concord_tests::port_of_its_own();
    let closed = by(&dir, words!["--hub", format!("127.0.0.1:{port}")]);
    fails(&closed, &["tcp"]);
    says(&closed, "tcp", "next", "firewall");
    fails(&by(&dir, words!["--hub", admin]), &["tls", "hybrid-key"]);
    fails(&by(&dir, words!["--hub", "hub.example"]), &["name"]);
    // One whose certificates have yet to come finds out as much.
    let awaits = forum.path().join("awaits");
    concord(words!["node", "init", "--csr", "--dir", awaits, "--participant", "IRN"]).ok();
    let early = by(&awaits, words!["--hub", hub]);
    fails(&early, &["own-certificate"]);
    says(&early, "tls", "message", "reached, not known yet");

    // With the bundle all of it is tried: it names the hub, and the node is enrolled by then.
    let (bundle, officer) = (forum.path().join("kaz.bundle.json"), forum.hub_dir().join("officer"));
    let request = dir.join("join-request.json");
    concord(words!["participant", "enrol", request, "--yes", "--profile", officer, "--out", bundle]).ok();
    let whole = by(&dir, words!["--bundle", bundle]).ok();
    assert!(results(&whole).values().all(|result| result == "ok"), "{whole}");
    assert!(!dir.join("hub.json").exists(), "a check joins nobody");
    fails(&by(&dir, words!["--bundle", bundle, "--hub", format!("127.0.0.1:{port}")]), &["tcp"]);
    fails(&by(&dir, words!["--bundle", request]), &["hub"]);
    // Another node's bundle: the hub does not know this one.
    let other = forum.path().join("other");
    concord(words!["node", "init", "--dir", other, "--participant", "TUR"]).ok();
    let stranger = by(&other, words!["--bundle", bundle]);
    fails(&stranger, &["tls", "registry"]);
    says(&stranger, "registry", "message", "made for other keys");
}

#[test]
fn each_fault_is_named_by_its_line_with_the_next_step() {
    let mut forum = Forum::of(&["KAZ"]);
    let dir = forum.node_dir("KAZ");
    let toml = dir.join("node.toml");
    let settings = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, replace_line(&settings, "disk_reserve_bytes", "9000000000000000000")).unwrap();
    let full = checked(&dir);
    fails(&full, &["disk"]);
    says(&full, "disk", "next", "disk_reserve_bytes");
    fs::write(&toml, &settings).unwrap();

    // Another signing key than the one that is enrolled: TLS stands, and the registry tells.
    let (key, other) = (dir.join("signing/key.pem"), forum.path().join("other"));
    let kept = fs::read(&key).unwrap();
    concord(words!["node", "init", "--dir", other, "--participant", "KAZ"]).ok();
    fs::copy(other.join("signing/key.pem"), &key).unwrap();
    let swapped = checked(&dir);
    fails(&swapped, &["registry"]);
    says(&swapped, "registry", "next", "this folder's fingerprint is");
    fs::write(&key, &kept).unwrap();

    // The hub's anchor is another one than the bundle named: what answers is not the hub that was joined.
    let another = forum.path().join("another-hub");
    concord(words!["hub", "init", "--dir", another]).ok();
    let own = [forum.hub_dir(), forum.path().join("hub-kept")];
    forum.stop_hub();
    fs::rename(&own[0], &own[1]).unwrap();
    fs::rename(&another, &own[0]).unwrap();
    fs::copy(own[1].join("addresses.json"), own[0].join("addresses.json")).unwrap();
    forum.start_hub();
    let wrong = checked(&dir);
    fails(&wrong, &["tls", "hub-certificate"]);
    says(&wrong, "hub-certificate", "next", "compare its fingerprint");
    forum.stop_hub();

    let away = checked(&dir);
    fails(&away, &["tcp"]);
    says(&away, "tcp", "next", "see whether the hub runs");
    says(&away, "round-trip", "message", "the hub was not reached");

    fs::rename(&own[0], &another).unwrap();
    fs::rename(&own[1], &own[0]).unwrap();
    forum.start_hub();
    // Other keys are enrolled by now.
    let request = other.join("join-request.json");
    let officer = forum.hub_dir().join("officer");
    let reference = "note verbale 17/2026";
    let out = forum.path().join("new.json");
    concord(words![
        "participant",
        "enrol",
        request,
        "--replace",
        "--reference",
        reference,
        "--profile",
        officer,
        "--out",
        out
    ])
    .ok();
    let replaced = checked(&dir);
    fails(&replaced, &["tls", "registry"]);
    says(&replaced, "registry", "message", "other keys enrolled by now");
}

#[test]
fn a_wrong_clock_is_said_to_be_by_checks_commands_status_and_metrics() {
    let mut forum = Forum::of(&["KAZ"]);
    let (dir, operator) = (forum.node_dir("KAZ"), forum.node_dir("KAZ").join("operator"));
    let check = words!["node", "check", "--dir", dir];
    let status = words!["status", "--profile", operator];

    // Three hours: every certificate holds, and everything is served.
    let ahead = at("10800", check.clone());
    fails(&ahead, &["clock"]);
    says(&ahead, "clock", "message", "h ahead of the hub's");
    let offset = line(&ahead, "clock")["values"]["offset_seconds"].as_f64().unwrap();
    assert!((10_000.0..11_600.0).contains(&offset), "{offset}");
    let told = at("10800", status.clone()).ok();
    assert!(
        told.stderr.contains("this machine's clock is 3 h ahead of") || told.stderr.contains("2 h 59 min"),
        "{told}"
    );
    assert!(!concord(status.clone()).ok().stderr.contains("clock"));

    // Two years: no certificate holds by it. That is the clock's fault, and said so; by the hub's own, authenticated word.
    for (seconds, way) in [("63072000", "ahead of"), ("-63072000", "behind")] {
        let far = at(seconds, check.clone());
        says(&far, "clock", "message", "days");
        says(&far, "clock", "message", way);
        says(&far, "hub-certificate", "next", "see the line clock");
        // The certificate in the folder is not to blame either, and nobody is sent to renew it.
        says(&far, "own-certificate", "message", "By this machine's clock, which is wrong");
        says(&far, "own-certificate", "next", "the certificate is not to blame");
        let failed = at(seconds, status.clone());
        failed.refused(1, "CLOCK_WRONG");
        assert!(failed.message().contains(way), "{failed}");
    }

    // The node itself.
    forum.stop_node("KAZ");
    forum.start_node_with("KAZ", &BTreeMap::from([(CLOCK, "1800")]));
    let alarms = forum.await_alarm(&dir, "clock-wrong");
    assert!(alarms.contains("min ahead of the hub's"), "{alarms}");
    let told = forum.status(&dir);
    assert_eq!(told["notes"], serde_json::json!(["clock-wrong"]), "{told}");
    let near = |value: &Value| value.as_f64().is_some_and(|seconds| (1500.0..2100.0).contains(&seconds));
    assert!(near(&told["clock_offset_seconds"]), "{told}");
    let nodes = forum.status(&forum.hub_dir())["nodes"].clone();
    assert!(near(&nodes[0]["clock_offset_seconds"]), "{nodes}");
    let metrics = get(&forum.address(&dir, "admin"), "/metrics").body;
    assert!(
        metrics.contains("\nconcord_clock_offset_seconds 1") || metrics.contains("\nconcord_clock_offset_seconds 2")
    );
    let of_hub = get(&forum.address(&forum.hub_dir(), "admin"), "/metrics").body;
    assert!(of_hub.contains("concord_node_clock_offset_seconds{participant=\"KAZ\"}"), "{of_hub}");
    assert_eq!(get(&forum.address(&dir, "admin"), "/readyz").status, 200);
    forum.stop_node("KAZ");

    // By this one the hub's certificate is over: an alarm, since nothing gets out.
    forum.start_node_with("KAZ", &BTreeMap::from([(CLOCK, "63072000")]));
    let alarms = far_alarm(&forum, &dir);
    assert!(
        alarms.contains("729 days ahead of the hub's") || alarms.contains("730 days ahead of the hub's"),
        "{alarms}"
    );
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    forum.await_alarm(&dir, "[]");
}

/// What `/readyz` says while it stands: the node's own certificate does not hold for a client whose clock is right, either.
fn far_alarm(forum: &Forum, dir: &Path) -> String {
    let since = std::time::Instant::now();
    loop {
        let page = get(&forum.address(dir, "admin"), "/readyz");
        if page.body.contains("clock-wrong") {
            assert_eq!(page.status, 503);
            return page.body;
        }
        assert!(since.elapsed() < concord_tests::DEADLINE, "{}", page.body);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
