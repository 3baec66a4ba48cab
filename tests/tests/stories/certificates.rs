//! Every kind of bad certificate at every listener of running servers: refused in the handshake, for its own reason in the log and
//! with the same alert for all, and nothing that was said behind it is read. Honest callers do not notice.

mod door;
mod kinds;

use std::time::Instant;

use concord_identity::Application;
use concord_tests::DEADLINE;
use concord_tests::forge::Heard;

use self::door::{Counted, stage};
use self::kinds::{KINDS, Kind, PROTOCOL};

/// Nothing came but the end, and where nothing was said before it, the end is this alert.
fn check_heard(cell: &str, heard: &Heard, alert: Option<&str>) {
    assert!(heard.bytes.is_empty(), "{cell}: it was answered: {:?}", String::from_utf8_lossy(&heard.bytes));
    let why = heard.end.as_ref().expect_err(cell);
    if let Some(alert) = alert {
        assert!(why.contains(alert), "{cell}: {why}");
    }
}

#[test]
fn every_bad_certificate_is_refused_in_the_handshake_at_every_listener_and_honest_callers_do_not_notice() {
    let (forum, doors) = stage();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut cells = 0;
    runtime.block_on(async {
        let mut counted = Vec::new();
        for door in &doors {
            door.serves_the_honest().await;
            if door.listener.application == Application::Grpc {
                door.counts_what_it_reads(&doors[door.admin]).await;
            }
        }
        for door in &doors {
            counted.push(Counted::of(&doors[door.admin]).await);
        }
        let nothing: Kind = ("no certificate at all", "NO_CERTIFICATE", |door| door.honest.clone());
        for (kind, reason, make) in std::iter::once(&nothing).chain(KINDS) {
            for door in &doors {
                let cell = format!("{kind} at the {}'s listener", door.name);
                let shown = (*reason != nothing.1).then(|| make(door));
                let config = door.listener.any_client(&door.honest, shown.as_ref());
                // Once in silence, to hear the alert; once with a request as early as TLS lets it, whose loss may hide the alert.
                let alert = match *reason {
                    "NO_CERTIFICATE" => "CertificateRequired",
                    PROTOCOL => "DecryptError",
                    // One for all: nothing tells who is enrolled, or what was wrong.
                    _ => "CertificateUnknown",
                };
                check_heard(&cell, &door.listener.knock_in_vain(config.clone(), &[]).await, Some(alert));
                check_heard(&cell, &door.listener.knock_in_vain(config, &door.request()).await, None);

                let before = std::mem::take(&mut counted[door.admin]);
                let mut expected = before.refused.clone();
                *expected.entry((*reason).to_owned()).or_default() += 2;
                let since = Instant::now();
                // The alert is out a moment before it is counted.
                let now = loop {
                    let now = Counted::of(&doors[door.admin]).await;
                    if now.refused.values().sum::<u64>() >= expected.values().sum() || since.elapsed() > DEADLINE {
                        break now;
                    }
                };
                assert_eq!(now, Counted { refused: expected, denied: before.denied }, "{cell}");
                counted[door.admin] = now;
                door.serves_the_honest().await;
                cells += 1;
            }
        }
    });
    assert!(cells > 200, "{cells} cells");
    for dir in [forum.hub_dir(), forum.node_dir("KAZ")] {
        assert_eq!(forum.status(&dir)["alarms"], serde_json::json!([]));
    }
}
