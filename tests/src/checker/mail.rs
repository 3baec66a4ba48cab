//! I3 and I4 at the recipients' nodes: each number of a mailbox is there once, in order, and is what the hub gave it to.

use std::collections::BTreeMap;

use concord_model::Lane;

use super::bodies::Body;
use super::journals::{Became, Mail};
use super::recorded::gapless;
use super::{Evidence, Violation};
use crate::witness::{Id, Sent, hex};

pub(super) fn judge(evidence: &Evidence, found: &mut Vec<Violation>) {
    let sent: BTreeMap<Id, &Sent> = evidence.records.sent.iter().map(|sent| (sent.id, sent)).collect();
    for (code, node) in &evidence.nodes {
        for lane in Lane::ALL {
            let mail: Vec<&Mail> = node.mail.iter().filter(|mail| mail.lane == lane).collect();
            let numbers: Vec<u64> = mail.iter().map(|mail| mail.number).collect();
            gapless(&format!("mailbox {lane} of {code}"), &numbers, found);
            given(evidence, code, lane, &mail, &sent, found);
        }
        twice(code, &node.mail, found);
        if let Some(feed) = &node.feed {
            gapless(&format!("feed of {code}"), feed, found);
            let given = evidence.hub.told.get(code).map_or(0, Vec::len);
            if feed.len() != given {
                let what = format!("{code} has {} items of its feed, the hub gave {given}", feed.len());
                found.push(Violation { promise: "I4", what });
            }
        }
    }
}

/// One entry for each id.
fn twice(code: &str, mail: &[Mail], found: &mut Vec<Violation>) {
    let mut seen: BTreeMap<Id, &Mail> = BTreeMap::new();
    for one in mail {
        if let Became::Accepted(id, _) = &one.became
            && let Some(before) = seen.insert(*id, one)
        {
            let what = format!(
                "{} is in {code}'s journal twice: entries {} and {}",
                hex(&id[..8]),
                before.sequence,
                one.sequence
            );
            found.push(Violation { promise: "I3", what });
        }
    }
}

/// What the hub gave each number to is what the node has under it.
fn given(
    evidence: &Evidence,
    code: &str,
    lane: Lane,
    mail: &[&Mail],
    sent: &BTreeMap<Id, &Sent>,
    found: &mut Vec<Violation>,
) {
    let mut violation = |promise, what| found.push(Violation { promise, what });
    let runs = evidence.hub.runs.iter().filter(|run| run.recipient == code && run.lane == lane);
    let given: BTreeMap<u64, Id> = runs.flat_map(|run| (run.first..).zip(run.ids.iter().copied())).collect();
    let is_leaving = |sent: Option<&&Sent>| sent.is_some_and(|sent| evidence.records.audience(sent).may.contains(code));
    let kept: BTreeMap<u64, &Mail> = mail.iter().map(|mail| (mail.number, *mail)).collect();
    for (number, id) in &given {
        let place = format!("number {number} of {code} {lane}, {}", hex(&id[..8]));
        let Some(mail) = kept.get(number) else {
            violation("I1", format!("{place} was recorded and did not arrive"));
            continue;
        };
        let sent = sent.get(id);
        match &mail.became {
            Became::Accepted(kept, _) if kept != id => {
                violation("I4", format!("{place} is {} in entry {}", hex(&kept[..8]), mail.sequence));
            }
            Became::Accepted(_, body) => {
                let what = match body {
                    Body::Kept(body) if sent.is_some_and(|sent| *body == sent.body) => continue,
                    Body::Gone if sent.is_some() && evidence.records.bodies_may_go => continue,
                    Body::Kept(_) => "another body",
                    Body::Gone | Body::Absent => "no body",
                };
                violation("I1", format!("{place} has {what} in entry {}", mail.sequence));
            }
            // What a state has left is out at its own node at once, also what the hub recorded before it heard of the leave.
            Became::SetAside(reason) if reason == "NOT_A_MEMBER" && is_leaving(sent) => {}
            Became::SetAside(reason) => {
                violation("I1", format!("{place} was set aside in entry {}: {reason}", mail.sequence));
            }
            Became::Withheld if is_leaving(sent) => {}
            Became::Withheld => {
                violation("I1", format!("{place} was withheld in entry {} from one who stays", mail.sequence));
            }
        }
    }
    for (number, mail) in kept {
        if !given.contains_key(&number) {
            violation("I4", format!("number {number} of {code} {lane} in entry {} was given by nobody", mail.sequence));
        }
    }
}
