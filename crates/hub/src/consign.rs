//! Taking consignments in: opened and verified outside the sequencer, decided in order, receipted after durability.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use concord_identity::{Caller, verify};
use concord_journal::HistoryId;
use concord_ledger::epoch::FIRST_EPOCH;
use concord_ledger::withdrawal::look_again;
use concord_ledger::{Audience, Candidate, ConsignmentRecorded, Stood};
use concord_model::limits::CONSIGN_UNRECEIPTED_MAX;
use concord_model::{ChainKey, ExchangeId, Lane, ParticipantCode, Reason, Refusal, Timestamp};
use concord_server::traces::{self, Span, Step};
use concord_wire::consignment::{self, parse_chain_key};
use concord_wire::convert;
use concord_wire::header::exchange_id;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::receipt::{self, Outcome, Recorded};
use concord_wire::stored::hub::HubEntry;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tokio::sync::oneshot;

use crate::fencing::NodeRun;
use crate::healing::rehanded;
use crate::positions::Positions;
use crate::sequencer::{Answer, AnswerReceiver, Proposal, Published, RecordedAt, answered};
use crate::shared::{Shared, internal};
use crate::withdrawals::{ToldOfWithdrawn, find_targets};

/// Consignments of one stream that are opened and verified at once, in other threads. More wait on the wire.
const VERIFY_AHEAD: usize = 4;

/// Checks a stream's hello and makes the welcome.
pub fn welcome(
    shared: &Shared,
    caller: &Caller,
    hello: &pb::ConsignHello,
) -> Result<(ChainKey, pb::ConsignWelcome), Refusal> {
    let origin = caller.identity.participant.clone();
    let named = hello.chain.as_ref().ok_or_else(|| Refusal::new(Reason::ChainMismatch, "the hello names no chain"))?;
    let chain = parse_chain_key(origin, named)?;
    let published = shared.published();
    let open = published.ledger.epochs().current(&chain.origin);
    if chain.hub != shared.hub || chain.node != caller.identity.name || !(FIRST_EPOCH..=open).contains(&chain.epoch) {
        let named = format!("chain of node {} epoch {} to hub {}", chain.node, chain.epoch, chain.hub);
        let what = format!("{named} is not this caller's to this hub, where its epoch {open} is open");
        return Err(Refusal::new(Reason::ChainMismatch, what));
    }
    concord_faults::point("hub.consign.hello");
    let state = published.ledger.chains().get(&chain);
    let last = state.map_or(0, |state| state.last);
    let positions = Positions::new(&published, last, |past| past.chains.get(&chain).copied());
    let welcome = pb::ConsignWelcome {
        limits: Some(concord_wire::limits()),
        history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
        last_number: last,
        last_digest: state.map(|state| concord_wire::convert::digest_bytes(&state.digest.0)).unwrap_or_default(),
        past: positions.past,
        closed: (FIRST_EPOCH..chain.epoch)
            .map(|epoch| published.ledger.chain_last(&ChainKey { epoch, ..chain.clone() }))
            .collect(),
        damaged: Vec::new(),
        lasts: lasts(&published, &chain),
    };
    Ok((chain, welcome))
}

/// How far the chains of a node are recorded, of all lanes and epochs.
fn lasts(published: &Published, of: &ChainKey) -> Vec<pb::LastConsignment> {
    let ledger = &published.ledger;
    let epochs = FIRST_EPOCH..=ledger.epochs().current(&of.origin);
    let chains = epochs.flat_map(|epoch| Lane::ALL.map(|lane| ChainKey { lane, epoch, ..of.clone() }));
    let last = |chain: ChainKey| pb::LastConsignment {
        lane: convert::lane(chain.lane).into(),
        epoch: chain.epoch,
        number: ledger.chain_last(&chain),
    };
    chains.map(last).filter(|last| last.number > 0).collect()
}

