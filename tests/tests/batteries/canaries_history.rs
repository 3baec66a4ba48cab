//! A random history of a forum in which every exchange carries secrets of its own; everything that anybody hears of it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use concord_tests::battery::Chance;
use concord_tests::{DEADLINE, Ended, Forum, concord, get, text_of, words};
use rustix::process::Signal;
use serde_json::Value;

use crate::canaries_search::{Finder, Got, Kind, Place, Searched, Secret, files};

pub(crate) const CODES: [&str; 4] = ["KAZ", "IRN", "TUR", "UZB"];
const FOUR: &str = "KAZ/four";
const TWO: &str = "KAZ/two";
const THREE: &str = "TUR/three";
const DRUGS: &str = "challenges.2";
const CYBER: &str = "challenges.3";
const FLOODS: &str = "environmental.5";
const LOUD: [(&str, &str); 1] = [("CONCORD_LOG", "trace")];
/// Time enough for it to be recorded, on a busy machine.
const EXPIRES_SECONDS: u64 = 8;

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

    // The paths.

    fn all_there(&mut self, count: u64) {
        for _ in 0..count {
            self.send(Wanted::default());
            if self.chance.one_in(3) {
                let at = self.chance.below(self.agencies.len() as u64) as usize;
                self.receive(at);
            }
        }
    }

    /// An agency is given what comes while it comes.
    fn followed(&mut self, count: u64) {
        let at = self.chance.below(self.agencies.len() as u64) as usize;
        let (state, name) = (self.agencies[at].state, self.agencies[at].name);
        let follows = self.forum.agency_named(state, name).follow();
        self.send_all(count, Wanted::default());
        self.settle();
        follows.signal(Signal::TERM);
        let (_, lines) = follows.wait();
        let said = lines.join("\n").into_bytes();
        self.keep(state, Some(name), Place::Given, format!("stream {} to receive --follow", self.heard.len()), said);
        for line in lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            self.given.insert((format!("{state}/{name}"), text_of(&line, "exchange_id")));
        }
        let log = self.forum.log(&format!("{state}-{name}"));
        let (file, said) = (log.display().to_string(), fs::read(&log).unwrap());
        self.keep(state, Some(name), Place::Plain, file, said);
    }

    fn away(&mut self, count: u64) {
        let away = self.anybody();
        self.forum.stop_node(away);
        self.send_all(count, Wanted { away: Some(away), ..Wanted::default() });
        self.start_node(away);
    }

    fn killed(&mut self, count: u64) {
        let dies = self.anybody();
        self.send_all(count, Wanted::default());
        self.forum.kill_node(dies);
        self.start_node(dies);
    }

    fn hub_killed(&mut self, count: u64) {
        self.send_all(count, Wanted::default());
        self.forum.kill_hub();
        // Queued, and nothing more.
        self.send(Wanted::default());
        self.start_hub();
    }

    fn restarted(&mut self, count: u64) {
        let who = self.anybody();
        self.forum.stop_hub();
        self.forum.stop_node(who);
        self.start_node(who);
        self.start_hub();
        self.send_all(count, Wanted::default());
    }

    /// What waits too long is not delivered.
    fn expired(&mut self, count: u64) {
        let away = self.anybody();
        self.forum.stop_node(away);
        let at = in_seconds(EXPIRES_SECONDS);
        let expires = Wanted { away: Some(away), to: Some(away), expires: Some(at), under: None };
        if let Some(secret) = self.send(expires) {
            let (by, id) = self.whose(secret);
            self.as_agency(by, words!["track", id, "--wait", "recorded"]).ok();
            // Those who are there get it in time.
            let others = self.pending.iter_mut().find(|pending| pending.secret == secret).unwrap();
            others.ends.insert(away, "withheld EXPIRED");
        }
        self.send_all(count - 1, Wanted { away: Some(away), ..Wanted::default() });
        // The clock is what is waited for.
        std::thread::sleep(at.duration_since(SystemTime::now()).unwrap_or_default());
        self.start_node(away);
    }

    /// What the hub refuses when it comes there.
    fn expired_before_the_hub(&mut self, _: u64) {
        self.forum.stop_hub();
        let at = in_seconds(4);
        let Some(secret) = self.send(Wanted { expires: Some(at), ..Wanted::default() }) else { return };
        std::thread::sleep(at.duration_since(SystemTime::now()).unwrap_or_default());
        self.start_hub();
        let pending = self.pending.pop().unwrap();
        let tracked = self.as_agency(pending.by, words!["track", &pending.id, "--wait", "delivered"]);
        if tracked.reason().as_deref() != Some("EXCHANGE_EXPIRED") {
            self.wrong.push(format!("it was over before the hub had it: {tracked}"));
        }
        self.secrets[secret].is_recorded = false;
        self.tally.recorded -= 1;
        self.tally.refused += 1;
    }

    fn held(&mut self, count: u64) {
        let held = self.anybody();
        let hub = self.forum.hub_dir().join("officer");
        self.heard_of(
            "hub",
            None,
            words!["participant", "hold", held, "--reason", "its node floods", "--profile", hub],
        )
        .ok();
        self.send_all(count, Wanted::default());
        if self.chance.one_in(2) {
            self.forum.stop_node(held);
            self.start_node(held);
        }
        self.questions(2);
        self.heard_of("hub", None, words!["participant", "release", held, "--profile", hub]).ok();
    }

    /// UZB is taken off the first agreement while something waits for it, and put on again later: what was between is not for it.
    fn amended(&mut self, count: u64) {
        self.officer("KAZ", words!["agreement", "amend", FOUR, "--remove-participant", "UZB"]).ok();
        ["IRN", "UZB"].iter().for_each(|code| self.consent(code, 2));
        self.forum.stop_node("UZB");
        let mut waits = Vec::new();
        for _ in 0..count.div_ceil(2) {
            waits.extend(self.send(Wanted { away: Some("UZB"), to: Some("UZB"), under: Some(FOUR), expires: None }));
        }
        for secret in &waits {
            let (by, id) = self.whose(*secret);
            self.as_agency(by, words!["track", id, "--wait", "recorded"]).ok();
        }
        self.consent("TUR", 2);
        ["KAZ", "IRN", "TUR"].iter().for_each(|code| self.await_version(code, 2));
        self.agreement(FOUR).members.remove("UZB");
        for pending in self.pending.iter_mut().filter(|pending| waits.contains(&pending.secret)) {
            pending.ends.insert("UZB", "withheld REMOVED");
        }
        self.start_node("UZB");
        self.send_all(count, Wanted { under: Some(FOUR), ..Wanted::default() });
        self.questions(2);
        self.settle();

        self.officer("TUR", words!["agreement", "amend", FOUR, "--add-participant", "UZB"]).ok();
        ["KAZ", "IRN", "UZB"].iter().for_each(|code| self.consent(code, 3));
        CODES.iter().for_each(|code| self.await_version(code, 3));
        self.agreement(FOUR).members.insert("UZB");
        self.send(Wanted { to: Some("UZB"), under: Some(FOUR), ..Wanted::default() });
    }

    fn left(&mut self, count: u64) {
        self.settle();
        self.officer("UZB", words!["agreement", "leave", THREE, "--yes"]).ok();
        self.agreement(THREE).members.remove("UZB");
        self.send_all(count, Wanted { under: Some(THREE), ..Wanted::default() });
    }

    /// An agency's right goes while things wait for it.
    fn taken_away(&mut self, count: u64) {
        self.send_all(count.div_ceil(2), Wanted { to: Some("IRN"), under: Some(FOUR), ..Wanted::default() });
        self.settle();
        let operator = self.forum.node_dir("IRN").join("operator");
        let revoke = words!["agency", "revoke", "police", "--receive", "--measure", DRUGS, "--yes", "--profile"];
        self.heard_of("IRN", None, [revoke, words![operator]].concat()).ok();
        let police = self.agencies.iter_mut().find(|agency| agency.name == "police").unwrap();
        police.receives = false;
        let told = |secret: &Secret| {
            let its = ("IRN/police".to_owned(), secret.words.get(&Kind::Id).cloned().unwrap_or_default());
            // What it submitted itself it goes on to know of.
            secret.origin == its.0 || self.given.contains(&its) || self.listed.contains(&its)
        };
        for secret in self.secrets.iter_mut().filter(|secret| !told(secret)) {
            secret.agencies.remove("IRN/police");
        }
        self.send_all(count, Wanted { to: Some("IRN"), under: Some(FOUR), ..Wanted::default() });
    }

    fn node_restored(&mut self, count: u64) {
        let who = self.anybody();
        let dir = self.forum.node_dir(who);
        let file = self.backup(who);
        self.send_all(count, Wanted::default());
        self.settle();
        self.forum.kill_node(who);
        self.heard_of(who, None, words!["node", "restore", file, "--dir", dir]).ok();
        self.start_node(who);
        let recovered = |this: &mut Self| {
            let shown = this.heard_of(who, None, words!["journal", "show", dir]).ok().lines();
            shown.iter().filter(|entry| entry["kind"] == "recovered").count() >= 3
        };
        self.ask_until(recovered);
        self.send(Wanted { to: Some(who), ..Wanted::default() });
    }

    fn hub_restored(&mut self, count: u64) {
        let file = self.backup("hub");
        self.send_all(count, Wanted::default());
        self.settle();
        // Behind it they go on at other ones.
        self.count_numbers();
        self.forum.kill_hub();
        let dir = self.forum.hub_dir();
        self.heard_of("hub", None, words!["hub", "restore", file, "--dir", dir]).ok();
        self.start_hub();
        self.send_all(2, Wanted::default());
    }

    fn start_hub(&mut self) {
        self.forum.start_hub_with(&BTreeMap::from(LOUD));
    }

    fn start_node(&mut self, code: &str) {
        self.forum.start_node_with(code, &BTreeMap::from(LOUD));
    }

    // Sending.

    fn send_all(&mut self, count: u64, wanted: Wanted) {
        for _ in 0..count {
            self.send(wanted);
        }
    }

    /// Hands in one exchange, as the seed has it within what is wanted; none where nobody is there who could.
    fn send(&mut self, wanted: Wanted) -> Option<usize> {
        let fits = |agreed: &&Agreed| {
            wanted.under.is_none_or(|id| agreed.id == id) && wanted.to.is_none_or(|to| agreed.members.contains(to))
        };
        let fitting: Vec<&Agreed> = self.agreements.iter().filter(fits).collect();
        let agreed = fitting[self.chance.below(fitting.len() as u64) as usize];
        let (agreement, measure, members) = (agreed.id, agreed.measure, agreed.members.clone());
        let origins = |agency: &&Agency| {
            let state = Some(agency.state);
            let sends = agency.measure.is_none_or(|code| code == measure);
            members.contains(agency.state) && sends && state != wanted.away && state != wanted.to
        };
        let origins: Vec<&Agency> = self.agencies.iter().filter(origins).collect();
        if origins.is_empty() {
            return None;
        }
        let origin = origins[self.chance.below(origins.len() as u64) as usize];
        let by = (origin.state, origin.name);
        let mut audience: BTreeSet<&'static str> = members.into_iter().filter(|code| *code != by.0).collect();

        let mut options = words!["--agreement", agreement, "--measure", measure];
        let lane = ["routine", "priority", "flash"][self.chance.below(3) as usize];
        options.extend(words!["--lane", lane]);
        let (mut handling, mut named) = ("AMBER", None);
        let by_name = self.agencies.iter().find(|agency| agency.receives && agency.measure == Some(measure));
        let by_name =
            by_name.filter(|agency| audience.contains(agency.state) && wanted.to.is_none_or(|to| to == agency.state));
        match (self.chance.below(6), by_name) {
            (0, Some(agency)) => {
                let name = format!("{}/{}", agency.state, agency.name);
                audience = BTreeSet::from([agency.state]);
                options.extend(words!["--handling", "RED", "--to-agency", name]);
                (handling, named) = ("RED", Some(name));
            }
            (1, _) => {
                options.extend(words!["--handling", "AMBER+STRICT"]);
                handling = "AMBER+STRICT";
            }
            (2 | 3, _) if audience.len() > 1 => {
                // Never nobody, and never all of them.
                let kept = wanted.to.unwrap_or_else(|| pick(&mut self.chance, &audience));
                let drops: BTreeSet<_> = audience.iter().copied().filter(|code| *code != kept).collect();
                let first = pick(&mut self.chance, &drops);
                audience.retain(|code| *code == kept || (*code != first && self.chance.one_in(2)));
                let to: Vec<&str> = audience.iter().copied().collect();
                options.extend(words!["--to", to.join(",")]);
                self.tally.narrowed += 1;
            }
            _ => {}
        }
        options.extend(wanted.expires.iter().flat_map(|at| words!["--expires", time(*at)]));
        let (secret, said) = self.submit(by, "", "", options);
        let id = text_of(&said.ok().json(), "exchange_id");
        self.secrets[secret].words.insert(Kind::Id, id.clone());
        self.secrets[secret].is_recorded = true;
        self.tally.recorded += 1;
        let ends = audience.into_iter().map(|code| (code, "delivered")).collect();
        self.pending.push(Pending { secret, id, by, ends, lane, measure, handling, named });
        Some(secret)
    }

    /// Submits secrets of their own, behind which more of the body and the caveat follows; nobody but the origin may know them yet.
    fn submit(
        &mut self,
        by: (&'static str, &'static str),
        more_body: &str,
        more_caveat: &str,
        options: Vec<OsString>,
    ) -> (usize, Ended) {
        self.files_written += 1;
        let number = self.files_written;
        let chance = &mut self.chance;
        let mut word = |kind: Kind| {
            let letter = format!("{kind:?}").to_lowercase();
            (kind, format!("Qz{}{:016x}{number:05}", &letter[..1], chance.any()))
        };
        let words: BTreeMap<Kind, String> = Kind::CONTENT.map(&mut word).into();
        let path = self.forum.path().join("outgoing").join(format!("{number}.txt"));
        fs::write(&path, format!("{} {more_body}", words[&Kind::Body])).unwrap();
        let mut line = words!["submit", path, "--title", words[&Kind::Title]];
        line.extend(words!["--caveat", format!("{} {more_caveat}", words[&Kind::Caveat])]);
        line.extend(options);
        self.secrets.push(Secret {
            words,
            origin: format!("{}/{}", by.0, by.1),
            states: BTreeSet::from([by.0.to_owned()]),
            agencies: BTreeSet::from([format!("{}/{}", by.0, by.1)]),
            is_recorded: false,
        });
        let ended = self.as_agency(by, line);
        (self.secrets.len() - 1, ended)
    }

    /// Submissions that their node refuses: what was in them is in no error and no log.
    fn refusals(&mut self) {
        let by = (self.anybody(), "agency");
        let four = ["--agreement", FOUR, "--measure", DRUGS];
        let long = "x".repeat(70_000);
        let past = time(in_seconds(0));
        let (more_body, more_caveat, options): (&str, &str, Vec<&str>) = match self.chance.below(8) {
            0 => ("", "", vec!["--agreement", FOUR, "--measure", "challenges.999"]),
            1 => ("", "", vec!["--agreement", "KAZ/nowhere"]),
            2 => ("", "", [&four[..], &["--to", "AZE"]].concat()),
            3 => ("", "", [&four[..], &["--handling", "RED"]].concat()),
            4 => ("", "", [&four[..], &["--expires", &past]].concat()),
            5 => (&long, "", [&four[..], &["--lane", "flash"]].concat()),
            6 => ("", &long, four.to_vec()),
            _ => ("", "", vec!["--agreement", FOUR, "--measure", CYBER]),
        };
        let (_, said) = self.submit(by, more_body, more_caveat, options.iter().map(OsString::from).collect());
        if !matches!(said.code, Some(2 | 3)) {
            self.wrong.push(format!("not refused: {said}"));
        }
        self.tally.refused += 1;
    }

    /// Follows all that is under way to its end, which has to be what was agreed.
    fn settle(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            let Pending { secret, id, by, ends, lane, measure, handling, named } = pending;
            let timeout = DEADLINE.as_secs().to_string();
            let said = self.as_agency(by, words!["track", &id, "--wait", "delivered", "--timeout", timeout]);
            let tracked = said.ok().json();
            let came: BTreeMap<String, String> = tracked["recipients"].as_array().unwrap().iter().map(end_of).collect();
            let agreed: BTreeMap<String, String> =
                ends.iter().map(|(code, end)| ((*code).to_owned(), (*end).to_owned())).collect();
            if came != agreed {
                self.wrong.push(format!("exchange {secret} {id} of {by:?}: agreed is {agreed:?}, it came to {came:?}"));
            }
            for (state, end) in ends {
                *self.numbers.entry((state, lane)).or_default() += 1;
                if end != "delivered" {
                    self.tally.withheld += 1;
                    continue;
                }
                let may = |agency: &&Agency| {
                    agency.state == state
                        && agency.receives
                        && agency.measure.is_none_or(|code| code == measure)
                        && (handling != "AMBER+STRICT" || agency.measure.is_some())
                        && named.as_ref().is_none_or(|name| *name == format!("{state}/{}", agency.name))
                };
                let agencies = self.agencies.iter().filter(may).map(|agency| format!("{state}/{}", agency.name));
                let known = &mut self.secrets[secret];
                known.agencies.extend(agencies);
                known.states.insert(state.to_owned());
            }
        }
    }

    /// Mailboxes are numbered without gaps: a number more than exchanges for it would tell of one that is for others.
    fn count_numbers(&mut self) {
        for code in CODES {
            let dir = self.forum.node_dir(code);
            let through = |this: &mut Self, lane: &str| {
                let operator = words!["status", "--profile", dir.join("operator")];
                let status = this.heard_of(code, None, operator).ok().json();
                let lanes = status["mailboxes"].as_array().unwrap();
                let of_lane = lanes.iter().find(|one| one["lane"] == lane);
                of_lane.map_or(0, |one| one["received_through"].as_u64().unwrap())
            };
            for lane in ["routine", "priority", "flash"] {
                let taken = self.numbers.get(&(code, lane)).copied().unwrap_or_default();
                // The sender may hear before the recipient that something is withheld.
                self.ask_until(|this| through(this, lane) >= taken);
                let has = through(self, lane);
                if has != taken {
                    self.wrong
                        .push(format!("{code} has {has} numbers of lane {lane}, and {taken} exchanges were for it"));
                }
                self.tally.numbers += has;
            }
        }
    }

    fn whose(&self, secret: usize) -> ((&'static str, &'static str), String) {
        let pending = self.pending.iter().find(|pending| pending.secret == secret).unwrap();
        (pending.by, pending.id.clone())
    }

    // Asking.

    /// An agency takes what waits for it.
    fn receive(&mut self, at: usize) {
        let (state, name) = (self.agencies[at].state, self.agencies[at].name);
        let out = self.forum.agency_named(state, name).received;
        let said = self.as_agency((state, name), words!["receive", "--out", out]);
        for line in said.ok().lines() {
            self.given.insert((format!("{state}/{name}"), text_of(&line, "exchange_id")));
        }
    }

    /// Anybody asks about anything, also of what is none of its business.
    fn questions(&mut self, count: u64) {
        for _ in 0..count {
            self.tally.questions += 1;
            let code = self.anybody();
            let at = self.chance.below(self.agencies.len() as u64) as usize;
            let by = (self.agencies[at].state, self.agencies[at].name);
            let agreement = [FOUR, TWO, THREE][self.chance.below(3) as usize];
            let dir = self.forum.node_dir(code);
            match self.chance.below(9) {
                0 => drop(self.officer(code, words!["agreement", "history", agreement])),
                1 => drop(self.as_agency(by, words!["agreement", "preview", agreement])),
                2 => drop(self.officer(code, words!["participant", "list"])),
                3 => drop(self.as_agency(by, words!["agreement", "list"])),
                4 => {
                    let listed = self.as_agency(by, words!["receive"]).ok().lines();
                    let name = format!("{}/{}", by.0, by.1);
                    self.listed.extend(listed.iter().map(|line| (name.clone(), text_of(line, "exchange_id"))));
                }
                5 => drop(self.heard_of(code, None, words!["journal", "show", dir])),
                6 => self.look_at(code, &dir),
                7 => self.look_at("hub", &self.forum.hub_dir()),
                _ => drop(self.as_agency(by, words!["status"])),
            }
            // By its beginning: an answer may not hold more than was asked with.
            let ids: Vec<&String> = self.secrets.iter().filter_map(|secret| secret.words.get(&Kind::Id)).collect();
            if !ids.is_empty() {
                let begins = ids[self.chance.below(ids.len() as u64) as usize][..16].to_owned();
                self.as_agency(by, words!["track", &begins]);
                self.as_agency(by, words!["explain", begins, "--participant", code]);
            }
        }
    }

    /// What an operator and a monitoring tool see.
    fn look_at(&mut self, owner: &str, dir: &Path) {
        let operator = dir.join("operator");
        self.heard_of(owner, None, words!["status", "--profile", operator]).ok();
        self.heard_of(owner, None, words!["audit", "--limit", "0", "--profile", operator]).ok();
        let admin = self.forum.address(dir, "admin");
        for path in ["/metrics", "/readyz", "/healthz"] {
            let page = get(&admin, path).body;
            self.keep(owner, None, Place::Plain, path.to_owned(), page.into_bytes());
        }
    }

    fn backup(&mut self, owner: &str) -> PathBuf {
        self.files_written += 1;
        let (kind, dir) =
            if owner == "hub" { ("hub", self.forum.hub_dir()) } else { ("node", self.forum.node_dir(owner)) };
        let file = self.forum.path().join(format!("{owner}-{}.backup", self.files_written));
        self.heard_of(owner, None, words![kind, "backup", "--profile", dir.join("officer"), "--out", file]).ok();
        self.keep(owner, None, Place::Journal, file.display().to_string(), fs::read(&file).unwrap());
        file
    }

    fn officer(&mut self, code: &str, mut line: Vec<OsString>) -> Ended {
        line.extend(words!["--profile", self.forum.officer(code)]);
        self.heard_of(code, None, line)
    }

    fn as_agency(&mut self, (state, name): (&'static str, &'static str), mut line: Vec<OsString>) -> Ended {
        line.extend(words!["--profile", self.forum.agency_named(state, name).profile]);
        self.heard_of(state, Some(name), line)
    }

    fn heard_of(&mut self, owner: &str, agency: Option<&str>, line: Vec<OsString>) -> Ended {
        let place = if line[0] == "receive" { Place::Given } else { Place::Plain };
        let ended = concord(&line);
        let said = [ended.stdout.as_slice(), ended.stderr.as_bytes()].concat();
        // By the command alone: its arguments are the history's own, secrets among them.
        let name = format!("answer {} to {}", self.heard.len(), line[0].to_string_lossy());
        self.keep(owner, agency, place, name, said);
        ended
    }

    fn keep(&mut self, owner: &str, agency: Option<&str>, place: Place, name: String, bytes: Vec<u8>) {
        self.heard.push(Got { owner: owner.to_owned(), agency: agency.map(ToOwned::to_owned), place, name, bytes });
    }

    fn anybody(&mut self) -> &'static str {
        CODES[self.chance.below(CODES.len() as u64) as usize]
    }

    fn agreement(&mut self, id: &str) -> &mut Agreed {
        self.agreements.iter_mut().find(|agreed| agreed.id == id).unwrap()
    }

    /// Consents to the version that waits, as soon as its node knows of it.
    fn consent(&mut self, code: &str, version: u64) {
        self.ask_until(|this| {
            let shown = this.officer(code, words!["agreement", "show", FOUR]);
            shown.code == Some(0) && {
                let shown = shown.json();
                shown["version"] == version || shown["amendment"]["version"] == version
            }
        });
        self.officer(code, words!["agreement", "consent", FOUR]).ok();
    }

    fn await_version(&mut self, code: &str, version: u64) {
        self.ask_until(|this| {
            let shown = this.officer(code, words!["agreement", "show", FOUR]).ok().json();
            shown["version"] == version && shown["state"] == "in-force"
        });
    }

    /// Nothing calls a command that asks: it is asked again.
    fn ask_until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < DEADLINE, "it does not come");
        }
    }

    // The end.

    /// Everybody takes what is there and looks at everything once more, all ends, and everything that anybody got is searched.
    pub(crate) fn search(&mut self) -> Searched {
        (0..self.agencies.len()).for_each(|at| self.receive(at));
        self.questions(CODES.len() as u64);
        for code in CODES {
            let dir = self.forum.node_dir(code);
            self.look_at(code, &dir);
            self.heard_of(code, None, words!["journal", "show", dir]).ok();
            self.heard_of(code, None, words!["verify", dir]);
            self.backup(code);
        }
        let hub = self.forum.hub_dir();
        self.look_at("hub", &hub);
        self.heard_of("hub", None, words!["journal", "show", hub]).ok();
        self.backup("hub");
        CODES.iter().for_each(|code| self.forum.stop_node(code));
        self.forum.stop_hub();

        let finder = Finder::of(&self.secrets);
        let mut searched = Searched::default();
        self.heard.iter().for_each(|got| finder.search(got, &mut searched));
        let mut below = |owner: &str, agency: Option<&str>, place: Option<Place>, folder: &Path| {
            files(folder, &mut |path, bytes| {
                let place = place.unwrap_or_else(|| place_of(path.strip_prefix(folder).unwrap()));
                let (owner, agency) = (owner.to_owned(), agency.map(ToOwned::to_owned));
                let got = Got { owner, agency, place, name: path.display().to_string(), bytes };
                finder.search(&got, &mut searched);
            });
        };
        for (owner, dir) in
            CODES.iter().map(|code| (*code, self.forum.node_dir(code))).chain([("hub", self.forum.hub_dir())])
        {
            below(owner, None, None, &dir);
        }
        for agency in &self.agencies {
            let received = self.forum.agency_named(agency.state, agency.name).received;
            if received.exists() {
                below(agency.state, Some(agency.name), Some(Place::Given), &received);
            }
        }
        for owner in CODES.into_iter().chain(["hub"]) {
            let log = self.forum.log(owner);
            let (bytes, name) = (fs::read(&log).unwrap(), log.display().to_string());
            let got = Got { owner: owner.to_owned(), agency: None, place: Place::Plain, name, bytes };
            finder.search(&got, &mut searched);
        }
        self.wrong.extend(self.missing(&searched));
        searched
    }

    /// What the search did not find where it has to be: a search that finds nothing anywhere shows nothing.
    fn missing(&self, searched: &Searched) -> Vec<String> {
        let mut missing = Vec::new();
        let recorded = self.secrets.iter().enumerate().filter(|(_, secret)| secret.is_recorded);
        for (at, secret) in recorded {
            for owner in secret.states.iter().map(String::as_str).chain(["hub"]) {
                for kind in Kind::CONTENT.into_iter().filter(|kind| !searched.is_in_journal(at, *kind, owner)) {
                    missing.push(format!("{kind:?} of exchange {at} is not in the journal of {owner}"));
                }
            }
            for agency in secret.agencies.iter().filter(|agency| **agency != secret.origin) {
                let (state, its) =
                    (agency.split('/').next().unwrap(), (agency.clone(), secret.words[&Kind::Id].clone()));
                // It saw it listed, and then had the right to it no more.
                let is_over = agency == "IRN/police" && self.is_revoked() && self.listed.contains(&its);
                let is_given = self.given.contains(&its) || is_over;
                let is_found =
                    Kind::CONTENT.iter().chain([&Kind::Id]).all(|kind| is_over || searched.is_given(at, *kind, state));
                if !is_given || !is_found {
                    missing.push(format!("exchange {at} was not given to {agency}: {is_given} {is_found}"));
                }
            }
        }
        missing
    }

    fn is_revoked(&self) -> bool {
        self.agencies.iter().any(|agency| agency.name == "police" && !agency.receives)
    }

    pub(crate) fn secrets(&self) -> usize {
        self.secrets.iter().map(|secret| secret.words.len()).sum()
    }
}

/// What stands in a server's folder: content in its journals only.
fn place_of(within: &Path) -> Place {
    let first = within.iter().next().unwrap().to_string_lossy();
    if first.starts_with("journal") || first.starts_with("before-restore") { Place::Journal } else { Place::Plain }
}

/// A recipient and what became of it; whether its agency has taken it yet is chance.
fn end_of(recipient: &Value) -> (String, String) {
    let word = |field: &str| recipient[field].as_str().unwrap_or_default().to_owned();
    let end = format!("{} {}", word("state").replace("taken", "delivered"), word("reason"));
    (word("participant"), end.trim_end().to_owned())
}

fn pick(chance: &mut Chance, among: &BTreeSet<&'static str>) -> &'static str {
    among.iter().nth(chance.below(among.len() as u64) as usize).unwrap()
}

fn in_seconds(seconds: u64) -> SystemTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    UNIX_EPOCH + Duration::from_secs(now + seconds)
}

fn time(at: SystemTime) -> String {
    prost_types::Timestamp::from(at).to_string()
}
