//! The seam to the hub: streams of messages in and out. Uplink and downlink know nothing below it, so that a simulation can
//! stand there without sockets.

mod retry;
mod tonic_link;

use std::time::Duration;

use concord_model::{Class, Lane, Reason, Refusal};
use concord_wire::proto::agreement::v1::SubmitRequest;
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignResponse, FetchConsignmentsRequest, FetchConsignmentsResponse, ReceiveRequest,
    ReceiveResponse,
};
use concord_wire::proto::feed::v1::{
    FollowRequest, FollowResponse, HandBackRequest, HandBackResponse, ReportRequest, ReportResponse,
};
use concord_wire::status::from_status;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::{Code, Status};

pub(crate) use retry::{
    Attempt, FAILURES_ALARM_MIN, HUB_FULL_NOTE, REFUSED_RETRY_SECONDS, RETRY_MAX_SECONDS, backoff, keep_up,
};
pub use tonic_link::TonicLink;

/// From an opened stream to the hub's welcome, and from a call to its answer. A hub that takes longer hangs: the link is lost,
/// and tried again.
pub const WELCOME_TIMEOUT_SECONDS: u64 = 20;

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

    /// Hands back to a hub that lost data what it told and heard.
    fn hand_back(&self, outgoing: Outgoing<HandBackRequest>) -> BoxFuture<'_, Result<HandBackResponse, LinkEnd>>;

    /// Asks for this node's own consignments, which it lost.
    fn fetch(
        &self,
        request: FetchConsignmentsRequest,
    ) -> BoxFuture<'_, Result<Incoming<FetchConsignmentsResponse>, LinkEnd>>;

    /// Says how this node is.
    fn report(&self, request: ReportRequest) -> BoxFuture<'_, Result<ReportResponse, LinkEnd>>;

    /// Forwards a statement; done when the hub has recorded it.
    fn submit(&self, request: SubmitRequest) -> BoxFuture<'_, Result<(), LinkEnd>>;
}

/// Why a link ended, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// The hub is away, or was lost: try again, soon at first.
    Lost(String),
    /// The hub's disk is full: try again, ever later; what waits, waits here.
    HubFull(Refusal),
    /// This node's own disk is full, which has an alarm of its own: try again, ever later.
    OwnFull(Refusal),
    /// This participant is held: what waits, waits, until the feed tells that it is released.
    Held(Refusal),
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
                // A server that does not know the method, a message that is over its limit, or a reason of a newer hub: none of
                // them passes soon, and none is the hub's answer to what was asked.
                Code::Unimplemented
                | Code::OutOfRange
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::AlreadyExists
                | Code::Aborted
                | Code::DataLoss => Self::Refused(Refusal::new(Reason::Internal, status.message())),
                _ => Self::Lost(status.message().to_owned()),
            };
        };
        match refusal.reason {
            Reason::DiskFull | Reason::QuotaExceeded => Self::HubFull(refusal),
            Reason::ParticipantHeld => Self::Held(refusal),
            Reason::Fork => Self::Stopped(refusal.to_string()),
            // The feed is about to tell of the epoch that its officer opened.
            Reason::EpochClosed => Self::Lost(refusal.message),
            reason if matches!(reason.class(), Class::Exhausted | Class::Unavailable) => Self::Lost(refusal.message),
            _ => Self::Refused(refusal),
        }
    }

    /// What this node's own writer did not take.
    pub(crate) fn not_kept(refusal: Refusal) -> Self {
        match refusal.reason {
            Reason::DiskFull => Self::OwnFull(refusal),
            _ => Self::Refused(refusal),
        }
    }

    /// The hub took the call and does not answer.
    pub(crate) fn silent() -> Self {
        Self::Lost(format!("the hub did not answer for {WELCOME_TIMEOUT_SECONDS} s"))
    }

    /// A stream that ended without a word.
    pub(crate) fn closed() -> Self {
        Self::Lost("the hub ended the stream".to_owned())
    }
}

/// What the hub says first, in time.
pub(crate) async fn welcomed<T>(first: impl Future<Output = Result<T, LinkEnd>>) -> Result<T, LinkEnd> {
    let in_time = tokio::time::timeout(Duration::from_secs(WELCOME_TIMEOUT_SECONDS), first);
    in_time.await.unwrap_or_else(|_| Err(LinkEnd::silent()))
}

#[cfg(test)]
mod tests {
    use concord_wire::status::to_status;

    use super::*;

    #[test]
    fn what_passes_soon_is_tried_soon_and_what_does_not_is_refused_or_stopped() {
        let end = |reason| LinkEnd::from_status(&to_status(&Refusal::new(reason, "why")));
        for reason in
            [Reason::MembershipChanged, Reason::Healing, Reason::ShuttingDown, Reason::QueueFull, Reason::Internal]
        {
            assert_eq!(end(reason), LinkEnd::Lost("why".to_owned()), "{reason}");
        }
        assert!(matches!(end(Reason::Fork), LinkEnd::Stopped(_)));
        let full = Refusal::new(Reason::DiskFull, "why");
        assert_eq!(end(Reason::DiskFull), LinkEnd::HubFull(full.clone()));
        assert_eq!(LinkEnd::not_kept(full.clone()), LinkEnd::OwnFull(full));
        assert!(matches!(end(Reason::QuotaExceeded), LinkEnd::HubFull(_)));
        // A hub that does not know what this node has may be the wrong copy: it can be exchanged for the right one.
        for reason in [Reason::HistoryUnknown, Reason::StreamReplaced, Reason::CallerNotAllowed, Reason::StatementFork]
        {
            assert_eq!(end(reason), LinkEnd::Refused(Refusal::new(reason, "why")));
        }
        // Without our reason it is a proxy, a limit or a stranger that speaks: never an answer.
        let bare = LinkEnd::from_status(&Status::permission_denied("no"));
        assert_eq!(bare, LinkEnd::Refused(Refusal::new(Reason::Internal, "no")));
    }
}
