//! Who asks what, and keeping everything that was heard.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use concord_tests::{DEADLINE, Ended, concord, get, text_of, words};

use super::{Agreed, CODES, FOUR, History, THREE, TWO};
use crate::canaries_search::{Got, Kind, Place};

impl History {
    /// An agency takes what waits for it.
    pub(super) fn receive(&mut self, at: usize) {
        let (state, name) = (self.agencies[at].state, self.agencies[at].name);
        let out = self.forum.agency_named(state, name).received;
        let said = self.as_agency((state, name), words!["receive", "--out", out]);
        for line in said.ok().lines() {
            self.given.insert((format!("{state}/{name}"), text_of(&line, "exchange_id")));
        }
    }

    /// Anybody asks about anything, also of what is none of its business.
    pub(super) fn questions(&mut self, count: u64) {
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
            let ids_whole: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
            if !ids.is_empty() {
                let begins = ids[self.chance.below(ids.len() as u64) as usize][..16].to_owned();
                self.as_agency(by, words!["track", &begins]);
                let told = self.as_agency(by, words!["explain", &begins, "--participant", code]);
                if told.code == Some(0) {
                    // Like one that was listed: it heard of it while it had the right to it, which may go later.
                    self.listed.insert((format!("{}/{}", by.0, by.1), text_of(&told.json(), "exchange_id")));
                }
                let told = self.as_agency(by, words!["why", &begins]);
                if told.code == Some(0) {
                    self.listed.insert((format!("{}/{}", by.0, by.1), text_of(&told.json(), "exchange_id")));
                }
                // The secretariat is told of the way of each, and of no content.
                let whole = ids_whole[self.chance.below(ids_whole.len() as u64) as usize].clone();
                let secretariat = self.forum.hub_dir().join("officer");
                let line = words!["explain", whole, "--participant", code, "--profile", secretariat];
                self.heard_of("hub", None, line);
            }
        }
    }

    /// What an operator and a monitoring tool see.
    pub(super) fn look_at(&mut self, owner: &str, dir: &Path) {
        let operator = dir.join("operator");
        self.heard_of(owner, None, words!["status", "--profile", operator]).ok();
        self.heard_of(owner, None, words!["audit", "--limit", "0", "--profile", operator]).ok();
        let admin = self.forum.address(dir, "admin");
        for path in ["/metrics", "/readyz", "/healthz"] {
            let page = get(&admin, path).body;
            self.keep(owner, None, Place::Plain, path.to_owned(), page.into_bytes());
        }
    }

    pub(super) fn backup(&mut self, owner: &str) -> PathBuf {
        self.files_written += 1;
        let (kind, dir) =
            if owner == "hub" { ("hub", self.forum.hub_dir()) } else { ("node", self.forum.node_dir(owner)) };
        let file = self.forum.path().join(format!("{owner}-{}.backup", self.files_written));
        self.heard_of(owner, None, words![kind, "backup", "--profile", dir.join("officer"), "--out", file]).ok();
        self.keep(owner, None, Place::Journal, file.display().to_string(), fs::read(&file).unwrap());
        file
    }

    pub(super) fn officer(&mut self, code: &str, mut line: Vec<OsString>) -> Ended {
        line.extend(words!["--profile", self.forum.officer(code)]);
        self.heard_of(code, None, line)
    }

    pub(super) fn as_agency(&mut self, (state, name): (&'static str, &'static str), mut line: Vec<OsString>) -> Ended {
        line.extend(words!["--profile", self.forum.agency_named(state, name).profile]);
        self.heard_of(state, Some(name), line)
    }

    pub(super) fn heard_of(&mut self, owner: &str, agency: Option<&str>, line: Vec<OsString>) -> Ended {
        let place = if line[0] == "receive" { Place::Given } else { Place::Plain };
        let ended = concord(&line);
        let said = [ended.stdout.as_slice(), ended.stderr.as_bytes()].concat();
        // By the command alone: its arguments are the history's own, secrets among them.
        let name = format!("answer {} to {}", self.heard.len(), line[0].to_string_lossy());
        self.keep(owner, agency, place, name, said);
        ended
    }

    pub(super) fn keep(&mut self, owner: &str, agency: Option<&str>, place: Place, name: String, bytes: Vec<u8>) {
        self.heard.push(Got { owner: owner.to_owned(), agency: agency.map(ToOwned::to_owned), place, name, bytes });
    }

    pub(super) fn anybody(&mut self) -> &'static str {
        CODES[self.chance.below(CODES.len() as u64) as usize]
    }

    pub(super) fn agreement(&mut self, id: &str) -> &mut Agreed {
        self.agreements.iter_mut().find(|agreed| agreed.id == id).unwrap()
    }

    /// Consents to the version that waits, as soon as its node knows of it.
    pub(super) fn consent(&mut self, code: &str, version: u64) {
        self.ask_until(|this| {
            let shown = this.officer(code, words!["agreement", "show", FOUR]);
            shown.code == Some(0) && {
                let shown = shown.json();
                shown["version"] == version || shown["amendment"]["version"] == version
            }
        });
        self.officer(code, words!["agreement", "consent", FOUR]).ok();
    }

    pub(super) fn await_version(&mut self, code: &str, version: u64) {
        self.ask_until(|this| {
            let shown = this.officer(code, words!["agreement", "show", FOUR]).ok().json();
            shown["version"] == version && shown["state"] == "in-force"
        });
    }

    /// Nothing calls a command that asks: it is asked again.
    pub(super) fn ask_until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < DEADLINE, "it does not come");
        }
    }
}
