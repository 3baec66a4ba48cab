//! Queueing: request ids, chains, and rows that are the same however they came about.

use concord_journal::Journal as _;
use concord_model::{Lane, Reason, Refusal};
use concord_views::{Row, SCAN_ROWS_MAX, Table, Views};
use concord_wire::stored::node::{NodeEntry, read};

use super::support::{Forum, Running, founded, name, prepared};
use crate::projection::NodeProjection;
use crate::writer::{Prepared, Refused};

// On one thread both are waiting before the writer wakes: they are in one commit.
#[tokio::test]
async fn a_request_again_gives_the_first_answer_at_once_later_and_after_a_restart() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let submit = |node: &Running, content| {
        let writer = node.writer.clone();
        let prepared = prepared(&forum, "r-1", content, Lane::Routine);
        async move { writer.submit(prepared).await }
    };
    let (first, second) = tokio::join!(submit(&node, b"one"), submit(&node, b"one"));
    let first = first.unwrap();
    assert_eq!(second.unwrap(), first);
    assert_eq!(submit(&node, b"other").await.unwrap_err().reason, Reason::RequestIdConflict);
    assert_eq!(node.now().chain(Lane::Routine).unrecorded_exchanges, 1);

    let node = Running::start(&forum, node.stop().await, &place.path().join("anew"));
    assert_eq!(submit(&node, b"one").await.unwrap(), first);
    assert_eq!(submit(&node, b"other").await.unwrap_err().reason, Reason::RequestIdConflict);
    assert_eq!(node.now().chain(Lane::Routine).unrecorded_exchanges, 1);
}

// An agency that did not wait for the first answer; its state left the agreement meanwhile.
#[tokio::test]
async fn a_request_that_the_rules_refuse_by_now_gets_the_first_answer_also_while_that_is_under_way() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let refused = |request_id: &str, content| {
        let Prepared { agency, request_id, request, lane, .. } = *prepared(&forum, request_id, content, Lane::Routine);
        let why = Refusal::new(Reason::AudienceEmpty, "nobody is left");
        let (writer, refused) = (node.writer.clone(), Refused { agency, request_id, request, lane, why });
        async move { writer.refused(Box::new(refused)).await }
    };
    let first = node.writer.submit(prepared(&forum, "r-1", b"one", Lane::Routine));
    let (first, again) = tokio::join!(first, refused("r-1", b"one"));
    assert_eq!(again.unwrap(), first.clone().unwrap());
    assert_eq!(refused("r-1", b"one").await, first);
    assert_eq!(refused("r-1", b"other").await.unwrap_err().reason, Reason::RequestIdConflict);
    assert_eq!(refused("r-2", b"one").await.unwrap_err().reason, Reason::AudienceEmpty);
    assert_eq!(node.now().chain(Lane::Routine).unrecorded_exchanges, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_on_after_a_restart_where_it_ended() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let mut journal = founded(&forum).await;
    for round in ["a", "b"] {
        let node = Running::start(&forum, journal, &place.path().join("views"));
        for lane in [Lane::Routine, Lane::Flash, Lane::Routine] {
            let id = format!("{round}-{lane}-{}", node.now().chain(lane).last_number);
            node.writer.submit(prepared(&forum, &id, b"x", lane)).await.unwrap();
        }
        journal = node.stop().await;
    }
    for (lane, count) in [(Lane::Flash, 2), (Lane::Routine, 4)] {
        let mut previous = concord_model::Digest::ZERO;
        let mut numbers = Vec::new();
        for entry in journal.read(1, usize::MAX).unwrap() {
            if let NodeEntry::Queued(queued) = read(&entry).unwrap()
                && queued.kept.sealed.chain.lane == lane
            {
                assert_eq!(queued.kept.sealed.previous.0, previous);
                previous = queued.kept.sealed.digest.0;
                numbers.push(queued.kept.sealed.number);
            }
        }
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_together_goes_into_one_consignment_of_its_lane() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let ids: Vec<String> = (0..20).map(|number| format!("r-{number}")).collect();
    let all = ids.iter().map(|id| node.writer.submit(prepared(&forum, id, b"x", Lane::Routine)));
    for accepted in futures::future::join_all(all).await {
        let id = accepted.unwrap().id.to_string();
        let found = node.index.exchanges(&id, &name("customs")).unwrap();
        assert_eq!(found.len(), 1);
        assert!(node.index.exchanges(&id, &name("police")).unwrap().is_empty(), "another agency sees it");
    }
    assert_eq!(node.now().chain(Lane::Routine).unrecorded_exchanges, 20);
    let consignments = node.now().chain(Lane::Routine).last_number;
    assert!(consignments < 20, "each of 20 that were handed in together got a consignment of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_made_entry_by_entry_and_rows_made_anew_are_the_same() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    super::acknowledging::a_little_of_everything(&forum, &node).await;
    let (anew, _) = Views::open(&place.path().join("anew"), NodeProjection::VERSION, &node.journal).unwrap();
    anew.catch_up(&node.journal, &mut NodeProjection, node.journal.tail(), |_| {}).unwrap();
    let rows = rows(&anew);
    assert!(rows.len() > 8, "only {} rows", rows.len());
    assert_eq!(rows, self::rows(node.index.views()));
}

fn rows(views: &Views) -> Vec<Row> {
    let tables = (1..=10).map(Table::new);
    tables.flat_map(|table| views.scan(table, &[], &[], SCAN_ROWS_MAX).unwrap()).collect()
}
