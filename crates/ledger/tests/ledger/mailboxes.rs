use concord_ledger::{Acknowledge, Command, Decision, Fact, IndexRange, NoticeOutcome, SenderNotice};
use concord_model::{Lane, Reason};

use crate::forum::{Forum, chain, reason, t};

/// IRN has three deliveries in its routine mailbox, of which two are delivered and one is taken.
fn forum() -> Forum {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ", "TUR"]);
    for origin in ["KAZ", "TUR", "KAZ"] {
        let header = forum.header(origin, &agreement);
        forum.send(origin, vec![header]).unwrap();
    }
    forum.run(&Command::Acknowledge(word(0, 2, 0, 1))).unwrap();
    forum
}

fn word(delivered_before: u64, delivered_through: u64, taken_before: u64, taken_count: u64) -> Acknowledge {
    Acknowledge {
        recipient: t("IRN"),
        lane: Lane::Routine,
        delivered_before,
        delivered_through,
        taken_before,
        taken_count,
        notices: Vec::new(),
    }
}

#[test]
fn an_acknowledgement_goes_forward_within_what_was_delivered() {
    let check = |word: Acknowledge, expected: Result<(u64, u64), Reason>| {
        let mut forum = forum();
        let before = forum.ledger.clone();
        let shown = format!("{word:?}");
        let heard = reason(forum.run(&Command::Acknowledge(word)));
        match expected {
            Ok(moved) => {
                assert!(matches!(heard, Ok(Decision::Fact { .. })), "{shown}");
                let mailbox = forum.ledger.mailbox(&t("IRN"), Lane::Routine);
                assert_eq!((mailbox.delivered_through, mailbox.taken_count), moved);
                assert_eq!(mailbox.last, 3);
            }
            Err(expected) => {
                assert_eq!(heard, Err(expected), "{shown}");
                assert_eq!(forum.ledger, before);
            }
        }
    };
    check(word(2, 3, 1, 1), Ok((3, 1)));
    check(word(2, 2, 1, 2), Ok((2, 2)));
    check(word(2, 3, 1, 3), Ok((3, 3)));
    check(word(2, 4, 1, 1), Err(Reason::HistoryUnknown));
    check(word(0, 4, 0, 0), Err(Reason::HistoryUnknown));
    check(word(1, 3, 1, 1), Err(Reason::Internal));
    check(word(2, 3, 0, 1), Err(Reason::Internal));
    check(word(2, 1, 1, 1), Err(Reason::ArgumentInvalid));
    check(word(2, 3, 1, 0), Err(Reason::ArgumentInvalid));
    check(word(2, 2, 1, 4), Ok((2, 4)));
    check(word(2, 2, 1, 5), Err(Reason::ArgumentInvalid));
}

#[test]
fn an_acknowledgement_that_moves_nothing_records_nothing() {
    let mut forum = forum();
    let before = forum.ledger.clone();
    let heard = forum.run(&Command::Acknowledge(word(2, 2, 1, 1)));
    assert_eq!(heard, Ok(Decision::Nothing));
    assert_eq!(forum.ledger, before);
}

fn notice(origin: &str, number: u64, outcome: NoticeOutcome) -> SenderNotice {
    SenderNotice {
        chain: chain(origin, Lane::Routine),
        number,
        items: vec![IndexRange { first: 0, count: 1 }],
        outcome,
    }
}

#[test]
fn each_origin_is_told_of_its_own_under_one_feed_number() {
    let mut forum = forum();
    let before = forum.ledger.clone();
    let mut acknowledge = word(2, 3, 1, 2);
    acknowledge.notices = vec![
        notice("TUR", 1, NoticeOutcome::Taken),
        notice("KAZ", 2, NoticeOutcome::Delivered),
        notice("KAZ", 1, NoticeOutcome::Taken),
    ];
    let decision = forum.run(&Command::Acknowledge(acknowledge)).unwrap();
    let Decision::Fact { fact: Fact::Acknowledged(acknowledged), .. } = decision else {
        panic!("{decision:?}");
    };
    let told: Vec<_> = acknowledged
        .told
        .iter()
        .map(|one| {
            let numbers: Vec<_> = one.notices.iter().map(|notice| notice.number).collect();
            (one.told.participant.to_string(), one.told.number, numbers)
        })
        .collect();
    let next = |code: &str| before.feed_last(&t(code)) + 1;
    assert_eq!(told, [("KAZ".to_owned(), next("KAZ"), vec![2, 1]), ("TUR".to_owned(), next("TUR"), vec![1])]);
    assert_eq!(forum.ledger.feed_last(&t("KAZ")), next("KAZ"));
    assert_eq!(forum.ledger.feed_last(&t("TUR")), next("TUR"));
    assert_eq!(forum.ledger.feed_last(&t("IRN")), before.feed_last(&t("IRN")));
}

#[test]
fn a_notice_to_nobody_in_the_registry_is_refused() {
    let mut forum = forum();
    let mut acknowledge = word(2, 3, 1, 1);
    acknowledge.notices = vec![notice("USA", 1, NoticeOutcome::Delivered)];
    let heard = forum.run(&Command::Acknowledge(acknowledge));
    assert_eq!(reason(heard), Err(Reason::ParticipantUnknown));
}
