//! Hub and node as servers: ports, ends, health, reflection, admin pages, status.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use concord_tests::{Forum, ask_server, exchange_ids, get, text_of};

const HEALTH_AND_REFLECTION: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

#[test]
fn ports_stay_over_restarts_and_sigterm_ends_with_0() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let addresses = |forum: &Forum| {
        let dirs = [forum.hub_dir(), forum.node_dir("KAZ")];
        dirs.map(|dir| (forum.address(&dir, "listen"), forum.address(&dir, "admin")))
    };
    let before = addresses(&forum);
    let sent = forum.agency("KAZ").submit("before", "--wait recorded");
    forum.stop_node("KAZ");
    forum.stop_hub();
    forum.start_hub();
    forum.start_node("KAZ");
    assert_eq!(addresses(&forum), before);
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent.id]);
}

#[test]
fn sigterm_ends_a_server_with_streams_open_on_it() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let following = forum.agency("IRN").follow();
    let sent = forum.agency("KAZ").submit("one", "");
    assert_eq!(text_of(&following.json(), "exchange_id"), sent.id);
    let since = std::time::Instant::now();
    forum.stop_hub();
    forum.stop_node("IRN");
    assert!(since.elapsed().as_secs() < 30, "the drain took {:?}", since.elapsed());
}

#[test]
fn health_and_reflection_answer_to_any_tool_with_a_certificate() {
    let forum = Forum::of(&["KAZ"]);
    let (hub, node) =
        (ask_server(&forum.hub_dir().join("operator")), ask_server(&forum.node_dir("KAZ").join("operator")));
    assert!(hub.serving && node.serving);
    for says in [&hub, &node] {
        assert!(HEALTH_AND_REFLECTION.iter().all(|service| says.services.iter().any(|one| one == service)), "{says:?}");
        assert!(says.files >= 1);
        // What is stored is never shown.
        assert!(says.services.iter().all(|service| !service.contains("journal")), "{says:?}");
    }
    let serves = |services: &[String], name: &str| services.iter().any(|service| service.ends_with(name));
    assert!(serves(&hub.services, ".ExchangeService") && !serves(&hub.services, ".AgencyService"), "{hub:?}");
    assert!(serves(&node.services, ".AgencyService") && !serves(&node.services, ".ExchangeService"), "{node:?}");
}

#[test]
fn the_admin_pages_tell_life_readiness_with_reasons_and_metrics_without_content() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let sent = forum.agency("KAZ").submit("the-body", "--title the-title --wait delivered");
    forum.join("TUR");
    for dir in [forum.hub_dir(), forum.node_dir("KAZ")] {
        let admin = forum.address(&dir, "admin");
        assert_eq!(get(&admin, "/healthz").status, 200);
        let ready = get(&admin, "/readyz");
        assert_eq!((ready.status, ready.body.trim()), (200, r#"{"ready":true,"reasons":[]}"#));
        assert_eq!(get(&admin, "/nothing").status, 404);
        let metrics = get(&admin, "/metrics");
        assert_eq!(metrics.status, 200);
        assert!(metrics.body.lines().any(|line| line.starts_with("concord_")), "{}", metrics.body);
        for word in ["the-body", "the-title", &sent.id[..8]] {
            assert!(!metrics.body.contains(word), "{}", metrics.body);
        }
    }
    let recorded = get(&forum.address(&forum.hub_dir(), "admin"), "/metrics").body;
    assert!(recorded.lines().any(|line| line == "concord_exchanges_recorded_total 1"), "{recorded}");
}

#[test]
fn a_node_that_has_not_joined_serves_and_says_what_it_lacks() {
    let mut forum = Forum::of(&["IRN"]);
    let dir = forum.node_dir("KAZ");
    concord_tests::concord(concord_tests::words!["node", "init", "--dir", dir, "--participant", "KAZ"]).ok();
    concord_tests::concord(concord_tests::words!["agency", "add", "agency", "--dir", dir]).ok();
    forum.start_node("KAZ");
    let ready = get(&forum.address(&dir, "admin"), "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("not-joined") && ready.body.contains("concord node join"), "{}", ready.body);
    forum.agency("KAZ").try_submit("x", "--agreement KAZ/x --measure challenges.2").refused(3, "NOT_JOINED");
    let status = forum.status(&dir);
    assert!(status["hub"].is_null() && !status["alarms"].as_array().unwrap().is_empty(), "{status}");
}

#[test]
fn status_tells_what_an_operator_needs_and_no_content() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    forum.agency("KAZ").submit("the-body", "--title the-title --wait delivered");
    let node = forum.status(&forum.node_dir("IRN"));
    assert_eq!(node["role"], "node");
    assert_eq!(node["hub_connected"], true);
    assert!(node["certificate_days_left"].as_i64().unwrap() > 300, "{node}");
    assert_eq!(node["agencies"][0]["lag_items"], 1, "{node}");
    let hub = forum.status(&forum.hub_dir());
    assert_eq!(hub["role"], "hub");
    assert_eq!(hub["agreements_in_force"], 1);
    assert_eq!(hub["nodes"].as_array().unwrap().len(), 2);
    assert!(!hub.to_string().contains("the-title") && !node.to_string().contains("the-title"));
    forum.stop_node("IRN");
    let since = std::time::Instant::now();
    while forum.status(&forum.hub_dir())["nodes"].as_array().unwrap().len() == 2 {
        assert!(since.elapsed() < concord_tests::DEADLINE, "the hub did not notice");
    }
}

#[test]
fn no_log_holds_a_title_a_body_or_a_key() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    kaz.submit("the-secret-body", "--title the-secret-title --caveat the-secret-caveat --wait delivered");
    irn.receive(1);
    kaz.try_submit("the-secret-body", "--agreement KAZ/none --title the-secret-title").refused(3, "AGREEMENT_UNKNOWN");
    forum.stop_node("KAZ");
    forum.stop_node("IRN");
    forum.stop_hub();
    for name in ["hub", "KAZ", "IRN"] {
        let log = std::fs::read_to_string(forum.log(name)).unwrap();
        assert!(!log.contains("the-secret") && !log.contains("PRIVATE KEY"), "{log}");
        // One JSON object per line, for whoever collects it.
        for line in log.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{name}: {line}");
        }
    }
}

/// Every alarm and note that a server can raise stands in the README's table, and nothing else does.
#[test]
fn every_alarm_that_a_server_can_raise_is_explained_in_the_readme() {
    let raised: BTreeSet<_> = sources().iter().flat_map(|text| text.lines()).flat_map(alarms_named).collect();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(raised.len() > 20);
    assert_eq!(raised, first_cells(&readme, "### Alarms and notes"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of every source of the program.
pub(crate) fn sources() -> Vec<String> {
    let (mut texts, mut folders) = (Vec::new(), vec![root().join("crates")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                texts.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
}

/// What stands between backticks in the first cells of the first table behind a heading.
pub(crate) fn first_cells(document: &str, heading: &str) -> BTreeSet<String> {
    let (_, section) = document.split_once(heading).unwrap_or_else(|| panic!("there is no {heading}"));
    let rows =
        section.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// The names in a line of the sources that declares an alarm, a note, or those of the lanes.
fn alarms_named(line: &str) -> Vec<String> {
    let declares = ["ALARM: &str = \"", "NOTE: &str = \"", "Alarms { link: \"", " => \"uplink-"];
    if !declares.iter().any(|beginning| line.contains(beginning)) {
        return Vec::new();
    }
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}
