//! The consignments of one lane, in order, at most 32 without a receipt.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use concord_identity::{SigningKey, verify};
use concord_journal::{Entry, HistoryId, ReadError};
use concord_ledger::epoch::FIRST_EPOCH;
use concord_model::limits::CONSIGN_UNRECEIPTED_MAX;
use concord_model::{ChainKey, ConsignmentDigest, ExchangeId, Lane, Reason, Refusal};
use concord_server::NOT_HEALED_NOTE;
use concord_wire::consignment::{self, Sealed, blob_to_bytes, chain_key, to_message};
use concord_wire::header::exchange_id;
use concord_wire::proto::exchange::v1::{
    ConsignHello, ConsignRequest, ConsignResponse, ConsignWelcome, Consignment, ConsignmentPlace, PastHistory, Probe,
    RecordedReceipt, RehandedConsignment, consign_request, consign_response,
};
use concord_wire::receipt::{self, Outcome, Recorded};
use concord_wire::stored::Kept;
use concord_wire::stored::node::{NodeEntry, read};
use concord_wire::tree::Seed;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::epoch;
use super::withdrawn::{HubHas, told_of_withdrawn};
use crate::context::Context;
use crate::index::{Index, IndexError};
use crate::link::{Attempt, HUB_FULL_NOTE, HubLink, Incoming, LinkEnd, keep_up, welcomed};
use crate::state::NodeState;

/// Consignments on their way into the connection; the peer's flow control fills it, and reading stops with it.
const OUTGOING_WAITING_MAX: usize = 2;
/// Receipts that are journaled together.
const RECEIPTS_TOGETHER_MAX_BYTES: usize = 2 * 1024 * 1024;

pub(super) async fn run(context: Context, link: Arc<dyn HubLink>, lane: Lane) {
    let alarm = match lane {
        Lane::Flash => "uplink-flash",
        Lane::Priority => "uplink-priority",
        Lane::Routine => "uplink-routine",
    };
    loop {
        let epoch = context.now_state().chain(lane).epoch;
        let attempt = || {
            let attempt = async {
                let mut stood = false;
                let end = consign(&context, link.as_ref(), (lane, epoch), alarm, &mut stood).await;
                Attempt { end: end.err().unwrap_or_else(LinkEnd::closed), stood }
            };
            attempt.boxed()
        };
        let until_stopped = async {
            keep_up(&context, alarm, attempt).await;
            std::future::pending().await
        };
        tokio::select! {
            // The ends first: each comes once.
            biased;
            () = context.shutdown.requested() => return,
            () = epoch::closed(&context, lane, epoch) => {}
            () = until_stopped => {}
        }
        if !epoch::leave(&context, link.as_ref(), (lane, epoch), alarm).await {
            return;
        }
    }
}

struct InFlight {
    number: u64,
    digest: ConsignmentDigest,
    /// Exchanges in it.
    count: usize,
    /// Those that were packed anew without their content, which is damaged here.
    without_content: Vec<ExchangeId>,
    /// Those of which this node let the content go because they are withdrawn, by their index.
    withdrawn: Vec<usize>,
}

