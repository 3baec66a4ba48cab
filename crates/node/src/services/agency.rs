//! `AgencyService`: submit, receive, acknowledge, track.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use concord_model::{Class, Digest, ExchangeId, Lane, Name, Reason, Refusal};
use concord_server::audit::Object;
use concord_server::traces::{self, Span, Step, TraceParent};
use concord_wire::convert::parse_lane;
use concord_wire::proto::agency::v1::agency_service_server::AgencyService;
use concord_wire::proto::agency::v1::{
    AcknowledgeRequest, AcknowledgeResponse, ExplainRequest, ExplainResponse, ReceiveRequest, ReceiveResponse,
    SubmitRequest, SubmitResponse, TrackRequest, TrackResponse, WhyRequest, WhyResponse, WithdrawRequest,
    WithdrawResponse,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::cursor::{Cursor, Cursors};
use super::why::{Asking, why};
use super::{called, ended, explain, known_caller, note_refusal, receive, refused, track};
use crate::context::Context;

/// Exchanges on their way to an agency that reads slowly: one being sent, one being read from the journal.
const RECEIVED_WAITING_MAX: usize = 1;
/// Changes of a track on their way to an agency that reads slowly; it then sees the newest only.
const TRACKED_WAITING_MAX: usize = 1;
/// Track streams open at once. One more gets `QUEUE_FULL`, and tries again.
const TRACKS_OPEN_MAX: usize = 256;

/// Serves agencies.
#[derive(Clone)]
pub(crate) struct AgencyApi {
    context: Context,
    /// The newest stream of each agency, of those that follow and of those that do not: each holds bodies for whoever does not read.
    receiving: Arc<Mutex<HashMap<(Name, bool), CancellationToken>>>,
    tracks: Arc<Semaphore>,
}

impl AgencyApi {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, receiving: Arc::default(), tracks: Arc::new(Semaphore::new(TRACKS_OPEN_MAX)) }
    }

    fn agency<T>(&self, request: &Request<T>) -> Result<Name, Status> {
        Ok(known_caller(&self.context, request)?.identity.name)
    }

    /// The newest stream wins; the one before ends. One that lists what is there does not end one that follows.
    fn replace(&self, agency: &Name, follows: bool) -> CancellationToken {
        let token = CancellationToken::new();
        let mut receiving = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = receiving.insert((agency.clone(), follows), token.clone()) {
            older.cancel();
        }
        token
    }
}

#[tonic::async_trait]
impl AgencyService for AgencyApi {
    type ReceiveStream = BoxStream<'static, Result<ReceiveResponse, Status>>;
    type TrackStream = BoxStream<'static, Result<TrackResponse, Status>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let identity = known_caller(&self.context, &request)?.identity;
        let method = called(&request);
        let called = Called::begin(&request);
        let answer = crate::submit::submit(&self.context, &identity.name, request.into_inner()).await;
        if let (Ok(answer), Some(called)) = (&answer, called) {
            called.queued(&self.context, answer);
        }
        // What an agency may not; that it made a mistake is its own business.
        if let Err(refusal) = &answer
            && refusal.reason.class() == Class::Denied
        {
            note_refusal(&self.context, &identity, method, Object::nothing(), refusal);
        }
        answer.map(Response::new).map_err(refused)
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Result<Response<WithdrawResponse>, Status> {
        let agency = self.agency(&request)?;
        let answer = crate::withdraw::withdraw(&self.context, &agency, request.into_inner()).await;
        answer.map(Response::new).map_err(refused)
    }

    async fn receive(&self, request: Request<ReceiveRequest>) -> Result<Response<Self::ReceiveStream>, Status> {
        let agency = self.agency(&request)?;
        let request = request.into_inner();
        let replaced = self.replace(&agency, request.follow);
        let (items, queued) = mpsc::channel(RECEIVED_WAITING_MAX);
        let queued = Arc::new(Mutex::new(queued));
        let (unread, cut) = (Arc::downgrade(&queued), replaced.clone());
        let giving = receive::give(self.context.clone(), agency.clone(), request, items, replaced);
        tokio::spawn(async move {
            let mut giving = std::pin::pin!(giving);
            // First, so that what was queued is gone before the word that says why.
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = &mut giving => return,
            }
            // The peer of a stream that was replaced may never read: what waits for it there would be kept for as long.
            if let Some(unread) = unread.upgrade() {
                let mut unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
                while unread.try_recv().is_ok() {}
            }
            giving.await;
        });
        let queued = futures::stream::poll_fn(move |context| {
            queued.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context)
        });
        Ok(Response::new(receive::given(&self.context, agency, queued).boxed()))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<AcknowledgeResponse>, Status> {
        let agency = self.agency(&request)?;
        acknowledge(&self.context, agency, &request.into_inner().cursor).await.map_err(refused)?;
        Ok(Response::new(AcknowledgeResponse {}))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let agency = self.agency(&request)?;
        let request = request.into_inner();
        explain(&self.context, agency, request).await.map(Response::new)
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let by = known_caller(&self.context, &request)?.identity;
        let asking = Asking::of(by.role, by.name);
        why(&self.context, asking, request.into_inner()).await.map(Response::new)
    }

    async fn track(&self, request: Request<TrackRequest>) -> Result<Response<Self::TrackStream>, Status> {
        let agency = self.agency(&request)?;
        let request = request.into_inner();
        let open = Arc::clone(&self.tracks).try_acquire_owned().map_err(|_| {
            refused(Refusal::new(Reason::QueueFull, format!("{TRACKS_OPEN_MAX} tracks are open at this node")))
        })?;
        let until = request.until();
        let place = track::find(&self.context, agency.clone(), request.exchange_id).await?;
        let (items, stream) = mpsc::channel(TRACKED_WAITING_MAX);
        let context = self.context.clone();
        tokio::spawn(async move {
            let telling = track::tell(context.clone(), place, until, items.clone());
            tokio::select! {
                biased;
                why = ended(&context, &agency) => drop(items.send(Err(refused(why))).await),
                () = telling => {}
            }
            drop(open);
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

/// A submission that is traced.
struct Called {
    begun: SystemTime,
    lane: Option<Lane>,
    caller: Option<TraceParent>,
}

impl Called {
    fn begin(request: &Request<SubmitRequest>) -> Option<Self> {
        let caller = request.metadata().get("traceparent").and_then(|text| TraceParent::parse(text.to_str().ok()?));
        let lane = parse_lane(request.get_ref().lane).ok();
        traces::is_traced().then(|| Self { begun: SystemTime::now(), lane, caller })
    }

    fn queued(self, context: &Context, answer: &SubmitResponse) {
        if let (Some(lane), Ok(id)) = (self.lane, Digest::from_slice(&answer.exchange_id)) {
            let (exchange, participant) = (ExchangeId(id), context.participant.to_string());
            let Self { begun, caller, .. } = self;
            traces::trace(Span { exchange, step: Step::Submit, lane, participant, begun, caller });
        }
    }
}

/// Keeps that an agency has everything up to a cursor; it never gets it again.
pub async fn acknowledge(context: &Context, agency: Name, cursor: &[u8]) -> Result<(), Refusal> {
    concord_faults::point("node.agency.acknowledging");
    match Cursors::new(context, &agency).open(cursor)? {
        Cursor::Through { lane, number, rights_at } => {
            context.writer.acknowledge(agency, lane, number, rights_at).await?;
        }
        Cursor::One { lane, number } => context.writer.collect(agency, lane, number).await?,
    }
    concord_faults::point("node.agency.acknowledged");
    metrics::counter!("concord_agency_acknowledgements_total").increment(1);
    Ok(())
}
