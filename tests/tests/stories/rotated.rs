//! Servers that change their keys and their anchors by their owner's own word, while they run: what was agreed goes on, with nobody else's
//! help, and what was signed before stands.

use std::fs;
use std::path::Path;
use std::time::Instant;

use concord_identity::{CertificateFacts, LeafKey, certificates_from_pem};
use concord_tests::forge::{Listener, Shown, put_list, serial_in};
use concord_tests::{DEADLINE, Forum, concord, exchange_ids, replace_line, text_of, words};
use serde_json::{Value, json};

use crate::keys::{copy_profile, expire};

const AGREEMENT: &str = "KAZ/x";
const MEASURE: &str = "environmental.5";

fn tls_key(dir: &Path) -> String {
    let chain = certificates_from_pem(&fs::read_to_string(dir.join("tls/certificate.pem")).unwrap()).unwrap();
    CertificateFacts::read(&chain[0]).unwrap().key.unwrap().fingerprint().grouped()
}

/// A participant as somebody's officer is shown it.
fn shown(forum: &Forum, code: &str, by: &str) -> Value {
    let profile = if by == "SEC" { forum.hub_dir() } else { forum.node_dir(by) }.join("officer");
    concord(words!["participant", "show", code, "--profile", profile]).ok().json()
}

/// Waits until a node was told that a participant has this in a field.
fn await_shown(forum: &Forum, code: &str, by: &str, field: &str, value: impl Into<Value>) -> Value {
    let (value, since) = (value.into(), Instant::now());
    loop {
        let shown = shown(forum, code, by);
        if shown[field] == value {
            return shown;
        }
        assert!(since.elapsed() < DEADLINE, "{by} is not shown that {field} of {code} is {value}: {shown}");
    }
}

fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    forum
}

/// Both ways, to the end.
fn exchange(forum: &Forum, what: &str) {
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    for (from, to, code) in [(&kaz, &irn, "IRN"), (&irn, &kaz, "KAZ")] {
        let sent = from.submit(what, &format!("--agreement {AGREEMENT} --wait delivered")).id;
        assert_eq!(exchange_ids(&to.receive(1)), [sent.clone()], "{what}");
        from.await_taken(&sent, code);
    }
}

#[test]
fn a_node_that_changes_its_keys_goes_on_and_who_consented_to_the_keys_before_needs_to_say_nothing() {
    let mut forum = forum();
    let dir = forum.node_dir("KAZ");
    exchange(&forum, "with the first keys");
    let before = (shown(&forum, "KAZ", "IRN"), tls_key(&dir));
    let waits = forum.agency("IRN").submit("given under the first keys", "--wait delivered").id;

    let rotated = concord(words!["node", "rotate", "--dir", dir]).ok().json();
    assert_eq!(
        (text_of(&rotated, "statement").as_str(), rotated["epoch"].as_u64()),
        ("accepted", Some(2)),
        "{rotated}"
    );
    let now = await_shown(&forum, "KAZ", "IRN", "signing_key_fingerprint", text_of(&rotated, "signing_key"));
    assert_eq!(now["fingerprint"], rotated["fingerprint"]);
    assert_eq!(now["earlier_signing_keys"], serde_json::json!([before.0["signing_key_fingerprint"]]));
    assert_eq!(now["anchor_fingerprint"], before.0["anchor_fingerprint"]);
    // Who enrolled it is not said to have seen these.
    assert_eq!((&before.0["keys_by"], &now["keys_by"]), (&"secretariat".into(), &"own-word".into()), "{now}");
    assert_ne!(tls_key(&dir), before.1);
    assert_eq!(exchange_ids(&forum.agency("KAZ").receive(1)), [waits]);
    exchange(&forum, "with the second keys");
    let pins = concord(words!["pin", "list", "--profile", forum.node_dir("IRN").join("operator")]).ok().lines();
    assert_eq!(pins[0]["state"], "consented", "{pins:?}");

    // Over a restart of all, and once more.
    forum.stop_node("KAZ");
    forum.stop_hub();
    forum.start_hub();
    forum.start_node("KAZ");
    exchange(&forum, "behind a restart");
    let again = concord(words!["node", "rotate", "--dir", dir]).ok().json();
    assert_eq!(again["epoch"].as_u64(), Some(3));
    exchange(&forum, "with the third keys");
    assert_eq!(
        fs::read_to_string(dir.join("signing/key.pem")).unwrap().matches("BEGIN").count(),
        2,
        "one before is kept"
    );

    // An agreement that names the keys of before is joined by whoever it waits for.
    forum.propose("IRN/late", MEASURE, &["IRN", "KAZ"]);
    concord(words!["node", "rotate", "--dir", dir]).ok();
    forum.consent("IRN/late", "KAZ");
    forum.await_in_force("IRN/late", "IRN");
    // The journal and the log of who did what tell it.
    let journal = concord(words!["journal", "show", dir]).ok().text();
    assert!(journal.contains("rotates the signing key of node main from epoch 2 on"), "{journal}");
    let audit = concord(words!["audit", "--profile", forum.hub_dir().join("operator")]).ok().text();
    assert!(audit.contains("rotate key of node main"), "{audit}");
    // The keys are the node's own: neither an agency nor another state's officer says so, nor the hub's folder.
    let agency = dir.join("agencies/agency");
    concord(words!["node", "rotate", "--dir", dir, "--profile", agency]).refused(3, "CALLER_NOT_ALLOWED");
    let other = forum.node_dir("IRN").join("officer");
    concord(words!["node", "rotate", "--dir", dir, "--profile", other]).refused(2, "USAGE");
    concord(words!["hub", "rotate", "--dir", dir]).refused(2, "USAGE");
    exchange(&forum, "at the end");
}

