//! The sequencer's promises, on a memory journal whose syncs the test lets pass one by one.

mod support;

use std::sync::Arc;
use std::time::Duration;

use concord_hub::sequencer::{Answer, Proposal, answered};
use concord_journal::{AppendError, Bodies};
use concord_ledger::{ChainTip, ClosedEpoch, Lost};
use concord_model::{ConsignmentDigest, Digest, Lane, Reason};
use support::{Bench, FailingDisk, on_file_journal, state};

/// What waits for no append. Where it does on broken code, the clock, which stands, goes on, and the test fails instead of hanging.
async fn at_once<T>(answer: impl Future<Output = T>) -> T {
    let answered = tokio::time::timeout(Duration::from_secs(60), answer).await;
    answered.expect("it waits for an append that should not have begun, or for one that was not made")
}

#[tokio::test]
async fn nothing_is_answered_or_published_before_it_is_durable() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let before = bench.sequencer.published();
    let waiting = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    let mut waiting = std::pin::pin!(answered(waiting));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(bench.sequencer.published().tail, before.tail);

    bench.let_sync_pass();
    let Ok(Answer::Recorded(recorded)) = waiting.await else { panic!("not recorded") };
    assert_eq!(recorded.fact.mailboxes.len(), 2);
    let published = bench.sequencer.published();
    assert_eq!((published.tail.sequence, published.tail.digest), (before.tail.sequence + 1, recorded.entry_digest));
}

#[tokio::test]
async fn a_repeat_of_what_is_not_durable_yet_waits_for_it() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let first = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    let repeat = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    let mut repeat = std::pin::pin!(answered(repeat));
    tokio::task::yield_now().await;
    assert!(futures::poll!(&mut repeat).is_pending());

    bench.let_sync_pass();
    let Ok(Answer::Recorded(_)) = answered(first).await else { panic!("not recorded") };
    let Ok(Answer::Repeat(sequence)) = repeat.await else { panic!("not a repeat") };
    assert_eq!(sequence, bench.sequencer.published().tail.sequence);
}

#[tokio::test]
async fn flash_waits_for_one_commit_in_flight_however_much_bulk_waits() {
    let mut bench = Bench::start();
    let (kaz, irn) = (state("KAZ"), state("IRN"));
    let mut bulk = vec![bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap()];
    bench.append_begun().await;
    // Twelve megabytes wait: more than the open commit takes.
    for number in 2..=4 {
        bulk.push(bench.sequencer.propose(kaz.large_consignment(Lane::Routine, number)).await.unwrap());
    }
    let flash = bench.sequencer.propose(irn.consignment(Lane::Flash, 1)).await.unwrap();
    bench.let_sync_pass();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(flash).await, Ok(Answer::Recorded(_))));

    // What did not fit comes in the commits after, one large consignment each.
    for _ in 3..=4 {
        bench.append_begun().await;
        bench.let_sync_pass();
    }
    for waiting in bulk {
        assert!(matches!(answered(waiting).await, Ok(Answer::Recorded(_))));
    }
}

