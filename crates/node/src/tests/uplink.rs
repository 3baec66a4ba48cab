//! The uplink against a hub of messages: no sockets, every loss on purpose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use concord_journal::{Digest as JournalDigest, HistoryId};
use concord_ledger::{AudienceGroup, ConsignmentRecorded, IndexRange};
use concord_model::{ConsignmentDigest, Lane};
use concord_server::{DiskRoom, Quotas, Readiness, Shares, Shutdown};
use concord_wire::consignment::Sealed;
use concord_wire::proto::agreement::v1::SubmitRequest;
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignResponse, ConsignWelcome, FetchConsignmentsRequest, FetchConsignmentsResponse,
    LastConsignment, ReceiveRequest, ReceiveResponse, RecordedReceipt, WithdrawnPlace, consign_request,
    consign_response,
};
use concord_wire::proto::feed::v1::{
    FollowRequest, FollowResponse, HandBackRequest, HandBackResponse, ReportRequest, ReportResponse,
};
use concord_wire::receipt;
use futures::StreamExt as _;
use futures::future::{self, BoxFuture};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::Status;

use super::support::{Forum, HISTORY, Running, code, founded, name, prepared, reference};
use super::withdrawn::ready;
use crate::context::{Contact, Context};
use crate::link::{HubLink, Incoming, LinkEnd, Outgoing};
use concord_server::{Clock as _, SystemClock};

/// A consignment, by lane and number, and which of its exchanges were said to be withdrawn before.
type SaidBefore = (Lane, u64, Vec<u32>);

/// Records what comes; loses its stream before every second receipt of lane routine.
pub(super) struct FakeHub {
    forum: Arc<Forum>,
    recorded: Arc<Mutex<BTreeMap<(Lane, u64), ConsignmentDigest>>>,
    streams: Arc<Mutex<u64>>,
    /// Claims to have this consignment of each lane, whatever came.
    claims: Option<u64>,
    /// Its receipts have one outcome less than there are exchanges.
    short: bool,
    history: HistoryId,
    /// It gives no receipt on this lane.
    silent: Option<Lane>,
    /// What was said to be withdrawn before, of which consignments.
    before: Arc<Mutex<Vec<SaidBefore>>>,
    /// What came beside consignments about what is withdrawn.
    told: Arc<Mutex<Vec<WithdrawnPlace>>>,
    asked: Arc<Notify>,
}

impl FakeHub {
    pub(super) fn new(forum: &Arc<Forum>, claims: Option<u64>) -> Self {
        Self {
            forum: Arc::clone(forum),
            recorded: Arc::default(),
            streams: Arc::default(),
            claims,
            short: false,
            history: HISTORY,
            silent: None,
            before: Arc::default(),
            told: Arc::default(),
            asked: Arc::default(),
        }
    }
}

type Consigning = Result<Incoming<ConsignResponse>, LinkEnd>;

impl HubLink for FakeHub {
    fn consign(&self, lane: Lane, outgoing: Outgoing<ConsignRequest>) -> BoxFuture<'_, Consigning> {
        let last_of = |lane| {
            let recorded = self.recorded.lock().unwrap();
            recorded.range((lane, 0)..=(lane, u64::MAX)).next_back().map(|((_, number), digest)| (*number, *digest))
        };
        let last = last_of(lane);
        let last_consignment = |lane| {
            let (number, _) = last_of(lane)?;
            Some(LastConsignment { lane: concord_wire::convert::lane(lane).into(), epoch: 1, number })
        };
        let (last_number, last_digest) = match (self.claims, last) {
            (Some(number), _) => (number, vec![0; 32]),
            (None, Some((number, digest))) => (number, digest.0.as_bytes().to_vec()),
            (None, None) => (0, Vec::new()),
        };
        let welcome = ConsignWelcome {
            limits: Some(concord_wire::limits()),
            history: Bytes::copy_from_slice(HISTORY.as_bytes()),
            last_number,
            last_digest: last_digest.into(),
            past: Vec::new(),
            closed: Vec::new(),
            damaged: Vec::new(),
            lasts: Lane::ALL.into_iter().filter_map(last_consignment).collect(),
        };
        let (forum, recorded, streams) =
            (Arc::clone(&self.forum), Arc::clone(&self.recorded), Arc::clone(&self.streams));
        self.asked.notify_waiters();
        let (short, history) = (self.short, self.history);
        let (silent, told) = (self.silent == Some(lane), Arc::clone(&self.told));
        let before = Arc::clone(&self.before);
        let answers = outgoing.filter_map(move |request| {
            told.lock().unwrap().extend(request.withdrawn);
            let given = match request.message.unwrap() {
                consign_request::Message::Hello(_)
                | consign_request::Message::Again(_)
                | consign_request::Message::Probe(_) => None,
                consign_request::Message::Consignment(consignment) => Some(consignment),
                consign_request::Message::Rehanded(rehanded) => rehanded.consignment,
            };
            let message = match given {
                None => consign_response::Message::Welcome(welcome.clone()),
                Some(_) if silent => return future::ready(None),
                Some(consignment) => {
                    let (number, receipt) = record(&forum, &recorded, consignment, (short, history));
                    if !request.withdrawn_before.is_empty() {
                        before.lock().unwrap().push((lane, number, request.withdrawn_before));
                    }
                    let mut count = streams.lock().unwrap();
                    *count += 1;
                    if *count % 2 == 1 && lane == Lane::Routine {
                        let lost = Status::unavailable("the stream was lost before its receipt");
                        return future::ready(Some(Err(lost)));
                    }
                    consign_response::Message::Receipt(receipt)
                }
            };
            future::ready(Some(Ok(ConsignResponse { message: Some(message) })))
        });
        Box::pin(async move { Ok(answers.boxed()) })
    }

    fn receive(
        &self,
        _: Lane,
        _: Outgoing<ReceiveRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ReceiveResponse>, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
    }

    fn follow(&self, _: FollowRequest) -> BoxFuture<'_, Result<Incoming<FollowResponse>, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
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

    fn submit(&self, _: SubmitRequest) -> BoxFuture<'_, Result<(), LinkEnd>> {
        Box::pin(async { Ok(()) })
    }
}

