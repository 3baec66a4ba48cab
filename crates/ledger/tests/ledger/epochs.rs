//! Chain epochs: who closes one, where it ends, and what the next begins with.

use concord_ledger::{
    ChainTip, ClosedEpoch, Command, Consign, Decision, EpochOpening, Epochs, Handed, Lost, Quorum, StatementContent,
    Stood,
};
use concord_model::limits::EPOCHS_MAX;
use concord_model::{AgreementRef, ChainKey, ConsignmentDigest, Lane, Reason};

use crate::forum::{Forum, chain, digest, reason, t};

fn opening(epoch: u32) -> StatementContent {
    StatementContent::OpenEpoch(EpochOpening { node: t("node"), epoch })
}

fn forum() -> (Forum, AgreementRef) {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ"]);
    (forum, agreement)
}

fn next(forum: &mut Forum, agreement: &AgreementRef) -> Consign {
    let header = forum.header("KAZ", agreement);
    let item = forum.item(header);
    forum.consign("KAZ", Lane::Routine, vec![item])
}

fn key(epoch: u32) -> ChainKey {
    ChainKey { epoch, ..chain("KAZ", Lane::Routine) }
}

fn run(forum: &mut Forum, consign: Consign) -> Result<Decision, Reason> {
    forum.run(&Command::Consign(consign)).map_err(|refusal| refusal.reason)
}

/// The first consignment of epoch 2, after this tip.
fn first(forum: &mut Forum, agreement: &AgreementRef, tip: ChainTip) -> Consign {
    let previous = ConsignmentDigest(digest("what names the tip"));
    Consign { chain: key(2), number: 1, previous, begins_after: Some(tip), ..next(forum, agreement) }
}

#[test]
fn only_the_next_epoch_is_opened_and_only_of_the_own_node() {
    let (mut forum, _) = forum();
    let say = |forum: &mut Forum, who: &str, content| reason(forum.say(who, content));
    for epoch in [0, 1, 3, u32::MAX] {
        assert_eq!(say(&mut forum, "KAZ", opening(epoch)), Err(Reason::EpochOutOfOrder), "{epoch}");
    }
    let other = StatementContent::OpenEpoch(EpochOpening { node: t("other"), epoch: 2 });
    assert_eq!(say(&mut forum, "KAZ", other), Err(Reason::ChainMismatch));
    let hub = StatementContent::OpenEpoch(EpochOpening { node: t("hub"), epoch: 2 });
    assert_eq!(say(&mut forum, "SEC", hub), Err(Reason::ChainMismatch));
    say(&mut forum, "KAZ", opening(2)).unwrap();
    assert_eq!(say(&mut forum, "KAZ", opening(2)), Err(Reason::EpochOutOfOrder));
    assert_eq!((forum.ledger.epochs().current(&t("KAZ")), forum.ledger.epochs().current(&t("IRN"))), (2, 1));
    // Nobody else hears of it.
    let told: Vec<_> = forum.last_statement().told.iter().map(|told| told.participant.to_string()).collect();
    assert_eq!(told, ["KAZ"]);
}

#[test]
fn nothing_more_is_recorded_in_a_closed_epoch_and_what_was_gets_its_receipt_again() {
    let (mut forum, agreement) = forum();
    let recorded = next(&mut forum, &agreement);
    forum.consigned(recorded.clone()).unwrap();
    let late = next(&mut forum, &agreement);
    forum.say("KAZ", opening(2)).unwrap();
    let before = forum.ledger.clone();
    assert_eq!(run(&mut forum, late.clone()), Err(Reason::EpochClosed));
    let fork = Consign { digest: ConsignmentDigest(digest("another")), ..recorded.clone() };
    assert_eq!(run(&mut forum, fork), Err(Reason::Fork));
    assert!(matches!(run(&mut forum, recorded), Ok(Decision::Repeat { .. })));
    assert_eq!(forum.ledger, before);
    // What this hub's own receipt shows, it had recorded.
    let stood = Some(vec![Stood::Refused(Reason::AudienceEmpty)]);
    assert!(matches!(run(&mut forum, Consign { stood, ..late }), Ok(Decision::Fact { .. })));
}

