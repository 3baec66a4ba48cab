//! Every metric by name, with what it says: the one place where they are described.
//!
//! The names follow Prometheus: base units, counters end with `_total`. A label has values of the program, the lanes, or names that this
//! participant or the registry gave; never an id of an exchange, a text, or what a stranger sent.

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, and begins anew with the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often which size was seen.
    Histogram,
}

/// Which server shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricAt {
    /// Hub and node.
    Both,
    /// The hub only.
    Hub,
    /// A node only.
    Node,
}

/// A metric that a server may show.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// `concord_ready`.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// Who shows it.
    pub at: MetricAt,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

use MetricAt::{Both, Hub, Node};
use MetricKind::{Counter, Gauge, Histogram};

/// All of them, by name. A test compares them with the sources and with `deploy/README.md`.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    Metric { name: "concord_accept_errors_total", kind: Counter, at: Both, labels: &[], help: "Connections that the system did not hand over." },
    Metric { name: "concord_admin_connections", kind: Gauge, at: Both, labels: &[], help: "Connections over TLS that are open at the admin listener." },
    Metric { name: "concord_admin_connections_refused_total", kind: Counter, at: Both, labels: &[], help: "Connections to the admin listener that were closed at once since too many were open." },
    Metric { name: "concord_agency_acknowledgements_total", kind: Counter, at: Node, labels: &[], help: "Acknowledgements of agencies that were taken." },
    Metric { name: "concord_agency_oldest_waiting_seconds", kind: Gauge, at: Node, labels: &["agency"], help: "How long ago the oldest delivery came that an agency has yet to acknowledge; 0 where none waits." },
    Metric { name: "concord_agency_waiting_deliveries", kind: Gauge, at: Node, labels: &["agency"], help: "Deliveries that an agency may have and has yet to acknowledge." },
    Metric { name: "concord_alarm", kind: Gauge, at: Both, labels: &["alarm"], help: "1 while an alarm or a note of this name stands, 0 after it went." },
    Metric { name: "concord_alarms_raised_total", kind: Counter, at: Both, labels: &["alarm"], help: "Times that an alarm or a note of this name was raised." },
    Metric { name: "concord_appends_without_room_total", kind: Counter, at: Both, labels: &[], help: "Commits for which the disk had no room." },
    Metric { name: "concord_audit_lines_left_out_total", kind: Counter, at: Both, labels: &[], help: "Lines of the audit log that were left out since strangers caused too many at once." },
    Metric { name: "concord_audit_lines_lost_total", kind: Counter, at: Both, labels: &[], help: "Lines of the audit log that were lost." },
    Metric { name: "concord_audit_lines_written_total", kind: Counter, at: Both, labels: &[], help: "Lines of the audit log that were written." },
    Metric { name: "concord_bodies_mended_total", kind: Counter, at: Both, labels: &[], help: "Damaged bodies that came again and were put back." },
    Metric { name: "concord_build_info", kind: Gauge, at: Both, labels: &["version"], help: "Always 1; the label is the version of the program." },
    Metric { name: "concord_calls_denied_total", kind: Counter, at: Both, labels: &[], help: "Calls that the table of methods denied." },
    Metric { name: "concord_calls_over_limit_total", kind: Counter, at: Both, labels: &[], help: "Calls that were refused since too many, or too many bytes, were in flight." },
    Metric { name: "concord_certificate_expires_timestamp_seconds", kind: Gauge, at: Both, labels: &["certificate"], help: "When this certificate ends, in seconds since 1970." },
    Metric { name: "concord_clock_offset_seconds", kind: Gauge, at: Node, labels: &[], help: "How far this machine's clock is ahead of the hub's." },
    Metric { name: "concord_commit_duration_seconds", kind: Histogram, at: Hub, labels: &[], help: "Time from the issue of a commit to its durability." },
    Metric { name: "concord_commit_entries", kind: Histogram, at: Hub, labels: &[], help: "Entries that a commit has." },
    Metric { name: "concord_connections", kind: Gauge, at: Both, labels: &[], help: "gRPC connections that are open." },
    Metric { name: "concord_connections_expired_total", kind: Counter, at: Both, labels: &[], help: "Connections that were closed since their certificate ended." },
    Metric { name: "concord_connections_let_go_total", kind: Counter, at: Both, labels: &["reason"], help: "gRPC connections that were closed since the peer was at fault." },
    Metric { name: "concord_connections_revoked_total", kind: Counter, at: Both, labels: &[], help: "Connections that were closed since their certificate was taken back." },
    Metric { name: "concord_deliveries_received_total", kind: Counter, at: Node, labels: &["lane"], help: "Deliveries that were judged and kept." },
    Metric { name: "concord_deliveries_repeated_total", kind: Counter, at: Node, labels: &["lane"], help: "Deliveries of an exchange that was here before." },
    Metric { name: "concord_deliveries_sent_total", kind: Counter, at: Hub, labels: &[], help: "Deliveries that were sent with content." },
    Metric { name: "concord_deliveries_set_aside_total", kind: Counter, at: Node, labels: &["lane"], help: "Deliveries that did not verify and were set aside." },
    Metric { name: "concord_deliveries_withheld_total", kind: Counter, at: Hub, labels: &[], help: "Numbers that were filled with a notice in place of a delivery." },
    Metric { name: "concord_disk_available_bytes", kind: Gauge, at: Both, labels: &[], help: "What may still be written on the disk of the journal." },
    Metric { name: "concord_disk_reserve_bytes", kind: Gauge, at: Both, labels: &[], help: "What is kept free for what is under way (disk_reserve_bytes)." },
    Metric { name: "concord_exchanges_recorded_total", kind: Counter, at: Hub, labels: &[], help: "Exchanges that were recorded." },
    Metric { name: "concord_exchanges_refused_total", kind: Counter, at: Hub, labels: &[], help: "Exchanges that were refused, each with its reason to its sender." },
    Metric { name: "concord_exchanges_submitted_total", kind: Counter, at: Node, labels: &[], help: "Exchanges that agencies handed in and that were queued." },
    Metric { name: "concord_exchanges_withdrawn_total", kind: Counter, at: Hub, labels: &[], help: "Exchanges whose content went since they were withdrawn." },
    Metric { name: "concord_feed_applied_number", kind: Gauge, at: Node, labels: &[], help: "The last number of the feed that was applied." },
    Metric { name: "concord_feed_items_total", kind: Counter, at: Node, labels: &[], help: "Items of the feed that were applied." },
    Metric { name: "concord_handshakes_refused_total", kind: Counter, at: Both, labels: &["reason"], help: "TLS handshakes that were refused, and connections for which there was no place." },
    Metric { name: "concord_journal_cuts_total", kind: Counter, at: Both, labels: &[], help: "Starts that found the end of the journal damaged or unfinished and cut it." },
    Metric { name: "concord_journal_scrubs_total", kind: Counter, at: Both, labels: &[], help: "Checks of the whole journal that found nothing." },
    Metric { name: "concord_losses_found_total", kind: Counter, at: Hub, labels: &[], help: "Times that a node showed that this hub lost data." },
    Metric { name: "concord_mailbox_oldest_waiting_seconds", kind: Gauge, at: Hub, labels: &["participant", "lane"], help: "How long ago the oldest delivery was recorded that a recipient's node has yet to acknowledge; 0 where none waits." },
    Metric { name: "concord_mailbox_received_number", kind: Gauge, at: Node, labels: &["lane"], help: "The last number of the mailbox that was received." },
    Metric { name: "concord_mailbox_waiting_deliveries", kind: Gauge, at: Hub, labels: &["participant", "lane"], help: "Deliveries that a recipient's node has yet to acknowledge." },
    Metric { name: "concord_node_clock_offset_seconds", kind: Gauge, at: Hub, labels: &["participant"], help: "How far the clock of a participant's node is ahead of the hub's." },
    Metric { name: "concord_node_connected", kind: Gauge, at: Hub, labels: &["participant"], help: "1 while a node of this participant is connected, else 0." },
    Metric { name: "concord_node_copies_refused_total", kind: Counter, at: Hub, labels: &["reason"], help: "Copies of a node that were refused." },
    Metric { name: "concord_nodes_restored_total", kind: Counter, at: Hub, labels: &[], help: "Times that a node said that it was restored." },
    Metric { name: "concord_not_healed_items", kind: Gauge, at: Hub, labels: &[], help: "Exchanges and statements that are lost for good." },
    Metric { name: "concord_outbox_exchanges", kind: Gauge, at: Node, labels: &["lane"], help: "Exchanges that wait for the hub to record them." },
    Metric { name: "concord_probe_duration_seconds", kind: Histogram, at: Node, labels: &["lane"], help: "Time of a probe to the hub and back." },
    Metric { name: "concord_probes_lost_total", kind: Counter, at: Node, labels: &["lane"], help: "Probes that did not come back." },
    Metric { name: "concord_quota_refusals_total", kind: Counter, at: Both, labels: &[], help: "Calls that were refused with QUOTA_EXCEEDED." },
    Metric { name: "concord_ready", kind: Gauge, at: Both, labels: &[], help: "1 while no alarm stands that stops the service, else 0: what /readyz says." },
    Metric { name: "concord_receipts_recorded_total", kind: Counter, at: Node, labels: &["lane"], help: "Exchanges for which the hub's receipt came." },
    Metric { name: "concord_snapshot_failures_total", kind: Counter, at: Both, labels: &[], help: "Snapshots that could not be written." },
    Metric { name: "concord_spans_dropped_total", kind: Counter, at: Both, labels: &[], help: "Spans of traces that found no room, or that the collector did not take." },
    Metric { name: "concord_statements_handed_back_total", kind: Counter, at: Hub, labels: &[], help: "Officers' statements that nodes handed back after a loss." },
    Metric { name: "concord_uncollected_deliveries", kind: Gauge, at: Node, labels: &["lane"], help: "Deliveries that no agency has the right to: they wait for one that is granted it." },
    Metric { name: "process_start_time_seconds", kind: Gauge, at: Both, labels: &[], help: "When the process began, in seconds since 1970." },
];
