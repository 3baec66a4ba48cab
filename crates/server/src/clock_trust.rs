//! Whether the machine's clock can be believed: a clock that jumped must not let anything lapse or expire, nor drive the times
//! of the journal ahead.
//!
//! *Invariant: while the clock is suspected, `now` advances no faster than the monotonic clock, from the last moment that was
//! believed, and `trusted_now` gives nothing.* Order and deduplication rest on numbers and digests, never on any of this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use concord_model::Timestamp;

use crate::alarms::CLOCK_SUSPECT_NOTE;
use crate::clock::Clock;
use crate::readiness::Readiness;

/// A clock that gains or loses more than this, on the monotonic clock within a run or on the journal while the process was
/// stopped, is suspected; a peer's clock within it agrees.
pub const CLOCK_JUMP_SECONDS: u64 = 3_600;
/// How often an idle process looks at its clock.
pub const CLOCK_CHECK_SECONDS: u64 = 10;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Time since some moment that no setting of the clock changes.
pub type Monotonic = Box<dyn Fn() -> Duration + Send + Sync>;

/// A clock that stops believing in its source when that jumps, until it or a peer's clock agrees again.
pub struct ClockTrust {
    wall: Arc<dyn Clock>,
    monotonic: Monotonic,
    readiness: Readiness,
    state: Mutex<State>,
}

struct State {
    /// A wall time that was believed, and when that was by the monotonic clock.
    believed: Timestamp,
    at: Duration,
    suspected: bool,
    /// Suspected for what happened while the process was stopped: only a peer can clear that.
    since_the_stop: bool,
}

impl ClockTrust {
    /// Over the machine's clock. `last_recorded` is the time of the journal's last entry; none if it has none.
    pub fn new(
        wall: Arc<dyn Clock>,
        monotonic: Monotonic,
        last_recorded: Option<Timestamp>,
        readiness: Readiness,
    ) -> Self {
        let now = wall.now();
        let stopped_too_long = last_recorded.is_some_and(|last| !agree(now, last));
        let believed = if stopped_too_long { last_recorded.unwrap_or(now) } else { now };
        let state = State { believed, at: monotonic(), suspected: stopped_too_long, since_the_stop: stopped_too_long };
        let trust = Self { wall, monotonic, readiness, state: Mutex::new(state) };
        if stopped_too_long {
            trust.raise(now, believed, "since the last entry of the journal");
        }
        trust
    }

    /// The same with the process's own monotonic clock.
    pub fn system(wall: Arc<dyn Clock>, last_recorded: Option<Timestamp>, readiness: Readiness) -> Self {
        let begun = Instant::now();
        Self::new(wall, Box::new(move || begun.elapsed()), last_recorded, readiness)
    }

    /// Looks at the clock now and then, so that a jump is raised in an idle process, too. Never ends.
    pub async fn watch(self: Arc<Self>) {
        loop {
            self.look();
            tokio::time::sleep(Duration::from_secs(CLOCK_CHECK_SECONDS)).await;
        }
    }

    /// The time to go by, and whether it is the clock's.
    fn look(&self) -> (Timestamp, bool) {
        let mut state = self.state();
        let wall = self.wall.now();
        let expected = later(state.believed, (self.monotonic)().saturating_sub(state.at));
        if state.since_the_stop {
            return (expected, false);
        }
        let agrees = agree(wall, expected);
        if agrees && state.suspected {
            self.readiness.clear(CLOCK_SUSPECT_NOTE);
        }
        if !agrees && !state.suspected {
            self.raise(wall, expected, "while the process ran");
        }
        state.suspected = !agrees;
        if agrees { (wall, true) } else { (expected, false) }
    }

