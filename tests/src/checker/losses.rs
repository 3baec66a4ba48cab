//! I1 where no copy was put back: nobody wrote down that data was lost, and every history of the hub that a node knows is the hub's.

use std::collections::BTreeMap;

use super::journals::RECEIPTS;
use super::{Evidence, Violation};
use crate::witness::hex;

pub(super) fn judge(evidence: &Evidence, found: &mut Vec<Violation>) {
    let mut violation = |what| found.push(Violation { promise: "I1", what });
    for (sequence, what) in &evidence.hub.losses {
        violation(format!("a loss that was healed: entry {sequence} of the hub: {what}"));
    }
    for (code, node) in &evidence.nodes {
        for (sequence, what) in &node.losses {
            violation(format!("a loss that was healed: entry {sequence} of {code}: {what}"));
        }
        // By what comes in it, a later entry never names an earlier history; but a receipt that is given again keeps its words.
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (sequence, source, history) in &node.hub_histories {
            let words = format!("entry {sequence} of {code}, {source}, names the history {}", hex(history));
            let Some(place) = evidence.hub.histories.iter().position(|known| known == history) else {
                violation(format!("{words}, which the hub does not have"));
                continue;
            };
            let before = last.insert(source, place);
            if source != RECEIPTS && before.is_some_and(|before| before > place) {
                violation(format!("{words} after a later one"));
            }
        }
    }
}
