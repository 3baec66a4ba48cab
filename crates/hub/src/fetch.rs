//! Giving a node that lost data its own consignments back, with the receipts that they were given.
//!
//! Invariant: a node gets only its own chain back, and for each number what the journal has under it, so that it goes on after it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use concord_identity::Caller;
use concord_journal::{Entry, ReadError};
use concord_model::{ChainKey, Reason, Refusal};
use concord_server::{Shutdown, detach};
use concord_wire::consignment::{blob_to_bytes, parse_chain_key, to_message};
use concord_wire::header::exchange_id;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::fetch_consignments_response::Message;
use concord_wire::status::to_status;
use concord_wire::stored::hub::HubEntry;
use tokio::sync::mpsc;
use tonic::Status;

use crate::acknowledge::recorded;
use crate::consign::receipt_for;
use crate::fencing::NodeRun;
use crate::projection::{consignment_entry, taken_entries};
use crate::responses::{Cut, Responses, responses};
use crate::sequencer::Answer;
use crate::shared::{Shared, internal};
use crate::streams::{Purpose, StreamGuard};

/// What a node is told that it has: shown until this process ends, since somebody has to know that data was lost.
const RESTORED_NOTE: &str = "node-restored";

/// First acknowledgements in one message.
const TAKEN_TOGETHER_MAX: usize = 50_000;

/// Messages made and not yet handed to the connection.
const GIVEN_WAITING_MAX: usize = 2;

type Given = Result<pb::FetchConsignmentsResponse, Status>;

/// Begins to give a chain back after a number.
///
/// Refuses with `CHAIN_MISMATCH`, `NODE_SUPERSEDED`, `HEALING` or `PROTOCOL_UNSUPPORTED`.
pub async fn fetch(
    shared: &Arc<Shared>,
    caller: &Caller,
    request: pb::FetchConsignmentsRequest,
) -> Result<Responses<pb::FetchConsignmentsResponse>, Refusal> {
    let (participant, node) = shared.enrolled_node(caller)?;
    concord_wire::check_limits(request.limits.as_ref())?;
    let run = NodeRun::named(&participant, &request.run)?;
    let named = request.chain.ok_or_else(|| Refusal::new(Reason::ChainMismatch, "the request names no chain"))?;
    let chain = parse_chain_key(participant, &named)?;
    if chain.hub != shared.hub || chain.node != node {
        return Err(Refusal::new(Reason::ChainMismatch, "a node fetches its own chain from the hub that it joined"));
    }
    shared.feed_first(&run).await?;
    let guard = shared.open_stream(&run, node, Purpose::Fetch(chain.lane))?;
    // Of a closed epoch every node asks, to know what was recorded of it; of the present one only who lost data.
    if chain.epoch == shared.published().ledger.epochs().current(&chain.origin) {
        let what = format!("the node of {} says that it was restored, and fetches back what it lost", chain.origin);
        tracing::warn!(participant = %chain.origin, lane = %chain.lane, after = request.after, "{what}");
        shared.readiness.note_also(RESTORED_NOTE, &what);
        metrics::counter!("concord_nodes_restored_total").increment(1);
    }
    concord_faults::point("hub.fetch.begin");
    let (outbound, cut, responses) = responses(GIVEN_WAITING_MAX);
    let giving = Giving { shared: Arc::clone(shared), chain, after: request.after, taken_count: request.taken_count };
    detach(giving.until_cut(guard, outbound, cut));
    Ok(responses)
}

/// What one node is given back.
struct Giving {
    shared: Arc<Shared>,
    chain: ChainKey,
    /// The number of the last consignment that the node has with its receipt.
    after: u64,
    /// First acknowledgements that the node knows.
    taken_count: u64,
}

impl Giving {
    async fn until_cut(self, guard: StreamGuard, outbound: mpsc::Sender<Given>, cut: Cut) {
        let giving = async {
            if let Err(refusal) = self.all(&outbound).await {
                // After what is queued, so that a node gets as far as it can.
                let _gone = outbound.send(Err(to_status(&refusal))).await;
            }
        };
        let status = tokio::select! {
            biased;
            refusal = guard.replaced() => to_status(&refusal),
            () = self.shared.shutdown.streams_end() => Shutdown::status(),
            () = giving => return,
        };
        // Whoever does not listen any more need not hear it.
        let _gone = cut.send(status);
        drop(guard);
    }

