//! What agencies and officers themselves know: what they sent, what they were answered, what they were given, and in which
//! order. Nothing here comes from inside a hub or a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use concord_model::Lane;

/// An exchange id.
pub type Id = [u8; 32];

/// An agency, as `KAZ/agency`.
pub type AgencyName = String;

/// One exchange whose submission was answered: *queued*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The participant.
    pub origin: String,
    /// The agency's own name for it.
    pub request: String,
    /// The lane.
    pub lane: Lane,
    /// Under which agreement.
    pub agreement: String,
    /// The narrowing; none means all.
    pub to: Option<BTreeSet<String>>,
    /// SHA-256 of the body.
    pub body: Id,
    /// What was answered.
    pub id: Id,
}

/// What happened at one agency, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It was given an exchange.
    Given {
        /// Which.
        id: Id,
        /// On which lane.
        lane: Lane,
        /// From whom.
        origin: String,
        /// SHA-256 of the body that came.
        body: Id,
    },
    /// It acknowledges these: from here on they may be gone.
    Acknowledging(Vec<Id>),
    /// The node answered that: they never come again.
    Acknowledged(Vec<Id>),
}

/// What the sender was told in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Who asked.
    pub origin: String,
    /// About which.
    pub id: Id,
    /// Recipient and its state, as the protocol spells it, with the reason.
    pub recipients: BTreeMap<String, (String, String)>,
}

/// A word of an officer that its node answered with *accepted*, which the hub's journal then has once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The agreement is proposed.
    Proposed,
    /// This participant has consented.
    Consented,
    /// This participant has left.
    Left,
}

/// An agreement and what was said about it.
#[derive(Debug, Clone, Default)]
pub struct Agreed {
    /// Who is on it.
    pub parties: BTreeSet<String>,
    /// Who has said, or may have said, that it leaves.
    pub leaving: BTreeSet<String>,
    /// What was answered with *accepted*.
    pub words: Vec<(String, Word)>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// In the order of the answers: within one origin and lane that is the order of the submissions.
    pub sent: Vec<Sent>,
    /// What each agency heard.
    pub heard: BTreeMap<AgencyName, Vec<Heard>>,
    /// The last word about each exchange.
    pub tracked: Vec<Tracked>,
    /// By id.
    pub agreements: BTreeMap<String, Agreed>,
    /// What should not have been refused, or should not have come.
    pub surprises: Vec<String>,
    /// Somebody runs the retention.
    pub bodies_may_go: bool,
}

impl Records {
    /// Who must have an exchange, and who may: a party that leaves may get it or a notice.
    pub fn audience(&self, sent: &Sent) -> Audience {
        let Some(agreed) = self.agreements.get(&sent.agreement) else { return Audience::default() };
        let narrowed = |code: &&String| sent.to.as_ref().is_none_or(|to| to.contains(*code)) && **code != sent.origin;
        let (may, must) = agreed.parties.iter().filter(narrowed).cloned().partition(|code| {
            // What a leaver sent itself, the hub may decide on after its leave: then nobody gets it.
            agreed.leaving.contains(code) || agreed.leaving.contains(&sent.origin)
        });
        Audience { must, may }
    }
}

/// Who is to have an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// Has to get it.
    pub must: BTreeSet<String>,
    /// Is leaving: gets it, gets a notice, or is not in the audience any more.
    pub may: BTreeSet<String>,
}

/// The records while they grow, with a signal at every change.
#[derive(Debug, Default)]
pub struct Witness {
    records: Mutex<Records>,
    changed: Condvar,
}

/// Between two looks at whether something is still missing.
const LOOKED_EVERY: Duration = Duration::from_millis(100);
/// A wait that goes forward ends after so many times its limit all the same.
const LIMITS_MAX: u32 = 10;

impl Witness {
    /// Writes something down.
    pub fn note(&self, write: impl FnOnce(&mut Records)) {
        write(&mut self.lock());
        self.changed.notify_all();
    }

    /// What is written down now.
    pub fn records(&self) -> Records {
        self.lock().clone()
    }

    /// Looks something up.
    pub fn look<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `done` finds nothing missing; what it still missed when it had missed as much for so long is the error.
    pub fn wait(&self, limit: Duration, done: impl Fn(&Records) -> Vec<String>) -> Result<(), Vec<String>> {
        let (mut end, mut least) = (Instant::now() + limit, usize::MAX);
        let last = Instant::now() + limit * LIMITS_MAX;
        loop {
            let missing = done(&self.lock());
            if missing.is_empty() {
                return Ok(());
            }
            if missing.len() < least {
                (least, end) = (missing.len(), Instant::now() + limit);
            }
            let left = end.min(last).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(missing);
            }
            drop(self.changed.wait_timeout(self.lock(), left).unwrap_or_else(PoisonError::into_inner));
            // A look goes through everything, and whoever has something to note waits for its end: not after each of them.
            std::thread::sleep(LOOKED_EVERY);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id as people see it.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
