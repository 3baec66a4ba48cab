//! The seam to the hub: streams of messages in and out. Uplink and downlink know nothing below it, so that a simulation can
//! stand there without sockets.

mod retry;
mod tonic_link;

use concord_model::{Class, Lane, Reason, Refusal};
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::exchange::v1::{ConsignRequest, ConsignResponse, ReceiveRequest, ReceiveResponse};
use concord_wire::proto::feed::v1::{FollowRequest, FollowResponse};
use concord_wire::status::from_status;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::{Code, Status};

pub(crate) use retry::{Attempt, keep_up};
pub use tonic_link::TonicLink;

/// Messages that the hub sends.
pub type Incoming<T> = BoxStream<'static, Result<T, Status>>;
/// Messages that this node sends.
pub type Outgoing<T> = BoxStream<'static, T>;

/// The hub, as far as a node calls it.
pub trait HubLink: Send + Sync + 'static {
    /// Opens the stream of one lane's consignments; flash on a connection of its own.
    fn consign(
        &self,
        lane: Lane,
        outgoing: Outgoing<ConsignRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ConsignResponse>, LinkEnd>>;

    /// Opens the stream of one mailbox; flash on a connection of its own.
    fn receive(
        &self,
        lane: Lane,
        outgoing: Outgoing<ReceiveRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ReceiveResponse>, LinkEnd>>;

    /// Opens the feed.
    fn follow(&self, request: FollowRequest) -> BoxFuture<'_, Result<Incoming<FollowResponse>, LinkEnd>>;

    /// Forwards a statement; done when the hub has recorded it.
    fn submit(&self, statement: SignedStatement) -> BoxFuture<'_, Result<(), LinkEnd>>;
}

/// Why a link ended, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// The hub is away, or was lost: try again, soon at first.
    Lost(String),
    /// The hub refuses, or what it says does not hold: alarm, and try again slowly.
    Refused(Refusal),
    /// Going on could only make it worse: alarm, and never again in this process.
    Stopped(String),
}

impl LinkEnd {
    /// What a status means for a link.
    pub fn from_status(status: &Status) -> Self {
        let Some(refusal) = from_status(status) else {
            return match status.code() {
                // What a server says that does not know the method, or a message that is over its limit.
                Code::Unimplemented | Code::OutOfRange | Code::InvalidArgument | Code::PermissionDenied => {
                    Self::Refused(Refusal::new(Reason::Internal, status.message()))
                }
                _ => Self::Lost(status.message().to_owned()),
            };
        };
        match refusal.reason {
            Reason::HistoryUnknown | Reason::Fork => Self::Stopped(refusal.to_string()),
            reason if matches!(reason.class(), Class::Exhausted | Class::Unavailable) => Self::Lost(refusal.message),
            _ => Self::Refused(refusal),
        }
    }

    /// A stream that ended without a word.
    pub(crate) fn closed() -> Self {
        Self::Lost("the hub ended the stream".to_owned())
    }
}
