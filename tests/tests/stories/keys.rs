//! Making, signing, renewing and taking back certificates, by command and with real servers.

mod foreign_ca;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use concord_identity::{CertificateFacts, certificates_from_pem};
use concord_tests::forge::{Authority, put_list, serial_in};
use concord_tests::{DEADLINE, Ended, Forum, Process, concord, exchange_ids, words};
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, date_time_ymd};
use serde_json::Value;

const AGREEMENT: &str = "KAZ/x";
const MEASURE: &str = "environmental.5";
/// What a list names has ended by then.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

fn facts(path: &Path) -> CertificateFacts {
    let chain = certificates_from_pem(&fs::read_to_string(path).unwrap()).unwrap();
    CertificateFacts::read(&chain[0]).unwrap()
}

fn status(profile: &Path) -> Ended {
    concord(words!["status", "--profile", profile])
}

/// Waits until this profile is not let in any more, which has to be within the promise.
fn await_refused(profile: &Path) {
    let since = Instant::now();
    while status(profile).code == Some(0) {
        assert!(since.elapsed() < ENDED_WITHIN, "it is still let in");
    }
    status(profile).refused(3, "REFUSED_BY_PEER");
}

fn send(forum: &Forum, what: &str) {
    let sent = forum.agency("KAZ").submit(what, "--wait recorded").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
}

