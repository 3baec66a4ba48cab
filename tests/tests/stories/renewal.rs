//! A server's own certificate is renewed while it runs: the new one is shown at once, what is open goes on, what does not belong there
//! changes nothing and is told, and what is soon to end is told before.

use std::fs;
use std::path::Path;
use std::time::Instant;

use concord_identity::{CertificateFacts, certificates_from_pem};
use concord_tests::forge::{Authority, Listener, Shown};
use concord_tests::{DEADLINE, Forum, concord, exchange_ids, get, words};
use futures::FutureExt as _;
use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const HUB: &str = "spiffe://sec.concord/hub/main";
const KAZ: &str = "spiffe://kaz.concord/node/main";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn watch(listener: &Listener, shown: &Shown) -> tonic::Streaming<HealthCheckResponse> {
    let channel = concord_server::connect(&listener.address, listener.client(shown)).await.unwrap();
    let mut watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    watch
}

fn facts(path: &Path) -> CertificateFacts {
    let chain = certificates_from_pem(&fs::read_to_string(path).unwrap()).unwrap();
    CertificateFacts::read(&chain[0]).unwrap()
}

fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "{what} did not happen");
    }
}

fn readyz(forum: &Forum, dir: &Path) -> String {
    get(&forum.address(dir, "admin"), "/readyz").body
}

fn await_readyz(forum: &Forum, dir: &Path, word: &str) -> String {
    await_that(word, || readyz(forum, dir).contains(word));
    readyz(forum, dir)
}

/// When a certificate ends, as `status` has it by its name.
fn not_after(forum: &Forum, dir: &Path, name: &str) -> Option<String> {
    let status = forum.status(dir);
    let all = status["certificates"].as_array().unwrap();
    let found = all.iter().find(|one| one["certificate"] == name)?;
    Some(found["not_after"].as_str().unwrap().to_owned())
}

