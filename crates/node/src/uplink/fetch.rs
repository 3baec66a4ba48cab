//! What the hub has of this node's chains and the journal has no receipt for, fetched back: by a restored node before anything new is
//! numbered, and by any node before it packs anew what a closed epoch left.

use std::sync::Arc;

use concord_identity::verify;
use concord_model::{ExchangeId, Lane, Reason, Refusal};
use concord_wire::consignment::{chain_key, open};
use concord_wire::convert::timestamp;
use concord_wire::header;
use concord_wire::proto::exchange::v1::fetch_consignments_response::Message;
use concord_wire::proto::exchange::v1::{FetchConsignmentsRequest, FetchEnd, RehandedConsignment};
use concord_wire::receipt::{self, Outcome, Recorded};
use concord_wire::stored::Kept;
use concord_wire::stored::node::{LaneRecovered, NodeEntry, Submission, read};
use futures::{FutureExt as _, StreamExt as _};

use super::lane::{broken, unexpected};
use super::recovered;
use crate::context::Context;
use crate::index::{Index, IndexError};
use crate::link::{Attempt, HubLink, LinkEnd, keep_up, welcomed};
use crate::state::{NodeState, Restoration};
use crate::writer::Fetched;

const ALARM: &str = "recovering";
const RESTORED_NOTE: &str = "restored";
/// Own exchanges whose content is gone that one entry lists; the rest is counted.
const BODIES_LOST_LISTED_MAX: usize = 1000;
/// Entries of the own journal that are read at once.
const ENTRIES_READ_AT_ONCE: usize = 256;

/// Fetches until all is here; for a node that is recovering.
pub(super) async fn run(context: Context, link: Arc<dyn HubLink>) {
    context.readiness.raise(ALARM, "this node was restored, and fetches back from the hub what it lost");
    let attempt = || {
        let attempt = async {
            let end = recover(&context, link.as_ref()).await;
            Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood: false }
        };
        attempt.boxed()
    };
    tokio::select! {
        biased;
        done = recovered(&context) => {
            if done {
                context.readiness.clear(ALARM);
            }
        }
        () = keep_up(&context, ALARM, attempt) => {}
    }
    tell(&context);
}

async fn recover(context: &Context, link: &dyn HubLink) -> Result<(), LinkEnd> {
    // By the feed it knows its own earlier keys, too: under which the consignments are signed that come back.
    let is_known = |state: &Arc<NodeState>| context.keys.are_known(state);
    let mut published = context.state.clone();
    drop(published.wait_for(is_known).await.map_err(|_| LinkEnd::closed())?);
    for lane in Lane::ALL {
        let restoration = context.now_state().restoration();
        if restoration.is_none_or(|restoration| restoration.recovered[lane.slot()]) {
            continue;
        }
        // Epoch by epoch: each that the feed tells to be closed has one after it.
        let mut epoch = context.now_state().chain(lane).epoch;
        let end = loop {
            let end = fetch(context, link, (lane, epoch)).await?;
            // What this participant's officers said in the lost time uses numbers up, too.
            let mut published = context.state.clone();
            let told = published.wait_for(|state| state.feed().number >= end.feed_number);
            let is_closed = told.await.map_err(|_| LinkEnd::closed())?.closed(lane, epoch).is_some();
            if !is_closed {
                break end;
            }
            epoch += 1;
        };
        concord_faults::point("node.recover.fetched");
        let (index, since) = (context.index.clone(), restoration.map_or(1, |restoration| restoration.sequence));
        let found = concord_server::blocking(move || came_back(&index, lane, since)).await;
        let (fetched, lost) = found.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?;
        let fact = LaneRecovered {
            lane,
            fetched,
            delivered_through: end.mailbox.unwrap_or_default().delivered_through,
            bodies_lost_count: lost.len() as u64,
            bodies_lost: lost.into_iter().take(BODIES_LOST_LISTED_MAX).collect(),
        };
        context.writer.recovered(fact).await.map_err(LinkEnd::not_kept)?;
        concord_faults::point("node.recover.lane");
    }
    Ok(())
}

