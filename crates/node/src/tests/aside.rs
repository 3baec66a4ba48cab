//! What was set aside comes to an end: it holds when it is judged again, or an officer discards it.

use concord_model::{AsideEnd, ExchangeId, Lane, Reason, SetAsideReason};
use concord_server::{AskedDays, Retention};
use concord_wire::proto::agency::v1::ReceiveResponse;
use concord_wire::proto::exchange::v1::AcknowledgementRecorded;
use concord_wire::stored::node::{RightsChange, Verdict};
use futures::StreamExt as _;

use super::rights::{LANE, Node, mail, right};
use super::support::{HISTORY, MEASURE, OTHER_MEASURE, Running, name};
use super::uplink::context;
use super::withdrawn::came;
use crate::downlink::news;
use crate::retention::Keeper;
use crate::services::aside;
use crate::writer::{Discarding, Judged, Retried};

/// The next number of the mailbox, set aside for this reason: by what is known now it holds.
async fn set_aside(node: &Node, of: &str, change: impl FnOnce(&mut Judged)) -> (u64, ExchangeId) {
    let number = node.running.now().mailbox(LANE).received_through + 1;
    let mut judged = mail(&node.forum, number, of);
    let id = judged.id.unwrap();
    let Verdict::Accepted(delivery) = judged.verdict else { panic!("made as accepted") };
    judged.verdict = Verdict::SetAside(delivery, SetAsideReason::KeyNotPinned.to_string());
    change(&mut judged);
    node.running.writer.mail(LANE, HISTORY, vec![judged]).await.unwrap();
    (number, id)
}

async fn retry(node: &Node, number: u64) -> Result<Retried, Reason> {
    node.running.writer.retry_aside(LANE, number).await.map_err(|refusal| refusal.reason)
}

async fn discard(node: &Node, number: u64) -> Result<(), Reason> {
    let why = Discarding { by: "spiffe://kaz.concord/officer/officer".to_owned(), reason: "a test".to_owned() };
    node.running.writer.discard_aside(LANE, number, why).await.map_err(|refusal| refusal.reason)
}

async fn all(node: &Node, agency: &str) -> Vec<(u64, ReceiveResponse)> {
    let mut given = node.stream(agency, false);
    let mut items = Vec::new();
    while let Some(item) = given.stream.next().await {
        let item = item.unwrap();
        items.push((given.number(&item), item));
    }
    items
}

async fn take_all(node: &Node, agency: &str) {
    for (_, item) in all(node, agency).await {
        node.acknowledge(agency, &item).await.unwrap();
    }
}

