//! A node behind an HTTP proxy: everything goes through it by CONNECT, TLS stays with the hub, and what the proxy refuses is said as such.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use concord_tests::{ConnectProxy, Forum, Manner, Proxy, concord, exchange_ids, words};

const AGREEMENT: &str = "KAZ/warnings";
/// `node:secret`.
const CREDENTIALS: &str = "bm9kZTpzZWNyZXQ=";

/// Sets `[uplink]` of a node's settings.
fn uplink(settings: &str, lines: &str) -> String {
    let (before, rest) = settings.split_once("[uplink]").unwrap();
    let (_, after) = rest.split_once("hybrid_key").unwrap();
    let after = after.split_once('\n').map_or("", |(_, after)| after);
    format!("{before}[uplink]\n{lines}\n{after}")
}

#[test]
fn exchanges_go_through_a_proxy_that_asks_who_is_calling_and_what_it_refuses_is_said() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let dir = forum.node_dir("KAZ");
    let proxy = ConnectProxy::new(Manner::Asks(CREDENTIALS.to_owned()));
    let hub = forum.address(&forum.hub_dir(), "listen");

    let file = dir.join("proxy-credentials");
    fs::write(&file, "node:secret\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let lines =
        format!("proxy = \"{}\"\nproxy_credentials = \"proxy-credentials\"\nhybrid_key = \"prefer\"", proxy.url());
    forum.configure_node("KAZ", |settings| uplink(settings, &lines));
    let sent = kaz.submit("through the proxy", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [sent.id]);
    let back = irn.submit("and back", "--lane flash --wait delivered");
    assert_eq!(exchange_ids(&kaz.receive(1)), [back.id]);
    let seen = proxy.seen();
    // Its own for all but flash, and those of flash.
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(seen.iter().all(|one| one.target == hub && one.offers_hybrid()), "{}", seen.len());

    // With other credentials nothing gets out; what is handed in waits, and goes when they are right.
    forum.stop_node("KAZ");
    fs::write(&file, "node:wrong\n").unwrap();
    forum.start_node("KAZ");
    let waits = kaz.submit("while the proxy says no", "");
    let checked = concord(words!["node", "check", "--dir", dir]);
    checked.refused(1, "CHECK_FAILED");
    let line = checked.lines().into_iter().find(|line| line["check"] == "proxy").unwrap();
    assert!(line["message"].as_str().unwrap().contains("407") && line["result"] == "failed", "{line}");
    forum.stop_node("KAZ");
    fs::write(&file, "node:secret\n").unwrap();
    forum.start_node("KAZ");
    assert_eq!(exchange_ids(&irn.receive(1)), [waits.id]);

    // A proxy that is not there is what is looked for, not the hub.
    let toml = dir.join("node.toml");
    let settings = fs::read_to_string(&toml).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(&toml, settings.replace(&proxy.url(), &format!("http://{nobody}"))).unwrap();
    let checked = concord(words!["node", "check", "--dir", dir]);
    let line = checked.lines().into_iter().find(|line| line["check"] == "tcp").unwrap();
    assert!(line["next"].as_str().unwrap().contains("see whether the proxy runs"), "{line}");
    fs::write(&toml, settings).unwrap();

    // The file is for its owner's eyes.
    forum.stop_node("KAZ");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let served = concord(words!["node", "serve", "--dir", dir]);
    served.refused(2, "CONFIG_INVALID");
    assert!(served.message().contains("chmod 600"), "{served}");
}

#[test]
fn without_the_hybrid_key_a_network_that_drops_large_hellos_lets_through() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let (dir, proxy) = (forum.node_dir("KAZ"), ConnectProxy::new(Manner::DropsLargeHellos));
    let lines = |hybrid: &str| format!("proxy = \"{}\"\nhybrid_key = \"{hybrid}\"", proxy.url());
    forum.configure_node("KAZ", |settings| uplink(settings, &lines("prefer")));
    let sent = kaz.submit("held up", "");
    let checked = concord(words!["node", "check", "--dir", dir]);
    checked.refused(1, "CHECK_FAILED");
    let line = checked.lines().into_iter().find(|line| line["check"] == "hybrid-key").unwrap();
    assert_eq!((&line["values"]["with"], &line["values"]["without"]), (&false.into(), &true.into()), "{line}");
    assert!(line["next"].as_str().unwrap().contains("hybrid_key = \"off\""), "{line}");
    assert_eq!(forum.status(&dir)["hub_connected"], false);

    let before = proxy.seen().len();
    forum.configure_node("KAZ", |settings| uplink(settings, &lines("off")));
    assert_eq!(exchange_ids(&irn.receive(1)), [sent.id]);
    let seen = proxy.seen();
    assert!(seen.len() > before && seen[before..].iter().all(|one| !one.offers_hybrid()));
    let checked = concord(words!["node", "check", "--dir", dir]).ok().lines();
    let line = |name: &str| checked.iter().find(|line| line["check"] == name).unwrap();
    assert_eq!(line("tls")["values"]["key_exchange"], "X25519");
    assert_eq!(line("hybrid-key")["result"], "ok");
}

#[test]
fn each_way_in_which_a_proxy_fails_has_its_own_word_and_a_command_goes_through_one_too() {
    let forum = Forum::of(&["KAZ"]);
    let proxy = ConnectProxy::new(Manner::Passes);
    let settings = forum.node_dir("KAZ").join("operator/profile.toml");
    let plain = fs::read_to_string(&settings).unwrap();
    let status = words!["status", "--profile", forum.node_dir("KAZ").join("operator")];
    fs::write(&settings, format!("{plain}proxy = \"{}\"\nhybrid_key = \"off\"\n", proxy.url())).unwrap();
    concord(status.clone()).ok();
    let seen = proxy.seen();
    assert!(seen.len() == 1 && !seen[0].offers_hybrid(), "{}", seen.len());

    for (manner, reason) in [
        (Manner::Asks(CREDENTIALS.to_owned()), "PROXY_AUTHENTICATION"),
        (Manner::Answers("403 Forbidden".to_owned()), "PROXY_FORBIDDEN"),
        (Manner::Answers("503 Service Unavailable".to_owned()), "PROXY_REFUSED"),
        (Manner::Strange, "PROXY_ANSWER"),
    ] {
        proxy.behave(manner);
        concord(status.clone()).refused(4, reason);
    }
    // A server that is none of ours, and one that is none at all.
    let other = Proxy::new("127.0.0.1:1");
    fs::write(&settings, format!("{plain}proxy = \"http://{}\"\n", other.address())).unwrap();
    concord(status.clone()).refused(4, "PROXY_ANSWER");
    drop(other);
    fs::write(&settings, format!("{plain}proxy = \"http://127.0.0.1:1\"\n")).unwrap();
    concord(status.clone()).refused(4, "PROXY_UNREACHABLE");
    fs::write(&settings, format!("{plain}proxy = \"127.0.0.1:1\"\n")).unwrap();
    concord(status).refused(1, "PROFILE_UNUSABLE");
}