async fn consign(
    context: &Context,
    link: &dyn HubLink,
    (lane, epoch): (Lane, u32),
    alarm: &'static str,
    stood: &mut bool,
) -> Result<(), LinkEnd> {
    let state = context.now_state();
    if let Some(from) = state.chain_in(lane, epoch).and_then(|chain| chain.forked_from) {
        return Err(forked(lane, from));
    }
    let (outgoing, to_send) = mpsc::channel(OUTGOING_WAITING_MAX);
    let chain = state.chain_key_in(lane, epoch).map_err(LinkEnd::Refused)?;
    state.hub().ok_or_else(LinkEnd::closed)?;
    let hello = consign_request::Message::Hello(ConsignHello {
        limits: Some(concord_wire::limits()),
        chain: Some(chain_key(&chain)),
        run: Bytes::copy_from_slice(&context.run),
    });
    send(&outgoing, hello).await?;
    let mut incoming = link.consign(lane, ReceiverStream::new(to_send).boxed()).await?;
    let welcome = match welcomed(next(&mut incoming)).await? {
        consign_response::Message::Welcome(welcome) => welcome,
        consign_response::Message::Receipt(_) => return Err(unexpected("a receipt came before the welcome")),
    };
    concord_faults::point("node.uplink.welcomed");
    concord_wire::check_limits(welcome.limits.as_ref()).map_err(LinkEnd::Refused)?;
    // As many as both sides take; a hub that named none would have nothing sent to it at all.
    let announced = welcome.limits.as_ref().map_or(0, |limits| limits.consign_unreceipted_max as usize);
    let unreceipted_max = announced.clamp(1, CONSIGN_UNRECEIPTED_MAX);
    let state = context.now_state();
    let hub_has = HubHas::by(&welcome, &state);
    // What has its receipt here and comes again is what the hub forgot.
    let (receipted_through, mut to_consign) = check_welcome(&state, (lane, epoch), &welcome, &context.index).await?;
    *stood = true;
    hand_in_again(context, lane, &welcome, &outgoing).await?;
    if let Some(before) = lost_epoch(&state, lane, &welcome) {
        tracing::warn!(%lane, epoch = before, "the hub lost data of an epoch that was left behind: it is handed in again first");
        drop((outgoing, incoming));
        Box::pin(consign(context, link, (lane, before), alarm, stood)).await?;
        return Err(LinkEnd::Lost("what the hub lost of a closed epoch is handed in again".to_owned()));
    }
    context.readiness.clear(alarm);

    let mut published = context.state.clone();
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    let mut probes = context.probes.asked(lane);
    let mut probe = *probes.borrow_and_update();
    if to_consign <= receipted_through {
        tracing::warn!(%lane, from = to_consign, through = receipted_through, "the hub lost data: consignments are handed in again with their receipts");
    }
    loop {
        // Of an epoch that is left behind only what has its receipt; of the present one all that is queued.
        let last = match published.borrow_and_update().chain_in(lane, epoch) {
            Some(chain) => chain.last_number,
            None if to_consign > receipted_through && in_flight.is_empty() => return Ok(()),
            None => receipted_through,
        };
        let waiting = to_consign <= last;
        let room = in_flight.len() < unreceipted_max;
        tokio::select! {
            biased;
            message = next(&mut incoming) => {
                take_receipts(context, &chain, receipted_through, message?, &mut incoming, &mut in_flight).await?;
            }
            Ok(()) = probes.changed() => probe = *probes.borrow_and_update(),
            permit = outgoing.reserve(), if probe.is_some() => {
                let permit = permit.map_err(|_| LinkEnd::closed())?;
                if let Some(nonce) = probe.take() {
                    let message = consign_request::Message::Probe(Probe { nonce: Bytes::copy_from_slice(&nonce) });
                    permit.send(ConsignRequest { message: Some(message), ..ConsignRequest::default() });
                    context.probes.sent(lane, nonce);
                }
            }
            permit = outgoing.reserve(), if waiting && room => {
                let permit = permit.map_err(|_| LinkEnd::closed())?;
                let has_receipt = to_consign <= receipted_through;
                let (message, mut sent) = load(context, (lane, epoch), to_consign, has_receipt).await?;
                concord_faults::point("node.uplink.loaded");
                if has_receipt {
                    // The hub lists what it cannot have again.
                    sent.without_content.clear();
                }
                in_flight.push_back(sent);
                let told = told_of_withdrawn(context, &message, epoch, &hub_has).await?;
                let message = if has_receipt {
                    rehanded(&context.index, (lane, epoch), to_consign, message).await?
                } else {
                    consign_request::Message::Consignment(message)
                };
                permit.send(ConsignRequest { message: Some(message), ..told });
                concord_faults::point("node.uplink.sent");
                to_consign += 1;
            }
            changed = published.changed(), if !waiting => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Hands consignments in once more of which the hub has content that is damaged on its disk; it has their receipts.
async fn hand_in_again(
    context: &Context,
    lane: Lane,
    welcome: &ConsignWelcome,
    outgoing: &mpsc::Sender<ConsignRequest>,
) -> Result<(), LinkEnd> {
    for ConsignmentPlace { epoch, number } in &welcome.damaged {
        let consignment = match load(context, (lane, *epoch), *number, true).await {
            Ok((consignment, _)) => consignment,
            Err(end) => {
                // What is new does not wait for it.
                tracing::error!(%lane, epoch, number, ?end, "what is damaged at the hub cannot be read here either");
                continue;
            }
        };
        tracing::warn!(%lane, epoch, number, "content of it is damaged at the hub: it is handed in again");
        send(outgoing, consign_request::Message::Again(consignment)).await?;
        concord_faults::point("node.mend.handed");
    }
    Ok(())
}

/// Verifies the receipts that are there and journals them together.
async fn take_receipts(
    context: &Context,
    chain: &ChainKey,
    receipted_through: u64,
    first: consign_response::Message,
    incoming: &mut Incoming<ConsignResponse>,
    in_flight: &mut VecDeque<InFlight>,
) -> Result<(), LinkEnd> {
    let mut receipts = Vec::new();
    let (mut size, mut gone) = (0, 0);
    let mut message = Some(Ok(first));
    let mut ended = Ok(());
    while let Some(received) = message.take() {
        match received {
            Ok(consign_response::Message::Receipt(receipt)) => {
                size += receipt.statement.len();
                let mut sent = in_flight.pop_front();
                let lost = sent.as_mut().map(|sent| std::mem::take(&mut sent.without_content)).unwrap_or_default();
                let withdrawn = sent.as_ref().map(|sent| sent.withdrawn.clone()).unwrap_or_default();
                let recorded =
                    check_receipt(context, chain, &receipt, sent).map_err(|refusal| match refusal.reason {
                        Reason::SigningKeyUnknown => LinkEnd::Lost(refusal.message),
                        _ => LinkEnd::Refused(refusal),
                    })?;
                list_lost(context, &lost);
                if recorded.number <= receipted_through {
                    let is_gone = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Reason::BlobMismatch));
                    let lost = recorded.outcomes.iter().enumerate().filter(|(_, outcome)| is_gone(outcome));
                    gone += lost.filter(|(at, _)| !withdrawn.contains(at)).count();
                }
                receipts.push((receipt, recorded));
            }
            Ok(consign_response::Message::Welcome(_)) => return Err(unexpected("a second welcome came")),
            Err(end) => {
                ended = Err(end);
                break;
            }
        }
        if size < RECEIPTS_TOGETHER_MAX_BYTES {
            message = next(incoming).now_or_never();
        }
    }
    let count = receipts.len() as u64;
    let (renewed, receipts): (Vec<_>, Vec<_>) =
        receipts.into_iter().partition(|(_, recorded)| recorded.number <= receipted_through);
    if gone > 0 {
        let lane = chain.lane;
        let what = format!(
            "the hub lost {gone} exchanges of lane {lane} whose bodies this node has no more: they cannot be delivered to whom has \
             not got them; the hub lists their ids"
        );
        context.readiness.note_also(NOT_HEALED_NOTE, &what);
    }
    if !renewed.is_empty() {
        context.writer.renew(renewed).await.map_err(LinkEnd::not_kept)?;
    }
    concord_faults::point("node.receipt.verified");
    if !concord_faults::planted("lose-receipts") {
        context.writer.receipts(receipts).await.map_err(LinkEnd::not_kept)?;
    }
    concord_faults::point("node.receipt.kept");
    if count > 0 {
        context.readiness.clear(HUB_FULL_NOTE);
    }
    metrics::counter!("concord_receipts_recorded_total", "lane" => chain.lane.as_str()).increment(count);
    context.contact.heard(context.clock.now());
    ended
}

/// What was damaged here before the hub had it, and was refused by it now, is listed by its id.
fn list_lost(context: &Context, lost: &[ExchangeId]) {
    for id in lost {
        tracing::error!(exchange = %id, "its content is damaged here and no hub has it: it is lost");
        let what = format!(
            "exchange {id}: its content was damaged here before the hub had it; it is lost, and refused (BLOB_MISMATCH)"
        );
        context.readiness.note_also(NOT_HEALED_NOTE, &what);
    }
}

/// A receipt counts only for the consignment that was sent first and has none yet, under a key of the hub's. One by a key that the feed has
/// not told of yet may come too early: it is sent again.
fn check_receipt(
    context: &Context,
    chain: &ChainKey,
    message: &RecordedReceipt,
    sent: Option<InFlight>,
) -> Result<Recorded, Refusal> {
    let wrong = |what: &str| Refusal::new(Reason::SignatureInvalid, format!("the hub's receipt does not hold: {what}"));
    let recorded = receipt::verify(message, |key, bytes, signature| {
        let state = context.now_state();
        let known = state.key_of_hub(key).ok_or_else(|| {
            let what = format!("a receipt is signed with {}, which is not known here as the hub's key", key.grouped());
            Refusal::new(Reason::SigningKeyUnknown, what)
        })?;
        verify(&known.bytes, bytes, signature).map_err(|_| wrong("its signature is not the hub's"))
    })?;
    let sent = sent.ok_or_else(|| wrong("nothing waits for one"))?;
    if recorded.chain != *chain || recorded.number != sent.number || recorded.digest != sent.digest {
        return Err(wrong("it is for another consignment than the one that was sent"));
    }
    if recorded.outcomes.len() != sent.count {
        return Err(wrong("it does not have one outcome for each exchange"));
    }
    Ok(recorded)
}

/// What the hub remembers of this chain must be what stands here; its digests cover all that was before. Returns how far receipts are
/// here, and the number to go on with: a hub that lost data is handed in again what it forgot.
async fn check_welcome(
    state: &NodeState,
    (lane, epoch): (Lane, u32),
    welcome: &ConsignWelcome,
    index: &Index,
) -> Result<(u64, u64), LinkEnd> {
    let (last_here, receipted_through) = match (state.chain_in(lane, epoch), state.past_chain(lane, epoch)) {
        (Some(chain), _) => (chain.last_number, chain.recorded_through),
        (None, Some(recorded)) => (recorded, recorded),
        (None, None) => return Err(unexpected("it has an epoch that is not known here")),
    };
    let last = welcome.last_number;
    if last > last_here
        || last > 0 && own_digest(index, (lane, epoch), last).await?.0.as_bytes()[..] != welcome.last_digest[..]
    {
        return Err(forked(lane, last));
    }
    Ok((receipted_through, last.min(receipted_through) + 1))
}

/// Only a new epoch leads on: by it the node learns what the hub has, and packs the rest anew.
fn forked(lane: Lane, number: u64) -> LinkEnd {
    LinkEnd::Stopped(format!(
        "consignment {number} of lane {lane} is another one at the hub than here: a second copy of this node runs, or it was restored. \
         Stop the other one if there is one, then let the officer run `concord node epoch open`: what waits here goes on by it"
    ))
}

/// The first epoch that is left behind here and of which the hub has less than it recorded.
fn lost_epoch(state: &NodeState, lane: Lane, welcome: &ConsignWelcome) -> Option<u32> {
    let told = (FIRST_EPOCH..).zip(&welcome.closed);
    let mut lost =
        told.filter(|(epoch, last)| state.past_chain(lane, *epoch).is_some_and(|recorded| **last < recorded));
    lost.next().map(|(epoch, _)| epoch)
}

/// A history and the last number in it.
pub(crate) type Position = (HistoryId, u64);

/// The histories of a welcome: the current one with its last number, and the past ones.
pub(crate) fn histories(
    current: &[u8],
    last_number: u64,
    past: &[PastHistory],
) -> Result<(Position, Vec<Position>), LinkEnd> {
    let history = |bytes: &[u8]| {
        <[u8; 16]>::try_from(bytes).map(HistoryId).map_err(|_| unexpected("a history does not have 16 bytes"))
    };
    let past = past.iter().map(|past| Ok((history(&past.history)?, past.last_number)));
    Ok(((history(current)?, last_number), past.collect::<Result<_, LinkEnd>>()?))
}

async fn own_digest(index: &Index, (lane, epoch): (Lane, u32), number: u64) -> Result<ConsignmentDigest, LinkEnd> {
    let index = index.clone();
    let found = concord_server::blocking(move || {
        let sequence = index.recorded(lane, epoch, number)?.ok_or(IndexError::Row("a consignment"))?;
        Ok(kept(&index.read_one(sequence)?)?.sealed.digest)
    });
    found.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)
}

