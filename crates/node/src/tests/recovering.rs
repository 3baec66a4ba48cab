//! A restored node: what it refuses until the hub has given back what it lost, and what it then knows.

use concord_journal::{HistoryId, Journal as _};
use concord_model::{Lane, Reason};
use concord_wire::proto::feed::v1::StatementRefused;
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::stored::node::{self as stored, LaneRecovered, Restored, RightsChange};

use super::judging::accepted;
use super::support::{Forum, HISTORY, Running, founded, item, name, prepared};
use concord_server::{Clock as _, SystemClock};

pub(super) fn recovered(lane: Lane, delivered_through: u64) -> LaneRecovered {
    LaneRecovered { lane, fetched: 0, delivered_through, bodies_lost: Vec::new(), bodies_lost_count: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_takes_nothing_before_all_lanes_are_back_and_tells_nothing_taken_twice() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let lane = Lane::Routine;
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("before"));
    node.writer.mail(lane, HISTORY, vec![accepted(&forum, 1, 1), accepted(&forum, 2, 2)]).await.unwrap();
    node.writer.acknowledge(name("customs"), lane, 1, 0).await.unwrap();
    let journal = node.stop().await;
    let parent = journal.tail();
    journal.begin_history(parent, HistoryId([2; 16]), SystemClock.now().as_micros()).await.unwrap();
    let restored = stored::restored(Restored::FromBackup(SystemClock.now()), SystemClock.now());
    journal.append(journal.tail(), vec![restored]).await.unwrap();

    let node = Running::start(&forum, journal, &place.path().join("views"));
    let submit = async |request: &str| {
        node.writer.submit(prepared(&forum, request, b"x", Lane::Flash)).await.map_err(|refusal| refusal.reason)
    };
    let (line, state) = (node.now().line().clone(), node.now());
    assert_eq!(line.ancestors, [(HistoryId([1; 16]), parent.sequence)]);
    assert_eq!((line.history, line.restored_in), (Some(HistoryId([2; 16])), Some(HistoryId([2; 16]))));
    assert!(state.is_recovering());
    let confirm = async |agency: &str, with_past: bool| {
        node.writer.change_rights(name(agency), RightsChange::Confirmed { with_past }).await.unwrap();
    };
    confirm("customs", false).await;
    assert_eq!(submit("early").await.err(), Some(Reason::Recovering));
    let early = node.writer.acknowledge(name("customs"), lane, 2, 0).await;
    assert_eq!(early.map_err(|refusal| refusal.reason), Err(Reason::Recovering));

    // The hub was told of 1, 3 and 2 as taken, and of all up to 3 as delivered.
    node.writer.taken(lane, 1, vec![3, 2]).await.unwrap();
    node.writer.taken(lane, 1, vec![3, 2]).await.unwrap();
    assert_eq!(
        node.writer.taken(lane, 4, vec![9]).await.map_err(|refusal| refusal.reason),
        Err(Reason::NumberOutOfOrder)
    );
    for lane in Lane::ALL {
        assert_eq!(submit("early").await.err(), Some(Reason::Recovering));
        let through = if lane == Lane::Routine { 3 } else { 0 };
        node.writer.recovered(recovered(lane, through)).await.unwrap();
        node.writer.recovered(recovered(lane, through)).await.unwrap();
    }
    assert!(!node.now().is_recovering());
    submit("in-time").await.unwrap();
    assert_eq!(node.now().mailbox(lane).acknowledged_through, 3);
    assert_eq!(node.now().mailbox(lane).taken_count, 3);

    // One that is let in now may have been let in in the lost time: by the officer's word it begins where the backup had the mailbox.
    node.writer.add_agency(name("police"), Vec::new()).await.unwrap();
    confirm("police", true).await;
    // What it lost is delivered again, and given to the agency again; only what was taken by nobody is told.
    node.writer.mail(lane, HISTORY, vec![accepted(&forum, 3, 3), accepted(&forum, 4, 4)]).await.unwrap();
    let rows = node.index.inbox(lane, 2, 10).unwrap();
    assert_eq!(rows.into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [2, 3, 4]);
    node.writer.acknowledge(name("customs"), lane, 4, 0).await.unwrap();
    assert_eq!(node.index.taken_after(lane, 0, 10).unwrap(), [1, 3, 2, 4]);
    assert_eq!(node.now().mailbox(lane).taken_count, 4);
    for agency in ["border", "coast"] {
        node.writer.add_agency(name(agency), Vec::new()).await.unwrap();
        confirm(agency, agency == "border").await;
    }
    let through =
        ["customs", "police", "border", "coast"].map(|agency| node.now().agencies()[&name(agency)].through(lane));
    assert_eq!(through, [4, 2, 2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_the_hub_refused_uses_its_number_up_also_where_only_the_feed_tells_it() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let mut feed = forum.feed();
    let next = feed.last().unwrap().number + 1;
    let refused = StatementRefused { officer: "lawyer".into(), number: 6, reason: "AGREEMENT_UNKNOWN".into() };
    feed.push(item(next, Content::StatementRefused(refused)));
    node.writer.feed(HISTORY, feed, 0).await.unwrap();
    assert_eq!(node.now().officers()[&name("lawyer")].next_number(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_start_has_a_run_of_its_own_that_is_kept_once() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    for run in [[3; 16], [3; 16], [4; 16]] {
        node.writer.begin_run(run).await.unwrap();
    }
    assert_eq!(node.now().line().runs, [[3; 16], [4; 16]]);
    let journal = node.stop().await;
    let node = Running::start(&forum, journal, &place.path().join("views"));
    assert_eq!(node.now().line().run(), Some([4; 16]));
}
