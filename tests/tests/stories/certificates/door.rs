//! The listeners of running servers, and what they count.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use concord_identity::{Anchor, Application, read_text};
use concord_model::ParticipantCode;
use concord_tests::forge::{Authority, Listener, Shown};
use concord_tests::{DEADLINE, Forum, replace_line};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A listener with the authorities of whom it lets in.
pub(super) struct Door {
    pub(super) name: &'static str,
    pub(super) listener: Listener,
    /// The name in the certificate of an honest caller, and what is before its role.
    pub(super) uri: &'static str,
    pub(super) state: &'static str,
    /// Somebody of the same state for whom this listener is not.
    pub(super) not_admitted: &'static str,
    pub(super) anchor: Authority,
    /// Below the anchor.
    pub(super) authority: Authority,
    /// The same, taken back by the anchor.
    pub(super) revoked: Authority,
    /// Another state that is enrolled.
    pub(super) foreign: Authority,
    pub(super) honest: Shown,
    pub(super) revoked_by_the_anchor: Shown,
    pub(super) revoked_below: Shown,
    /// Whose counters tell what became of a handshake.
    pub(super) admin: usize,
}

impl Door {
    /// Connects as an honest caller does and is answered.
    pub(super) async fn serves_the_honest(&self) {
        match self.listener.application {
            Application::Grpc => {
                let channel = concord_server::connect(&self.listener.address, self.listener.client(&self.honest)).await;
                let mut client = HealthClient::new(channel.unwrap_or_else(|error| panic!("{}: {error}", self.name)));
                client.check(HealthCheckRequest::default()).await.unwrap();
            }
            Application::Admin => assert!(self.page("/healthz").await.ends_with("alive\n")),
        }
    }

    /// An honest caller's request is read, and counted: so it would be seen if somebody else's were.
    pub(super) async fn counts_what_it_reads(&self, admin: &Self) {
        let (listener, config) = (self.listener.clone(), self.listener.client(&self.honest));
        let (request, before) = (self.request(), Counted::of(admin).await.denied);
        let open = tokio::spawn(async move { listener.knock(config, &request).await });
        let since = Instant::now();
        while Counted::of(admin).await.denied == before {
            assert!(since.elapsed() < DEADLINE, "{}: a request was not read", self.name);
        }
        open.abort();
    }

    async fn page(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let heard = self.listener.knock(self.listener.client(&self.honest), request.as_bytes()).await;
        String::from_utf8(heard.bytes).unwrap()
    }

    /// Something that would be answered, and counted, if it were read.
    pub(super) fn request(&self) -> Vec<u8> {
        match self.listener.application {
            Application::Admin => b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            Application::Grpc => {
                let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
                // HEADERS: `POST https`, and a path that is in no table, so that the denial would be counted.
                let path = b"/not/there";
                let mut block = vec![0x83, 0x87, 0x04, path.len() as u8];
                block.extend(path);
                block.extend(b"\x01\x01x");
                bytes.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
                bytes.extend(block);
                bytes
            }
        }
    }
}

/// The counters of a process that a refusal moves, or would move if it were none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) refused: BTreeMap<String, u64>,
    /// Calls that came as far as the method table.
    pub(super) denied: u64,
}

impl Counted {
    pub(super) async fn of(admin: &Door) -> Self {
        let mut counted = Self::default();
        for line in admin.page("/metrics").await.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if let Some(reason) = name.strip_prefix("concord_handshakes_refused_total{reason=\"") {
                counted.refused.insert(reason.trim_end_matches("\"}").to_owned(), value.parse().unwrap());
            } else if name == "concord_calls_denied_total" {
                counted.denied = value.parse().unwrap();
            }
        }
        counted
    }
}

/// A hub and a node whose admin listeners ask for certificates, with the lists of both.
pub(super) fn stage() -> (Forum, Vec<Door>) {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    let (hub, node, irn) = (forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN"));
    forum.stop_node("IRN");
    let mut doors = Vec::new();
    for (name, dir, application, server, state, uri, not_admitted, admin) in [
        (
            "hub",
            &hub,
            Application::Grpc,
            "sec/hub",
            "kaz",
            "spiffe://kaz.concord/node/main",
            "spiffe://kaz.concord/agency/a",
            1,
        ),
        (
            "hub's admin",
            &hub,
            Application::Admin,
            "sec/hub",
            "sec",
            "spiffe://sec.concord/operator/o",
            "spiffe://sec.concord/officer/o",
            1,
        ),
        (
            "node",
            &node,
            Application::Grpc,
            "kaz/node",
            "kaz",
            "spiffe://kaz.concord/agency/agency",
            "spiffe://kaz.concord/node/main",
            3,
        ),
        (
            "node's admin",
            &node,
            Application::Admin,
            "kaz/node",
            "kaz",
            "spiffe://kaz.concord/operator/o",
            "spiffe://kaz.concord/agency/a",
            3,
        ),
    ] {
        let (whose, role) = server.split_once('/').unwrap();
        let (of, code) = if state == "sec" { (&hub, "SEC") } else { (&node, "KAZ") };
        let anchor = Authority::anchor(of, code);
        let authority = anchor.below(&format!("{name}'s authority"), |_| {});
        let revoked = anchor.below(&format!("{name}'s revoked authority"), |_| {});
        let listener = Listener {
            address: String::new(),
            anchor: Anchor::from_pem(&read_text(&dir.join("anchor/certificate.pem")).unwrap()).unwrap(),
            participant: ParticipantCode::parse(&whose.to_uppercase()).unwrap(),
            server: format!("spiffe://{whose}.concord/{role}/main"),
            application,
        };
        doors.push(Door {
            name,
            listener,
            uri,
            state,
            not_admitted,
            honest: anchor.leaf(uri, |_| {}),
            revoked_by_the_anchor: anchor.leaf(uri, |_| {}),
            revoked_below: authority.leaf(uri, |_| {}),
            foreign: Authority::anchor(&irn, "IRN"),
            anchor,
            authority,
            revoked,
            admin,
        });
    }
    // In place when the servers begin. An anchor has one list of all that it took back.
    for (dir, those) in [(&hub, &doors[..2]), (&node, &doors[2..])] {
        let folder = dir.join("revocation");
        for state in ["kaz", "sec"] {
            let of_state: Vec<&Door> = those.iter().filter(|door| door.state == state).collect();
            let Some(first) = of_state.first() else { continue };
            let revoked = of_state.iter().flat_map(|door| [&door.revoked_by_the_anchor.serial, door.revoked.serial()]);
            fs::write(folder.join(format!("{state}.crl")), first.anchor.list(&revoked.collect::<Vec<_>>())).unwrap();
        }
        for (index, door) in those.iter().enumerate() {
            let beside = door.authority.certificates() + &door.authority.list(&[&door.revoked_below.serial]);
            fs::write(folder.join(format!("authority-{index}.pem")), beside).unwrap();
        }
    }
    forum.configure_hub(|settings| replace_line(settings, "admin", "\"0.0.0.0:0\""));
    forum.configure_node("KAZ", |settings| replace_line(settings, "admin", "\"0.0.0.0:0\""));
    for (door, (dir, which)) in
        doors.iter_mut().zip([(&hub, "listen"), (&hub, "admin"), (&node, "listen"), (&node, "admin")])
    {
        door.listener.address = reachable(&forum, dir, which);
    }
    (forum, doors)
}

fn reachable(forum: &Forum, dir: &Path, which: &str) -> String {
    forum.address(dir, which).replace("0.0.0.0", "127.0.0.1")
}
