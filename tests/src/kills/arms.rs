//! Which crash point comes next, at which pass, and what has to be so on the disk that it is passed at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_faults::POINTS;

use crate::battery::Chance;
use crate::damage::{append_to_last_segment, remove_views};

/// Points that a battery of hub and nodes under load does not pass, by their beginning, each with the reason.
pub const NOT_PASSED: &[(&str, &str)] = &[
    ("restore.", "only the command that puts a backup in place passes them: the story `backup` kills it there"),
    (
        "hub.fetch.",
        "only a restored node makes a hub pass them: the story `healing_node` kills the node at each of its own",
    ),
    ("node.recover.", "only a restored node passes them: the story `healing_node` kills it at each"),
    ("node.pack.", "only a node whose epoch was closed passes them: the story `epochs` kills it at each"),
    ("hub.heal.", "only a hub that lost data passes them: the story `healing_hub` kills it at each"),
    ("node.withdraw", WITHDRAWING),
    ("hub.withdraw", WITHDRAWING),
    ("journal.mend.", MENDING),
    ("hub.mend.", MENDING),
    ("node.mend.", MENDING),
    ("node.heal.", "only the node of a hub that lost data passes them: the story `healing_hub` kills it at each"),
];

const WITHDRAWING: &str = "nothing is withdrawn under that load: the story `withdrawn` kills hub and node at each";
const MENDING: &str = "only what is damaged and given again by a peer makes a process pass them: the story `damaged_bodies` kills it at each";

/// A point that a process is to die at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// The point.
    pub point: &'static str,
    /// At which pass of it.
    pub count: u64,
}

/// How often each point was died at, and how often a process armed with it lived on.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Deaths by point.
    pub died: BTreeMap<&'static str, u64>,
    /// Lived on although armed.
    pub missed: BTreeMap<&'static str, u64>,
    /// Killed from outside, at no particular point.
    pub unforeseen: u64,
    /// Ends of journals that were torn while their process was dead.
    pub torn: u64,
    /// Exchanges whose bodies the retention took.
    pub bodies_taken: u64,
    /// Old segments that it took.
    pub segments_taken: u64,
}

impl Tally {
    /// How many died by themselves.
    pub fn deaths(&self) -> u64 {
        self.died.values().sum()
    }

    /// How many died in the midst of a trim.
    pub fn deaths_in_trims(&self) -> u64 {
        self.died.iter().filter(|(point, _)| point.starts_with("journal.trim.")).map(|(_, deaths)| deaths).sum()
    }

    /// Points that nobody died at and that have no reason for it.
    pub fn never(&self) -> Vec<&'static str> {
        let passed = |point: &&str| self.died.contains_key(point) || reason(point).is_some();
        POINTS.iter().copied().filter(|point| !passed(point)).collect()
    }
}

/// Why a point is not passed.
fn reason(point: &str) -> Option<&'static str> {
    NOT_PASSED.iter().find(|(beginning, _)| point.starts_with(beginning)).map(|(_, reason)| *reason)
}

/// The next point for a process of this kind: of those that were died at least often, any.
pub(super) fn choose(is_hub: bool, recovering: bool, tally: &Tally, chance: &mut Chance) -> Arm {
    let own = if is_hub { "hub." } else { "node." };
    let fits = |point: &&&'static str| {
        let of_process = point.starts_with(own) || point.starts_with("journal.") || point.starts_with("views.");
        of_process && reason(point).is_none() && *point != &FINISHING && (!recovering || is_of_recovery(point))
    };
    // A point that was missed comes again, later than those that were not tried.
    let cost = |point: &&'static str| {
        let count = |of: &BTreeMap<&str, u64>| of.get(*point).copied().unwrap_or(0);
        count(&tally.died) + count(&tally.missed)
    };
    let candidates: Vec<&'static str> = POINTS.iter().filter(fits).copied().collect();
    let least = candidates.iter().map(cost).min().unwrap_or(0);
    let rarest: Vec<&'static str> = candidates.into_iter().filter(|point| cost(point) == least).collect();
    let point = rarest[chance.below(rarest.len() as u64) as usize];
    let count = if tally.missed.contains_key(point) { 1 } else { 1 + chance.below(passes_max(point)) };
    Arm { point, count }
}

/// A start passes it only where a trim was under way.
const FINISHING: &str = "journal.trim.finishing";

/// The point at which the next start of a process dies that died at this one, and leaves something for that start to finish.
pub(super) fn next_after(point: &str) -> Option<Arm> {
    let leaves =
        ["written", "prepared", "anchored", "removing"].iter().any(|step| point == format!("journal.trim.{step}"));
    leaves.then_some(Arm { point: FINISHING, count: 1 })
}

/// Between a start and the first service: a process that dies here has just come back.
fn is_of_recovery(point: &str) -> bool {
    [".open.", ".cut.", ".history.", ".aside.", "views.create", "serving", ".hello", "welcome", ".repeated"]
        .iter()
        .any(|part| point.contains(part))
}

/// How often a point is passed within a moment of load, roughly.
fn passes_max(point: &str) -> u64 {
    const ONCE: &[&str] = &[
        ".open.",
        ".cut.",
        ".history.",
        ".aside.",
        "views.create",
        ".serving",
        ".close",
        ".statement.",
        ".rotate.",
        ".withheld",
        ".repeated",
        ".trim.",
        "views.follow",
    ];
    const SELDOM: &[&str] = &["welcome", ".hello", ".feed.", ".acknowledge.", ".redact."];
    if ONCE.iter().any(|part| point.contains(part)) {
        1
    } else if SELDOM.iter().any(|part| point.contains(part)) {
        3
    } else {
        25
    }
}

/// Whether it is passed only when a process is asked to end.
pub(super) fn is_at_the_end(point: &str) -> bool {
    point.ends_with(".close")
}

/// Whether it waits for something that officers say, or for the retention, which is seldom.
pub(super) fn waits_for_officers(point: &str) -> bool {
    [".statement.", ".redact.", ".trim."].iter().any(|part| point.contains(part)) || point.ends_with(".withheld")
}

/// Makes a folder such that its process passes the point at its start; the process is dead. True where the journal's end was torn.
pub(super) fn prepare(point: &str, dir: &Path, chance: &mut Chance) -> bool {
    const TORN_MAX_BYTES: u64 = 3_000;
    let needs_cut = point.starts_with("journal.cut.") || point == "journal.history.begun";
    if needs_cut {
        // As a kill in the middle of a write leaves it: some bytes of a commit that nobody was told of.
        let torn: Vec<u8> = (0..=chance.below(TORN_MAX_BYTES)).map(|_| chance.any() as u8).collect();
        append_to_last_segment(dir, &torn);
    }
    if point.starts_with("views.aside.") && dir.join("views/conf").exists() {
        fs::write(dir.join("views/conf"), b"not what sled wrote").unwrap();
    }
    if (point == "views.create" || point == "views.follow.read") && dir.join("views").exists() {
        remove_views(dir);
    }
    needs_cut
}
