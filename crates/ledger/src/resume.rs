//! Numbers that go on after data was lost.
//!
//! Invariant: a number that a peer was ever given under one meaning is never given to it again under another. So where a peer knows
//! numbers that this hub forgot, the thing spoken of goes on after the greater of both, and what the peer may lack is numbered anew
//! behind that. The numbers between mean nothing any more: a *hole*.

use std::sync::Arc;

use concord_model::{Digest, Reason, Refusal};
use serde::{Deserialize, Serialize};

/// Resumptions that are kept of one feed or mailbox, so that positions from before them are still placed.
pub const RESUMES_KEPT_MAX: usize = 64;
/// How far after what is known here a peer's number may lie.
const AHEAD_MAX: u64 = 1 << 48;

/// What a peer shows of where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The history that it knows.
    pub history: [u8; 16],
    /// The last number that it has.
    pub number: u64,
    /// A digest of what it has there, if it has one.
    pub digest: Option<Digest>,
}

/// One resumption: numbers in `common+1..=last` were given again behind `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// What the peer showed.
    pub shown: Shown,
    /// Up to here numbers mean the same to both.
    pub common: u64,
    /// The last number before.
    pub last: u64,
    /// The next number is the one after this.
    pub at: u64,
    /// The journal sequence of the fact; 0 in a fact that is not placed yet.
    pub sequence: u64,
}

/// The resumptions of one feed or mailbox, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resumes {
    kept: Arc<Vec<Resume>>,
    /// Holes up to here are not known any more.
    forgotten_at: u64,
}

impl Resumes {
    /// All that are kept, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Resume> {
        self.kept.iter()
    }

    /// The one that was made for exactly this position: to ask for it again changes nothing.
    pub fn made_for(&self, shown: &Shown) -> Option<&Resume> {
        let made = self.kept.iter().rev().find(|resume| resume.shown == *shown);
        // Behind a later hole it would lead nowhere.
        made.filter(|resume| !self.hole_after(resume.at))
    }

    /// The one after which the numbers go on behind this one.
    pub fn at(&self, number: u64) -> Option<&Resume> {
        self.kept.iter().rev().find(|resume| resume.at == number)
    }

    /// Whether a hole lies behind this number, so that one who stands there cannot simply go on.
    pub fn hole_after(&self, number: u64) -> bool {
        number < self.forgotten_at || self.kept.iter().any(|resume| number < resume.at)
    }

    /// How many numbers in `after+1..=through` mean something.
    pub fn count(&self, after: u64, through: u64) -> u64 {
        count(&self.kept, after, through)
    }

    /// The number that stands now for what had this one when the entry of `sequence` was recorded.
    pub fn translate(&self, number: u64, sequence: u64) -> u64 {
        let mut number = number;
        for (index, resume) in self.kept.iter().enumerate() {
            if resume.sequence > sequence && number > resume.common {
                number = resume.at.saturating_add(count(&self.kept[..index], resume.common, number));
            }
        }
        number
    }

    /// Where numbers go on for one who shows this, after `common` and before `last`.
    ///
    /// Refuses with `HISTORY_UNKNOWN` what no hub can have given.
    pub fn decide(&self, shown: Shown, common: u64, last: u64) -> Result<Resume, Refusal> {
        if shown.number > last.saturating_add(AHEAD_MAX) {
            let what = format!("number {} lies beyond everything that a hub can have given", shown.number);
            return Err(Refusal::new(Reason::HistoryUnknown, what));
        }
        let common = common.max(self.forgotten_at).min(last);
        Ok(Resume { shown, common, last, at: last.max(shown.number), sequence: 0 })
    }

    /// Takes in a resumption, and returns the last number after it.
    pub fn apply(&mut self, resume: Resume) -> u64 {
        let last = resume.at.saturating_add(self.count(resume.common, resume.last));
        let kept = Arc::make_mut(&mut self.kept);
        kept.push(resume);
        while kept.len() > RESUMES_KEPT_MAX {
            self.forgotten_at = self.forgotten_at.max(kept.remove(0).at);
        }
        last
    }
}

fn count(resumes: &[Resume], after: u64, through: u64) -> u64 {
    let holes = resumes
        .iter()
        .map(|resume| through.min(resume.at).saturating_sub(after.max(resume.last)))
        .fold(0, u64::saturating_add);
    through.saturating_sub(after).saturating_sub(holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(number: u64) -> Shown {
        Shown { history: [1; 16], number, digest: None }
    }

    #[test]
    fn numbers_go_on_behind_both_and_holes_are_not_counted() {
        let mut resumes = Resumes::default();
        // The peer has 9, this hub 7, of which 6 and 7 are not the peer's.
        let first = Resume { sequence: 20, ..resumes.decide(shown(9), 5, 7).unwrap() };
        assert_eq!((first.common, first.last, first.at), (5, 7, 9));
        assert_eq!(resumes.apply(first), 11);
        assert!(resumes.hole_after(8) && !resumes.hole_after(9));
        assert_eq!(resumes.count(5, 11), 4, "6, 7, 10, 11");
        assert_eq!(resumes.made_for(&shown(9)), Some(&first));
        assert_eq!(resumes.made_for(&shown(8)), None);

        // 6 and 7 are 10 and 11 now; what both had keeps its number, and what came later is meant as it is.
        let now = |number, sequence| resumes.translate(number, sequence);
        assert_eq!([now(5, 19), now(6, 19), now(7, 19), now(10, 21)], [5, 10, 11, 10]);

        // Another copy of the peer stands at 6: all behind its common past is given again, without the hole.
        let second = Resume { sequence: 30, ..resumes.decide(shown(6), 5, 11).unwrap() };
        assert_eq!(second.at, 11);
        assert_eq!(resumes.apply(second), 15);
        assert_eq!(resumes.translate(7, 19), 15, "first 11, then 15");
        assert_eq!(resumes.translate(11, 21), 15);
        assert_eq!(resumes.translate(6, 21), 12);
    }

    #[test]
    fn what_no_hub_can_have_given_is_refused() {
        assert!(Resumes::default().decide(shown(u64::MAX), 0, 7).is_err());
        assert!(Resumes::default().decide(shown(AHEAD_MAX), 0, 7).is_ok());
    }

    #[test]
    fn the_oldest_holes_are_forgotten_at_the_limit_and_nothing_is_counted_across_them() {
        let mut resumes = Resumes::default();
        let mut last = 1;
        for number in 0..RESUMES_KEPT_MAX as u64 + 1 {
            let resume = resumes.decide(shown(last + 1), last, last).unwrap();
            last = resumes.apply(Resume { sequence: number, ..resume });
        }
        let late = resumes.decide(shown(last), 0, last).unwrap();
        assert_eq!(late.common, 2, "the end of the hole that was forgotten");
    }
}
