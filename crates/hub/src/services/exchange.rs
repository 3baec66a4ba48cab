//! `ExchangeService`: consignments in, deliveries out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use concord_identity::Caller;
use concord_journal::HistoryId;
use concord_model::{ChainKey, Lane, Name, ParticipantCode, Reason, Refusal};
use concord_server::audit::Object;
use concord_server::{MESSAGE_SIZE_MAX_BYTES, Shutdown, Throttle, detach};
use concord_wire::convert::parse_lane;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::exchange_service_server::{ExchangeService, ExchangeServiceServer};
use concord_wire::status::{from_status, to_status};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller;
use crate::acknowledge::{acknowledge, recorded};
use crate::consign::Brought;
use crate::damaged::take_again;
use crate::delivery::{DELIVERIES_PERMITTED_MAX, MailboxWriter, StreamGone, deliver, deliver_again};
use crate::fencing::NodeRun;
use crate::fetch;
use crate::healing::{mailbox_lost, mailbox_resume, shown};
use crate::positions::{Positions, Standing, mailbox_standing};
use crate::probes::{Nonce, give_back, pass_on};
use crate::responses::{Cut, Inbound, Responses, responses};
use crate::shared::Shared;
use crate::streams::Purpose;
use crate::{consign, delivery};

/// Receipts made and not yet handed to the connection. More wait in the journal.
const RECEIPTS_WAITING_MAX: usize = 8;
/// What a caller has to say hello. After it the stream ends with ARGUMENT_INVALID.
const HELLO_TIMEOUT_SECONDS: u64 = 20;
/// Lines about refused consignments in the log: who floods comes again at once.
const REFUSALS_LOGGED_PER_SECOND_MAX: u32 = 5;

static REFUSALS: Throttle = Throttle::new(REFUSALS_LOGGED_PER_SECOND_MAX);

const CONSIGN: &str = "/concord.exchange.v1.ExchangeService/Consign";
const RECEIVE: &str = "/concord.exchange.v1.ExchangeService/Receive";
const FETCH: &str = "/concord.exchange.v1.ExchangeService/FetchConsignments";

/// Serves consignments and mailboxes to nodes.
pub struct Exchange(pub Arc<Shared>);

/// The service with its message limits.
pub fn server(shared: Arc<Shared>) -> ExchangeServiceServer<Exchange> {
    ExchangeServiceServer::new(Exchange(shared))
        .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
}

#[tonic::async_trait]
impl ExchangeService for Exchange {
    type ConsignStream = Responses<pb::ConsignResponse>;
    type ReceiveStream = Responses<pb::ReceiveResponse>;
    type FetchConsignmentsStream = Responses<pb::FetchConsignmentsResponse>;

