//! Calls in flight: how many one caller, and all callers of one participant, may have open at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use concord_identity::Caller;
use concord_model::{Identity, ParticipantCode, Reason, Refusal};
use concord_wire::status::to_status;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::methods::denied;
use crate::throttle::Throttle;

/// Calls of one caller, streams among them, over all its connections: a node has seven streams and some calls open, an
/// agency fewer. One more ends at once with RESOURCE_EXHAUSTED, QUEUE_FULL and RetryInfo. Each may hold a message of
/// [`crate::MESSAGE_SIZE_MAX_BYTES`] in memory, which HTTP/2's windows do not bound.
pub const CALLS_IN_FLIGHT_PER_CALLER_MAX: usize = 64;
/// Calls of all callers of one participant, which gives itself as many names as it likes. One more ends as above. The
/// participant that runs the server has no such limit: all agencies of a node are its own.
pub const CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX: usize = 128;

const REFUSALS_LOGGED_PER_SECOND_MAX: u32 = 5;

static REFUSALS: Throttle = Throttle::new(REFUSALS_LOGGED_PER_SECOND_MAX);

/// Refuses calls over the limits.
///
/// It stands right behind the method table: a denied call takes no place and cannot be used to learn about this limit.
/// Everything else stands inside, so that a refused call is not timed, read or decoded, and a call that ends at its deadline
/// keeps its place until that was told.
#[derive(Debug, Clone)]
pub(crate) struct InFlightLayer(InFlight);

impl InFlightLayer {
    /// Nothing is in flight. `own` is who runs this server.
    pub(crate) fn new(own: ParticipantCode) -> Self {
        Self(InFlight { own, calls: Arc::default() })
    }
}

impl<S> Layer<S> for InFlightLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { in_flight: self.0.clone(), inner }
    }
}

/// A service behind the limits.
#[derive(Debug, Clone)]
pub(crate) struct Limited<S> {
    in_flight: InFlight,
    inner: S,
}

impl<S, B> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let place = match request.extensions().get::<Caller>() {
            Some(caller) => self.in_flight.take(&caller.identity),
            // The table lets nobody through without a name; should it ever, nobody is served without a limit.
            None => Err(denied()),
        };
        match place {
            Ok(place) => {
                let answer = self.inner.call(request);
                Box::pin(async move { Ok(answer.await?.map(|body| Counted::wrap(body, place))) })
            }
            Err(refusal) => {
                report(&refusal);
                Box::pin(async move { Ok(to_status(&refusal).into_http()) })
            }
        }
    }
}

fn report(refusal: &Refusal) {
    metrics::counter!("concord_calls_over_limit_total").increment(1);
    if let Some(left_out) = REFUSALS.admit(Instant::now()) {
        tracing::warn!(reason = %refusal.message, left_out, "a call was refused");
    }
}

/// The calls of everybody. Who has none is not in it, so it is no larger than the calls that are open.
#[derive(Debug, Clone)]
struct InFlight {
    own: ParticipantCode,
    calls: Arc<Mutex<Calls>>,
}

type Calls = BTreeMap<ParticipantCode, BTreeMap<Identity, usize>>;

impl InFlight {
    fn take(&self, identity: &Identity) -> Result<Arc<Place>, Refusal> {
        let mut calls = self.calls();
        let of_participant = calls.get(&identity.participant);
        let of_caller = of_participant.and_then(|callers| callers.get(identity)).copied().unwrap_or_default();
        if of_caller >= CALLS_IN_FLIGHT_PER_CALLER_MAX {
            return Err(full(identity, CALLS_IN_FLIGHT_PER_CALLER_MAX, "one caller"));
        }
        let of_all = of_participant.map_or(0, |callers| callers.values().sum());
        if identity.participant != self.own && of_all >= CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX {
            return Err(full(&identity.participant, CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX, "one participant"));
        }
        calls.entry(identity.participant.clone()).or_default().insert(identity.clone(), of_caller + 1);
        Ok(Arc::new(Place { identity: identity.clone(), in_flight: self.clone() }))
    }

