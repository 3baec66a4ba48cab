//! What the hub is told beside a consignment of what the withdrawals in it are about.
//!
//! Invariant: whoever may have an exchange hears that it was withdrawn, also where the hub forgot whom it gave it to: the withdrawal goes on
//! another lane, and may come before the exchange is handed in again. So this hub's own receipt goes with it, which names them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_model::{ExchangeId, Lane};
use concord_wire::convert::{lane as lane_number, parse_lane};
use concord_wire::header::withdraws;
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignWelcome, Consignment, LastConsignment, RecordedReceipt, WithdrawnPlace,
};

use super::lane::broken;
use crate::index::{Index, IndexError, Place};
use crate::link::LinkEnd;
use crate::state::NodeState;

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

    /// Whether it forgot the consignment in which an own exchange stands.
    fn forgot(&self, place: &Place) -> bool {
        let Place { lane, epoch, number, .. } = *place;
        let receipted = match self.then.chain_in(lane, epoch) {
            Some(chain) => chain.recorded_through,
            None => self.then.past_chain(lane, epoch).unwrap_or(0),
        };
        number <= receipted && self.lasts.get(&(lane, epoch)).is_none_or(|last| *last < number)
    }
}

/// Where that stands now which the withdrawals of a consignment are about: it may have been packed anew since. And the first receipts for what of
/// that the hub forgot.
pub(super) async fn told_of_withdrawn(
    index: &Index,
    consignment: &Consignment,
    hub_has: &HubHas,
) -> Result<ConsignRequest, LinkEnd> {
    let withdrawing = (0..).zip(&consignment.headers);
    let withdrawing = withdrawing.filter_map(|(at, header)| Some((at, withdraws(header)?.exchange)));
    let withdrawing: Vec<(u32, ExchangeId)> = withdrawing.collect();
    if withdrawing.is_empty() {
        return Ok(ConsignRequest::default());
    }
    let (index, hub_has) = (index.clone(), hub_has.clone());
    let found = concord_server::blocking(move || find(&index, withdrawing, &hub_has));
    let told = found.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?;
    if told.withdrawn_receipts.iter().map(|receipt| receipt.statement.len()).sum::<usize>() > RECEIPTS_BESIDE_MAX_BYTES
    {
        let what = "what is withdrawn is handed in again first, since the hub lost it";
        return Err(LinkEnd::Lost(what.to_owned()));
    }
    Ok(told)
}

/// Blocks.
fn find(index: &Index, withdrawing: Vec<(u32, ExchangeId)>, hub_has: &HubHas) -> Result<ConsignRequest, IndexError> {
    let mut places = Vec::with_capacity(withdrawing.len());
    let mut forgotten = BTreeSet::new();
    for (at, id) in withdrawing {
        let Some(place) = index.exchange(&id)? else { continue };
        if hub_has.forgot(&place) && !concord_faults::planted("withdraw-without-the-receipt") {
            forgotten.insert((place.lane, place.epoch, place.number));
        }
        places.push(WithdrawnPlace {
            index: at,
            lane: lane_number(place.lane).into(),
            epoch: place.epoch,
            number: place.number,
            target_index: u32::try_from(place.index).unwrap_or(u32::MAX),
        });
    }
    let receipt = |(lane, epoch, number)| index.receipt(lane, epoch, number);
    let receipts: Vec<Option<RecordedReceipt>> = forgotten.into_iter().map(receipt).collect::<Result<_, _>>()?;
    let withdrawn_receipts = receipts.into_iter().flatten().collect();
    Ok(ConsignRequest { message: None, withdrawn: places, withdrawn_receipts })
}