    async fn fetch_consignments(
        &self,
        request: Request<pb::FetchConsignmentsRequest>,
    ) -> Result<Response<Self::FetchConsignmentsStream>, Status> {
        let caller = caller(&request)?;
        let given = fetch::fetch(&self.0, &caller, request.into_inner()).await;
        if let Err(refusal) = &given {
            self.0.note_refusal(&caller.identity, FETCH, Object::nothing(), refusal);
        }
        given.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn consign(
        &self,
        request: Request<Streaming<pb::ConsignRequest>>,
    ) -> Result<Response<Self::ConsignStream>, Status> {
        let caller = caller(&request)?;
        let responses = consign(&self.0, caller.clone(), request.into_inner().boxed());
        if let Err(refusal) = &responses {
            self.0.note_refusal(&caller.identity, CONSIGN, Object::nothing(), refusal);
        }
        responses.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn receive(
        &self,
        request: Request<Streaming<pb::ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let caller = caller(&request)?;
        let responses = receive(&self.0, caller.clone(), request.into_inner().boxed());
        if let Err(refusal) = &responses {
            self.0.note_refusal(&caller.identity, RECEIVE, Object::nothing(), refusal);
        }
        responses.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}

/// Takes a node's consignments in, wherever its messages come from.
pub fn consign(
    shared: &Arc<Shared>,
    caller: Caller,
    inbound: Inbound<pb::ConsignRequest>,
) -> Result<Responses<pb::ConsignResponse>, Refusal> {
    shared.enrolled_node(&caller)?;
    let (outbound, cut, responses) = responses(RECEIPTS_WAITING_MAX);
    detach(consign_until_cut(Arc::clone(shared), caller, inbound, outbound, cut));
    Ok(responses)
}

/// Delivers a node's mailbox, wherever its messages come from.
pub fn receive(
    shared: &Arc<Shared>,
    caller: Caller,
    inbound: Inbound<pb::ReceiveRequest>,
) -> Result<Responses<pb::ReceiveResponse>, Refusal> {
    shared.enrolled_node(&caller)?;
    let (outbound, cut, responses) = responses(DELIVERIES_PERMITTED_MAX);
    detach(receive_until_cut(Arc::clone(shared), caller, inbound, outbound, cut));
    Ok(responses)
}

/// Serves one chain until the stream ends, a newer one replaces it, or the hub ends.
async fn consign_until_cut(
    shared: Arc<Shared>,
    caller: Caller,
    mut inbound: Inbound<pb::ConsignRequest>,
    outbound: mpsc::Sender<Result<pb::ConsignResponse, Status>>,
    cut: Cut,
) {
    use pb::consign_request::Message;
    let hello = match hello(&shared, inbound.try_next()).await {
        Ok(Some(pb::ConsignRequest { message: Some(Message::Hello(hello)), .. })) => hello,
        Ok(_) => return end(cut, no_hello()),
        Err(status) => return end(cut, status),
    };
    let refuse = |cut, refusal: &Refusal| {
        shared.note_refusal(&caller.identity, CONSIGN, Object::nothing(), refusal);
        end(cut, to_status(refusal));
    };
    let by = match greeted(&shared, &caller, hello.limits.as_ref(), &hello.run).await {
        Ok(by) => by,
        Err(refusal) => return refuse(cut, &refusal),
    };
    let (chain, mut welcome) = match consign::welcome(&shared, &caller, &hello) {
        Ok(welcomed) => welcomed,
        Err(refusal) => return refuse(cut, &refusal),
    };
    let guard = match shared.open_stream(&by, chain.node.clone(), Purpose::Consign(chain.lane)) {
        Ok(guard) => guard,
        Err(refusal) => return refuse(cut, &refusal),
    };
    // Behind the registration: what turns out to be damaged later ends this stream.
    welcome.damaged = shared.damaged.named_to(&chain);
    let serving = async {
        let lane = chain.lane;
        let taken = take_consignments(&shared, &by, chain, welcome, inbound, &outbound).await;
        let Err((refusal, number)) = taken else { return };
        if let Some(left_out) = REFUSALS.admit(Instant::now()) {
            tracing::warn!(participant = %by.participant, reason = %refusal.reason, left_out, "a consignment was refused whole");
        }
        let about = Object::consignment(&by.participant, lane, number);
        shared.note_refusal(&caller.identity, CONSIGN, about, &refusal);
        // After the receipts that are queued: each of them still counts.
        let _gone = outbound.send(Err(to_status(&refusal))).await;
    };
    let status = tokio::select! {
        biased;
        refusal = guard.replaced() => to_status(&refusal),
        () = shared.shutdown.streams_end() => Shutdown::status(),
        () = serving => return,
    };
    end(cut, status);
    drop(guard);
}

/// A refusal comes with the number that the refused consignment names, as far as it names one.
async fn take_consignments(
    shared: &Arc<Shared>,
    by: &NodeRun,
    chain: ChainKey,
    welcome: pb::ConsignWelcome,
    inbound: Inbound<pb::ConsignRequest>,
    outbound: &mpsc::Sender<Result<pb::ConsignResponse, Status>>,
) -> Result<(), (Refusal, Option<u64>)> {
    use pb::consign_response::Message;
    let send = |message| outbound.send(Ok(pb::ConsignResponse { message: Some(message) }));
    if send(Message::Welcome(welcome)).await.is_err() {
        return Ok(());
    }
    // Receipts come in the order of their consignments: what was named first is what the next of them is about.
    let named: Arc<Mutex<VecDeque<Option<u64>>>> = Arc::default();
    let naming = Arc::clone(&named);
    let brought = consignments(Arc::clone(shared), chain.clone(), inbound).inspect(move |brought| {
        let number = brought.as_ref().ok().and_then(|brought| consign::named_number(&brought.consignment));
        naming.lock().unwrap_or_else(PoisonError::into_inner).push_back(number);
    });
    let mut receipts = std::pin::pin!(consign::receipts(Arc::clone(shared), by.clone(), chain, brought));
    while let Some(receipt) = receipts.next().await {
        let number = named.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        let receipt = receipt.map_err(|refusal| (refusal, number))?;
        if send(Message::Receipt(receipt)).await.is_err() {
            break;
        }
        concord_faults::point("hub.receipt.sent");
    }
    Ok(())
}

/// The consignments of a stream that want a receipt; what comes again for its content is taken beside them. A broken connection ends it
/// like a finished one: the node sends again what has no receipt.
fn consignments(
    shared: Arc<Shared>,
    chain: ChainKey,
    inbound: Inbound<pb::ConsignRequest>,
) -> Pin<Box<dyn Stream<Item = Result<Brought, Refusal>> + Send>> {
    use pb::consign_request::Message;
    let (counting, counted) = (Arc::clone(&shared), chain.clone());
    let take = move |consignment: &pb::Consignment, is_rehanded: bool| {
        // What this hub lost costs nothing; what it has is a repeat like any other.
        let is_lost = |number| number > counting.published().ledger.chain_last(&counted);
        if is_rehanded && consign::named_number(consignment).is_some_and(is_lost) {
            return Ok(());
        }
        let (exchanges, bytes) = (consignment.headers.len() as u64, consignment.encoded_len() as u64);
        counting.shares.take(&counted.origin, counted.lane, exchanges, bytes)
    };
    let read = move |request: Result<pb::ConsignRequest, Status>| match request {
        Ok(pb::ConsignRequest {
            message: Some(Message::Consignment(consignment)),
            withdrawn,
            withdrawn_receipts,
            withdrawn_before,
        }) => {
            let taken = take(&consignment, false);
            let (receipt, history) = (None, bytes::Bytes::new());
            let brought = Brought { consignment, receipt, history, withdrawn, withdrawn_receipts, withdrawn_before };
            Some(taken.map(|()| Said::Brought(brought)))
        }
        Ok(pb::ConsignRequest { message: Some(Message::Again(consignment)), .. }) => Some(Ok(Said::Again(consignment))),
        Ok(pb::ConsignRequest { message: Some(Message::Probe(probe)), .. }) => {
            let nonce = Nonce::try_from(&probe.nonce[..]);
            let malformed = |_| Refusal::new(Reason::ConsignmentMalformed, "a probe has 16 bytes");
            Some(nonce.map(Said::Probe).map_err(malformed))
        }
        Ok(pb::ConsignRequest {
            message:
                Some(Message::Rehanded(pb::RehandedConsignment { consignment: Some(consignment), receipt, history })),
            withdrawn,
            withdrawn_receipts,
            withdrawn_before,
        }) if receipt.is_some() => {
            let taken = take(&consignment, true);
            let brought = Brought { consignment, receipt, history, withdrawn, withdrawn_receipts, withdrawn_before };
            Some(taken.map(|()| Said::Brought(brought)))
        }
        Ok(_) => Some(Err(Refusal::new(Reason::ConsignmentMalformed, "after the hello come consignments"))),
        // The decoder's word for a message that is over its limit.
        Err(status) if status.code() == Code::OutOfRange => {
            Some(Err(Refusal::new(Reason::ConsignmentTooLarge, "the consignment is over the limit of one message")))
        }
        // The decoder's word for what is no message at all; a broken connection may say the same, and does not listen any more.
        Err(status) if status.code() == Code::Internal => {
            Some(Err(Refusal::new(Reason::ConsignmentMalformed, "what came is not a message of this stream")))
        }
        // A limit of this server, in its own words; a broken connection has none.
        Err(status) => from_status(&status).map(Err),
    };
    let said = inbound.map(read).take_while(|read| std::future::ready(read.is_some())).flat_map(stream::iter);
    Box::pin(said.filter_map(move |said| {
        let (shared, chain) = (Arc::clone(&shared), chain.clone());
        async move {
            match said {
                Ok(Said::Brought(brought)) => Some(Ok(brought)),
                Ok(Said::Probe(nonce)) => {
                    pass_on(&shared, &chain, nonce).await;
                    None
                }
                Ok(Said::Again(consignment)) => take_again(&shared, &chain, consignment).await.err().map(Err),
                Err(refusal) => Some(Err(refusal)),
            }
        }
    }))
}

/// What a node says after its hello.
enum Said {
    Brought(Brought),
    Again(pb::Consignment),
    Probe(Nonce),
}

/// Serves one mailbox until the stream ends, a newer one replaces it, its participant leaves, or the hub ends.
async fn receive_until_cut(
    shared: Arc<Shared>,
    caller: Caller,
    mut inbound: Inbound<pb::ReceiveRequest>,
    outbound: delivery::Outbound,
    cut: Cut,
) {
    use pb::receive_request::Message;
    let hello = match hello(&shared, inbound.try_next()).await {
        Ok(Some(pb::ReceiveRequest { message: Some(Message::Hello(hello)) })) => hello,
        Ok(_) => return end(cut, no_hello()),
        Err(status) => return end(cut, status),
    };
    let lane = match parse_lane(hello.lane) {
        Ok(lane) => lane,
        Err(error) => return end(cut, to_status(&Refusal::new(Reason::ArgumentInvalid, error.to_string()))),
    };
    let refuse = |cut, refusal: &Refusal| {
        shared.note_refusal(&caller.identity, RECEIVE, Object::mailbox(lane), refusal);
        end(cut, to_status(refusal));
    };
    let by = match greeted(&shared, &caller, hello.limits.as_ref(), &hello.run).await {
        Ok(by) => by,
        Err(refusal) => return refuse(cut, &refusal),
    };
    let damaged = hello.damaged.clone();
    // A node that is refused for what it knows must not take the place of one that is served.
    let (welcome, history, next) = match welcome(&shared, &by, lane, hello).await {
        Ok(welcome) => welcome,
        Err(refusal) => return refuse(cut, &refusal),
    };
    let node = &caller.identity.name;
    let guard = match shared.open_stream(&by, node.clone(), Purpose::Mailbox(lane)) {
        Ok(guard) => guard,
        Err(refusal) => return refuse(cut, &refusal),
    };
    concord_faults::point("hub.receive.welcome");
    let writer = MailboxWriter::new(by.participant.clone(), outbound);
    let probes = shared.probes.watch(&by.participant, lane);
    let serving = async {
        if writer.send(pb::receive_response::Message::Welcome(welcome)).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            // What the recipient says goes first: it says one thing at a time and waits for the answer, so deliveries go on between.
            biased;
            ended = take_acknowledgements(&shared, &by, node, lane, inbound, &writer) => ended,
            Err(refusal) = deliver_again(&shared, lane, &writer, damaged, next) => Err(refusal),
            StreamGone = give_back(probes, &writer) => Ok(()),
            ended = deliver(Arc::clone(&shared), lane, history, &writer, next) => ended,
        }
    };
    let status = tokio::select! {
        biased;
        refusal = guard.replaced() => to_status(&refusal),
        () = shared.shutdown.streams_end() => Shutdown::status(),
        ended = serving => match ended {
            Ok(()) => return,
            Err(refusal) => {
                shared.note_refusal(&caller.identity, RECEIVE, Object::mailbox(lane), &refusal);
                to_status(&refusal)
            }
        },
    };
    // Before the guard goes: a leave is answered, and another copy welcomed, when it is gone, and by then nothing queued may go out.
    end(cut, status);
    drop(guard);
}

/// Nobody is served but who speaks the same protocol, and whose feed stands: the run that it names.
async fn greeted(
    shared: &Shared,
    caller: &Caller,
    limits: Option<&pb::Limits>,
    run: &[u8],
) -> Result<NodeRun, Refusal> {
    concord_wire::check_limits(limits)?;
    let run = NodeRun::named(&caller.identity.participant, run)?;
    tokio::select! {
        biased;
        () = shared.shutdown.streams_end() => Err(Refusal::new(Reason::ShuttingDown, "the hub is ending")),
        stands = shared.feed_first(&run) => stands.map(|()| run),
    }
}

/// The first message of a stream, if it comes in time.
pub(super) async fn hello<T>(
    shared: &Shared,
    message: impl Future<Output = Result<Option<T>, Status>>,
) -> Result<Option<T>, Status> {
    let in_time = tokio::time::timeout(Duration::from_secs(HELLO_TIMEOUT_SECONDS), message);
    tokio::select! {
        biased;
        () = shared.shutdown.streams_end() => Err(Shutdown::status()),
        hello = in_time => hello.unwrap_or_else(|_| Err(no_hello())),
    }
}

/// The welcome, its history, and the number of the first delivery.
async fn welcome(
    shared: &Arc<Shared>,
    by: &NodeRun,
    lane: Lane,
    hello: pb::ReceiveHello,
) -> Result<(pb::ReceiveWelcome, HistoryId, u64), Refusal> {
    let participant = &by.participant;
    let shown = shown(&hello.history, hello.last_number, &hello.last_digest)?;
    let acknowledged_through = hello.acknowledged_through;
    let recipient = participant.clone();
    let standing = shared.blocking(move |shared| mailbox_standing(shared, &recipient, lane, &hello)).await?;
    let resume = match standing {
        Standing::Stands if !stands_before_hole(shared, participant, lane, shown.number) => None,
        Standing::Stands => Some(mailbox_resume(shared, by, lane, shown).await?),
        Standing::Lost { .. } | Standing::Forgotten => {
            mailbox_lost(shared, by, lane, shown).await?;
            Some(mailbox_resume(shared, by, lane, shown).await?)
        }
    };
    let published = shared.published();
    let positions = Positions::mailbox(&published, participant, lane);
    let mailbox = published.ledger.mailbox(participant, lane);
    if acknowledged_through > mailbox.last {
        // It was told so when it fetched back what it lost itself: what stood there is lost here since.
        let what = format!(
            "mailbox {lane} of {participant}, which its node had acknowledged up to {acknowledged_through}, and which ends at {} here",
            mailbox.last
        );
        shared.losses.found(shared, participant, &what);
    }
    let stands_at = resume.map_or(shown.number, |resume| resume.at);
    if stands_at.max(acknowledged_through) < mailbox.delivered_through {
        let lost = format!(
            "your node acknowledged its {lane} mailbox up to {}, and now asks for what follows {stands_at}: it lost data or was restored",
            mailbox.delivered_through
        );
        return Err(Refusal::new(Reason::HistoryUnknown, lost));
    }
    let welcome = pb::ReceiveWelcome {
        limits: Some(concord_wire::limits()),
        history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
        recorded: Some(recorded(mailbox)),
        past: positions.past,
        resume: resume.map(|resume| pb::MailboxResume { at: resume.at, common: resume.common }),
    };
    Ok((welcome, positions.history, stands_at + 1))
}

/// Whether a mailbox was resumed for another position of the same node, and nothing was acknowledged since: numbers before that
/// lead nowhere.
fn stands_before_hole(shared: &Shared, participant: &ParticipantCode, lane: Lane, number: u64) -> bool {
    let published = shared.published();
    let resumes = published.ledger.mailboxes().resumes(participant, lane);
    let delivered_through = published.ledger.mailbox(participant, lane).delivered_through;
    resumes.is_some_and(|resumes| resumes.hole_after(number) && resumes.at(delivered_through).is_some())
}

async fn take_acknowledgements(
    shared: &Arc<Shared>,
    by: &NodeRun,
    node: &Name,
    lane: Lane,
    mut inbound: Inbound<pb::ReceiveRequest>,
    writer: &MailboxWriter,
) -> Result<(), Refusal> {
    use pb::receive_request::Message;
    // A broken connection ends the stream; what was not acknowledged comes again.
    while let Ok(Some(request)) = inbound.try_next().await {
        let Some(Message::Acknowledgement(acknowledgement)) = request.message else {
            return Err(Refusal::new(Reason::ArgumentInvalid, "after the hello come acknowledgements"));
        };
        let recorded = acknowledge(shared, by, node, lane, acknowledgement).await?;
        concord_faults::point("hub.acknowledge.recorded");
        if writer.send(pb::receive_response::Message::Recorded(recorded)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn no_hello() -> Status {
    to_status(&Refusal::new(Reason::ArgumentInvalid, "the first message of the stream is a hello, and comes at once"))
}

/// Tells the peer why the stream ends, if it still listens; what is queued does not go out any more.
fn end(cut: Cut, status: Status) {
    let _gone = cut.send(status);
}