/// A crash between the two would hide it for good: whoever hands it in again hears that it is known.
#[tokio::test]
async fn what_cannot_be_had_again_is_listed_in_the_commit_that_shows_it() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let before = bench.sequencer.published().tail.sequence;
    let lost = kaz.rehanded_without_content(Lane::Routine, 1, &["IRN", "TUR"]);
    let exchange = bench.sequencer.propose(lost).await.unwrap();
    bench.append_begun().await;
    let leave = bench.sequencer.propose(kaz.handed_leave_of_nothing(7)).await.unwrap();
    bench.let_sync_pass();
    let Ok(Answer::Recorded(recorded)) = answered(exchange).await else { panic!("not recorded") };
    assert_eq!(recorded.fact.refused[0].reason, Reason::BlobMismatch);
    let published = bench.sequencer.published();
    assert_eq!((published.tail.sequence, published.ledger.losses().count()), (before + 2, 1));

    bench.append_begun().await;
    bench.let_sync_pass();
    assert_eq!(answered(leave).await.unwrap_err().reason, Reason::AgreementUnknown);
    let published = bench.sequencer.published();
    assert_eq!((published.tail.sequence, bench.appends()), (before + 4, 2));
    let listed: Vec<_> = published.ledger.losses().listed().collect();
    let recipients = |lost: &Lost| match lost {
        Lost::Exchange { recipients, .. } => recipients.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Lost::Statement { number, .. } | Lost::Consignment { number, .. } => number.to_string(),
    };
    let shown: Vec<_> =
        listed.iter().map(|(whose, lost, reason)| (whose.as_str(), recipients(lost), *reason)).collect();
    let expected =
        [("KAZ", "IRN TUR".to_owned(), Reason::BlobMismatch), ("KAZ", "7".to_owned(), Reason::AgreementUnknown)];
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn what_a_told_end_of_an_epoch_shows_to_be_lost_is_listed_in_the_commit_that_takes_the_epoch_in() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let consigned = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(consigned).await, Ok(Answer::Recorded(_))));

    let mut closes = ClosedEpoch::default();
    closes.tips[Lane::Routine.slot()] = ChainTip { number: 1, digest: ConsignmentDigest(Digest([0x46; 32])) };
    let opened = bench.sequencer.propose(kaz.handed_epoch(7, closes)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(opened).await, Ok(Answer::Accepted)));
    let published = bench.sequencer.published();
    let listed: Vec<_> = published.ledger.losses().listed().collect();
    let lost = Lost::Consignment { lane: Lane::Routine, epoch: 1, number: 1 };
    assert_eq!((listed, bench.appends()), (vec![(&kaz.code, &lost, Reason::Fork)], 2));
}

/// All that the amendment waits for is the one who is to go: its leave is as good as its consent, but not when the time is over.
#[tokio::test]
async fn an_overdue_amendment_lapses_before_a_leave_that_it_waited_for() {
    for late in [false, true] {
        let mut bench = Bench::start();
        let (kaz, irn, tur) = (state("KAZ"), state("IRN"), state("TUR"));
        let before = bench.sequencer.published().tail.sequence;
        for said in [kaz.amends_for_an_hour(2), irn.consents_to_the_hour(2)] {
            let said = bench.sequencer.propose(said).await.unwrap();
            bench.append_begun().await;
            bench.let_sync_pass();
            assert!(matches!(answered(said).await, Ok(Answer::Accepted)));
        }
        bench.pass(Duration::from_secs(if late { 3600 } else { 3599 }));
        let left = bench.sequencer.propose(tur.leaves(2)).await.unwrap();
        bench.append_begun().await;
        bench.let_sync_pass();
        assert!(matches!(answered(left).await, Ok(Answer::Accepted)));
        let published = bench.sequencer.published();
        let now = published.ledger.agreements().all().next().unwrap();
        assert_eq!(now.text.version, if late { 1 } else { 2 });
        assert_eq!(now.members().count(), 2, "those who stay go on");
        assert_eq!(published.tail.sequence - before, if late { 4 } else { 3 });
    }
}

#[tokio::test]
async fn what_a_commit_shares_is_decided_in_the_order_of_each_chain() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let blocker = bench.sequencer.propose(state("IRN").consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    let mut waiting = Vec::new();
    for number in 1..=5 {
        waiting.push(bench.sequencer.propose(kaz.consignment(Lane::Priority, number)).await.unwrap());
    }
    bench.let_sync_pass();
    assert!(matches!(answered(blocker).await, Ok(Answer::Recorded(_))));
    bench.append_begun().await;
    bench.let_sync_pass();
    let mut firsts = Vec::new();
    for receiver in waiting {
        let Ok(Answer::Recorded(recorded)) = answered(receiver).await else { panic!("not recorded") };
        firsts.push(recorded.fact.mailboxes[0].first);
    }
    assert_eq!(firsts, [1, 2, 3, 4, 5]);
    assert_eq!(bench.appends(), 2, "five consignments shared one sync");
}

#[tokio::test]
async fn a_refusal_records_nothing_and_the_next_is_taken() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let refused = bench.sequencer.decide(kaz.consignment(Lane::Routine, 2)).await;
    assert_eq!(refused.unwrap_err().reason, Reason::NumberOutOfOrder);
    let waiting = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(waiting).await, Ok(Answer::Recorded(_))));
}