    fn raise(&self, wall: Timestamp, expected: Timestamp, when: &str) {
        let gained = (wall.as_micros() / MICROS_PER_SECOND).saturating_sub(expected.as_micros() / MICROS_PER_SECOND);
        // A note: everything is served; what waits are lapse and expiry.
        let what = format!(
            "the clock gained {gained} s {when}: nothing lapses or expires until it agrees again, or until a peer's clock agrees \
             with it; check the clock of this machine"
        );
        self.readiness.note(CLOCK_SUSPECT_NOTE, what);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ClockTrust {
    fn now(&self) -> Timestamp {
        self.look().0
    }

    fn trusted_now(&self) -> Option<Timestamp> {
        let (now, trusted) = self.look();
        trusted.then_some(now)
    }

    fn shown(&self) -> Timestamp {
        self.wall.now()
    }

    fn heard(&self, peer: Timestamp) {
        let mut state = self.state();
        let wall = self.wall.now();
        if !agree(wall, peer) {
            let (own, peer) = (wall.as_micros(), peer.as_micros());
            tracing::warn!(own, peer, "a peer's clock and this one differ by more than an hour");
            return;
        }
        (state.believed, state.at) = (wall, (self.monotonic)());
        if std::mem::take(&mut state.suspected) {
            self.readiness.clear(CLOCK_SUSPECT_NOTE);
        }
        state.since_the_stop = false;
    }
}

fn agree(one: Timestamp, other: Timestamp) -> bool {
    one.as_micros().abs_diff(other.as_micros()) <= CLOCK_JUMP_SECONDS * MICROS_PER_SECOND.unsigned_abs()
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_micros(moment.as_micros().saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    use super::*;

    const HOUR: i64 = 3_600;
    const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

    /// A wall clock and a monotonic one that the test sets, in seconds.
    #[derive(Clone, Default)]
    struct Clocks {
        wall: Arc<AtomicI64>,
        monotonic: Arc<AtomicU64>,
        readiness: Readiness,
    }

    impl Clock for Clocks {
        fn now(&self) -> Timestamp {
            seconds(self.wall.load(Ordering::Relaxed))
        }
    }

    impl Clocks {
        fn trust(&self, last_recorded: Option<i64>) -> ClockTrust {
            let monotonic = Arc::clone(&self.monotonic);
            let monotonic = Box::new(move || Duration::from_secs(monotonic.load(Ordering::Relaxed)));
            ClockTrust::new(Arc::new(self.clone()), monotonic, last_recorded.map(seconds), self.readiness.clone())
        }

        /// Time passes for both clocks.
        fn pass(&self, seconds: u64) {
            self.monotonic.fetch_add(seconds, Ordering::Relaxed);
            self.jump(seconds.cast_signed());
        }

        fn jump(&self, seconds: i64) {
            self.wall.fetch_add(seconds, Ordering::Relaxed);
        }

        fn is_raised(&self) -> bool {
            self.readiness.list().iter().any(|alarm| alarm.name == CLOCK_SUSPECT_NOTE)
        }
    }

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * MICROS_PER_SECOND)
    }

    fn begun() -> Clocks {
        let clocks = Clocks::default();
        clocks.jump(1_000_000);
        clocks
    }

    #[test]
    fn a_jump_within_a_run_stops_trust_and_time_goes_on_by_the_monotonic_clock() {
        for jump in [TEN_YEARS, HOUR + 1, -HOUR - 1] {
            let clocks = begun();
            let trust = clocks.trust(Some(1_000_000));
            clocks.pass(30);
            assert_eq!((trust.trusted_now(), clocks.is_raised()), (Some(seconds(1_000_030)), false));
            clocks.jump(jump);
            assert_eq!((trust.trusted_now(), clocks.is_raised()), (None, true), "{jump}");
            clocks.pass(5);
            assert_eq!(trust.now(), seconds(1_000_035), "{jump}");
            clocks.jump(-jump);
            assert_eq!((trust.trusted_now(), clocks.is_raised()), (Some(seconds(1_000_035)), false), "{jump}");
        }
    }

    #[test]
    fn an_hour_is_no_jump_and_many_small_ones_are_one() {
        let clocks = begun();
        let trust = clocks.trust(None);
        clocks.jump(HOUR);
        assert_eq!(trust.trusted_now(), Some(seconds(1_000_000 + HOUR)));
        clocks.jump(1);
        assert_eq!(trust.trusted_now(), None);
        let clocks = begun();
        let trust = clocks.trust(None);
        for _ in 0..61 {
            clocks.jump(60);
            trust.now();
        }
        assert_eq!(trust.trusted_now(), None);
    }

    #[test]
    fn after_a_long_stop_only_a_peer_that_agrees_gives_trust_back() {
        let clocks = begun();
        let trust = clocks.trust(Some(1_000_000 - HOUR - 1));
        clocks.pass(7);
        assert_eq!((trust.trusted_now(), clocks.is_raised()), (None, true));
        assert_eq!(trust.now(), seconds(1_000_000 - HOUR - 1 + 7), "time goes on from the last entry");
        trust.heard(seconds(1_000_007 - HOUR - 1));
        assert_eq!((trust.trusted_now(), clocks.is_raised()), (None, true), "a peer that does not agree");
        trust.heard(seconds(1_000_007 + HOUR));
        assert_eq!((trust.trusted_now(), clocks.is_raised()), (Some(seconds(1_000_007)), false));
        clocks.jump(TEN_YEARS);
        assert_eq!(trust.trusted_now(), None);
        assert_eq!(trust.now(), seconds(1_000_007));
    }

    #[test]
    fn a_short_stop_needs_no_peer_and_a_clock_that_went_back_does() {
        let clocks = begun();
        assert_eq!(clocks.trust(Some(1_000_000 - HOUR)).trusted_now(), Some(seconds(1_000_000)));
        assert_eq!(clocks.trust(Some(1_000_000 + HOUR + 1)).trusted_now(), None);
    }

    #[test]
    fn two_machines_that_were_stopped_together_give_each_other_their_trust_back() {
        let clocks = begun();
        let (one, other) = (clocks.trust(Some(1_000_000 - 9 * HOUR)), clocks.trust(Some(1_000_000 - 8 * HOUR)));
        assert_eq!((one.trusted_now(), other.trusted_now()), (None, None));
        one.heard(other.shown());
        other.heard(one.shown());
        assert_eq!(one.trusted_now(), Some(seconds(1_000_000)));
        assert_eq!(other.trusted_now(), Some(seconds(1_000_000)));
    }

    #[test]
    fn a_peer_that_agrees_with_a_jumped_clock_ends_the_suspicion() {
        let clocks = begun();
        let trust = clocks.trust(None);
        clocks.jump(2 * HOUR);
        assert_eq!(trust.trusted_now(), None, "a machine that was suspended");
        trust.heard(seconds(1_000_000 + 2 * HOUR + 3));
        assert_eq!(trust.trusted_now(), Some(seconds(1_000_000 + 2 * HOUR)));
    }
}