    /// Ends early where nobody listens any more.
    async fn all(&self, outbound: &mpsc::Sender<Given>) -> Result<(), Refusal> {
        let send = |message| outbound.send(Ok(pb::FetchConsignmentsResponse { message: Some(message) }));
        // What comes later than this the node sends or hears by its ordinary streams. Nothing that another copy handed in is among
        // it: what was decided of that stands before the fact that this run is served.
        let published = self.shared.published();
        let (last, mailbox) =
            (published.ledger.chain_last(&self.chain), published.ledger.mailbox(&self.chain.origin, self.chain.lane));
        let feed_number = published.ledger.feed_last(&self.chain.origin);
        for number in self.after.saturating_add(1)..=last {
            let given = give(&self.shared, self.chain.clone(), number).await?;
            if send(Message::Consignment(given)).await.is_err() {
                return Ok(());
            }
        }
        let mut count = self.taken_count;
        while count < mailbox.taken_count {
            let chain = self.chain.clone();
            let numbers = self.shared.blocking(move |shared| taken_after(shared, &chain, count)).await?;
            if numbers.is_empty() {
                return Err(behind());
            }
            count += numbers.len() as u64;
            if send(Message::Taken(pb::TakenBefore { numbers })).await.is_err() {
                return Ok(());
            }
        }
        let end = pb::FetchEnd { feed_number, mailbox: Some(recorded(mailbox)), last_number: last };
        // Whoever is gone asks again.
        let _gone = send(Message::End(end)).await;
        Ok(())
    }
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
            // Of what a hub that lost data was told again the place stays, and no number stands for it; nor for what had been set aside and
            // came to an end, which is none of what agencies took.
            let number = told.filter(|index| said.ended_at(*index).is_none()).and_then(|index| said.taken.get(index));
            numbers.push(number.copied().unwrap_or(0));
        }
        if numbers.len() >= TAKEN_TOGETHER_MAX {
            break;
        }
    }
    Ok(numbers)
}

async fn give(shared: &Arc<Shared>, chain: ChainKey, number: u64) -> Result<pb::RehandedConsignment, Refusal> {
    let (sequence, consignment) = shared.blocking(move |shared| load(shared, &chain, number)).await?;
    let receipt = receipt_for(shared, Answer::Repeat(sequence)).await?;
    Ok(pb::RehandedConsignment { consignment: Some(consignment), receipt: Some(receipt), history: Bytes::new() })
}

/// Blocks.
fn load(shared: &Shared, chain: &ChainKey, number: u64) -> Result<(u64, pb::Consignment), Refusal> {
    let sequence = consignment_entry(&shared.views, chain, number).map_err(internal)?.ok_or_else(behind)?;
    let entry = shared.entry(sequence)?;
    let HubEntry::Consignment(_, kept) = concord_wire::stored::hub::read(&entry).map_err(internal)? else {
        return Err(internal("a row of the consignments names another entry"));
    };
    let blobs = (0..kept.blob_counts.len()).map(|index| match content(shared, &entry, kept.blob_range(index)) {
        Ok(content) => content,
        Err(error) => {
            let id = kept.sealed.headers.get(index).map(|header| exchange_id(header).to_string()).unwrap_or_default();
            tracing::error!(sequence, exchange = id, %error, "a body is damaged and cannot be given back");
            shared.losses.not_healed(shared, format!("{}'s exchange {id}: its body here is damaged", chain.origin));
            Vec::new()
        }
    });
    let blobs: Vec<Vec<Bytes>> = blobs.collect();
    Ok((sequence, to_message(&kept.sealed, blobs)))
}

/// The title and the body of one exchange, where both are there; nothing where one is gone. Blocks.
fn content(shared: &Shared, entry: &Entry, range: Range<usize>) -> Result<Vec<Bytes>, ReadError> {
    match shared.journal.blobs(entry.sequence, range) {
        Ok(blobs) => Ok(blobs.iter().map(blob_to_bytes).collect()),
        Err(ReadError::Redacted { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
