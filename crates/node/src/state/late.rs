//! What had been set aside and holds after all, until its agencies have it.
//!
//! It stands in the mailbox under a number that cursors passed when nothing was given under it. So no cursor speaks of it: each agency that
//! was there when it was accepted, and may have it, acknowledges it by itself. Invariant: an agency is given it until it has acknowledged
//! it, and never after; and no cursor, wherever it moves, takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_model::{ExchangeId, Lane, Name, ParticipantCode, Timestamp};
use concord_wire::header;
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::stored::node::{Received, Verdict};
use serde::{Deserialize, Serialize};

use super::rights::{About, entitled};
use super::{Agency, NodeState};

/// What may wait for agencies in this way. More is accepted once they took some: `QUEUE_FULL`.
pub const LATE_MAX: usize = 1_000;

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// Its id.
    pub id: ExchangeId,
    /// Whose it is.
    pub origin: ParticipantCode,
    /// Which agencies it is for.
    pub about: About,
    /// The entry that accepted it.
    pub sequence: u64,
    /// When that was.
    pub at: Timestamp,
    /// Who has acknowledged it.
    pub taken_by: BTreeSet<Name>,
}

impl Late {
    /// Whether an agency is to be given it, wherever its cursors are.
    pub fn is_owed_to(&self, agency: &Agency, lane: Lane, number: u64) -> bool {
        agency.was_there_at(self.sequence)
            && agency.collects(lane, number)
            && entitled(agency, &self.about)
            && !self.taken_by.contains(&agency.name)
    }
}

impl NodeState {
    /// What waits for agencies in this way, by lane and number.
    pub fn late(&self) -> &BTreeMap<(Lane, u64), Late> {
        &self.late
    }

    /// One of them.
    pub fn late_one(&self, lane: Lane, number: u64) -> Option<&Late> {
        self.late.get(&(lane, number))
    }

    pub(super) fn late_accepted(&mut self, lane: Lane, delivery: &Delivery, sequence: u64, at: Timestamp) {
        // It was judged before it was journaled.
        let Ok(parsed) = header::parse(&delivery.header) else { return };
        let late = Late {
            id: header::exchange_id(&delivery.header),
            origin: parsed.origin.clone(),
            about: About::of(&parsed),
            sequence,
            at,
            taken_by: BTreeSet::new(),
        };
        Arc::make_mut(&mut self.late).insert((lane, delivery.number), late);
        self.late_withdrawn_by(delivery);
    }

    pub(super) fn late_taken(&mut self, lane: Lane, number: u64, by: &Name) {
        if !self.late.contains_key(&(lane, number)) {
            return;
        }
        if let Some(late) = Arc::make_mut(&mut self.late).get_mut(&(lane, number)) {
            late.taken_by.insert(by.clone());
        }
        self.settle_late();
    }

    /// What is withdrawn waits for nobody any more.
    pub(super) fn late_withdrawn(&mut self, items: &[Received]) {
        for item in items {
            if let Verdict::Accepted(delivery) = &item.verdict {
                self.late_withdrawn_by(delivery);
            }
        }
    }

    fn late_withdrawn_by(&mut self, delivery: &Delivery) {
        if self.late.is_empty() {
            return;
        }
        let Some(withdrawal) = header::withdraws(&delivery.header) else { return };
        let Ok(parsed) = header::parse(&delivery.header) else { return };
        let is_it = |late: &Late| late.id == withdrawal.exchange && late.origin == parsed.origin;
        if self.late.values().any(is_it) {
            Arc::make_mut(&mut self.late).retain(|_, late| !is_it(late));
        }
    }

    /// Forgets what somebody has taken and nobody waits for; what nobody may have yet waits on.
    pub(super) fn settle_late(&mut self) {
        let is_over = |(lane, number): &(Lane, u64), late: &Late| {
            !late.taken_by.is_empty() && !self.all_agencies().any(|agency| late.is_owed_to(agency, *lane, *number))
        };
        let over: Vec<(Lane, u64)> =
            self.late.iter().filter(|(place, late)| is_over(place, late)).map(|(place, _)| *place).collect();
        if !over.is_empty() {
            let late = Arc::make_mut(&mut self.late);
            over.iter().for_each(|place| drop(late.remove(place)));
        }
    }
}
