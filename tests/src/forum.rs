//! A hub and nodes in a temporary folder, set up by the commands that a person would type.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::agency::Agency;
use crate::command::{DEADLINE, Ended, concord};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::words;

const SIGKILL: i32 = 9;
/// What is shown of each log when a story fails.
const LOG_TAIL_LINES: usize = 30;

/// One hub and its nodes; each node has one agency `agency` for all measures.
pub struct Forum {
    place: TempDir,
    hub: Option<Process>,
    nodes: BTreeMap<String, Process>,
}

/// A server that will die at a crash point.
pub struct Dying {
    process: Process,
    what: String,
}

impl Dying {
    /// Waits until it serves.
    pub fn await_serving(&self) {
        self.process.line_after("admin ");
    }

    /// Waits until it is dead, by SIGKILL.
    #[track_caller]
    pub fn await_death(self) {
        let (ended, _) = self.process.wait();
        assert_eq!(ended.signal(), Some(SIGKILL), "{}: it ended with {ended}", self.what);
    }
}

impl Forum {
    /// A running hub without nodes.
    pub fn empty() -> Self {
        Self::made(words![], |_| {})
    }

    /// The same with these options of `hub init`.
    pub fn seeded(options: Vec<OsString>) -> Self {
        Self::made(options, |_| {})
    }

    /// The same, with something done before the first folder is made.
    pub fn empty_at(prepare: impl FnOnce(&Self)) -> Self {
        Self::made(words![], prepare)
    }