/// A consignment as a node brings it: with this hub's receipt, where it brings it again.
pub struct Brought {
    /// The consignment.
    pub consignment: pb::Consignment,
    /// The first receipt of one that this hub is to have forgotten.
    pub receipt: Option<pb::RecordedReceipt>,
    /// The history in which it was receipted last; empty where that is the receipt's.
    pub history: bytes::Bytes,
    /// Where its node has what the withdrawals in it are about.
    pub withdrawn: Vec<pb::WithdrawnPlace>,
    /// First receipts of what of that this hub is to have forgotten.
    pub withdrawn_receipts: Vec<pb::RecordedReceipt>,
    /// Which of its exchanges are withdrawn by what this hub is to have forgotten. That its own exchange is, its node may say.
    pub withdrawn_before: Vec<u32>,
}

/// A consignment that was opened, and what came beside it.
type OpenedWith = (Box<consignment::Opened>, Option<Recorded>, ToldOfWithdrawn);

/// What a consignment says that it is, before anything of it is verified.
pub(crate) fn named_head(consignment: &pb::Consignment) -> Option<pb::ConsignmentHead> {
    pb::ConsignmentHead::decode(consignment.head.clone()).ok()
}

/// The number that a consignment names, before anything of it is verified.
pub fn named_number(consignment: &pb::Consignment) -> Option<u64> {
    named_head(consignment).map(|head| head.number)
}

/// Turns consignments of a run into receipts, in order. The first refusal is the last item.
pub fn receipts(
    shared: Arc<Shared>,
    by: NodeRun,
    chain: ChainKey,
    consignments: impl Stream<Item = Result<Brought, Refusal>> + Send,
) -> impl Stream<Item = Result<pb::RecordedReceipt, Refusal>> + Send {
    let chain = Arc::new(chain);
    let opening = Arc::clone(&shared);
    let opened = consignments
        .map(move |message| {
            let (shared, chain) = (Arc::clone(&opening), Arc::clone(&chain));
            async move {
                let message = message?;
                shared.blocking(move |shared| open(shared, &chain, message)).await
            }
        })
        .buffered(VERIFY_AHEAD);

    let deciding = Arc::clone(&shared);
    opened
        .and_then(move |(opened, receipt, withdrawn)| {
            let (shared, by) = (Arc::clone(&deciding), by.clone());
            let traced = Traced::begin(&opened);
            async move {
                let stood = match receipt {
                    None => None,
                    Some(receipt) => {
                        let number = opened.sealed.number;
                        rehanded(&shared, &by, &opened.sealed.chain, number, receipt.history).await?;
                        Some(receipt.outcomes.into_iter().map(stood).collect())
                    }
                };
                if opened.candidates.iter().any(withdraws) {
                    return Ok((propose_with_withdrawals(&shared, &by, opened, stood, withdrawn).await?, traced));
                }
                Ok((shared.sequencer.propose_by(&by, proposal(opened, stood)).await?, traced))
            }
        })
        .map(move |waiting| {
            let shared = Arc::clone(&shared);
            async move {
                let (waiting, traced): (AnswerReceiver, Option<Traced>) = waiting?;
                let answer = answered(waiting).await?;
                if let (Some(traced), Answer::Recorded(recorded)) = (traced, &answer) {
                    traced.recorded(&recorded.fact);
                }
                receipt_for(&shared, answer).await
            }
        })
        .buffered(CONSIGN_UNRECEIPTED_MAX)
}

/// A consignment whose exchanges are traced.
struct Traced {
    begun: SystemTime,
    exchanges: Vec<ExchangeId>,
}

impl Traced {
    fn begin(opened: &consignment::Opened) -> Option<Self> {
        let ids = || opened.sealed.headers.iter().map(|header| exchange_id(header)).collect();
        traces::is_traced().then(|| Self { begun: SystemTime::now(), exchanges: ids() })
    }

    /// What was refused is in no trace: it went nowhere.
    fn recorded(self, fact: &ConsignmentRecorded) {
        let (lane, participant) = (fact.chain.lane, ParticipantCode::secretariat().to_string());
        for (index, exchange) in (0..).zip(self.exchanges) {
            if !fact.refused.iter().any(|refused| refused.index == index) {
                let (participant, begun) = (participant.clone(), self.begun);
                traces::trace(Span { exchange, step: Step::Record, lane, participant, begun, caller: None });
            }
        }
    }
}

