//! Whose node was here and has been away for too long: a node that is silent is no node at rest, and its mail may be none so far.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_ledger::Ledger;
use concord_model::{ParticipantCode, Timestamp};
use concord_server::Readiness;
use concord_wire::convert::timestamp;
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

/// Whose nodes are away, each with the time when this process first saw that, by its timer and by the clock.
#[derive(Debug, Default)]
pub struct Away(BTreeMap<ParticipantCode, (Instant, Timestamp)>);

impl Away {
    /// Takes in who is connected now. Of whom nothing was ever served, or who is held, nobody waits for.
    pub fn look(
        &mut self,
        ledger: &Ledger,
        is_connected: impl Fn(&ParticipantCode) -> bool,
        now: (Instant, Timestamp),
    ) {
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
        let limit = Duration::from_secs(after.away_seconds);
        let gone = self.0.iter().filter(|(_, (since, _))| now.saturating_duration_since(*since) >= limit);
        let away: Vec<String> = gone.map(|(code, (_, at))| format!("{code} since {}", timestamp(*at))).collect();
        if away.is_empty() {
            return readiness.clear(AWAY_NOTE);
        }
        let what = format!("nodes are not connected: {}. Call those states; what is for them waits", away.join(", "));
        readiness.note(AWAY_NOTE, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_or_an_endless_time_is_refused() {
        assert!(AwayAfter { away_seconds: 0 }.checked().is_err());
        assert!(AwayAfter { away_seconds: AWAY_MAX_SECONDS + 1 }.checked().is_err());
        assert_eq!(AwayAfter::default().checked(), Ok(AwayAfter::default()));
    }
}
