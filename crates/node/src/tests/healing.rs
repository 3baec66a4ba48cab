//! A hub that lost data, as its node meets it: what is handed back, what comes again, and what is told again.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use concord_journal::HistoryId;
use concord_model::{Digest, Lane};
use concord_wire::agreement::{DraftContent, parse_statement};
use concord_wire::proto::agreement::v1::SubmitRequest;
use concord_wire::proto::exchange::v1::{
    ConsignRequest, ConsignResponse, FetchConsignmentsRequest, FetchConsignmentsResponse, MailboxResume,
    ReceiveRequest, ReceiveResponse,
};
use concord_wire::proto::feed::v1::hand_back_request::Message;
use concord_wire::proto::feed::v1::{
    FollowRequest, FollowResponse, FollowWelcome, HandBackRequest, HandBackResponse, Healing, ReportRequest,
    ReportResponse, follow_response,
};
use concord_wire::stored::node::{FeedResumed, StatementAnswered};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::judging::accepted;
use super::support::{Forum, HISTORY, Running, founded, name, reference, until};
use super::uplink::context;
use crate::link::{HubLink, Incoming, LinkEnd, Outgoing};

const LATER: HistoryId = HistoryId([8; 16]);
const LANE: Lane = Lane::Routine;

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_has_no_second_effect_and_each_first_acknowledgement_is_told_under_the_number_of_now() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mail = |numbers: &[(u64, u8)]| numbers.iter().map(|(number, uuid)| accepted(&forum, *number, *uuid)).collect();
    node.writer.mail(LANE, HISTORY, mail(&[(1, 1), (2, 2), (3, 3), (4, 4)])).await.unwrap();
    node.writer.acknowledge(name("customs"), LANE, 3, 0).await.unwrap();
    assert_eq!(node.index.taken_after(LANE, 0, 10).unwrap(), [1, 2, 3]);

    // A hub that knows of more than was ever told is not followed: what follows would never be told.
    let more = node.writer.resume_mailbox(LANE, LATER, MailboxResume { at: 6, common: 2 }, 4).await;
    assert!(more.is_err() && node.now().mailbox(LANE).taken_count == 3);
    // The hub knows 1 and 2 still, and that one was taken.
    node.writer.resume_mailbox(LANE, LATER, MailboxResume { at: 6, common: 2 }, 1).await.unwrap();
    let mailbox = node.now().mailbox(LANE).clone();
    assert_eq!((mailbox.received_through, mailbox.taken_count, mailbox.history), (6, 2, Some(LATER)));
    assert_eq!(node.index.taken_after(LANE, 0, 10).unwrap(), [1, 2], "3 means nothing to the hub now");
    node.writer.acknowledge(name("customs"), LANE, 4, 0).await.unwrap();
    assert_eq!(node.now().mailbox(LANE).taken_count, 2, "nor does 4");

    node.writer.mail(LANE, LATER, mail(&[(7, 3), (8, 4), (9, 9)])).await.unwrap();
    assert_eq!(node.index.taken_after(LANE, 0, 10).unwrap(), [1, 2, 7, 8]);
    let inbox = node.index.inbox(LANE, 0, 10).unwrap();
    assert_eq!(inbox.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 9]);
    node.writer.acknowledge(name("customs"), LANE, 9, 0).await.unwrap();
    assert_eq!(node.index.taken_after(LANE, 0, 10).unwrap(), [1, 2, 7, 8, 9]);
    let state = node.now();
    assert_eq!((state.mailbox(LANE).taken_count, state.mailbox(LANE).set_aside_count), (5, 0));

    // It loses data again, as much as before and more.
    let back = node.writer.resume_mailbox(LANE, HISTORY, MailboxResume { at: 8, common: 0 }, 0).await;
    assert!(back.is_err(), "a mailbox does not go back");
    node.writer.resume_mailbox(LANE, HISTORY, MailboxResume { at: 9, common: 0 }, 0).await.unwrap();
    assert!(node.index.taken_after(LANE, 0, 10).unwrap().is_empty());
    node.writer.mail(LANE, HISTORY, mail(&[(10, 9), (11, 3), (12, 1)])).await.unwrap();
    assert_eq!(node.index.taken_after(LANE, 0, 10).unwrap(), [10, 11, 12]);
    let state = node.now();
    let journal = node.stop().await;
    let node = Running::start(&forum, journal, &place.path().join("new views"));
    assert!(node.now() == state, "a replay gives another state");
    assert_eq!(node.index.taken_after(LANE, 0, 10).unwrap(), [10, 11, 12], "rows made anew differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_on_where_the_hub_says_and_a_statement_told_twice_is_taken_in_once() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let feed = forum.feed();
    node.writer.feed(HISTORY, feed.clone(), 0).await.unwrap();
    let before = node.now();
    let resumed = |at| FeedResumed { history: *LATER.as_bytes(), at, digest: Some(Digest([3; 32])) };
    assert!(node.writer.resume_feed(resumed(7)).await.is_err(), "a feed does not go back");
    node.writer.resume_feed(resumed(12)).await.unwrap();
    let again = feed.into_iter().zip(13..).map(|(mut item, number)| {
        item.number = number;
        item
    });
    node.writer.feed(LATER, again.collect(), 0).await.unwrap();
    let now = node.now();
    assert_eq!((now.feed().number, now.feed().history), (20, Some(LATER)));
    assert!(now.directory() == before.directory(), "what was told twice changed something");
}

