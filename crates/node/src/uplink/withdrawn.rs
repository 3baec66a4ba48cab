//! What the hub is told beside a consignment of what the withdrawals in it are about.
//!
//! Invariants: what this hub said to be withdrawn goes to nobody any more, also where it forgot that, and the exchange is handed in before its
//! withdrawal; whoever may have an exchange hears that it was withdrawn, also where the hub forgot whom it gave it to: the withdrawal goes on
//! another lane, and may come before the exchange is handed in again. So this hub's own receipt goes with it, which names them; where that
//! never came here, the hub's history goes with it that this node had heard of when it queued the exchange: a hub that lost data since names
//! them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use concord_ledger::epoch::FIRST_EPOCH;
use concord_model::{ExchangeId, Lane, ParticipantCode};
use concord_wire::convert::{lane as lane_number, parse_lane};
use concord_wire::header::{exchange_id, withdraws};
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignWelcome, Consignment, LastConsignment, RecordedReceipt, WithdrawnPlace,
};

use super::lane::broken;
use crate::context::Context;
use crate::index::{Index, IndexError, Place};
use crate::link::LinkEnd;
use crate::state::NodeState;
use crate::withdraw::withdrawn;

/// Receipts beside one consignment. Where they were more, it waits until the hub has what they are for.
const RECEIPTS_BESIDE_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What the hub had of this node's chains when it welcomed it, and what had its receipt here by then.
#[derive(Debug, Clone)]
pub(super) struct HubHas {
    lasts: Arc<BTreeMap<(Lane, u32), u64>>,
    then: NodeState,
}

impl HubHas {
    pub(super) fn by(welcome: &ConsignWelcome, then: &NodeState) -> Self {
        let last = |last: &LastConsignment| Some(((parse_lane(last.lane).ok()?, last.epoch), last.number));
        Self { lasts: Arc::new(welcome.lasts.iter().filter_map(last).collect()), then: then.clone() }
    }

    /// Whether it forgot the consignment in which an own exchange stands that has its receipt by now: under a number of a forked chain stands
    /// something else at the hub.
    fn forgot(&self, place: &Place) -> bool {
        let had_receipt = place.number <= self.receipted(place.lane, place.epoch);
        let is_there = self.lasts.get(&(place.lane, place.epoch)).is_some_and(|last| place.number <= *last);
        had_receipt && !is_there
    }

    /// Whether it forgot anything for which it gave a receipt.
    fn forgot_anything(&self) -> bool {
        Lane::ALL.into_iter().any(|lane| {
            (FIRST_EPOCH..=self.then.newest_chain(lane).epoch).any(|epoch| {
                let last = self.lasts.get(&(lane, epoch)).copied().unwrap_or(0);
                last < self.receipted(lane, epoch)
            })
        })
    }

    fn receipted(&self, lane: Lane, epoch: u32) -> u64 {
        match self.then.chain_in(lane, epoch) {
            Some(chain) => chain.recorded_through,
            None => self.then.past_chain(lane, epoch).unwrap_or(0),
        }
    }
}

