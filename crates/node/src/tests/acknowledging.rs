//! Agencies' cursors, and what is told to the hub as taken.

use concord_model::{Lane, Reason, SetAsideReason};
use concord_wire::proto::exchange::v1::AcknowledgementRecorded;
use concord_wire::stored::node::Verdict;

use super::judging::accepted;
use super::support::{Forum, HISTORY, MEASURE, OTHER_MEASURE, Running, founded, measure, name, prepared};
use crate::downlink::news;
use crate::writer::Judged;

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_taken_once_by_the_first_agency_that_may_have_it() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let lane = Lane::Routine;
    node.writer.add_agency(name("cyber"), vec![measure(OTHER_MEASURE)]).await.unwrap();
    let mail = (1..=3).map(|number| accepted(&forum, number, number as u8)).collect();
    node.writer.mail(lane, HISTORY, mail).await.unwrap();
    node.writer.add_agency(name("late"), vec![measure(MEASURE)]).await.unwrap();
    let acknowledge = async |agency: &str, through| {
        let done = node.writer.acknowledge(name(agency), lane, through, 0).await;
        let taken = node.index.taken_after(lane, 0, 10).unwrap();
        assert_eq!(node.now().mailbox(lane).taken_count, taken.len() as u64);
        done.map(|()| taken).map_err(|refusal| refusal.reason)
    };
    assert_eq!(node.now().agencies()[&name("late")].through(lane), 3, "an agency gets what came before it");
    assert_eq!(acknowledge("cyber", 3).await, Ok(vec![]), "taken by an agency that may not have it");
    assert_eq!(acknowledge("customs", 2).await, Ok(vec![1, 2]));
    assert_eq!(acknowledge("customs", 1).await, Ok(vec![1, 2]), "a cursor went back");
    assert_eq!(acknowledge("customs", 4).await, Err(Reason::CursorInvalid));
    assert_eq!(acknowledge("nobody", 1).await, Err(Reason::AgencyUnknown));
    // Two in one commit, or in two: each number is taken once.
    let both = tokio::join!(acknowledge("customs", 3), acknowledge("customs", 3));
    assert_eq!(both.0.and(both.1), Ok(vec![1, 2, 3]));
    assert_eq!(node.now().agencies()[&name("customs")].through(lane), 3);
}

// On one thread both are waiting before the writer wakes: they are in one commit.
#[tokio::test]
async fn two_agencies_in_one_commit_take_each_number_once() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let lane = Lane::Routine;
    node.writer.add_agency(name("police"), Vec::new()).await.unwrap();
    let mail = (1..=3).map(|number| accepted(&forum, number, number as u8)).collect();
    node.writer.mail(lane, HISTORY, mail).await.unwrap();
    let acknowledge = |agency: &str, through| node.writer.acknowledge(name(agency), lane, through, 0);
    let (first, second) = tokio::join!(acknowledge("customs", 2), acknowledge("police", 3));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(node.index.taken_after(lane, 0, 10).unwrap(), [1, 2, 3]);
    assert_eq!(node.now().mailbox(lane).taken_count, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_again_is_harmless_and_with_other_measures_a_conflict() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let add = async |text: &str, measures: &[&str]| {
        let measures = measures.iter().map(|text| measure(text)).collect();
        node.writer.add_agency(name(text), measures).await.map_err(|refusal| refusal.reason)
    };
    assert_eq!(add("police", &[MEASURE]).await, Ok(()));
    assert_eq!(add("police", &[MEASURE]).await, Ok(()));
    assert_eq!(add("police", &[]).await, Err(Reason::AgencyExists));
    assert_eq!(add("weather", &["nothing.9"]).await, Err(Reason::MeasureUnknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_tells_everything_since_what_the_hub_recorded() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    a_little_of_everything(&forum, &node).await;
    let told = |delivered_through, taken_count| {
        let recorded = AcknowledgementRecorded { delivered_through, taken_count };
        news(&node.index, Lane::Routine, 5, &recorded).unwrap()
    };
    let all = told(0, 0);
    // What came again is taken under the number under which the hub gave it last.
    assert_eq!((all.through, all.withheld, all.taken), (5, vec![3], vec![2, 5]));
    assert_eq!(all.set_aside, [(4, SetAsideReason::KeyNotPinned)]);
    let rest = told(3, 1);
    assert_eq!((rest.through, rest.withheld, rest.taken), (5, vec![], vec![5]));
    assert_eq!(rest.set_aside, [(4, SetAsideReason::KeyNotPinned)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_says_no_more_than_its_lists_hold() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let withheld = (1..=1500).map(|number| Judged {
        verdict: Verdict::Withheld(number),
        id: None,
        blobs: Vec::new(),
        size_bytes: 64,
    });
    node.writer.mail(Lane::Routine, HISTORY, withheld.collect()).await.unwrap();
    let mut recorded = AcknowledgementRecorded::default();
    for (through, count) in [(1024, 1024), (1500, 476)] {
        let told = news(&node.index, Lane::Routine, 1500, &recorded).unwrap();
        assert_eq!((told.through, told.withheld.len()), (through, count));
        recorded.delivered_through = told.through;
    }
}

/// One entry of almost every kind: mailbox routine 1 to 5 with a repeat, a notice and one set aside, two of them taken, a
/// consignment, and the feed.
pub(super) async fn a_little_of_everything(forum: &Forum, node: &Running) {
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let aside = accepted(forum, 4, 3);
    let Verdict::Accepted(delivery) = aside.verdict else {
        panic!("made as accepted");
    };
    let mail = vec![
        accepted(forum, 1, 1),
        accepted(forum, 2, 1),
        Judged { verdict: Verdict::Withheld(3), id: None, blobs: Vec::new(), size_bytes: 64 },
        Judged {
            verdict: Verdict::SetAside(delivery, SetAsideReason::KeyNotPinned.to_string()),
            id: None,
            blobs: aside.blobs,
            size_bytes: 1024,
        },
        accepted(forum, 5, 5),
    ];
    node.writer.mail(Lane::Routine, HISTORY, mail).await.unwrap();
    node.writer.acknowledge(name("customs"), Lane::Routine, 1, 0).await.unwrap();
    node.writer.acknowledge(name("customs"), Lane::Routine, 5, 0).await.unwrap();
    node.writer.submit(prepared(forum, "r-1", b"x", Lane::Flash)).await.unwrap();
}
