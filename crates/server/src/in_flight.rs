//! Calls in flight: how many one caller, and all callers of one participant, may have open at once, and how many bytes of messages.

mod bodies;
mod places;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use concord_identity::Caller;
use concord_model::{ParticipantCode, Refusal};
use concord_wire::status::to_status;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use self::bodies::{Brought, Counted};
use self::places::InFlight;
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
        Self(InFlight::new(own))
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
            None => Err(denied(None)),
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
