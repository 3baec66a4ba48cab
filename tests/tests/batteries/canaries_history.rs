//! A random history of a forum in which every exchange carries secrets of its own; everything that anybody hears of it is kept.

mod asking;
mod end;
mod paths;
mod sending;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use concord_tests::battery::Chance;
use concord_tests::{Forum, concord, words};

use crate::canaries_search::{Got, Secret};

pub(crate) const CODES: [&str; 4] = ["KAZ", "IRN", "TUR", "UZB"];
const FOUR: &str = "KAZ/four";
const TWO: &str = "KAZ/two";
const THREE: &str = "TUR/three";
const DRUGS: &str = "challenges.2";
const CYBER: &str = "challenges.3";
const FLOODS: &str = "environmental.5";
const LOUD: [(&str, &str); 1] = [("CONCORD_LOG", "trace")];

/// An agreement as the history knows it: who is a member now.
struct Agreed {
    id: &'static str,
    measure: &'static str,
    members: BTreeSet<&'static str>,
}

/// An agency as the history knows it.
struct Agency {
    state: &'static str,
    name: &'static str,
    /// The one measure that it has the right to by name; all of them otherwise.
    measure: Option<&'static str>,
    receives: bool,
}

/// An exchange that was handed in and has not been followed to its end.
#[derive(Clone)]
struct Pending {
    secret: usize,
    id: String,
    by: (&'static str, &'static str),
    /// What each recipient comes to: `delivered` or `withheld REASON`.
    ends: BTreeMap<&'static str, &'static str>,
    lane: &'static str,
    measure: &'static str,
    handling: &'static str,
    named: Option<String>,
}

/// What a draft must be like.
#[derive(Clone, Copy, Default)]
struct Wanted {
    away: Option<&'static str>,
    to: Option<&'static str>,
    under: Option<&'static str>,
    expires: Option<SystemTime>,
}

/// How often what happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) recorded: u64,
    pub(crate) refused: u64,
    pub(crate) withheld: u64,
    /// Exchanges that their origins took back.
    pub(crate) withdrawn: u64,
    pub(crate) narrowed: u64,
    pub(crate) questions: u64,
    /// Of mailboxes, counted before the hub was restored.
    pub(crate) numbers: u64,
}

pub(crate) struct History {
    forum: Forum,
    chance: Chance,
    agreements: Vec<Agreed>,
    agencies: Vec<Agency>,
    secrets: Vec<Secret>,
    pending: Vec<Pending>,
    heard: Vec<Got>,
    /// Which agency was given which exchange.
    given: BTreeSet<(String, String)>,
    /// Which agency saw it listed while it had the right to it.
    listed: BTreeSet<(String, String)>,
    /// Numbers of each mailbox that exchanges of its audience have taken.
    numbers: BTreeMap<(&'static str, &'static str), u64>,
    /// What came out otherwise than was agreed.
    pub(crate) wrong: Vec<String>,
    pub(crate) tally: Tally,
    files_written: u64,
}

impl History {
    pub(crate) fn begin(seed: u64) -> Self {
        // Whatever a log may ever say is to be in it.
        let mut forum = Forum::empty();
        forum.stop_hub();
        forum.start_hub_with(&BTreeMap::from(LOUD));
        for code in CODES {
            forum.join(code);
            forum.start_node_with(code, &BTreeMap::from(LOUD));
        }
        forum.agree(FOUR, DRUGS, &CODES);
        forum.agree(TWO, CYBER, &["KAZ", "IRN"]);
        forum.agree(THREE, FLOODS, &["TUR", "UZB", "IRN"]);
        let mut agencies = Vec::new();
        let agency = |state, name, measure| Agency { state, name, measure, receives: true };
        CODES.iter().for_each(|code| agencies.push(agency(*code, "agency", None)));
        for (state, name, measure) in
            [("KAZ", "second", None), ("IRN", "police", Some(DRUGS)), ("TUR", "customs", Some(FLOODS))]
        {
            let mut add = words!["agency", "add", name, "--dir", forum.node_dir(state)];
            add.extend(measure.iter().flat_map(|code| words!["--measure", code]));
            concord(add).ok();
            agencies.push(agency(state, name, measure));
        }
        let agreed =
            |id, measure, members: &[&'static str]| Agreed { id, measure, members: members.iter().copied().collect() };
        Self {
            forum,
            chance: Chance::of(seed),
            agreements: vec![
                agreed(FOUR, DRUGS, &CODES),
                agreed(TWO, CYBER, &["KAZ", "IRN"]),
                agreed(THREE, FLOODS, &["TUR", "UZB", "IRN"]),
            ],
            agencies,
            secrets: Vec::new(),
            pending: Vec::new(),
            heard: Vec::new(),
            given: BTreeSet::new(),
            listed: BTreeSet::new(),
            numbers: BTreeMap::new(),
            wrong: Vec::new(),
            tally: Tally::default(),
            files_written: 0,
        }
    }

    /// Goes every path once, in an order that the seed decides, with about so many exchanges.
    pub(crate) fn live(&mut self, exchanges: u64) {
        let mut chapters: Vec<fn(&mut Self, u64)> = vec![
            Self::all_there,
            Self::followed,
            Self::away,
            Self::killed,
            Self::hub_killed,
            Self::restarted,
            Self::expired,
            Self::expired_before_the_hub,
            Self::held,
            Self::amended,
            Self::left,
            Self::taken_away,
            Self::withdrawn,
            Self::superseded,
            Self::node_restored,
            Self::hub_restored,
        ];
        let each = (exchanges / chapters.len() as u64).max(2);
        while !chapters.is_empty() {
            let next = self.chance.below(chapters.len() as u64) as usize;
            chapters.swap_remove(next)(self, each);
            self.settle();
            self.refusals();
            self.questions(2);
        }
    }
}

fn in_seconds(seconds: u64) -> SystemTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    UNIX_EPOCH + Duration::from_secs(now + seconds)
}