#[test]
fn a_renewed_certificate_is_shown_at_once_in_both_directions_and_what_is_open_goes_on() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let (hub_dir, kaz_dir) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let (sec, kaz) = (Authority::anchor(&hub_dir, "SEC"), Authority::anchor(&kaz_dir, "KAZ"));
    let hub = Listener::of(&forum, &hub_dir, HUB);
    let node = Listener::of(&forum, &kaz_dir, KAZ);
    let (spare, agency) =
        (kaz.leaf("spiffe://kaz.concord/node/spare", |_| {}), kaz.leaf("spiffe://kaz.concord/agency/agency", |_| {}));
    let (hubs, nodes) = (sec.server_leaf(HUB, 300), kaz.server_leaf(KAZ, 20));
    let runtime = runtime();
    let mut open = runtime.block_on(async { [watch(&hub, &spare).await, watch(&node, &agency).await] });
    // Who is connected is looked at again and again, not at once.
    await_that("a look at the node", || not_after(&forum, &hub_dir, "KAZ/node").is_some());
    let before = not_after(&forum, &hub_dir, "KAZ/node").unwrap();

    hubs.install(&hub_dir);
    nodes.install(&kaz_dir);
    await_that("the renewal", || runtime.block_on(hub.leaf_shown_to(&spare)) == hubs.chain[0]);
    await_that("the renewal", || runtime.block_on(node.leaf_shown_to(&agency)) == nodes.chain[0]);
    let log = |name: &str| fs::read_to_string(forum.log(name)).unwrap();
    await_that("the log", || log("hub").contains("own certificate was renewed"));

    // SIGHUP ends nothing, and reads all again.
    let pid = Pid::from_raw(i32::try_from(forum.hub_pid()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    await_that("the log", || log("hub").contains("own certificate was read again, and is the same"));
    for open in &mut open {
        assert!(open.message().now_or_never().is_none(), "a stream that was open ended");
    }
    assert_eq!(not_after(&forum, &hub_dir, "KAZ/node"), Some(before.clone()), "its connections are those of before");
    for dir in [&hub_dir, &kaz_dir] {
        let metrics = get(&forum.address(dir, "admin"), "/metrics").body;
        assert!(!metrics.contains("certificate-invalid"), "half a pair was told: {metrics}");
    }
    // What ends soon is told where it is shown, and makes nobody not ready.
    let told = await_readyz(&forum, &kaz_dir, "certificate-ends");
    assert!(told.contains("ends within 30 days") && told.contains("\"ready\":true"), "{told}");

    // With the next connections the hub sees the node's new one, and the node the hub's.
    drop(open);
    forum.stop_hub();
    forum.start_hub();
    let sent = forum.agency("KAZ").submit("over new connections", "--wait recorded").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
    await_that("what the hub sees", || not_after(&forum, &hub_dir, "KAZ/node").is_some_and(|now| now != before));
    assert_eq!(not_after(&forum, &hub_dir, "KAZ/node"), not_after(&forum, &kaz_dir, "own"));
    assert_eq!(not_after(&forum, &kaz_dir, "SEC/hub"), not_after(&forum, &hub_dir, "own"));
    let told = await_readyz(&forum, &hub_dir, "certificate-ends");
    assert!(told.contains(KAZ) && told.contains("as last seen") && told.contains("\"ready\":true"), "{told}");
    let metrics = get(&forum.address(&hub_dir, "admin"), "/metrics").body;
    assert!(metrics.contains("concord_certificate_expires_timestamp_seconds{certificate=\"KAZ/node\"}"), "{metrics}");
}

#[test]
fn what_ends_soon_of_its_agencies_and_officers_is_told_with_the_command_that_renews_it_and_stops_nothing() {
    let mut forum = Forum::of(&["KAZ"]);
    let dir = forum.node_dir("KAZ");
    concord(words!["agency", "add", "customs", "--days", "10", "--dir", dir]).ok();
    concord(words!["officer", "add", "aigerim", "--days", "5", "--dir", dir]).ok();
    concord(words!["officer", "add", "gone", "--days", "5", "--dir", dir]).ok();
    concord(words!["officer", "remove", "gone", "--dir", dir, "--yes"]).ok();
    // Looked at when it starts, and then once a minute.
    let again = |forum: &mut Forum| {
        forum.stop_node("KAZ");
        forum.start_node("KAZ");
    };
    again(&mut forum);
    let told = await_readyz(&forum, &dir, "agency renew customs");
    assert!(told.contains("officer renew aigerim") && told.contains("within 14 days"), "{told}");
    assert!(told.contains("\"ready\":true") && !told.contains("gone"), "{told}");
    let status = forum.status(&dir);
    assert!(status["notes"].to_string().contains("certificate-ends"), "{status}");
    assert!(not_after(&forum, &dir, "agency/customs").is_some() && not_after(&forum, &dir, "officer/gone").is_none());
    let metrics = get(&forum.address(&dir, "admin"), "/metrics").body;
    assert!(
        metrics.contains("concord_certificate_expires_timestamp_seconds{certificate=\"agency/customs\"}"),
        "{metrics}"
    );
    let used = concord(words!["status", "--profile", dir.join("officers/aigerim")]).ok();
    assert!(used.stderr.contains("ends in 4 days") && used.stderr.contains("officer renew aigerim"), "{used}");

    crate::keys::expire(&dir, "agencies/customs", "KAZ", false);
    again(&mut forum);
    let told = await_readyz(&forum, &dir, "agency/customs ended ");
    assert!(told.contains("\"ready\":true"), "{told}");
    concord(words!["agency", "renew", "customs", "--dir", dir]).ok();
    concord(words!["officer", "renew", "aigerim", "--dir", dir]).ok();
    again(&mut forum);
    await_that("a look at the profiles", || not_after(&forum, &dir, "agency/customs").is_some());
    await_that("the renewals", || !readyz(&forum, &dir).contains("certificate-ends"));
}

#[test]
fn a_new_key_by_command_is_shown_at_once_beside_a_running_node_and_hub_and_agencies_and_streams_go_on() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let (hub_dir, kaz_dir) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let kaz = Authority::anchor(&kaz_dir, "KAZ");
    let spare = kaz.leaf("spiffe://kaz.concord/node/spare", |_| {});
    let agency = kaz.leaf("spiffe://kaz.concord/agency/agency", |_| {});
    let runtime = runtime();
    for (kind, dir, name, shown) in [("hub", &hub_dir, HUB, &spare), ("node", &kaz_dir, KAZ, &agency)] {
        let listener = Listener::of(&forum, dir, name);
        let mut open = runtime.block_on(watch(&listener, shown));
        let before = facts(&dir.join("tls/certificate.pem"));
        let told = concord(words![kind, "renew", "--new-key", "--dir", dir]).ok().json();
        let after = facts(&dir.join("tls/certificate.pem"));
        assert!(after.key != before.key && after.hosts == before.hosts && told["serial"] == after.serial, "{told}");
        let is_shown = || {
            let leaf = runtime.block_on(listener.leaf_shown_to(shown));
            CertificateFacts::read(&leaf).unwrap() == after
        };
        await_that("the new key", is_shown);
        assert!(open.message().now_or_never().is_none(), "a stream that was open ended");
        let sent = forum.agency("KAZ").submit("on the streams of before", "--wait recorded").id;
        assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
        forum.status(dir);
        let metrics = get(&forum.address(dir, "admin"), "/metrics").body;
        assert!(!metrics.contains("certificate-invalid"), "half a pair was told: {metrics}");
    }
}

