//! `FeedService`: what a participant is told.

use std::sync::Arc;

use concord_identity::Caller;
use concord_journal::HistoryId;
use concord_model::{ParticipantCode, Reason, Refusal};
use concord_server::audit::Object;
use concord_server::{ClockOffset, LOWER_LIMITS_NOTE, MESSAGE_SIZE_MAX_BYTES, Shutdown, detach};
use concord_wire::convert::{digest_bytes, optional_timestamp, timestamp};
use concord_wire::lower_limits;
use concord_wire::proto::feed::v1 as pb;
use concord_wire::proto::feed::v1::feed_service_server::{FeedService, FeedServiceServer};
use concord_wire::status::{from_status, to_status};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::caller;
use super::exchange::hello;
use crate::feed::{ITEMS_WAITING_MAX, tell};
use crate::fencing::{NodeRun, fence};
use crate::fleet::Word;
use crate::healing::{feed_resume, history_lost, lost_feed, shown, take_back};
use crate::positions::{Positions, Standing, feed_standing, resume_digest};
use crate::responses::{Cut, Inbound, Responses, responses};
use crate::shared::Shared;
use crate::streams::{Purpose, StreamGuard};

const FOLLOW: &str = "/concord.feed.v1.FeedService/Follow";
const HAND_BACK: &str = "/concord.feed.v1.FeedService/HandBack";
const REPORT: &str = "/concord.feed.v1.FeedService/Report";

/// Serves feeds to nodes.
pub struct Feed(pub Arc<Shared>);

/// The service with its message limits: what a node was told, it can hand back.
pub fn server(shared: Arc<Shared>) -> FeedServiceServer<Feed> {
    FeedServiceServer::new(Feed(shared))
        .max_decoding_message_size(MESSAGE_SIZE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_SIZE_MAX_BYTES)
}

