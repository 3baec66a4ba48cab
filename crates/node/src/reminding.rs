//! Agreements that wait for this state's word: counted for the status, and put on the log at the start and once a day, so that a proposal is
//! not forgotten by people with other duties.

use std::time::Duration;

use concord_model::{ParticipantCode, Timestamp};

use crate::context::Context;
use crate::state::NodeState;

/// How long after one reminder the next comes, where something still waits.
const REMINDER_EVERY_MICROS: i64 = 24 * MICROS_PER_HOUR;
const MICROS_PER_HOUR: i64 = 3600 * 1_000_000;
/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What waits for the word of an officer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// How many agreements.
    pub(crate) count: u64,
    /// Since when the first of them does.
    pub(crate) since: Option<Timestamp>,
}

impl Pending {
    /// As the directory has it.
    pub(crate) fn of(state: &NodeState, own: &ParticipantCode) -> Self {
        let visible = state.directory().agreements.visible_to(own);
        let waiting = visible.filter(|agreement| agreement.waits_for(own)).map(|agreement| agreement.proposed_at);
        waiting.fold(Self { count: 0, since: None }, |sum, at| Self {
            count: sum.count + 1,
            since: Some(sum.since.map_or(at, |since| since.min(at))),
        })
    }
}

/// Whether it is time to say so: something waits, and nobody was reminded for a day, by whichever clock this is handed.
fn is_due(pending: Pending, reminded: Option<Timestamp>, now: Timestamp) -> bool {
    let passed = |last: Timestamp| now.as_micros().saturating_sub(last.as_micros());
    pending.count > 0 && reminded.is_none_or(|last| passed(last) >= REMINDER_EVERY_MICROS)
}

/// Reminds until the node ends.
pub(crate) async fn keep_reminding(context: Context) {
    let mut reminded = None;
    loop {
        let (pending, now) = (Pending::of(&context.now_state(), &context.participant), context.clock.now());
        if is_due(pending, reminded, now) {
            reminded = Some(now);
            let waited = pending.since.map_or(0, |since| now.as_micros().saturating_sub(since.as_micros()).max(0));
            tracing::warn!(
                agreements = pending.count,
                hours = waited / MICROS_PER_HOUR,
                "agreements wait for this state's word: see `concord agreement pending`"
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reminder_comes_at_the_start_and_once_a_day_while_something_waits() {
        let at = |hours: i64| Timestamp::from_micros(hours * 3600 * 1_000_000);
        let waits = Pending { count: 1, since: Some(at(0)) };
        assert!(is_due(waits, None, at(5)));
        assert!(!is_due(waits, Some(at(5)), at(28)) && is_due(waits, Some(at(5)), at(29)));
        assert!(!is_due(Pending { count: 0, since: None }, None, at(5)), "nothing waits");
    }
}
