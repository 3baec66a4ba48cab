//! Who may have what, in the design's words and without the crate's functions.
//!
//! It keeps what happened, not positions: a piece of mail is *alive* until its recipient leaves, or the agreement ends.

use std::collections::{BTreeMap, BTreeSet};

/// A participant, by its place in the pool.
pub(crate) type Who = usize;
pub(crate) type Crowd = BTreeSet<Who>;

#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// The versions of each agreement, the first first.
    pub(crate) agreements: BTreeMap<String, Vec<Version>>,
    pub(crate) mail: Vec<Letter>,
}

#[derive(Debug, Default)]
pub(crate) struct Version {
    pub(crate) named: Crowd,
    pub(crate) measures: BTreeSet<usize>,
    consented: Crowd,
    left: Crowd,
    /// Those who left while the others went on.
    gone: Crowd,
    declined: bool,
}

/// One delivery that was recorded.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) to: Who,
    pub(crate) recorded: u64,
    pub(crate) id: String,
    pub(crate) version: usize,
    alive: bool,
}

impl Letter {
    pub(crate) fn may_be_sent(&self) -> bool {
        self.alive
    }
}

impl Version {
    fn was_in_force(&self) -> bool {
        !self.declined && self.consented == self.named
    }

    fn members(&self) -> Crowd {
        let rest: Crowd = self.named.difference(&self.left).copied().collect();
        if self.was_in_force() && rest.len() >= 2 { rest } else { Crowd::new() }
    }

    fn waits(&self) -> bool {
        !self.declined && self.consented != self.named
    }
}

impl Reference {
    fn last(&mut self, id: &str) -> Option<&mut Version> {
        self.agreements.get_mut(id)?.last_mut()
    }

    /// Whether it is accepted; if so it has happened. The same for the others.
    pub(crate) fn propose(&mut self, by: Who, id: &str, named: Crowd, measures: BTreeSet<usize>) -> bool {
        let taken = self.last(id).is_some_and(|last| last.waits() || !last.members().is_empty());
        // What became of it since is no matter of theirs.
        let gone = self.last(id).is_some_and(|last| last.gone.contains(&by));
        if taken || gone || !named.contains(&by) || named.len() < 2 || measures.is_empty() {
            return false;
        }
        self.agreements.entry(id.to_owned()).or_default().push(Version {
            named,
            measures,
            consented: Crowd::from([by]),
            ..Version::default()
        });
        true
    }

    pub(crate) fn consent(&mut self, by: Who, id: &str, version: usize) -> bool {
        let Some(last) = self.last_if(id, version) else {
            return false;
        };
        if !last.named.contains(&by) {
            return false;
        }
        if last.waits() {
            last.consented.insert(by);
            return true;
        }
        // Said before, and still true.
        last.members().contains(&by)
    }

    pub(crate) fn decline(&mut self, by: Who, id: &str, version: usize) -> bool {
        let Some(last) = self.last_if(id, version) else {
            return false;
        };
        let may = last.named.contains(&by) && last.waits();
        last.declined |= may;
        may
    }

    pub(crate) fn leave(&mut self, by: Who, id: &str) -> bool {
        let Some(last) = self.last(id) else {
            return false;
        };
        if !last.members().contains(&by) {
            return false;
        }
        last.left.insert(by);
        let ended = last.members().is_empty();
        if !ended {
            last.gone.insert(by);
        }
        for letter in self.mail.iter_mut().filter(|letter| letter.id == id) {
            if ended || letter.to == by {
                letter.alive = false;
            }
        }
        true
    }

    /// Who has a right to an exchange of this origin under this version now.
    pub(crate) fn right(
        &self,
        origin: Who,
        id: &str,
        version: usize,
        measure: usize,
        narrowing: Option<&Crowd>,
    ) -> Crowd {
        let Some(versions) = self.agreements.get(id) else {
            return Crowd::new();
        };
        let (Some(named), Some(last)) = (versions.get(version), versions.last()) else {
            return Crowd::new();
        };
        let members = last.members();
        let may_send = members.contains(&origin) && named.named.contains(&origin) && named.was_in_force();
        let covered = named.measures.contains(&measure) && last.measures.contains(&measure);
        let well_narrowed = narrowing.is_none_or(|to| to.is_subset(&named.named));
        if !may_send || !covered || !well_narrowed {
            return Crowd::new();
        }
        let wanted = |who: &Who| narrowing.is_none_or(|to| to.contains(who));
        members.into_iter().filter(|who| named.named.contains(who) && wanted(who) && *who != origin).collect()
    }

    pub(crate) fn record(&mut self, to: Who, recorded: u64, id: &str, version: usize) {
        self.mail.push(Letter { to, recorded, id: id.to_owned(), version, alive: true });
    }

    fn last_if(&mut self, id: &str, version: usize) -> Option<&mut Version> {
        let versions = self.agreements.get_mut(id)?;
        if version.checked_add(1) != Some(versions.len()) {
            return None;
        }
        versions.last_mut()
    }
}