#[tokio::test]
async fn a_failed_write_ends_the_sequencer_and_answers_nobody_with_success() {
    let mut bench = Bench::start();
    let waiting = bench.sequencer.propose(state("KAZ").consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    bench.fail_sync();
    assert_eq!(answered(waiting).await.unwrap_err().reason, Reason::ShuttingDown);
    assert!(bench.ended().await.is_err());
    let after = bench.sequencer.decide(state("KAZ").consignment(Lane::Routine, 1)).await;
    assert_eq!(after.unwrap_err().reason, Reason::ShuttingDown);
}

#[tokio::test]
async fn what_had_no_room_is_as_if_it_had_never_been_asked_and_so_is_what_was_decided_on_top() {
    let mut bench = Bench::start();
    let (kaz, irn) = (state("KAZ"), state("IRN"));
    let before = bench.sequencer.published();
    bench.fill_disk();
    let refused = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    // Decided while the first is on its way: one on top of it, one beside it, a repeat of it, and one that only it makes wrong.
    let mut decided_ahead = Vec::new();
    for proposal in [
        kaz.consignment(Lane::Routine, 2),
        irn.consignment(Lane::Routine, 1),
        kaz.consignment(Lane::Routine, 1),
        kaz.other_consignment(Lane::Routine, 1),
    ] {
        decided_ahead.push(bench.sequencer.propose(proposal).await.unwrap());
    }
    tokio::task::yield_now().await;
    bench.let_sync_pass();
    for waiting in std::iter::once(refused).chain(decided_ahead) {
        assert_eq!(answered(waiting).await.unwrap_err().reason, Reason::DiskFull);
    }
    assert_eq!(bench.sequencer.published().tail, before.tail);

    // With room again everything begins where the journal stands: same numbers, no gap in chain or mailbox.
    bench.make_room();
    for (proposal, first_in_mailbox) in [(kaz.consignment(Lane::Routine, 1), 1), (kaz.consignment(Lane::Routine, 2), 2)]
    {
        let waiting = bench.sequencer.propose(proposal).await.unwrap();
        bench.append_begun().await;
        bench.let_sync_pass();
        let Ok(Answer::Recorded(recorded)) = answered(waiting).await else { panic!("not recorded") };
        let of_turkiye = recorded.fact.mailboxes.iter().find(|mailbox| mailbox.recipient.as_str() == "TUR");
        assert_eq!(of_turkiye.map(|mailbox| mailbox.first), Some(first_in_mailbox));
    }
    let published = bench.sequencer.published();
    assert_eq!(published.ledger, bench.folded(), "the ledger is not what the journal folds to");
}

#[tokio::test]
async fn a_disk_that_is_full_again_and_again_ends_nothing() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    bench.fill_disk();
    for _ in 0..3 {
        let waiting = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
        bench.append_begun().await;
        bench.let_sync_pass();
        assert_eq!(answered(waiting).await.unwrap_err().reason, Reason::DiskFull);
    }
    bench.make_room();
    let waiting = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(waiting).await, Ok(Answer::Recorded(_))));
}