    fn made(options: Vec<OsString>, prepare: impl FnOnce(&Self)) -> Self {
        let place = tempfile::Builder::new().prefix("concord-story-").tempdir().unwrap();
        let mut forum = Self { place, hub: None, nodes: BTreeMap::new() };
        prepare(&forum);
        fs::create_dir(forum.place.path().join("logs")).unwrap();
        fs::create_dir(forum.place.path().join("outgoing")).unwrap();
        let mut init = words!["hub", "init", "--dir", forum.hub_dir()];
        if !options.iter().any(|option| option == "--quorum") {
            init.extend(words!["--quorum", "1"]);
        }
        init.extend(options);
        concord(init).ok();
        // As if it had listened there before.
        let [listen, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", port_of_its_own()));
        let addresses = serde_json::json!({ "listen": listen, "admin": admin });
        fs::write(forum.hub_dir().join("addresses.json"), addresses.to_string()).unwrap();
        forum.start_hub();
        forum
    }

    /// A running hub with running nodes of these participants, enrolled and joined.
    pub fn of(codes: &[&str]) -> Self {
        let mut forum = Self::empty();
        for code in codes {
            forum.join(code);
            forum.start_node(code);
        }
        forum
    }

    /// The same, where the nodes reach the hub through proxies of their own, in the order of the codes; one agreement of all.
    pub fn through_proxies(codes: &[&str]) -> (Self, Vec<Proxy>) {
        let mut forum = Self::empty();
        let listen = forum.address(&forum.hub_dir(), "listen");
        let proxies: Vec<Proxy> = codes.iter().map(|_| Proxy::new(&listen)).collect();
        for (code, proxy) in codes.iter().zip(&proxies) {
            // A bundle names what the hub announces when it is made.
            forum.configure_hub(|settings| replace_line(settings, "announce", &format!("[{:?}]", proxy.address())));
            forum.join(code);
        }
        for code in codes {
            forum.start_node(code);
        }
        (forum, proxies)
    }

    /// Ends the hub, changes its settings and starts it again.
    pub fn configure_hub(&mut self, change: impl FnOnce(&str) -> String) {
        self.stop_hub();
        change_file(&self.hub_dir().join("hub.toml"), change);
        self.start_hub();
    }

    /// Ends a node, changes its settings and starts it again.
    pub fn configure_node(&mut self, code: &str, change: impl FnOnce(&str) -> String) {
        self.stop_node(code);
        change_file(&self.node_dir(code).join("node.toml"), change);
        self.start_node(code);
    }

    /// Makes, enrols and joins a node, and adds its agency; it does not run yet.
    pub fn join(&self, code: &str) {
        let dir = self.node_dir(code);
        let bundle = self.enrol(code);
        concord(words!["node", "join", bundle, "--dir", dir]).ok();
        concord(words!["agency", "add", "agency", "--dir", dir]).ok();
    }

    /// Makes and enrols a node, and returns the bundle that it would join with.
    pub fn enrol(&self, code: &str) -> PathBuf {
        let dir = self.node_dir(code);
        let mut init = words!["node", "init", "--dir", dir, "--participant", code];
        if code == "SEC" {
            init.extend(words!["--anchor", self.hub_dir().join("anchor")]);
        }
        concord(init).ok();
        let (request, bundle) = (dir.join("join-request.json"), dir.join("bundle.json"));
        concord(words!["participant", "enrol", request, "--profile", self.hub_dir().join("officer"), "--out", bundle])
            .ok();
        bundle
    }

    /// Brings an agreement into force among these, the first of whom proposes; returns when the nodes of all know it.
    pub fn agree(&self, id: &str, measures: &str, on: &[&str]) {
        self.propose(id, measures, on);
        for code in &on[1..] {
            self.consent(id, code);
        }
        for code in on {
            self.await_in_force(id, code);
        }
    }

    /// Proposes an agreement as the first of these.
    pub fn propose(&self, id: &str, measures: &str, on: &[&str]) {
        self.propose_titled(id, measures, on, "An agreement");
    }

    /// The same, with a title.
    pub fn propose_titled(&self, id: &str, measures: &str, on: &[&str], title: &str) {
        let mut propose = words!["agreement", "propose", id, "--title", title, "--measure", measures];
        propose.extend(words!["--participant", on.join(","), "--profile", self.officer(on[0])]);
        let since = Instant::now();
        loop {
            let said = concord(&propose);
            // The enrolment of the last one that joined may be on its way to the proposer's node.
            if said.reason().as_deref() != Some("PARTICIPANT_NOT_ENROLLED") || since.elapsed() > DEADLINE {
                said.ok();
                return;
            }
        }
    }

    /// Consents to an agreement, as soon as it has come to the node.
    pub fn consent(&self, id: &str, code: &str) {
        let since = Instant::now();
        loop {
            let said = concord(words!["agreement", "consent", id, "--profile", self.officer(code)]);
            // An officer asks what waits; nothing calls it when a proposal comes.
            if said.reason().as_deref() != Some("AGREEMENT_UNKNOWN") || since.elapsed() > DEADLINE {
                said.ok();
                return;
            }
        }
    }

    /// Waits until a node knows that the agreement is in force.
    pub fn await_in_force(&self, id: &str, code: &str) {
        let deadline = DEADLINE.as_secs().to_string();
        let show = words![
            "agreement",
            "show",
            id,
            "--wait",
            "in-force",
            "--timeout",
            deadline,
            "--profile",
            self.officer(code)
        ];
        concord(show).ok();
    }

    /// A command, as one would type it, of a participant's officer; whatever comes of it.
    pub fn as_officer(&self, code: &str, command: &str) -> Ended {
        let mut line: Vec<OsString> = command.split_whitespace().map(Into::into).collect();
        line.extend(words!["--profile", self.officer(code)]);
        concord(line)
    }

    /// What a node knows of an agreement.
    pub fn agreement(&self, id: &str, code: &str) -> Value {
        concord(words!["agreement", "show", id, "--profile", self.officer(code)]).ok().json()
    }

    /// Leaves an agreement.
    pub fn leave(&self, id: &str, code: &str) -> Value {
        concord(words!["agreement", "leave", id, "--yes", "--profile", self.officer(code)]).ok().json()
    }

    /// Whether a node knows that its state left an agreement: on no list of what it is on, and its officer's to read as it stood then.
    pub fn has_left(&self, id: &str, code: &str) -> bool {
        let is_party = |party: &Value| party["participant"] == code && party["state"] == "left";
        let listed = self.as_officer(code, "agreement list").ok().lines();
        let parties = self.agreement(id, code)["participants"].clone();
        !listed.iter().any(|one| one["id"] == id) && parties.as_array().is_some_and(|all| all.iter().any(is_party))
    }

    /// The agency of a participant.
    pub fn agency(&self, code: &str) -> Agency {
        self.agency_named(code, "agency")
    }

    /// The agency of a participant, which reaches its node through this proxy.
    pub fn agency_through(&self, code: &str, proxy: &Proxy) -> Agency {
        let (own, copy) = (self.node_dir(code).join("agencies/agency"), self.path().join(format!("proxied-{code}")));
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(own).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        change_file(&copy.join("profile.toml"), |settings| {
            let kept =
                settings.lines().filter(|line| !line.starts_with("addresses_file") && !line.starts_with("address "));
            format!("{}\naddress = {:?}\n", kept.collect::<Vec<_>>().join("\n"), proxy.address())
        });
        Agency::new(self.path(), copy, &format!("{code}-proxied"))
    }

    /// An agency of a participant by name.
    pub fn agency_named(&self, code: &str, name: &str) -> Agency {
        Agency::new(self.path(), self.node_dir(code).join("agencies").join(name), &format!("{code}-{name}"))
    }

    /// The agency of a node in another folder.
    pub fn agency_in(&self, dir: &Path, name: &str) -> Agency {
        Agency::new(self.path(), dir.join("agencies/agency"), name)
    }

    /// The officer of a node that was restored or rebuilt confirms all of its agencies; those that were added since have the past, too.
    pub fn confirm_agencies(&self, dir: &Path) {
        concord(words!["agency", "confirm", "--all", "--past", "--profile", dir.join("officer")]).ok();
    }

    /// Starts the hub and waits until it is ready.
    pub fn start_hub(&mut self) {
        self.start_hub_with(&BTreeMap::new());
    }

    /// The same, with these variables of the environment.
    pub fn start_hub_with(&mut self, variables: &BTreeMap<&str, &str>) {
        self.start_hub_unawaited(variables);
        let hub = self.hub.as_ref().unwrap();
        hub.line_after("listen ");
        hub.line_after("admin ");
    }

    /// The same, and waits for nothing.
    pub fn start_hub_unawaited(&mut self, variables: &BTreeMap<&str, &str>) {
        let serve = words!["hub", "serve", "--dir", self.hub_dir()];
        self.hub = Some(Process::start_with(&self.log("hub"), variables, serve));
    }

    /// Starts a node and waits until it is ready.
    pub fn start_node(&mut self, code: &str) {
        self.start_node_with(code, &BTreeMap::new());
    }

    /// The same, with these variables of the environment.
    pub fn start_node_with(&mut self, code: &str, variables: &BTreeMap<&str, &str>) {
        self.start_node_unawaited(code, variables);
        let node = &self.nodes[code];
        node.line_after("listen ");
        node.line_after("admin ");
    }

    /// The same, and waits for nothing.
    pub fn start_node_unawaited(&mut self, code: &str, variables: &BTreeMap<&str, &str>) {
        let serve = words!["node", "serve", "--dir", self.node_dir(code)];
        self.nodes.insert(code.to_owned(), Process::start_with(&self.log(code), variables, serve));
    }

    /// Starts the hub, which dies at a crash point by SIGKILL; returns then.
    pub fn start_hub_to_die_at(&self, point: &str) {
        self.start_to_die_at(point, "hub", words!["hub", "serve", "--dir", self.hub_dir()]);
    }

    /// Starts a node, which dies at a crash point by SIGKILL; returns then.
    pub fn start_node_to_die_at(&self, point: &str, code: &str) {
        self.start_to_die_at(point, code, words!["node", "serve", "--dir", self.node_dir(code)]);
    }

    /// Starts a node, which will die at a crash point by SIGKILL; returns at once.
    pub fn begin_node_to_die_at(&self, point: &str, code: &str) -> Dying {
        self.begin_to_die_at(point, code, words!["node", "serve", "--dir", self.node_dir(code)])
    }

    fn start_to_die_at(&self, point: &str, name: &str, serve: Vec<OsString>) {
        self.begin_to_die_at(point, name, serve).await_death();
    }

    fn begin_to_die_at(&self, point: &str, name: &str, serve: Vec<OsString>) -> Dying {
        let armed = BTreeMap::from([(concord_faults::CRASH_VARIABLE, point)]);
        let process = Process::start_with(&self.log(name), &armed, serve);
        Dying { process, what: format!("{name} at {point}") }
    }

    /// Ends the hub by SIGTERM; it ends with 0.
    pub fn stop_hub(&mut self) {
        let ended = self.hub.take().unwrap().terminate();
        assert_eq!(ended.code(), Some(0), "the hub ended with {ended}");
    }

    /// Ends a node by SIGTERM; it ends with 0.
    pub fn stop_node(&mut self, code: &str) {
        let ended = self.nodes.remove(code).unwrap().terminate();
        assert_eq!(ended.code(), Some(0), "the node {code} ended with {ended}");
    }

    /// Waits until the hub ends by itself; how, and its log.
    pub fn await_end_of_hub(&mut self) -> (ExitStatus, String) {
        let (ended, _) = self.hub.take().unwrap().wait();
        (ended, fs::read_to_string(self.log("hub")).unwrap())
    }

    /// Waits until a node ends by itself; how, and its log.
    pub fn await_end_of_node(&mut self, code: &str) -> (ExitStatus, String) {
        let (ended, _) = self.nodes.remove(code).unwrap().wait();
        (ended, fs::read_to_string(self.log(code)).unwrap())
    }

    /// Kills the hub with SIGKILL.
    pub fn kill_hub(&mut self) {
        self.hub.take().unwrap().kill();
    }

    /// Kills a node with SIGKILL.
    pub fn kill_node(&mut self, code: &str) {
        self.nodes.remove(code).unwrap().kill();
    }

    /// The id of the hub's process, which runs.
    pub fn hub_pid(&self) -> u32 {
        self.hub.as_ref().unwrap().id()
    }

    /// The id of a node's process, which runs.
    pub fn node_pid(&self, code: &str) -> u32 {
        self.nodes[code].id()
    }

    /// Where everything is.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The hub's folder.
    pub fn hub_dir(&self) -> PathBuf {
        self.path().join("hub")
    }

    /// A node's folder.
    pub fn node_dir(&self, code: &str) -> PathBuf {
        self.path().join(format!("node-{}", code.to_lowercase()))
    }

    /// The profile of a participant's officer; the secretariat's speaks to the hub.
    pub fn officer(&self, code: &str) -> PathBuf {
        let dir = if code == "SEC" { self.hub_dir() } else { self.node_dir(code) };
        dir.join("officer")
    }

    /// What an operator sees of the hub or node of this folder.
    pub fn status(&self, dir: &Path) -> Value {
        concord(words!["status", "--profile", dir.join("operator")]).ok().json()
    }

    /// Waits until a server says this among its alarms; returns all of them.
    pub fn await_alarm(&self, dir: &Path, word: &str) -> String {
        let since = Instant::now();
        loop {
            let alarms = self.status(dir)["alarms"].to_string();
            if alarms.contains(word) {
                return alarms;
            }
            assert!(since.elapsed() < 4 * DEADLINE, "{word} was not said: {alarms}");
        }
    }

    /// An address that a server wrote down: `listen` or `admin`.
    pub fn address(&self, dir: &Path, which: &str) -> String {
        let text = fs::read_to_string(dir.join("addresses.json")).unwrap();
        let addresses: Value = serde_json::from_str(&text).unwrap();
        addresses[which].as_str().unwrap().to_owned()
    }

    /// The file that keeps what a process said.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path().join("logs").join(format!("{name}.log"))
    }
}

/// A port that no other process is given while the hub stands still: nodes know the hub by it, and the system hands out those above for
/// whatever connects.
pub fn port_of_its_own() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    // Test processes that run beside each other begin at different ones.
    let begin = (std::process::id() % u32::from(COUNT)) as u16;
    loop {
        let port = FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Gives a key of a TOML file another value.
pub fn replace_line(settings: &str, key: &str, value: &str) -> String {
    let is_it = |line: &&str| line.split('=').next().is_some_and(|before| before.trim() == key);
    let old = settings.lines().find(is_it).unwrap_or_else(|| panic!("no {key} in {settings}"));
    settings.replace(old, &format!("{key} = {value}"))
}

fn change_file(path: &Path, change: impl FnOnce(&str) -> String) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, change(&before)).unwrap();
}

impl Drop for Forum {
    fn drop(&mut self) {
        self.nodes.clear();
        self.hub = None;
        if std::thread::panicking() {
            show_logs(&self.path().join("logs"));
        }
    }
}

fn show_logs(folder: &Path) {
    let logs = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in logs.map(|entry| entry.path()) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("── the end of {}", path.display());
        lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES)).for_each(|line| println!("  {line}"));
    }
}
