//! `FeedService`: what a participant is told.

use std::sync::Arc;

use concord_model::{Name, ParticipantCode};
use concord_server::Shutdown;
use concord_wire::proto::feed::v1 as pb;
use concord_wire::proto::feed::v1::feed_service_server::{FeedService, FeedServiceServer};
use concord_wire::status::to_status;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller;
use crate::feed::{ITEMS_WAITING_MAX, tell};
use crate::shared::{Positions, Shared};
use crate::streams::{Purpose, StreamKey};

/// Serves feeds to nodes.
pub struct Feed(pub Arc<Shared>);

/// The service.
pub fn server(shared: Arc<Shared>) -> FeedServiceServer<Feed> {
    FeedServiceServer::new(Feed(shared))
}

#[tonic::async_trait]
impl FeedService for Feed {
    type FollowStream = ReceiverStream<Result<pb::FollowResponse, Status>>;

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let refuse = |refusal| to_status(&refusal);
        let (participant, node) = self.0.enrolled_node(&caller(&request)?).map_err(refuse)?;
        let asked = request.into_inner();
        let published = self.0.published();
        let last = published.ledger.feed_last(&participant);
        let positions = Positions::new(&published, last, |past| past.feeds.get(&participant).copied());
        positions.check(&asked.history, asked.last_number).map_err(refuse)?;

        let welcome = pb::FollowWelcome {
            limits: Some(concord_wire::limits()),
            history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
            past: positions.past,
            last_number: last,
        };
        let (outbound, responses) = mpsc::channel(ITEMS_WAITING_MAX);
        let shared = Arc::clone(&self.0);
        tokio::spawn(serve(shared, participant, node, asked.last_number + 1, welcome, outbound));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

async fn serve(
    shared: Arc<Shared>,
    participant: ParticipantCode,
    node: Name,
    next: u64,
    welcome: pb::FollowWelcome,
    outbound: mpsc::Sender<Result<pb::FollowResponse, Status>>,
) {
    let key = StreamKey { participant: participant.clone(), node, purpose: Purpose::Feed };
    let guard = shared.streams.open(key);
    let welcome = pb::FollowResponse { message: Some(pb::follow_response::Message::Welcome(welcome)) };
    if outbound.send(Ok(welcome)).await.is_err() {
        return;
    }
    let status = tokio::select! {
        biased;
        refusal = guard.replaced() => to_status(&refusal),
        () = shared.shutdown.streams_end() => Shutdown::status(),
        () = outbound.closed() => return,
        ended = tell(Arc::clone(&shared), participant, &outbound, next) => match ended {
            Ok(()) => return,
            Err(refusal) => to_status(&refusal),
        },
    };
    let _gone = outbound.send(Err(status)).await;
}