fn record(
    forum: &Forum,
    recorded: &Mutex<BTreeMap<(Lane, u64), ConsignmentDigest>>,
    message: concord_wire::proto::exchange::v1::Consignment,
    (short, history): (bool, HistoryId),
) -> (u64, RecordedReceipt) {
    let key = forum.kaz.signing.public();
    let opened = concord_wire::consignment::open(message, &code("KAZ"), |_, bytes, signature| {
        concord_identity::verify(&key.bytes, bytes, signature).unwrap();
        Ok(())
    });
    let sealed = opened.unwrap().sealed;
    let before = recorded.lock().unwrap().insert((sealed.chain.lane, sealed.number), sealed.digest);
    assert!(before.is_none_or(|before| before == sealed.digest), "a fork");
    (sealed.number, receipt_in(history, forum, &sealed, short))
}

/// The hub's receipt for a consignment.
pub(super) fn receipt_of(forum: &Forum, sealed: &Sealed, short: bool) -> RecordedReceipt {
    receipt_in(HISTORY, forum, sealed, short)
}

fn receipt_in(history: HistoryId, forum: &Forum, sealed: &Sealed, short: bool) -> RecordedReceipt {
    let fact = ConsignmentRecorded {
        rehanded: false,
        withdrawals: Vec::new(),
        withdrawn_before: Vec::new(),
        chain: sealed.chain.clone(),
        number: sealed.number,
        digest: sealed.digest,
        count: sealed.headers.len() as u32,
        groups: vec![AudienceGroup {
            agreement: reference(&forum.text("KAZ/drugs")),
            recipients: vec![code("IRN"), code("TUR")],
            items: vec![IndexRange { first: 0, count: sealed.headers.len() as u32 - u32::from(short) }],
        }],
        refused: Vec::new(),
        mailboxes: Vec::new(),
    };
    let key = forum.sec.signing.public().fingerprint;
    receipt::receipt(history, JournalDigest([3; 32]), SystemClock.now(), &fact, key, |message| {
        forum.sec.signing.sign(message)
    })
}

