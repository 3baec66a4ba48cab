//! A forum under load whose processes somebody else starts and ends: hub, three nodes, agencies on every lane, a judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::checker::{Evidence, HubRecord, demand};
use crate::command::{DEADLINE, concord};
use crate::forum::Forum;
use crate::load::{AgencyAt, Load, Plan};
use crate::witness::{Agreed, Witness};
use crate::words;

/// The participants; each sends on every lane, and each receives.
pub const CODES: [&str; 3] = ["KAZ", "IRN", "TUR"];
/// The measure that everything is about.
pub const MEASURE: &str = "environmental.5";
const AGREEMENT: &str = "KAZ/standing";
/// Small, so that segments are begun often.
const SEGMENT_SIZE_BYTES: u64 = 64 * 1024;

/// Before hub and nodes are asked again whether they have come to rest.
const AGAIN: Duration = Duration::from_millis(200);

/// The forum, none of whose processes run.
pub struct Stage {
    /// What submits, receives and waits.
    pub load: Load,
    /// What was seen.
    pub witness: Arc<Witness>,
    /// The hub, then the nodes.
    pub places: Vec<Place>,
    forum: Forum,
}

/// The hub or a node.
#[derive(Debug, Clone)]
pub struct Place {
    /// `hub` or the participant.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What it says.
    pub log: PathBuf,
}

impl Place {
    /// The arguments that it is served with.
    pub fn words(&self) -> Vec<OsString> {
        let command = if self.name == "hub" { "hub" } else { "node" };
        words![command, "serve", "--dir", self.dir]
    }

    /// What its operator sees.
    fn status(&self) -> Value {
        concord(words!["status", "--profile", self.dir.join("operator")]).ok().json()
    }
}

impl Stage {
    /// Everybody enrolled and agreed; agencies try to reach their nodes from now on.
    pub fn set(seed: u64) -> Self {
        let mut forum = Forum::of(&CODES);
        forum.agree(AGREEMENT, MEASURE, &CODES);
        CODES.iter().for_each(|code| forum.stop_node(code));
        forum.stop_hub();
        concord(words!["agency", "add", "border", "--dir", forum.node_dir("IRN")]).ok();
        let place = |name: &str, dir: PathBuf| {
            shorten_segments(&dir.join(if name == "hub" { "hub.toml" } else { "node.toml" }));
            Place { name: name.to_owned(), log: forum.log(name), dir }
        };
        let mut places = vec![place("hub", forum.hub_dir())];
        places.extend(CODES.iter().map(|code| place(code, forum.node_dir(code))));

        let witness = Arc::new(Witness::default());
        witness.note(|records| {
            let parties: BTreeSet<String> = CODES.iter().map(ToString::to_string).collect();
            records.agreements.insert(AGREEMENT.to_owned(), Agreed { parties, ..Agreed::default() });
        });
        let plans: Vec<Plan> = CODES.iter().map(|code| plan(&forum, code, seed)).collect();
        let mut receivers: Vec<AgencyAt> = plans.iter().map(|plan| plan.agency.clone()).collect();
        receivers.push(agency(&forum, "IRN", "border"));
        let load = Load::start(Arc::clone(&witness), &plans, &receivers);
        Self { load, witness, places, forum }
    }

    /// The officers' profiles, by participant.
    pub fn officers(&self) -> Vec<(String, PathBuf)> {
        CODES.iter().map(|code| ((*code).to_owned(), self.forum.officer(code))).collect()
    }

    /// Waits until everything that was sent is answered, delivered, acknowledged and told; everybody runs. Nothing is sent until
    /// `then` has ended.
    pub fn drained<T>(&mut self, then: impl FnOnce(&Witness) -> T) -> T {
        let origins = CODES.iter().map(|code| ((*code).to_owned(), agency(&self.forum, code, "agency"))).collect();
        let witness = Arc::clone(&self.witness);
        self.load.held(|load| {
            if let Err(missing) = load.drain(&origins) {
                let shown: Vec<&String> = missing.iter().take(20).collect();
                panic!("{} things did not drain, and nothing of them for {DEADLINE:?}: {shown:#?}", missing.len());
            }
            then(&witness)
        })
    }