    fn give_back(&self, identity: &Identity) {
        let mut calls = self.calls();
        let Some(callers) = calls.get_mut(&identity.participant) else { return };
        match callers.get_mut(identity) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(callers.remove(identity)),
        }
        if callers.is_empty() {
            calls.remove(&identity.participant);
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(whose: &dyn std::fmt::Display, most: usize, of: &str) -> Refusal {
    Refusal::new(
        Reason::QueueFull,
        format!("{whose} has {most} calls open, the most for {of}; end some that are not needed"),
    )
}

/// A call's place: taken until this is dropped.
#[derive(Debug)]
struct Place {
    identity: Identity,
    in_flight: InFlight,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.give_back(&self.identity);
    }
}

/// An answer whose place is taken until its end was handed over and the last of its bytes has gone out: a peer that does not
/// read would otherwise leave them in memory without a place.
struct Counted {
    body: Body,
    place: Option<Arc<Place>>,
}

impl Counted {
    fn wrap(body: Body, place: Arc<Place>) -> Body {
        if body.is_end_stream() { body } else { Body::new(Self { body, place: Some(place) }) }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match (polled, &self.place) {
            (Poll::Ready(Some(Ok(frame))), Some(place)) if frame.is_data() => {
                let held = |bytes| Bytes::from_owner(Held { bytes, _place: Arc::clone(place) });
                Poll::Ready(Some(Ok(frame.map_data(held))))
            }
            (Poll::Pending, _) => Poll::Pending,
            // Given back before the peer can see the end, so that a caller at its limit may go on with its next call.
            (end, _) => {
                self.place = None;
                end
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes on their way out, and the place of their call.
struct Held {
    bytes: Bytes,
    _place: Arc<Place>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight() -> InFlight {
        InFlight { own: ParticipantCode::secretariat(), calls: Arc::default() }
    }

    fn take(in_flight: &InFlight, identity: &str) -> Result<Arc<Place>, Reason> {
        in_flight.take(&identity.parse().unwrap()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn many_names_of_one_participant_share_one_limit_and_others_keep_theirs() {
        let in_flight = in_flight();
        let kaz = |number: usize| take(&in_flight, &format!("spiffe://kaz.concord/node/n{number}"));
        let mut taken: Vec<_> = (0..CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX).map(|number| kaz(number).unwrap()).collect();
        assert_eq!(kaz(9_999).err(), Some(Reason::QueueFull));
        assert!(take(&in_flight, "spiffe://uzb.concord/node/main").is_ok());

        taken.pop();
        taken.push(kaz(9_999).unwrap());
        assert_eq!(kaz(0).err(), Some(Reason::QueueFull));
        drop(taken);
        assert!(in_flight.calls().is_empty(), "nothing is remembered of who has no calls");
    }

    #[test]
    fn the_servers_own_callers_are_limited_one_by_one_and_not_together() {
        let in_flight = in_flight();
        let mut taken = Vec::new();
        for number in 0..2 * CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX / CALLS_IN_FLIGHT_PER_CALLER_MAX {
            let officer = format!("spiffe://sec.concord/officer/o{number}");
            taken.extend((0..CALLS_IN_FLIGHT_PER_CALLER_MAX).map(|_| take(&in_flight, &officer).unwrap()));
            assert_eq!(take(&in_flight, &officer).err(), Some(Reason::QueueFull));
        }
    }

    #[tokio::test]
    async fn a_place_is_taken_until_the_last_byte_has_gone_out_and_not_only_until_the_end_of_the_stream() {
        let in_flight = in_flight();
        let place = take(&in_flight, "spiffe://kaz.concord/node/main").unwrap();
        let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(http::HeaderMap::new())];
        let mut frames = frames.into_iter();
        let body = futures::stream::poll_fn(move |_| Poll::Ready(frames.next().map(Ok::<_, Status>)));
        let mut body = Counted::wrap(Body::new(Frames(body)), place);

        let mut next = async || std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let sent = next().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(sent, b"x"[..]);
        assert!(next().await.unwrap().unwrap().is_trailers());
        assert!(next().await.is_none());
        drop(body);
        assert!(!in_flight.calls().is_empty());
        drop(sent);
        assert!(in_flight.calls().is_empty());
    }

    struct Frames<S>(S);

    impl<S: futures::Stream<Item = Result<Frame<Bytes>, Status>> + Unpin> http_body::Body for Frames<S> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Pin::new(&mut self.0).poll_next(context)
        }
    }
}
