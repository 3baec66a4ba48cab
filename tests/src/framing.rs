//! Calls whose messages no gRPC library would frame: any bytes in any pieces, over HTTP/2 that is in order.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::command::DEADLINE;
use crate::http2::Attacker;

/// In front of every message: whether it is compressed, and its length.
pub const MESSAGE_HEAD_BYTES: usize = 5;
/// Larger than any message, so that what is sent waits for the server only.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const FRAME_BYTES: usize = 32 * 1024;

/// A connection on which calls are made by hand.
pub struct Calls {
    client: SendRequest<Bytes>,
}

/// A call that was begun and not ended.
pub struct Begun {
    sending: SendStream<Bytes>,
    answer: h2::client::ResponseFuture,
}

/// A message as it is framed: its head says what is given here, whatever is true.
pub fn framed(compressed: u8, length: u32, bytes: &[u8]) -> Bytes {
    [&[compressed][..], &length.to_be_bytes(), bytes].concat().into()
}

/// The same, and what its head says is true.
pub fn message(bytes: &[u8]) -> Bytes {
    framed(0, bytes.len() as u32, bytes)
}

impl Calls {
    /// Connects, with a window of this many bytes for each answer.
    pub async fn connect(attacker: &Attacker, window: u32) -> Self {
        let stream = attacker.handshake().await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(WINDOW_BYTES);
        let (client, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(async move {
            // Its end is told to each call.
            let _ = connection.await;
        });
        Self { client }
    }

    /// Begins a call with these further header fields.
    pub async fn begin(&mut self, path: &str, fields: &[(&'static str, &str)]) -> Result<Begun, h2::Error> {
        let mut request = Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.client = self.client.clone().ready().await?;
        let (answer, sending) = self.client.send_request(request.body(()).unwrap(), false)?;
        Ok(Begun { sending, answer })
    }

    /// Makes a whole call with these bytes, and hears how it ended.
    pub async fn call(&mut self, path: &str, fields: &[(&'static str, &str)], bytes: Bytes) -> Status {
        let called = async {
            let mut begun = self.begin(path, fields).await?;
            // The server may have answered before all was sent.
            let _ = begun.send(bytes, true).await;
            begun.end().await
        };
        match timeout(DEADLINE, called).await.expect("a call ends in time") {
            Ok(status) => status,
            Err(error) => Status::unavailable(format!("the connection: {error}")),
        }
    }
}

impl Begun {
    /// Sends bytes as the server takes them.
    pub async fn send(&mut self, mut bytes: Bytes, ends: bool) -> Result<(), h2::Error> {
        if bytes.is_empty() && ends {
            return self.sending.send_data(bytes, true);
        }
        while !bytes.is_empty() {
            self.sending.reserve_capacity(bytes.len().min(FRAME_BYTES));
            let capacity = std::future::poll_fn(|context| self.sending.poll_capacity(context)).await;
            let capacity = capacity.unwrap_or(Ok(0))?;
            let piece = bytes.split_to(capacity.min(bytes.len()));
            self.sending.send_data(piece, ends && bytes.is_empty())?;
        }
        Ok(())
    }

    /// Hears how the call ended, and gives a window for whatever comes before.
    pub async fn end(self) -> Result<Status, h2::Error> {
        let (head, mut body): (_, RecvStream) = self.answer.await.map(Response::into_parts)?;
        if let Some(status) = status_in(&head.headers) {
            return Ok(status);
        }
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        Ok(status_in(&trailers).unwrap_or_else(|| Status::unknown(format!("HTTP {}", head.status))))
    }

    /// Whether the server has ended the call, or does within this time.
    pub async fn ended_within(self, time: Duration) -> Option<Status> {
        timeout(time, self.end())
            .await
            .ok()
            .map(|ended| ended.unwrap_or_else(|error| Status::unavailable(error.to_string())))
    }
}

fn status_in(fields: &HeaderMap) -> Option<Status> {
    Status::from_header_map(fields)
}

/// What a call ended with: the code, and the stable reason or else the words.
pub fn told(status: &Status) -> (Code, String) {
    (status.code(), crate::raw::reason_of(status).unwrap_or_else(|| status.message().to_owned()))
}
