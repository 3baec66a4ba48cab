//! A machine's wall clock: it goes with simulated time, and jumps when it is told to.

use std::sync::atomic::{AtomicI64, Ordering};

use concord_model::Timestamp;
use concord_server::Clock;
use tokio::time::Instant;

/// Where all clocks begin, in microseconds since the Unix epoch: 2026-01-01.
pub(crate) const BEGIN: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// An hour, in microseconds.
pub(crate) const HOUR: i64 = 3_600_000_000;
/// Ten years, in microseconds.
pub(crate) const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

pub(crate) struct WallClock {
    began: Instant,
    offset_micros: AtomicI64,
}

impl WallClock {
    /// Right, from now on.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), offset_micros: AtomicI64::new(0) }
    }

    /// By how much it is wrong, in microseconds.
    pub(crate) fn wrong_by(&self) -> i64 {
        self.offset_micros.load(Ordering::Relaxed)
    }

    /// Sets it wrong by so much; 0 sets it right.
    pub(crate) fn set_wrong_by(&self, micros: i64) {
        self.offset_micros.store(micros, Ordering::Relaxed);
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(BEGIN.as_micros() + since + self.wrong_by())
    }
}
