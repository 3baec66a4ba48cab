//! Handing in, and following what was handed in to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::time::SystemTime;

use concord_tests::battery::Chance;
use concord_tests::{DEADLINE, Ended, text_of, words};
use serde_json::Value;

use super::{Agency, Agreed, CODES, CYBER, DRUGS, FOUR, History, Pending, Wanted, in_seconds};
use crate::canaries_search::{Kind, Secret};

impl History {
    pub(super) fn send_all(&mut self, count: u64, wanted: Wanted) {
        for _ in 0..count {
            self.send(wanted);
        }
    }

    /// Hands in one exchange, as the seed has it within what is wanted; none where nobody is there who could.
    pub(super) fn send(&mut self, wanted: Wanted) -> Option<usize> {
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
            is_withdrawn: false,
        });
        let ended = self.as_agency(by, line);
        (self.secrets.len() - 1, ended)
    }

    /// Takes back what is under way.
    pub(super) fn withdraw(&mut self, at: usize) {
        let taken = self.pending[at].clone();
        let word = format!("Qzr{:016x}", self.chance.any());
        let line = words!["withdraw", &taken.id, "--reason", &word, "--yes"];
        let id = text_of(&self.as_agency(taken.by, line).ok().json(), "exchange_id");
        let lane = if taken.lane == "flash" { "flash" } else { "priority" };
        let origin = format!("{}/{}", taken.by.0, taken.by.1);
        self.secrets.push(Secret {
            words: BTreeMap::from([(Kind::Title, word), (Kind::Id, id.clone()), (Kind::Before, taken.id.clone())]),
            states: BTreeSet::from([taken.by.0.to_owned()]),
            agencies: BTreeSet::from([origin.clone()]),
            origin,
            is_recorded: true,
            is_withdrawn: false,
        });
        self.is_taken_back(taken.secret);
        let secret = self.secrets.len() - 1;
        let ends = taken.ends.keys().map(|code| (*code, "delivered")).collect();
        self.pending.push(Pending { secret, id, ends, lane, ..taken });
    }

    fn is_taken_back(&mut self, secret: usize) {
        let taken = &mut self.secrets[secret];
        taken.words.remove(&Kind::Id);
        taken.is_withdrawn = true;
        self.tally.withdrawn += 1;
    }

    /// Hands in what takes the place of another, for all to whom that went.
    pub(super) fn supersede(&mut self, before: &Pending) {
        let Pending { id, by, ends, lane, measure, .. } = before.clone();
        let agreed = self.agreements.iter().find(|agreed| agreed.measure == measure).unwrap();
        let options = words!["--agreement", agreed.id, "--measure", measure, "--lane", lane, "--supersedes", &id];
        let (secret, said) = self.submit(by, "", "", options);
        let new = text_of(&said.ok().json(), "exchange_id");
        self.is_taken_back(before.secret);
        self.secrets[secret].words.extend([(Kind::Id, new.clone()), (Kind::Before, id)]);
        self.secrets[secret].is_recorded = true;
        self.tally.recorded += 1;
        // Behind what took its place the withdrawal went to those who had it.
        for code in ends.keys() {
            *self.numbers.entry((code, lane)).or_default() += 1;
        }
        self.pending.push(Pending { secret, id: new, ..before.clone() });
    }

    /// Submissions that their node refuses: what was in them is in no error and no log.
    pub(super) fn refusals(&mut self) {
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
    pub(super) fn settle(&mut self) {
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
    pub(super) fn count_numbers(&mut self) {
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

    pub(super) fn whose(&self, secret: usize) -> ((&'static str, &'static str), String) {
        let pending = self.pending.iter().find(|pending| pending.secret == secret).unwrap();
        (pending.by, pending.id.clone())
    }
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

fn time(at: SystemTime) -> String {
    prost_types::Timestamp::from(at).to_string()
}