/// Takes in what the hub has of one chain and this journal has no receipt for.
pub(super) async fn fetch(
    context: &Context,
    link: &dyn HubLink,
    (lane, epoch): (Lane, u32),
) -> Result<FetchEnd, LinkEnd> {
    let state = context.now_state();
    let chain = state.chain_key_in(lane, epoch).map_err(LinkEnd::Refused)?;
    let recorded_through = state.chain_in(lane, epoch).map_or(0, |chain| chain.recorded_through);
    let mut taken_count = state.mailbox(lane).taken_count;
    let request = FetchConsignmentsRequest {
        limits: Some(concord_wire::limits()),
        chain: Some(chain_key(&chain)),
        after: recorded_through,
        taken_count,
        run: bytes::Bytes::copy_from_slice(&context.run),
    };
    let mut given = link.fetch(request).await?;
    loop {
        let response = welcomed(async { given.next().await.ok_or_else(LinkEnd::closed) }).await?;
        let response = response.map_err(|status| LinkEnd::from_status(&status))?;
        match response.message {
            Some(Message::End(end)) => return Ok(end),
            Some(Message::Consignment(given)) => {
                let context = context.clone();
                let writer = context.writer.clone();
                let checked = concord_server::blocking(move || check(&context, given)).await;
                let checked = checked.map_err(|error| LinkEnd::Lost(error.to_string()))?;
                let checked = checked.map_err(|refusal| match refusal.reason {
                    // The feed may have yet to tell of the hub's key.
                    Reason::SigningKeyUnknown => LinkEnd::Lost(refusal.message),
                    _ => LinkEnd::Refused(refusal),
                })?;
                let kept = writer.fetched(checked).await;
                kept.map_err(|refusal| match refusal.reason {
                    Reason::Fork => LinkEnd::Stopped(refusal.to_string()),
                    _ => LinkEnd::not_kept(refusal),
                })?;
                concord_faults::point("node.recover.kept");
            }
            Some(Message::Taken(taken)) => {
                let count = taken.numbers.len() as u64;
                context.writer.taken(lane, taken_count, taken.numbers).await.map_err(LinkEnd::not_kept)?;
                taken_count += count;
                concord_faults::point("node.recover.taken");
            }
            None => return Err(unexpected("it gives back something that this version does not know")),
        }
    }
}

/// How many consignments of a lane came back since the journal was restored, and the exchanges among them that the hub recorded and
/// has the content of no more. Read from the journal, so that it is whole however often the node was killed meanwhile. Blocks.
fn came_back(index: &Index, lane: Lane, since: u64) -> Result<(u64, Vec<ExchangeId>), IndexError> {
    let (mut fetched, mut lost, mut bare) = (0, Vec::new(), Vec::new());
    let mut next = since;
    loop {
        let entries = index.journal().recall(next, ENTRIES_READ_AT_ONCE)?;
        let Some(last) = entries.last() else { return Ok((fetched, lost)) };
        next = last.sequence + 1;
        for entry in &entries {
            match read(entry)? {
                NodeEntry::Queued(queued)
                    if queued.kept.sealed.chain.lane == lane && is_fetched(&queued.submissions) =>
                {
                    fetched += 1;
                    bare = without_blobs(&queued.kept);
                }
                NodeEntry::Receipt(receipt) if !bare.is_empty() => {
                    let recorded = receipt::parse(&receipt.statement).map_err(|_| IndexError::Row("a receipt"))?;
                    if recorded.chain.lane == lane {
                        lost.extend(recorded_of(std::mem::take(&mut bare), recorded));
                    }
                }
                NodeEntry::Found(kept, receipt) if kept.sealed.chain.lane == lane => {
                    fetched += 1;
                    let recorded = receipt::parse(&receipt.statement).map_err(|_| IndexError::Row("a receipt"))?;
                    lost.extend(recorded_of(without_blobs(&kept), recorded));
                }
                _ => {}
            }
        }
    }
}

