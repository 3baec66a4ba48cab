//! What must be true when everything has healed: I6 that all drains, then I1 to I4 from the journals and from what the agencies
//! were answered and given.

mod withdrawn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use concord_hub::shared::Shared;
use concord_journal::{Entry, Journal, MemoryJournal};
use concord_ledger::epoch::FIRST_EPOCH;
use concord_ledger::{AgreementState, Ledger, PartyState, StatementContent};
use concord_model::{AgreementId, ChainKey, ExchangeId, Lane, ParticipantCode, Reason};
use concord_node::context::Context;
use concord_wire::agreement::parse_statement;
use concord_wire::header::exchange_id;
use concord_wire::stored::hub::{self, HubEntry};
use concord_wire::stored::node::{self, NodeEntry, Verdict};

use crate::forum::{AGENCIES, STATES};
use crate::hub::fold;
use crate::log::{Log, Queued};

/// Everything that is pending drains within so long after everything healed.
pub(crate) const DRAIN_SECONDS_MAX: u64 = 600;
const READ_AT_ONCE: usize = 1024;

/// Hub and nodes, as far as they are judged.
pub(crate) struct Parties {
    pub(crate) hub: Party<Arc<Shared>>,
    /// In the order of [`STATES`].
    pub(crate) nodes: Vec<Party<Context>>,
}

/// One of them: what is durable there, and what its services hold while it runs.
pub(crate) struct Party<T> {
    pub(crate) code: ParticipantCode,
    pub(crate) journal: MemoryJournal,
    pub(crate) running: Option<T>,
}

/// Whether nobody waits for anything any more.
pub(crate) fn is_over(parties: &Parties, log: &Log) -> bool {
    log.busy == 0 && pending(parties).is_empty() && not_given(parties, log).is_empty()
}

