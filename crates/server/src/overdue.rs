//! How long something may wait before a person should hear of it.

use std::time::Duration;

use concord_model::{Lane, Timestamp};
use serde::Deserialize;

/// The longest time that may be set, a year.
const OVERDUE_MAX_SECONDS: u64 = 365 * 86_400;

/// The `[overdue]` of a configuration, in seconds for each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overdue {
    /// Lane flash.
    pub flash_seconds: u64,
    /// Lane priority.
    pub priority_seconds: u64,
    /// Lane routine.
    pub routine_seconds: u64,
}

impl Default for Overdue {
    fn default() -> Self {
        Self { flash_seconds: 300, priority_seconds: 3_600, routine_seconds: 86_400 }
    }
}

impl Overdue {
    /// Checks what a file says.
    pub fn checked(self) -> Result<Self, String> {
        let wrong = Lane::ALL.into_iter().find(|lane| !(1..=OVERDUE_MAX_SECONDS).contains(&self.seconds(*lane)));
        match wrong {
            Some(lane) => {
                let seconds = self.seconds(lane);
                Err(format!("overdue.{lane}_seconds = {seconds} is not between 1 and {OVERDUE_MAX_SECONDS}"))
            }
            None => Ok(self),
        }
    }

    /// Whether what has waited on a lane since then is overdue now. A clock that went back makes nothing overdue.
    pub fn is(self, lane: Lane, since: Timestamp, now: Timestamp) -> bool {
        let waited = u64::try_from(now.as_micros().saturating_sub(since.as_micros())).unwrap_or(0);
        Duration::from_micros(waited) > Duration::from_secs(self.seconds(lane))
    }

    /// The section as `init` writes it; `what` waits.
    pub fn to_toml(self, what: &str) -> String {
        let Self { flash_seconds, priority_seconds, routine_seconds } = self;
        format!(
            "
# After so many seconds on a lane it is noted that something waits: {what}.
[overdue]
flash_seconds = {flash_seconds}
priority_seconds = {priority_seconds}
routine_seconds = {routine_seconds}
"
        )
    }

    fn seconds(self, lane: Lane) -> u64 {
        match lane {
            Lane::Flash => self.flash_seconds,
            Lane::Priority => self.priority_seconds,
            Lane::Routine => self.routine_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_its_time_and_a_clock_that_went_back_makes_nothing_overdue() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let usual = Overdue::default();
        assert!(!usual.is(Lane::Flash, at(0), at(300)) && usual.is(Lane::Flash, at(0), at(301)));
        assert!(!usual.is(Lane::Priority, at(0), at(301)) && !usual.is(Lane::Flash, at(1_000), at(0)));
        assert!(Overdue { routine_seconds: 0, ..usual }.checked().unwrap_err().contains("routine_seconds"));
        assert!(Overdue { flash_seconds: OVERDUE_MAX_SECONDS + 1, ..usual }.checked().is_err());
    }
}
