//! Deadlines: the caller's own, and a limit of this server for calls that answer with one message.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// The longest that a call with one answer may take, whatever its caller allows. The caller gets DEADLINE_EXCEEDED and may
/// ask again: nothing that was acknowledged is undone by it.
pub const UNARY_TIME_MAX_SECONDS: u64 = 60;

const TIMEOUT_HEADER: &str = "grpc-timeout";
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Ends calls at their deadline with DEADLINE_EXCEEDED.
///
/// It stands inside the method table, so that a denied call is not timed, and outside the services. tonic has a timer of its
/// own further out that would answer CANCELLED; this one is set first and asked first, so that one never speaks.
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    unary: Arc<BTreeSet<String>>,
    unary_time_max: Duration,
}

impl DeadlineLayer {
    /// `unary` are the paths of the methods that `unary_time_max` is for. Streams have only their caller's deadline.
    pub fn new(unary: BTreeSet<String>, unary_time_max: Duration) -> Self {
        Self { unary: Arc::new(unary), unary_time_max }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { layer: self.clone(), inner }
    }
}

/// A service whose calls end at their deadline.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    layer: DeadlineLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asked = timeout_of(request.headers());
        let is_unary = self.layer.unary.contains(request.uri().path());
        let most = is_unary.then_some(self.layer.unary_time_max);
        let Some(time) = asked.into_iter().chain(most).min() else {
            return Box::pin(self.inner.call(request));
        };
        let mut timer = Timer::after(time);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = std::pin::pin!(answer);
            std::future::poll_fn(|context| match answer.as_mut().poll(context) {
                Poll::Pending if timer.is_over(context) => Poll::Ready(Ok(exceeded().into_http())),
                pending_or_ready => pending_or_ready,
            })
            .await
            .map(|response: Response<Body>| response.map(|body| Timed::wrap(body, timer)))
        })
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded("the call took longer than its deadline; ask again with more time")
}

/// The caller's time, as the gRPC protocol writes it: at most eight digits and a unit. Anything else is no deadline.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 60 * 60),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

struct Timer(Pin<Box<Sleep>>);

impl Timer {
    fn after(time: Duration) -> Self {
        Self(Box::pin(sleep_until(Instant::now() + time)))
    }

    /// The clock is asked beside the timer: whichever of two timers of one moment wakes the task, this one is over.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.0.as_mut().poll(context).is_ready() || Instant::now() >= self.0.deadline()
    }
}

/// A stream of answers that ends with DEADLINE_EXCEEDED if it is not over by then.
struct Timed {
    body: Body,
    timer: Timer,
    over: bool,
}

impl Timed {
    fn wrap(body: Body, timer: Timer) -> Body {
        if body.is_end_stream() { body } else { Body::new(Self { body, timer, over: false }) }
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending if self.timer.is_over(context) => {
                self.over = true;
                // What the stream came from is let go of now, not when the peer has read the end.
                self.body = Body::empty();
                let mut trailers = HeaderMap::new();
                exceeded().add_header(&mut trailers)?;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            pending_or_ready => pending_or_ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them_or_not_at_all() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT_HEADER, text.parse().unwrap());
            timeout_of(&headers)
        };
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        for text in ["", "H", "1", "1x", "-1S", "+1S", "999999999S", "1 S", "1é"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }
}
