//! `FeedService`: what a participant is told.

use std::sync::Arc;

use concord_server::{Shutdown, detach};
use concord_wire::proto::feed::v1 as pb;
use concord_wire::proto::feed::v1::feed_service_server::{FeedService, FeedServiceServer};
use concord_wire::status::to_status;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::caller;
use crate::feed::{ITEMS_WAITING_MAX, tell};
use crate::responses::{Cut, Responses, responses};
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
    type FollowStream = Responses<pb::FollowResponse>;

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let refuse = |refusal| to_status(&refusal);
        let (participant, node) = self.0.enrolled_node(&caller(&request)?).map_err(refuse)?;
        let asked = request.into_inner();
        let published = self.0.published();
        let last = published.ledger.feed_last(&participant);
        let positions = Positions::new(&published, last, |past| past.feeds.get(&participant).copied());
        positions.check(&asked.history, asked.last_number).map_err(refuse)?;

        concord_faults::point("hub.feed.welcome");
        let welcome = pb::FollowWelcome {
            limits: Some(concord_wire::limits()),
            history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
            past: positions.past,
            last_number: last,
        };
        let (outbound, cut, responses) = responses(ITEMS_WAITING_MAX);
        let shared = Arc::clone(&self.0);
        let key = StreamKey { participant, node, purpose: Purpose::Feed };
        detach(serve(shared, key, asked.last_number + 1, welcome, outbound, cut));
        Ok(Response::new(responses))
    }
}

async fn serve(
    shared: Arc<Shared>,
    key: StreamKey,
    next: u64,
    welcome: pb::FollowWelcome,
    outbound: mpsc::Sender<Result<pb::FollowResponse, Status>>,
    cut: Cut,
) {
    let participant = key.participant.clone();
    let guard = shared.streams.open(key);
    let telling = async {
        let welcome = pb::FollowResponse { message: Some(pb::follow_response::Message::Welcome(welcome)) };
        if outbound.send(Ok(welcome)).await.is_err() {
            return Ok(());
        }
        tell(Arc::clone(&shared), participant, &outbound, next).await
    };
    let status = tokio::select! {
        biased;
        refusal = guard.replaced() => to_status(&refusal),
        () = shared.shutdown.streams_end() => Shutdown::status(),
        () = outbound.closed() => return,
        ended = telling => match ended {
            Ok(()) => return,
            Err(refusal) => to_status(&refusal),
        },
    };
    // Whoever does not listen any more need not hear it.
    let _gone = cut.send(status);
}
