//! Mailbox and feed against a hub that says what a test wrote down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use concord_journal::HistoryId;
use concord_model::{Lane, Reason, Refusal};
use concord_wire::proto::agreement::v1::{SignedStatement, SubmitRequest};
use concord_wire::proto::exchange::v1::{
    AcknowledgementStatement, ConsignRequest, ConsignResponse, FetchConsignmentsRequest, FetchConsignmentsResponse,
    PastHistory, ReceiveRequest, ReceiveResponse, ReceiveWelcome, receive_request, receive_response,
};
use concord_wire::proto::feed::v1::{
    FollowRequest, FollowResponse, FollowWelcome, HandBackRequest, HandBackResponse, ReportRequest, ReportResponse,
    follow_response,
};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::judging::accepted;
use super::support::{Forum, HISTORY, Running, delivered, founded, until};
use super::uplink::context;
use crate::link::{HubLink, Incoming, LinkEnd, Outgoing};

const MEBIBYTE: usize = 1024 * 1024;
const LATER: HistoryId = HistoryId([8; 16]);

/// Says the same at every opening of lane routine and of the feed, then nothing more; everything else is away.
pub(super) struct ScriptedHub {
    pub(super) mail: Vec<receive_response::Message>,
    pub(super) feed: Vec<follow_response::Message>,
    /// So many openings of the feed are refused first.
    pub(super) feed_refused: AtomicUsize,
    /// What a statement of this officer comes to.
    pub(super) submit: fn(&SignedStatement) -> Result<(), LinkEnd>,
    pub(super) said: Mutex<Vec<receive_request::Message>>,
}

impl ScriptedHub {
    pub(super) fn new(mail: Vec<receive_response::Message>) -> Self {
        Self {
            mail,
            feed: Vec::new(),
            feed_refused: AtomicUsize::new(0),
            submit: |_| Err(LinkEnd::closed()),
            said: Mutex::default(),
        }
    }
}

impl HubLink for Arc<ScriptedHub> {
    fn consign(
        &self,
        _: Lane,
        _: Outgoing<ConsignRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ConsignResponse>, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
    }

    fn receive(
        &self,
        lane: Lane,
        mut outgoing: Outgoing<ReceiveRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ReceiveResponse>, LinkEnd>> {
        let hub = Arc::clone(self);
        Box::pin(async move {
            if lane != Lane::Routine {
                return Err(LinkEnd::closed());
            }
            let script = hub.mail.clone().into_iter().map(|message| Ok(ReceiveResponse { message: Some(message) }));
            let (ended, mut end) = mpsc::channel::<()>(1);
            tokio::spawn(async move {
                while let Some(request) = outgoing.next().await {
                    hub.said.lock().unwrap().extend(request.message);
                }
                drop(ended);
            });
            let open = futures::stream::poll_fn(move |context| end.poll_recv(context).map(|_| None));
            Ok(futures::stream::iter(script).chain(open).boxed())
        })
    }

    fn follow(&self, _: FollowRequest) -> BoxFuture<'_, Result<Incoming<FollowResponse>, LinkEnd>> {
        if self.feed_refused.load(Ordering::SeqCst) > 0 {
            self.feed_refused.fetch_sub(1, Ordering::SeqCst);
            let refusal = Refusal::new(Reason::CallerNotAllowed, "not yet");
            return Box::pin(async { Err(LinkEnd::Refused(refusal)) });
        }
        let script = self.feed.clone().into_iter().map(|message| Ok(FollowResponse { message: Some(message) }));
        let script = futures::stream::iter(script).chain(futures::stream::pending());
        Box::pin(async move { Ok(script.boxed()) })
    }

    fn hand_back(&self, _: Outgoing<HandBackRequest>) -> BoxFuture<'_, Result<HandBackResponse, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
    }

    fn fetch(
        &self,
        _: FetchConsignmentsRequest,
    ) -> BoxFuture<'_, Result<Incoming<FetchConsignmentsResponse>, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
    }

    fn report(&self, _: ReportRequest) -> BoxFuture<'_, Result<ReportResponse, LinkEnd>> {
        Box::pin(async { Ok(ReportResponse::default()) })
    }

    fn submit(&self, request: SubmitRequest) -> BoxFuture<'_, Result<(), LinkEnd>> {
        let outcome = (self.submit)(&request.statement.unwrap());
        Box::pin(async move { outcome })
    }
}

fn welcome(current: HistoryId, past: &[(HistoryId, u64)]) -> receive_response::Message {
    let past = past.iter().map(|(history, last_number)| PastHistory {
        history: Bytes::copy_from_slice(history.as_bytes()),
        last_number: *last_number,
    });
    receive_response::Message::Welcome(ReceiveWelcome {
        limits: Some(concord_wire::limits()),
        history: Bytes::copy_from_slice(current.as_bytes()),
        recorded: None,
        past: past.collect(),
        resume: None,
    })
}

fn link(hub: &Arc<ScriptedHub>) -> Arc<dyn HubLink> {
    Arc::new(Arc::clone(hub))
}