/// Each exchange of a consignment that has no content beside the entry.
fn without_blobs(kept: &Kept) -> Vec<Option<ExchangeId>> {
    let ids = kept.sealed.headers.iter().map(|header| header::exchange_id(header));
    ids.zip(&kept.blob_counts).map(|(id, count)| (*count == 0).then_some(id)).collect()
}

/// Those of these exchanges that the hub recorded.
fn recorded_of(ids: Vec<Option<ExchangeId>>, recorded: Recorded) -> impl Iterator<Item = ExchangeId> {
    let outcomes = ids.into_iter().zip(recorded.outcomes);
    outcomes.filter_map(|(id, outcome)| id.filter(|_| matches!(outcome, Outcome::Recorded { .. })))
}

/// What came back from the hub names nobody who submitted it.
fn is_fetched(submissions: &[Submission]) -> bool {
    submissions.iter().all(|submission| submission.agency.is_empty())
}

/// Only what this node signed itself, and the hub receipted under the pinned key.
fn check(context: &Context, given: RehandedConsignment) -> Result<Box<Fetched>, Refusal> {
    let wrong =
        |what: &str| Refusal::new(Reason::SignatureInvalid, format!("what the hub gave back does not hold: {what}"));
    let consignment = given.consignment.ok_or_else(|| wrong("a consignment is missing"))?;
    let receipt = given.receipt.ok_or_else(|| wrong("a receipt is missing"))?;
    let state = context.now_state();
    let opened = open(consignment, &context.participant, |key, message, signature| {
        let own = state.directory().registry.signing_key(&context.participant, key);
        let own = own.ok_or_else(|| wrong("it is signed with a key that is not this node's, and was not"))?;
        verify(&own.bytes, message, signature).map_err(|_| wrong("its signature is not this node's"))
    })?;
    let recorded = receipt::verify(&receipt, |key, message, signature| {
        let known = state.key_of_hub(key).ok_or_else(|| {
            let what = format!("a receipt is signed with {}, which is not known here as the hub's key", key.grouped());
            Refusal::new(Reason::SigningKeyUnknown, what)
        })?;
        verify(&known.bytes, message, signature).map_err(|_| wrong("its receipt's signature is not the hub's"))
    })?;
    let sealed = opened.sealed;
    let is_its = recorded.chain == sealed.chain && recorded.number == sealed.number && recorded.digest == sealed.digest;
    if !is_its || recorded.outcomes.len() != sealed.headers.len() {
        return Err(wrong("its receipt is for another consignment"));
    }
    Ok(Box::new(Fetched { sealed, blobs: opened.blobs, receipt, recorded }))
}

/// What cannot be healed, in words.
fn lost(restoration: &Restoration) -> String {
    let until = timestamp(restoration.restored_at);
    let since = match restoration.taken_at {
        Some(taken_at) => format!("between {} and {until}", timestamp(taken_at)),
        None => format!("at any time before {until}"),
    };
    let mut what = format!(
        "this node was restored; {} consignments came back from the hub. What agencies handed in {since} and the hub never had is \
         lost: `concord track ID` tells of each exchange whether it is here. What they acknowledged in that time is given to them again",
        restoration.fetched
    );
    if restoration.bodies_lost_count > 0 {
        let gone = restoration.bodies_lost_count;
        what.push_str(&format!(". Of {gone} own exchanges the hub has the content no more; the journal lists them"));
    }
    what
}

/// Says what was restored and is not healed, for as long as it stands in the journal.
pub(super) fn tell(context: &Context) {
    if let Some(restoration) = context.now_state().restoration()
        && !context.now_state().is_recovering()
    {
        context.readiness.note(RESTORED_NOTE, lost(&restoration));
    }
}
