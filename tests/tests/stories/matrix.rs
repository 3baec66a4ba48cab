//! Who may call what: every method of hub and node by everybody who could, over real sockets, in one table. What is not in it is denied,
//! and denied alike: as a method that nobody has. Who is not entitled to know of an object hears what it would hear of none.

mod messages;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use concord_identity::{Anchor, Application, read_text};
use concord_model::{
    AgreementDigest, AgreementId, AgreementRef, ConsignmentDigest, Digest, Identity, Lane, ParticipantCode,
};
use concord_server::{ADMIN_PATHS, HEALTH_AND_REFLECTION};
use concord_tests::any_call::{Said, call_any};
use concord_tests::forge::{Authority, Listener, Shown};
use concord_tests::{Forum, RawNode, agreement_reference, exchange_ids, replace_line};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::agency::v1 as agency;
use concord_wire::proto::agreement::v1 as agreement;
use prost::Message;
use rcgen::date_time_ymd;
use rows::Who::*;
use rows::*;
use tonic::transport::Channel;

/// A forum, and everybody's certificates.
struct Stage {
    forum: Forum,
    runtime: tokio::runtime::Runtime,
    anchors: BTreeMap<&'static str, Authority>,
    raw: BTreeMap<&'static str, RawNode>,
    /// How many statements each officer made. One that is refused has its number all the same.
    stated: Mutex<BTreeMap<&'static str, u64>>,
    /// As it is in force.
    reference: Option<AgreementRef>,
}

impl Stage {
    fn new(codes: &[&'static str]) -> Self {
        let forum = Forum::of(codes);
        let mut anchors = BTreeMap::from([("SEC", Authority::anchor(&forum.hub_dir(), "SEC"))]);
        anchors.extend(codes.iter().map(|code| (*code, Authority::anchor(&forum.node_dir(code), code))));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Each party proposed or consented.
        let stated = Mutex::new(STATES[..3].iter().map(|code| (*code, 1)).collect());
        Self { forum, runtime, anchors, raw: BTreeMap::new(), stated, reference: None }
    }

    /// Lets the secretariat hold a state.
    fn hold(&self, code: &str) {
        let profile = self.folder("SEC").join("officer");
        let hold = concord_tests::words!["participant", "hold", code, "--reason", "it floods", "--profile", profile];
        concord_tests::concord(hold).ok();
    }

    fn folder(&self, code: &str) -> PathBuf {
        if code == "SEC" { self.forum.hub_dir() } else { self.forum.node_dir(code) }
    }

    fn listener(&self, code: &str, which: &str) -> Listener {
        let dir = self.folder(code);
        let role = if code == "SEC" { "hub" } else { "node" };
        Listener {
            address: self.forum.address(&dir, which).replace("0.0.0.0", "127.0.0.1"),
            anchor: Anchor::from_pem(&read_text(&dir.join("anchor/certificate.pem")).unwrap()).unwrap(),
            participant: ParticipantCode::parse(code).unwrap(),
            server: format!("spiffe://{}.concord/{role}/main", code.to_lowercase()),
            application: if which == "admin" { Application::Admin } else { Application::Grpc },
        }
    }

    fn issue(&self, uri: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Shown {
        self.anchor_of(uri).leaf(uri, change)
    }

    fn anchor_of(&self, uri: &str) -> &Authority {
        let code = uri.strip_prefix("spiffe://").unwrap()[..3].to_uppercase();
        &self.anchors[code.as_str()]
    }

    async fn connect(&self, listener: &Listener, shown: &Shown) -> Result<Channel, String> {
        concord_server::connect(&listener.address, listener.client(shown)).await.map_err(|error| error.to_string())
    }

    fn reference(&self, id: &str) -> AgreementRef {
        let real = self.reference.clone().unwrap();
        match id {
            AGREEMENT => real,
            id => AgreementRef {
                id: AgreementId::parse(id).unwrap(),
                digest: AgreementDigest(Digest::from_slice(&[7; 32]).unwrap()),
                ..real
            },
        }
    }

    /// The next statement of a state's officer, as its node hands it in.
    fn statement(&self, code: &str, content: DraftContent) -> Vec<u8> {
        let raw = &self.raw[code];
        let number = {
            let mut stated = self.stated.lock().unwrap();
            let number = stated.entry(STATES.into_iter().find(|state| *state == code).unwrap()).or_default();
            *number += 1;
            *number
        };
        let statement = Some(raw.statement(&self.forum.officer(code), number, content));
        agreement::SubmitRequest { statement, wait: None, run: raw.run() }.encode_to_vec()
    }
}

/// What does not hold, all of it: one wrong row says more beside the others.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} cells are wrong:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

/// All methods of the protocol, with those of health and reflection.
fn methods() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(concord_wire::proto::DESCRIPTORS).unwrap().file;
    let of_file = |file: &prost_types::FileDescriptorProto| {
        let of_service = |service: &prost_types::ServiceDescriptorProto| {
            let name = format!("/{}.{}/", file.package(), service.name());
            service.method.iter().map(|method| format!("{name}{}", method.name())).collect::<Vec<_>>()
        };
        file.service.iter().flat_map(of_service).collect::<Vec<_>>()
    };
    let others = HEALTH_AND_REFLECTION.iter().map(|row| row.method.to_owned());
    files.iter().flat_map(of_file).chain(others).collect()
}

#[test]
fn every_method_of_the_protocol_has_one_row_and_every_row_is_a_method() {
    let rows: Vec<_> = ROWS.iter().map(|row| row.method.to_owned()).collect();
    assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), methods());
    assert_eq!(rows.len(), methods().len());
}

