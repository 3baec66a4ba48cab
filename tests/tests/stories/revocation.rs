//! Revocation lists: what its issuer took back is out within seconds, also where it is connected, and stays out; a file that does not
//! count changes nothing and is told by its name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use concord_tests::forge::{Authority, Listener, Shown, put_list, serial_in};
use concord_tests::{DEADLINE, Forum, concord, exchange_ids, get, words};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const AGREEMENT: &str = "KAZ/x";
/// What a list names has ended by then.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// Keeps a stream open until the other side ends it; how long that took from `change`.
async fn ends_by(listener: &Listener, shown: &Shown, change: impl FnOnce()) -> Duration {
    let channel = concord_server::connect(&listener.address, listener.client(shown)).await.unwrap();
    let mut watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    change();
    let since = Instant::now();
    let ended = tokio::time::timeout(4 * ENDED_WITHIN, watch.message()).await.expect("it ends");
    assert!(ended.is_err(), "{ended:?}");
    since.elapsed()
}

async fn is_let_in(listener: &Listener, shown: &Shown) -> bool {
    concord_server::connect(&listener.address, listener.client(shown)).await.is_ok()
}

async fn await_let_in(listener: &Listener, shown: &Shown, expected: bool) {
    let since = Instant::now();
    while is_let_in(listener, shown).await != expected {
        assert!(since.elapsed() < DEADLINE, "it is still let in, or still not");
    }
}

fn alarms(forum: &Forum, dir: &Path) -> String {
    get(&forum.address(dir, "admin"), "/readyz").body
}