/// What hub and nodes still have to tell each other; empty where there is nothing.
pub(crate) fn pending(parties: &Parties) -> String {
    let mut pending = String::new();
    let Some(shared) = &parties.hub.running else { return "the hub is down".to_owned() };
    let published = shared.published();
    for node in &parties.nodes {
        let code = &node.code;
        let mut add = |what: String| pending.push_str(&format!("{code}: {what}; "));
        let Some(context) = &node.running else {
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
            let unrecorded = state.unrecorded_exchanges(lane);
            if unrecorded > 0 {
                add(format!("{unrecorded} exchanges {lane} without a receipt"));
            }
            let (open, entered) = (published.ledger.epochs().current(code), state.chain(lane).epoch);
            if open != entered {
                add(format!("lane {lane} is in epoch {entered}, and {open} is open"));
            }
            // What a hub lost is handed in again, of epochs that are left behind too.
            for epoch in FIRST_EPOCH..=entered {
                let receipted =
                    state.past_chain(lane, epoch).or_else(|| Some(state.chain_in(lane, epoch)?.recorded_through));
                let recorded = state.chain_key_in(lane, epoch).map_or(0, |chain| published.ledger.chain_last(&chain));
                if receipted.is_some_and(|receipted| recorded < receipted) {
                    add(format!(
                        "the hub has {recorded} of lane {lane} in epoch {epoch}, of {receipted:?} that it gave receipts for"
                    ));
                }
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

/// What agencies have yet to be given; empty where there is nothing.
pub(crate) fn not_given(parties: &Parties, log: &Log) -> String {
    let mut missing = String::new();
    for (state, node) in parties.nodes.iter().enumerate() {
        let accepted = received(node).accepted;
        for (agency, name) in AGENCIES.iter().enumerate() {
            let given = log.given.get(&(state, agency));
            for id in accepted.keys() {
                // What its node knows to be withdrawn it gives to nobody who had not got it.
                let is_withdrawn = log.withdrawn.get(id).is_some_and(|by| accepted.contains_key(by));
                if !is_withdrawn && given.is_none_or(|given| !given.exchanges.contains_key(id)) {
                    missing.push_str(&format!("{} {name} was not given {id}; ", node.code));
                }
            }
        }
    }
    missing
}

/// Judges what is left when everything drained; answers how many exchanges there were.
pub(crate) fn judge(parties: &Parties, log: &Log) -> u64 {
    let hub = recorded(&parties.hub.journal);
    let ledger = fold(&parties.hub.journal);
    let journals: Vec<Received> = parties.nodes.iter().map(received).collect();
    let lost: Vec<&String> = hub.losses.iter().chain(journals.iter().flat_map(|journal| &journal.losses)).collect();
    assert!(
        log.hub_put_back || lost.is_empty(),
        "I1: a loss that was healed, and nobody had put anything back: {lost:?}"
    );

    for (id, queued) in &log.queued {
        let state = STATES[queued.state];
        let found = hub.exchanges.get(id);
        let found = found.unwrap_or_else(|| panic!("I1: {state} queued an exchange that the hub never recorded"));
        assert_eq!(found.place.0.origin.as_str(), state, "I1: recorded under another origin");
    }
    for (id, exchange) in &hub.exchanges {
        let queued = log.queued.get(id);
        let queued = queued.unwrap_or_else(|| panic!("I1: the hub recorded {id}, which nobody was answered"));
        let meant = meant(&ledger, exchange, queued);
        match exchange.withdraws {
            Some(_) => withdrawn::judge_notice(&hub, log, id, exchange, &meant),
            None => judge_outcome(&ledger, exchange, queued, &meant),
        }
        let is_withdrawn = withdrawn::is_withdrawn(&hub, log, id);
        let comes_behind = exchange.refused == Some(Reason::ExchangeWithdrawn);
        assert!(is_withdrawn || !comes_behind, "I8: {id} was refused as withdrawn, and nobody did that");
        for (node, journal) in parties.nodes.iter().zip(&journals) {
            judge_at(&ledger, (log.hub_put_back, is_withdrawn), id, (exchange, &meant), &node.code, journal);
        }
    }
    for (state, (node, journal)) in parties.nodes.iter().zip(&journals).enumerate() {
        let code = &node.code;
        let queued = log.queued.iter().filter(|(_, queued)| queued.state == state);
        let answered: BTreeMap<_, _> =
            queued.map(|(id, queued)| ((AGENCIES[queued.agency], queued.request.request_id.as_str()), *id)).collect();
        let kept: BTreeMap<_, _> =
            journal.queued.iter().map(|((agency, request), id)| ((agency.as_str(), request.as_str()), *id)).collect();
        assert_eq!(kept, answered, "I1, I3: what {code} queued and what its agencies were answered");
        let mut last: BTreeMap<(ParticipantCode, Lane), (u32, u64, u32)> = BTreeMap::new();
        for (id, (lane, _)) in in_order(&journal.accepted) {
            // A hub that forgot both tells them again, the exchange before it has the withdrawal: it is kept as withdrawn.
            if log.hub_put_back && withdrawn::came_behind(log, journal, &id) {
                continue;
            }
            let (chain, number, index) = &hub.exchanges[&id].place;
            let place = (chain.epoch, *number, *index);
            let before = last.insert((chain.origin.clone(), lane), place);
            assert!(
                before.is_none_or(|before| before < place),
                "I4: {code} has {place:?} of {chain:?} after {before:?}"
            );
        }
        for agency in 0..AGENCIES.len() {
            let given = log.given.get(&(state, agency));
            for id in given.into_iter().flat_map(|given| given.exchanges.keys()) {
                assert!(
                    journal.accepted.contains_key(id),
                    "I2: an agency of {code} was given what its node never took in"
                );
            }
        }
        withdrawn::judge_holder(&hub, &ledger, log, (state, code), journal);
        for id in &journal.set_aside {
            let origin = &hub.exchanges[id].place.0.origin;
            let is_late = log.hub_put_back && may_set_aside(&ledger, origin);
            assert!(may_set_aside(&ledger, code) || is_late, "{code} set {id} of {origin} aside");
        }
        for (id, body) in &journal.bodies {
            assert_eq!(log.queued[id].request.body, *body, "I1: {code} took {id} in with another body");
        }
        if !log.hub_put_back {
            judge_numbers(&hub, log, code, journal);
        }
    }
    hub.exchanges.len() as u64
}

/// Who has left an agreement: that is never undone.
fn has_left(ledger: &Ledger, exchange: &Recorded, code: &ParticipantCode) -> bool {
    let known = ledger.agreements().get(&exchange.agreement);
    known.is_some_and(|agreement| agreement.party_state(code) == Some(PartyState::Left))
}

/// Everybody whom its sender meant, whoever of them left since.
fn meant(ledger: &Ledger, exchange: &Recorded, queued: &Queued) -> Vec<ParticipantCode> {
    let agreement = ledger.agreements().get(&exchange.agreement).expect("the hub recorded under it");
    let narrowing = queued.request.to.as_ref().map(|to| &to.participants);
    let is_meant = |code: &ParticipantCode| {
        *code != exchange.place.0.origin && narrowing.is_none_or(|names| names.iter().any(|name| name == code.as_str()))
    };
    let parties = agreement.text.parties.iter().map(|party| party.participant.clone());
    parties.filter(is_meant).collect()
}

/// Recorded is what was submitted, for those on the agreement or in the narrowing who had not left; refused is only what the world
/// explains.
fn judge_outcome(ledger: &Ledger, exchange: &Recorded, queued: &Queued, meant: &[ParticipantCode]) {
    let place = &exchange.place;
    let agreement = ledger.agreements().get(&exchange.agreement).expect("the hub recorded under it");
    assert_eq!(exchange.agreement.to_string(), queued.request.agreement_id, "I1: {place:?} under another agreement");
    let origin = &place.0.origin;
    let left = |code: &ParticipantCode| has_left(ledger, exchange, code);
    match exchange.refused {
        None => {
            let stranger = exchange.audience.iter().find(|code| !meant.contains(code));
            assert_eq!(stranger, None, "I2: {place:?} was recorded for one whom its sender did not mean");
            let missing = meant.iter().find(|code| !exchange.audience.contains(code) && !left(code));
            assert_eq!(missing, None, "I1: {place:?} was not recorded for one who never left");
            assert_eq!(exchange.body.as_ref(), Some(&queued.request.body), "I1: {place:?} has another body");
        }
        Some(Reason::AudienceEmpty) => {
            assert!(meant.iter().all(&left), "I8: {place:?} has nobody to go to, but {meant:?} are there");
        }
        Some(Reason::AgreementUnknown) => assert!(left(origin), "I8: {origin} is on the agreement of {place:?}"),
        Some(Reason::AgreementNotInForce) => {
            assert_eq!(agreement.state, AgreementState::Ended, "I8: {place:?} goes under what is in force");
        }
        // Compared with its withdrawal.
        Some(Reason::ExchangeWithdrawn) => {}
        Some(reason) => panic!("I8: {place:?} was refused with {reason:?}, and nothing here explains it"),
    }
}

/// Whoever is in the frozen audience has it, unless it left; nobody else does.
fn judge_at(
    ledger: &Ledger,
    (hub_put_back, is_withdrawn): (bool, bool),
    id: &ExchangeId,
    (exchange, meant): (&Recorded, &[ParticipantCode]),
    code: &ParticipantCode,
    journal: &Received,
) {
    let is_meant = exchange.refused.is_none() && exchange.audience.contains(code);
    let has = journal.accepted.contains_key(id);
    // A hub that forgot it records it again for those who have the right still, and refuses it where its origin has none any more;
    // what they got before they have.
    let had =
        hub_put_back && (has_left(ledger, exchange, code) || has_left(ledger, exchange, &exchange.place.0.origin));
    let Recorded { place, audience, refused, .. } = exchange;
    // So it does with what its origin withdrew before it came again, and had no receipt for: it went to whom the sender meant, and each
    // of those has the notice, which is judged of every holder.
    let was_forgotten = hub_put_back && *refused == Some(Reason::ExchangeWithdrawn) && meant.contains(code);
    assert!(
        is_meant || !has || had || was_forgotten,
        "I2: {code} has {id}, which is not for it: {place:?} went to {audience:?}, refused {refused:?}"
    );
    // The origin left before its node handed it in again: it is recorded after the leave, and set aside with its evidence.
    let origin = &exchange.place.0.origin;
    let comes_too_late = hub_put_back && has_left(ledger, exchange, origin) && journal.set_aside.contains(id);
    // Where nothing was put back, `judge_numbers` says for each whether its leave came first.
    // A notice goes also to who left.
    let is_notice = exchange.withdraws.is_some();
    let excused = is_withdrawn || (has_left(ledger, exchange, code) && !is_notice) || comes_too_late;
    assert!(!is_meant || has || excused, "I1: {code} never got {:?} {id}", exchange.place);
}

/// Each number stands for what the hub gave it to; withheld or set aside is only what had not been accepted when its recipient left.
fn judge_numbers(hub: &AtHub, log: &Log, code: &ParticipantCode, journal: &Received) {
    let own = hub.numbers.iter().filter(|((recipient, ..), _)| recipient == code);
    for ((_, lane, number), id) in own {
        let place = format!("number {number} of {code} {lane}");
        let (sequence, accepted) =
            journal.numbers.get(&(*lane, *number)).unwrap_or_else(|| panic!("I1: {place} did not arrive"));
        match accepted {
            Some(accepted) => assert_eq!(accepted, id, "I4: {place} is another exchange"),
            None => {
                let left = journal.left.get(&hub.exchanges[id].agreement);
                let is_notice = hub.exchanges[id].withdraws.is_some();
                let is_after = !is_notice && left.is_some_and(|left| left < sequence);
                let is_withdrawn = withdrawn::is_withdrawn(hub, log, id);
                assert!(
                    is_after || is_withdrawn,
                    "I1: {place} was not accepted before its recipient said that it leaves"
                );
            }
        }
    }
}

/// What this state left is out at once, also where it was sent before the hub heard of it.
fn may_set_aside(ledger: &Ledger, code: &ParticipantCode) -> bool {
    ledger.agreements().all().any(|agreement| agreement.party_state(code) == Some(PartyState::Left))
}

/// An exchange as the hub recorded it.
struct Recorded {
    place: (ChainKey, u64, u32),
    audience: Vec<ParticipantCode>,
    refused: Option<Reason>,
    agreement: AgreementId,
    /// Of a withdrawal: what it takes back.
    withdraws: Option<ExchangeId>,
    /// In which entry of the hub.
    entry: u64,
    body: Option<Bytes>,
}

/// What the hub's journal has.
#[derive(Default)]
struct AtHub {
    exchanges: BTreeMap<ExchangeId, Recorded>,
    /// What each number of a mailbox was given to; not complete where a hub was put back.
    numbers: BTreeMap<(ParticipantCode, Lane, u64), ExchangeId>,
    losses: Vec<String>,
}

fn recorded(journal: &MemoryJournal) -> AtHub {
    let mut hub = AtHub::default();
    for entry in entries(journal) {
        let (fact, kept) = match hub::read(&entry).unwrap() {
            HubEntry::Consignment(fact, kept) => (fact, kept),
            HubEntry::FeedResumed(_) | HubEntry::MailboxResumed(_) => {
                hub.losses.push(format!("entry {} of the hub", entry.sequence));
                continue;
            }
            _ => continue,
        };
        for (index, header) in (0..).zip(&kept.sealed.headers) {
            let group =
                fact.groups.iter().find(|group| group.items.iter().any(|items| items.indices().contains(&index)));
            let refused = fact.refused.iter().find(|refusal| refusal.index == index).map(|refusal| refusal.reason);
            let parsed = concord_wire::header::parse(header).unwrap();
            let exchange = Recorded {
                place: (fact.chain.clone(), fact.number, index),
                audience: group.map(|group| group.recipients.clone()).unwrap_or_default(),
                refused,
                agreement: parsed.agreement.id,
                withdraws: parsed.withdraws.map(|withdrawal| withdrawal.exchange),
                entry: entry.sequence,
                body: body(journal, entry.sequence, kept.blob_range(index as usize)),
            };
            let twice = hub.exchanges.insert(exchange_id(header), exchange);
            assert!(twice.is_none(), "I3: the hub recorded an exchange twice");
        }
        for recipient in fact.recipients() {
            let indices = recipient.items.iter().flat_map(|range| range.indices());
            for (number, index) in (recipient.run.first..).zip(indices) {
                let place = (recipient.run.recipient.clone(), fact.chain.lane, number);
                hub.numbers.insert(place, exchange_id(&kept.sealed.headers[index as usize]));
            }
        }
    }
    hub
}

/// The description comes first, then the body.
fn body(journal: &dyn Journal, sequence: u64, blobs: std::ops::Range<usize>) -> Option<Bytes> {
    let index = blobs.clone().nth(1)?;
    Some(journal.blob(sequence, index).ok()?.bytes().clone())
}

/// What a node's journal has.
#[derive(Default)]
struct Received {
    /// By agency and request id.
    queued: BTreeMap<(String, String), ExchangeId>,
    accepted: BTreeMap<ExchangeId, (Lane, u64)>,
    bodies: BTreeMap<ExchangeId, Bytes>,
    set_aside: BTreeSet<ExchangeId>,
    /// The entry of each number, and what was accepted under it.
    numbers: BTreeMap<(Lane, u64), (u64, Option<ExchangeId>)>,
    /// The entry in which this state's officer left an agreement.
    left: BTreeMap<AgreementId, u64>,
    losses: Vec<String>,
}

/// The mailbox of a node, from its journal.
fn received(node: &Party<Context>) -> Received {
    let (code, journal) = (&node.code, &node.journal);
    let mut received = Received::default();
    let mut last: BTreeMap<Lane, u64> = BTreeMap::new();
    for entry in entries(journal) {
        let loss = format!("entry {} of {code}", entry.sequence);
        let (lane, items) = match node::read(&entry).unwrap() {
            NodeEntry::Mail { lane, items, .. } => (lane, items),
            NodeEntry::MailboxResumed(resumed) => {
                received.losses.push(loss);
                last.insert(resumed.lane, resumed.at);
                continue;
            }
            NodeEntry::FeedResumed(_)
            | NodeEntry::ReceiptRenewed(_)
            | NodeEntry::Restored(_)
            | NodeEntry::TakenRecovered(..)
            | NodeEntry::LaneRecovered(_) => {
                received.losses.push(loss);
                continue;
            }
            // The same exchanges again, in another epoch.
            NodeEntry::Queued(queued) if queued.packed_anew.is_some() => continue,
            NodeEntry::Queued(queued) => {
                for (header, submission) in queued.kept.sealed.headers.iter().zip(queued.submissions) {
                    let request = (submission.agency, submission.request_id);
                    let twice = received.queued.insert(request, exchange_id(header));
                    assert!(twice.is_none(), "I3: {code} queued a request of an agency twice");
                }
                continue;
            }
            NodeEntry::Statement(signed) => {
                if let StatementContent::Leave(of) = parse_statement(&signed).unwrap().content {
                    received.left.entry(of.id).or_insert(entry.sequence);
                }
                continue;
            }
            _ => continue,
        };
        let mut first_blob = 0;
        for item in items {
            let blobs = first_blob..first_blob + item.blob_count as usize;
            first_blob = blobs.end;
            let number = item.number();
            let before = last.insert(lane, number).unwrap_or(0);
            assert_eq!(number, before + 1, "I4: {code} has a gap in its mailbox {lane}");
            let accepted = match item.verdict {
                Verdict::Accepted(delivery) => {
                    let id = exchange_id(&delivery.header);
                    let twice = received.accepted.insert(id, (lane, number));
                    assert!(twice.is_none(), "I3: {code} took an exchange in twice");
                    let body = body(journal, entry.sequence, blobs);
                    if concord_wire::header::withdraws(&delivery.header).is_none() {
                        received.bodies.insert(id, body.expect("an accepted exchange has its body"));
                    }
                    Some(id)
                }
                Verdict::SetAside(delivery, _) => {
                    received.set_aside.insert(exchange_id(&delivery.header));
                    None
                }
                Verdict::Withheld(_) => None,
                Verdict::Repeated(_) => {
                    received.losses.push(format!("{loss}, a repeat"));
                    None
                }
            };
            let twice = received.numbers.insert((lane, number), (entry.sequence, accepted));
            assert!(twice.is_none(), "I3: {code} took {lane} {number} in twice");
        }
    }
    received
}

/// What a node took in.
pub(crate) fn accepted(node: &Party<Context>) -> BTreeMap<ExchangeId, (Lane, u64)> {
    received(node).accepted
}

fn in_order(accepted: &BTreeMap<ExchangeId, (Lane, u64)>) -> Vec<(ExchangeId, (Lane, u64))> {
    let mut all: Vec<_> = accepted.iter().map(|(id, place)| (*id, *place)).collect();
    all.sort_by_key(|(_, place)| *place);
    all
}

pub(crate) fn entries(journal: &dyn Journal) -> Vec<Entry> {
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