/// Reads a consignment with its blobs, on a thread that may block. One that has its receipt goes without what is damaged.
async fn load(
    context: &Context,
    (lane, epoch): (Lane, u32),
    number: u64,
    has_receipt: bool,
) -> Result<(Consignment, InFlight), LinkEnd> {
    let index = context.index.clone();
    let key = concord_faults::planted("pack-again").then(|| context.key());
    let loaded = concord_server::blocking(move || {
        let sequence = index.recorded(lane, epoch, number)?.ok_or(IndexError::Row("a consignment"))?;
        let (entry, is_damaged) = match index.journal().entry(sequence) {
            Err(error) if has_receipt && error.is_damage() => (index.journal().head(sequence)?, true),
            Err(ReadError::Damaged { file, offset, .. }) => return Ok(Err(stuck(lane, number, &file, offset))),
            entry => (entry?, false),
        };
        let mut kept = kept(&entry)?;
        if let Some(key) = key {
            kept.sealed = packed_again(kept.sealed, &key);
        }
        let mut blobs: Vec<Vec<Bytes>> = Vec::with_capacity(kept.blob_counts.len());
        for range in (0..kept.blob_counts.len()).map(|position| kept.blob_range(position)) {
            blobs.push(match is_damaged {
                true => index.whole_content(sequence, range)?.iter().flatten().map(blob_to_bytes).collect(),
                false => entry.blobs.get(range).unwrap_or_default().iter().flatten().map(blob_to_bytes).collect(),
            });
        }
        let ids = kept.sealed.headers.iter().map(|header| exchange_id(header));
        let without = ids.zip(&blobs).enumerate().filter(|(_, (_, blobs))| blobs.is_empty());
        let without: Vec<(usize, ExchangeId)> = without.map(|(at, (id, _))| (at, id)).collect();
        let (mut without_content, mut withdrawn) = (Vec::new(), Vec::new());
        for (at, id) in without {
            match index.withdrawn(&id, &kept.sealed.chain.origin)? {
                Some(_) => withdrawn.push(at),
                None => without_content.push(id),
            }
        }
        let (digest, count) = (kept.sealed.digest, kept.sealed.headers.len());
        Ok(Ok((to_message(&kept.sealed, blobs), InFlight { number, digest, count, without_content, withdrawn })))
    });
    loaded.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?
}

