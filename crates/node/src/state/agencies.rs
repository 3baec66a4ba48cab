//! The agencies let in: what each may send and get, and how far each has acknowledged.

use std::collections::BTreeSet;

use concord_model::{Lane, MeasureCode};
use serde::{Deserialize, Serialize};

/// One agency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agency {
    /// Empty means all.
    pub measures: BTreeSet<MeasureCode>,
    /// Per lane, everything up to here was acknowledged, or was there before the agency was added; where the journal was restored
    /// since, before that.
    through: [u64; Lane::ALL.len()],
}

impl Agency {
    pub(super) fn added(measures: impl IntoIterator<Item = MeasureCode>, from: [u64; Lane::ALL.len()]) -> Self {
        Self { measures: measures.into_iter().collect(), through: from }
    }

    pub(super) fn acknowledged(&mut self, lane: Lane, through: u64) {
        let cursor = &mut self.through[lane.slot()];
        if !concord_faults::planted("forget-cursors") {
            *cursor = through.max(*cursor);
        }
    }

    /// Whether the agency may send and get exchanges of this measure.
    pub fn may_have(&self, measure: &MeasureCode) -> bool {
        self.measures.is_empty() || self.measures.contains(measure)
    }

    /// The last number of a lane that it never gets again.
    pub fn through(&self, lane: Lane) -> u64 {
        self.through[lane.slot()]
    }
}
