//! Whose node was here and has been away for too long: a node that is silent is no node at rest, and its mail may be none so far.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_ledger::Ledger;
use concord_model::ParticipantCode;
use concord_server::Readiness;
use serde::Deserialize;
use tokio::time::Instant;

const AWAY_NOTE: &str = "node-away";
/// Longer than this is never meant.
const AWAY_MAX_SECONDS: u64 = 31 * 86_400;

/// When a node is away for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwayAfter {
    /// After so many seconds without a connection.
    pub away_seconds: u64,
}

impl Default for AwayAfter {
    fn default() -> Self {
        Self { away_seconds: 600 }
    }
}

impl AwayAfter {
    /// Checks what a file says.
    pub fn checked(self) -> Result<Self, String> {
        if (1..=AWAY_MAX_SECONDS).contains(&self.away_seconds) {
            return Ok(self);
        }
        Err(format!("nodes.away_seconds = {} is not between 1 and {AWAY_MAX_SECONDS}", self.away_seconds))
    }

    /// The section as `init` writes it.
    pub fn to_toml(self) -> String {
        format!(
            "
# After so many seconds without a connection it is noted that a participant's node is away; not of one that is held, or was never here.
[nodes]
away_seconds = {}
",
            self.away_seconds
        )
    }
}

/// Whose nodes are away, each with the time when this process first saw that.
#[derive(Debug, Default)]
pub struct Away(BTreeMap<ParticipantCode, Instant>);

impl Away {
    /// Takes in who is connected now. Of whom nothing was ever served, or who is held, nobody waits for.
    pub fn look(&mut self, ledger: &Ledger, is_connected: impl Fn(&ParticipantCode) -> bool, now: Instant) {
        let registry = ledger.registry();
        let is_missed = |code: &ParticipantCode| {
            ledger.nodes().run(code).is_some() && !registry.holds().is_held(code) && !is_connected(code)
        };
        let missed = registry.enrolments().map(|(code, _)| code).filter(|code| is_missed(code));
        let since = |code: &ParticipantCode| (code.clone(), self.0.get(code).copied().unwrap_or(now));
        self.0 = missed.map(since).collect();
    }

    /// Notes who has been away for longer than that.
    pub fn note(&self, readiness: &Readiness, after: AwayAfter, now: Instant) {
        let gone = |since: &Instant| now.saturating_duration_since(*since);
        let limit = Duration::from_secs(after.away_seconds);
        let away: Vec<String> = (self.0.iter())
            .filter(|(_, since)| gone(since) >= limit)
            .map(|(code, since)| format!("{code} for {}", spoken(gone(since))))
            .collect();
        if away.is_empty() {
            return readiness.clear(AWAY_NOTE);
        }
        let what = format!("nodes are not connected: {}. Call those states; what is for them waits", away.join(", "));
        readiness.note(AWAY_NOTE, what);
    }
}

/// In the largest unit of which it has two.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(size, _)| seconds >= 2 * size);
    unit.map_or(format!("{seconds} s"), |(size, name)| format!("{} {name}", seconds / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_the_largest_unit_of_which_it_has_two() {
        let said = |seconds| spoken(Duration::from_secs(seconds));
        assert_eq!(
            [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(said),
            ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]
        );
    }

    #[test]
    fn no_or_an_endless_time_is_refused() {
        assert!(AwayAfter { away_seconds: 0 }.checked().is_err());
        assert!(AwayAfter { away_seconds: AWAY_MAX_SECONDS + 1 }.checked().is_err());
        assert_eq!(AwayAfter::default().checked(), Ok(AwayAfter::default()));
    }
}
