//! The seam of time: everything that needs a moment is handed one, so that a simulation can hand out its own.

use std::time::{SystemTime, UNIX_EPOCH};

use concord_model::Timestamp;

/// Reads the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, UTC.
    fn now(&self) -> Timestamp;

    /// Now, if the clock is believed: what lets something lapse or expire asks this, and waits while there is none.
    fn trusted_now(&self) -> Option<Timestamp> {
        Some(self.now())
    }

    /// What the machine's clock shows, believed or not: what a peer is told of it, and what certificates are judged by, as TLS does.
    fn shown(&self) -> Timestamp {
        self.now()
    }

    /// A peer said what its clock shows now.
    fn heard(&self, _peer: Timestamp) {}
}

/// In builds for tests: how far the machine's clock is shown from where it is, in seconds.
#[cfg(debug_assertions)]
const OFFSET_VARIABLE: &str = "CONCORD_CLOCK_OFFSET_SECONDS";

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is wrong anyhow; nothing is ordered by it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        #[cfg(debug_assertions)]
        let micros = micros.saturating_add(*OFFSET_MICROS);
        Timestamp::from_micros(micros)
    }
}

#[cfg(debug_assertions)]
static OFFSET_MICROS: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| match std::env::var(OFFSET_VARIABLE) {
    Ok(text) => match text.parse::<i64>() {
        Ok(seconds) => seconds.saturating_mul(1_000_000),
        Err(_) => panic!("{OFFSET_VARIABLE}={text}: not a number of seconds"),
    },
    Err(_) => 0,
});
