//! A node that heard that the hub does not serve this copy of it: what is kept of that, and until when.

use std::path::Path;
use std::sync::atomic::Ordering;

use concord_journal::{HistoryId, Journal as _, MemoryJournal};
use concord_model::{Lane, Reason, Refusal};
use concord_wire::agreement::{DraftContent, parse_statement};
use concord_wire::stored::node::{self as stored, LaneRecovered, NodeEntry, Restored, RightsChange, read};
use futures::FutureExt as _;

use super::full::{FULL, SOUND, node_on};
use super::support::{Forum, HISTORY, Running, founded, name, prepared, reference};
use super::uplink::context;
use crate::context::Context;
use concord_server::{Clock as _, SystemClock};

fn superseded(why: &str) -> Refusal {
    Refusal::new(Reason::NodeSuperseded, why)
}

async fn hear(context: &Context, why: &str) {
    context.heard_refusal(&superseded(why));
    context.keep_fence().await;
}

/// The feed is welcomed, and nothing else is heard meanwhile.
pub(super) async fn welcome(context: &Context) -> Result<(), Refusal> {
    context.welcomed(&context.contact.refusals_heard()).await.map(|is_served| assert!(is_served))
}

async fn submit(forum: &Forum, node: &Running, request: &'static str) -> Result<(), Refusal> {
    node.writer.submit(prepared(forum, request, request.as_bytes(), Lane::Flash)).await.map(drop)
}

/// How often the journal says that it is fenced, and that it is not any more.
fn kept(journal: &MemoryJournal) -> (usize, usize) {
    let entries = journal.read(1, usize::MAX).unwrap();
    let read: Vec<_> = entries.iter().map(|entry| read(entry).unwrap()).collect();
    let count = |is: fn(&NodeEntry) -> bool| read.iter().filter(|entry| is(entry)).count();
    (count(|entry| matches!(entry, NodeEntry::Fenced(_))), count(|entry| matches!(entry, NodeEntry::FenceLifted)))
}

async fn again(forum: &Forum, node: Running, views: &Path) -> Running {
    Running::start(forum, node.stop().await, views)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_again_and_again_is_kept_once_and_holds_in_every_process_until_the_welcome() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let before = context(&forum, &node);
    before.keep_fence().await;
    for why in ["first", "second", "third"] {
        hear(&before, why).await;
    }
    // The newest words for those who ask now.
    assert_eq!(before.check_fence(), Err(superseded("third")));
    assert_eq!(kept(&node.journal), (1, 0));
    drop(before);

    let node = again(&forum, node, &place.path().join("again")).await;
    let context = context(&forum, &node);
    context.check_fence().unwrap();
    assert_eq!(submit(&forum, &node, "early").await, Err(superseded("first")));
    let signed = forum.kaz.says(2, DraftContent::Consent(reference(&forum.text("IRN/other"))));
    let statement = parse_statement(&signed).unwrap();
    let said = node.writer.statement(signed.clone(), statement.clone()).await;
    assert_eq!(said.map(drop), Err(superseded("first")));
    context.tell_fence();
    let alarms = context.readiness.list();
    assert!(alarms[0].name == "not-served" && alarms[0].message.contains("NODE_SUPERSEDED"), "{alarms:?}");
    assert!(!context.readiness.is_ready());
    // Heard by this process, too: still one.
    hear(&context, "fourth").await;
    assert_eq!(kept(&node.journal), (1, 0));

    for _ in 0..2 {
        welcome(&context).await.unwrap();
        context.check_fence().unwrap();
    }
    assert!(context.readiness.is_ready());
    submit(&forum, &node, "in-time").await.unwrap();
    drop(context);
    let node = again(&forum, node, &place.path().join("at last")).await;
    submit(&forum, &node, "without-the-hub").await.unwrap();
    node.writer.statement(signed, statement).await.unwrap();
    assert_eq!(kept(&node.journal), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_journal_is_said_to_be_restored_is_not_yet_that_the_hub_serves_it() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    hear(&context(&forum, &node), "why").await;
    let journal = node.stop().await;
    journal.begin_history(journal.tail(), HistoryId([2; 16]), SystemClock.now().as_micros()).await.unwrap();
    let restored = stored::restored(Restored::Declared(SystemClock.now()), SystemClock.now());
    let confirmed =
        stored::rights_changed(&name("customs"), &RightsChange::Confirmed { with_past: false }, SystemClock.now());
    journal.append(journal.tail(), vec![restored, confirmed]).await.unwrap();

    let node = Running::start(&forum, journal, &place.path().join("restored"));
    assert_eq!(submit(&forum, &node, "r-1").await.unwrap_err().reason, Reason::Recovering);
    for lane in Lane::ALL {
        let nothing =
            LaneRecovered { lane, fetched: 0, delivered_through: 0, bodies_lost: Vec::new(), bodies_lost_count: 0 };
        node.writer.recovered(nothing).await.unwrap();
    }
    assert_eq!(submit(&forum, &node, "r-1").await, Err(superseded("why")));
    welcome(&context(&forum, &node)).await.unwrap();
    submit(&forum, &node, "r-1").await.unwrap();
}

#[tokio::test]
async fn a_fence_for_which_there_is_no_room_holds_in_memory_and_is_kept_once_there_is() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let (node, disk) = node_on(&forum, &place).await;
    let context = context(&forum, &node);
    disk.store(FULL, Ordering::SeqCst);
    hear(&context, "why").await;
    assert_eq!(kept(&node.journal), (0, 0));
    assert_eq!(context.check_fence(), Err(superseded("why")));
    disk.store(SOUND, Ordering::SeqCst);
    // As every link does before its next attempt, also where the hub is away meanwhile.
    context.keep_fence().await;
    assert_eq!(submit(&forum, &node, "r-1").await, Err(superseded("why")));
    // Nor is it lifted without room.
    disk.store(FULL, Ordering::SeqCst);
    assert_eq!(welcome(&context).await.unwrap_err().reason, Reason::DiskFull);
    assert_eq!(context.check_fence(), Err(superseded("why")));
    disk.store(SOUND, Ordering::SeqCst);
    welcome(&context).await.unwrap();
    submit(&forum, &node, "r-1").await.unwrap();
    assert_eq!(kept(&node.journal), (1, 1));
}

// On one thread: the writer does not wake in between.
#[tokio::test]
async fn a_fence_whose_keeper_was_given_up_on_its_way_does_not_outlast_the_welcome() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let context = context(&forum, &node);
    context.heard_refusal(&superseded("why"));
    assert!(context.keep_fence().now_or_never().is_none(), "it is with the writer, and whoever asked is gone");
    welcome(&context).await.unwrap();
    submit(&forum, &node, "r-1").await.unwrap();
    assert_eq!(kept(&node.journal), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_beside_the_welcome_is_not_lifted_by_it() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let context = context(&forum, &node);
    let mut heard = context.contact.refusals_heard();
    hear(&context, "by another link").await;
    assert!(!context.welcomed(&heard).await.unwrap(), "the hub has to be asked again");
    assert_eq!(context.check_fence(), Err(superseded("by another link")));
    heard.again().await;
    welcome(&context).await.unwrap();
    context.check_fence().unwrap();
    // And a feed that stands hears of it.
    hear(&context, "later").await;
    heard.again().await;
}
