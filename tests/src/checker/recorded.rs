//! I1 and I4 at the origin and at the hub: everything that was answered *queued* stands once in both journals, in order, for
//! exactly its audience, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::Lane;

use super::bodies::Body;
use super::journals::{Exchange, named};
use super::{Evidence, Violation};
use crate::witness::{Id, Records, Sent, hex};

pub(super) fn judge(evidence: &Evidence, found: &mut Vec<Violation>) {
    let sent: BTreeMap<Id, &Sent> = evidence.records.sent.iter().map(|sent| (sent.id, sent)).collect();
    let may_be_gone = evidence.records.bodies_may_go;
    once("the hub's journal", &evidence.hub.exchanges, &sent, may_be_gone, found);
    audiences(evidence, &sent, found);
    for (code, node) in &evidence.nodes {
        let own = sent.iter().filter(|(_, sent)| sent.origin == *code).map(|(id, sent)| (*id, *sent)).collect();
        once(&format!("the journal of {code}"), &node.queued, &own, may_be_gone, found);
        requests(code, &node.queued, found);
        order(&format!("the journal of {code}"), &node.queued, &evidence.records, found);
    }
    order("the hub's journal", &evidence.hub.exchanges, &evidence.records, found);
    runs(evidence, found);
    words(evidence, found);
    for (code, numbers) in &evidence.hub.told {
        gapless(&format!("feed numbers of {code} at the hub"), numbers, found);
    }
}

fn violation(promise: &'static str, what: String) -> Violation {
    Violation { promise, what }
}

/// Each that was sent stands there exactly once with its body, and nothing that nobody sent.
fn once(place: &str, stored: &[Exchange], sent: &BTreeMap<Id, &Sent>, may_be_gone: bool, found: &mut Vec<Violation>) {
    let mut seen: BTreeMap<Id, Vec<&Exchange>> = BTreeMap::new();
    for exchange in stored {
        seen.entry(exchange.id).or_default().push(exchange);
    }
    for (id, sent) in sent {
        let exchanges = seen.remove(id).unwrap_or_default();
        match exchanges.as_slice() {
            [] => {
                let what = format!("{} {} {} was queued and is not in {place}", sent.origin, sent.request, hex(id));
                found.push(violation("I1", what));
            }
            [one] => {
                let (origin, lane, ..) = &one.place;
                let is_whole = match one.body {
                    Body::Kept(body) => body == sent.body,
                    Body::Gone => may_be_gone,
                    // The hub keeps nothing of what it refused.
                    Body::Absent => one.outcome.is_err(),
                };
                if (origin, lane) != (&sent.origin, &sent.lane) || !is_whole {
                    let what =
                        format!("{} in {place} is not what {} sent as {}", named(one), sent.origin, sent.request);
                    found.push(violation("I1", what));
                }
            }
            many => {
                let places: Vec<String> = many.iter().map(|exchange| named(exchange)).collect();
                found.push(violation("I1", format!("recorded more than once in {place}: {}", places.join(", "))));
            }
        }
    }
    for exchange in seen.values().flatten() {
        found.push(violation("I1", format!("{} in {place} was sent by nobody", named(exchange))));
    }
}

/// Whoever is on the agreement and stays has it; nobody else does; refused is only what has nobody left.
fn audiences(evidence: &Evidence, sent: &BTreeMap<Id, &Sent>, found: &mut Vec<Violation>) {
    for exchange in &evidence.hub.exchanges {
        let Some(sent) = sent.get(&exchange.id) else { continue };
        let meant = evidence.records.audience(sent);
        match &exchange.outcome {
            Ok(audience) => {
                let audience: BTreeSet<String> = audience.iter().cloned().collect();
                let is_right = meant.must.is_subset(&audience)
                    && audience.iter().all(|code| meant.must.contains(code) || meant.may.contains(code));
                if !is_right {
                    let what = format!("{} was recorded for {audience:?}, meant {meant:?}", named(exchange));
                    found.push(violation("I1", what));
                }
            }
            Err(_) if meant.must.is_empty() => {}
            Err(reason) => {
                found.push(violation("I1", format!("{} was refused with {reason}, meant {meant:?}", named(exchange))));
            }
        }
    }
}

