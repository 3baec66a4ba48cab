//! What agencies were answered and given: noted by the clients, compared with the journals by the judges. What is wrong with an answer by
//! itself fails at once.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::{ExchangeId, Lane};
use concord_node::calls::Cursors;
use concord_wire::header::{exchange_id, withdraws};
use concord_wire::proto::agency::v1::{ReceiveResponse, SubmitRequest};

use crate::forum::{AGENCIES, Member, STATES, name};

/// What the clients know.
#[derive(Default)]
pub(crate) struct Log {
    /// Exchanges answered *queued*.
    pub(crate) queued: BTreeMap<ExchangeId, Queued>,
    /// Which of them were answered as withdrawn, and by which.
    pub(crate) withdrawn: BTreeMap<ExchangeId, ExchangeId>,
    /// Which could not be withdrawn, since they were said to be refused.
    pub(crate) not_current: BTreeSet<ExchangeId>,
    /// What the agencies of a state were told is withdrawn.
    pub(crate) told: BTreeMap<usize, BTreeSet<ExchangeId>>,
    /// What each agency was given: its exchange and the number under which it came.
    pub(crate) given: BTreeMap<(usize, usize), Given>,
    /// Clients that are at work on something that must come to an end.
    pub(crate) busy: usize,
    /// Faults are over: whoever holds an acknowledgement back gives it now.
    pub(crate) healed: bool,
    /// An older copy was put in the place of the hub's journal.
    pub(crate) hub_put_back: bool,
}

/// What an agency submitted and was answered as *queued*.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Queued {
    pub(crate) state: usize,
    pub(crate) agency: usize,
    pub(crate) request: SubmitRequest,
}

/// What one agency was given.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) exchanges: BTreeMap<ExchangeId, (Lane, u64)>,
    /// The last number of each lane whose acknowledgement was answered.
    acknowledged: [u64; Lane::ALL.len()],
    last: [u64; Lane::ALL.len()],
}

impl Log {
    /// Two requests never get one exchange.
    pub(crate) fn note(&mut self, id: ExchangeId, queued: Queued) {
        let before = self.queued.insert(id, queued);
        assert_eq!(before, None, "I3: two requests got the exchange {id}");
    }

    /// What an agency submitted and nobody tried to withdraw.
    pub(crate) fn current(&self, who: (usize, usize)) -> Vec<(ExchangeId, SubmitRequest)> {
        let notices: BTreeSet<_> = self.withdrawn.values().collect();
        let own = self.queued.iter().filter(|(id, queued)| {
            let is_open = !self.withdrawn.contains_key(id) && !self.not_current.contains(id);
            (queued.state, queued.agency) == who && is_open && !notices.contains(id)
        });
        let mut own: Vec<_> = own.map(|(id, queued)| (*id, queued.request.clone())).collect();
        // Ids follow from keys, which every process makes anew; what a seed does must not.
        own.sort_by(|(_, one), (_, other)| one.request_id.cmp(&other.request_id));
        own
    }

    /// What the node of a state knows to be withdrawn, since it told so: no stream that begins now gives it.
    pub(crate) fn taken_back_at(&self, state: usize) -> BTreeSet<ExchangeId> {
        self.told.get(&state).cloned().unwrap_or_default()
    }

    /// What the agency is given must be new to it or not yet acknowledged, and come in the mailbox's order. Answers its place there.
    pub(crate) fn keep(&mut self, who: (usize, usize), member: &Member, item: &ReceiveResponse) -> (Lane, u64) {
        let place = place(who, member, &item.cursor);
        let (lane, number) = (place.0.slot(), place.1);
        let id = exchange_id(&item.header);
        if let Some(withdrawal) = withdraws(&item.header) {
            self.told.entry(who.0).or_default().insert(withdrawal.exchange);
        }
        // The answer to its sender may still be on its way; then the judgement compares what was recorded.
        if let Some(queued) = self.queued.get(&id) {
            assert_eq!(queued.request.body, item.body, "I1: {id} was given with another body");
        }
        let given = self.given.entry(who).or_default();
        let agency = format!("{} {}", STATES[who.0], AGENCIES[who.1]);
        assert!(number > given.acknowledged[lane], "I3: {agency} was given {number} again after it acknowledged it");
        match given.exchanges.insert(id, place) {
            Some(before) => assert_eq!(before, place, "I3: {agency} got one exchange as two"),
            None => {
                assert!(number > given.last[lane], "I4: {agency} was given {number} after {}", given.last[lane]);
                given.last[lane] = number;
            }
        }
        place
    }

    /// An acknowledgement was answered.
    pub(crate) fn acknowledged(&mut self, who: (usize, usize), member: &Member, cursor: &[u8]) {
        let (lane, number) = place(who, member, cursor);
        let given = self.given.entry(who).or_default();
        let acknowledged = &mut given.acknowledged[lane.slot()];
        *acknowledged = number.max(*acknowledged);
    }
}

/// The lane, and the number in its mailbox: whoever has the node's key can open its cursors.
fn place((_, agency): (usize, usize), member: &Member, cursor: &[u8]) -> (Lane, u64) {
    let opened = Cursors::of(&member.signing_key(), &name(AGENCIES[agency]), None).open(cursor);
    opened.unwrap_or_else(|refusal| panic!("I3: a cursor that was given is none: {refusal}")).place()
}
