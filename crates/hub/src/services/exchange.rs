//! `ExchangeService`: consignments in, deliveries out.

use std::pin::Pin;
use std::sync::Arc;

use concord_identity::Caller;
use concord_model::{Lane, Reason, Refusal};
use concord_server::{MESSAGE_SIZE_MAX_BYTES, Shutdown};
use concord_wire::convert::parse_lane;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::proto::exchange::v1::exchange_service_server::{ExchangeService, ExchangeServiceServer};
use concord_wire::status::to_status;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller;
use crate::acknowledge::{acknowledge, recorded};
use crate::delivery::{DELIVERIES_PERMITTED_MAX, MailboxWriter, deliver};
use crate::shared::{Positions, Shared};
use crate::streams::{Purpose, StreamKey};
use crate::{consign, delivery};

/// Receipts made and not yet handed to the connection.
const RECEIPTS_WAITING_MAX: usize = 8;

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
    type ConsignStream = ReceiverStream<Result<pb::ConsignResponse, Status>>;
    type ReceiveStream = ReceiverStream<Result<pb::ReceiveResponse, Status>>;

    async fn consign(
        &self,
        request: Request<Streaming<pb::ConsignRequest>>,
    ) -> Result<Response<Self::ConsignStream>, Status> {
        let caller = caller(&request)?;
        self.0.enrolled_node(&caller).map_err(|refusal| to_status(&refusal))?;
        let (outbound, responses) = mpsc::channel(RECEIPTS_WAITING_MAX);
        let (shared, inbound) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = serve_consign(shared, caller, inbound, &outbound).await {
                end(&outbound, status).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn receive(
        &self,
        request: Request<Streaming<pb::ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let caller = caller(&request)?;
        self.0.enrolled_node(&caller).map_err(|refusal| to_status(&refusal))?;
        let (outbound, responses) = mpsc::channel(DELIVERIES_PERMITTED_MAX);
        let (shared, inbound) = (Arc::clone(&self.0), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = serve_mailbox(shared, caller, inbound, outbound.clone()).await {
                end(&outbound, status).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

async fn serve_consign(
    shared: Arc<Shared>,
    caller: Caller,
    mut inbound: Streaming<pb::ConsignRequest>,
    outbound: &mpsc::Sender<Result<pb::ConsignResponse, Status>>,
) -> Result<(), Status> {
    use pb::consign_request::Message as Said;
    use pb::consign_response::Message;
    let hello = match inbound.message().await?.and_then(|request| request.message) {
        Some(Said::Hello(hello)) => hello,
        Some(Said::Consignment(_)) | None => return Err(no_hello()),
    };
    let (chain, welcome) = consign::welcome(&shared, &caller, &hello).map_err(|refusal| to_status(&refusal))?;
    let guard = shared.streams.open(StreamKey {
        participant: chain.origin.clone(),
        node: chain.node.clone(),
        purpose: Purpose::Consign(chain.lane),
    });
    let send = |message| outbound.send(Ok(pb::ConsignResponse { message: Some(message) }));
    if send(Message::Welcome(welcome)).await.is_err() {
        return Ok(());
    }

    let mut receipts = std::pin::pin!(consign::receipts(Arc::clone(&shared), chain, consignments(inbound)));
    let streams_end = shared.shutdown.streams_end();
    let mut streams_end = std::pin::pin!(streams_end);
    loop {
        let receipt = tokio::select! {
            biased;
            refusal = guard.replaced() => return Err(to_status(&refusal)),
            receipt = receipts.next() => receipt,
            () = &mut streams_end => return Err(Shutdown::status()),
        };
        match receipt {
            None => return Ok(()),
            Some(Err(refusal)) => {
                tracing::warn!(participant = %caller.identity.participant, reason = %refusal.reason, "a consignment was refused whole");
                return Err(to_status(&refusal));
            }
            Some(Ok(receipt)) => {
                if send(Message::Receipt(receipt)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The consignments of a stream. A broken connection ends it like a finished one: the node sends again what has no receipt.
fn consignments(
    inbound: Streaming<pb::ConsignRequest>,
) -> Pin<Box<dyn Stream<Item = Result<pb::Consignment, Refusal>> + Send>> {
    use pb::consign_request::Message;
    let read = |request: Result<pb::ConsignRequest, Status>| match request {
        Ok(pb::ConsignRequest { message: Some(Message::Consignment(consignment)) }) => Some(Ok(consignment)),
        Ok(_) => Some(Err(Refusal::new(Reason::ConsignmentMalformed, "after the hello come consignments"))),
        // The stream's own limit: nothing of the message was kept, and the node is told why.
        Err(status) if status.code() == Code::OutOfRange => {
            Some(Err(Refusal::new(Reason::ConsignmentTooLarge, status.message())))
        }
        Err(_) => None,
    };
    Box::pin(inbound.map(read).take_while(|read| std::future::ready(read.is_some())).flat_map(stream::iter))
}

async fn serve_mailbox(
    shared: Arc<Shared>,
    caller: Caller,
    mut inbound: Streaming<pb::ReceiveRequest>,
    outbound: delivery::Outbound,
) -> Result<(), Status> {
    use pb::receive_request::Message as Said;
    let refuse = |refusal: Refusal| to_status(&refusal);
    let hello = match inbound.message().await?.and_then(|request| request.message) {
        Some(Said::Hello(hello)) => hello,
        Some(Said::Acknowledgement(_)) | None => return Err(no_hello()),
    };
    let lane =
        parse_lane(hello.lane).map_err(|error| refuse(Refusal::new(Reason::ArgumentInvalid, error.to_string())))?;
    let participant = caller.identity.participant.clone();
    let guard = shared.streams.open(StreamKey {
        participant: participant.clone(),
        node: caller.identity.name.clone(),
        purpose: Purpose::Mailbox(lane),
    });
    let welcome = welcome(&shared, &caller, lane, &hello).map_err(refuse)?;
    let writer = MailboxWriter::new(participant, outbound);
    if writer.send(pb::receive_response::Message::Welcome(welcome)).await.is_err() {
        return Ok(());
    }

    let delivering = deliver(Arc::clone(&shared), lane, &writer, hello.last_number + 1);
    let acknowledging = take_acknowledgements(&shared, &caller, lane, inbound, &writer);
    tokio::select! {
        biased;
        refusal = guard.replaced() => Err(to_status(&refusal)),
        () = shared.shutdown.streams_end() => Err(Shutdown::status()),
        ended = acknowledging => ended.map_err(refuse),
        ended = delivering => ended.map_err(refuse),
    }
}

fn welcome(
    shared: &Shared,
    caller: &Caller,
    lane: Lane,
    hello: &pb::ReceiveHello,
) -> Result<pb::ReceiveWelcome, Refusal> {
    let participant = &caller.identity.participant;
    let published = shared.published();
    let positions = Positions::mailbox(&published, participant, lane);
    positions.check(&hello.history, hello.last_number)?;
    let mailbox = published.ledger.mailbox(participant, lane);
    if hello.last_number < mailbox.delivered_through {
        let lost = format!(
            "your node acknowledged its {lane} mailbox up to {}, and now asks for what follows {}: it lost data or was restored",
            mailbox.delivered_through, hello.last_number
        );
        return Err(Refusal::new(Reason::HistoryUnknown, lost));
    }
    Ok(pb::ReceiveWelcome {
        limits: Some(concord_wire::limits()),
        history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
        recorded: Some(recorded(mailbox)),
        past: positions.past,
    })
}

async fn take_acknowledgements(
    shared: &Arc<Shared>,
    caller: &Caller,
    lane: Lane,
    mut inbound: Streaming<pb::ReceiveRequest>,
    writer: &MailboxWriter,
) -> Result<(), Refusal> {
    use pb::receive_request::Message;
    // A broken connection ends the stream; what was not acknowledged comes again.
    while let Ok(Some(request)) = inbound.message().await {
        let Some(Message::Acknowledgement(acknowledgement)) = request.message else {
            return Err(Refusal::new(Reason::ArgumentInvalid, "after the hello come acknowledgements"));
        };
        let recorded = acknowledge(shared, caller, lane, acknowledgement).await?;
        if writer.send(pb::receive_response::Message::Recorded(recorded)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn no_hello() -> Status {
    to_status(&Refusal::new(Reason::ArgumentInvalid, "the first message of the stream is a hello"))
}

/// Tells the peer why the stream ends, if it still listens.
async fn end<T>(outbound: &mpsc::Sender<Result<T, Status>>, status: Status) {
    let _gone = outbound.send(Err(status)).await;
}