#[test]
fn a_rotation_that_waits_for_the_hub_takes_nothing_with_it_and_said_twice_is_one() {
    let mut forum = forum();
    let dir = forum.node_dir("KAZ");
    forum.stop_hub();
    let first = concord(words!["node", "rotate", "--dir", dir]).ok().json();
    assert_eq!(text_of(&first, "statement"), "queued");
    let waits = forum.agency("KAZ").submit("while the hub is away", "").id;
    // Killed and started again it still signs with the key that counts.
    forum.kill_node("KAZ");
    forum.start_node("KAZ");
    let waits_too = forum.agency("KAZ").submit("behind a restart", "").id;
    forum.start_hub();
    let received = exchange_ids(&forum.agency("IRN").receive(2));
    assert!(received.contains(&waits) && received.contains(&waits_too), "each once");
    await_shown(&forum, "KAZ", "IRN", "signing_key_fingerprint", text_of(&first, "signing_key"));
    exchange(&forum, "with the new keys");
}

#[test]
fn a_node_with_an_old_key_file_takes_nothing_that_no_hub_would_take_and_goes_on_when_the_right_one_is_back() {
    let mut forum = forum();
    let dir = forum.node_dir("KAZ");
    let file = dir.join("signing/key.pem");
    let old = fs::read(&file).unwrap();
    concord(words!["node", "rotate", "--dir", dir]).ok();
    exchange(&forum, "with the second keys");
    forum.stop_node("KAZ");
    let right = fs::read(&file).unwrap();
    fs::write(&file, old).unwrap();
    forum.start_node("KAZ");
    let said = forum.await_alarm(&dir, "signing-key");
    assert!(said.contains("nothing is queued") && said.contains("Put the file of the last rotation back"), "{said}");
    let agency = forum.agency("KAZ");
    let body = forum.path().join("body.txt");
    fs::write(&body, "x").unwrap();
    let submit = || concord(words!["submit", body, "--agreement", AGREEMENT, "--profile", agency.profile]);
    let refused = submit();
    refused.refused(3, "SIGNING_KEY_UNKNOWN");
    assert!(refused.stderr.contains("put the file of its last rotation back"), "{refused}");
    // What others send comes all the same.
    let sent = forum.agency("IRN").submit("to a node with an old key", "").id;
    assert_eq!(exchange_ids(&agency.receive(1)), [sent]);

    forum.stop_node("KAZ");
    fs::write(&file, right).unwrap();
    forum.start_node("KAZ");
    forum.await_alarm(&dir, "[]");
    exchange(&forum, "with the right keys again");
}