/// Asks for healing at every opening of the feed, and keeps what is handed back.
#[derive(Default)]
struct ForgetfulHub {
    handed: Mutex<Vec<HandBackRequest>>,
}

impl HubLink for Arc<ForgetfulHub> {
    fn consign(
        &self,
        _: Lane,
        _: Outgoing<ConsignRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ConsignResponse>, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
    }

    fn receive(
        &self,
        _: Lane,
        _: Outgoing<ReceiveRequest>,
    ) -> BoxFuture<'_, Result<Incoming<ReceiveResponse>, LinkEnd>> {
        Box::pin(async { Err(LinkEnd::closed()) })
    }

    fn follow(&self, _: FollowRequest) -> BoxFuture<'_, Result<Incoming<FollowResponse>, LinkEnd>> {
        let welcome = follow_response::Message::Welcome(FollowWelcome {
            limits: Some(concord_wire::limits()),
            history: Bytes::copy_from_slice(LATER.as_bytes()),
            healing: Some(Healing { known_number: 2 }),
            ..FollowWelcome::default()
        });
        let said = futures::stream::iter([Ok(FollowResponse { message: Some(welcome) })]);
        Box::pin(async move { Ok(said.boxed()) })
    }

    fn hand_back(&self, outgoing: Outgoing<HandBackRequest>) -> BoxFuture<'_, Result<HandBackResponse, LinkEnd>> {
        let hub = Arc::clone(self);
        Box::pin(async move {
            let handed: Vec<_> = outgoing.collect().await;
            *hub.handed.lock().unwrap() = handed;
            Ok(HandBackResponse::default())
        })
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
        Box::pin(async { Err(LinkEnd::closed()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_asks_gets_every_statement_in_order_and_the_own_ones_that_did_not_come_back() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let answer = |number, refused: &str, whole| StatementAnswered {
        officer: "officer".to_owned(),
        number,
        refused: refused.to_owned(),
        whole,
        message: String::new(),
    };
    // Three statements that the feed has not told: accepted, refused, and one that the hub never recorded.
    let consent = forum.kaz.says(2, DraftContent::Consent(reference(&forum.text("IRN/other"))));
    let leave = |number| forum.kaz.says(number, DraftContent::Leave(reference(&forum.text("KAZ/drugs"))));
    for (signed, answered) in [
        (consent, answer(2, "", false)),
        (leave(3), answer(3, "AGREEMENT_NOT_IN_FORCE", false)),
        (leave(4), answer(4, "STATEMENT_MALFORMED", true)),
    ] {
        let statement = parse_statement(&signed).unwrap();
        node.writer.statement(signed, statement).await.unwrap();
        node.writer.answer(answered).await.unwrap();
    }

    let hub = Arc::new(ForgetfulHub::default());
    let context = context(&forum, &node);
    let mut tasks = JoinSet::new();
    crate::downlink::start(&mut tasks, &context, &(Arc::new(Arc::clone(&hub)) as Arc<dyn HubLink>));
    until(|| !hub.handed.lock().unwrap().is_empty()).await;
    tasks.shutdown().await;
    let handed = hub.handed.lock().unwrap().clone();
    let Some(Message::Hello(hello)) = &handed[0].message else { panic!("no hello: {:?}", handed[0]) };
    let position = hello.position.as_ref().unwrap();
    assert_eq!((position.last_number, &position.history[..]), (8, &HISTORY.as_bytes()[..]));
    assert_eq!(position.officers.iter().map(|officer| officer.number).collect::<Vec<_>>(), [3]);
    let said = handed[1..].iter().map(|request| match &request.message {
        Some(Message::Told(item)) => (item.number, String::new()),
        Some(Message::Answered(answered)) => {
            (parse_statement(answered.statement.as_ref().unwrap()).unwrap().number, answered.refused.clone())
        }
        other => panic!("{other:?}"),
    });
    let told = (2..=8).map(|number| (number, String::new()));
    let answered = [(2, String::new()), (3, "AGREEMENT_NOT_IN_FORCE".to_owned())];
    assert_eq!(said.collect::<Vec<_>>(), told.chain(answered).collect::<Vec<_>>());
    let alarm = context.readiness.list().remove(0);
    assert!(alarm.name == "hub-lost-data" && alarm.stops, "{alarm:?}");
}
