//! How far this machine's clock is from a peer's. It is only ever said: nothing lapses, expires or is let in by it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use concord_model::Timestamp;

use crate::clock_trust::CLOCK_CHECK_SECONDS;

/// Two clocks that differ by so much are said to.
pub const CLOCK_WRONG_SECONDS: u64 = 5 * 60;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// This machine's clock less the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockOffset {
    micros: i64,
}

impl ClockOffset {
    /// Of what two clocks show at one moment.
    pub const fn between(own: Timestamp, peer: Timestamp) -> Self {
        Self { micros: own.as_micros().saturating_sub(peer.as_micros()) }
    }

    /// In seconds; above 0 where this machine's clock is ahead.
    pub fn seconds(self) -> f64 {
        self.micros as f64 / MICROS_PER_SECOND as f64
    }

    /// Whether somebody should look at the two clocks.
    pub const fn is_wrong(self) -> bool {
        self.micros.unsigned_abs() >= CLOCK_WRONG_SECONDS * MICROS_PER_SECOND.unsigned_abs()
    }
}

/// As in *this machine's clock is* `3 h ahead of` *the hub's*.
impl fmt::Display for ClockOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.micros.unsigned_abs() / MICROS_PER_SECOND.unsigned_abs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7200 if minutes < 60 => write!(f, "{minutes} min"),
            120..172_800 if minutes % 60 == 0 => write!(f, "{hours} h"),
            120..172_800 => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} days"),
        }?;
        f.write_str(if self.micros >= 0 { " ahead of" } else { " behind" })
    }
}

/// What a peer's clock showed last; it is taken to go on like the monotonic clock.
#[derive(Debug, Default)]
pub struct PeerClock(Mutex<Option<(Timestamp, Instant)>>);

impl PeerClock {
    /// The peer said what its clock shows now.
    pub fn heard(&self, peer: Timestamp) {
        *self.held() = Some((peer, Instant::now()));
    }

    /// How far this machine's clock, which shows `own`, is from the peer's now; none before the peer was heard.
    pub fn offset(&self, own: Timestamp) -> Option<ClockOffset> {
        let (peer, at) = (*self.held())?;
        let passed = i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX);
        Some(ClockOffset::between(own, Timestamp::from_micros(peer.as_micros().saturating_add(passed))))
    }

    /// From one look at the offset to the next.
    pub const CHECK_EVERY: Duration = Duration::from_secs(CLOCK_CHECK_SECONDS);

    fn held(&self) -> MutexGuard<'_, Option<(Timestamp, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seconds: i64) -> ClockOffset {
        let (own, peer) = (Timestamp::from_micros(seconds * MICROS_PER_SECOND), Timestamp::from_micros(0));
        ClockOffset::between(own, peer)
    }

    #[test]
    fn an_offset_is_said_in_the_unit_that_a_person_would_take() {
        for (seconds, words) in [
            (0, "0 s ahead of"),
            (-90, "90 s behind"),
            (299, "4 min ahead of"),
            (3 * 3600, "3 h ahead of"),
            (3 * 3600 - 1, "2 h 59 min ahead of"),
            (-3660, "1 h 1 min behind"),
            (730 * 86_400, "730 days ahead of"),
        ] {
            assert_eq!(of(seconds).to_string(), words, "{seconds}");
        }
        let extreme = ClockOffset::between(Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
        assert!(extreme.is_wrong() && extreme.to_string().ends_with("days behind"));
    }

    #[test]
    fn five_minutes_either_way_are_wrong_and_less_is_not() {
        assert!(of(300).is_wrong() && of(-300).is_wrong());
        assert!(!of(299).is_wrong() && !of(-299).is_wrong());
    }

    #[test]
    fn a_peer_that_was_heard_goes_on_with_the_monotonic_clock() {
        let clock = PeerClock::default();
        assert_eq!(clock.offset(Timestamp::from_micros(5)), None);
        clock.heard(Timestamp::from_micros(0));
        std::thread::sleep(Duration::from_millis(2));
        let seconds = clock.offset(Timestamp::from_micros(0)).unwrap().seconds();
        assert!((-120.0..=-0.002).contains(&seconds), "{seconds}");
    }
}
