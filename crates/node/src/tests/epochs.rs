//! A closed epoch at its node: what the hub had not recorded is packed anew, in order, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use concord_journal::{Blob, Journal as _};
use concord_ledger::{ChainTip, ClosedEpoch, EpochOpening};
use concord_model::{ExchangeId, Lane, Reason, Refusal};
use concord_server::{AskedDays, DiskRoom, Retention};
use concord_wire::agreement::DraftContent;
use concord_wire::consignment::{self, closed_epoch, epoch_link};
use concord_wire::header::exchange_id;
use concord_wire::proto::agency::v1::{TrackState, TrackUntil};
use concord_wire::proto::feed::v1::FeedItem;
use concord_wire::proto::feed::v1::feed_item::Content;
use concord_wire::proto::operations::v1::RetentionReport;
use concord_wire::stored::node::{NodeEntry, Queued, read};
use concord_wire::tree::Seed;

use super::support::{Forum, HISTORY, Running, founded, item, name, prepared};
use super::uplink::{FakeHub, context, receipt_of};
use crate::link::LinkEnd;
use crate::projection::Standing;
use crate::retention::Keeper;
use crate::services::track;
use crate::uplink::epoch;
use crate::writer::Fetched;

const LANE: Lane = Lane::Routine;
/// Far more than anything here takes: it ends a test that waits for what does not come.
const PATIENCE: Duration = Duration::from_secs(30);
const CONTENTS: [&[u8]; 3] = [b"a", b"b", b"c"];

/// Three exchanges in three consignments, and the feed up to its last item.
async fn queued(forum: &Forum, node: &Running) -> Vec<ExchangeId> {
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let mut ids = Vec::new();
    for (number, content) in CONTENTS.into_iter().enumerate() {
        ids.push(node.writer.submit(prepared(forum, &format!("r-{number}"), content, LANE)).await.unwrap().id);
    }
    ids
}

fn entry(node: &Running, epoch: u32, number: u64) -> (Queued, Vec<Option<Blob>>) {
    let sequence = node.index.consignment(LANE, epoch, number).unwrap().unwrap();
    let entry = node.index.journal().entry(sequence).unwrap();
    let NodeEntry::Queued(queued) = read(&entry).unwrap() else { panic!("no consignment") };
    (*queued, entry.blobs)
}

async fn receipt(forum: &Forum, node: &Running, number: u64) {
    receipt_in(forum, node, 1, number).await;
}

async fn receipt_in(forum: &Forum, node: &Running, epoch: u32, number: u64) {
    let receipt = receipt_of(forum, &entry(node, epoch, number).0.kept.sealed, false);
    let recorded = concord_wire::receipt::parse(&receipt.statement).unwrap();
    node.writer.receipts(vec![(receipt, recorded)]).await.unwrap();
}

/// The feed tells that the officer opened an epoch, and where the hub had the lane's chain of the one before.
fn opened(forum: &Forum, number: u64, epoch: u32, tip: ChainTip) -> FeedItem {
    let content = DraftContent::OpenEpoch(EpochOpening { node: name("main"), epoch });
    let mut closed = ClosedEpoch::default();
    closed.tips[LANE.slot()] = tip;
    let closes = Some(closed_epoch(&closed));
    FeedItem { closes, ..item(number, Content::Statement(forum.kaz.says(u64::from(epoch), content))) }
}

/// What the retention would take now.
async fn retention(forum: &Forum, node: &Running) -> RetentionReport {
    let keeper = Keeper::new(context(forum, node), Retention { bodies_days: Some(0), entries_days: None });
    keeper.preview(AskedDays::default()).await.unwrap()
}

fn gone(report: &RetentionReport) -> u64 {
    report.rows.iter().map(|row| row.exchanges).sum()
}

