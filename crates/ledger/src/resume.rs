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
/// How far after what is known here a peer's number may lie: more than any feed reaches, and far from where numbers end.
const AHEAD_MAX: u64 = 1 << 40;

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
    /// How many are given again; 0 in a fact that is not placed yet.
    pub again: u64,
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

    /// The end of the hole in which a number lies that never meant anything here; none where it lies in none. Of holes that are not known any
    /// more, the number itself: ask only for one that stands for nothing.
    pub fn hole_end(&self, number: u64) -> Option<u64> {
        let holes = self.kept.iter().filter(|resume| resume.last < number && number <= resume.at);
        let forgotten = (number <= self.forgotten_at).then_some(number);
        holes.map(|resume| resume.at).max().or(forgotten)
    }

    /// How many numbers in `common+1..=last` are given again: those that mean something, and each thing once. What an earlier
    /// resumption gave again for one that stood before it is passed over, since the first of it is among them.
    pub fn again(&self, common: u64, last: u64) -> u64 {
        again(&self.kept, common, last)
    }

    /// The number that stands now for what had this one when the entry of `sequence` was recorded.
    pub fn translate(&self, number: u64, sequence: u64) -> u64 {
        let mut number = number;
        for (index, resume) in self.kept.iter().enumerate() {
            if resume.sequence > sequence && number > resume.common {
                number = resume.at.saturating_add(again(&self.kept[..index], resume.common, number));
            }
        }
        number
    }

    /// Where numbers go on for one who shows this, after `common` and before `last`.
    ///
    /// Refuses with `HISTORY_UNKNOWN` what no hub can have given, and more than `again_max` to be given again.
    pub fn decide(&self, shown: Shown, common: u64, last: u64, again_max: u64) -> Result<Resume, Refusal> {
        if shown.number > last.saturating_add(AHEAD_MAX) {
            let what = format!("number {} lies beyond everything that a hub can have given", shown.number);
            return Err(Refusal::new(Reason::HistoryUnknown, what));
        }
        let common = common.max(self.forgotten_at).min(last);
        let again = self.again(common, last);
        if again > again_max {
            let what = format!("{again} numbers would be given again, at most {again_max} are");
            return Err(Refusal::new(Reason::HistoryUnknown, what));
        }
        Ok(Resume { shown, common, last, at: last.max(shown.number), again, sequence: 0 })
    }

    /// Takes in a resumption, and returns the last number after it.
    pub fn apply(&mut self, resume: Resume) -> u64 {
        let again = self.again(resume.common, resume.last);
        let last = resume.at.saturating_add(again);
        let kept = Arc::make_mut(&mut self.kept);
        kept.push(Resume { again, ..resume });
        while kept.len() > RESUMES_KEPT_MAX {
            self.forgotten_at = self.forgotten_at.max(kept.remove(0).at);
        }
        last
    }
}

fn again(resumes: &[Resume], common: u64, last: u64) -> u64 {
    let passed_over = resumes.iter().map(|resume| {
        let hole = last.min(resume.at).saturating_sub(common.max(resume.last));
        let copies = if common < resume.at { last.saturating_sub(resume.at).min(resume.again) } else { 0 };
        hole.saturating_add(copies)
    });
    last.saturating_sub(common).saturating_sub(passed_over.fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1000;

    fn shown(number: u64) -> Shown {
        Shown { history: [1; 16], number, digest: None }
    }

    #[test]
    fn numbers_go_on_behind_both_and_holes_are_not_counted() {
        let mut resumes = Resumes::default();
        // The peer has 9, this hub 7, of which 6 and 7 are not the peer's.
        let first = Resume { sequence: 20, ..resumes.decide(shown(9), 5, 7, MAX).unwrap() };
        assert_eq!((first.common, first.last, first.at), (5, 7, 9));
        assert_eq!(resumes.apply(first), 11);
        assert!(resumes.hole_after(8) && !resumes.hole_after(9));
        assert_eq!([7, 8, 9, 10].map(|number| resumes.hole_end(number)), [None, Some(9), Some(9), None]);
        assert_eq!(resumes.again(9, 11), 2, "10 and 11 for one who has 9");
        assert_eq!(resumes.again(5, 11), 2, "6 and 7 for one who has not; 10 and 11 are those again");
        assert_eq!(resumes.made_for(&shown(9)), Some(&Resume { again: 2, ..first }));
        assert_eq!(resumes.made_for(&shown(8)), None);

        // 6 and 7 are 10 and 11 now; what both had keeps its number, and what came later is meant as it is.
        let now = |number, sequence| resumes.translate(number, sequence);
        assert_eq!([now(5, 19), now(6, 19), now(7, 19), now(10, 21)], [5, 10, 11, 10]);

        // Another copy of the peer stands at 6: all behind its common past is given again, without the hole.
        let second = Resume { sequence: 30, ..resumes.decide(shown(6), 5, 11, MAX).unwrap() };
        assert_eq!(second.at, 11);
        assert_eq!(resumes.apply(second), 13, "6 and 7 are 12 and 13 now");
        assert_eq!(resumes.translate(7, 19), 13, "first 11, then 13");
        assert_eq!(resumes.translate(11, 21), 13);
        assert_eq!(resumes.translate(6, 21), 12);
    }

    #[test]
    fn what_no_hub_can_have_given_is_refused() {
        assert!(Resumes::default().decide(shown(u64::MAX), 0, 7, MAX).is_err());
        assert!(Resumes::default().decide(shown(AHEAD_MAX), 0, 7, MAX).is_ok());
        assert!(Resumes::default().decide(shown(9), 0, MAX + 1, MAX).is_err(), "it may be given, but is too much");
    }

    #[test]
    fn positions_that_are_made_up_one_after_the_other_do_not_double_what_is_given_again() {
        let mut resumes = Resumes::default();
        let mut last = 1000;
        for made_up in 0..30 {
            let shown = Shown { history: [made_up; 16], number: 1 << 39, digest: None };
            let resume = resumes.decide(shown, 0, last, MAX).unwrap();
            last = resumes.apply(Resume { sequence: made_up.into(), ..resume });
            assert_eq!(last, resume.at + 1000, "after {made_up}");
        }
    }

    #[test]
    fn the_oldest_holes_are_forgotten_at_the_limit_and_nothing_is_counted_across_them() {
        let mut resumes = Resumes::default();
        let mut last = 1;
        for number in 0..RESUMES_KEPT_MAX as u64 + 1 {
            let resume = resumes.decide(shown(last + 1), last, last, MAX).unwrap();
            last = resumes.apply(Resume { sequence: number, ..resume });
        }
        let late = resumes.decide(shown(last), 0, last, MAX).unwrap();
        assert_eq!(late.common, 2, "the end of the hole that was forgotten");
    }
}
