//! What a withdrawal changes at a node that gets it, before and behind what it withdraws.

use bytes::Bytes;
use concord_journal::Blob;
use concord_model::{
    Description, Digest, ExchangeId, Header, Lane, Reason, SetAsideReason, Title, Withdrawal, WithdrawalKind,
};
use concord_wire::agreement::DraftContent;
use concord_wire::header;
use concord_wire::proto::agency::v1::ReceiveRequest;
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::stored::node::Verdict;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::judging::accepted;
use super::support::{Forum, HISTORY, Member, Running, delivered, founded, item, name, prepared, reference};
use super::uplink::context;
use crate::downlink::judge;
use crate::services::give;
use crate::writer::{Accepted, Judged, Prepared, Second};

fn withdrawal(forum: &Forum, origin: &Member, of: ExchangeId, lane: Lane) -> (Header, Vec<Blob>) {
    let title = Description { title: Title::parse("mistaken").unwrap(), caveats: Vec::new() };
    let description = Blob::seal([3; 32], header::encode_description(&title));
    let (exchange, _) = forum.exchange(origin, 9);
    let header = Header {
        lane,
        parts: Vec::new(),
        description: Digest(*description.commitment().as_bytes()),
        withdraws: Some(Withdrawal { exchange: of, kind: WithdrawalKind::Withdrawn }),
        ..exchange
    };
    (header, vec![description])
}

/// One that was judged to hold.
pub(super) fn came(forum: &Forum, origin: &Member, of: ExchangeId, number: u64) -> Judged {
    let (header, blobs) = withdrawal(forum, origin, of, Lane::Priority);
    let mut delivery = delivered(origin, &header, &blobs, number);
    let id = Some(header::exchange_id(&delivery.header));
    delivery.blobs.clear();
    Judged { verdict: Verdict::Accepted(delivery), id, blobs, size_bytes: 1024 }
}

/// What the agency is given now, by lane and number.
async fn given(forum: &Forum, node: &Running) -> Vec<(Lane, u64)> {
    let (items, mut given) = mpsc::channel(16);
    give(context(forum, node), name("customs"), ReceiveRequest::default(), items, CancellationToken::new()).await;
    let mut places = Vec::new();
    while let Some(item) = given.recv().await {
        places.push(item.unwrap().place());
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_first_an_agency_is_given_the_withdrawal_only() {
    for withdrawal_first in [false, true] {
        let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
        let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
        let exchange = || accepted(&forum, 1, 1);
        let id = exchange().id.unwrap();
        let withdraw = || node.writer.mail(Lane::Priority, HISTORY, vec![came(&forum, &forum.irn, id, 1)]);
        if withdrawal_first {
            withdraw().await.unwrap();
        }
        node.writer.mail(Lane::Routine, HISTORY, vec![exchange(), accepted(&forum, 2, 2)]).await.unwrap();
        if !withdrawal_first {
            withdraw().await.unwrap();
        }
        assert_eq!(given(&forum, &node).await, [(Lane::Priority, 1), (Lane::Routine, 2)]);
        let row = node.index.withdrawn(&id, &forum.irn.code).unwrap().unwrap();
        assert_eq!(row.kind, WithdrawalKind::Withdrawn);
        assert!(!node.index.is_untaken(Lane::Routine, 1).unwrap() && node.index.is_untaken(Lane::Routine, 2).unwrap());
        // An acknowledgement that passes it does not take it.
        node.writer.acknowledge(name("customs"), Lane::Routine, 2, 0).await.unwrap();
        assert_eq!(node.index.taken_after(Lane::Routine, 0, 9).unwrap(), [2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_origin_takes_an_exchange_back() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.mail(Lane::Routine, HISTORY, vec![accepted(&forum, 1, 1)]).await.unwrap();
    let [first, second] = [1, 2].map(|which| accepted(&forum, u64::from(which), which).id.unwrap());
    // One about what is there, one about what comes later.
    let forged = vec![came(&forum, &forum.tur, first, 1), came(&forum, &forum.tur, second, 2)];
    node.writer.mail(Lane::Priority, HISTORY, forged).await.unwrap();
    node.writer.mail(Lane::Routine, HISTORY, vec![accepted(&forum, 2, 2)]).await.unwrap();
    let places = given(&forum, &node).await;
    assert!(places.contains(&(Lane::Routine, 1)) && places.contains(&(Lane::Routine, 2)), "{places:?}");
    assert_eq!(node.index.withdrawn(&first, &forum.irn.code).unwrap(), None);
}

/// A withdrawal that may be queued.
pub(super) fn ready(forum: &Forum, request_id: &str, of: ExchangeId) -> Box<Prepared> {
    let (header, blobs) = withdrawal(forum, &forum.kaz, of, Lane::Priority);
    let header = header::encode(&header);
    let base = *prepared(forum, request_id, b"", Lane::Priority);
    let answer = Accepted { id: header::exchange_id(&header), ..base.answer.clone() };
    Box::new(Prepared { header, blobs, answer, withdraws: Some(of), ..base })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_withdrawals_that_were_prepared_beside_each_other_are_one() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let id = ExchangeId(Digest([4; 32]));
    let [one, other, late] = ["r-1", "r-2", "r-3"].map(|request| ready(&forum, request, id));
    let (one, other) = tokio::join!(node.writer.submit(one), node.writer.submit(other));
    let one = one.unwrap();
    assert_eq!(other.unwrap(), one);
    assert_eq!(node.writer.submit(late).await.unwrap(), one);
    let second = Second { header: Bytes::new(), blobs: Vec::new() };
    let superseding = Prepared { second: Some(second), ..*ready(&forum, "r-4", id) };
    let refused = node.writer.submit(Box::new(superseding)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ExchangeWithdrawn);
    assert_eq!(node.now().unrecorded_exchanges(Lane::Priority), 1);
}

#[test]
fn a_withdrawal_holds_also_for_who_left_and_never_for_what_was_not_consented_to() {
    let forum = Forum::new();
    let id = ExchangeId(Digest::ZERO);
    let leave = || DraftContent::Leave(reference(&forum.text("KAZ/drugs")));
    let mut directory = forum.directory();
    for (number, said) in [(9, forum.kaz.says(2, leave())), (10, forum.irn.says(3, leave()))] {
        directory.apply(&forum.hub(), &forum.kaz.code, &item(number, Content::Statement(said))).unwrap();
    }
    let judged = |signer: &Member, change: &dyn Fn(&mut Header)| {
        let (mut header, blobs) = withdrawal(&forum, signer, id, Lane::Routine);
        change(&mut header);
        let delivery: Delivery = delivered(signer, &header, &blobs, 1);
        judge(&directory, &forum.hub(), &forum.kaz.code, Lane::Routine, &delivery).map(|_| ())
    };
    assert_eq!(judged(&forum.irn, &|_| {}), Ok(()));
    let stranger = Err(SetAsideReason::NotAMember);
    let other = reference(&forum.text("IRN/other"));
    assert_eq!(judged(&forum.irn, &|header| header.agreement = other.clone()), stranger);
    assert_eq!(judged(&forum.irn, &|header| header.origin = forum.sec.code.clone()), stranger);
    assert_eq!(judged(&forum.kaz, &|_| {}), stranger);
    let another = |header: &mut Header| header.origin = forum.tur.code.clone();
    assert_eq!(judged(&forum.irn, &another), Err(SetAsideReason::KeyNotPinned));
}