/// The exchanges of an epoch in its order.
fn ids(node: &Running, epoch: u32) -> Vec<ExchangeId> {
    let last = node.now().chain_in(LANE, epoch).map_or(0, |chain| chain.last_number);
    let headers = (1..=last).flat_map(|number| entry(node, epoch, number).0.kept.sealed.headers);
    headers.map(|header| exchange_id(&header)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_recorded_is_packed_anew_with_the_same_headers_and_bodies_in_the_same_order() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let all = queued(&forum, &node).await;
    receipt(&forum, &node, 1).await;
    let tip = ChainTip { number: 1, digest: entry(&node, 1, 1).0.kept.sealed.digest };
    let early = node.writer.pack_anew(LANE, 1).await.map_err(|refusal| refusal.reason);
    assert_eq!(early, Err(Reason::Internal), "nothing is packed anew of an epoch that is open");
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, tip)], 0).await.unwrap();
    // The order is kept: what is new goes behind what is old, and is packed with it.
    let new = node.writer.submit(prepared(&forum, "r-new", b"d", LANE)).await.unwrap().id;
    // A copy packs nothing that the hub does not serve.
    let other = Refusal::new(Reason::NodeSuperseded, "why");
    node.writer.fence(other.clone()).await.unwrap();
    assert_eq!(node.writer.pack_anew(LANE, 1).await, Err(other));
    node.writer.lift_fence().await.unwrap();
    assert!(node.writer.pack_anew(LANE, 1).await.unwrap());

    assert_eq!(ids(&node, 2), [&all[1..], &[new]].concat());
    let (first, blobs) = entry(&node, 2, 1);
    let (before, blobs_before) = entry(&node, 1, 2);
    assert_eq!((first.kept.sealed.number, first.kept.sealed.previous), (1, epoch_link(1, &tip)));
    assert_eq!((first.packed_anew, &first.kept.sealed.headers), (Some((1, 2)), &before.kept.sealed.headers));
    assert!(blobs == blobs_before && blobs.len() == 2, "the bodies are others");
    let state = node.now();
    assert_eq!((state.chain(LANE).epoch, state.unrecorded_exchanges(LANE)), (2, 3));
    assert_eq!(state.past_chain(LANE, 1), Some(1));
    // A repeat of a request is known whatever its exchange was packed into since, and where it stands is told.
    let again = node.writer.submit(prepared(&forum, "r-1", CONTENTS[1], LANE)).await;
    assert_eq!(again.unwrap().id, all[1]);
    let place_of = node.index.exchange(&all[1]).unwrap().unwrap();
    assert_eq!((place_of.epoch, place_of.number, place_of.agency.clone()), (2, 1, Some(name("customs"))));
    let first_queued = node.journal.entry(node.index.consignment(LANE, 1, 2).unwrap().unwrap()).unwrap().recorded_at;
    assert_eq!(node.index.queued_at(&place_of).unwrap().as_micros(), first_queued);
    node.writer.submit(prepared(&forum, "r-next", b"e", LANE)).await.unwrap();
    assert_eq!(node.now().chain(LANE).last_number, 4);

    let state = node.now();
    let journal = node.stop().await;
    let node = Running::start(&forum, journal, &place.path().join("new views"));
    assert!(node.now() == state, "a replay gives another state");
    assert_eq!(node.index.exchange(&all[1]).unwrap(), Some(place_of));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_packed_anew_before_all_that_was_recorded_is_known() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let all = queued(&forum, &node).await;
    // The hub had two when the epoch was closed, and no receipt has come.
    let tip = ChainTip { number: 2, digest: entry(&node, 1, 2).0.kept.sealed.digest };
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, tip)], 0).await.unwrap();
    receipt(&forum, &node, 1).await;
    assert!(node.writer.pack_anew(LANE, 2).await.is_err());
    // Meanwhile the lane takes what comes: the hub may be away for long.
    let later = node.writer.submit(prepared(&forum, "r-later", b"d", LANE)).await.unwrap().id;
    receipt(&forum, &node, 2).await;
    assert!(node.writer.pack_anew(LANE, 2).await.unwrap());
    assert_eq!(ids(&node, 2), [all[2], later]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_lost_the_end_of_a_closed_epoch_does_not_hold_the_lane_up() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let all = queued(&forum, &node).await;
    receipt(&forum, &node, 1).await;
    let tip = ChainTip { number: 2, digest: entry(&node, 1, 2).0.kept.sealed.digest };
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, tip)], 0).await.unwrap();
    // It has one now, by its own word: what it forgot goes to it anew, and recipients know it by its id.
    assert!(node.writer.pack_anew(LANE, 1).await.unwrap());
    assert_eq!(ids(&node, 2), all[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_copy_handed_in_under_the_same_numbers_is_kept_and_what_stands_here_is_packed_anew() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let all = queued(&forum, &node).await;
    receipt(&forum, &node, 1).await;
    // The other copy handed in an exchange of its own under number 2, then under 3 one that stands here under 3, too.
    let other = prepared(&forum, "other", b"z", LANE);
    let first = entry(&node, 1, 1).0.kept.sealed;
    let (chain, mut previous) = (first.chain, first.digest);
    let (third, third_blobs) = entry(&node, 1, 3);
    let third_blobs: Vec<Blob> = third_blobs.into_iter().flatten().collect();
    let handed =
        [(2, other.header.clone(), other.blobs.clone()), (3, third.kept.sealed.headers[0].clone(), third_blobs)];
    for (number, header, blobs) in handed {
        let key = forum.kaz.signing.public().fingerprint;
        let sealed =
            consignment::seal(chain.clone(), number, previous, Seed::new([9; 32]), vec![header], key, |message| {
                forum.kaz.signing.sign(message)
            });
        previous = sealed.digest;
        let receipt = receipt_of(&forum, &sealed, false);
        let recorded = concord_wire::receipt::parse(&receipt.statement).unwrap();
        node.writer.fetched(Box::new(Fetched { sealed, blobs: vec![blobs], receipt, recorded })).await.unwrap();
    }
    let chain = *node.now().chain(LANE);
    assert_eq!((chain.forked_from, chain.recorded_through, chain.last_number), (Some(2), 3, 3));
    // What stands here waits; what the other copy handed in has its receipt.
    let mine = node.index.exchange(&all[1]).unwrap().unwrap();
    assert!(node.index.receipt_of(&mine).unwrap().is_none());
    let theirs = node.index.exchange(&exchange_id(&other.header)).unwrap().unwrap();
    assert!(theirs.agency.is_none() && node.index.receipt_of(&theirs).unwrap().is_some());
    // What its agency submitted here stays its own to track, by whatever copy the hub has it.
    let both = node.index.exchange(&all[2]).unwrap().unwrap();
    assert_eq!((both.standing, both.agency.clone()), (Standing::AtHub, Some(name("customs"))));
    assert!(node.index.receipt_of(&both).unwrap().is_some());
    let prefix = &all[2].to_string()[..8];
    assert_eq!(node.index.exchanges(prefix, &name("customs")).unwrap(), [both]);

    let tip = ChainTip { number: 3, digest: previous };
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, tip)], 0).await.unwrap();
    assert!(node.writer.pack_anew(LANE, 3).await.unwrap());
    assert_eq!(ids(&node, 2), [all[1]], "the third was recorded from the other copy, and is not packed again");
    // Bodies of what was packed anew go where it stood before. Recipients have yet to acknowledge 1, 2 and 3 of the hub's: until then
    // those of 3 stay here, too, since the hub may have given it back without them; and what is packed anew has no receipt.
    let report = retention(&forum, &node).await;
    assert_eq!((gone(&report), report.unsettled_exchanges), (1, 5));
    let state = node.now();
    let journal = node.stop().await;
    let node = Running::start(&forum, journal, &place.path().join("new views"));
    assert!(node.now() == state, "a replay gives another state");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_takes_back_an_epoch_that_follows_one_in_which_its_lane_was_quiet() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    // Since its backup the officer opened two epochs; of this lane the hub has something in the last only.
    let quiet = ClosedEpoch::default().tip(LANE);
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, quiet), opened(&forum, 10, 3, quiet)], 0).await.unwrap();
    let lost = prepared(&forum, "lost", b"z", LANE);
    let id = exchange_id(&lost.header);
    let sealed = consignment::seal(
        node.now().chain_key_in(LANE, 3).unwrap(),
        1,
        epoch_link(2, &quiet),
        Seed::new([9; 32]),
        vec![lost.header],
        forum.kaz.signing.public().fingerprint,
        |message| forum.kaz.signing.sign(message),
    );
    let receipt = receipt_of(&forum, &sealed, false);
    let recorded = concord_wire::receipt::parse(&receipt.statement).unwrap();
    node.writer.fetched(Box::new(Fetched { sealed, blobs: vec![lost.blobs], receipt, recorded })).await.unwrap();

    // The lane goes through every epoch on its way, and each keeps its own number.
    assert!(node.writer.pack_anew(LANE, 0).await.unwrap());
    assert!(node.writer.pack_anew(LANE, 0).await.unwrap());
    let state = node.now();
    assert_eq!((state.past_chain(LANE, 1), state.past_chain(LANE, 2)), (Some(0), Some(0)));
    let chain = state.chain(LANE);
    assert_eq!((chain.epoch, chain.last_number, chain.recorded_through), (3, 1, 1));
    assert_eq!(ids(&node, 3), [id]);
    node.writer.submit(prepared(&forum, "r-new", b"d", LANE)).await.unwrap();
    let state = node.now();
    let journal = node.stop().await;
    let node = Running::start(&forum, journal, &place.path().join("new views"));
    assert!(node.now() == state, "a replay gives another state");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_an_exchange_hears_of_it_where_it_was_packed_to() {
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let all = queued(&forum, &node).await;
    let before = node.index.exchange(&all[0]).unwrap().unwrap();
    let (items, mut told) = tokio::sync::mpsc::channel(4);
    let telling = tokio::spawn(track::tell(context(&forum, &node), before, TrackUntil::Recorded, items));
    let first = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.state(), TrackState::Queued);

    let quiet = ClosedEpoch::default().tip(LANE);
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, quiet)], 0).await.unwrap();
    assert!(node.writer.pack_anew(LANE, 0).await.unwrap());
    receipt_in(&forum, &node, 2, 1).await;
    let then = tokio::time::timeout(PATIENCE, told.recv()).await.expect("the receipt is not told").unwrap().unwrap();
    assert_eq!((then.state(), then.queued_at), (TrackState::Recorded, first.queued_at));
    telling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_backlog_is_packed_the_lane_takes_more_in_order_and_comes_to_its_end() {
    const BACKLOG: usize = 300;
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let mut node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    node.writer.feed(HISTORY, forum.feed(), 0).await.unwrap();
    let mut all = Vec::new();
    for number in 0..BACKLOG {
        all.push(node.writer.submit(prepared(&forum, &format!("r-{number}"), b"a", LANE)).await.unwrap().id);
    }
    let quiet = ClosedEpoch::default().tip(LANE);
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, quiet)], 0).await.unwrap();
    let (mut refused, mut steps, mut behind) = (0, 0, 0);
    loop {
        let entered = node.writer.pack_anew(LANE, 0).await.unwrap();
        steps += 1;
        if entered {
            break;
        }
        assert_eq!(node.now().chain(LANE).epoch, 1, "the lane goes on before all is packed");
        // Whoever submits as fast as it can is held to half of what is packed: the rest would go on for ever.
        loop {
            let prepared = prepared(&forum, &format!("r-{}", all.len()), b"b", LANE);
            match node.writer.submit(prepared).await {
                Ok(accepted) => all.push(accepted.id),
                Err(refusal) => {
                    assert_eq!(refusal.reason, Reason::QueueFull);
                    refused += 1;
                    break;
                }
            }
            behind += 1;
            assert!(behind <= BACKLOG, "more comes behind than is packed");
        }
        // A restart in between knows how far it is, and takes no more than before.
        let state = node.now();
        node = Running::start(&forum, node.stop().await, &place.path().join(format!("views {steps}")));
        assert!(node.now() == state, "a replay gives another state");
    }
    assert!(refused > 0 && steps > 1 && behind > 0, "{refused} refused, {steps} steps, {behind} behind");
    assert_eq!(ids(&node, 2), all, "out of order, twice, or left");
    node.writer.submit(prepared(&forum, "r-next", b"c", LANE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn packing_leaves_the_disks_reserve_and_goes_on_when_there_is_room() {
    const RESERVE_BYTES: u64 = 1000;
    let (forum, place) = (Forum::new(), tempfile::tempdir().unwrap());
    let node = Running::start(&forum, founded(&forum).await, &place.path().join("views"));
    let all = queued(&forum, &node).await;
    let quiet = ClosedEpoch::default().tip(LANE);
    node.writer.feed(HISTORY, vec![opened(&forum, 9, 2, quiet)], 0).await.unwrap();
    let mut context = context(&forum, &node);
    context.room = DiskRoom::new(RESERVE_BYTES, context.readiness.clone());
    let hub = FakeHub::new(&Arc::new(Forum::new()), None);
    context.room.measured(RESERVE_BYTES - 1);
    let end = epoch::pack_anew(&context, &hub, (LANE, 1)).await.unwrap_err();
    assert!(matches!(end, LinkEnd::OwnFull(_)), "{end:?}");
    assert_eq!(node.now().chain(LANE).packed_through, 0);
    context.room.measured(RESERVE_BYTES * 2);
    epoch::pack_anew(&context, &hub, (LANE, 1)).await.unwrap();
    assert_eq!(ids(&node, 2), all);
}
