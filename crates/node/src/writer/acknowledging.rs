//! What agencies acknowledge: cursors move, and what is taken first is told.

use std::collections::BTreeSet;

use concord_model::{Lane, Name, Refusal};
use concord_views::SCAN_ROWS_MAX;
use concord_wire::stored::node::{self as stored, Acknowledged, Collected};

use super::WriterError;
use super::batch::Batch;
use crate::state::rights::owed;
use crate::state::{Late, Step};

impl Batch<'_> {
    /// Answers how far the cursor stands then: up to `through`, or as far as one entry goes.
    ///
    /// Invariant: only what the agency was given is taken by it: what it may have now by a rule that stood when the acknowledged one was
    /// given. What it passed without the right stays for whoever is granted it.
    pub(super) fn acknowledge(
        &mut self,
        agency: &Name,
        lane: Lane,
        through: u64,
        rights_at: u64,
    ) -> Result<Result<u64, Refusal>, WriterError> {
        let from = match self.state.decide_acknowledge(agency, lane, through, rights_at) {
            Ok(Some(from)) => from,
            Ok(None) => return Ok(Ok(through)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(known) = self.state.agencies().get(agency) else {
            return Ok(Ok(through));
        };
        // Two acknowledgements in one batch: the later one asks the views before the earlier one's rows are there.
        let taken_before: BTreeSet<u64> = self.taken_in_batch(lane);
        let rows = self.index.untaken(lane, from + 1, through)?;
        let reached = match rows.last() {
            Some((last, _)) if rows.len() >= SCAN_ROWS_MAX => *last,
            _ => through,
        };
        let given = rows.into_iter().filter(|(number, about)| {
            let by = owed(known, about, lane, *number);
            let was_given = by.is_some_and(|since| rights_at == 0 || since <= rights_at);
            // What had been set aside was given beside the cursors, whatever they pass.
            let is_late = self.state.late_one(lane, *number).is_some();
            let was_given = was_given && (!is_late || concord_faults::planted("let-cursors-take-what-is-late"));
            // What nobody has any more was passed, not taken.
            was_given && !taken_before.contains(number) && !self.index.damaged().is_gone(lane, *number)
        });
        let taken: Vec<u64> = given.map(|(number, _)| number).collect();
        let taken_as = self.told_as(lane, &taken)?;
        let fact = Acknowledged { agency: agency.clone(), lane, through: reached, taken, taken_as, rights_at };
        self.push(stored::agency_acknowledged(&fact, self.now))?;
        Ok(Ok(reached))
    }

    /// One delivery behind an agency's cursor, which nobody had the right to before; what somebody took meanwhile has no effect.
    pub(super) fn collect(
        &mut self,
        agency: Name,
        lane: Lane,
        number: u64,
    ) -> Result<Result<(), Refusal>, WriterError> {
        if let Some(late) = self.state.late_one(lane, number).cloned() {
            return self.collect_late(agency, (lane, number), &late);
        }
        let Some(about) =
            self.index.untaken_one(lane, number)?.filter(|_| !self.taken_in_batch(lane).contains(&number))
        else {
            return Ok(Ok(()));
        };
        match self.state.decide_collect(&agency, &about) {
            Ok(Step::Append) => {}
            Ok(Step::Repeat) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        }
        let taken_as = self.told_as(lane, &[number])?;
        self.push(stored::collected(&Collected { agency, lane, number, taken_as }, self.now)).map(Ok)
    }

    /// One that had been set aside: each of its agencies acknowledges it, and the first of them takes it.
    fn collect_late(
        &mut self,
        agency: Name,
        (lane, number): (Lane, u64),
        late: &Late,
    ) -> Result<Result<(), Refusal>, WriterError> {
        match self.state.decide_collect(&agency, &late.about) {
            Ok(Step::Append) if !late.taken_by.contains(&agency) => {}
            Ok(_) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        }
        let is_first = late.taken_by.is_empty() && self.index.is_untaken(lane, number)?;
        let taken_as = if is_first { self.told_as(lane, &[number])? } else { Some(Vec::new()) };
        self.push(stored::collected(&Collected { agency, lane, number, taken_as }, self.now)).map(Ok)
    }

    /// What the hub is told in place of these, where it knows them by other numbers, or by none.
    fn told_as(&self, lane: Lane, taken: &[u64]) -> Result<Option<Vec<u64>>, WriterError> {
        let mut known = Vec::with_capacity(taken.len());
        for number in taken {
            known.extend(self.known_to_hub_as(lane, *number)?);
        }
        Ok((known != taken).then_some(known))
    }
}