fn await_alarms(forum: &Forum, dir: &Path, is_so: impl Fn(&str) -> bool) -> String {
    let since = Instant::now();
    loop {
        let alarms = alarms(forum, dir);
        if is_so(&alarms) {
            return alarms;
        }
        assert!(since.elapsed() < DEADLINE, "{alarms}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn who_is_named_by_a_list_is_out_of_hub_and_node_within_five_seconds_and_stays_out_over_a_restart() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (hub_dir, irn) = (forum.hub_dir(), forum.node_dir("IRN"));
    let runtime = runtime();

    // The hub: a node's certificate, and one that an authority below the anchor issued.
    let hub = Listener::of(&forum, &hub_dir, "spiffe://sec.concord/hub/main");
    let anchor = Authority::anchor(&irn, "IRN");
    let authority = anchor.below("authority of IRN", |_| {});
    let by_anchor = anchor.leaf("spiffe://irn.concord/node/spare", |_| {});
    let by_authority = authority.leaf("spiffe://irn.concord/node/spare", |_| {});
    let beside = authority.certificates() + &authority.list(&[&by_authority.serial]);
    let took = runtime.block_on(ends_by(&hub, &by_authority, || drop(put_list(&hub_dir, "authority.pem", beside))));
    assert!(took < ENDED_WITHIN, "{took:?}");
    assert!(runtime.block_on(is_let_in(&hub, &by_anchor)), "nothing else was taken back");

    // The certificate that IRN's node itself is connected with: its streams are many.
    let own = serial_in(&irn.join("tls/certificate.pem"));
    let list = anchor.list(&[&own, &by_anchor.serial]);
    let took = runtime.block_on(ends_by(&hub, &by_anchor, || drop(put_list(&hub_dir, "irn.crl", list))));
    assert!(took < ENDED_WITHIN, "{took:?}");
    let since = Instant::now();
    let connected = |forum: &Forum| gauge(&get(&forum.address(&forum.hub_dir(), "admin"), "/metrics").body);
    // KAZ's node is left, with its three connections.
    while connected(&forum) > 3 {
        assert!(since.elapsed() < ENDED_WITHIN, "{} connections", connected(&forum));
    }
    let sent = forum.agency("KAZ").submit("nothing for who is out", "--wait recorded").id;
    forum.stop_hub();
    forum.start_hub();
    runtime.block_on(async {
        assert!(!is_let_in(&hub, &by_anchor).await && !is_let_in(&hub, &by_authority).await);
    });
    let tracked = forum.agency("KAZ").track(&sent);
    assert_eq!(tracked["recipients"][0]["state"], "recorded", "{tracked}");
    // No list, nothing taken back: what waited comes.
    fs::remove_file(hub_dir.join("revocation/irn.crl")).unwrap();
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
    assert!(!runtime.block_on(is_let_in(&hub, &by_authority)));

    // A node: an agency of its own state.
    let node = Listener::of(&forum, &irn, "spiffe://irn.concord/node/main");
    let agency = anchor.leaf("spiffe://irn.concord/agency/agency", |_| {});
    let list = anchor.list(&[&agency.serial]);
    let took = runtime.block_on(ends_by(&node, &agency, || drop(put_list(&irn, "own.crl", list))));
    assert!(took < ENDED_WITHIN, "{took:?}");
    assert!(!runtime.block_on(is_let_in(&node, &agency)));
    assert!(forum.agency("IRN").receive_rest().is_empty(), "its other certificate counts");
    for dir in [&hub_dir, &irn] {
        await_alarms(&forum, dir, |told| told.trim() == "{\"ready\":true,\"reasons\":[]}");
    }
}

#[test]
fn a_node_ends_its_connections_to_a_hub_whose_certificate_was_taken_back_and_goes_on_with_a_good_one() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (hub, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let connected = || gauge(&get(&forum.address(&hub, "admin"), "/metrics").body);
    let since = Instant::now();
    while connected() < 6 {
        assert!(since.elapsed() < DEADLINE, "{} connections", connected());
    }
    let anchor = Authority::anchor(&hub, "SEC");
    let path = put_list(&kaz, "sec.crl", anchor.list(&[&serial_in(&hub.join("tls/certificate.pem"))]));
    let since = Instant::now();
    // IRN's node has three connections and goes on; the other one comes back no more.
    while connected() > 3 {
        assert!(since.elapsed() < ENDED_WITHIN, "{} connections", connected());
    }
    let sent = forum.agency("KAZ").submit("waits for a hub that is one", "").id;
    assert_eq!(forum.agency("IRN").receive_rest().len(), 0);
    assert_eq!(forum.status(&kaz)["hub_connected"], false);
    fs::remove_file(path).unwrap();
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
}

#[test]
fn a_file_that_does_not_count_is_told_by_its_name_and_what_it_said_before_counts_on() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    let (hub_dir, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let hub = Listener::of(&forum, &hub_dir, "spiffe://sec.concord/hub/main");
    let (anchor, irn) = (Authority::anchor(&kaz, "KAZ"), Authority::anchor(&forum.node_dir("IRN"), "IRN"));
    let [gone, other] = [(); 2].map(|()| anchor.leaf("spiffe://kaz.concord/node/spare", |_| {}));
    let runtime = runtime();
    put_list(&hub_dir, "kaz.crl", anchor.list(&[&gone.serial]));
    runtime.block_on(await_let_in(&hub, &gone, false));

    let good = anchor.list(&[&gone.serial, &other.serial]);
    let forged = Authority::namesake("KAZ").list(&[&other.serial]);
    for (content, words) in [
        (b"no list at all".to_vec(), "it is no usable list"),
        (good.as_bytes()[..good.len() / 2].to_vec(), "it is not whole: of 1 blocks that it begins 0 end"),
        (Vec::new(), "it is no usable list"),
        (forged.into_bytes(), "its signature is not of"),
        (vec![b'x'; 5 * 1024 * 1024], "it is larger than"),
    ] {
        put_list(&hub_dir, "kaz.crl", content);
        let told = await_alarms(&forum, &hub_dir, |told| told.contains(words));
        assert!(told.contains("revocation-invalid") && told.contains("kaz.crl: "), "{told}");
        assert!(told.contains("what it said before counts on") && told.contains("\"ready\":false"), "{told}");
        assert!(!runtime.block_on(is_let_in(&hub, &gone)), "{told}");
        assert!(runtime.block_on(is_let_in(&hub, &other)), "{told}");
    }
    put_list(&hub_dir, "kaz.crl", &good);
    await_alarms(&forum, &hub_dir, |told| told.contains("\"ready\":true"));
    assert!(!runtime.block_on(is_let_in(&hub, &other)));

    // Another state takes back nothing of this one, and one list that does not count disturbs no other.
    let third = anchor.leaf("spiffe://kaz.concord/node/spare", |_| {});
    put_list(&hub_dir, "irn.crl", irn.list(&[&third.serial]));
    put_list(&hub_dir, "tur.crl", Authority::namesake("TUR").list(&[]));
    let told = await_alarms(&forum, &hub_dir, |told| told.contains("tur.crl: nobody known here is its issuer"));
    assert!(told.contains("nothing of it counts") && !told.contains("irn.crl"), "{told}");
    assert!(runtime.block_on(is_let_in(&hub, &third)));
    // As soon as that state is enrolled its list counts.
    forum.join("TUR");
    put_list(&hub_dir, "tur.crl", Authority::anchor(&forum.node_dir("TUR"), "TUR").list(&[]));
    await_alarms(&forum, &hub_dir, |told| told.contains("\"ready\":true"));

    // A newer list beside an old one is the issuer's word.
    put_list(&hub_dir, "kaz-2021.crl", anchor.list_until(&[&third.serial], 2021));
    runtime.block_on(await_let_in(&hub, &third, false));
    assert_eq!(alarms(&forum, &hub_dir).trim(), "{\"ready\":true,\"reasons\":[]}");
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

#[test]
fn the_list_of_an_issuer_that_grew_too_old_lets_nobody_of_it_in_until_a_newer_one_is_there() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (hub_dir, kaz_dir) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let hub = Listener::of(&forum, &hub_dir, "spiffe://sec.concord/hub/main");
    let kaz = Authority::anchor(&kaz_dir, "KAZ");
    let spare = kaz.leaf("spiffe://kaz.concord/node/spare", |_| {});
    let (runtime, now, begun) = (runtime(), SystemTime::now(), SystemTime::now() - days(300));

    // Due: told, and everything goes on.
    put_list(&hub_dir, "kaz.crl", kaz.list_between(&[], begun, now + days(29)));
    let told = await_alarms(&forum, &hub_dir, |told| told.contains("revocation-outdated"));
    assert!(
        told.contains("kaz.crl: ") && told.contains("is to be followed") && told.contains("\"ready\":false"),
        "{told}"
    );
    put_list(&hub_dir, "kaz.crl", kaz.list_between(&[], begun, now + days(31)));
    await_alarms(&forum, &hub_dir, |told| told.contains("\"ready\":true"));

    // Overdue for seven days but a moment: it counts, and a moment later nothing of its issuer does, open streams neither.
    let lapses = SystemTime::now() + Duration::from_secs(3);
    let list = kaz.list_between(&[], begun, lapses - days(7));
    let took = runtime.block_on(ends_by(&hub, &spare, || drop(put_list(&hub_dir, "kaz.crl", list))));
    assert!(took < Duration::from_secs(5) + ENDED_WITHIN, "{took:?}");
    assert!(SystemTime::now() + Duration::from_secs(1) > lapses, "it counted until then");
    assert!(!runtime.block_on(is_let_in(&hub, &spare)));
    let told = await_alarms(&forum, &hub_dir, |told| told.contains("is refused"));
    assert!(told.contains("put the issuer's next list into revocation/") && !told.contains("IRN"), "{told}");
    let log = std::fs::read_to_string(forum.log("hub")).unwrap();
    assert!(log.contains("has lapsed"), "the log says why");
    // Its node too, and nobody else's; also over a restart.
    forum.stop_hub();
    forum.start_hub();
    assert!(!runtime.block_on(is_let_in(&hub, &spare)), "not even for a moment");
    let sent = forum.agency("KAZ").submit("waits for a newer list", "").id;
    assert_eq!(forum.agency("IRN").receive_rest().len(), 0);
    let since = Instant::now();
    while forum.status(&forum.node_dir("IRN"))["hub_connected"] != true {
        assert!(since.elapsed() < DEADLINE, "nobody else's");
    }
    assert_eq!(forum.status(&kaz_dir)["hub_connected"], false);

    put_list(&hub_dir, "kaz.crl", kaz.list_between(&[], begun, now + days(90)));
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
    await_alarms(&forum, &hub_dir, |told| told.contains("\"ready\":true"));

    // A clock that jumped past its end is not believed, and shuts nobody out.
    forum.stop_hub();
    forum.start_hub_with(&BTreeMap::from([("CONCORD_CLOCK_OFFSET_SECONDS", "17280000")]));
    let sent = forum.agency("KAZ").submit("200 days later, says the hub", "--wait recorded").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
    let told = alarms(&forum, &hub_dir);
    assert!(told.contains("clock-suspect") && !told.contains("revocation-outdated"), "{told}");

    // At a node whose own list lapsed its operator is out as well, and mends it by the file alone.
    put_list(&kaz_dir, "own.crl", kaz.list_between(&[], begun, now - days(8)));
    await_alarms(&forum, &kaz_dir, |told| told.contains("needs no call to this server"));
    let out = concord(words!["status", "--profile", kaz_dir.join("operator")]);
    assert_ne!(out.code, Some(0), "{out}");
    put_list(&kaz_dir, "own.crl", kaz.list(&[]));
    await_alarms(&forum, &kaz_dir, |told| told.contains("\"ready\":true"));
    concord(words!["status", "--profile", kaz_dir.join("operator")]).ok();
}

#[test]
fn what_an_officer_signs_whose_certificate_was_taken_back_the_hub_refuses_and_what_it_accepted_before_stands() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (hub_dir, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let hub = Listener::of(&forum, &hub_dir, "spiffe://sec.concord/hub/main");
    let anchor = Authority::anchor(&kaz, "KAZ");
    let spare = anchor.leaf("spiffe://kaz.concord/node/spare", |_| {});
    let officer = serial_in(&kaz.join("officer/certificate.pem"));
    let path = put_list(&hub_dir, "kaz.crl", anchor.list(&[&officer, &spare.serial]));
    // The list counts once the other one that it names is out.
    runtime().block_on(await_let_in(&hub, &spare, false));

    let propose = "agreement propose KAZ/new --title T --measure environmental.5 --participant IRN";
    let refused = forum.as_officer("KAZ", propose);
    assert!(refused.stderr.contains("revocation list"), "{refused}");
    refused.refused(3, "STATEMENT_SIGNATURE_INVALID");
    let sent = forum.agency("KAZ").submit("what was agreed before stands", "--wait recorded").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);

    fs::remove_file(path).unwrap();
    runtime().block_on(await_let_in(&hub, &spare, true));
    forum.as_officer("KAZ", propose).ok();
    forum.consent("KAZ/new", "IRN");
    forum.await_in_force("KAZ/new", "KAZ");
}

#[test]
fn what_is_no_file_is_told_by_its_name_holds_up_nothing_and_takes_nothing_of_before_away() {
    let mut forum = Forum::of(&["KAZ"]);
    let (hub_dir, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let hub = Listener::of(&forum, &hub_dir, "spiffe://sec.concord/hub/main");
    let anchor = Authority::anchor(&kaz, "KAZ");
    let gone = anchor.leaf("spiffe://kaz.concord/node/spare", |_| {});
    let folder = hub_dir.join("revocation");
    forum.stop_hub();
    fs::create_dir_all(folder.join("a-folder")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.join("a-pipe.crl")).status().unwrap();
    assert!(made.success());
    symlink("/dev/zero", folder.join("a-device.crl")).unwrap();
    symlink("nowhere", folder.join("a-link.crl")).unwrap();
    symlink("a-circle.crl", folder.join("a-circle.crl")).unwrap();
    fs::write(hub_dir.join("kaz.crl"), anchor.list(&[&gone.serial])).unwrap();
    symlink("../kaz.crl", folder.join("kaz.crl")).unwrap();
    forum.start_hub();
    let told = alarms(&forum, &hub_dir);
    for words in [
        "a-folder: it is no file; nothing of it counts",
        "a-pipe.crl: it is no file; nothing of it counts",
        "a-device.crl: it is no file; nothing of it counts",
        "a-link.crl: it is a link to nothing; nothing of it counts",
        "a-circle.crl: it cannot be read",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let runtime = runtime();
    assert!(!told.contains("kaz.crl") && !runtime.block_on(is_let_in(&hub, &gone)), "{told}");

    // What was a list and is none now.
    fs::remove_file(hub_dir.join("kaz.crl")).unwrap();
    await_alarms(&forum, &hub_dir, |told| {
        told.contains("kaz.crl: it is a link to nothing; what it said before counts on")
    });
    assert!(!runtime.block_on(is_let_in(&hub, &gone)));
    fs::remove_file(folder.join("kaz.crl")).unwrap();
    fs::create_dir(folder.join("kaz.crl")).unwrap();
    await_alarms(&forum, &hub_dir, |told| told.contains("kaz.crl: it is no file; what it said before counts on"));
    assert!(!runtime.block_on(is_let_in(&hub, &gone)));
    fs::remove_dir_all(&folder).unwrap();
    symlink("nowhere", &folder).unwrap();
    await_alarms(&forum, &hub_dir, |told| told.contains("the folder cannot be read") && told.contains("counts on"));
    assert!(!runtime.block_on(is_let_in(&hub, &gone)));
    fs::remove_file(&folder).unwrap();
    runtime.block_on(await_let_in(&hub, &gone, true));
    await_alarms(&forum, &hub_dir, |told| told.contains("\"ready\":true"));
}

#[test]
fn a_list_counts_on_where_the_file_with_its_authority_is_gone_and_no_alarm_says_so_where_it_does_not() {
    let mut forum = Forum::of(&["KAZ"]);
    let (hub_dir, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let hub = Listener::of(&forum, &hub_dir, "spiffe://sec.concord/hub/main");
    let authority = Authority::anchor(&kaz, "KAZ").below("authority of KAZ", |_| {});
    let [gone, other] = [(); 2].map(|()| authority.leaf("spiffe://kaz.concord/node/spare", |_| {}));
    let runtime = runtime();
    let beside = put_list(&hub_dir, "ca.pem", authority.certificates());
    put_list(&hub_dir, "below.crl", authority.list(&[&gone.serial]));
    runtime.block_on(await_let_in(&hub, &gone, false));

    // Damaged, the authority is known from before, also for what comes new.
    put_list(&hub_dir, "ca.pem", "no certificate");
    put_list(&hub_dir, "below.crl", authority.list(&[&gone.serial, &other.serial]));
    runtime.block_on(await_let_in(&hub, &other, false));
    let told = await_alarms(&forum, &hub_dir, |told| told.contains("ca.pem: it is no usable list"));
    assert!(told.contains("what it said before counts on") && !told.contains("below.crl"), "{told}");
    // Gone, what verified by it counts on, and nothing new does.
    fs::remove_file(beside).unwrap();
    await_alarms(&forum, &hub_dir, |told| told.contains("below.crl: nobody known here") && told.contains("counts on"));
    assert!(!runtime.block_on(is_let_in(&hub, &gone)) && !runtime.block_on(is_let_in(&hub, &other)));
    put_list(&hub_dir, "below.crl", authority.list(&[]));
    put_list(&hub_dir, "beside.crl", authority.list(&[]));
    let told = await_alarms(&forum, &hub_dir, |told| told.contains("beside.crl: nobody known here"));
    assert!(told.contains("nothing of it counts") && told.contains("counts on"), "{told}");
    assert!(!runtime.block_on(is_let_in(&hub, &gone)) && !runtime.block_on(is_let_in(&hub, &other)));

    forum.stop_hub();
    put_list(&hub_dir, "below.crl", authority.list(&[&gone.serial]));
    fs::remove_file(hub_dir.join("revocation/beside.crl")).unwrap();
    forum.start_hub();
    let told = alarms(&forum, &hub_dir);
    assert!(told.contains("below.crl: nobody known here") && told.contains("nothing of it counts"), "{told}");
    assert!(!told.contains("counts on") && runtime.block_on(is_let_in(&hub, &gone)), "{told}");
}

/// How many connections a server says that it has.
fn gauge(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("concord_connections "));
    line.map_or(0, |value| value.parse().unwrap())
}
