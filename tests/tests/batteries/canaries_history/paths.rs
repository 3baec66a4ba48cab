//! The paths on which an exchange can go, and what becomes of it on each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::SystemTime;

use concord_tests::{text_of, words};
use rustix::process::Signal;
use serde_json::Value;

use super::{CODES, DRUGS, FOUR, History, LOUD, Pending, THREE, Wanted, in_seconds};
use crate::canaries_search::{Kind, Place, Secret};

/// Time enough for it to be recorded, on a busy machine.
const EXPIRES_SECONDS: u64 = 8;

impl History {
    pub(super) fn all_there(&mut self, count: u64) {
        for _ in 0..count {
            self.send(Wanted::default());
            if self.chance.one_in(3) {
                let at = self.chance.below(self.agencies.len() as u64) as usize;
                self.receive(at);
            }
        }
    }

    /// An agency is given what comes while it comes.
    pub(super) fn followed(&mut self, count: u64) {
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

    pub(super) fn away(&mut self, count: u64) {
        let away = self.anybody();
        self.forum.stop_node(away);
        self.send_all(count, Wanted { away: Some(away), ..Wanted::default() });
        self.start_node(away);
    }

    pub(super) fn killed(&mut self, count: u64) {
        let dies = self.anybody();
        self.send_all(count, Wanted::default());
        self.forum.kill_node(dies);
        self.start_node(dies);
    }

    pub(super) fn hub_killed(&mut self, count: u64) {
        self.send_all(count, Wanted::default());
        self.forum.kill_hub();
        // Queued, and nothing more.
        self.send(Wanted::default());
        self.start_hub();
    }

    pub(super) fn restarted(&mut self, count: u64) {
        let who = self.anybody();
        self.forum.stop_hub();
        self.forum.stop_node(who);
        self.start_node(who);
        self.start_hub();
        self.send_all(count, Wanted::default());
    }

    /// What waits too long is not delivered.
    pub(super) fn expired(&mut self, count: u64) {
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
    pub(super) fn expired_before_the_hub(&mut self, _: u64) {
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

    pub(super) fn held(&mut self, count: u64) {
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
    pub(super) fn amended(&mut self, count: u64) {
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

    pub(super) fn left(&mut self, count: u64) {
        self.settle();
        self.officer("UZB", words!["agreement", "leave", THREE, "--yes"]).ok();
        self.agreement(THREE).members.remove("UZB");
        self.send_all(count, Wanted { under: Some(THREE), ..Wanted::default() });
    }

    /// An agency's right goes while things wait for it.
    pub(super) fn taken_away(&mut self, count: u64) {
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

    /// Some of it is taken back when all but one have it. The reason is content, and that it was taken back a secret like what it is of.
    pub(super) fn withdrawn(&mut self, count: u64) {
        let away = self.anybody();
        self.forum.stop_node(away);
        self.send_all(count, Wanted { away: Some(away), ..Wanted::default() });
        for at in 0..self.pending.len().min(2) {
            let there = |pending: &Pending| pending.ends.keys().copied().filter(|code| *code != away).collect();
            let (id, there): (_, BTreeSet<&str>) = (self.pending[at].id.clone(), there(&self.pending[at]));
            self.await_there(self.pending[at].by, &id, &there);
            self.withdraw(at);
            if let Some(end) = self.pending[at].ends.get_mut(away) {
                *end = "withheld WITHDRAWN";
            }
        }
        self.start_node(away);
    }

    /// Something takes the place of what all have.
    pub(super) fn superseded(&mut self, count: u64) {
        self.settle();
        self.send_all(count, Wanted::default());
        let is_for_all = |pending: &&Pending| {
            let agreed = self.agreements.iter().find(|agreed| agreed.measure == pending.measure).unwrap();
            pending.handling == "AMBER" && pending.ends.len() + 1 == agreed.members.len()
        };
        let Some(before) = self.pending.iter().find(is_for_all).cloned() else { return };
        self.await_there(before.by, &before.id, &before.ends.keys().copied().collect());
        self.supersede(&before);
    }

    /// Waits until these have it.
    fn await_there(&mut self, by: (&'static str, &'static str), id: &str, states: &BTreeSet<&'static str>) {
        self.ask_until(|this| {
            let tracked = this.as_agency(by, words!["track", id]).ok().json();
            let recipients = tracked["recipients"].as_array().unwrap();
            let came = recipients.iter().filter(|one| matches!(one["state"].as_str(), Some("delivered" | "taken")));
            let came: BTreeSet<&str> = came.filter_map(|one| one["participant"].as_str()).collect();
            states.is_subset(&came)
        });
    }

    pub(super) fn node_restored(&mut self, count: u64) {
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
        // Nobody has anything before; what waited comes then.
        self.officer(who, words!["agency", "confirm", "--all"]).ok();
        self.send(Wanted { to: Some(who), ..Wanted::default() });
    }

    pub(super) fn hub_restored(&mut self, count: u64) {
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
}