#[test]
fn every_method_answers_exactly_those_whom_the_table_names_and_denies_all_others_alike() {
    let stage = Stage::new(&["KAZ", "IRN", "TUR"]);
    stage.forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN"]);
    concord_tests::concord(concord_tests::words!["agency", "add", "second", "--dir", stage.folder("KAZ")]).ok();
    stage.hold("TUR");
    let (mut wrong, mut cells) = (Wrong::default(), 0);
    stage.runtime.block_on(async {
        let expired = |params: &mut rcgen::CertificateParams| {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1))
        };
        let servers = [("SEC", stage.listener("SEC", "listen")), ("KAZ", stage.listener("KAZ", "listen"))];
        for (server, listener) in &servers {
            let is_hub = *server == "SEC";
            for (who, uri, at_hub, at_node) in CALLERS {
                let is_open = if is_hub { *at_hub } else { *at_node };
                let cell = |method: &str| format!("{who:?} at {server}'s {method}");
                if *who == Anonymous {
                    let honest = stage.issue("spiffe://kaz.concord/node/main", |_| {});
                    let heard = listener.knock_in_vain(listener.any_client(&honest, None), &[]).await;
                    wrong.unless(heard.end.is_err() && heard.bytes.is_empty(), || cell("handshake"));
                    cells += 1;
                    continue;
                }
                let channel = stage.connect(listener, &stage.issue(uri, |_| {})).await;
                wrong.unless(channel.is_ok() == is_open, || format!("{}: {channel:?}", cell("handshake")));
                let old = stage.connect(listener, &stage.issue(uri, expired)).await;
                wrong.unless(old.is_err(), || format!("expired {}", cell("handshake")));
                cells += 2;
                let Ok(channel) = channel else { continue };

                let none = call_any(&channel, "/concord.none.v1.NoService/None", Vec::new()).await;
                let Said::Refused(none) = none else {
                    panic!("{}: a method that nobody has was answered", cell("none"))
                };
                wrong.unless(none.reason.as_deref() == Some(NOT_IT), || format!("{}: {none:?}", cell("none")));
                // Nothing but who the caller is by its own certificate: whether this server knows it is not to be heard.
                let Identity { participant, role, name } = uri.parse().unwrap();
                let said = format!("this is not for the {role} {name} of {participant}, whose certificate was shown");
                wrong.unless(none.message == said, || format!("{}: {none:?}", cell("none")));
                for row in ROWS {
                    let lists = if is_hub { row.hub } else { row.node };
                    let allowed = lists.iter().find(|(allowed, _)| allowed == who);
                    let said = call_any(&channel, row.method, (row.request)()).await;
                    match allowed {
                        Some((_, expected)) => wrong.unless(said.word() == *expected, || {
                            format!("{}: {expected} expected, {said:?}", cell(row.method))
                        }),
                        None => wrong.unless(said == Said::Refused(none.clone()), || {
                            format!("{}: to be denied as a method that is none, {said:?}", cell(row.method))
                        }),
                    }
                    cells += 1;
                }
            }
        }
    });
    for (code, is_held) in [("TUR", true), ("IRN", false)] {
        let shown = stage.issue(&format!("spiffe://{}.concord/node/main", code.to_lowercase()), |_| {});
        let run = RawNode::of(&stage.forum, code).run();
        stage.runtime.block_on(async {
            for (method, request, held, other) in OF_RUN {
                // A connection of its own: what the node itself has open goes on or comes again.
                let channel = stage.connect(&stage.listener("SEC", "listen"), &shown).await.unwrap();
                let said = call_any(&channel, method, request(run.clone())).await;
                let expected = if is_held { held } else { other };
                wrong.unless(said.word() == *expected, || format!("{method} of {code}: {expected} expected, {said:?}"));
                cells += 1;
            }
        });
    }
    println!("{cells} cells");
    assert!(cells > 300);
}

