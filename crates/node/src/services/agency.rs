//! `AgencyService`: submit, receive, acknowledge, track.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use concord_model::{Lane, Name, Reason, Refusal};
use concord_wire::proto::agency::v1::agency_service_server::AgencyService;
use concord_wire::proto::agency::v1::{
    AcknowledgeRequest, AcknowledgeResponse, ReceiveRequest, ReceiveResponse, SubmitRequest, SubmitResponse,
    TrackRequest, TrackResponse,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{caller, receive, refused, track};
use crate::context::Context;
use crate::state::decide::agency_unknown;

/// Exchanges on their way to an agency that reads slowly: one being sent, one being read from the journal.
const RECEIVED_WAITING_MAX: usize = 1;
/// Changes of a track on their way to an agency that reads slowly; it then sees the newest only.
const TRACKED_WAITING_MAX: usize = 1;
/// Track streams open at once. One more gets `QUEUE_FULL`, and tries again.
const TRACKS_OPEN_MAX: usize = 256;
const CURSOR_SIZE_BYTES: usize = 9;

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

    /// A certificate alone does not make an agency: the operator added it.
    fn agency<T>(&self, request: &Request<T>) -> Result<Name, Status> {
        let name = caller(request)?.identity.name;
        if self.context.state.borrow().agencies().contains_key(&name) {
            Ok(name)
        } else {
            Err(refused(agency_unknown(&name)))
        }
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
        let agency = self.agency(&request)?;
        let answer = crate::submit::submit(&self.context, &agency, request.into_inner()).await;
        answer.map(Response::new).map_err(refused)
    }

    async fn receive(&self, request: Request<ReceiveRequest>) -> Result<Response<Self::ReceiveStream>, Status> {
        let agency = self.agency(&request)?;
        let request = request.into_inner();
        let replaced = self.replace(&agency, request.follow);
        let (items, queued) = mpsc::channel(RECEIVED_WAITING_MAX);
        let queued = Arc::new(Mutex::new(queued));
        let (unread, cut) = (Arc::downgrade(&queued), replaced.clone());
        let giving = receive::give(self.context.clone(), agency, request, items, replaced);
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
        let stream = futures::stream::poll_fn(move |context| {
            queued.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context)
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<AcknowledgeResponse>, Status> {
        let agency = self.agency(&request)?;
        acknowledge(&self.context, agency, &request.into_inner().cursor).await.map_err(refused)?;
        Ok(Response::new(AcknowledgeResponse {}))
    }

    async fn track(&self, request: Request<TrackRequest>) -> Result<Response<Self::TrackStream>, Status> {
        let agency = self.agency(&request)?;
        let request = request.into_inner();
        let open = Arc::clone(&self.tracks).try_acquire_owned().map_err(|_| {
            refused(Refusal::new(Reason::QueueFull, format!("{TRACKS_OPEN_MAX} tracks are open at this node")))
        })?;
        let until = request.until();
        let place = track::find(&self.context, agency, request.exchange_id).await?;
        let (items, stream) = mpsc::channel(TRACKED_WAITING_MAX);
        let telling = track::tell(self.context.clone(), place, until, items);
        tokio::spawn(async move {
            telling.await;
            drop(open);
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

/// Keeps that an agency has everything up to a cursor; it never gets it again.
pub async fn acknowledge(context: &Context, agency: Name, cursor: &[u8]) -> Result<(), Refusal> {
    concord_faults::point("node.agency.acknowledging");
    let (lane, number) = parse_cursor(cursor)?;
    context.writer.acknowledge(agency, lane, number).await?;
    concord_faults::point("node.agency.acknowledged");
    metrics::counter!("concord_agency_acknowledgements_total").increment(1);
    Ok(())
}

/// The cursor behind a delivery: lane and number.
pub(super) fn cursor(lane: Lane, number: u64) -> Bytes {
    let mut cursor = Vec::with_capacity(CURSOR_SIZE_BYTES);
    cursor.push(lane.slot() as u8);
    cursor.extend_from_slice(&number.to_be_bytes());
    cursor.into()
}

fn parse_cursor(bytes: &[u8]) -> Result<(Lane, u64), Refusal> {
    let parsed = bytes.split_first().and_then(|(lane, number)| {
        let lane = Lane::ALL.get(usize::from(*lane)).copied()?;
        Some((lane, u64::from_be_bytes(number.try_into().ok()?)))
    });
    parsed.ok_or_else(|| Refusal::new(Reason::CursorInvalid, "these bytes are no cursor of this node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_what_it_was_made_of_and_nothing_else_is_one() {
        for lane in Lane::ALL {
            for number in [0, 1, u64::MAX] {
                assert_eq!(parse_cursor(&cursor(lane, number)), Ok((lane, number)));
            }
        }
        for wrong in [&[][..], &[0; 8], &[0; 10], &[3, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert_eq!(parse_cursor(wrong).unwrap_err().reason, Reason::CursorInvalid);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_no_cursor_is_refused_and_what_is_one_was_given_so(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12),
        ) {
            match parse_cursor(&bytes) {
                Ok((lane, number)) => assert_eq!(cursor(lane, number), bytes),
                Err(refusal) => assert_eq!(refusal.reason, Reason::CursorInvalid),
            }
        }
    }
}