#[test]
fn a_backup_of_before_a_rotation_is_put_back_and_the_node_finds_its_new_keys() {
    let mut forum = forum();
    let dir = forum.node_dir("KAZ");
    exchange(&forum, "before the backup");
    let backup = forum.path().join("node.backup");
    concord(words!["node", "backup", "--profile", dir.join("officer"), "--out", backup]).ok();
    concord(words!["node", "rotate", "--dir", dir]).ok();
    exchange(&forum, "after the backup");
    forum.stop_node("KAZ");
    concord(words!["node", "restore", backup, "--dir", dir]).ok();
    forum.start_node("KAZ");
    crate::healing_node::await_recovered(&forum, &dir);
    forum.confirm_agencies(&dir);
    let sent = forum.agency("KAZ").submit("behind the restore", "--wait delivered").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [sent]);
}

#[test]
fn a_node_whose_certificate_has_expired_renews_it_and_then_changes_its_keys() {
    let mut forum = forum();
    let dir = forum.node_dir("KAZ");
    forum.stop_node("KAZ");
    expire(&dir, "tls", "KAZ", true);
    forum.start_node("KAZ");
    concord(words!["node", "rotate", "--dir", dir]).refused(3, "CERTIFICATE_EXPIRED");
    concord(words!["node", "renew", "--dir", dir]).ok();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    concord(words!["node", "rotate", "--dir", dir]).ok();
    exchange(&forum, "with new keys");
    // The same of the next anchor.
    expire(&dir, "tls", "KAZ", true);
    concord(words!["anchor", "next", "--dir", dir]).ok();
    concord(words!["node", "renew", "--dir", dir, "--all"]).ok();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    exchange(&forum, "under the next anchor");
}

