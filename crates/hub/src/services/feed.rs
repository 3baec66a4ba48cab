//! `FeedService`: what a participant is told.

use std::sync::Arc;

use concord_identity::Caller;
use concord_model::Refusal;
use concord_server::{Shutdown, detach};
use concord_wire::proto::feed::v1 as pb;
use concord_wire::proto::feed::v1::feed_service_server::{FeedService, FeedServiceServer};
use concord_wire::status::to_status;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::caller;
use crate::feed::{ITEMS_WAITING_MAX, tell};
use crate::positions::{Positions, Standing, feed_standing, unknown_position};
use crate::responses::{Cut, Responses, responses};
use crate::shared::Shared;
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
        let caller = caller(&request)?;
        let responses = follow(&self.0, &caller, &request.into_inner()).await;
        responses.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}

/// Tells a node its participant's feed.
pub async fn follow(
    shared: &Arc<Shared>,
    caller: &Caller,
    asked: &pb::FollowRequest,
) -> Result<Responses<pb::FollowResponse>, Refusal> {
    let (participant, node) = shared.enrolled_node(caller)?;
    concord_wire::check_limits(asked.limits.as_ref())?;
    let position = asked.position.clone().unwrap_or_default();
    let positions = Positions::feed(&shared.published(), &participant);
    if let Standing::Lost { known } = feed_standing(shared, &participant, &position).await? {
        return Err(unknown_position(position.last_number, known));
    }
    shared.feeds.show(&participant, positions.history);

    concord_faults::point("hub.feed.welcome");
    let welcome = pb::FollowWelcome {
        limits: Some(concord_wire::limits()),
        history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
        past: positions.past,
        last_number: positions.last,
        healing: None,
        resume: None,
    };
    let (outbound, cut, responses) = responses(ITEMS_WAITING_MAX);
    let key = StreamKey { participant, node, purpose: Purpose::Feed };
    detach(serve(Arc::clone(shared), key, position.last_number + 1, welcome, outbound, cut));
    Ok(responses)
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