#[tokio::test]
async fn a_refusal_that_rests_on_what_is_not_durable_yet_waits_for_it() {
    let mut bench = Bench::start();
    let kaz = state("KAZ");
    let first = bench.sequencer.propose(kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    let fork = bench.sequencer.propose(kaz.other_consignment(Lane::Routine, 1)).await.unwrap();
    let mut fork = std::pin::pin!(answered(fork));
    tokio::task::yield_now().await;
    assert!(futures::poll!(&mut fork).is_pending());
    bench.let_sync_pass();
    assert!(matches!(answered(first).await, Ok(Answer::Recorded(_))));
    assert_eq!(fork.await.unwrap_err().reason, Reason::Fork);
}

#[tokio::test]
async fn a_sync_that_fails_ends_the_sequencer_and_the_next_start_finds_a_journal_that_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let disk = Arc::new(FailingDisk::on(place.path()));
    let kaz = state("KAZ");
    let (sequencer, ended) = on_file_journal(&disk);
    let Ok(Answer::Recorded(first)) = sequencer.decide(kaz.consignment(Lane::Routine, 1)).await else {
        panic!("not recorded")
    };
    disk.fail_syncs(true);
    let lost = sequencer.decide(kaz.consignment(Lane::Routine, 2)).await;
    assert_eq!(lost.unwrap_err().reason, Reason::ShuttingDown);
    // The disk is sound again: too late, what the failed sync left behind is known to nobody.
    disk.fail_syncs(false);
    let after = sequencer.decide(kaz.consignment(Lane::Routine, 2)).await;
    assert_eq!(after.unwrap_err().reason, Reason::ShuttingDown);
    assert!(matches!(ended.await.unwrap(), Err(AppendError::OutcomeUnknown { .. })));

    let (sequencer, _running) = on_file_journal(&disk);
    let Ok(Answer::Repeat(sequence)) = sequencer.decide(kaz.consignment(Lane::Routine, 1)).await else {
        panic!("what was answered is gone")
    };
    assert_eq!((sequence, first.fact.number), (2, 1));
    // Written whole before the sync, or not there: either is an answer, and the chain goes on behind it.
    let again = sequencer.decide(kaz.consignment(Lane::Routine, 2)).await;
    assert!(matches!(again, Ok(Answer::Repeat(3) | Answer::Recorded(_))), "{again:?}");
}

/// Two copies of one node: what the one that is not served any more had handed in stands where it was decided before, and is not
/// recorded behind.
#[tokio::test(start_paused = true)]
async fn behind_the_fact_that_a_run_is_served_nothing_of_another_one_is_recorded() {
    let mut bench = Bench::start();
    let (kaz, sequencer) = (state("KAZ"), bench.sequencer.clone());
    let [older, newer] = [kaz.run(1), kaz.run(2)];
    let early = at_once(sequencer.decide_by(&older, kaz.consignment(Lane::Routine, 1))).await;
    assert_eq!(early.unwrap_err().reason, Reason::NodeSuperseded, "no run is served yet");
    let seen = sequencer.propose(kaz.seen(1, &[1])).await.unwrap();
    bench.append_begun().await;
    let before = sequencer.propose_by(&older, kaz.consignment(Lane::Routine, 1)).await.unwrap();
    let taken_over = sequencer.propose(kaz.seen(2, &[2])).await.unwrap();
    let ordinary = sequencer.propose_by(&older, kaz.consignment(Lane::Routine, 2)).await.unwrap();
    bench.let_sync_pass();
    assert!(matches!(answered(seen).await, Ok(Answer::Stands)));
    bench.append_begun().await;
    let flash = sequencer.propose_by(&older, kaz.consignment(Lane::Flash, 1)).await.unwrap();
    let mut ordinary = std::pin::pin!(answered(ordinary));
    assert!(futures::poll!(&mut ordinary).is_pending(), "that another run is served is not durable yet");
    bench.let_sync_pass();
    assert!(matches!(answered(before).await, Ok(Answer::Recorded(_))));
    assert!(matches!(answered(taken_over).await, Ok(Answer::Stands)));
    // What the new run is told then is all that there will ever be of the other one.
    let published = sequencer.published();
    assert_eq!(published.ledger.chain_last(&kaz.chain(Lane::Routine)), 1);
    for refused in [at_once(ordinary).await, at_once(answered(flash)).await] {
        assert_eq!(refused.unwrap_err().reason, Reason::NodeSuperseded);
    }
    let repeat = at_once(sequencer.decide_by(&older, kaz.consignment(Lane::Routine, 1))).await;
    assert_eq!(repeat.unwrap_err().reason, Reason::NodeSuperseded, "nor is it told what stands");
    let again = sequencer.propose(kaz.seen(1, &[1])).await.unwrap();
    assert_eq!(at_once(answered(again)).await.unwrap_err().reason, Reason::NodeSuperseded);
    let own = sequencer.propose_by(&newer, kaz.consignment(Lane::Routine, 2)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(own).await, Ok(Answer::Recorded(_))));
}

