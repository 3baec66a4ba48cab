//! Leaving an epoch that the officer closed: first what the hub recorded of it is fetched, then the rest is packed anew.

use concord_model::{Lane, Reason, Refusal};
use futures::FutureExt as _;

use super::fetch::fetch;
use crate::context::Context;
use crate::link::{Attempt, HubLink, LinkEnd, keep_up};

/// Waits until the feed has told that an epoch of a lane is closed.
pub(super) async fn closed(context: &Context, lane: Lane, epoch: u32) {
    let mut published = context.state.clone();
    if published.wait_for(|state| state.closed(lane, epoch).is_some()).await.is_err() {
        std::future::pending().await
    }
}

/// Leads a lane into the next epoch; false where the node ends before.
pub(super) async fn leave(
    context: &Context,
    link: &dyn HubLink,
    (lane, epoch): (Lane, u32),
    alarm: &'static str,
) -> bool {
    let attempt = || {
        let attempt = async {
            let end = pack_anew(context, link, (lane, epoch)).await;
            Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood: false }
        };
        attempt.boxed()
    };
    let mut published = context.state.clone();
    let until_stopped = async {
        keep_up(context, alarm, attempt).await;
        std::future::pending().await
    };
    tokio::select! {
        // The ends first: each comes once.
        biased;
        () = context.shutdown.requested() => false,
        entered = published.wait_for(|state| state.chain(lane).epoch > epoch) => {
            concord_faults::point("node.pack.entered");
            context.readiness.clear(alarm);
            tracing::info!(%lane, epoch = epoch + 1, "what the hub had not recorded of the closed epoch is packed anew");
            entered.is_ok()
        }
        () = until_stopped => false,
    }
}

pub(crate) async fn pack_anew(
    context: &Context,
    link: &dyn HubLink,
    (lane, epoch): (Lane, u32),
) -> Result<(), LinkEnd> {
    let state = context.now_state();
    let (Some(tip), Some(chain)) = (state.closed(lane, epoch), state.chain_in(lane, epoch)) else { return Ok(()) };
    // What was recorded is known without the hub where every receipt is here.
    let hub_last = match chain.recorded_through >= tip.number {
        true => tip.number,
        false => fetch(context, link, (lane, epoch)).await?.last_number,
    };
    concord_faults::point("node.pack.fetched");
    loop {
        // Its own word is none of the hub's: the welcome ends it.
        if context.now_state().fence().is_some() {
            return Err(LinkEnd::Lost("the hub does not serve this copy of the node, which packs nothing".to_owned()));
        }
        // What waits takes its room once more, which must leave the reserve to what is under way.
        context.room.check().map_err(LinkEnd::OwnFull)?;
        if context.writer.pack_anew(lane, hub_last).await.map_err(not_packed)? {
            return Ok(());
        }
        concord_faults::point("node.pack.going");
    }
}

fn not_packed(refusal: Refusal) -> LinkEnd {
    match refusal.reason {
        Reason::NodeRolledBack | Reason::NodeSuperseded => LinkEnd::Lost(refusal.message),
        _ => LinkEnd::not_kept(refusal),
    }
}