#[test]
fn who_is_on_a_revocation_list_is_out_in_every_role() {
    let stage = Stage::new(&["KAZ", "IRN", "TUR"]);
    // One list of each anchor, of everybody who was let in.
    let shown: Vec<(&str, Shown)> = CALLERS
        .iter()
        .filter(|(_, uri, ..)| !uri.is_empty())
        .map(|(_, uri, ..)| (*uri, stage.issue(uri, |_| {})))
        .collect();
    for (server, codes) in [("SEC", ["KAZ", "IRN", "TUR", "SEC"].as_slice()), ("KAZ", &["KAZ"])] {
        let folder = stage.folder(server).join("revocation");
        for code in codes {
            let prefix = format!("spiffe://{}", code.to_lowercase());
            let of_state: Vec<_> =
                shown.iter().filter(|(uri, _)| uri.starts_with(&prefix)).map(|(_, shown)| &shown.serial).collect();
            std::fs::write(folder.join(format!("{code}.crl")), stage.anchors[code].list(&of_state)).unwrap();
        }
    }
    let mut stage = stage;
    stage.forum.stop_hub();
    stage.forum.start_hub();
    stage.forum.stop_node("KAZ");
    stage.forum.start_node("KAZ");
    let mut wrong = Wrong::default();
    stage.runtime.block_on(async {
        for server in ["SEC", "KAZ"] {
            let listener = stage.listener(server, "listen");
            for (uri, shown) in &shown {
                let let_in = stage.connect(&listener, shown).await;
                wrong.unless(let_in.is_err(), || format!("{uri} is let in by {server}, though it is on a list"));
            }
        }
    });
}

#[test]
fn who_is_not_entitled_to_know_of_something_hears_what_it_would_hear_of_nothing() {
    let mut stage = Stage::new(&STATES);
    stage.forum.agree(AGREEMENT, "environmental.5", &STATES[..3]);
    for code in STATES {
        let dir = stage.folder(code);
        concord_tests::concord(concord_tests::words!["agency", "add", "second", "--dir", dir]).ok();
        stage.raw.insert(code, RawNode::of(&stage.forum, code));
    }
    let shown = stage.forum.agreement(AGREEMENT, "KAZ");
    stage.reference = Some(agreement_reference(&shown));
    let sent = stage.forum.agency("KAZ").submit("for IRN alone", "--to IRN --wait delivered").id;
    // Who waits for it has it, before anybody is asked.
    assert_eq!(exchange_ids(&stage.forum.agency("IRN").list()), [sent.clone()]);

    let mut wrong = Wrong::default();
    stage.runtime.block_on(async {
        let mut channels = BTreeMap::new();
        for (code, by) in
            STATES.iter().flat_map(|code| [By::Agency, By::OtherAgency, By::Officer, By::Node].map(|by| (code, by)))
        {
            let (server, name) = match by {
                By::Agency => (*code, "agency/agency"),
                By::OtherAgency => (*code, "agency/second"),
                By::Officer => (*code, "officer/first"),
                By::Node => ("SEC", "node/main"),
            };
            let shown = stage.issue(&format!("spiffe://{}.concord/{name}", code.to_lowercase()), |_| {});
            channels.insert((*code, by), stage.connect(&stage.listener(server, "listen"), &shown).await.unwrap());
        }
        let given = call_any(&channels[&("IRN", By::Agency)], RECEIVE, Vec::new()).await;
        let Said::Message(given) = given else { panic!("{given:?}") };
        let cursor = agency::ReceiveResponse::decode(given).unwrap().cursor;
        let cursor: String = cursor.iter().map(|byte| format!("{byte:02x}")).collect();
        for row in OBJECT_ROWS {
            let (real, none) = match row.object {
                Object::Cursor => (cursor.clone(), cursor[..cursor.len() - 2].to_owned() + "63"),
                Object::Agreement => (AGREEMENT.to_owned(), NO_AGREEMENT.to_owned()),
                Object::Exchange => (sent.clone(), NO_EXCHANGE.to_owned()),
            };
            for (index, code) in STATES.iter().enumerate() {
                let cell = format!("{} of {code} about {}", row.method, row.what);
                let channel = &channels[&(*code, row.by)];
                let of_none = call_any(channel, row.method, (row.request)(&stage, code, &none)).await;
                wrong.unless(of_none.word() == row.of_none, || format!("{cell} that is none: {of_none:?}"));
                let expected = row.hears[index];
                if expected == NOT_CALLED {
                    continue;
                }
                let said = call_any(channel, row.method, (row.request)(&stage, code, &real)).await;
                wrong.unless(said.word() == expected, || format!("{cell}: {expected} expected, {said:?}"));
                match &said {
                    Said::Message(bytes) => {
                        let told = names(bytes, &real);
                        wrong.unless(told == row.told[index], || format!("{cell}: named {told}"));
                    }
                    Said::Nothing => wrong.unless(!row.told[index], || format!("{cell}: nothing was told")),
                    Said::Refused(_) if expected == row.of_none => {
                        let (as_real, as_none) = (said.clone().without(&real), of_none.without(&none));
                        wrong.unless(as_real == as_none, || format!("{cell}: {as_real:?} and of none {as_none:?}"));
                    }
                    Said::Refused(_) => {}
                }
            }
        }
    });

    // Exchanges that a node hands in under an agreement that its state is not on, and under none.
    let raw = stage.raw.remove("KOR").unwrap();
    stage.forum.stop_node("KOR");
    let [real, none] = [AGREEMENT, NO_AGREEMENT].map(|id| {
        raw.draft(&shown, "environmental.5", Lane::Routine, b"body").with(|header| {
            let reference = stage.reference(id);
            header.agreement = Some(concord_wire::header::agreement_ref(&reference));
        })
    });
    let (consignment, _) = raw.consignment(Lane::Routine, 1, ConsignmentDigest(Digest::ZERO), &[real, none]);
    let outcomes = raw.consign(Lane::Routine, vec![consignment]).outcomes();
    wrong.unless(outcomes == ["AGREEMENT_UNKNOWN"; 2], || format!("consigned by KOR: {outcomes:?}"));
}

