//! The status as a person reads it: what is wrong first, then the facts, then the queues.

use super::{Detail, HubLine, NodeLine, StatusLine};
use crate::output::{facts, safe, short_time, table};

pub(super) fn shown(line: &StatusLine) -> String {
    let mut rows = vec![
        (line.role, format!("{} {}, version {}", line.participant, line.name, line.version)),
        ("up", line.uptime_seconds.map_or_else(|| "-".to_owned(), duration)),
    ];
    if let Some(tail) = &line.journal {
        let digest = tail.digest.get(..16).unwrap_or(&tail.digest);
        rows.push(("journal", format!("entry {}, digest {digest}…, history {}", tail.sequence, tail.history)));
    }
    if let Some(days) = line.certificate_days_left {
        rows.push(("certificate", format!("{days} days left")));
    }
    let is_note = |alarm: &str| line.notes.iter().any(|note| alarm.split(':').next() == Some(note.as_str()));
    let kind = |alarm: &str| if is_note(alarm) { "note" } else { "ALARM" };
    rows.extend(line.alarms.iter().map(|alarm| (kind(alarm), safe(alarm))));
    match &line.detail {
        Detail::Node(node) => of_node(rows, node),
        Detail::Hub(hub) => of_hub(rows, hub),
    }
}

fn of_node(mut rows: Vec<(&str, String)>, node: &NodeLine) -> String {
    let hub = match (&node.hub, node.hub_connected) {
        (None, _) => "not joined yet".to_owned(),
        (Some(hub), true) => format!("{hub}, connected"),
        (Some(hub), false) => {
            format!("{hub}, away; last contact {}", short_time(node.hub_contact_at.as_deref()))
        }
    };
    rows.push(("hub", hub));
    rows.push(("outbox", format!("{} exchanges, {} statements", node.outbox_exchanges, node.outbox_statements)));
    rows.push(("feed", node.feed_number.to_string()));
    if node.agreements_pending > 0 {
        let since = short_time(node.agreements_pending_since.as_deref());
        rows.push((
            "agreements",
            format!("{} wait for this state's word, the first since {since}", node.agreements_pending),
        ));
    }
    let mailboxes = node.mailboxes.iter().map(|one| {
        let counts = [one.received_through, one.set_aside, one.uncollected];
        [vec![one.lane.clone()], counts.map(|count| count.to_string()).to_vec()].concat()
    });
    let agencies =
        node.agencies.iter().map(|one| vec![one.name.clone(), one.lag_items.to_string(), duration(one.lag_seconds)]);
    let mailboxes = table_if_any(&["mailbox", "received", "set aside", "uncollected"], mailboxes);
    let agencies = table_if_any(&["agency", "not taken", "oldest"], agencies);
    format!("{}{mailboxes}{agencies}", facts(&rows))
}

fn of_hub(mut rows: Vec<(&str, String)>, hub: &HubLine) -> String {
    rows.push(("enrolled", format!("{} participants", hub.participants_enrolled)));
    rows.push(("in force", format!("{} agreements", hub.agreements_in_force)));
    let nodes =
        hub.nodes.iter().map(|one| vec![one.participant.clone(), one.node.clone(), short_time(one.since.as_deref())]);
    let mailboxes = hub.mailboxes.iter().map(|one| {
        vec![one.participant.clone(), one.lane.clone(), one.lag_items.to_string(), duration(one.lag_seconds)]
    });
    let nodes = table_if_any(&["connected", "node", "since"], nodes);
    let mailboxes = table_if_any(&["mailbox", "lane", "not delivered", "oldest"], mailboxes);
    format!("{}{nodes}{mailboxes}", facts(&rows))
}

fn table_if_any(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() { String::new() } else { format!("\n{}", table(head, rows)) }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0 => format!("{:.1} s", seconds.max(0.0)),
        1..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}
