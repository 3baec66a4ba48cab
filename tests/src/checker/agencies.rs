//! I3 and I4 at the agencies: each got each id until it acknowledged it, never after, in the origin's order, and as it was sent.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::Lane;

use super::{Evidence, Violation};
use crate::witness::{Heard, Id, Sent, hex};

pub(super) fn judge(evidence: &Evidence, found: &mut Vec<Violation>) {
    let sent: BTreeMap<Id, &Sent> = evidence.records.sent.iter().map(|sent| (sent.id, sent)).collect();
    for (agency, heard) in &evidence.records.heard {
        let one = One { agency, code: agency.split('/').next().unwrap_or_default(), evidence, sent: &sent };
        one.judge(heard, found);
    }
}

struct One<'a> {
    agency: &'a str,
    code: &'a str,
    evidence: &'a Evidence,
    sent: &'a BTreeMap<Id, &'a Sent>,
}

impl One<'_> {
    fn judge(&self, heard: &[Heard], found: &mut Vec<Violation>) {
        let mut acknowledged: BTreeSet<Id> = BTreeSet::new();
        let mut seen: BTreeSet<Id> = BTreeSet::new();
        let mut orders: BTreeMap<(String, Lane), Vec<Id>> = BTreeMap::new();
        for event in heard {
            match event {
                Heard::Given { id, lane, origin, body } => {
                    if acknowledged.contains(id) {
                        let what = format!("{} was given {} after it had acknowledged it", self.agency, hex(id));
                        found.push(Violation { promise: "I3", what });
                    }
                    if seen.insert(*id) {
                        self.content(*id, *lane, origin, *body, found);
                        orders.entry((origin.clone(), *lane)).or_default().push(*id);
                    }
                }
                Heard::Acknowledging(_) => {}
                Heard::Acknowledged(ids) => acknowledged.extend(ids),
            }
        }
        self.all(&acknowledged, found);
        for ((origin, lane), given) in orders {
            self.order(&origin, lane, &given, found);
        }
    }

    /// It is what somebody sent to this participant.
    fn content(&self, id: Id, lane: Lane, origin: &str, body: Id, found: &mut Vec<Violation>) {
        let agency = self.agency;
        let Some(sent) = self.sent.get(&id) else {
            let what = format!("{agency} was given {}, which nobody sent", hex(&id));
            found.push(Violation { promise: "I1", what });
            return;
        };
        let audience = self.evidence.records.audience(sent);
        if !audience.must.contains(self.code) && !audience.may.contains(self.code) {
            let what = format!("{agency} was given {}, which was not for {}", hex(&id), self.code);
            found.push(Violation { promise: "I1", what });
        }
        if (sent.lane, sent.origin.as_str(), sent.body) != (lane, origin, body) {
            let what = format!("{agency} was given {} otherwise than {} sent it", hex(&id), sent.origin);
            found.push(Violation { promise: "I1", what });
        }
    }

    /// Everything that its state is to have, it was given and acknowledged.
    fn all(&self, acknowledged: &BTreeSet<Id>, found: &mut Vec<Violation>) {
        for (id, sent) in self.sent {
            if self.evidence.records.audience(sent).must.contains(self.code) && !acknowledged.contains(id) {
                let what = format!("{} never got {} of {} {}", self.agency, hex(id), sent.origin, sent.request);
                found.push(Violation { promise: "I3", what });
            }
        }
    }

    /// The first time that each came is in the order of its origin.
    fn order(&self, origin: &str, lane: Lane, given: &[Id], found: &mut Vec<Violation>) {
        let places = self.evidence.records.sent.iter().filter(|sent| sent.origin == origin && sent.lane == lane);
        let places: BTreeMap<Id, usize> = places.enumerate().map(|(place, sent)| (sent.id, place)).collect();
        for pair in given.windows(2) {
            if let [before, after] = pair
                && places.get(before) >= places.get(after)
            {
                let what = format!(
                    "{} got {} of {origin} {lane} before {}, which was sent first",
                    self.agency,
                    hex(&before[..8]),
                    hex(&after[..8])
                );
                found.push(Violation { promise: "I4", what });
            }
        }
    }
}
