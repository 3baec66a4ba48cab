//! Calls in flight: how many one caller, and all callers of one participant, may have open at once, and how many bytes of messages.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
/// agency fewer. One more ends at once with RESOURCE_EXHAUSTED, QUEUE_FULL and RetryInfo.
pub const CALLS_IN_FLIGHT_PER_CALLER_MAX: usize = 64;
/// Calls of all callers of one participant, which gives itself as many names as it likes. One more ends as above. The
/// participant that runs the server has no such limit: all agencies of a node are its own.
pub const CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX: usize = 128;
/// Bytes of messages that one caller's calls brought, over all of them: each call counts with the message that it brings or brought
/// last, until its next one begins or it ends. HTTP/2's windows bound what is on the wire, and not what was taken off it and
/// waits for its last byte. A node brings a consignment in each lane and something beside. The call by which more comes ends with
/// RESOURCE_EXHAUSTED, QUEUE_FULL and RetryInfo.
pub const BYTES_IN_FLIGHT_PER_CALLER_MAX: usize = 24 * 1024 * 1024;
/// The same of all callers of one participant, but of the one that runs the server.
pub const BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX: usize = 48 * 1024 * 1024;

const REFUSALS_LOGGED_PER_SECOND_MAX: u32 = 5;
/// In front of each message: whether it is compressed, and its length.
const MESSAGE_HEAD_BYTES: usize = 5;

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

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = match request.extensions().get::<Caller>() {
            Some(caller) => self.in_flight.take(&caller.identity),
            // The table lets nobody through without a name; should it ever, nobody is served without a limit.
            None => Err(denied()),
        };
        match place {
            Ok(place) => {
                let brought = Brought::by(&place);
                let answer = self.inner.call(request.map(|body| brought.wrap(body)));
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

type Calls = BTreeMap<ParticipantCode, BTreeMap<Identity, Share>>;

/// What one caller has.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    calls: usize,
    bytes: usize,
}

impl InFlight {
    fn take(&self, identity: &Identity) -> Result<Arc<Place>, Refusal> {
        let mut calls = self.calls();
        let of_participant = calls.get(&identity.participant);
        let of_caller = of_participant.and_then(|callers| callers.get(identity)).copied().unwrap_or_default();
        if of_caller.calls >= CALLS_IN_FLIGHT_PER_CALLER_MAX {
            return Err(full(identity, CALLS_IN_FLIGHT_PER_CALLER_MAX, "one caller"));
        }
        let of_all: usize = of_participant.map_or(0, |callers| callers.values().map(|share| share.calls).sum());
        if identity.participant != self.own && of_all >= CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX {
            return Err(full(&identity.participant, CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX, "one participant"));
        }
        calls.entry(identity.participant.clone()).or_default().entry(identity.clone()).or_default().calls += 1;
        Ok(Arc::new(Place { identity: identity.clone(), in_flight: self.clone(), bytes: Mutex::new(0) }))
    }

    /// So many bytes more, if there is room for them.
    fn hold(&self, identity: &Identity, bytes: usize) -> Result<(), Refusal> {
        let mut calls = self.calls();
        let callers = calls.entry(identity.participant.clone()).or_default();
        let of_all: usize = callers.values().map(|share| share.bytes).sum();
        let share = callers.entry(identity.clone()).or_default();
        if share.bytes + bytes > BYTES_IN_FLIGHT_PER_CALLER_MAX {
            return Err(too_much(identity, BYTES_IN_FLIGHT_PER_CALLER_MAX, "one caller"));
        }
        if identity.participant != self.own && of_all + bytes > BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX {
            return Err(too_much(&identity.participant, BYTES_IN_FLIGHT_PER_PARTICIPANT_MAX, "one participant"));
        }
        share.bytes += bytes;
        Ok(())
    }

    fn let_go(&self, identity: &Identity, bytes: usize) {
        let mut calls = self.calls();
        let share = calls.get_mut(&identity.participant).and_then(|callers| callers.get_mut(identity));
        if let Some(share) = share {
            share.bytes = share.bytes.saturating_sub(bytes);
        }
    }

    fn give_back(&self, identity: &Identity, bytes: usize) {
        let mut calls = self.calls();
        let Some(callers) = calls.get_mut(&identity.participant) else { return };
        match callers.get_mut(identity) {
            Some(share) if share.calls > 1 => {
                share.calls -= 1;
                share.bytes = share.bytes.saturating_sub(bytes);
            }
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

fn too_much(whose: &dyn std::fmt::Display, most: usize, of: &str) -> Refusal {
    let mebibytes = most / 1024 / 1024;
    Refusal::new(
        Reason::QueueFull,
        format!(
            "the calls of {whose} have brought messages of {mebibytes} MiB that are not answered, the most for {of}"
        ),
    )
}

/// A call's place: taken until this is dropped.
#[derive(Debug)]
struct Place {
    identity: Identity,
    in_flight: InFlight,
    /// Of the message that the call brings or brought last.
    bytes: Mutex<usize>,
}

impl Place {
    fn hold(&self, bytes: usize) -> Result<(), Refusal> {
        let mut held = self.held();
        self.in_flight.hold(&self.identity, bytes)?;
        *held += bytes;
        Ok(())
    }

    fn let_go(&self) {
        self.in_flight.let_go(&self.identity, std::mem::take(&mut *self.held()));
    }

    fn held(&self) -> MutexGuard<'_, usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.held();
        self.in_flight.give_back(&self.identity, bytes);
    }
}

/// What a call brings, counted as it comes. A call that has ended is counted no more, so the place is not kept by this.
struct Brought {
    body: Body,
    place: Weak<Place>,
    head: [u8; MESSAGE_HEAD_BYTES],
    /// How much of the head has come.
    head_has: usize,
    /// How much of the message is still to come.
    left: usize,
    over: bool,
}

impl Brought {
    fn by(place: &Arc<Place>) -> Self {
        let place = Arc::downgrade(place);
        Self { body: Body::empty(), place, head: [0; MESSAGE_HEAD_BYTES], head_has: 0, left: 0, over: false }
    }

    fn wrap(self, body: Body) -> Body {
        if body.is_end_stream() { body } else { Body::new(Self { body, ..self }) }
    }

    fn count(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        let Some(place) = self.place.upgrade() else { return Ok(()) };
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = bytes.len().min(self.left);
                place.hold(taken)?;
                self.left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            self.head[self.head_has] = bytes[0];
            self.head_has += 1;
            bytes = &bytes[1..];
            if self.head_has == MESSAGE_HEAD_BYTES {
                let [_, length @ ..] = self.head;
                (self.head_has, self.left) = (0, u32::from_be_bytes(length) as usize);
                place.let_go();
            }
        }
        Ok(())
    }
}

impl http_body::Body for Brought {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = &polled else { return polled };
        let Some(data) = frame.data_ref().cloned() else { return polled };
        let Err(refusal) = self.count(&data) else { return polled };
        report(&refusal);
        self.over = true;
        // What the peer still sends is read by nobody.
        self.body = Body::empty();
        if let Some(place) = self.place.upgrade() {
            place.let_go();
        }
        Poll::Ready(Some(Err(to_status(&refusal))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

    fn brought(of: &Arc<Place>) -> Brought {
        Brought::by(of)
    }

    /// A message of this length whose head came, and so much of it.
    fn part_of(length: usize, comes: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.resize(MESSAGE_HEAD_BYTES + comes, 7);
        bytes
    }

    #[test]
    fn what_a_call_brought_last_counts_until_its_next_message_begins_or_it_ends_however_it_is_cut() {
        let in_flight = in_flight();
        let kaz = "spiffe://kaz.concord/node/main";
        let bytes = |in_flight: &InFlight| {
            let calls = in_flight.calls();
            calls.values().flat_map(BTreeMap::values).map(|share| share.bytes).sum::<usize>()
        };
        let stream = [part_of(300, 300), part_of(0, 0), part_of(20, 20), part_of(7, 3)].concat();
        for cut in 1..stream.len() {
            let place = take(&in_flight, kaz).unwrap();
            let mut one = brought(&place);
            let mut most = 0;
            for piece in stream.chunks(cut) {
                one.count(piece).unwrap();
                most = most.max(bytes(&in_flight));
            }
            assert_eq!(bytes(&in_flight), 3, "{cut}");
            assert!(most <= 300, "{cut}");
            drop(place);
            assert!(one.count(&[0; 4000]).is_ok(), "a call that ended is not counted");
            assert_eq!(bytes(&in_flight), 0);
        }
    }

    #[test]
    fn more_than_a_caller_or_a_participant_may_bring_is_refused_and_others_bring_theirs() {
        const MESSAGE: usize = 4 * 1024 * 1024;
        let in_flight = in_flight();
        let bring = |identity: &str| {
            let place = take(&in_flight, identity).unwrap();
            let counted = brought(&place).count(&part_of(MESSAGE, MESSAGE));
            (place, counted.map_err(|refusal| refusal.reason))
        };
        let mut kept = Vec::new();
        for name in ["one", "two"] {
            for _ in 0..BYTES_IN_FLIGHT_PER_CALLER_MAX / MESSAGE {
                let (place, counted) = bring(&format!("spiffe://kaz.concord/node/{name}"));
                assert_eq!(counted, Ok(()));
                kept.push(place);
            }
            assert_eq!(bring(&format!("spiffe://kaz.concord/node/{name}")).1, Err(Reason::QueueFull));
        }
        assert_eq!(bring("spiffe://kaz.concord/node/three").1, Err(Reason::QueueFull), "the participant has its share");
        assert_eq!(bring("spiffe://uzb.concord/node/main").1, Ok(()));
        kept.pop();
        assert_eq!(bring("spiffe://kaz.concord/node/three").1, Ok(()));
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
