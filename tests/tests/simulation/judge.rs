//! What must be true when everything has healed: I6 that all drains, then I1 to I4 from the journals and from what the agencies
//! were answered and given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use concord_journal::{Entry, Journal};
use concord_ledger::{AgreementState, PartyState};
use concord_model::{ChainKey, ExchangeId, Lane, ParticipantCode};
use concord_wire::header::exchange_id;
use concord_wire::stored::hub::{self, HubEntry};
use concord_wire::stored::node::{self, NodeEntry, Verdict};
use tokio::time::sleep;

use crate::forum::{AGENCIES, STATES};
use crate::hub::fold;
use crate::node::Node;
use crate::world::World;

/// Everything that is pending drains within so long after everything healed.
const DRAIN_SECONDS_MAX: u64 = 600;
const READ_AT_ONCE: usize = 1024;

/// Waits until nothing is pending, and fails where that takes too long.
pub(crate) async fn drained(world: &World) {
    for _ in 0..DRAIN_SECONDS_MAX {
        if world.log().busy == 0 && is_drained(world) && agencies_have_all(world) {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("I6: not everything drained in {DRAIN_SECONDS_MAX} s: {}", pending(world));
}

/// Whether hub and nodes have nothing to tell each other.
pub(crate) fn is_drained(world: &World) -> bool {
    pending(world).is_empty()
}

/// What hub and nodes still have to tell each other; empty where there is nothing.
fn pending(world: &World) -> String {
    let mut pending = String::new();
    let Some((_, shared)) = world.hub.running() else { return "the hub is down".to_owned() };
    let published = shared.published();
    for node in &world.nodes {
        let code = &node.member.code;
        let mut add = |what: String| pending.push_str(&format!("{code}: {what}; "));
        let Some(context) = node.running() else {
            add("down".to_owned());
            continue;
        };
        let state = context.now_state();
        let (feed, told) = (published.ledger.feed_last(code), state.feed().number);
        if feed != told {
            add(format!("the feed ends at {feed}, the node has {told}"));
        }
        let waiting = state.officers().values().map(|officer| officer.waiting().count()).sum::<usize>();
        if waiting > 0 {
            add(format!("{waiting} statements wait"));
        }
        for lane in Lane::ALL {
            let unrecorded = state.chain(lane).unrecorded();
            if unrecorded > 0 {
                add(format!("{unrecorded} consignments {lane} without a receipt"));
            }
            let (there, here) = (published.ledger.mailbox(code, lane), state.mailbox(lane));
            if there.last != here.received_through || there.delivered_through != there.last {
                add(format!("mailbox {lane} {there:?}, the node has {}", here.received_through));
            }
            if there.taken_count != here.taken_count {
                add(format!("mailbox {lane}: {} taken, the hub knows {}", here.taken_count, there.taken_count));
            }
        }
        let alarms = context.readiness.list();
        if !pending.is_empty() {
            for alarm in alarms {
                pending.push_str(&format!("{code} alarm {}: {}; ", alarm.name, alarm.message));
            }
        }
    }
    pending
}

fn agencies_have_all(world: &World) -> bool {
    let log = world.log();
    world.nodes.iter().all(|node| {
        let accepted = accepted(node);
        (0..AGENCIES.len()).all(|agency| {
            let given = log.given.get(&(node.number, agency));
            accepted.keys().all(|id| given.is_some_and(|given| given.exchanges.contains_key(id)))
        })
    })
}

/// An exchange as the hub recorded it.
struct Recorded {
    place: (ChainKey, u64, u32),
    audience: Vec<ParticipantCode>,
    refused: bool,
    agreement: concord_model::AgreementId,
}

/// Judges what is left when everything drained; answers how many exchanges there were.
pub(crate) fn judge(world: &World) -> u64 {
    let recorded = recorded(world);
    let log = world.log();
    let ledger = fold(&world.hub.disk.durable());
    let journals: Vec<Received> = world.nodes.iter().map(|node| received(node)).collect();

    for (state, id) in &log.queued {
        let found = recorded
            .get(id)
            .unwrap_or_else(|| panic!("I1: {} queued an exchange that the hub never recorded", STATES[*state]));
        assert_eq!(found.place.0.origin.as_str(), STATES[*state], "I1: recorded under another origin");
    }
    for (id, exchange) in &recorded {
        let ends = |code: &ParticipantCode| {
            // Who left, and who lost the last partner, may be told that a number is withheld.
            ledger.agreements().get(&exchange.agreement).is_some_and(|agreement| {
                agreement.state == AgreementState::Ended || agreement.party_state(code) == Some(PartyState::Left)
            })
        };
        for (node, journal) in world.nodes.iter().zip(&journals) {
            let code = &node.member.code;
            let is_meant = !exchange.refused && exchange.audience.contains(code);
            let has = journal.accepted.contains_key(id);
            // A hub that forgot it records it again for those who have the right still; what others got before they have.
            let had = log.hub_put_back && ends(code);
            assert!(is_meant || !has || had, "I2: {code} has an exchange that is not for it");
            // The origin left before its node handed it in again: it is recorded after the leave, and set aside with its evidence.
            let comes_too_late = log.hub_put_back && ends(&exchange.place.0.origin) && journal.set_aside.contains(id);
            let excused = ends(code) || comes_too_late;
            assert!(!is_meant || has || excused, "I1: {code} never got {:?} {id}", exchange.place);
        }
    }
    for (node, journal) in world.nodes.iter().zip(&journals) {
        let code = &node.member.code;
        let mut last: BTreeMap<(ParticipantCode, Lane), (u64, u32)> = BTreeMap::new();
        for (id, (lane, _)) in in_order(&journal.accepted) {
            let (chain, number, index) = &recorded[&id].place;
            let place = (*number, *index);
            let before = last.insert((chain.origin.clone(), lane), place);
            assert!(
                before.is_none_or(|before| before < place),
                "I4: {code} has {place:?} of {chain:?} after {before:?}"
            );
        }
        for agency in 0..AGENCIES.len() {
            let given = log.given.get(&(node.number, agency));
            for id in given.into_iter().flat_map(|given| given.exchanges.keys()) {
                assert!(
                    journal.accepted.contains_key(id),
                    "I2: an agency of {code} was given what its node never took in"
                );
            }
        }
        for id in &journal.set_aside {
            let origin = &recorded[id].place.0.origin;
            let is_late = log.hub_put_back && may_set_aside(&ledger, origin);
            assert!(may_set_aside(&ledger, code) || is_late, "{code} set {id} of {origin} aside");
        }
    }
    recorded.len() as u64
}

/// What this state left is out at once, also where it was sent before the hub heard of it.
fn may_set_aside(ledger: &concord_ledger::Ledger, code: &ParticipantCode) -> bool {
    ledger.agreements().all().any(|agreement| agreement.party_state(code) == Some(PartyState::Left))
}

fn recorded(world: &World) -> BTreeMap<ExchangeId, Recorded> {
    let mut recorded = BTreeMap::new();
    for entry in entries(&world.hub.disk.durable()) {
        let HubEntry::Consignment(fact, kept) = hub::read(&entry).unwrap() else { continue };
        for (index, header) in (0..).zip(&kept.sealed.headers) {
            let group =
                fact.groups.iter().find(|group| group.items.iter().any(|items| items.indices().contains(&index)));
            let exchange = Recorded {
                place: (fact.chain.clone(), fact.number, index),
                audience: group.map(|group| group.recipients.clone()).unwrap_or_default(),
                refused: fact.refused.iter().any(|refusal| refusal.index == index),
                agreement: concord_wire::header::parse(header).unwrap().agreement.id,
            };
            let twice = recorded.insert(exchange_id(header), exchange);
            assert!(twice.is_none(), "I3: the hub recorded an exchange twice");
        }
    }
    recorded
}

#[derive(Default)]
struct Received {
    accepted: BTreeMap<ExchangeId, (Lane, u64)>,
    set_aside: BTreeSet<ExchangeId>,
}

fn accepted(node: &Node) -> BTreeMap<ExchangeId, (Lane, u64)> {
    received(node).accepted
}

/// The mailbox of a node, from its journal.
fn received(node: &Node) -> Received {
    let code = &node.member.code;
    let mut received = Received::default();
    let mut last: BTreeMap<Lane, u64> = BTreeMap::new();
    let mut numbers: BTreeSet<(Lane, u64)> = BTreeSet::new();
    for entry in entries(&node.disk.durable()) {
        let (lane, items) = match node::read(&entry).unwrap() {
            NodeEntry::Mail { lane, items, .. } => (lane, items),
            NodeEntry::MailboxResumed(resumed) => {
                last.insert(resumed.lane, resumed.at);
                continue;
            }
            _ => continue,
        };
        for item in items {
            let number = item.number();
            assert!(numbers.insert((lane, number)), "I3: {code} took {lane} {number} in twice");
            let before = last.insert(lane, number).unwrap_or(0);
            assert_eq!(number, before + 1, "I4: {code} has a gap in its mailbox {lane}");
            match item.verdict {
                Verdict::Accepted(delivery) => {
                    let twice = received.accepted.insert(exchange_id(&delivery.header), (lane, number));
                    assert!(twice.is_none(), "I3: {code} took an exchange in twice");
                }
                Verdict::SetAside(delivery, _) => {
                    received.set_aside.insert(exchange_id(&delivery.header));
                }
                Verdict::Withheld(_) | Verdict::Repeated(_) => {}
            }
        }
    }
    received
}

fn in_order(accepted: &BTreeMap<ExchangeId, (Lane, u64)>) -> Vec<(ExchangeId, (Lane, u64))> {
    let mut all: Vec<_> = accepted.iter().map(|(id, place)| (*id, *place)).collect();
    all.sort_by_key(|(_, place)| *place);
    all
}

fn entries(journal: &dyn Journal) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = entries.last().map_or(1, |entry| entry.sequence + 1);
        let more = journal.read(next, READ_AT_ONCE).unwrap();
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}
