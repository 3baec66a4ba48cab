//! The operations of the system that a test may let fail.

/// Every operation that can be let fail. A test walks the sources: each stands in exactly one place.
pub const FAILURES: &[&str] = &[
    "journal.sync",
    // The one task that writes the journal stands still for ever, and the process lives on.
    "hub.sequencer.goes-on",
    "node.writer.goes-on",
    // The hub takes probes in and gives none back: the way is silent, and the connection stands.
    "hub.probe.goes-back",
    // A node reads no header any more, as one of an older version does with what a newer one sent.
    "node.judge.reads-header",
];