/// A request of an agency became one exchange.
fn requests(code: &str, queued: &[Exchange], found: &mut Vec<Violation>) {
    let mut seen = BTreeMap::new();
    for exchange in queued {
        if let Some(request) = &exchange.request
            && let Some(before) = seen.insert(request, exchange)
        {
            let (agency, request) = request;
            let what = format!(
                "request {request} of {code}/{agency} was queued twice: {}, {}",
                named(before),
                named(exchange)
            );
            found.push(violation("I3", what));
        }
    }
}

/// Consignments and indices follow each other, and the ids in them are in the order of the answers.
fn order(place: &str, stored: &[Exchange], records: &Records, found: &mut Vec<Violation>) {
    let mut chains: BTreeMap<(&str, Lane), Vec<&Exchange>> = BTreeMap::new();
    for exchange in stored {
        let (origin, lane, ..) = &exchange.place;
        chains.entry((origin, *lane)).or_default().push(exchange);
    }
    for ((origin, lane), chain) in chains {
        let mut last = (0, 0);
        for exchange in &chain {
            let (_, _, number, index) = exchange.place;
            let follows = (number == last.0 + 1 && index == 0) || (number == last.0 && index == last.1 + 1);
            if !follows {
                let what = format!("{} in {place} follows {}.{}", named(exchange), last.0, last.1);
                found.push(violation("I4", what));
            }
            last = (number, index);
        }
        let sent = records.sent.iter().filter(|sent| sent.origin == origin && sent.lane == lane);
        let mut sent = sent.map(|sent| sent.id).peekable();
        for exchange in chain {
            if sent.next_if_eq(&exchange.id).is_none() {
                let next = sent.peek().map_or_else(|| "nothing".to_owned(), |id| hex(&id[..8]));
                let what = format!("{} stands in {place} where {next} was sent next", named(exchange));
                found.push(violation("I4", what));
                break;
            }
        }
    }
}

/// Mailbox numbers follow each other and stand for those in whose audience the recipient is.
fn runs(evidence: &Evidence, found: &mut Vec<Violation>) {
    let mut last: BTreeMap<(&str, Lane), u64> = BTreeMap::new();
    for run in &evidence.hub.runs {
        let last = last.entry((&run.recipient, run.lane)).or_default();
        if run.first != *last + 1 {
            let what = format!(
                "entry {} gives {} {} the numbers from {} on, after {last}",
                run.sequence, run.recipient, run.lane, run.first
            );
            found.push(violation("I4", what));
        }
        *last = run.first + run.ids.len() as u64 - 1;
    }
}

/// What an officer was told as accepted stands there, and no statement stands there twice. Said again under another number after a
/// lost answer, the same word may stand there under both.
fn words(evidence: &Evidence, found: &mut Vec<Violation>) {
    for (agreement, agreed) in &evidence.records.agreements {
        for (who, word) in &agreed.words {
            let stands =
                evidence.hub.words.iter().any(|(id, code, said, _)| id == agreement && code == who && said == word);
            if !stands {
                found.push(violation("I1", format!("{word:?} of {who} about {agreement} is not in the hub's journal")));
            }
        }
    }
    let mut seen = BTreeMap::new();
    for (signer, sequence) in &evidence.hub.statements {
        if let Some(before) = seen.insert(signer, sequence) {
            let (who, officer, number) = signer;
            let what =
                format!("statement {number} of {who} {officer} stands in the hub's entries {before} and {sequence}");
            found.push(violation("I3", what));
        }
    }
}

/// Numbers from 1 on.
pub(super) fn gapless(what: &str, numbers: &[u64], found: &mut Vec<Violation>) {
    if let Some((expected, number)) = (1..).zip(numbers).find(|(expected, number)| expected != *number) {
        found.push(violation("I4", format!("{what}: {number} where {expected} comes next")));
    }
}
