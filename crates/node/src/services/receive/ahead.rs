//! What an agency is to be given next: ahead of its cursors, flash first; then what lies behind them and nobody collected.

use std::collections::{BTreeSet, VecDeque};

use concord_model::{Lane, Name};

use crate::index::{Index, IndexError};
use crate::projection::InboxRow;
use crate::state::rights::{About, entitled, owed};
use crate::state::{Agency, NodeState};

/// Rows of one lane that are read ahead; bodies are read one by one.
const ROWS_AHEAD_MAX: usize = 256;

/// One delivery that is to be given.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) lane: Lane,
    pub(super) number: u64,
    pub(super) row: InboxRow,
    pub(super) right: GivenBy,
}

/// By what an agency is given a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenBy {
    /// By a rule of this entry of the journal; all that is before it in its lane, and given by the rights as `rights_at` left them, was
    /// given before it.
    Rule { since: u64, rights_at: u64 },
    /// Nobody else had the right to it: it lies behind the agency's cursor, and is acknowledged by itself.
    Uncollected,
    /// It had been set aside and holds after all: no cursor speaks of it, and it is acknowledged by itself.
    Late,
}

impl GivenBy {
    /// Whether it holds on this state.
    pub(super) fn holds(self, state: &NodeState, agency: &Name, about: &About, lane: Lane, number: u64) -> bool {
        let Some(known) = state.agencies().get(agency) else { return false };
        match self {
            // Where it was taken away and granted again, it is read again under the new rule.
            Self::Rule { since, .. } => owed(known, about, lane, number) == Some(since),
            Self::Uncollected => is_uncollected(state, known, about, lane, number),
            Self::Late => state.late_one(lane, number).is_some_and(|late| late.is_owed_to(known, lane, number)),
        }
    }
}

/// Whether an agency may have what it passed without the right, since no agency is to be given it. That nobody has taken it is asked
/// elsewhere.
pub(super) fn is_uncollected(state: &NodeState, agency: &Agency, about: &About, lane: Lane, number: u64) -> bool {
    let is_behind = number <= agency.through(lane) && agency.collects(lane, number);
    is_behind && entitled(agency, about) && !state.is_awaited(about, lane, number)
}

/// Where the stream of one agency stands.
pub(super) struct ReadAhead {
    agency: Name,
    /// The agency's rights as this entry of the journal left them: those by which `lanes` stand.
    rights_at: u64,
    lanes: [LaneAhead; Lane::ALL.len()],
    behind: Behind,
    /// What had been set aside and was given on this stream.
    late: BTreeSet<(Lane, u64)>,
}

/// One lane.
#[derive(Default)]
struct LaneAhead {
    /// Everything up to here was given, or is not the agency's by the rights of then.
    passed: u64,
    /// Rows behind that, in their order.
    rows: VecDeque<(u64, InboxRow)>,
    /// Rows are read up to here.
    scanned: u64,
    /// What became the agency's since, of what was passed.
    again: Option<Again>,
    /// Damaged: what follows in the lane waits, so that no cursor passes it.
    held: Option<Found>,
}

/// The numbers of a lane that were passed before the agency's rights changed.
struct Again {
    next: u64,
    last: u64,
    /// What was given by older rules was given.
    rights_before: u64,
}

/// What lies behind the cursors.
#[derive(Default)]
struct Behind {
    /// The rights of all agencies as this entry left them; 0 before any changed.
    rights_at: u64,
    place: usize,
    next: u64,
    is_done: bool,
    found_some: bool,
    rows: VecDeque<(Lane, u64)>,
    held: VecDeque<Found>,
}

impl ReadAhead {
    pub(super) fn new(agency: &Agency) -> Self {
        let lane = |lane| LaneAhead { passed: agency.from(lane), scanned: agency.from(lane), ..LaneAhead::default() };
        Self {
            agency: agency.name.clone(),
            rights_at: agency.rights_at,
            lanes: Lane::ALL.map(lane),
            behind: Behind { is_done: true, ..Behind::default() },
            late: BTreeSet::new(),
        }
    }

    /// Gives this one again, and nothing of its lane until [`Self::go_on`].
    pub(super) fn wait(&mut self, found: Found) {
        let lane = found.lane.slot();
        match found.right {
            GivenBy::Rule { .. } => self.lanes[lane].held = Some(found),
            GivenBy::Uncollected | GivenBy::Late => self.behind.held.push_back(found),
        }
    }

    /// What was damaged is back, or never comes.
    pub(super) fn go_on(&mut self) -> Vec<Found> {
        let held = self.lanes.iter_mut().filter_map(|lane| lane.held.take());
        let held: Vec<Found> = held.collect();
        held.into_iter().chain(self.behind.held.drain(..)).collect()
    }

