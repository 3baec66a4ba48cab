//! Who did what and what was refused: found by the operator, within bounds, and without a word of content.

use std::path::{Path, PathBuf};
use std::time::Instant;

use concord_model::{ConsignmentDigest, Digest, Lane};
use concord_tests::{DEADLINE, Ended, Forum, RawNode, concord, text_of, words};
use serde_json::Value;

/// Nobody writes this but into titles and bodies. (No part of it may be like a digest or a time, which can hold any
/// digits.)
const CANARY: &str = "canary-Изъятие";

fn audit(dir: &Path, options: &str) -> Vec<Value> {
    try_audit(&dir.join("operator"), options).ok().lines()
}

fn try_audit(profile: &Path, options: &str) -> Ended {
    let mut line = words!["audit", "--limit", "0", "--profile", profile];
    line.extend(options.split_whitespace().map(Into::into));
    concord(line)
}

/// Each line as `caller method about outcome`, with the names' last parts only.
fn told(lines: &[Value]) -> Vec<String> {
    let short = |line: &Value, field: &str| text_of(line, field).rsplit('/').next().unwrap_or_default().to_owned();
    let one = |line: &Value| {
        format!(
            "{} {} {} {}",
            short(line, "caller"),
            short(line, "method"),
            text_of(line, "about"),
            text_of(line, "outcome")
        )
    };
    lines.iter().map(one).collect()
}

fn has(lines: &[String], wanted: &str) {
    assert!(lines.iter().any(|line| line.contains(wanted)), "no '{wanted}' in {lines:#?}");
}

/// The files of a server's audit log.
fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir.join("audit")).unwrap().map(|file| file.unwrap().path()).collect()
}

#[test]
fn acts_and_refusals_are_found_by_the_operator_also_after_a_kill_and_without_content() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    let (hub, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    forum.propose_titled("KAZ/drugs", "challenges.2", &["KAZ", "IRN"], CANARY);
    forum.consent("KAZ/drugs", "IRN");
    forum.await_in_force("KAZ/drugs", "KAZ");
    concord(words!["agency", "add", "cert", "--dir", kaz, "--measure", "challenges.3"]).ok();
    concord(words!["agency", "grant", "cert", "--agreement", "KAZ/drugs", "--profile", kaz.join("officer")]).ok();
    concord(words![
        "agency",
        "revoke",
        "cert",
        "--send",
        "--measure",
        "challenges.3",
        "--yes",
        "--profile",
        kaz.join("operator")
    ])
    .ok();
    concord(words!["node", "backup", "--profile", kaz.join("officer"), "--out", forum.path().join("kaz.backup")]).ok();
    concord(words!["node", "retention", "run", "--days", "3650", "--profile", kaz.join("officer")]).ok();
    // Denied: a method for others, a measure that was taken away.
    let cert = forum.agency_named("KAZ", "cert");
    let title = format!("--title {CANARY} --agreement KAZ/drugs");
    forum.agency("KAZ").submit(CANARY, &format!("{title} --wait delivered"));
    cert.try_submit(CANARY, "--measure challenges.3").refused(3, "MEASURE_NOT_ALLOWED");
    concord(words!["status", "--profile", cert.profile]).refused(3, "CALLER_NOT_ALLOWED");
    // By whoever holds a node's keys: another consignment under a number that was recorded.
    let raw = RawNode::of(&forum, "KAZ");
    let agreement = forum.agreement("KAZ/drugs", "KAZ");
    let forged = raw.draft(&agreement, "challenges.2", Lane::Routine, CANARY.as_bytes());
    let (forged, _) = raw.consignment(Lane::Routine, 1, ConsignmentDigest(Digest::ZERO), &[forged]);
    let answer = raw.consign(Lane::Routine, vec![forged]);
    assert_eq!(answer.refusal().unwrap().1, "FORK");

    for restart in [false, true] {
        if restart {
            forum.kill_node("KAZ");
            forum.kill_hub();
            forum.start_hub();
            forum.start_node("KAZ");
        }
        let node = told(&audit(&kaz, ""));
        for act in [
            "operator AddAgency agency cert: send and receive; measures: challenges.3; agreements: all ok",
            "officer GrantAgency agency cert: send and receive; measures: all; agreements: KAZ/drugs ok",
            "operator RevokeAgency agency cert: send; measures: challenges.3; agreements: all ok",
            "officer Submit statement 1 of KAZ officer officer: propose KAZ/drugs version 1 ok",
            "officer CreateBackup  ok",
            "officer RunRetention 0 exchanges ok",
            "cert Submit  MEASURE_NOT_ALLOWED",
            "cert GetStatus  CALLER_NOT_ALLOWED",
            "server start history",
        ] {
            has(&node, act);
        }
        let at_hub = told(&audit(&hub, ""));
        for act in ["officer: enrol KAZ node main ok", "officer: consent KAZ/drugs version 1 ok"] {
            has(&at_hub, act);
        }
        has(&at_hub, "Consign consignment 1 of KAZ lane routine FORK");
        let refused = audit(&kaz, "--refused --caller agency/cert --since 1h");
        assert_eq!(told(&refused).len(), 2, "{refused:#?}");
        assert!(audit(&kaz, "--since 2999-01-01T00:00:00Z").is_empty());
    }
    // Its own officer sees it too, and nobody else.
    try_audit(&kaz.join("officer"), "").ok();
    for other in [cert.profile.clone(), forum.agency("KAZ").profile] {
        try_audit(&other, "").refused(3, "CALLER_NOT_ALLOWED");
    }
    for dir in [&hub, &kaz, &forum.node_dir("IRN")] {
        for file in files(dir) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("canary") && !text.contains("Изъятие"), "{}: {text}", file.display());
        }
        let status = forum.status(dir).to_string();
        assert!(!status.contains("canary"), "{status}");
    }
}