#[test]
fn both_anchors_of_a_state_count_until_the_one_before_is_ended_and_nobody_is_shut_out_on_the_way() {
    let mut forum = forum();
    let dir = forum.node_dir("KAZ");
    let first = text_of(&shown(&forum, "KAZ", "IRN"), "anchor_fingerprint");
    let elsewhere = forum.path().join("elsewhere");
    copy_profile(&dir.join("agencies/agency"), &elsewhere, &forum.address(&dir, "listen"));
    let lost = forum.path().join("lost-officer");
    copy_profile(&dir.join("officer"), &lost, &forum.address(&dir, "listen"));

    let next = concord(words!["anchor", "next", "--dir", dir]).ok().json();
    assert_eq!((&next["statement"], text_of(&next, "before")), (&"accepted".into(), first.clone()), "{next}");
    let told = await_shown(&forum, "KAZ", "IRN", "anchor_fingerprint", text_of(&next, "anchor"));
    assert_eq!(text_of(&told, "ending_anchor_fingerprint"), first);
    exchange(&forum, "with certificates under the first");
    assert_eq!(
        concord(words!["anchor", "next", "--dir", dir]).ok().json()["anchor"],
        next["anchor"],
        "said twice it is one"
    );
    let check = concord(words!["node", "check", "--dir", dir]).ok();
    assert!(said(&check).contains("node renew --all --dir"), "a phase that a person ends is named: {check}");
    let left = concord(words!["anchor", "end", "--dir", dir]);
    assert!(left.stderr.contains("spiffe://kaz.concord/agency/agency"), "{}", left.stderr);
    left.refused(3, "CERTIFICATES_LEFT");

    concord(words!["node", "renew", "--dir", dir, "--all"]).ok();
    let check = concord(words!["node", "check", "--dir", dir]).ok();
    assert!(said(&check).contains("anchor end --dir"), "{check}");
    exchange(&forum, "with certificates under the next");
    // Who has the profile of before on another machine knows the server by the anchor of before.
    let since = Instant::now();
    while concord(words!["status", "--profile", lost]).code == Some(0) {
        assert!(since.elapsed() < DEADLINE, "the node shows its certificate under the next within a second");
    }
    fs::copy(dir.join("agencies/agency/server-anchor.pem"), elsewhere.join("server-anchor.pem")).unwrap();
    fs::copy(dir.join("officer/server-anchor.pem"), lost.join("server-anchor.pem")).unwrap();
    concord(words!["status", "--profile", lost]).ok();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    exchange(&forum, "behind a restart");

    let ended = concord(words!["anchor", "end", "--dir", dir]).ok().json();
    assert_eq!(text_of(&ended, "before"), first);
    await_shown(&forum, "KAZ", "IRN", "ending_anchor_fingerprint", Value::Null);
    let since = Instant::now();
    while concord(words!["status", "--profile", lost]).code == Some(0) {
        assert!(since.elapsed() < DEADLINE, "a certificate under the anchor before is still let in");
    }
    concord(words!["anchor", "end", "--dir", dir]).refused(3, "NOTHING_TO_END");
    exchange(&forum, "under the next alone");
    assert!(dir.join("anchor/key.pem").exists() && !dir.join("anchor-next").exists());
    let consented = concord(words!["pin", "list", "--profile", forum.node_dir("IRN").join("operator")]).ok().lines();
    assert_eq!(consented[0]["state"], "consented");

    // One whose key never is on this machine comes in a file, and is compared.
    let safe = forum.path().join("safe");
    let made = concord(words!["anchor", "init", "--dir", safe, "--participant", "KAZ"]).ok().json();
    let given = words!["anchor", "next", "--dir", dir, "--anchor", safe.join("certificate.pem"), "--fingerprint"];
    concord([given.clone(), words!["0".repeat(64)]].concat()).refused(3, "FINGERPRINT_MISMATCH");
    let uncompared = words!["anchor", "next", "--dir", dir, "--anchor", safe.join("certificate.pem")];
    concord(uncompared).refused(3, "ANCHOR_UNCOMPARED");
    concord([given, words![text_of(&made, "fingerprint")]].concat()).ok();
    concord(words!["node", "renew", "--dir", dir]).refused(1, "ANCHOR_KEY_ABSENT");
    concord(words!["node", "renew", "--dir", dir, "--all", "--csr"]).ok();
    let (request, signed) = (dir.join("certificate-request.pem"), forum.path().join("signed.pem"));
    concord(words!["anchor", "sign", request, "--dir", safe, "--out", signed, "--yes"]).ok();
    concord(words!["node", "install-cert", signed, "--dir", dir]).ok();
    exchange(&forum, "under one that is elsewhere");
    concord(words!["anchor", "end", "--dir", dir]).ok();
    forum.stop_node("KAZ");
    forum.start_node("KAZ");
    exchange(&forum, "under it alone");
    // Whose key is elsewhere is followed by none that is made here, unless that is said.
    concord(words!["anchor", "next", "--dir", dir]).refused(3, "ANCHOR_KEY_ELSEWHERE");
    assert!(!dir.join("anchor-next").exists(), "nothing was made");
}

#[test]
fn a_key_that_was_taken_back_is_certified_no_more_by_the_anchor_that_follows() {
    let forum = forum();
    let (dir, csr) = (forum.node_dir("KAZ"), forum.path().join("k.csr"));
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(&csr, rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()).unwrap();
    let add = |name: &str| concord(words!["agency", "add", name, "--csr", csr, "--dir", dir]);
    add("qa").ok();
    concord(words!["anchor", "next", "--dir", dir]).ok();
    concord(words!["agency", "remove", "qa", "--yes", "--dir", dir]).ok();
    let refused = add("qb");
    assert!(refused.stderr.contains("make a new key"), "{refused}");
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("KEY_TAKEN_BACK"), "{refused}");
}