    /// How many exchanges were sent so far.
    pub fn sent(&self) -> usize {
        self.witness.look(|records| records.sent.len())
    }
}

/// Waits until hub and nodes have nothing to tell each other any more; an alarm that still stands then is a fault, since it says that
/// something was lost, damaged or set aside. `journal-cut` is what a kill or a power cut brings; `excused` says which others may stand.
#[track_caller]
pub fn come_to_rest(places: &[Place], excused: impl Fn(&str) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let statuses: Vec<(&Place, Value)> = places.iter().map(|place| (place, place.status())).collect();
        let restless: Vec<String> =
            statuses.iter().flat_map(|(place, status)| unrest(&place.name, status, &excused)).collect();
        let restless = if restless.is_empty() { unfed(&statuses) } else { restless };
        if restless.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "not at rest within {DEADLINE:?}: {restless:#?}");
        std::thread::sleep(AGAIN);
    }
}

/// Why a process is not at rest, by its own status.
fn unrest(name: &str, status: &Value, excused: &impl Fn(&str) -> bool) -> Vec<String> {
    let alarms = status["alarms"].as_array().expect("a status lists its alarms").iter();
    let alarms = alarms.map(|alarm| alarm.as_str().expect("an alarm is text"));
    let standing = alarms.filter(|alarm| !alarm.starts_with("journal-cut: ") && !excused(alarm));
    let mut restless: Vec<String> = standing.map(|alarm| format!("{name} has the alarm {alarm}")).collect();
    for waiting in ["outbox_exchanges", "outbox_statements"] {
        // The hub has none.
        if status[waiting].as_u64().unwrap_or(0) > 0 {
            restless.push(format!("{name}: {waiting} {}", status[waiting]));
        }
    }
    restless
}

/// Whose feed is shorter or longer than what the hub's journal gave it, which is read while the hub runs.
fn unfed(statuses: &[(&Place, Value)]) -> Vec<String> {
    let (hub, nodes) = statuses.split_first().expect("the hub comes first");
    let hub = match HubRecord::read(&hub.0.dir) {
        Ok(hub) => hub,
        // It is writing just now; that it stays so is for the judgement to say.
        Err(violation) => return vec![violation.to_string()],
    };
    let numbers = nodes.iter().map(|(place, status)| {
        let given = hub.told.get(&place.name).map_or(0, Vec::len) as u64;
        (&place.name, given, status["feed_number"].as_u64())
    });
    let differing = numbers.filter(|(_, given, has)| *has != Some(*given));
    differing
        .map(|(name, given, has)| format!("{name}: the hub gave {given} items of its feed, it has {has:?}"))
        .collect()
}

/// Judges the journals of these places, to which nobody writes.
#[track_caller]
pub fn judge(witness: &Witness, places: &[Place]) {
    let nodes = places.iter().skip(1).map(|place| (place.name.clone(), place.dir.clone()));
    let evidence = Evidence::read(witness.records(), &places[0].dir, &nodes.collect::<BTreeMap<_, _>>());
    demand(&evidence.map_or_else(|violation| vec![violation], |evidence| evidence.judge()));
}

fn shorten_segments(file: &std::path::Path) {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("journal_segment_size_bytes")).collect();
    // First, since sections follow.
    let text = format!("journal_segment_size_bytes = {SEGMENT_SIZE_BYTES}\n{}\n", lines.join("\n"));
    fs::write(file, text).unwrap();
}

fn agency(forum: &Forum, code: &str, name: &str) -> AgencyAt {
    AgencyAt { code: code.to_owned(), name: name.to_owned(), profile: forum.node_dir(code).join("agencies").join(name) }
}

fn plan(forum: &Forum, code: &str, seed: u64) -> Plan {
    let others = CODES.iter().filter(|other| **other != code).map(ToString::to_string);
    Plan {
        agency: agency(forum, code, "agency"),
        agreement: (AGREEMENT.to_owned(), MEASURE.to_owned()),
        narrow_to: others.collect(),
        seed: seed ^ u64::from(code.as_bytes()[0]),
    }
}