#[test]
fn a_certificate_that_is_broken_or_anothers_is_not_taken_and_told_until_it_is_put_right() {
    let forum = Forum::of(&["KAZ"]);
    let (hub_dir, kaz_dir) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let (sec, kaz) = (Authority::anchor(&hub_dir, "SEC"), Authority::anchor(&kaz_dir, "KAZ"));
    let hub = Listener::of(&forum, &hub_dir, HUB);
    let spare = kaz.leaf("spiffe://kaz.concord/node/spare", |_| {});
    let good =
        |dir: &Path| [dir.join("tls/key.pem"), dir.join("tls/certificate.pem")].map(|path| fs::read(path).unwrap());
    let put_back = |dir: &Path, [key, certificate]: &[Vec<u8>; 2]| {
        fs::write(dir.join("tls/key.pem"), key).unwrap();
        fs::write(dir.join("tls/certificate.pem"), certificate).unwrap();
    };
    let (of_hub, of_node) = (good(&hub_dir), good(&kaz_dir));
    let runtime = runtime();
    let before = runtime.block_on(hub.leaf_shown_to(&spare));

    // Each kind at one of the two, both at a time.
    sec.server_leaf(HUB, 300).install_chain(&hub_dir);
    fs::write(kaz_dir.join("tls/certificate.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    let told = await_readyz(&forum, &hub_dir, "certificate-invalid");
    assert!(told.contains("belong together") && told.contains("\"ready\":false"), "{told}");
    let told = await_readyz(&forum, &kaz_dir, "certificate-invalid");
    assert!(told.contains("tls/certificate.pem is not usable"), "{told}");
    sec.server_leaf("spiffe://sec.concord/hub/other", 300).install(&hub_dir);
    Authority::namesake("KAZ").server_leaf(KAZ, 300).install(&kaz_dir);
    let told = await_readyz(&forum, &hub_dir, "the certificate is of spiffe://sec.concord/hub/other");
    assert!(told.contains("what was shown before is shown on"), "{told}");
    await_readyz(&forum, &kaz_dir, "no anchor known here for that participant issued it");
    assert_eq!(runtime.block_on(hub.leaf_shown_to(&spare)), before);

    put_back(&hub_dir, &of_hub);
    put_back(&kaz_dir, &of_node);
    for dir in [&hub_dir, &kaz_dir] {
        await_readyz(&forum, dir, "\"ready\":true");
    }
    // An end that is near is an alarm, and goes with the next certificate.
    sec.server_leaf(HUB, 5).install(&hub_dir);
    let told = await_readyz(&forum, &hub_dir, "certificate-ends");
    assert!(told.contains("within 7 days") && told.contains("\"ready\":false"), "{told}");
    sec.server_leaf(HUB, 300).install(&hub_dir);
    await_readyz(&forum, &hub_dir, "\"ready\":true,\"reasons\":[]}");
}

#[test]
fn anchors_of_a_node_that_do_not_parse_leave_those_before_in_place_by_file_change_and_by_signal_until_they_are_put_right()
 {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree("KAZ/x", "environmental.5", &["KAZ", "IRN"]);
    let dir = forum.node_dir("KAZ");
    let path = dir.join("tls/anchor.pem");
    let good = fs::read(&path).unwrap();
    let pid = Pid::from_raw(i32::try_from(forum.node_pid("KAZ")).unwrap()).unwrap();
    let other = fs::read(forum.node_dir("IRN").join("tls/anchor.pem")).unwrap();
    let serves = |forum: &Forum| {
        let sent = forum.agency("KAZ").submit("by the anchor of before", "--wait delivered").id;
        assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
        forum.status(&dir);
    };
    for (broken, why) in [
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(), "tls/anchor.pem"),
        (b"".to_vec(), "tls/anchor.pem"),
        // A whole one, which is another's: the certificate that is shown would not hold by it.
        (other, "certificate-invalid"),
    ] {
        fs::write(&path, &broken).unwrap();
        let told = await_readyz(&forum, &dir, "certificate-invalid");
        assert!(told.contains(why) && told.contains("\"ready\":false"), "{told}");
        serves(&forum);
        // Asked by a signal it reads the same again, and keeps what it has.
        kill_process(pid, Signal::HUP).unwrap();
        serves(&forum);
        await_readyz(&forum, &dir, "certificate-invalid");
        fs::write(&path, &good).unwrap();
        await_readyz(&forum, &dir, "\"ready\":true");
        serves(&forum);
    }
    // A file that is gone changes nothing either, and a signal alone brings the right one back at once.
    fs::remove_file(&path).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    await_readyz(&forum, &dir, "certificate-invalid");
    serves(&forum);
    fs::write(&path, &good).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    await_readyz(&forum, &dir, "\"ready\":true");
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    serves(&forum);
}
