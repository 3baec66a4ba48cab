//! How long a battery runs and by which seed: a slice by default, a campaign where the environment asks for one.
//!
//! * `CONCORD_BATTERY_COUNT=6000` runs until so many are reached;
//! * `CONCORD_BATTERY_SECONDS=600` bounds the time; a count that was asked for and is not reached by then is said to be `NOT REACHED`;
//! * `CONCORD_BATTERY_SEED=17` makes the same choices again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const COUNT_VARIABLE: &str = "CONCORD_BATTERY_COUNT";
const SECONDS_VARIABLE: &str = "CONCORD_BATTERY_SECONDS";
const SEED_VARIABLE: &str = "CONCORD_BATTERY_SEED";

/// What one run may take and must reach.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Reached at least, however long it takes.
    least: u64,
    /// Never more.
    most: u64,
    /// What the environment asks for.
    asked: Option<u64>,
    time: Duration,
    began: Instant,
    /// What the choices follow from; printed, so that a failure can be run again.
    pub seed: u64,
}

impl Budget {
    /// A slice of at least `least` within about `seconds`, unless the environment says otherwise.
    pub fn slice(least: u64, seconds: u64) -> Self {
        Self::from_environment((least, u64::MAX, seconds))
    }

    /// A slice that ends by whichever comes first, so many or so long, unless the environment says otherwise.
    pub fn bounded(most: u64, seconds: u64) -> Self {
        Self::from_environment((1, most, seconds))
    }

    fn from_environment(slice: (u64, u64, u64)) -> Self {
        let asked = number(COUNT_VARIABLE);
        let (least, most, seconds) = match (asked, number(SECONDS_VARIABLE)) {
            (None, None) => slice,
            (None, Some(seconds)) => (1, u64::MAX, seconds),
            (Some(count), None) => (count, count, u64::MAX),
            (Some(count), Some(seconds)) => (1, count, seconds),
        };
        let by_clock = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_micros() as u64 % 1_000_000
        };
        let seed = number(SEED_VARIABLE).unwrap_or_else(by_clock);
        Self { least, most, asked, time: Duration::from_secs(seconds), began: Instant::now(), seed }
    }

    /// The same with this seed, unless the environment names one.
    pub fn by_seed(self, seed: u64) -> Self {
        Self { seed: number(SEED_VARIABLE).unwrap_or(seed), ..self }
    }

    /// Whether to end, when so many are done.
    pub fn is_over(&self, done: u64) -> bool {
        done >= self.most || (done >= self.least && self.began.elapsed() >= self.time)
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Says how many were reached, in the words that `./test --long` adds up; fewer than were asked for are said to be too few.
    pub fn reached(&self, done: u64, what: &str) {
        report(&words(self.asked, done, what));
    }

    /// How many more this run can take at most.
    pub fn left(&self, done: u64) -> u64 {
        self.most.saturating_sub(done)
    }
}

/// Says what a battery reached, also where the test's own output is captured: a count that nobody sees proves nothing.
pub fn report(what: &str) {
    use std::io::Write as _;
    // Nobody may be left to read it.
    let _ = writeln!(std::io::stdout(), "{what}");
}

fn words(asked: Option<u64>, done: u64, what: &str) -> String {
    match asked {
        Some(asked) if done < asked => format!("NOT REACHED {done} of {asked} {what}"),
        _ => format!("REACHED {done} {what}"),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Choices that follow from a seed alone (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The choices of a seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end
    }

    /// Whether one of `of` times comes up.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_was_asked_for_and_not_reached_is_said() {
        assert_eq!(words(Some(6_000), 59, "deaths"), "NOT REACHED 59 of 6000 deaths");
        assert_eq!(words(Some(60), 60, "deaths"), "REACHED 60 deaths");
        assert_eq!(words(None, 5, "cuts"), "REACHED 5 cuts");
    }

    #[test]
    fn a_bounded_slice_ends_by_its_count_or_by_its_time() {
        let budget = |seconds| Budget {
            least: 1,
            most: 3,
            asked: None,
            time: Duration::from_secs(seconds),
            began: Instant::now(),
            seed: 1,
        };
        assert!(!budget(600).is_over(2) && budget(600).is_over(3));
        assert!(!budget(0).is_over(0) && budget(0).is_over(1));
    }
}