/// A copy of the journal as it was before the last consignment, which is decided and not durable yet when the copy is seen.
#[tokio::test(start_paused = true)]
async fn a_copy_that_does_not_have_what_is_still_in_flight_is_not_served() {
    let mut bench = Bench::start();
    let (kaz, sequencer) = (state("KAZ"), bench.sequencer.clone());
    let seen = sequencer.propose(kaz.seen(1, &[1])).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    answered(seen).await.unwrap();
    let consigned = sequencer.propose_by(&kaz.run(1), kaz.consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    let behind = sequencer.propose(kaz.seen_again(1, &[1, 2], 0)).await.unwrap();
    let mut behind = std::pin::pin!(answered(behind));
    assert!(futures::poll!(&mut behind).is_pending(), "what it does not have is not durable yet");
    bench.let_sync_pass();
    assert!(matches!(answered(consigned).await, Ok(Answer::Recorded(_))));
    assert_eq!(at_once(behind).await.unwrap_err().reason, Reason::NodeRolledBack);
    let goes_on = sequencer.propose_by(&kaz.run(1), kaz.consignment(Lane::Routine, 2)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(goes_on).await, Ok(Answer::Recorded(_))), "the one that has it all goes on");
    let restarted = sequencer.propose(kaz.seen_again(1, &[1, 3], 2)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(matches!(answered(restarted).await, Ok(Answer::Stands)));
}

#[tokio::test]
async fn a_proposal_says_what_it_is() {
    // Keeps the fixture honest: the proposals above are consignments of the lane that they name.
    match state("KAZ").consignment(Lane::Flash, 7) {
        Proposal::Consign(opened) => assert_eq!((opened.sealed.chain.lane, opened.sealed.number), (Lane::Flash, 7)),
        _ => panic!("not a consignment"),
    }
}

#[tokio::test]
async fn bodies_that_stay_for_want_of_room_are_not_said_to_be_gone() {
    let mut bench = Bench::start();
    let sequencer = bench.sequencer.clone();
    let waiting = sequencer.propose(state("KAZ").consignment(Lane::Routine, 1)).await.unwrap();
    bench.append_begun().await;
    bench.let_sync_pass();
    assert!(answered(waiting).await.is_ok());
    let sequence = sequencer.published().tail.sequence;
    let redact = || sequencer.decide(Proposal::Redact(vec![Bodies { sequence, first: 0, count: 2 }]));
    bench.fill_disk();
    assert_eq!(redact().await.unwrap_err().reason, Reason::DiskFull);
    assert_eq!(sequencer.published().tail.sequence, sequence);
    bench.make_room();
    assert!(matches!(redact().await, Ok(Answer::Stands)));
    assert!(sequencer.published().tail.sequence > sequence);
}

/// A redaction appends entries of the journal's own, whose number is known at its end.
#[tokio::test]
async fn what_comes_while_bodies_are_redacted_is_decided_behind_all_entries_of_it() {
    let place = tempfile::tempdir().unwrap();
    let (sequencer, _running) = on_file_journal(&Arc::new(FailingDisk::on(place.path())));
    let kaz = state("KAZ");
    assert!(matches!(sequencer.decide(kaz.consignment(Lane::Routine, 1)).await, Ok(Answer::Recorded(_))));
    let sequence = sequencer.published().tail.sequence;
    let redact = || Proposal::Redact(vec![Bodies { sequence, first: 0, count: 2 }]);
    let mut waiting = vec![sequencer.propose(redact()).await.unwrap()];
    for number in 2..=4 {
        waiting.push(sequencer.propose(kaz.consignment(Lane::Routine, number)).await.unwrap());
        waiting.push(sequencer.propose(redact()).await.unwrap());
    }
    waiting.push(sequencer.propose(state("IRN").consignment(Lane::Flash, 1)).await.unwrap());
    for waiting in waiting {
        assert!(answered(waiting).await.is_ok());
        let published = sequencer.published();
        assert_eq!(published.ledger.sequence(), published.tail.sequence);
    }
    // Four consignments and four redactions of three entries each.
    assert_eq!(sequencer.published().tail.sequence, sequence + 4 + 4 * 3);
    let absent = Proposal::Redact(vec![Bodies { sequence: 9999, first: 0, count: 1 }]);
    assert_eq!(sequencer.decide(absent).await.unwrap_err().reason, Reason::Internal);
    assert!(matches!(sequencer.decide(kaz.consignment(Lane::Routine, 5)).await, Ok(Answer::Recorded(_))));
}
