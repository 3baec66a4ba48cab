//! I1 and I3 of what agencies acknowledge: what was answered is behind the cursor for ever, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::Lane;

use super::journals::{Became, NodeRecord};
use super::{Evidence, Violation};
use crate::witness::{Heard, Id, hex};

pub(super) fn judge(evidence: &Evidence, found: &mut Vec<Violation>) {
    for (code, node) in &evidence.nodes {
        let cursors = forward(code, node, found);
        for (agency, heard) in &evidence.records.heard {
            if let Some(name) = agency.strip_prefix(code).and_then(|rest| rest.strip_prefix('/')) {
                of_agency(agency, node, heard, |lane| cursors.get(&(name, lane)).copied().unwrap_or(0), found);
            }
        }
    }
}

/// Each cursor goes forward, over what had come; answers where each ends.
fn forward<'a>(code: &str, node: &'a NodeRecord, found: &mut Vec<Violation>) -> BTreeMap<(&'a str, Lane), u64> {
    let mut ends = BTreeMap::new();
    for (sequence, agency, lane, through) in &node.cursors {
        let mut violation = |promise, why: &str| {
            let what = format!("entry {sequence} sets the cursor {lane} of {code}/{agency} to {through}{why}");
            found.push(Violation { promise, what });
        };
        if ends.insert((agency.as_str(), *lane), *through).is_some_and(|before| before >= *through) {
            violation("I3", ", where it was or behind that");
        }
        let has_come =
            node.mail.iter().any(|mail| mail.sequence < *sequence && (mail.lane, mail.number) == (*lane, *through));
        if !has_come {
            violation("I1", ", which had not come then");
        }
    }
    ends
}

fn of_agency(
    agency: &str,
    node: &NodeRecord,
    heard: &[Heard],
    cursor: impl Fn(Lane) -> u64,
    found: &mut Vec<Violation>,
) {
    let (mut said, mut answered): (BTreeSet<&Id>, BTreeSet<&Id>) = Default::default();
    for event in heard {
        match event {
            Heard::Given { .. } => {}
            Heard::Acknowledging(ids) => said.extend(ids),
            Heard::Acknowledged(ids) => answered.extend(ids),
        }
    }
    for mail in &node.mail {
        let Became::Accepted(id, _) = &mail.became else { continue };
        let is_behind = mail.number <= cursor(mail.lane);
        let place = format!("{} {} {}", mail.lane, mail.number, hex(&id[..8]));
        if answered.contains(id) && !is_behind {
            let what = format!("{agency} was answered that it acknowledged {place}, which its cursor has not passed");
            found.push(Violation { promise: "I1", what });
        }
        if is_behind && !said.contains(id) {
            let what = format!("the cursor of {agency} passed {place}, which it never acknowledged");
            found.push(Violation { promise: "I1", what });
        }
    }
}