fn proposal(opened: Box<consignment::Opened>, stood: Option<Vec<Stood>>) -> Proposal {
    match stood {
        None => Proposal::Consign(opened),
        Some(stood) => Proposal::Rehand(opened, stood),
    }
}

fn withdraws(candidate: &Candidate) -> bool {
    matches!(candidate, Candidate::Fit(item) if item.header.withdraws.is_some())
}

/// What withdraws something is decided before what comes behind it is proposed: where the exchange came meanwhile, it is looked for again.
/// The answer to that comes once what it rests on is durable, so that the next look finds it.
async fn propose_with_withdrawals(
    shared: &Arc<Shared>,
    by: &NodeRun,
    mut opened: Box<consignment::Opened>,
    stood: Option<Vec<Stood>>,
    told: ToldOfWithdrawn,
) -> Result<AnswerReceiver, Refusal> {
    let told = Arc::new(told);
    loop {
        opened.targets = find_targets(shared, &opened, &told).await?;
        concord_faults::point("hub.withdrawal.found");
        let proposal = proposal(opened.clone(), stood.clone());
        let decided = answered(shared.sequencer.propose_by(by, proposal).await?).await;
        if decided.as_ref().is_err_and(|refusal| *refusal == look_again()) {
            continue;
        }
        let (answer, receiver) = oneshot::channel();
        // The receiver is here.
        drop(answer.send(decided));
        return Ok(receiver);
    }
}

fn open(shared: &Shared, chain: &ChainKey, brought: Brought) -> Result<OpenedWith, Refusal> {
    let Brought { consignment: message, receipt, history: newest, withdrawn, withdrawn_receipts, withdrawn_before } =
        brought;
    concord_faults::point("hub.consign.arrived");
    let mut opened = consignment::open(message, &chain.origin, |key, message, signature| {
        shared.verify_enrolled(&chain.origin, key, message, signature)
    })?;
    if opened.sealed.chain != *chain {
        return Err(Refusal::new(Reason::ChainMismatch, "the consignment is of another chain than the stream's hello"));
    }
    // What was recorded before is only receipted again, which takes no room.
    let recorded_through = shared.published().ledger.chains().get(chain).map_or(0, |state| state.last);
    if opened.sealed.number > recorded_through {
        shared.room.check()?;
    }
    check_beside(opened.sealed.headers.len(), &withdrawn, &withdrawn_before)?;
    opened.withdrawn_before = withdrawn_before.into_iter().collect();
    concord_faults::point("hub.consign.opened");
    let mut receipt = receipt.map(|receipt| receipt_for_it(shared, &opened, &receipt)).transpose()?;
    // Outcomes are of the first; which past it was lost from, the newest tells.
    if let Some(receipt) = receipt.as_mut().filter(|_| !newest.is_empty()) {
        receipt.history = history(&newest)?;
    }
    let receipts = withdrawn_receipts.iter().map(|receipt| own_receipt(shared, receipt)).collect::<Result<_, _>>()?;
    Ok((Box::new(opened), receipt, ToldOfWithdrawn { places: withdrawn, receipts }))
}

/// What is said beside a consignment is said of its own exchanges, of each once.
fn check_beside(count: usize, withdrawn: &[pb::WithdrawnPlace], withdrawn_before: &[u32]) -> Result<(), Refusal> {
    if !are_of(count, withdrawn.iter().map(|place| place.index)) || !are_of(count, withdrawn_before.iter().copied()) {
        let what =
            "what is said beside a consignment of withdrawals names each of its exchanges once at most, and no other";
        return Err(Refusal::new(Reason::ConsignmentMalformed, what));
    }
    let named = withdrawn.iter().map(|place| &place.queued_in_history[..]).filter(|named| !named.is_empty());
    named.map(history).try_for_each(|named| named.map(drop))
}

