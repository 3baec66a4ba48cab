//! The end: everything that anybody got is searched, and what has to be found is looked for.

use std::fs;
use std::path::Path;

use concord_tests::words;

use super::{CODES, History};
use crate::canaries_search::{Finder, Got, Kind, Place, Searched, files};

impl History {
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
        let recorded = self.secrets.iter().enumerate().filter(|(_, secret)| secret.is_recorded && !secret.is_withdrawn);
        for (at, secret) in recorded {
            for owner in secret.states.iter().map(String::as_str).chain(["hub"]) {
                let has = |kind: &Kind| secret.words.contains_key(kind);
                for kind in
                    Kind::CONTENT.into_iter().filter(has).filter(|kind| !searched.is_in_journal(at, *kind, owner))
                {
                    missing.push(format!("{kind:?} of exchange {at} is not in the journal of {owner}"));
                }
            }
            for agency in secret.agencies.iter().filter(|agency| **agency != secret.origin) {
                let (state, its) =
                    (agency.split('/').next().unwrap(), (agency.clone(), secret.words[&Kind::Id].clone()));
                // It saw it listed, and then had the right to it no more.
                let is_over = agency == "IRN/police" && self.is_revoked() && self.listed.contains(&its);
                let is_given = self.given.contains(&its) || is_over;
                let is_found = secret.words.keys().all(|kind| is_over || searched.is_given(at, *kind, state));
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