#[tokio::test(flavor = "multi_thread")]
async fn older_mail_is_acknowledged_in_the_history_that_the_hub_has_now() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.mail(Lane::Routine, HISTORY, vec![accepted(&forum, 1, 1)]).await.unwrap();
    let hub = Arc::new(ScriptedHub::new(vec![welcome(LATER, &[(HISTORY, 1)])]));
    let context = context(&forum, &node);
    context.readiness.raise("mailbox-routine", "the hub refused once");
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &link(&hub));
    until(|| hub.said.lock().unwrap().len() == 2).await;
    let said = hub.said.lock().unwrap().pop();
    let Some(receive_request::Message::Acknowledgement(acknowledgement)) = said else {
        panic!("no acknowledgement: {said:?}");
    };
    let statement = AcknowledgementStatement::decode(acknowledgement.statement).unwrap();
    assert_eq!((&statement.history[..], statement.delivered_through), (&LATER.as_bytes()[..], 1));
    assert!(context.readiness.is_ready(), "the alarm outlived the welcome: {:?}", context.readiness.list());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_without_its_shape_ends_the_lane_and_not_the_node() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    let good = delivered(&forum.irn, &header, &blobs, 1);
    let mut bad = delivered(&forum.irn, &header, &blobs, 2);
    bad.path = vec![Bytes::from(vec![7; 5 * MEBIBYTE])];
    let mail = [good, bad].map(receive_response::Message::Delivery);
    let hub = Arc::new(ScriptedHub::new(std::iter::once(welcome(HISTORY, &[])).chain(mail).collect()));
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &link(&hub));
    until(|| !context.readiness.is_ready()).await;
    let alarm = context.readiness.list().remove(0);
    assert!(alarm.name == "mailbox-routine" && alarm.message.contains("shape"), "{alarm:?}");
    let mailbox = node.now().mailbox(Lane::Routine).clone();
    assert_eq!((mailbox.received_through, mailbox.set_aside_count), (1, 0), "what was good before it was dropped");
    tasks.shutdown().await;
    // Whatever gets as far as the writer all the same is refused there, and the writer goes on.
    let mut huge = accepted(&forum, 2, 2);
    huge.size_bytes = 9 * MEBIBYTE as u64;
    assert!(node.writer.mail(Lane::Routine, HISTORY, vec![huge]).await.is_err());
    node.writer.mail(Lane::Routine, HISTORY, vec![accepted(&forum, 2, 2)]).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_does_not_know_the_history_of_its_bundle_is_followed_with_a_note() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mut hub = ScriptedHub::new(Vec::new());
    hub.feed = vec![follow_response::Message::Welcome(FollowWelcome {
        limits: Some(concord_wire::limits()),
        history: Bytes::copy_from_slice(LATER.as_bytes()),
        past: Vec::new(),
        last_number: 8,
        healing: None,
        resume: None,
        sent_at: None,
    })];
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &link(&Arc::new(hub)));
    until(|| context.contact.is_connected()).await;
    // It lost data that this node never had: nothing can be handed back, and a person hears of it.
    assert_eq!(context.readiness.list()[0].name, "hub-lost-data");
    assert!(context.readiness.is_ready());
}

// The clock of the runtime stands, and goes on when everybody waits.
#[tokio::test(start_paused = true)]
async fn mail_that_waits_for_the_feed_is_alarmed_and_goes_on_when_the_feed_has_come() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let (header, blobs) = forum.exchange(&forum.irn, 1);
    // It names item 8 of the feed, which this hub does not tell.
    let mail = receive_response::Message::Delivery(delivered(&forum.irn, &header, &blobs, 1));
    let hub = Arc::new(ScriptedHub::new(vec![welcome(HISTORY, &[]), mail]));
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &link(&hub));
    let alarmed = || context.readiness.list().into_iter().any(|alarm| alarm.name == "mailbox-routine-feed");
    until(alarmed).await;
    assert_eq!(node.now().mailbox(Lane::Routine).received_through, 0);
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    until(|| !alarmed()).await;
    until(|| node.now().mailbox(Lane::Routine).received_through == 1).await;
    assert_eq!(node.now().mailbox(Lane::Routine).set_aside_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_feed_is_alarmed_and_the_alarm_goes_with_the_next_welcome() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mut hub = ScriptedHub::new(Vec::new());
    hub.feed = vec![follow_response::Message::Welcome(FollowWelcome {
        limits: Some(concord_wire::limits()),
        history: Bytes::copy_from_slice(HISTORY.as_bytes()),
        past: Vec::new(),
        last_number: 0,
        healing: None,
        resume: None,
        sent_at: None,
    })];
    hub.feed_refused.store(2, Ordering::SeqCst);
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &link(&Arc::new(hub)));
    let alarmed = || context.readiness.list().into_iter().any(|alarm| alarm.name == "feed");
    until(alarmed).await;
    assert!(!context.contact.is_connected());
    until(|| !alarmed()).await;
    assert!(context.contact.is_connected());
}

// The clock of the runtime stands, and goes on when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_hub_that_takes_a_stream_and_says_nothing_is_given_up_and_alarmed() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mut hub = ScriptedHub::new(Vec::new());
    hub.feed = vec![follow_response::Message::Welcome(FollowWelcome {
        limits: Some(concord_wire::limits()),
        history: Bytes::copy_from_slice(HISTORY.as_bytes()),
        past: Vec::new(),
        last_number: 0,
        healing: None,
        resume: None,
        sent_at: None,
    })];
    let hub = Arc::new(hub);
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &link(&hub));
    let named = |name: &str| context.readiness.list().into_iter().any(|alarm| alarm.name == name);
    until(|| named("mailbox-routine")).await;
    assert!(hub.said.lock().unwrap().len() >= 5, "one silence is not an alarm yet");
    assert!(context.contact.is_connected(), "a mailbox says nothing about the feed");
}