/// Where that stands now which the withdrawals of a consignment are about: it may have been packed anew since. And the first receipts for what of
/// that the hub forgot; and which of its own exchanges are withdrawn by what the hub forgot.
pub(super) async fn told_of_withdrawn(
    context: &Context,
    consignment: &Consignment,
    epoch: u32,
    hub_has: &HubHas,
) -> Result<ConsignRequest, LinkEnd> {
    let withdrawing = (0..).zip(&consignment.headers);
    let withdrawing = withdrawing.filter_map(|(at, header)| Some((at, withdraws(header)?.exchange)));
    let withdrawing: Vec<(u32, ExchangeId)> = withdrawing.collect();
    // A hub that forgot nothing knows what is withdrawn.
    let may_be_withdrawn = if hub_has.forgot_anything() { &consignment.headers[..] } else { &[] };
    let may_be_withdrawn = may_be_withdrawn.to_vec();
    if withdrawing.is_empty() && may_be_withdrawn.is_empty() {
        return Ok(ConsignRequest::default());
    }
    let (index, origin, hub_has) = (context.index.clone(), context.participant.clone(), hub_has.clone());
    // What the hub said by now, also behind its welcome.
    let now = context.now_state();
    let found = concord_server::blocking(move || {
        let withdrawn_before = withdrawn_before(&index, &may_be_withdrawn, &origin, &hub_has)?;
        let told = find(&index, withdrawing, (epoch, &now), &hub_has)?;
        Ok::<_, IndexError>(told.map(|told| ConsignRequest { withdrawn_before, ..told }))
    });
    let told = found.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?;
    let Some(told) = told else {
        return Err(LinkEnd::Lost("what is withdrawn is packed anew first, into the epoch that was opened".to_owned()));
    };
    if told.withdrawn_receipts.iter().map(|receipt| receipt.statement.len()).sum::<usize>() > RECEIPTS_BESIDE_MAX_BYTES
    {
        let what = "what is withdrawn is handed in again first, since the hub lost it";
        return Err(LinkEnd::Lost(what.to_owned()));
    }
    Ok(told)
}

/// Which of these are withdrawn by what the hub recorded and forgot. Blocks.
fn withdrawn_before(
    index: &Index,
    headers: &[Bytes],
    origin: &ParticipantCode,
    hub_has: &HubHas,
) -> Result<Vec<u32>, IndexError> {
    let mut before = Vec::new();
    for (at, header) in (0..).zip(headers) {
        let Some(row) = withdrawn(index, &exchange_id(header), origin)? else { continue };
        let Some(by) = index.exchange(&row.by)? else { continue };
        if hub_has.forgot(&by) && index.receipt_of(&by)?.is_some() {
            before.push(at);
        }
    }
    Ok(before)
}

/// None where one of them is about what waits in an epoch before this one: it gets another place before it is recorded, and the hub would look for it
/// at the one that it has now. Blocks.
fn find(
    index: &Index,
    withdrawing: Vec<(u32, ExchangeId)>,
    (epoch, now): (u32, &NodeState),
    hub_has: &HubHas,
) -> Result<Option<ConsignRequest>, IndexError> {
    let mut places = Vec::with_capacity(withdrawing.len());
    let mut forgotten = BTreeSet::new();
    for (at, id) in withdrawing {
        let Some(place) = index.exchange(&id)? else { continue };
        let has_receipt = index.receipt_of(&place)?.is_some();
        if place.epoch < epoch && !has_receipt {
            return Ok(None);
        }
        if has_receipt && hub_has.forgot(&place) && !concord_faults::planted("withdraw-without-the-receipt") {
            forgotten.insert((place.lane, place.epoch, place.number));
        }
        places.push(WithdrawnPlace {
            index: at,
            lane: lane_number(place.lane).into(),
            epoch: place.epoch,
            number: place.number,
            target_index: u32::try_from(place.index).unwrap_or(u32::MAX),
            // Its receipt says more.
            queued_in_history: if has_receipt { Bytes::new() } else { queued_in(index, now, &place)? },
        });
    }
    let receipt = |(lane, epoch, number)| index.receipt(lane, epoch, number);
    let receipts: Vec<Option<RecordedReceipt>> = forgotten.into_iter().map(receipt).collect::<Result<_, _>>()?;
    let withdrawn_receipts = receipts.into_iter().flatten().collect();
    Ok(Some(ConsignRequest { withdrawn: places, withdrawn_receipts, ..ConsignRequest::default() }))
}

/// The hub's history that this node had heard of last when it queued an exchange; empty where it had heard of none. Blocks.
fn queued_in(index: &Index, now: &NodeState, place: &Place) -> Result<Bytes, IndexError> {
    let history = now.hub_history_at(index.queued_first(place)?.sequence);
    Ok(history.map(|history| Bytes::copy_from_slice(history.as_bytes())).unwrap_or_default())
}
