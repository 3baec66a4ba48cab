//! The agencies let in: what each may send and get, and how far each has acknowledged.

use std::collections::BTreeSet;

use concord_ledger::Agreement;
use concord_model::{AgreementId, Lane, MeasureCode, Name, ParticipantCode, Right, Scope};
use concord_wire::stored::node::RightsChange;
use serde::{Deserialize, Serialize};

use super::rights::Rules;

/// One agency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agency {
    /// Its state.
    pub participant: ParticipantCode,
    /// Its name.
    pub name: Name,
    /// The measures that it was added with: what a repeat of that names. None means all.
    pub added_with: BTreeSet<MeasureCode>,
    /// What it may send.
    pub send: Rules,
    /// What it may receive.
    pub receive: Rules,
    /// The entry of the journal that last changed what it may.
    pub rights_at: u64,
    /// Per lane, how far it has ever acknowledged, or what was there before the agency was added; where the journal was restored since,
    /// before that.
    through: [u64; Lane::ALL.len()],
}

impl Agency {
    pub(super) fn added(
        participant: ParticipantCode,
        name: &Name,
        measures: &[MeasureCode],
        sequence: u64,
        from: [u64; Lane::ALL.len()],
    ) -> Self {
        let added_with: BTreeSet<MeasureCode> = measures.iter().cloned().collect();
        let of = if added_with.is_empty() { Scope::All } else { Scope::These(added_with.clone()) };
        let right = Right { send: true, receive: true, measures: of, agreements: Scope::All };
        let (send, receive) = (Rules::default(), Rules::default());
        let name = name.clone();
        let mut added = Self { participant, name, added_with, send, receive, rights_at: sequence, through: from };
        added.change(true, &right, sequence);
        added
    }

    pub(super) fn changed(&mut self, change: &RightsChange, sequence: u64) {
        match change {
            RightsChange::Granted(right) => self.change(true, right, sequence),
            RightsChange::Revoked(right) => self.change(false, right, sequence),
            RightsChange::Ended => {}
        }
    }

    /// What is granted is given from the agency's cursor on.
    fn change(&mut self, granted: bool, right: &Right, sequence: u64) {
        if right.send {
            self.send.add(granted, right, sequence, [0; Lane::ALL.len()]);
        }
        if right.receive {
            self.receive.add(granted, right, sequence, self.through);
        }
        self.rights_at = sequence;
    }

    pub(super) fn acknowledged(&mut self, lane: Lane, through: u64, rights_at: u64) {
        if concord_faults::planted("forget-cursors") {
            return;
        }
        let cursor = &mut self.through[lane.slot()];
        *cursor = through.max(*cursor);
        self.receive.acknowledged(lane, through, known(rights_at));
    }

    /// Where an acknowledgement up to a number, of what was given under those rights, finds the cursors; none where it moves none.
    pub(super) fn moved_by(&self, lane: Lane, through: u64, rights_at: u64) -> Option<u64> {
        let lowest = self.receive.lowest(lane, known(rights_at)).unwrap_or(u64::MAX).min(self.through(lane));
        (lowest < through).then_some(lowest)
    }

    /// The last number of a lane that it has acknowledged or passed.
    pub fn through(&self, lane: Lane) -> u64 {
        self.through[lane.slot()]
    }

    /// What it is to be given in a lane comes after this number, but for what nobody collected.
    pub fn from(&self, lane: Lane) -> u64 {
        self.receive.lowest(lane, u64::MAX).unwrap_or(u64::MAX).min(self.through(lane))
    }

    /// Whether it may send something of this measure under this agreement.
    pub fn may_send(&self, measure: &MeasureCode, agreement: &AgreementId) -> bool {
        self.send.allows(measure, agreement)
    }

    /// Whether it may see an agreement: where it may send or receive under it.
    pub fn sees(&self, agreement: &Agreement) -> bool {
        let (id, mut measures) = (&agreement.text.id, agreement.text.measures.iter());
        measures.any(|measure| self.send.allows(measure, id) || self.receive.allows(measure, id))
    }
}

/// Before rights could change everything was given under those that there were.
const fn known(rights_at: u64) -> u64 {
    if rights_at == 0 { u64::MAX } else { rights_at }
}