#[test]
fn the_hub_changes_its_keys_and_its_anchor_and_every_node_hears_of_it_by_its_feed() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    let hub = forum.hub_dir();
    let recorded = forum.agency("KAZ").submit("under the first key", "--wait delivered").id;
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(1)), [recorded.clone()]);
    forum.stop_node("TUR");

    let before = shown(&forum, "SEC", "SEC")["hub_fingerprint"].clone();
    let rotated = concord(words!["hub", "rotate", "--dir", hub]).ok().json();
    assert_eq!((text_of(&rotated, "statement").as_str(), rotated["epoch"].is_null()), ("accepted", true));
    let now = shown(&forum, "SEC", "SEC")["hub_fingerprint"].clone();
    assert_ne!(now, before);
    await_shown(&forum, "SEC", "KAZ", "hub_fingerprint", now);
    exchange(&forum, "with receipts under the second key");
    let next = concord(words!["anchor", "next", "--dir", hub]).ok().json();
    for code in ["KAZ", "IRN"] {
        await_shown(&forum, "SEC", code, "anchor_fingerprint", text_of(&next, "anchor"));
    }
    concord(words!["hub", "renew", "--dir", hub, "--all"]).ok();
    forum.stop_hub();
    forum.start_hub();
    exchange(&forum, "under the next anchor");
    // Who is away is named: it would know no way to the hub any more.
    let away = concord(words!["anchor", "end", "--dir", hub]);
    assert!(away.stderr.contains("TUR") && !away.stderr.contains("KAZ"), "{away}");
    away.refused(3, "NODES_AWAY");
    concord(words!["anchor", "end", "--anyway", "--dir", hub]).ok();
    await_shown(&forum, "SEC", "KAZ", "ending_anchor_fingerprint", Value::Null);
    forum.stop_hub();
    forum.stop_node("KAZ");
    forum.start_hub();
    forum.start_node("KAZ");
    exchange(&forum, "under it alone");
    // What the hub signed before, its node still takes for its word.
    assert_eq!(forum.agency("KAZ").settled(&recorded), ["IRN taken"]);

    // A node that was away all the time knows no way to it: a new bundle, compared, brings it.
    forum.start_node("TUR");
    forum.await_alarm(&forum.node_dir("TUR"), "hub-unreachable");
    forum.stop_node("TUR");
    let bundle = forum.path().join("tur.json");
    let again = words!["participant", "bundle", "TUR", "--profile", hub.join("officer"), "--out", bundle];
    let made = concord(again).ok().json();
    let join = words!["node", "join", bundle, "--dir", forum.node_dir("TUR"), "--fingerprint"];
    concord([join, words![text_of(&made, "bundle_fingerprint")]].concat()).ok();
    forum.start_node("TUR");
    await_shown(&forum, "SEC", "TUR", "anchor_fingerprint", text_of(&next, "anchor"));
    // So does one that joins now: what was said under the anchor of before it is told, too.
    forum.join("UZB");
    forum.start_node("UZB");
    let hub_now = shown(&forum, "SEC", "SEC")["hub_fingerprint"].clone();
    await_shown(&forum, "SEC", "UZB", "hub_fingerprint", hub_now);
    forum.agree("KAZ/y", MEASURE, &["KAZ", "UZB", "TUR"]);
    let sent = forum.agency("KAZ").submit("to all", "--agreement KAZ/y --wait delivered").id;
    assert_eq!(exchange_ids(&forum.agency("UZB").receive(1)), [sent.clone()]);
    assert_eq!(exchange_ids(&forum.agency("TUR").receive(1)), [sent]);
}

