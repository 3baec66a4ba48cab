//! The status as a person reads it: what is wrong first, then the facts, then the queues.

use super::probe::ProbeLine;
use super::{CertificateLine, Detail, HealthLine, HubLine, LaneLine, NodeLine, StatusLine};
use crate::output::{facts, safe, short_time, table};

/// From so many days before its end on somebody else's certificate is shown.
const CERTIFICATE_SHOWN_DAYS: i64 = 60;

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
    // Of others only what is soon to end: at a hub they are many.
    let near = |one: &&CertificateLine| one.days_left.is_some_and(|days| days < CERTIFICATE_SHOWN_DAYS);
    for one in line.certificates.iter().filter(|one| one.certificate != "own").filter(near) {
        let days = one.days_left.unwrap_or_default();
        rows.push(("certificate", format!("of {} ({}): {days} days left", safe(&one.holder), safe(&one.certificate))));
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
    if let Some(seconds) = node.clock_offset_seconds {
        rows.push(("clock", format!("{} the hub's", apart(seconds))));
    }
    let mailboxes = node.mailboxes.iter().map(|one| {
        let counts = [one.received_through, one.set_aside, one.set_aside_waiting, one.uncollected];
        [vec![one.lane.clone()], counts.map(|count| count.to_string()).to_vec()].concat()
    });
    let agencies =
        node.agencies.iter().map(|one| vec![one.name.clone(), one.lag_items.to_string(), duration(one.lag_seconds)]);
    let mailboxes = table_if_any(&["mailbox", "received", "set aside", "of these waiting", "uncollected"], mailboxes);
    let agencies = table_if_any(&["agency", "not taken", "oldest"], agencies);
    let probes = node.probes.iter().map(ProbeLine::cells);
    let probes = table_if_any(&["probe", "to the hub and back", "at"], probes);
    format!("{}{mailboxes}{agencies}{probes}", facts(&rows))
}

fn of_hub(mut rows: Vec<(&str, String)>, hub: &HubLine) -> String {
    rows.push(("enrolled", counted(hub.participants_enrolled, "participant")));
    rows.push(("in force", counted(hub.agreements_in_force, "agreement")));
    let head = ["node", "contact", "version", "clock", "certificate", "not delivered", "waits there", "alarms"];
    let nodes = table_if_any(&head, hub.health.iter().map(of_one));
    format!("{}{nodes}", facts(&rows))
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// One line for each node: what a person looks for first stands first.
fn of_one(one: &HealthLine) -> Vec<String> {
    let contact = match (&one.contact_at, one.connected) {
        (_, true) => "connected".to_owned(),
        (None, false) => "not since the hub was started".to_owned(),
        (Some(at), false) => format!("away since {}", short_time(Some(at))),
    };
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let of_lanes = |of: &dyn Fn(&LaneLine) -> Option<String>| {
        let told: Vec<_> = one.lanes.iter().filter_map(of).collect();
        if told.is_empty() { "-".to_owned() } else { told.join(", ") }
    };
    let lag = |lane: &LaneLine| {
        let exercise = if lane.oldest_is_exercise { " (the oldest: EXERCISE)" } else { "" };
        let words = || format!("{} {}, {}{exercise}", lane.lane, lane.lag_items, duration(lane.lag_seconds));
        (lane.lag_items > 0).then(words)
    };
    let waits =
        |lane: &LaneLine| (lane.waiting_exchanges > 0).then(|| format!("{} {}", lane.lane, lane.waiting_exchanges));
    let notes = one.notes.iter().map(|note| format!("({note})"));
    let said: Vec<_> = one.alarms.iter().cloned().chain(notes).collect();
    vec![
        format!("{} {}", one.participant, one.node),
        contact,
        or_none(one.version.as_deref().map(safe)),
        or_none(one.clock_ahead_seconds.map(ahead_of)),
        or_none(one.certificate_days_left.map(|days| format!("{days} days left"))),
        of_lanes(&lag),
        of_lanes(&waits),
        if said.is_empty() { "-".to_owned() } else { safe(&said.join(" ")) },
    ]
}

fn table_if_any(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() { String::new() } else { format!("\n{}", table(head, rows)) }
}

/// Seconds that a clock is ahead; what rounds to none has no sign.
fn ahead_of(seconds: f64) -> String {
    let shown = format!("{seconds:+.1} s");
    if shown == "-0.0 s" || shown == "+0.0 s" { "0.0 s".to_owned() } else { shown }
}

/// How one clock is beside the other.
fn apart(seconds: f64) -> String {
    let way = if seconds < 0.0 { "behind" } else { "ahead of" };
    format!("{} {way}", duration(seconds.abs()))
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
