//! Any method of any gRPC server, called by its path with any bytes: what comes back, to the last byte.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::time::timeout;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::command::DEADLINE;
use crate::raw::reason_of;

/// What a call was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A first message, whatever came after it.
    Message(Bytes),
    /// The end, in order and without a message.
    Nothing,
    /// A refusal.
    Refused(Refused),
}

/// Everything that a refusal tells: nothing that is not here can tell two of them apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused {
    /// gRPC's.
    pub code: Code,
    /// In words.
    pub message: String,
    /// `google.rpc.Status`, serialised.
    pub details: Bytes,
    /// The stable reason, if it is one of ours.
    pub reason: Option<String>,
    /// Other fields that came with it, sorted; without the time.
    pub metadata: Vec<String>,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, reason, details, metadata } = self;
        write!(f, "{code:?} {reason:?} '{message}', {} bytes of details, {metadata:?}", details.len())
    }
}

impl Said {
    /// `OK`, or the reason of the refusal.
    pub fn word(&self) -> String {
        match self {
            Self::Message(_) | Self::Nothing => "OK".to_owned(),
            Self::Refused(refused) => refused.reason.clone().unwrap_or_else(|| format!("{:?}", refused.code)),
        }
    }

    /// The same, where every name of something is one name: what the caller itself named is known to it.
    #[must_use]
    pub fn without(self, named: &str) -> Self {
        match self {
            Self::Refused(refused) => Self::Refused(Refused {
                message: refused.message.replace(named, "…"),
                details: replaced(&refused.details, named.as_bytes()),
                ..refused
            }),
            answered => answered,
        }
    }
}

fn replaced(bytes: &Bytes, named: &[u8]) -> Bytes {
    let Some(at) = bytes.windows(named.len()).position(|window| window == named) else { return bytes.clone() };
    [&bytes[..at], "…".as_bytes(), &bytes[at + named.len()..]].concat().into()
}

/// Calls the method at a path with one message, which is all that this side says.
pub async fn call_any(channel: &Channel, path: &str, request: impl Into<Bytes>) -> Said {
    let mut client = tonic::client::Grpc::new(channel.clone());
    let messages = tokio_stream::once(request.into());
    let path = PathAndQuery::try_from(path).unwrap();
    let answered = async {
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut stream = client.streaming(Request::new(messages), path, Raw).await?.into_inner();
        stream.message().await
    };
    match timeout(DEADLINE, answered).await.expect("it is answered in time") {
        Ok(Some(message)) => Said::Message(message),
        Ok(None) => Said::Nothing,
        Err(status) => {
            let fields = status.metadata().clone().into_headers();
            let told = fields.iter().filter(|(name, _)| *name != "date");
            let mut metadata: Vec<String> = told.map(|(name, value)| format!("{name}: {value:?}")).collect();
            metadata.sort();
            Said::Refused(Refused {
                code: status.code(),
                message: status.message().to_owned(),
                details: Bytes::copy_from_slice(status.details()),
                reason: reason_of(&status),
                metadata,
            })
        }
    }
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