    /// The next one that this agency may have; none where there is none, or the agency was ended.
    pub(super) fn next(&mut self, state: &NodeState, index: &Index) -> Result<Option<Found>, IndexError> {
        let Some(agency) = state.agencies().get(&self.agency) else { return Ok(None) };
        if agency.rights_at != self.rights_at {
            for lane in Lane::ALL {
                self.lanes[lane.slot()].rights_changed(agency.from(lane), self.rights_at);
            }
            self.rights_at = agency.rights_at;
            // What was read for it while it had no right was not given.
            self.late.clear();
        }
        for lane in Lane::ALL {
            if let Some(found) = self.next_late(state, agency, lane, index)? {
                return Ok(Some(found));
            }
            let received = state.mailbox(lane).received_through;
            if let Some(found) = self.lanes[lane.slot()].next(agency, lane, received, index)? {
                return Ok(Some(found));
            }
        }
        self.behind.next(state, agency, index)
    }

    /// What had been set aside in a lane, is owed to this agency and was not given on this stream.
    fn next_late(
        &mut self,
        state: &NodeState,
        agency: &Agency,
        lane: Lane,
        index: &Index,
    ) -> Result<Option<Found>, IndexError> {
        for ((_, number), late) in state.late().range((lane, 0)..=(lane, u64::MAX)) {
            if !late.is_owed_to(agency, lane, *number) || !self.late.insert((lane, *number)) {
                continue;
            }
            let row = index.inbox(lane, *number, 1)?.pop().filter(|(found, _)| found == number);
            if let Some((number, row)) = row {
                return Ok(Some(Found { lane, number, row, right: GivenBy::Late }));
            }
        }
        Ok(None)
    }
}

impl LaneAhead {
    /// What was passed is looked at again, for what is the agency's by the rules that came since.
    fn rights_changed(&mut self, from: u64, rights_before: u64) {
        if let Some(held) = self.held.take() {
            self.passed = self.passed.min(held.number - 1);
        }
        self.rows.clear();
        self.scanned = self.passed;
        let rights_before = self.again.as_ref().map_or(rights_before, |again| again.rights_before);
        let again = Again { next: from + 1, last: self.passed, rights_before };
        self.again = (again.next <= again.last).then_some(again);
    }

    fn next(&mut self, agency: &Agency, lane: Lane, received: u64, index: &Index) -> Result<Option<Found>, IndexError> {
        if self.held.is_some() {
            return Ok(None);
        }
        let rights_at = agency.rights_at;
        while let Some(again) = &mut self.again {
            let rows = index.inbox(lane, again.next, ROWS_AHEAD_MAX)?;
            let is_last = rows.len() < ROWS_AHEAD_MAX;
            for (number, row) in rows.into_iter().take_while(|(number, _)| *number <= again.last) {
                again.next = number + 1;
                if row.is_late {
                    continue;
                }
                let new = owed(agency, &row.about, lane, number).filter(|since| *since > again.rights_before);
                if let Some(since) = new {
                    let right = GivenBy::Rule { since, rights_at };
                    return Ok(Some(Found { lane, number, row, right }));
                }
            }
            if is_last || again.next > again.last {
                self.again = None;
            }
        }
        loop {
            if let Some((number, row)) = self.rows.pop_front() {
                self.passed = number;
                if row.is_late {
                    continue;
                }
                if let Some(since) = owed(agency, &row.about, lane, number) {
                    let right = GivenBy::Rule { since, rights_at };
                    return Ok(Some(Found { lane, number, row, right }));
                }
                continue;
            }
            self.passed = self.scanned;
            if self.scanned >= received {
                return Ok(None);
            }
            self.rows.extend(index.inbox(lane, self.scanned + 1, ROWS_AHEAD_MAX)?);
            let full = self.rows.len() >= ROWS_AHEAD_MAX;
            // Rows are there before the state is published, so that none is passed over.
            self.scanned = match self.rows.back() {
                Some((last, _)) if full => *last,
                Some((last, _)) => (*last).max(received),
                None => received,
            };
        }
    }
}

impl Behind {
    /// Looks once after each change of anybody's rights, and not at all while none was changed.
    fn next(&mut self, state: &NodeState, agency: &Agency, index: &Index) -> Result<Option<Found>, IndexError> {
        if state.rights_at() != self.rights_at {
            let rights_at = state.rights_at();
            let is_done = index.looked_back().is_done(&agency.name, rights_at);
            *self = Self { rights_at, is_done, held: std::mem::take(&mut self.held), ..Self::default() };
        }
        while !self.is_done {
            if let Some((lane, number)) = self.rows.pop_front() {
                let row = index.inbox(lane, number, 1)?.pop().filter(|(found, _)| *found == number);
                if let Some((number, row)) = row {
                    return Ok(Some(Found { lane, number, row, right: GivenBy::Uncollected }));
                }
                continue;
            }
            let Some(lane) = Lane::ALL.get(self.place).copied() else {
                self.is_done = true;
                if !self.found_some {
                    index.looked_back().done(&agency.name, self.rights_at);
                }
                break;
            };
            let page = index.untaken(lane, self.next, agency.through(lane))?;
            match page.last() {
                Some((last, _)) => self.next = last + 1,
                None => (self.place, self.next) = (self.place + 1, 0),
            }
            let may = page.into_iter().filter(|(number, about)| {
                is_uncollected(state, agency, about, lane, *number) && !index.damaged().is_gone(lane, *number)
            });
            self.rows.extend(may.map(|(number, _)| (lane, number)));
            self.found_some |= !self.rows.is_empty();
        }
        Ok(None)
    }
}