#[test]
fn the_first_of_an_epoch_follows_the_tip_at_which_the_one_before_was_closed() {
    let (mut forum, agreement) = forum();
    let recorded = next(&mut forum, &agreement);
    forum.consigned(recorded.clone()).unwrap();
    let tip = ChainTip { number: 1, digest: recorded.digest };
    let early = first(&mut forum, &agreement, tip);
    assert_eq!(run(&mut forum, early), Err(Reason::ChainMismatch));
    forum.say("KAZ", opening(2)).unwrap();
    assert_eq!(forum.last_statement().closes.as_ref().unwrap().tip(Lane::Routine), tip);
    assert_eq!(forum.last_statement().closes.as_ref().unwrap().tip(Lane::Flash), ChainTip::default());
    for wrong in [None, Some(ChainTip::default()), Some(ChainTip { number: 2, ..tip })] {
        let consign = Consign { begins_after: wrong, ..first(&mut forum, &agreement, tip) };
        assert_eq!(run(&mut forum, consign), Err(Reason::PreviousMismatch), "{wrong:?}");
    }
    let consign = first(&mut forum, &agreement, tip);
    forum.consigned(consign).unwrap();
    assert_eq!((forum.ledger.chain_last(&key(1)), forum.ledger.chain_last(&key(2))), (1, 1));
}

#[test]
fn a_hub_that_forgot_an_epoch_is_handed_it_back_with_the_end_that_it_had_told() {
    let (mut forum, _) = forum();
    let statement = forum.statement("KAZ", opening(2));
    let tip = ChainTip { number: 8, digest: ConsignmentDigest(digest("recorded and forgotten")) };
    let mut closes = forum.ledger.chains().tips(&key(1));
    closes.tips[Lane::Routine.slot()] = tip;
    let handed = Handed {
        statement,
        by: t("KAZ"),
        was_told: true,
        refused: None,
        closes: Some(closes),
        approvals: Vec::new(),
        quorum: Quorum::ONE,
    };
    forum.run(&Command::HandBack(handed.clone())).unwrap();
    assert_eq!(forum.ledger.epochs().closed(&t("KAZ"), 1).unwrap().tip(Lane::Routine), tip);
    assert_eq!(forum.run(&Command::HandBack(handed)).unwrap(), Decision::Nothing);
    assert_eq!(forum.ledger.epochs().current(&t("KAZ")), 2);
}

#[test]
fn an_end_that_contradicts_what_is_recorded_stands_and_what_it_says_is_lost_is_known() {
    let (mut forum, agreement) = forum();
    let mut recorded = Vec::new();
    for _ in 0..3 {
        let consign = next(&mut forum, &agreement);
        recorded.push(consign.digest);
        forum.consigned(consign).unwrap();
    }
    let another = ConsignmentDigest(digest("another"));
    let end = |number, digest| {
        let mut closes = ClosedEpoch::default();
        closes.tips[Lane::Routine.slot()] = ChainTip { number, digest };
        closes
    };
    let handed = |statement, closes| Handed {
        statement,
        by: t("KAZ"),
        was_told: true,
        refused: None,
        closes: Some(closes),
        approvals: Vec::new(),
        quorum: Quorum::ONE,
    };
    let statement = forum.statement("KAZ", opening(2));
    // What it lost since, and an end that it had told before it took back what it had lost then.
    for closes in [end(3, recorded[2]), end(9, another), end(2, recorded[1]), ClosedEpoch::default()] {
        assert_eq!(forum.ledger.contradicted(&handed(statement.clone(), closes)), [], "{closes:?}");
    }
    for number in [2, 3] {
        let lost = Lost::Consignment { lane: Lane::Routine, epoch: 1, number };
        assert_eq!(forum.ledger.contradicted(&handed(statement.clone(), end(number, another))), [lost]);
    }
    // Its chain goes on from the end that its node was told.
    let handed = handed(statement, end(3, another));
    let Decision::Fact { refusal: None, .. } = forum.run(&Command::HandBack(handed)).unwrap() else {
        panic!("it is refused")
    };
    assert_eq!(forum.ledger.epochs().closed(&t("KAZ"), 1), Some(&end(3, another)));
    let first = first(&mut forum, &agreement, ChainTip { number: 3, digest: another });
    run(&mut forum, first).unwrap();
}

#[test]
fn the_last_epoch_is_refused_in_its_own_words() {
    let (forum, _) = forum();
    let mut epochs = forum.ledger.epochs().clone();
    let open = |epochs: &Epochs, epoch| {
        let opening = EpochOpening { node: t("node"), epoch };
        epochs.check_open(forum.ledger.registry(), &t("KAZ"), &opening)
    };
    for epoch in 2..=EPOCHS_MAX {
        open(&epochs, epoch).unwrap();
        epochs.close(&t("KAZ"), ClosedEpoch::default(), None);
    }
    let refused = open(&epochs, EPOCHS_MAX + 1).unwrap_err();
    assert!(refused.reason == Reason::EpochOutOfOrder && refused.message.contains("the last"), "{refused}");
}
