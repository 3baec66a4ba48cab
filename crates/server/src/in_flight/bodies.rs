//! What calls bring and are answered, and the places that they hold.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use concord_model::Refusal;
use concord_wire::status::to_status;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::places::Place;
use super::report;

/// In front of each message: whether it is compressed, and its length.
const MESSAGE_HEAD_BYTES: usize = 5;

/// What a call brings, counted as it comes. A call that has ended is counted no more, so the place is not kept by this.
pub(super) struct Brought {
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
    pub(super) fn by(place: &Arc<Place>) -> Self {
        let place = Arc::downgrade(place);
        Self { body: Body::empty(), place, head: [0; MESSAGE_HEAD_BYTES], head_has: 0, left: 0, over: false }
    }

    pub(super) fn wrap(self, body: Body) -> Body {
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
pub(super) struct Counted {
    body: Body,
    place: Option<Arc<Place>>,
}

impl Counted {
    pub(super) fn wrap(body: Body, place: Arc<Place>) -> Body {
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
    use std::collections::BTreeMap;

    use concord_model::Reason;

    use super::super::BYTES_IN_FLIGHT_PER_CALLER_MAX;
    use super::super::places::InFlight;
    use super::super::places::tests::{in_flight, take};
    use super::*;

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
            let mut one = Brought::by(&place);
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
            let counted = Brought::by(&place).count(&part_of(MESSAGE, MESSAGE));
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