/// Whether these are indices below a count, each once.
fn are_of(count: usize, mut indices: impl Iterator<Item = u32>) -> bool {
    let mut named = BTreeSet::new();
    indices.all(|index| (index as usize) < count && named.insert(index))
}

fn history(named: &[u8]) -> Result<HistoryId, Refusal> {
    let wrong = |_| Refusal::new(Reason::ConsignmentMalformed, "a history has 16 bytes");
    named.try_into().map(HistoryId).map_err(wrong)
}

/// A receipt of exactly this consignment.
fn receipt_for_it(
    shared: &Shared,
    opened: &consignment::Opened,
    message: &pb::RecordedReceipt,
) -> Result<Recorded, Refusal> {
    let recorded = own_receipt(shared, message)?;
    let sealed = &opened.sealed;
    if recorded.chain != sealed.chain || recorded.number != sealed.number || recorded.digest != sealed.digest {
        return Err(receipt_wrong("it is for another consignment"));
    }
    if recorded.outcomes.len() != sealed.headers.len() {
        return Err(receipt_wrong("it does not have one outcome for each exchange"));
    }
    Ok(recorded)
}

/// A receipt counts only where this hub signed it.
fn own_receipt(shared: &Shared, message: &pb::RecordedReceipt) -> Result<Recorded, Refusal> {
    let published = shared.published();
    receipt::verify(message, |key, bytes, signature| {
        let own = published.ledger.registry().hub_keys().and_then(|keys| keys.known_key(key));
        let own = own.ok_or_else(|| receipt_wrong("it is signed with a key that is not this hub's, and was not"))?;
        verify(&own.bytes, bytes, signature).map_err(|_| receipt_wrong("its signature is not this hub's"))
    })
}

fn receipt_wrong(what: &str) -> Refusal {
    Refusal::new(Reason::SignatureInvalid, format!("the receipt brought with it does not hold: {what}"))
}

fn stood(outcome: Outcome) -> Stood {
    match outcome {
        Outcome::Recorded { agreement, audience } => Stood::Recorded(Audience { agreement, recipients: audience }),
        Outcome::Refused(reason) => Stood::Refused(reason),
    }
}

pub(crate) async fn receipt_for(shared: &Arc<Shared>, answer: Answer) -> Result<pb::RecordedReceipt, Refusal> {
    let recorded = match answer {
        Answer::Recorded(recorded) => *recorded,
        Answer::Repeat(sequence) => shared.blocking(move |shared| recorded_before(shared, sequence)).await?,
        Answer::Accepted | Answer::Waits(_) | Answer::Acknowledged | Answer::Stands => {
            return Err(internal("a consignment got another proposal's answer"));
        }
    };
    concord_faults::point("hub.receipt.due");
    let RecordedAt { history, entry_digest, recorded_at, fact } = recorded;
    let exchanges = u64::from(fact.count);
    metrics::counter!("concord_exchanges_refused_total").increment(fact.refused.len() as u64);
    metrics::counter!("concord_exchanges_recorded_total").increment(exchanges - fact.refused.len() as u64);
    let key = shared.signing_key();
    let named = key.public().fingerprint;
    let receipt = receipt::receipt(history, entry_digest, recorded_at, &fact, named, |message| key.sign(message));
    concord_faults::point("hub.receipt.signed");
    Ok(receipt)
}

/// The same words again: everything that a receipt says stands in the entry.
fn recorded_before(shared: &Shared, sequence: u64) -> Result<RecordedAt, Refusal> {
    concord_faults::point("hub.receipt.repeated");
    let entry = shared.entry(sequence)?;
    match concord_wire::stored::hub::read(&entry).map_err(internal)? {
        HubEntry::Consignment(fact, _) => Ok(RecordedAt {
            history: entry.history,
            entry_digest: entry.digest,
            recorded_at: Timestamp::from_micros(entry.recorded_at),
            fact,
        }),
        _ => Err(internal("a repeat names an entry that is no consignment")),
    }
}