/// Whether what is damaged may be lost, so that the rest goes on, is for a person to say.
fn stuck(lane: Lane, number: u64, file: &str, offset: u64) -> LinkEnd {
    let what = format!(
        "consignment {number} of lane {lane} is damaged on this node's disk ({file}, byte {offset}), and what waits behind it waits. Put the \
         journal back from a backup (`concord node restore`), or let the officer run `concord node epoch open`: by it all goes on whose \
         content is whole, and the rest is refused and listed"
    );
    LinkEnd::Refused(Refusal::new(Reason::Internal, what))
}

/// The consignment of an entry: queued here, or found at the hub.
fn kept(entry: &Entry) -> Result<Kept, IndexError> {
    match read(entry)? {
        NodeEntry::Queued(queued) => Ok(queued.kept),
        NodeEntry::Found(kept, _) => Ok(*kept),
        _ => Err(IndexError::Row("a consignment")),
    }
}

/// The mistake that a test plants: the same exchanges as another consignment under the same number.
fn packed_again(sealed: Sealed, key: &SigningKey) -> Sealed {
    let Sealed { chain, number, previous, headers, key: known_as, .. } = sealed;
    let seed = Seed::new(concord_server::fresh().unwrap_or_default());
    consignment::seal(chain, number, previous, seed, headers, known_as, |message| key.sign(message))
}

