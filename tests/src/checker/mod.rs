//! The independent checker: from what agencies sent, were answered and were given, and from the journals at rest, it says which
//! promise was broken, and where.
//!
//! It knows no code of hub or node: it reads the records of [`crate::witness`], and the journals by [`concord_journal::walk`] and
//! the readers of what is stored. What it judges:
//!
//! * **I1** what was acknowledged *queued* is recorded once, for exactly its audience, and there, or withheld with its reason;
//!   neither hub nor node wrote down that data was lost, since healing would hide that;
//! * **I3** one entry for each id in each recipient's journal; each agency got each id until it acknowledged it, and never after;
//! * **I4** for each origin, lane and recipient the order of the origin; no gaps in any numbers;
//! * **I5** every journal verifies from its first entry, or from its base, which keeps what the entries before it said;
//! * bodies are there, but where somebody runs the retention: that it takes none too early shows in what agencies are given;
//! * **receipts** what a sender was told is what stands in the recipient's journal.

mod agencies;
mod bodies;
mod cursors;
mod journals;
mod losses;
mod mail;
mod receipts;
mod recorded;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::witness::Records;

pub use bodies::Body;
pub use journals::{Became, Exchange, History, HubRecord, Mail, NodeRecord, Place, Receipt, Run, ToldOf};

/// A promise that does not hold, with ids and positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: `I1`, `I3`, `I4`, `I5` or `receipts`.
    pub promise: &'static str,
    /// What was found, and where.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// Everything that the judgement rests on.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What agencies and officers know.
    pub records: Records,
    /// The hub's journal.
    pub hub: HubRecord,
    /// Each participant's node's journal.
    pub nodes: BTreeMap<String, NodeRecord>,
}

impl Evidence {
    /// Reads the journals of these folders, which nobody writes to. A journal that does not verify is a violation.
    pub fn read(records: Records, hub: &Path, nodes: &BTreeMap<String, PathBuf>) -> Result<Self, Violation> {
        let hub = HubRecord::read(hub)?;
        let nodes = nodes.iter().map(|(code, dir)| Ok((code.clone(), NodeRecord::read(code, dir)?)));
        Ok(Self { records, hub, nodes: nodes.collect::<Result<_, _>>()? })
    }

    /// Every violation that this evidence shows; everything has been drained.
    pub fn judge(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        found.extend(self.records.surprises.iter().map(|what| Violation { promise: "I1", what: what.clone() }));
        losses::judge(self, &mut found);
        recorded::judge(self, &mut found);
        mail::judge(self, &mut found);
        agencies::judge(self, &mut found);
        cursors::judge(self, &mut found);
        receipts::judge(self, &mut found);
        found
    }
}

/// Panics with every violation, if there is one.
#[track_caller]
pub fn demand(found: &[Violation]) {
    const SHOWN_MAX: usize = 40;
    let shown: Vec<String> = found.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations:\n  {}", found.len(), shown.join("\n  "));
}