/// Puts a certificate that has expired in place of the one of this folder, for the same key.
pub(crate) fn expire(dir: &Path, folder: &str, code: &str, is_server: bool) {
    let (certificate, key) = (dir.join(folder).join("certificate.pem"), dir.join(folder).join("key.pem"));
    let pair = KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let name = facts(&certificate).identity.to_string();
    let made = Authority::anchor(dir, code).leaf_with(pair, &name, |params| {
        if is_server {
            params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    fs::write(certificate, concord_identity::certificates_to_pem(&made.chain)).unwrap();
}

#[test]
fn a_node_whose_anchor_never_was_on_its_machine_is_enrolled_exchanges_renews_and_loses_an_operator() {
    let mut forum = Forum::empty();
    let (dir, anchor) = (forum.node_dir("KAZ"), forum.path().join("anchor"));
    let made = concord(words!["anchor", "init", "--dir", anchor, "--participant", "KAZ"]).ok().json();
    assert_eq!(made["fingerprint"].as_str().unwrap().len(), 71, "{made}");
    concord(words!["anchor", "init", "--dir", anchor]).refused(1, "ANCHOR_EXISTS");

    let init = words!["node", "init", "--csr", "--dir", dir, "--participant", "KAZ", "--officer", "aigerim,bolat"];
    let asked = concord(init).ok().lines();
    let names: Vec<&str> = asked.iter().map(|line| line["name"].as_str().unwrap()).collect();
    let named = |end: &str| format!("spiffe://kaz.concord/{end}");
    let all = ["node/main", "officer/aigerim", "officer/bolat", "operator/operator"].map(named);
    assert_eq!(names, all);
    assert!(!dir.join("anchor").exists() && !dir.join("join-request.json").exists());
    assert!(dir.join("revocation").is_dir(), "where lists go is there before one is needed");
    let request = dir.join("certificate-request.pem");
    assert!(!fs::read_to_string(&request).unwrap().contains("PRIVATE"));
    concord(words!["node", "serve", "--dir", dir]).refused(1, "CERTIFICATES_AWAITED");
    // To make the node anew would lose the keys that were asked for: the check says what is awaited, and nothing else fails.
    let check = concord(words!["node", "check", "--dir", dir]);
    let failed: Vec<_> = check.lines().into_iter().filter(|line| line["result"] == "failed").collect();
    assert_eq!((failed.len(), &failed[0]["check"]), (1, &serde_json::json!("own-certificate")), "{check}");
    assert!(failed[0]["next"].as_str().unwrap().contains("node install-cert"), "{check}");

    // At the anchor: the same fingerprints, a yes, and nobody else's anchor.
    let sign = words!["anchor", "sign", request, "--dir", anchor];
    concord(&sign).refused(2, "USAGE");
    let foreign = forum.path().join("foreign");
    concord(words!["anchor", "init", "--dir", foreign, "--participant", "IRN"]).ok();
    concord(words!["anchor", "sign", request, "--dir", foreign, "--yes"]).refused(3, "REQUEST_OF_ANOTHER");
    let out = forum.path().join("certificates.pem");
    let mut sign_all = sign.clone();
    sign_all.extend(words!["--yes", "--days", "90", "--out", out]);
    let signed = concord(sign_all).ok();
    let keys = |lines: &[serde_json::Value]| lines.iter().map(|line| line["key"].clone()).collect::<Vec<_>>();
    assert_eq!(keys(&signed.lines()), keys(&asked));
    assert!(asked.iter().all(|line| signed.stderr.contains(line["key"].as_str().unwrap())));

    // In parts: what is missing is said by its name.
    let whole = certificates_from_pem(&fs::read_to_string(&out).unwrap()).unwrap();
    let part = forum.path().join("part.pem");
    fs::write(&part, concord_identity::certificates_to_pem(&[whole[0].clone(), whole[4].clone()])).unwrap();
    // Nobody has to believe the anchor that a file brings.
    let anchor_said = made["fingerprint"].as_str().unwrap();
    concord(words!["node", "install-cert", part, "--dir", dir]).refused(3, "ANCHOR_UNCOMPARED");
    let wrong = "0".repeat(64);
    let install = words!["node", "install-cert", part, "--dir", dir, "--fingerprint", wrong];
    concord(install).refused(3, "FINGERPRINT_MISMATCH");
    let install = words!["node", "install-cert", part, "--dir", dir, "--fingerprint", anchor_said];
    let installed = concord(install).ok().json();
    assert_eq!(installed["missing"], serde_json::json!(all[1..]), "{installed}");
    concord(words!["node", "serve", "--dir", dir]).refused(1, "CERTIFICATES_AWAITED");
    let installed = concord(words!["node", "install-cert", out, "--dir", dir]).ok().lines();
    assert_eq!(installed[0]["missing"], serde_json::json!([]));
    assert_eq!(installed[0]["anchor"], made["fingerprint"]);
    assert!(dir.join("join-request.json").exists() && !dir.join("anchor/key.pem").exists());

    let (bundle, officer) = (dir.join("bundle.json"), dir.join("officers/aigerim"));
    let hub_officer = forum.hub_dir().join("officer");
    let enrol =
        words!["participant", "enrol", dir.join("join-request.json"), "--profile", hub_officer, "--out", bundle];
    concord(enrol).ok();
    let second = forum.path().join("second-node");
    concord(words!["node", "init", "--csr", "--dir", second, "--participant", "KAZ"]).ok();
    concord(words!["node", "join", bundle, "--dir", second]).refused(1, "CERTIFICATES_AWAITED");
    concord(words!["node", "join", bundle, "--dir", dir]).ok();
    concord(words!["agency", "add", "agency", "--dir", dir]).refused(1, "ANCHOR_KEY_ABSENT");
    // By request, as all others; and one that keeps its key and brings its certificate.
    let asked = concord(words!["agency", "add", "agency", "--request", "--dir", dir]).ok().lines();
    assert_eq!(
        (asked[0]["not_after"].is_null(), &asked[1]["name"]),
        (true, &named("agency/agency").into()),
        "{asked:?}"
    );
    concord(words!["anchor", "sign", request, "--dir", anchor, "--yes", "--out", out]).ok();
    concord(words!["node", "install-cert", out, "--dir", dir]).ok();
    let (csr, met) = (forum.path().join("met.csr"), forum.path().join("met.pem"));
    let params = CertificateParams::new(vec!["anything.example".to_owned()]).unwrap();
    fs::write(&csr, params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()).unwrap();
    concord(words!["anchor", "sign", csr, "--as", "agency/met", "--dir", anchor, "--yes", "--out", met]).ok();
    let other = concord(words!["agency", "add", "other", "--cert", met, "--dir", dir]);
    other.refused(3, "CERTIFICATE_UNFIT");
    assert!(!dir.join("agencies/other").exists());
    let added = concord(words!["agency", "add", "met", "--cert", met, "--dir", dir]).ok().json();
    assert_eq!(added["key_elsewhere"], true, "{added}");
    assert!(dir.join("agencies/met/profile.toml").exists() && !dir.join("agencies/met/key.pem").exists());
    forum.start_node("KAZ");
    forum.join("IRN");
    forum.start_node("IRN");
    let propose =
        words!["agreement", "propose", AGREEMENT, "--title", "T", "--measure", MEASURE, "--participant", "IRN"];
    concord([propose, words!["--profile", officer]].concat()).ok();
    forum.consent(AGREEMENT, "IRN");
    let show = words!["agreement", "show", AGREEMENT, "--wait", "in-force", "--profile", officer];
    concord(show).ok();
    forum.await_in_force(AGREEMENT, "IRN");
    send(&forum, "from under an anchor that is elsewhere");

    // A new key by request: the old one serves until the certificate is there, and is gone then.
    let before = facts(&dir.join("tls/certificate.pem"));
    concord(words!["node", "renew", "--csr", "--new-key", "--dir", dir]).ok();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    concord(words!["anchor", "sign", request, "--dir", anchor, "--yes", "--out", out]).ok();
    concord(words!["node", "install-cert", out, "--dir", dir]).ok();
    let after = facts(&dir.join("tls/certificate.pem"));
    assert!(after.key != before.key && after.not_after > before.not_after && after.hosts == before.hosts);
    assert_eq!(fs::read_to_string(dir.join("tls/key.pem")).unwrap().matches("BEGIN").count(), 1);
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    send(&forum, "under a new key");

    // Taken back at the anchor: the list is carried, and counts at the running node.
    let list = forum.path().join("kaz.crl");
    concord(words!["anchor", "revoke", "operator/nobody", "--dir", anchor, "--out", list]).refused(3, "HOLDER_UNKNOWN");
    let revoke = words!["anchor", "revoke", "operator/operator", "--dir", anchor, "--out", list, "--next-update", "30"];
    concord(&revoke).refused(2, "USAGE");
    assert!(!list.exists(), "nothing was done without a yes");
    assert_eq!(concord([revoke, words!["--yes"]].concat()).ok().json()["named"], 1);
    status(&dir.join("operator")).ok();
    put_list(&dir, "kaz.crl", fs::read(&list).unwrap());
    await_refused(&dir.join("operator"));
    status(&officer).ok();
}

#[test]
fn an_officer_and_an_operator_that_are_removed_are_out_within_five_seconds_and_stay_out_when_others_follow() {
    let forum = Forum::of(&["KAZ"]);
    let (dir, hub) = (forum.node_dir("KAZ"), forum.hub_dir());
    for (dir, role) in [(&hub, "operator"), (&hub, "officer"), (&dir, "operator"), (&dir, "officer")] {
        let folder = dir.join(format!("{role}s/second"));
        concord(words![role, "add", "second", "--dir", dir, "--days", "30"]).ok();
        concord(words![role, "add", "second", "--dir", dir]).refused(3, "HOLDER_KNOWN");
        status(&folder).ok();
        // What it had before counts as its own: a renewal leaves the older certificate with whoever copied it.
        let old = forum.path().join(format!("old-{role}"));
        drop(fs::remove_dir_all(&old));
        copy_profile(&folder, &old, &forum.address(dir, "listen"));
        concord(words![role, "renew", "second", "--dir", dir, "--new-key"]).ok();
        for profile in [&folder, &old] {
            status(profile).ok();
        }
        let renewed = forum.path().join(format!("renewed-{role}"));
        drop(fs::remove_dir_all(&renewed));
        copy_profile(&folder, &renewed, &forum.address(dir, "listen"));
        let removed = concord(words![role, "remove", "second", "--dir", dir, "--yes"]).ok().json();
        assert_eq!(removed["serials"].as_array().unwrap().len(), 2, "{removed}");
        await_refused(&old);
        await_refused(&renewed);
        status(&dir.join(role)).ok();
        let listed = concord(words![role, "list", "--dir", dir]).ok().lines();
        let states: Vec<&str> = listed.iter().map(|line| line["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["valid", "revoked", "revoked"], "{listed:?}");
        // The same again does no harm, and is what is done where it was cut off.
        let again = concord(words![role, "remove", "second", "--dir", dir, "--yes"]).ok().json();
        assert_eq!(again["serials"], removed["serials"]);
        for more in [words![], words!["--new-key"], words!["--request"]] {
            let renew = [words![role, "renew", "second", "--dir", dir], more].concat();
            concord(renew).refused(3, "HOLDER_TAKEN_BACK");
        }
        concord(words![role, "renew", "nobody", "--dir", dir]).refused(3, "HOLDER_UNKNOWN");
        concord(words![role, "remove", "nobody", "--dir", dir, "--yes"]).refused(3, "HOLDER_UNKNOWN");
    }
    // A third one follows: those before it are still named.
    concord(words!["operator", "add", "third", "--dir", dir]).ok();
    concord(words!["operator", "remove", "third", "--dir", dir, "--yes"]).ok();
    await_refused(&forum.path().join("renewed-officer"));
    assert_eq!(forum.status(&dir)["alarms"].to_string().matches("revocation").count(), 0);
    let list = concord(words!["node", "renew", "--list", "--dir", dir, "--next-update", "700"]).ok().json();
    assert_eq!(list["named"], 5, "{list}");
    await_refused(&forum.path().join("renewed-officer"));
    // What somebody put there under that name is not overwritten.
    put_list(&dir, "kaz.crl", Authority::namesake("KAZ").list(&[&serial_in(&dir.join("officer/certificate.pem"))]));
    concord(words!["operator", "add", "fourth", "--dir", dir]).ok();
    concord(words!["operator", "remove", "fourth", "--dir", dir, "--yes"]).refused(1, "REVOCATION_LIST_UNUSABLE");
}

pub(crate) fn copy_profile(from: &Path, to: &Path, address: &str) {
    fs::create_dir(to).unwrap();
    for file in ["certificate.pem", "key.pem", "server-anchor.pem"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let settings = fs::read_to_string(from.join("profile.toml")).unwrap();
    let kept = settings.lines().filter(|line| !line.starts_with("address")).collect::<Vec<_>>().join("\n");
    fs::write(to.join("profile.toml"), format!("{kept}\naddress = {address:?}\n")).unwrap();
}

#[test]
fn an_agency_that_keeps_its_key_exchanges_one_file_holds_all_and_who_is_removed_is_ended() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    let dir = forum.node_dir("KAZ");
    // Made by other software, of another kind, for another name: the name is the node's to give.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = forum.path().join("met.csr");
    let params = CertificateParams::new(vec!["anything.example".to_owned()]).unwrap();
    let text = params.serialize_request(&key).unwrap().pem().unwrap();
    fs::write(&csr, text.replacen('M', "N", 1)).unwrap();
    concord(words!["agency", "add", "met", "--dir", dir, "--csr", csr]).refused(3, "REQUEST_INVALID");
    fs::write(&csr, &text).unwrap();
    let added = concord(words!["agency", "add", "met", "--dir", dir, "--csr", csr, "--days", "10"]).ok().json();
    assert_eq!(added["key_elsewhere"], true);
    let certified = facts(&dir.join("agencies/met/certificate.pem")).key_fingerprint().unwrap().grouped();
    assert_eq!(added["key"], certified.as_str(), "what is compared with the agency");
    let profile = dir.join("agencies/met");
    assert!(!profile.join("key.pem").exists());
    let met = forum.agency_named("KAZ", "met");
    let refused = met.try_submit("x", "");
    assert!(refused.message().contains("key.pem"), "{refused}");
    fs::write(profile.join("key.pem"), key.serialize_pem()).unwrap();
    let sent = met.submit("from a key that never left", "--wait recorded").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
    let before = facts(&profile.join("certificate.pem"));
    concord(words!["agency", "renew", "met", "--dir", dir]).ok();
    let after = facts(&profile.join("certificate.pem"));
    assert!(after.key == before.key && after.not_after > before.not_after);
    met.submit("and by the next certificate", "--wait recorded");

    // One file for programs that want that, under a password that no command line shows.
    let (password, p12) = (forum.path().join("password"), forum.path().join("cert.p12"));
    fs::write(&password, "short\n").unwrap();
    let add = words!["agency", "add", "cert", "--dir", dir, "--p12", p12, "--p12-password", password];
    concord(&add).refused(2, "USAGE");
    assert!(!dir.join("agencies/cert").exists(), "nothing was done");
    fs::write(&password, "correct horse battery\n").unwrap();
    concord(&add).ok();
    let bytes = fs::read(&p12).unwrap();
    assert!(KeyStore::from_pkcs12(&bytes, "another password", Pkcs12ImportPolicy::Strict).is_err());
    let store = KeyStore::from_pkcs12(&bytes, "correct horse battery", Pkcs12ImportPolicy::Strict).unwrap();
    let (name, chain) = store.private_key_chain().unwrap();
    let own = certificates_from_pem(&fs::read_to_string(dir.join("agencies/cert/certificate.pem")).unwrap()).unwrap();
    assert_eq!((name, chain.certs().len(), chain.certs()[0].as_der()), ("cert", 2, own[0].as_ref()));
    let key = concord_identity::LeafKey::from_pkcs8_der(chain.key().as_der()).unwrap();
    assert_eq!(Some(key.public()), facts(&dir.join("agencies/cert/certificate.pem")).key);

    // Another key is here than a request is for: nothing is issued.
    let issued = || fs::read_to_string(dir.join("anchor/issued.jsonl")).unwrap().lines().count();
    let before = issued();
    concord(words!["agency", "renew", "cert", "--dir", dir, "--csr", csr]).refused(3, "KEY_OTHER");
    assert_eq!(issued(), before);
    concord(words!["hub", "renew", "--dir", dir]).refused(2, "USAGE");

    // Removed: ended, and its certificates on the list.
    let gone = forum.path().join("gone");
    copy_profile(&profile, &gone, &forum.address(&dir, "listen"));
    let receive = words!["receive", "--profile", gone, "--out", forum.path().join("of-gone")];
    concord(&receive).ok();
    let removed = concord(words!["agency", "remove", "met", "--dir", dir, "--yes"]).ok().json();
    assert_eq!(removed["serials"].as_array().unwrap().len(), 2, "{removed}");
    let since = Instant::now();
    while concord(&receive).code == Some(0) {
        assert!(since.elapsed() < ENDED_WITHIN);
    }
    // Nobody comes back by a renewal, or by the same key under another name; and nothing is left of the attempt.
    concord(words!["agency", "renew", "met", "--dir", dir, "--csr", csr]).refused(3, "HOLDER_TAKEN_BACK");
    concord(words!["agency", "add", "again", "--dir", dir, "--csr", csr]).refused(1, "KEY_TAKEN_BACK");
    let listed = concord(words!["agency", "list", "--profile", dir.join("operator")]).ok().lines();
    assert!(listed.iter().any(|line| line["agency"] == "met" && line["ended"] == true), "{listed:?}");
    assert!(listed.iter().all(|line| line["agency"] != "again"), "{listed:?}");
    let listed = concord(words!["agency", "list", "--dir", dir]).ok().lines();
    assert_eq!(listed.iter().filter(|line| line["state"] == "revoked").count(), 2, "{listed:?}");
    forum.agency("KAZ").submit("the others go on", "--wait recorded");
}

#[test]
fn what_has_expired_is_renewed_under_the_same_anchor_and_nobody_else_has_to_do_anything() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    let (hub, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    // Before the end, while all runs: the new one counts from the next start on at the latest.
    let before = facts(&kaz.join("tls/certificate.pem"));
    concord(words!["node", "renew", "--dir", kaz, "--days", "700"]).ok();
    let after = facts(&kaz.join("tls/certificate.pem"));
    assert!(after.key == before.key && after.not_after > before.not_after && after.hosts == before.hosts);
    send(&forum, "renewed in time");

    // After the end of the hub's, the node's, its officer's and its agency's, all of them.
    forum.stop_node("KAZ");
    forum.stop_hub();
    expire(&hub, "tls", "SEC", true);
    for (folder, is_server) in [("tls", true), ("officer", false), ("operator", false), ("agencies/agency", false)] {
        expire(&kaz, folder, "KAZ", is_server);
    }
    forum.start_hub();
    forum.start_node("KAZ");
    forum.agency("KAZ").try_submit("x", "").refused(3, "CERTIFICATE_EXPIRED");
    forum.stop_node("KAZ");
    forum.stop_hub();
    concord(words!["hub", "renew", "--dir", hub]).ok();
    forum.start_hub();
    // What is mended here is not sent to the telephone: nothing but its own certificate is said to be wrong.
    let check = concord(words!["node", "check", "--dir", kaz]);
    let next = |name: &str| check.lines().into_iter().find(|line| line["check"] == name).unwrap()["next"].clone();
    assert!(next("own-certificate").as_str().unwrap().contains("node renew"), "{check}");
    assert_eq!(
        (next("tls").as_str(), next("registry").as_str()),
        (Some("see the line own-certificate"), None),
        "{check}"
    );
    forum.stop_hub();
    concord(words!["hub", "renew", "--dir", hub]).ok();
    let paper = || fs::read_to_string(kaz.join("join-request.json")).unwrap();
    let paper_before = paper();
    let renewed = concord(words!["node", "renew", "--dir", kaz, "--all", "--new-key"]).ok().lines();
    assert_eq!(renewed.len(), 4, "{renewed:?}");
    forum.start_hub();
    forum.start_node("KAZ");
    send(&forum, "the hub knows the anchor, not the leaf");
    forum.as_officer("KAZ", "agreement pending").ok();
    forum.status(&kaz);
    // A hub that was founded anew takes no request with a certificate that has expired.
    assert_ne!(paper(), paper_before, "the request to join has the new certificate");
}

#[test]
fn who_has_its_profile_elsewhere_is_renewed_for_its_key_and_nobody_is_left_out_without_a_word() {
    let forum = Forum::of(&["KAZ"]);
    let (hub, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    let away = |dir: &Path, role: &str, name: &str| {
        let (folder, away) = (dir.join(format!("{role}s/{name}")), forum.path().join(name));
        concord(words![role, "add", name, "--dir", dir, "--days", "20"]).ok();
        copy_profile(&folder, &away, &forum.address(dir, "listen"));
        fs::remove_dir_all(folder).unwrap();
        away
    };
    let put = |from: &Value, to: &Path| {
        let folder = PathBuf::from(from["folder"].as_str().unwrap());
        for file in ["certificate.pem", "server-anchor.pem"] {
            fs::copy(folder.join(file), to.join(file)).unwrap();
        }
        assert!(!folder.join("key.pem").exists());
    };
    let aigerim = away(&hub, "officer", "aigerim");
    // Whoever uses it is told, since nobody else may be able to.
    let told = status(&aigerim).ok();
    assert!(told.stderr.contains("ends in 19 days") && told.stderr.contains("officer renew aigerim"), "{told}");
    let before = facts(&aigerim.join("certificate.pem"));
    let renew = words!["officer", "renew", "aigerim", "--dir", hub];
    concord([renew.clone(), words!["--new-key"]].concat()).refused(1, "KEY_ABSENT");
    let renewed = concord(&renew).ok();
    assert!(renewed.stderr.contains("put certificate.pem and server-anchor.pem of"), "{renewed}");
    put(&renewed.json(), &aigerim);
    let after = facts(&aigerim.join("certificate.pem"));
    assert!(after.key == before.key && after.not_after > before.not_after);
    assert!(!status(&aigerim).ok().stderr.contains("note: the certificate"));
    assert!(!hub.join("officers/aigerim").exists(), "it stays where it is");
    let all = concord(words!["hub", "renew", "--all", "--dir", hub]).ok().lines();
    assert!(all.iter().any(|line| line["name"] == "spiffe://sec.concord/officer/aigerim"), "{all:?}");

    // A register of an older version has no keys: it is said, and a request of its holder's does.
    let register = hub.join("anchor/issued.jsonl");
    let lines = fs::read_to_string(&register).unwrap();
    let without = lines.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["issued"].as_object_mut().unwrap().remove("public_key");
        format!("{line}\n")
    });
    fs::write(&register, without.collect::<String>()).unwrap();
    concord(&renew).refused(1, "KEY_ABSENT");
    let all = concord(words!["hub", "renew", "--all", "--dir", hub]).ok();
    assert!(all.stderr.contains("skipped: spiffe://sec.concord/officer/aigerim"), "{all}");
    let csr = forum.path().join("renewal.csr");
    let request = |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    fs::write(&csr, request(&KeyPair::generate().unwrap())).unwrap();
    let by_request = [renew.clone(), words!["--csr", csr]].concat();
    concord(&by_request).refused(3, "CERTIFICATE_UNFIT");
    let key = KeyPair::from_pem(&fs::read_to_string(aigerim.join("key.pem")).unwrap()).unwrap();
    fs::write(&csr, request(&key)).unwrap();
    put(&concord(&by_request).ok().json(), &aigerim);
    status(&aigerim).ok();
    concord(words!["officer", "remove", "aigerim", "--dir", hub, "--yes"]).ok();
    concord(&renew).refused(3, "HOLDER_TAKEN_BACK");

    // The anchor before is not ended over the head of somebody whose profile is elsewhere.
    let night = away(&kaz, "operator", "night");
    let next = concord(words!["anchor", "next", "--dir", kaz]).ok();
    assert!(next.stderr.contains("profile that is not in this folder"), "{next}");
    let end = words!["anchor", "end", "--dir", kaz];
    let left = concord(&end);
    assert!(left.message().contains("spiffe://kaz.concord/operator/night"), "{left}");
    left.refused(3, "CERTIFICATES_LEFT");
    let all = concord(words!["node", "renew", "--all", "--dir", kaz]).ok().lines();
    let named = all.iter().find(|line| line["name"] == "spiffe://kaz.concord/operator/night").unwrap();
    put(named, &night);
    concord(&end).ok();
    let since = Instant::now();
    while status(&night).code != Some(0) {
        assert!(since.elapsed() < DEADLINE, "who was renewed is let in");
    }
}

/// Another hub than the one of the forum, whose anchor is elsewhere too.
#[test]
fn a_hub_whose_anchor_is_elsewhere_is_made_by_request_and_serves() {
    let forum = Forum::empty();
    let (dir, anchor) = (forum.path().join("second-hub"), forum.path().join("sec-anchor"));
    let made = concord(words!["anchor", "init", "--dir", anchor]).ok().json();
    let seeded = words!["hub", "init", "--csr", "--dir", dir, "--seed", forum.path().join("seed.toml")];
    let refused = concord(seeded);
    assert!(refused.message().contains("--seed here would count for nothing"), "{refused}");
    let announced = "hub.example.org:7443";
    concord(words!["hub", "init", "--csr", "--dir", dir, "--officer", "first,second", "--announce", announced]).ok();
    let out = forum.path().join("certificates.pem");
    let request = dir.join("certificate-request.pem");
    concord(words!["hub", "serve", "--dir", dir]).refused(1, "CERTIFICATES_AWAITED");
    let check = concord(words!["hub", "check", "--dir", dir]);
    check.refused(1, "CHECK_FAILED");
    let next = check.lines().into_iter().find(|line| line["check"] == "own-certificate").unwrap()["next"].to_string();
    assert!(next.contains("hub install-cert"), "{next}");
    let signed = concord(words!["anchor", "sign", request, "--dir", anchor, "--yes", "--out", out]).ok();
    assert!(signed.stderr.contains("hub install-cert"), "{signed}");
    concord(words!["hub", "install-cert", out, "--dir", dir]).refused(3, "ANCHOR_UNCOMPARED");
    let install =
        words!["hub", "install-cert", out, "--dir", dir, "--fingerprint", made["fingerprint"].as_str().unwrap()];
    let installed = concord(install).ok().lines();
    assert_eq!((installed.len(), &installed[1]["hub"]), (2, &serde_json::json!("main")), "{installed:?}");
    let server = Process::start(&forum.log("second"), words!["hub", "serve", "--dir", dir]);
    server.line_after("admin ");
    status(&dir.join("officers/second")).ok();
    // Moved to its person, the profile says where the hub is; and where lists go is there.
    let profile = fs::read_to_string(dir.join("officers/second/profile.toml")).unwrap();
    assert!(profile.contains(announced) && dir.join("revocation").is_dir(), "{profile}");
    assert_eq!(server.terminate().code(), Some(0));
}
