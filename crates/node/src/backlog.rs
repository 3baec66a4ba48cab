//! What waits for a hub that is away, and whose it is: the disk is everybody's, and no agency takes all the room of the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use concord_model::{Lane, Name, Reason, Refusal};

use crate::state::NodeState;

/// One agency has what remains without one part in so many, which is the others'.
const LEFT_TO_OTHERS: u64 = 4;

/// How much may wait in each lane, and what of it each agency handed in since this process began. What waited before is counted for the
/// whole, and for nobody.
#[derive(Debug)]
pub struct Backlog {
    most: u64,
    waiting: Mutex<BTreeMap<(Name, Lane), Waiting>>,
}

/// What one agency has waiting in a lane.
#[derive(Debug, Default)]
struct Waiting {
    queued: VecDeque<Queued>,
    /// Of all of it: a submission must not count what may be many consignments.
    exchanges: u64,
}

/// Exchanges up to a consignment. What is packed anew is counted no more.
#[derive(Debug)]
struct Queued {
    epoch: u32,
    through: u64,
    exchanges: u64,
}

impl Queued {
    fn waits(&self, state: &NodeState, lane: Lane) -> bool {
        state.chain_in(lane, self.epoch).is_some_and(|chain| self.through > chain.settled_through())
    }
}

impl Backlog {
    /// So many exchanges may wait in each lane.
    pub fn new(most: u64) -> Self {
        Self { most, waiting: Mutex::default() }
    }

    /// Refuses with `QUOTA_EXCEEDED` where one more may not wait, of anybody or of this agency.
    pub(crate) fn check(&self, state: &NodeState, agency: &Name, lane: Lane) -> Result<(), Refusal> {
        let refused = |words: String| Err(Refusal::new(Reason::QuotaExceeded, words));
        let waiting = state.unrecorded_exchanges(lane);
        if waiting >= self.most {
            return refused(format!(
                "{waiting} exchanges of this lane wait for the hub here, the most is {}",
                self.most
            ));
        }
        let (of_agency, most) = (self.waiting_of(state, agency, lane), self.most - self.most / LEFT_TO_OTHERS);
        if of_agency >= most {
            let most = format!("the most of one agency is {most}, so that others have room");
            return refused(format!("{of_agency} exchanges of {agency} wait for the hub here in this lane; {most}"));
        }
        Ok(())
    }

    fn waiting_of(&self, state: &NodeState, agency: &Name, lane: Lane) -> u64 {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (agency.clone(), lane);
        let Some(of_agency) = all.get_mut(&key) else { return 0 };
        while let Some(first) = of_agency.queued.front().filter(|first| !first.waits(state, lane)) {
            of_agency.exchanges -= first.exchanges;
            of_agency.queued.pop_front();
        }
        let waiting = of_agency.exchanges;
        if waiting == 0 {
            all.remove(&key);
        }
        waiting
    }

    /// Counts what an agency was answered just now: it stands in the last consignment at the latest.
    pub(crate) fn queued(&self, state: &NodeState, agency: &Name, lane: Lane, exchanges: u64) {
        let chain = state.chain(lane);
        let (epoch, through) = (chain.epoch, chain.last_number);
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.entry((agency.clone(), lane)).or_default();
        waiting.exchanges += exchanges;
        match waiting.queued.back_mut() {
            Some(last) if (last.epoch, last.through) == (epoch, through) => last.exchanges += exchanges,
            _ => waiting.queued.push_back(Queued { epoch, through, exchanges }),
        }
    }
}