#[test]
fn a_flood_of_denied_calls_is_counted_and_leaves_acts_and_others_where_they_are() {
    let forum = Forum::of(&["KAZ"]);
    let dir = forum.node_dir("KAZ");
    concord(words!["agency", "add", "cert", "--dir", dir]).ok();
    concord(words!["agency", "add", "police", "--dir", dir]).ok();
    let [cert, police] = ["cert", "police"].map(|name| forum.agency_named("KAZ", name).profile);
    let calls = concord_tests::flood_of_denied_calls(&cert);
    concord(words!["status", "--profile", police]).refused(3, "CALLER_NOT_ALLOWED");
    concord(words!["agency", "revoke", "cert", "--all", "--yes", "--profile", dir.join("operator")]).ok();
    let lines = audit(&dir, "");
    let of_cert: Vec<&Value> = lines.iter().filter(|line| text_of(line, "caller").ends_with("agency/cert")).collect();
    assert!(of_cert.len() < 50, "{}", of_cert.len());
    let counted: u64 = of_cert.iter().map(|line| line["more"].as_u64().unwrap().max(1)).sum();
    assert!(
        *calls.start() > 500 && calls.contains(&counted),
        "{counted} of {calls:?}: what was not written is not counted"
    );
    let all = told(&lines);
    has(&all, "police GetStatus  CALLER_NOT_ALLOWED");
    has(&all, "operator RevokeAgency agency cert ok");
    assert_eq!(all.iter().filter(|line| line.contains("AddAgency")).count(), 2, "{all:#?}");
    // Whoever is not let in at all is told by name.
    let receive = || concord(words!["receive", "--profile", cert]);
    // Its calls are refused at once, its certificates a moment later.
    let since = Instant::now();
    while receive().reason().as_deref() == Some("AGENCY_UNKNOWN") && since.elapsed() < DEADLINE {}
    receive().refused(3, "REFUSED_BY_PEER");
    has(&told(&audit(&dir, "--refused")), "cert handshake  NOT_ADMITTED");
    let size: u64 = files(&dir).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size < 64 * 1024, "{size}");
}