/// A consignment with the first receipt that it has, and the history in which it was receipted last.
async fn rehanded(
    index: &Index,
    (lane, epoch): (Lane, u32),
    number: u64,
    consignment: Consignment,
) -> Result<consign_request::Message, LinkEnd> {
    let index = index.clone();
    let found = concord_server::blocking(move || {
        let receipt = index.receipt(lane, epoch, number)?.ok_or(IndexError::Row("a receipt"))?;
        let history = match index.renewed_receipt(lane, epoch, number)? {
            Some(renewed) => {
                let renewed = receipt::parse(&renewed.statement).map_err(|_| IndexError::Row("a receipt"))?;
                Bytes::copy_from_slice(renewed.history.as_bytes())
            }
            None => Bytes::new(),
        };
        Ok((receipt, history))
    });
    let (receipt, history) = found.await.map_err(|error| LinkEnd::Lost(error.to_string()))?.map_err(broken)?;
    let rehanded = RehandedConsignment { consignment: Some(consignment), receipt: Some(receipt), history };
    Ok(consign_request::Message::Rehanded(rehanded))
}

async fn send(outgoing: &mpsc::Sender<ConsignRequest>, message: consign_request::Message) -> Result<(), LinkEnd> {
    let request = ConsignRequest { message: Some(message), ..Default::default() };
    outgoing.send(request).await.map_err(|_| LinkEnd::closed())
}

async fn next(incoming: &mut Incoming<ConsignResponse>) -> Result<consign_response::Message, LinkEnd> {
    let response = incoming.next().await.ok_or_else(LinkEnd::closed)?;
    let response = response.map_err(|status| LinkEnd::from_status(&status))?;
    response.message.ok_or_else(|| unexpected("a message came that this version does not know"))
}

pub(crate) fn broken(error: IndexError) -> LinkEnd {
    LinkEnd::Refused(Refusal::new(Reason::Internal, error.to_string()))
}

pub(crate) fn unexpected(what: &str) -> LinkEnd {
    LinkEnd::Refused(Refusal::new(Reason::Internal, format!("the hub does not keep the protocol: {what}")))
}
