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

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is wrong anyhow; nothing is ordered by it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(micros.saturating_add(concord_faults::clock_offset_micros()))
    }
}
