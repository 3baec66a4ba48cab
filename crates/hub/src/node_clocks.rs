//! How far each node's clock is from this one, as its last hello said. It is shown to the secretariat, and decides nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_model::ParticipantCode;
use concord_server::ClockOffset;

/// The offsets by participant: enrolled ones only, so that there are no more than those.
#[derive(Debug, Default)]
pub struct NodeClocks(Mutex<BTreeMap<ParticipantCode, ClockOffset>>);

impl NodeClocks {
    /// A node said what its clock shows; `offset` is that less this clock.
    pub fn heard(&self, participant: &ParticipantCode, offset: ClockOffset) {
        let of = participant.to_string();
        metrics::gauge!("concord_node_clock_offset_seconds", "participant" => of).set(offset.seconds());
        self.held().insert(participant.clone(), offset);
    }

    /// What was heard of a participant's node last.
    pub fn offset(&self, participant: &ParticipantCode) -> Option<ClockOffset> {
        self.held().get(participant).copied()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ParticipantCode, ClockOffset>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