/// All that a command said.
fn said(ran: &concord_tests::Ended) -> String {
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// What a server of this folder shows now, with its key.
fn shown_by(dir: &Path) -> Shown {
    let path = dir.join("tls/certificate.pem");
    let key = LeafKey::load(&dir.join("tls/key.pem")).unwrap().to_pkcs8_der().unwrap();
    Shown {
        chain: certificates_from_pem(&fs::read_to_string(&path).unwrap()).unwrap(),
        key: key.to_vec(),
        serial: serial_in(&path),
    }
}

#[test]
fn the_certificate_of_before_is_taken_back_by_its_number_alone_and_the_new_one_goes_on() {
    let mut forum = forum();
    let (dir, hub) = (forum.node_dir("KAZ"), forum.hub_dir());
    let (of_before, list) = (shown_by(&dir), forum.path().join("kaz.crl"));
    let rotated = concord(words!["node", "rotate", "--dir", dir]).ok();
    let serial = text_of(&rotated.json(), "serial_before");
    assert!(rotated.stderr.contains("anchor revoke --serial") && rotated.stderr.contains(&serial), "{rotated}");
    exchange(&forum, "with the new keys");

    let revoke =
        |who: Vec<_>| [words!["anchor", "revoke"], who, words!["--dir", dir.join("anchor"), "--out", list]].concat();
    let by_number = revoke(words!["--serial", serial]);
    concord(&by_number).refused(2, "USAGE");
    let other = [revoke(words!["officer/officer", "--serial", serial]), words!["--yes"]].concat();
    concord(other).refused(3, "SERIAL_OF_ANOTHER");
    assert!(!list.exists(), "nothing was done");
    let revoked = concord([by_number, words!["--yes"]].concat()).ok();
    let line = revoked.json();
    assert_eq!(
        (&line["names"], &line["serials"], &line["named"]),
        (&json!(["spiffe://kaz.concord/node/main"]), &json!([serial]), &json!(1)),
        "this one and no other"
    );
    assert!(revoked.stderr.contains("send it to the secretariat at once"), "{revoked}");
    // A number that the register does not have is taken back, too, and that is said.
    let unknown = concord([revoke(words!["--serial", "0BAD"]), words!["--yes"]].concat()).ok();
    assert!(unknown.stderr.contains("does not have the certificate 0bad"), "{unknown}");
    assert_eq!((&unknown.json()["names"], &unknown.json()["named"]), (&json!([]), &json!(2)));

    put_list(&hub, "kaz.crl", fs::read(&list).unwrap());
    put_list(&dir, "kaz.crl", fs::read(&list).unwrap());
    let listener = Listener::of(&forum, &hub, "spiffe://sec.concord/hub/main");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_let_in =
        |shown: &Shown| runtime.block_on(concord_server::connect(&listener.address, listener.client(shown))).is_ok();
    let since = Instant::now();
    while is_let_in(&of_before) {
        assert!(since.elapsed() < DEADLINE, "the certificate of before is still let in");
    }
    assert!(is_let_in(&shown_by(&dir)));
    exchange(&forum, "while the one before is refused");
    forum.stop_hub();
    forum.stop_node("KAZ");
    forum.start_hub();
    forum.start_node("KAZ");
    exchange(&forum, "behind a restart");
    assert!(!is_let_in(&of_before));
}

/// Another officer of the secretariat signs what waits.
fn approve(second: &Path) {
    let waiting = concord(words!["approval", "list", "--profile", second]).ok().lines();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    concord(words!["approval", "approve", text_of(&waiting[0], "id"), "--yes", "--profile", second]).ok();
}

#[test]
fn a_hub_whose_anchor_lies_in_a_safe_changes_its_keys_and_its_anchor_and_is_renewed_after_its_end() {
    let mut forum = forum();
    let (hub, kaz) = (forum.hub_dir(), forum.node_dir("KAZ"));
    concord(words!["officer", "add", "second", "--dir", hub]).ok();
    let second = hub.join("officers/second");
    // As a folder of an older version, which had its anchor's certificate in one place.
    forum.stop_hub();
    fs::remove_file(hub.join("tls/anchor.pem")).unwrap();
    forum.start_hub();
    assert!(hub.join("tls/anchor.pem").exists(), "a hub that starts keeps by which anchor it is known");
    forum.configure_hub(|settings| replace_line(settings, "quorum", "2"));
    let safe = forum.path().join("safe");
    fs::rename(hub.join("anchor"), &safe).unwrap();
    let check = || concord(words!["hub", "check", "--dir", hub]);
    check().ok();

    // New keys; and what is compared with whoever joins is what it was.
    let rotated = concord(words!["hub", "rotate", "--dir", hub]).ok().json();
    assert_eq!(
        (text_of(&rotated, "statement").as_str(), rotated["certificate"].is_null()),
        ("waits", true),
        "{rotated}"
    );
    approve(&second);
    exchange(&forum, "with receipts under the second key");
    let bundle = forum.path().join("kaz.json");
    let again = words!["participant", "bundle", "KAZ", "--profile", hub.join("officer"), "--out", bundle];
    let made = concord(again).ok().json();
    assert_eq!(made["bundle_fingerprint"], rotated["fingerprint"]);
    forum.stop_node("KAZ");
    let join = words!["node", "join", bundle, "--dir", kaz, "--fingerprint", text_of(&rotated, "fingerprint")];
    concord(join).ok();
    forum.start_node("KAZ");
    check().ok();

    // The next anchor, whose key lies in another safe, as a folder that `expire` finds.
    let elsewhere = forum.path().join("elsewhere");
    let made = concord(words!["anchor", "init", "--dir", elsewhere.join("anchor")]).ok().json();
    let certificate = elsewhere.join("anchor/certificate.pem");
    let fingerprint = text_of(&made, "fingerprint");
    let next = words!["anchor", "next", "--dir", hub, "--anchor", certificate, "--fingerprint", fingerprint];
    assert_eq!(concord(&next).ok().json()["statement"], "waits");
    concord(words!["status", "--profile", second]).ok();
    approve(&second);
    let next = concord(&next).ok();
    assert!(next.stderr.contains("server-anchor.pem"), "{next}");
    for code in ["KAZ", "IRN"] {
        await_shown(&forum, "SEC", code, "anchor_fingerprint", text_of(&next.json(), "anchor"));
    }
    check().ok();
    let renew = |forum: &Forum, all: Vec<_>| {
        concord([words!["hub", "renew", "--csr", "--dir", hub], all].concat()).ok();
        let (request, signed) = (hub.join("certificate-request.pem"), forum.path().join("signed.pem"));
        concord(words!["anchor", "sign", request, "--dir", elsewhere.join("anchor"), "--out", signed, "--yes"]).ok();
        concord(words!["hub", "install-cert", signed, "--dir", hub]).ok();
    };
    let end = words!["anchor", "end", "--dir", hub];
    concord(&end).refused(3, "CERTIFICATES_LEFT");
    renew(&forum, words!["--all"]);
    exchange(&forum, "under the next anchor");
    assert_eq!(concord(&end).ok().json()["statement"], "waits");
    approve(&second);
    assert_eq!(concord(&end).ok().json()["statement"], "accepted");
    await_shown(&forum, "SEC", "KAZ", "ending_anchor_fingerprint", Value::Null);
    exchange(&forum, "under it alone");

    // Its certificate ends, and nobody brings an anchor's key to this machine.
    forum.stop_hub();
    let tls = elsewhere.join("tls");
    fs::create_dir(&tls).unwrap();
    for file in ["certificate.pem", "key.pem"] {
        fs::copy(hub.join("tls").join(file), tls.join(file)).unwrap();
    }
    expire(&elsewhere, "tls", "SEC", true);
    fs::copy(tls.join("certificate.pem"), hub.join("tls/certificate.pem")).unwrap();
    fs::copy(tls.join("key.pem"), hub.join("tls/key.pem")).unwrap();
    check().refused(1, "CHECK_FAILED");
    renew(&forum, words![]);
    check().ok();
    forum.start_hub();
    exchange(&forum, "behind its end");
}

#[test]
fn the_hub_s_new_keys_wait_for_the_others_of_its_officers() {
    let forum = Forum::seeded(words!["--quorum", "2"]);
    let hub = forum.hub_dir();
    let said = concord(words!["hub", "rotate", "--dir", hub, "--profile", hub.join("officer")]).ok().json();
    assert_eq!(text_of(&said, "statement"), "waits");
    let before = text_of(&shown(&forum, "SEC", "SEC"), "hub_fingerprint");
    let second = hub.join("officers/officer-2");
    let waiting = concord(words!["approval", "list", "--profile", second]).ok().lines();
    assert_eq!(waiting[0]["kind"], "rotate-key", "{waiting:?}");
    concord(words!["approval", "approve", text_of(&waiting[0], "id"), "--yes", "--profile", second]).ok();
    assert_ne!(text_of(&shown(&forum, "SEC", "SEC"), "hub_fingerprint"), before);
}
