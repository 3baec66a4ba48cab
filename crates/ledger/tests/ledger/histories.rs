use concord_ledger::history::HISTORIES_KEPT_MAX;
use concord_ledger::{At, Fact, HistoryBegun, Ledger};
use concord_model::{Lane, Timestamp};

use crate::forum::{Forum, HISTORY, chain, founding, t};

#[test]
fn a_new_history_keeps_where_its_parent_stood() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ"]);
    let header = forum.header("KAZ", &agreement);
    forum.send("KAZ", vec![header.clone()]).unwrap();
    let feed = forum.ledger.feed_last(&t("IRN"));
    assert_eq!(forum.ledger.histories().current(), Some(HISTORY));
    assert_eq!(forum.ledger.histories().all_past().count(), 0);

    let (history, parent) = ([2; 16], Some(HISTORY));
    forum.record(Fact::HistoryBegun(HistoryBegun { history, parent }));
    forum.send("KAZ", vec![header]).unwrap();
    let histories = forum.ledger.histories();
    assert_eq!(histories.current(), Some(history));
    assert_eq!(histories.past(&history), None);
    let past = histories.past(&HISTORY).unwrap();
    assert_eq!(past.chains.get(&chain("KAZ", Lane::Routine)), Some(&1));
    assert_eq!(past.mailboxes.get(&(t("IRN"), Lane::Routine)), Some(&1));
    assert_eq!(past.feeds.get(&t("IRN")), Some(&feed));
}

#[test]
fn the_oldest_histories_are_forgotten_at_the_limit() {
    let mut forum = Forum::founded([]);
    for number in 0..=HISTORIES_KEPT_MAX as u8 {
        let (history, parent) = ([number + 100; 16], Some([number; 16]));
        forum.record(Fact::HistoryBegun(HistoryBegun { history, parent }));
    }
    let histories = forum.ledger.histories();
    assert_eq!(histories.all_past().count(), HISTORIES_KEPT_MAX);
    assert_eq!(histories.past(&[0; 16]), None);
    assert!(histories.past(&[1; 16]).is_some());
}

#[test]
fn recorded_at_never_goes_back() {
    let mut ledger = Ledger::default();
    let founded = Fact::Founded(founding(&["KAZ"]));
    let late = Timestamp::from_micros(500);
    ledger.apply(&founded, At { sequence: 1, now: late });
    assert_eq!(ledger.recorded_at(Timestamp::from_micros(499)), late);
    ledger.apply(&founded, At { sequence: 2, now: Timestamp::from_micros(3) });
    assert_eq!(ledger.recorded_at(Timestamp::from_micros(4)), late);
    let later = Timestamp::from_micros(501);
    assert_eq!(ledger.recorded_at(later), later);
}

/// The clock at an open is one that nobody vouched for: set to the wrong decade, it would drive all that follows there.
#[test]
fn a_history_that_begins_moves_no_time() {
    let mut ledger = Ledger::default();
    ledger.apply(&Fact::Founded(founding(&["KAZ"])), At { sequence: 1, now: Timestamp::from_micros(500) });
    let begun = Fact::HistoryBegun(HistoryBegun { history: HISTORY, parent: None });
    ledger.apply(&begun, At { sequence: 2, now: Timestamp::from_micros(1_000_000) });
    assert_eq!(ledger.last_recorded_at(), Timestamp::from_micros(500));
}
