//! Giving a node that lost data its own consignments back, with the receipts that they were given.
//!
//! Invariant: a node gets only its own chain back, and for each number what the journal has under it, so that it goes on after it.

use std::sync::Arc;

use bytes::Bytes;
use concord_identity::Caller;
use concord_model::{ChainKey, Reason, Refusal};
use concord_wire::consignment::{blob_to_bytes, parse_chain_key, to_message};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::fetch_consignments_response::Message;
use concord_wire::stored::hub::HubEntry;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::acknowledge::recorded;
use crate::consign::receipt_for;
use crate::projection::{consignment_entry, taken_entries};
use crate::sequencer::Answer;
use crate::shared::{Shared, internal};

/// What a node is told that it has: shown until this process ends, since somebody has to know that data was lost.
const RESTORED_NOTE: &str = "node-restored";

/// First acknowledgements in one message.
const TAKEN_TOGETHER_MAX: usize = 50_000;

/// What is given back, read as it is taken.
pub type Given = BoxStream<'static, Result<pb::FetchConsignmentsResponse, Refusal>>;

/// What comes next.
enum Next {
    Consignment(u64),
    /// First acknowledgements after so many.
    Taken(u64),
    Nothing,
}

/// Begins to give a chain back after a number.
///
/// Refuses with `CHAIN_MISMATCH`, `HEALING` or `PROTOCOL_UNSUPPORTED`.
pub async fn fetch(
    shared: Arc<Shared>,
    caller: Caller,
    request: pb::FetchConsignmentsRequest,
) -> Result<Given, Refusal> {
    shared.enrolled_node(&caller)?;
    concord_wire::check_limits(request.limits.as_ref())?;
    let named = request.chain.ok_or_else(|| Refusal::new(Reason::ChainMismatch, "the request names no chain"))?;
    let chain = parse_chain_key(caller.identity.participant.clone(), &named)?;
    if chain.hub != shared.hub || chain.node != caller.identity.name {
        return Err(Refusal::new(Reason::ChainMismatch, "a node fetches its own chain from the hub that it joined"));
    }
    shared.feed_first_of(&chain.origin, &request.run).await?;
    let what = format!("the node of {} says that it was restored, and fetches back what it lost", chain.origin);
    tracing::warn!(participant = %chain.origin, lane = %chain.lane, after = request.after, "{what}");
    shared.readiness.note(RESTORED_NOTE, what);
    metrics::counter!("concord_nodes_restored_total").increment(1);
    concord_faults::point("hub.fetch.begin");
    // What comes later than this the node sends or hears by its ordinary streams.
    let published = shared.published();
    let last = published.ledger.chain_last(&chain);
    let mailbox = published.ledger.mailbox(&chain.origin, chain.lane);
    let end = pb::FetchEnd { feed_number: published.ledger.feed_last(&chain.origin), mailbox: Some(recorded(mailbox)) };
    let ending = Arc::clone(&shared);
    let after_consignments = move |number: u64| {
        if number <= last { Next::Consignment(number) } else { Next::Taken(request.taken_count) }
    };
    let begin = after_consignments(request.after.saturating_add(1));
    let given = stream::unfold(begin, move |next| {
        let (shared, chain, end) = (Arc::clone(&shared), chain.clone(), end);
        async move {
            match next {
                Next::Nothing => None,
                Next::Consignment(number) => {
                    let given = give(&shared, chain, number).await;
                    let next = if given.is_ok() { after_consignments(number + 1) } else { Next::Nothing };
                    Some((given, next))
                }
                Next::Taken(count) if count < mailbox.taken_count => {
                    let taken = shared.blocking(move |shared| taken_after(shared, &chain, count)).await;
                    let next = match &taken {
                        Ok(numbers) if !numbers.is_empty() => Next::Taken(count + numbers.len() as u64),
                        _ => Next::Nothing,
                    };
                    let taken = taken.and_then(|numbers| if numbers.is_empty() { Err(behind()) } else { Ok(numbers) });
                    let message = |numbers| Message::Taken(pb::TakenBefore { numbers });
                    Some((taken.map(|numbers| response(message(numbers))), next))
                }
                Next::Taken(_) => Some((Ok(response(Message::End(end))), Next::Nothing)),
            }
        }
    });
    let ended = async move { ending.shutdown.streams_end().await };
    Ok(given.take_until(Box::pin(ended)).boxed())
}

fn response(message: Message) -> pb::FetchConsignmentsResponse {
    pb::FetchConsignmentsResponse { message: Some(message) }
}

fn behind() -> Refusal {
    Refusal::new(Reason::Healing, "the views of this hub are behind: fetch again in a moment")
}

/// First acknowledgements of a chain's origin and lane after the `count`-th, as the node told them; at most
/// [`TAKEN_TOGETHER_MAX`], give or take one message. Empty where the views do not know the next one yet. Blocks.
fn taken_after(shared: &Shared, chain: &ChainKey, count: u64) -> Result<Vec<u64>, Refusal> {
    let mut numbers = Vec::new();
    for (through, sequence) in taken_entries(&shared.views, &chain.origin, chain.lane, count + 1).map_err(internal)? {
        let entry = shared.entry(sequence)?;
        let HubEntry::Acknowledged(_, said) = concord_wire::stored::hub::read(&entry).map_err(internal)? else {
            return Err(internal("a row of the taken names another entry"));
        };
        // It was verified when it was taken in.
        let said = concord_wire::acknowledgement::verify(&said, |_, _, _| Ok(())).map_err(internal)?;
        for place in count + numbers.len() as u64 + 1..=through {
            let told = place.checked_sub(said.taken_before + 1).and_then(|index| usize::try_from(index).ok());
            let number = told.and_then(|index| said.taken.get(index));
            // Of what a hub that lost data was told again the place stays, and no number stands for it.
            numbers.push(number.copied().unwrap_or(0));
        }
        if numbers.len() >= TAKEN_TOGETHER_MAX {
            break;
        }
    }
    Ok(numbers)
}

async fn give(shared: &Arc<Shared>, chain: ChainKey, number: u64) -> Result<pb::FetchConsignmentsResponse, Refusal> {
    let (sequence, consignment) = shared.blocking(move |shared| load(shared, &chain, number)).await?;
    let receipt = receipt_for(shared, Answer::Repeat(sequence)).await?;
    let given =
        pb::RehandedConsignment { consignment: Some(consignment), receipt: Some(receipt), history: Bytes::new() };
    Ok(response(Message::Consignment(given)))
}

/// Blocks.
fn load(shared: &Shared, chain: &ChainKey, number: u64) -> Result<(u64, pb::Consignment), Refusal> {
    let sequence = consignment_entry(&shared.views, chain, number).map_err(internal)?.ok_or_else(behind)?;
    let entry = shared.journal.entry(sequence).map_err(internal)?;
    let HubEntry::Consignment(_, kept) = concord_wire::stored::hub::read(&entry).map_err(internal)? else {
        return Err(internal("a row of the consignments names another entry"));
    };
    let blobs = (0..kept.blob_counts.len()).map(|index| {
        let own = entry.blobs.get(kept.blob_range(index)).unwrap_or_default();
        own.iter().flatten().map(blob_to_bytes).collect()
    });
    let blobs: Vec<Vec<Bytes>> = blobs.collect();
    Ok((sequence, to_message(&kept.sealed, blobs)))
}
