//! The hub killed in the middle of a fan-out to 27 nodes: duplicates on the wire are allowed and counted, effects are exactly one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use concord_tests::battery::{Budget, Chance, report};
use concord_tests::checker::{Evidence, HubRecord, NodeRecord, demand};
use concord_tests::fan::{Recipient, Seen};
use concord_tests::load::{AgencyAt, Load};
use concord_tests::witness::{Agreed, Heard, Witness};
use concord_tests::{Forum, RawNode, words};

const SENDER: &str = "KAZ";
const AGREEMENT: &str = "KAZ/bulletins";
const MEASURE: &str = "environmental.5";
const RECIPIENTS: usize = 27;
/// Exchanges of one fan-out.
const EXCHANGES: u64 = 8;
/// Real nodes are many processes for a small machine: the hub is killed so often there.
const KILLS_WITH_REAL_NODES: u64 = 3;

/// The forum of 2007, with one participant more: a sender and 27 recipients.
fn forum() -> (Forum, Vec<String>) {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/hub/seed/cica-2007.toml");
    let mut text = std::fs::read_to_string(seed).unwrap();
    text.push_str("\n[[participants]]\ncode = \"XTA\"\nkind = \"observer-state\"\nnames.en = \"One more\"\n");
    let place = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(place.path(), &text).unwrap();
    let codes = text.lines().filter_map(|line| line.strip_prefix("code = \"")?.strip_suffix('"'));
    // Measures have codes too, with a dot.
    let codes: Vec<String> =
        codes.filter(|code| !code.contains('.') && *code != "SEC").map(ToOwned::to_owned).collect();
    let recipients: Vec<String> = codes.into_iter().filter(|code| code != SENDER).collect();
    assert_eq!(recipients.len(), RECIPIENTS);
    let mut forum = Forum::seeded(words!["--seed", place.path()]);
    forum.join(SENDER);
    forum.start_node(SENDER);
    (forum, recipients)
}

fn witness(recipients: &[String]) -> Arc<Witness> {
    let witness = Arc::new(Witness::default());
    witness.note(|records| {
        let parties: BTreeSet<String> = recipients.iter().cloned().chain([SENDER.to_owned()]).collect();
        records.agreements.insert(AGREEMENT.to_owned(), Agreed { parties, ..Agreed::default() });
    });
    witness
}

fn agency(forum: &Forum, code: &str) -> AgencyAt {
    let profile = forum.node_dir(code).join("agencies/agency");
    AgencyAt { code: code.to_owned(), name: "agency".to_owned(), profile }
}

#[test]
fn a_hub_killed_in_the_middle_of_a_fan_out_to_27_has_exactly_one_effect_at_each() {
    let budget = Budget::slice(5, 30);
    report(&format!("fan-out: seed {}", budget.seed));
    let (mut forum, recipients) = forum();
    for code in &recipients {
        forum.enrol(code);
    }
    let on: Vec<&str> = std::iter::once(SENDER).chain(recipients.iter().map(String::as_str)).collect();
    forum.propose(AGREEMENT, MEASURE, &on);
    let agreement = forum.agreement(AGREEMENT, SENDER);
    for code in &recipients {
        RawNode::of(&forum, code).consent(&forum.officer(code), &agreement);
    }
    forum.await_in_force(AGREEMENT, SENDER);

    let witness = witness(&recipients);
    let sender = agency(&forum, SENDER);
    let seen = Arc::new(Seen::default());
    // Before the load, so that they outlive it.
    let nodes: Vec<Arc<RawNode>> = recipients.iter().map(|code| Arc::new(RawNode::of(&forum, code))).collect();
    let mut load = Load::start(Arc::clone(&witness), &[], &[]);
    for (seed, node) in (budget.seed..).zip(&nodes) {
        load.beside(Recipient::new(Arc::clone(node), &seen, seed).run());
    }
    let mut chance = Chance::of(budget.seed);
    let mut kills = 0;
    while !budget.is_over(kills) {
        let before = seen.counts().wire;
        load.submit(&sender, AGREEMENT, MEASURE, EXCHANGES);
        let moment = before + 1 + chance.below(EXCHANGES * RECIPIENTS as u64);
        seen.wait(|counts| counts.wire >= moment);
        forum.kill_hub();
        kills += 1;
        forum.start_hub();
        let sent = (kills * EXCHANGES) as usize;
        seen.wait(|counts| counts.least_kept() >= sent);
    }
    load.drain(&BTreeMap::from([(SENDER.to_owned(), sender)])).unwrap();
    forum.kill_hub();
    forum.kill_node(SENDER);

    let counts = seen.counts();
    assert_eq!(counts.surprises, Vec::<String>::new());
    let mut journals: BTreeMap<String, NodeRecord> = seen.journals().collect();
    journals.insert(SENDER.to_owned(), NodeRecord::read(SENDER, &forum.node_dir(SENDER)).unwrap());
    let hub = HubRecord::read(&forum.hub_dir()).unwrap();
    demand(&Evidence { records: witness.records(), hub, nodes: journals }.judge());
    budget.reached(kills, "kills in a fan-out");
    report(&format!(
        "fan-out: {kills} kills of the hub, seed {}, {:?}: {} deliveries on the wire, {} of them duplicates, {} effects",
        budget.seed,
        budget.elapsed(),
        counts.wire,
        counts.duplicates,
        counts.kept.values().map(Vec::len).sum::<usize>()
    ));
}

#[test]
fn a_hub_killed_in_the_middle_of_a_fan_out_to_27_real_nodes_has_exactly_one_effect_at_each() {
    let (mut forum, recipients) = forum();
    for code in &recipients {
        forum.join(code);
        forum.start_node(code);
    }
    let on: Vec<&str> = std::iter::once(SENDER).chain(recipients.iter().map(String::as_str)).collect();
    forum.agree(AGREEMENT, MEASURE, &on);
    let witness = witness(&recipients);
    let sender = agency(&forum, SENDER);
    let receivers: Vec<AgencyAt> = recipients.iter().map(|code| agency(&forum, code)).collect();
    let mut load = Load::start(Arc::clone(&witness), &[], &receivers);
    let seed = Budget::slice(1, 1).seed;
    let mut chance = Chance::of(seed);
    let given = |records: &concord_tests::witness::Records| {
        let given = records.heard.values().flatten().filter(|event| matches!(event, Heard::Given { .. }));
        given.count() as u64
    };
    for _ in 0..KILLS_WITH_REAL_NODES {
        let moment = witness.look(given) + 1 + chance.below(EXCHANGES * RECIPIENTS as u64 / 2);
        load.submit(&sender, AGREEMENT, MEASURE, EXCHANGES);
        let came = |records: &concord_tests::witness::Records| match given(records) {
            count if count >= moment => Vec::new(),
            count => vec![format!("{count} of {moment} given")],
        };
        witness.wait(concord_tests::DEADLINE, came).unwrap();
        forum.kill_hub();
        forum.start_hub();
    }
    load.drain(&BTreeMap::from([(SENDER.to_owned(), sender)])).unwrap();
    forum.kill_hub();
    on.iter().for_each(|code| forum.kill_node(code));
    let dirs = on.iter().map(|code| ((*code).to_owned(), forum.node_dir(code))).collect();
    let evidence = Evidence::read(witness.records(), &forum.hub_dir(), &dirs).unwrap_or_else(|error| panic!("{error}"));
    demand(&evidence.judge());
    report(&format!("fan-out to real nodes: {KILLS_WITH_REAL_NODES} kills of the hub, seed {seed}"));
}
