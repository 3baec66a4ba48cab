//! Receipts told to senders are true: what the hub signed as recorded is recorded so, what the feed told and what `track` shows
//! stands in the recipients' journals.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::Lane;

use super::journals::{Became, Exchange, NodeRecord};
use super::{Evidence, Violation};
use crate::witness::{Heard, Id, hex};

pub(super) fn judge(evidence: &Evidence, found: &mut Vec<Violation>) {
    let truth = Truth::of(evidence);
    for (code, node) in &evidence.nodes {
        recorded(evidence, code, node, found);
        told(&truth, code, node, found);
    }
    for tracked in &evidence.records.tracked {
        for (recipient, (state, reason)) in &tracked.recipients {
            if let Err(why) = truth.holds(tracked.id, recipient, state, reason) {
                let what = format!("{} was shown {state} {reason} of {}: {why}", tracked.origin, hex(&tracked.id));
                found.push(Violation { promise: "receipts", what });
            }
        }
    }
}

/// What stands at the recipients.
struct Truth {
    became: BTreeMap<(Id, String), Became>,
    /// What an agency said that it acknowledges.
    taken: BTreeSet<(Id, String)>,
    /// Of which it was answered: this the sender must be told.
    answered: BTreeSet<(Id, String)>,
}

impl Truth {
    fn of(evidence: &Evidence) -> Self {
        let mut kept: BTreeMap<(&str, Lane, u64), &Became> = BTreeMap::new();
        for (code, node) in &evidence.nodes {
            kept.extend(node.mail.iter().map(|mail| ((code.as_str(), mail.lane, mail.number), &mail.became)));
        }
        let mut became = BTreeMap::new();
        for run in &evidence.hub.runs {
            for (number, id) in (run.first..).zip(&run.ids) {
                if let Some(kept) = kept.get(&(run.recipient.as_str(), run.lane, number)) {
                    became.insert((*id, run.recipient.clone()), (*kept).clone());
                }
            }
        }
        let (mut taken, mut answered) = (BTreeSet::new(), BTreeSet::new());
        for (agency, heard) in &evidence.records.heard {
            let code = agency.split('/').next().unwrap_or_default();
            let at = |id: &Id| (*id, code.to_owned());
            for event in heard {
                match event {
                    Heard::Given { .. } => {}
                    Heard::Acknowledging(ids) => taken.extend(ids.iter().map(at)),
                    Heard::Acknowledged(ids) => answered.extend(ids.iter().map(at)),
                }
            }
        }
        Self { became, taken, answered }
    }

    /// Whether a state that was told of an exchange at a recipient is what stands there.
    fn holds(&self, id: Id, recipient: &str, state: &str, reason: &str) -> Result<(), String> {
        let key = (id, recipient.to_owned());
        let became = self.became.get(&key);
        let is_true = match (state, became) {
            ("delivered", Some(Became::Accepted(..))) => true,
            ("taken", Some(Became::Accepted(..))) => self.taken.contains(&key),
            ("withheld", Some(Became::Withheld)) => !reason.is_empty(),
            ("set-aside", Some(Became::SetAside(_))) => true,
            _ => false,
        };
        if is_true { Ok(()) } else { Err(format!("at {recipient} it is {became:?}")) }
    }
}

/// Each consignment has one receipt, of an entry that the hub has, with the outcomes that stand in it.
fn recorded(evidence: &Evidence, code: &str, node: &NodeRecord, found: &mut Vec<Violation>) {
    let mut violation = |what| found.push(Violation { promise: "receipts", what });
    let mut at_hub: BTreeMap<(Lane, u64), Vec<&Exchange>> = BTreeMap::new();
    for exchange in evidence.hub.exchanges.iter().filter(|exchange| exchange.place.0 == code) {
        at_hub.entry((exchange.place.1, exchange.place.2)).or_default().push(exchange);
    }
    let mut receipted = BTreeSet::new();
    for receipt in &node.receipts {
        let (lane, number) = receipt.consignment;
        let place = format!("the receipt of {code} {lane} {number} in entry {}", receipt.sequence);
        if !receipted.insert(receipt.consignment) {
            violation(format!("{place} is the second one"));
        }
        if evidence.hub.entries.get(&receipt.entry_digest) != Some(&(code.to_owned(), lane, number)) {
            violation(format!("{place} names the entry {}, which the hub does not have", hex(&receipt.entry_digest)));
        }
        let outcomes = at_hub.get(&receipt.consignment).map(Vec::as_slice).unwrap_or_default();
        if !receipt.outcomes.iter().eq(outcomes.iter().map(|exchange| &exchange.outcome)) {
            violation(format!("{place} says {:?}, the hub has {outcomes:?}", receipt.outcomes));
        }
    }
    let queued: BTreeSet<(Lane, u64)> = node.queued.iter().map(|one| (one.place.1, one.place.2)).collect();
    for (lane, number) in queued.difference(&receipted) {
        violation(format!("{code} {lane} {number} never got a receipt"));
    }
}

/// Each word of the feed is true and told once, and nothing that arrived is left untold.
fn told(truth: &Truth, code: &str, node: &NodeRecord, found: &mut Vec<Violation>) {
    let mut violation = |what| found.push(Violation { promise: "receipts", what });
    let place = |exchange: &Exchange| (exchange.place.1, exchange.place.2, exchange.place.3);
    let own: BTreeMap<_, Id> = node.queued.iter().map(|exchange| (place(exchange), exchange.id)).collect();
    let mut once = BTreeSet::new();
    for told in &node.told {
        let (lane, number, index) = told.item;
        let words = format!("item {} of {code}'s feed tells {lane} {number}.{index} as {}", told.number, told.state);
        let Some(id) = own.get(&told.item) else {
            violation(format!("{words}, which {code} never queued"));
            continue;
        };
        let (state, reason) = told.state.split_once(' ').unwrap_or((&told.state, ""));
        if let Err(why) = truth.holds(*id, &told.recipient, state, reason) {
            violation(format!("{words}: {why}"));
        }
        if !once.insert((*id, told.recipient.clone(), state == "taken")) {
            violation(format!("{words} at {} for the second time", told.recipient));
        }
    }
    for id in own.values() {
        for (_, recipient) in
            truth.became.range((*id, String::new())..).take_while(|((of, _), _)| of == id).map(|(key, _)| key)
        {
            if !once.contains(&(*id, recipient.clone(), false)) {
                violation(format!("{code} was never told what became of {} at {recipient}", hex(&id[..8])));
            }
            let key = (*id, recipient.clone());
            if truth.answered.contains(&key) && !once.contains(&(*id, recipient.clone(), true)) {
                violation(format!("{code} was never told that {} was taken at {recipient}", hex(&id[..8])));
            }
        }
    }
}