#[tonic::async_trait]
impl FeedService for Feed {
    type FollowStream = Responses<pb::FollowResponse>;

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let caller = caller(&request)?;
        let responses = follow(&self.0, &caller, &request.into_inner()).await;
        if let Err(refusal) = &responses {
            self.0.note_refusal(&caller.identity, FOLLOW, Object::nothing(), refusal);
        }
        responses.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn hand_back(
        &self,
        request: Request<Streaming<pb::HandBackRequest>>,
    ) -> Result<Response<pb::HandBackResponse>, Status> {
        let caller = caller(&request)?;
        let answer = hand_back(&self.0, &caller, request.into_inner().boxed()).await;
        if let Err(refusal) = &answer {
            self.0.note_refusal(&caller.identity, HAND_BACK, Object::nothing(), refusal);
        }
        answer.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportResponse>, Status> {
        let caller = caller(&request)?;
        let answer = report(&self.0, &caller, &request.into_inner());
        if let Err(refusal) = &answer {
            self.0.note_refusal(&caller.identity, REPORT, Object::nothing(), refusal);
        }
        answer.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}

/// Takes the word of a node for how it is: of the copy that is served only.
pub fn report(shared: &Shared, caller: &Caller, asked: &pb::ReportRequest) -> Result<pb::ReportResponse, Refusal> {
    let (participant, _) = shared.enrolled_node(caller)?;
    shared.check_run(&NodeRun::named(&participant, &asked.run)?)?;
    let now = shared.clock.shown();
    let word = Word::read(asked, now)?;
    shared.fleet.heard(caller, now, Some(word));
    Ok(pb::ReportResponse { sent_at: Some(timestamp(now)) })
}

/// Takes in what a node hands back to this hub, which lost it.
pub async fn hand_back(
    shared: &Arc<Shared>,
    caller: &Caller,
    mut inbound: Inbound<pb::HandBackRequest>,
) -> Result<pb::HandBackResponse, Refusal> {
    use pb::hand_back_request::Message;
    let (participant, node) = shared.enrolled_node(caller)?;
    let ending = || Refusal::new(Reason::ShuttingDown, "the hub is ending");
    let unsaid = || Refusal::new(Reason::ArgumentInvalid, "the first message of a hand-back is a hello, at once");
    let hello = match hello(shared, inbound.try_next()).await {
        Ok(Some(pb::HandBackRequest { message: Some(Message::Hello(hello)) })) => hello,
        Ok(_) => return Err(unsaid()),
        Err(status) => return Err(from_status(&status).unwrap_or_else(unsaid)),
    };
    let run = NodeRun::named(&participant, &hello.run)?;
    let guard = shared.open_stream(&run, node, Purpose::HandBack)?;
    tokio::select! {
        biased;
        refusal = guard.replaced() => Err(refusal),
        () = shared.shutdown.streams_end() => Err(ending()),
        answer = take_back(shared, &run, hello, inbound) => answer,
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
    if let Some(peer) = optional_timestamp(asked.sent_at.as_ref()) {
        shared.clock.heard(peer);
        shared.node_clocks.heard(&participant, ClockOffset::between(peer, shared.clock.shown()));
    }
    let shown = shown(&position.history, position.last_number, &position.last_digest)?;
    if let Some(lower) = asked.limits.as_ref().and_then(lower_limits) {
        let what = format!(
            "the node of {participant} takes {lower}: what is larger is not delivered to it before it has a newer version"
        );
        shared.readiness.note_also(LOWER_LIMITS_NOTE, &what);
    }
    let run = fence(shared, &participant, &node, asked.journal.as_ref()).await?;
    shared.fleet.heard(caller, shared.clock.shown(), None);
    let (mut healing, mut resume) = (None, None);
    match feed_standing(shared, &participant, &position).await? {
        Standing::Stands => {
            resume = feed_resume(shared, &run, shown).await?;
            shared.feeds.show(&run, shared.history(), || shared.check_run(&run))?;
            shared.losses.healed(shared);
        }
        Standing::Lost { known } => {
            let what = lost_feed(&participant, &position, known);
            history_lost(shared, &run, &what, &position.history).await?;
            healing = Some(pb::Healing { known_number: known });
        }
        Standing::Forgotten => {
            // No position is in doubt, so that no new history is needed.
            let what = format!("a statement of an officer of {participant}, which this hub had answered");
            history_lost(shared, &run, &what, &[]).await?;
            healing = Some(pb::Healing { known_number: position.last_number });
        }
    }
    let positions = Positions::feed(&shared.published(), &participant);

    concord_faults::point("hub.feed.welcome");
    let welcome = pb::FollowWelcome {
        limits: Some(concord_wire::limits()),
        history: bytes::Bytes::copy_from_slice(positions.history.as_bytes()),
        past: positions.past,
        last_number: positions.last,
        healing,
        resume: resume.map(|resume| pb::FeedResume { at: resume.at, digest: digest_bytes(&resume_digest(&resume)) }),
        sent_at: Some(timestamp(shared.clock.shown())),
    };
    let (outbound, cut, responses) = responses(ITEMS_WAITING_MAX);
    let guard = shared.open_stream(&run, node, Purpose::Feed)?;
    let next = resume.map_or(shown.number, |resume| resume.at) + 1;
    detach(serve(Arc::clone(shared), participant, guard, (positions.history, next), welcome, outbound, cut));
    Ok(responses)
}

async fn serve(
    shared: Arc<Shared>,
    participant: ParticipantCode,
    guard: StreamGuard,
    (history, next): (HistoryId, u64),
    welcome: pb::FollowWelcome,
    outbound: mpsc::Sender<Result<pb::FollowResponse, Status>>,
    cut: Cut,
) {
    let telling = async {
        let only_asks = welcome.healing.is_some();
        let welcome = pb::FollowResponse { message: Some(pb::follow_response::Message::Welcome(welcome)) };
        if outbound.send(Ok(welcome)).await.is_err() {
            return Ok(());
        }
        if only_asks {
            return Ok(());
        }
        tell(Arc::clone(&shared), participant, history, &outbound, next).await
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