pub(super) fn context(forum: &Forum, node: &Running) -> Context {
    let der = forum.kaz.signing.to_pkcs8_der().unwrap();
    Context {
        room: DiskRoom::default(),
        shares: Arc::new(Shares::new(Quotas::default())),
        overdue: concord_server::Overdue::default(),
        backlog: Arc::new(crate::backlog::Backlog::new(crate::config::WAITING_EXCHANGES_DEFAULT)),
        participant: code("KAZ"),
        node: name("main"),
        own: concord_identity::Anchors::pinned(code("KAZ"), forum.kaz.anchor.anchor().clone()),
        keys: Arc::new(crate::signing::NodeKeys::only(concord_identity::SigningKey::from_pkcs8_der(&der).unwrap())),
        writer: node.writer.clone(),
        state: node.state.clone(),
        index: node.index.clone(),
        clock: Arc::new(SystemClock),
        readiness: Readiness::new(),
        shutdown: Shutdown::new(),
        contact: Arc::new(Contact::default()),
        probes: Arc::default(),
        audit: concord_server::audit::Audit::off(),
        run: [7; 16],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_receipt_is_sent_again_until_every_one_stands_here() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    for (number, lane) in [Lane::Routine, Lane::Flash, Lane::Routine, Lane::Priority].into_iter().enumerate() {
        node.writer.submit(prepared(&forum, &format!("r-{number}"), b"x", lane)).await.unwrap();
    }
    let hub = Arc::new(FakeHub::new(&forum, None));
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::uplink::start(&mut tasks, &context, &(Arc::clone(&hub) as Arc<dyn HubLink>));
    // One that is queued while the streams stand goes out without being asked for.
    node.writer.submit(prepared(&forum, "r-9", b"y", Lane::Routine)).await.unwrap();

    let mut published = node.state.clone();
    let all = published.wait_for(|state| Lane::ALL.iter().all(|lane| state.chain(*lane).unrecorded() == 0));
    tokio::time::timeout(std::time::Duration::from_secs(30), all).await.expect("receipts are missing").unwrap();
    let state = node.now();
    assert_eq!(state.chain(Lane::Routine).recorded_through, state.chain(Lane::Routine).last_number);
    assert_eq!(state.chain(Lane::Routine).unrecorded_exchanges, 0);
    assert!(context.readiness.is_ready(), "{:?}", context.readiness.list());
    assert!(node.index.receipt(Lane::Flash, 1, 1).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_knows_more_of_a_chain_than_this_node_stops_it_with_an_alarm() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.submit(prepared(&forum, "r-1", b"x", Lane::Routine)).await.unwrap();
    for claims in [1, 2] {
        let hub = Arc::new(FakeHub::new(&forum, Some(claims)));
        let context = context(&forum, &node);
        let mut tasks = JoinSet::new();
        crate::uplink::start(&mut tasks, &context, &(Arc::clone(&hub) as Arc<dyn HubLink>));
        // Each lane waits for a new epoch from then on, and asks its hub no more.
        let alarms = || context.readiness.list().into_iter().map(|alarm| alarm.name).collect::<Vec<_>>();
        super::support::until(|| alarms() == ["uplink-flash", "uplink-priority", "uplink-routine"]).await;
        assert!(hub.recorded.lock().unwrap().is_empty(), "something was sent to a hub whose past does not fit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hub_forgot_is_handed_in_again_with_its_receipts_and_the_new_ones_are_kept_beside_them() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let context = context(&forum, &node);
    let run = async |hub: &Arc<FakeHub>, count: usize| {
        let mut tasks = JoinSet::new();
        crate::uplink::start(&mut tasks, &context, &(Arc::clone(hub) as Arc<dyn HubLink>));
        let lane = || *context.now_state().chain(Lane::Flash);
        super::support::until(|| hub.recorded.lock().unwrap().len() == count && lane().unrecorded() == 0).await;
        tasks.shutdown().await;
    };
    for number in 1..=3 {
        node.writer.submit(prepared(&forum, &format!("r-{number}"), b"x", Lane::Flash)).await.unwrap();
    }
    let hub = Arc::new(FakeHub::new(&forum, None));
    let queued = context.now_state().chain(Lane::Flash).last_number as usize;
    run(&hub, queued).await;
    let first = node.index.receipt(Lane::Flash, 1, 1).unwrap().unwrap();
    // Another one in its place that has nothing; and something new meanwhile.
    node.writer.submit(prepared(&forum, "r-4", b"y", Lane::Flash)).await.unwrap();
    let forgetful = Arc::new(FakeHub::new(&forum, None));
    run(&forgetful, queued + 1).await;
    let both = (hub.recorded.lock().unwrap().clone(), forgetful.recorded.lock().unwrap().clone());
    assert!(both.0.iter().all(|(place, digest)| both.1.get(place) == Some(digest)), "{both:?}");
    super::support::until(|| node.index.renewed_receipt(Lane::Flash, 1, 1).unwrap().is_some()).await;
    // What its agency was told stands: the first one is what `track` and handing in again go by.
    assert_eq!(node.index.receipt(Lane::Flash, 1, 1).unwrap().unwrap(), first);
    assert_ne!(node.index.renewed_receipt(Lane::Flash, 1, 1).unwrap().unwrap(), first);
    assert!(context.readiness.is_ready(), "{:?}", context.readiness.list());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_is_told_in_which_of_its_histories_that_was_queued_which_is_withdrawn_and_has_no_receipt() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let queue = async |request: &str, lane| node.writer.submit(prepared(&forum, request, b"a", lane)).await.unwrap().id;
    let take_back = async |request: &str, of| node.writer.submit(ready(&forum, request, of)).await.unwrap();
    let context = context(&forum, &node);
    let later = HistoryId([8; 16]);
    let hub = Arc::new(FakeHub { silent: Some(Lane::Routine), history: later, ..FakeHub::new(&forum, None) });
    // Queued when only the bundle had named a history.
    let (receipted, early) = (queue("r-1", Lane::Flash).await, queue("r-2", Lane::Routine).await);
    let mut tasks = JoinSet::new();
    crate::uplink::start(&mut tasks, &context, &(Arc::clone(&hub) as Arc<dyn HubLink>));
    super::support::until(|| context.now_state().chain(Lane::Flash).unrecorded() == 0).await;
    // The first receipt has named another one.
    let since = queue("r-3", Lane::Routine).await;
    let told = async |request: &str, of| {
        take_back(request, of).await;
        super::support::until(|| context.now_state().chain(Lane::Priority).unrecorded() == 0).await;
        let place = hub.told.lock().unwrap().pop().unwrap();
        (place.number, place.queued_in_history)
    };
    assert_eq!(told("w-1", receipted).await, (1, Bytes::new()), "its receipt says more");
    assert_eq!(told("w-2", early).await, (1, Bytes::copy_from_slice(HISTORY.as_bytes())));
    assert_eq!(told("w-3", since).await, (2, Bytes::copy_from_slice(later.as_bytes())));
    tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_said_to_be_withdrawn_and_forgot_it_is_told_beside_what_was_withdrawn() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let context = context(&forum, &node);
    let run = async |hub: FakeHub, lanes: &[Lane]| {
        let (hub, mut tasks) = (Arc::new(hub), JoinSet::new());
        crate::uplink::start(&mut tasks, &context, &(Arc::clone(&hub) as Arc<dyn HubLink>));
        let has_all = |lane: &Lane| {
            let last = context.now_state().chain(*lane).last_number;
            context.now_state().chain(*lane).unrecorded() == 0
                && hub.recorded.lock().unwrap().contains_key(&(*lane, last))
        };
        super::support::until(|| lanes.iter().all(has_all)).await;
        tasks.shutdown().await;
        hub.before.lock().unwrap().clone()
    };
    let queue = async |request: &str, lane| node.writer.submit(prepared(&forum, request, b"x", lane)).await.unwrap().id;
    let take_back = async |request: &str, of| node.writer.submit(ready(&forum, request, of)).await.unwrap();
    // Two that are withdrawn by what has its receipt, one of them before it has its own; one by what has none; and one that is not.
    let (receipted, waits) = (queue("r-1", Lane::Priority).await, queue("r-2", Lane::Routine).await);
    take_back("w-1", receipted).await;
    take_back("w-2", waits).await;
    let hub = FakeHub { silent: Some(Lane::Routine), ..FakeHub::new(&forum, None) };
    assert_eq!(run(hub, &[Lane::Priority]).await, []);
    let (later, _) = (queue("r-3", Lane::Flash).await, queue("r-4", Lane::Flash).await);
    take_back("w-3", later).await;
    // Another one in its place that has nothing.
    let mut before = run(FakeHub::new(&forum, None), &Lane::ALL).await;
    before.sort();
    before.dedup();
    assert_eq!(before, [(Lane::Priority, 1, vec![0]), (Lane::Routine, 1, vec![0])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_without_an_outcome_for_each_exchange_is_not_kept() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.submit(prepared(&forum, "r-1", b"x", Lane::Flash)).await.unwrap();
    let hub = Arc::new(FakeHub { short: true, ..FakeHub::new(&forum, None) });
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::uplink::start(&mut tasks, &context, &(Arc::clone(&hub) as Arc<dyn HubLink>));
    super::support::until(|| !context.readiness.is_ready()).await;
    let alarm = context.readiness.list().remove(0);
    assert!(alarm.name == "uplink-flash" && alarm.message.contains("one outcome"), "{alarm:?}");
    assert_eq!(node.now().chain(Lane::Flash).recorded_through, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alarm_of_a_lane_that_has_nothing_to_send_ends_when_its_link_stands() {
    let (forum, place) = (Arc::new(Forum::new()), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let hub = Arc::new(FakeHub::new(&forum, None));
    let context = context(&forum, &node);
    for alarm in ["uplink-flash", "uplink-priority", "uplink-routine"] {
        context.readiness.raise(alarm, "the hub refused once");
    }
    let mut tasks = JoinSet::new();
    crate::uplink::start(&mut tasks, &context, &(Arc::clone(&hub) as Arc<dyn HubLink>));
    super::support::until(|| context.readiness.is_ready()).await;
}
