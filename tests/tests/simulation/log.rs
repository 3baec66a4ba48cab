//! What agencies were answered and given: noted by the clients, compared with the journals by the judges. What is wrong with an answer by
//! itself fails at once.

use std::collections::BTreeMap;

use concord_model::{ExchangeId, Lane};
use concord_node::calls::Cursors;
use concord_wire::header::exchange_id;
use concord_wire::proto::agency::v1::{ReceiveResponse, SubmitRequest};

use crate::forum::{AGENCIES, Member, STATES, name};

/// What the clients know.
#[derive(Default)]
pub(crate) struct Log {
    /// Exchanges answered *queued*.
    pub(crate) queued: BTreeMap<ExchangeId, Queued>,
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

    /// What the agency is given must be new to it or not yet acknowledged, and come in the mailbox's order. Answers its place there.
    pub(crate) fn keep(&mut self, who: (usize, usize), member: &Member, item: &ReceiveResponse) -> (Lane, u64) {
        let place = place(who, member, &item.cursor);
        let (lane, number) = (place.0.slot(), place.1);
        let id = exchange_id(&item.header);
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
