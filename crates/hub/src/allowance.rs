//! What a participant may make the hub record by coming again: so often at once, and once more after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_model::ParticipantCode;
use tokio::time::Instant;

/// How often each participant may.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// So often one after the other.
    pub at_once: u32,
    /// After this long once more.
    pub one_more_after: Duration,
}

/// How much of an allowance each participant has used. One entry for each participant that ever did.
#[derive(Debug, Default)]
pub struct Used(BTreeMap<ParticipantCode, Since>);

#[derive(Debug)]
struct Since {
    count: u32,
    at: Instant,
}

impl Used {
    /// Whether this participant may now.
    pub fn leaves_one(&mut self, allowance: Allowance, participant: &ParticipantCode) -> bool {
        let Some(used) = self.0.get_mut(participant) else { return true };
        let passed = used.at.elapsed().as_micros() / allowance.one_more_after.as_micros().max(1);
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        used.count = used.count.saturating_sub(passed);
        used.at += allowance.one_more_after.saturating_mul(passed);
        used.count < allowance.at_once
    }

    /// It did.
    pub fn count(&mut self, participant: &ParticipantCode) {
        let fresh = || Since { count: 0, at: Instant::now() };
        self.0.entry(participant.clone()).or_insert_with(fresh).count += 1;
    }
}