/// What the hub is told behind deliveries, in order.
fn told(node: &Node) -> Vec<(u64, Option<AsideEnd>)> {
    node.running.index.told_after(LANE, 0, 100).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_noted_with_its_reasons() {
    let node = Node::new().await;
    let noted = || aside::note(&aside::waiting(&node.running.index, LANE).unwrap());
    assert_eq!(noted(), None);
    let (number, _) = set_aside(&node, MEASURE, |_| ()).await;
    assert!(noted().unwrap().starts_with("1 that did not verify (KEY_NOT_PINNED) wait for a word"), "{:?}", noted());
    set_aside(&node, MEASURE, |judged| {
        let Verdict::SetAside(_, reason) = &mut judged.verdict else { panic!("made as set aside") };
        *reason = SetAsideReason::NotAMember.to_string();
    })
    .await;
    let both = "2 that did not verify (1 KEY_NOT_PINNED, 1 NOT_A_MEMBER) wait for a word";
    assert!(noted().unwrap().starts_with(both), "{:?}", noted());
    assert_eq!(discard(&node, number).await, Ok(()));
    assert!(noted().unwrap().starts_with("1 that did not verify (NOT_A_MEMBER) wait"), "{:?}", noted());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_after_all_is_given_once_to_each_agency_wherever_its_cursors_are() {
    let node = Node::new().await;
    node.running.writer.add_agency(name("police"), Vec::new()).await.unwrap();
    node.receives(&[MEASURE]).await;
    let (number, id) = set_aside(&node, MEASURE, |_| ()).await;
    node.receives(&[MEASURE]).await;
    // One is past it, the other one is not, and has a stream that has read beyond it.
    take_all(&node, "customs").await;
    let mut open = node.stream("police", true);
    let first = open.stream.next().await.unwrap().unwrap();
    let third = open.stream.next().await.unwrap().unwrap();
    assert_eq!(told(&node), [(1, None), (3, None)]);

    assert_eq!(retry(&node, number).await, Ok(Retried::Holds));
    let late = open.stream.next().await.unwrap().unwrap();
    assert_eq!(late.exchange_id, id.0.as_bytes()[..]);
    for item in [first, third] {
        node.acknowledge("police", &item).await.unwrap();
    }
    assert_eq!(told(&node), [(1, None), (3, None), (2, Some(AsideEnd::Holds))], "a cursor that passed it took it");
    assert_eq!(node.running.now().mailbox(LANE).taken_count, 3);
    assert_eq!((node.now("customs").await, node.now("police").await), (vec![2], vec![2]));

    node.acknowledge("police", &late).await.unwrap();
    node.acknowledge("police", &late).await.unwrap();
    assert_eq!((node.now("customs").await, node.now("police").await), (vec![2], vec![]));
    assert_eq!(told(&node)[3..], [(2, None)], "the first of its agencies takes it");
    take_all(&node, "customs").await;
    assert!(node.now("customs").await.is_empty() && node.running.now().late().is_empty());
    assert_eq!((told(&node).len(), node.running.now().mailbox(LANE).taken_count), (4, 4));
    // Who comes later is given nothing of it; and it ends once.
    node.running.writer.add_agency(name("weather"), Vec::new()).await.unwrap();
    assert!(node.now("weather").await.is_empty());
    assert_eq!(
        (retry(&node, number).await, discard(&node, number).await.is_ok()),
        (Err(Reason::ExchangeUnknown), false)
    );
    // The same from the journal alone.
    let told_before = told(&node);
    let Node { forum, running, place, .. } = node;
    let views = tempfile::tempdir().unwrap();
    let again = Running::start(&forum, running.stop().await, &views.path().join("views"));
    drop(place);
    assert_eq!(again.index.told_after(LANE, 0, 100).unwrap(), told_before);
    assert!(again.now().late().is_empty() && !again.index.is_open_aside(LANE, number).unwrap());
    assert_eq!(again.index.received_as(&id).unwrap(), Some(number));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_hold_stays_set_aside_and_reaches_nobody() {
    let node = Node::new().await;
    let broken = |judged: &mut Judged| {
        let Verdict::SetAside(delivery, _) = &mut judged.verdict else { panic!() };
        delivery.signature = vec![0; 64].into();
    };
    let (number, _) = set_aside(&node, MEASURE, broken).await;
    assert_eq!(retry(&node, number).await, Ok(Retried::Still(SetAsideReason::SignatureInvalid)));
    assert!(node.now("customs").await.is_empty() && told(&node).is_empty());
    assert!(node.running.index.is_open_aside(LANE, number).unwrap());
    let (number, _) = set_aside(&node, MEASURE, |judged| drop(judged.blobs.pop())).await;
    assert_eq!(retry(&node, number).await, Ok(Retried::Still(SetAsideReason::BodyMismatch)));
    assert!(node.now("customs").await.is_empty() && told(&node).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_reaches_nobody_and_is_told_so_once() {
    let node = Node::new().await;
    let (number, id) = set_aside(&node, MEASURE, |_| ()).await;
    assert_eq!(discard(&node, number).await, Ok(()));
    assert_eq!(discard(&node, number).await, Err(Reason::ExchangeUnknown));
    assert_eq!(retry(&node, number).await, Err(Reason::ExchangeUnknown));
    let said = news(&node.running.index, LANE, 1, &AcknowledgementRecorded::default()).unwrap();
    assert_eq!(said.set_aside, [(1, SetAsideReason::KeyNotPinned)]);
    assert_eq!((said.taken, said.ended), (vec![1], vec![(0, AsideEnd::Discarded)]));
    assert!(node.now("customs").await.is_empty());
    // It was this arrival that was discarded: one of the same that holds is one.
    let again = mail(&node.forum, 2, MEASURE);
    assert_ne!(again.id, Some(id));
    node.running.writer.mail(LANE, HISTORY, vec![again]).await.unwrap();
    assert_eq!(node.now("customs").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_and_nobody_may_have_goes_to_whoever_is_granted_it() {
    let node = Node::new().await;
    node.change("customs", RightsChange::Revoked(right(&[OTHER_MEASURE], &[]))).await.unwrap();
    let (number, _) = set_aside(&node, OTHER_MEASURE, |_| ()).await;
    assert_eq!(retry(&node, number).await, Ok(Retried::Holds));
    assert!(node.now("customs").await.is_empty());
    assert_eq!(crate::services::uncollected(&node.context, &node.running.now(), LANE).unwrap(), 1);
    node.running.writer.add_agency(name("cyber"), Vec::new()).await.unwrap();
    assert_eq!((node.now("customs").await, node.now("cyber").await), (vec![], vec![number]));
    take_all(&node, "cyber").await;
    assert_eq!(told(&node), [(number, Some(AsideEnd::Holds)), (number, None)]);
    node.change("customs", RightsChange::Granted(right(&[OTHER_MEASURE], &[]))).await.unwrap();
    assert!(node.now("customs").await.is_empty(), "another agency has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_origin_withdrew_is_not_given_whichever_comes_first() {
    let node = Node::new().await;
    let (number, id) = set_aside(&node, MEASURE, |_| ()).await;
    let (later, late_id) = set_aside(&node, MEASURE, |_| ()).await;
    assert_eq!(retry(&node, later).await, Ok(Retried::Holds));
    let withdrawal = |of, number| came(&node.forum, &node.forum.irn, of, number);
    node.running.writer.mail(Lane::Priority, HISTORY, vec![withdrawal(id, 1), withdrawal(late_id, 2)]).await.unwrap();
    assert_eq!(retry(&node, number).await, Err(Reason::ExchangeWithdrawn));
    assert!(node.running.now().late().is_empty());
    let mut given = node.stream("customs", false);
    while let Some(item) = given.stream.next().await {
        let of = item.unwrap().exchange_id;
        assert!(of != id.0.as_bytes()[..] && of != late_id.0.as_bytes()[..], "what was withdrawn is given");
    }
    assert_eq!(discard(&node, number).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_stays_until_somebody_said_what_is_to_become_of_it() {
    let node = Node::new().await;
    let (waits, _) = set_aside(&node, MEASURE, |_| ()).await;
    let (discarded, _) = set_aside(&node, MEASURE, |_| ()).await;
    discard(&node, discarded).await.unwrap();
    let keeper = Keeper::new(context(&node.forum, &node.running), Retention::default());
    let now = AskedDays { bodies: Some(0), entries: None };
    let report = keeper.run(now).await.unwrap();
    assert_eq!(report.rows.iter().map(|row| row.exchanges).sum::<u64>(), 1);
    assert_eq!(retry(&node, waits).await, Ok(Retried::Holds));
    take_all(&node, "customs").await;
    let report = keeper.run(now).await.unwrap();
    assert_eq!(
        report.rows.iter().map(|row| row.exchanges).sum::<u64>(),
        2,
        "where it was set aside, and where it holds"
    );
}