/// What the digits stand for, if they are some.
fn raw_bytes(digits: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| digits.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len() / 2).map(pair).collect()
}

/// Whether something is named in an answer, as text or as the bytes that its digits stand for.
fn names(answer: &[u8], id: &str) -> bool {
    let contains = |needle: &[u8]| answer.windows(needle.len()).any(|window| window == needle);
    contains(id.as_bytes()) || raw_bytes(id).is_some_and(|raw| contains(&raw))
}

#[test]
fn every_page_of_an_admin_listener_is_for_operators_of_its_own_participant_only() {
    let mut stage = Stage::new(&["KAZ", "IRN", "TUR"]);
    stage.forum.configure_hub(|settings| replace_line(settings, "admin", "\"0.0.0.0:0\""));
    stage.forum.configure_node("KAZ", |settings| replace_line(settings, "admin", "\"0.0.0.0:0\""));
    // Each page has a line here, and the beginning of what it answers.
    let pages = BTreeMap::from([("/healthz", "alive"), ("/readyz", "{\"ready\":"), ("/metrics", "# HELP")]);
    assert_eq!(pages.keys().copied().collect::<BTreeSet<_>>(), ADMIN_PATHS.iter().copied().collect());
    let mut wrong = Wrong::default();
    stage.runtime.block_on(async {
        for (server, allowed) in [("SEC", SecretariatsOperator), ("KAZ", Operator)] {
            let listener = stage.listener(server, "admin");
            for (who, uri, ..) in CALLERS {
                let honest = stage.issue("spiffe://kaz.concord/operator/first", |_| {});
                let shown = (!uri.is_empty()).then(|| stage.issue(uri, |_| {}));
                for (method, path, status, begins) in pages
                    .iter()
                    .map(|(path, begins)| ("GET", *path, "200", *begins))
                    .chain([("GET", "/", "404", ""), ("GET", "/metrics/", "404", ""), ("POST", "/metrics", "405", "")])
                {
                    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                    let heard = listener.knock(listener.any_client(&honest, shown.as_ref()), request.as_bytes()).await;
                    let text = String::from_utf8_lossy(&heard.bytes).into_owned();
                    let holds = if *who == allowed {
                        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
                        // Before all nodes are heard the hub may not be ready.
                        let ok = head.split(' ').nth(1) == Some(status) || path == "/readyz" && head.contains(" 503 ");
                        ok && body.starts_with(begins)
                    } else {
                        heard.end.is_err() && text.is_empty()
                    };
                    wrong.unless(holds, || format!("{who:?}: {method} {path} at {server}: {text}, {:?}", heard.end));
                }
            }
        }
    });
}
