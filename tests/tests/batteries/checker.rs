//! The checker finds each broken promise, and only that: evidence that holds, with one thing in it changed.

use std::collections::{BTreeMap, BTreeSet};

use concord_model::Lane;

use concord_tests::checker::{
    Became, Body, Evidence, Exchange, HubRecord, Mail, NodeRecord, Receipt, Run, ToldOf, Violation,
};
use concord_tests::witness::{Agreed, Heard, Id, Records, Sent, Tracked, Word};

const LANE: Lane = Lane::Routine;

fn id(number: u8) -> Id {
    [number; 32]
}

fn body(number: u8) -> Id {
    [100 + number; 32]
}

fn codes(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Exchange N of KAZ is item N - 1 of consignment 1: the first for all, the second for IRN, the third when IRN was leaving.
fn exchange(number: u8, sequence: u64, audience: &[&str]) -> Exchange {
    Exchange {
        id: id(number),
        place: ("KAZ".to_owned(), LANE, 1, u32::from(number) - 1),
        sequence,
        body: Body::Kept(body(number)),
        outcome: Ok(audience.iter().map(ToString::to_string).collect()),
        request: None,
    }
}

fn holds() -> Evidence {
    let sent = |number: u8, agreement: &str, to: Option<&[&str]>| Sent {
        origin: "KAZ".to_owned(),
        request: format!("request-{number}"),
        lane: LANE,
        agreement: agreement.to_owned(),
        to: to.map(codes),
        body: body(number),
        id: id(number),
    };
    let parties = codes(&["KAZ", "IRN", "TUR"]);
    let standing = Agreed { parties: parties.clone(), ..Agreed::default() };
    let words = vec![("KAZ".to_owned(), Word::Proposed), ("IRN".to_owned(), Word::Left)];
    let passing = Agreed { parties, leaving: codes(&["IRN"]), words };
    let heard = |numbers: &[u8]| {
        let given = numbers.iter().map(|number| Heard::Given {
            id: id(*number),
            lane: LANE,
            origin: "KAZ".to_owned(),
            body: body(*number),
        });
        let ids: Vec<Id> = numbers.iter().map(|number| id(*number)).collect();
        given.chain([Heard::Acknowledging(ids.clone()), Heard::Acknowledged(ids)]).collect::<Vec<_>>()
    };
    let tracked = |number: u8, recipients: &[(&str, &str, &str)]| Tracked {
        origin: "KAZ".to_owned(),
        id: id(number),
        recipients: recipients
            .iter()
            .map(|(code, state, reason)| ((*code).to_owned(), ((*state).to_owned(), (*reason).to_owned())))
            .collect(),
    };
    let records = Records {
        sent: vec![sent(1, "A", None), sent(2, "A", Some(&["IRN"])), sent(3, "P", None)],
        heard: BTreeMap::from([("IRN/agency".to_owned(), heard(&[1, 2])), ("TUR/agency".to_owned(), heard(&[1, 3]))]),
        tracked: vec![
            tracked(1, &[("IRN", "taken", ""), ("TUR", "delivered", "")]),
            tracked(3, &[("IRN", "withheld", "LEFT"), ("TUR", "delivered", "")]),
        ],
        agreements: BTreeMap::from([("A".to_owned(), standing), ("P".to_owned(), passing)]),
        surprises: Vec::new(),
        bodies_may_go: false,
    };
    let both = ["IRN", "TUR"];
    let hub = HubRecord {
        exchanges: vec![exchange(1, 9, &both), exchange(2, 9, &["IRN"]), exchange(3, 9, &both)],
        runs: vec![
            Run { sequence: 9, recipient: "IRN".to_owned(), lane: LANE, first: 1, ids: vec![id(1), id(2), id(3)] },
            Run { sequence: 9, recipient: "TUR".to_owned(), lane: LANE, first: 1, ids: vec![id(1), id(3)] },
        ],
        entries: BTreeMap::from([([9; 32], ("KAZ".to_owned(), LANE, 1))]),
        words: vec![
            ("P".to_owned(), "KAZ".to_owned(), Word::Proposed, 5),
            ("P".to_owned(), "IRN".to_owned(), Word::Left, 8),
        ],
        statements: vec![
            (("KAZ".to_owned(), "chair".to_owned(), 1), 5),
            (("IRN".to_owned(), "chair".to_owned(), 1), 8),
        ],
        told: BTreeMap::from([("KAZ".to_owned(), vec![1, 2])]),
        histories: vec![[1; 16], [2; 16]],
        losses: Vec::new(),
    };
    let queued = |number: u8| Exchange {
        outcome: Ok(Vec::new()),
        request: Some(("agency".to_owned(), format!("request-{number}"))),
        ..exchange(number, 4, &[])
    };
    let told = |number: u64, recipient: &str, index: u32, state: &str| ToldOf {
        number,
        recipient: recipient.to_owned(),
        item: (LANE, 1, index),
        state: state.to_owned(),
    };
    let kaz = NodeRecord {
        queued: vec![queued(1), queued(2), queued(3)],
        receipts: vec![Receipt {
            sequence: 5,
            entry_digest: [9; 32],
            consignment: (LANE, 1),
            outcomes: hub.exchanges.iter().map(|exchange| exchange.outcome.clone()).collect(),
        }],
        feed: Some(vec![1, 2]),
        told: vec![
            told(1, "IRN", 0, "delivered"),
            told(1, "IRN", 1, "delivered"),
            told(1, "IRN", 2, "withheld LEFT"),
            told(2, "TUR", 0, "delivered"),
            told(2, "TUR", 2, "delivered"),
            told(2, "IRN", 0, "taken"),
            told(2, "IRN", 1, "taken"),
            told(2, "TUR", 0, "taken"),
            told(2, "TUR", 2, "taken"),
        ],
        hub_histories: vec![(5, "receipts".to_owned(), [1; 16]), (6, "the feed".to_owned(), [2; 16])],
        ..NodeRecord::default()
    };
    let mail = |number: u64, became: Became| Mail { sequence: 20 + number, lane: LANE, number, became };
    let accepted = |number: u8| Became::Accepted(id(number), Body::Kept(body(number)));
    let irn = NodeRecord {
        mail: vec![mail(1, accepted(1)), mail(2, accepted(2)), mail(3, Became::Withheld)],
        feed: Some(Vec::new()),
        cursors: vec![(24, "agency".to_owned(), LANE, 1), (25, "agency".to_owned(), LANE, 2)],
        hub_histories: vec![(21, "mail routine".to_owned(), [1; 16]), (22, "mail routine".to_owned(), [2; 16])],
        ..NodeRecord::default()
    };
    let tur = NodeRecord {
        mail: vec![mail(1, accepted(1)), mail(2, accepted(3))],
        feed: Some(Vec::new()),
        cursors: vec![(24, "agency".to_owned(), LANE, 2)],
        ..NodeRecord::default()
    };
    let nodes = [("KAZ", kaz), ("IRN", irn), ("TUR", tur)];
    let nodes = nodes.into_iter().map(|(code, node)| (code.to_owned(), node)).collect();
    Evidence { records, hub, nodes }
}

/// After this change the checker says so, under this promise and in these words.
#[track_caller]
fn finds(promise: &str, words: &str, change: impl FnOnce(&mut Evidence)) {
    let mut evidence = holds();
    change(&mut evidence);
    let found = evidence.judge();
    let says = |violation: &&Violation| violation.promise == promise && violation.what.contains(words);
    assert!(found.iter().any(|violation| says(&violation)), "not '{promise}: … {words} …' in {found:#?}");
}

fn node<'a>(evidence: &'a mut Evidence, code: &str) -> &'a mut NodeRecord {
    evidence.nodes.get_mut(code).unwrap()
}

#[test]
fn evidence_that_holds_shows_no_violation() {
    assert_eq!(holds().judge(), []);
}

#[test]
fn bodies_that_the_retention_took_are_missed_by_nobody_and_other_ones_are() {
    let mut evidence = holds();
    evidence.records.bodies_may_go = true;
    evidence.hub.exchanges[1].body = Body::Gone;
    node(&mut evidence, "TUR").mail[0].became = Became::Accepted(id(1), Body::Gone);
    assert_eq!(evidence.judge(), []);
    evidence.hub.exchanges[1].body = Body::Absent;
    node(&mut evidence, "TUR").mail[0].became = Became::Accepted(id(1), Body::Absent);
    assert_eq!(evidence.judge().len(), 2, "the retention leaves the commitment of what it takes");
}

#[test]
fn what_was_queued_and_is_lost_doubled_or_changed_is_found() {
    finds("I1", "was queued and is not in the hub's journal", |e| drop(e.hub.exchanges.pop()));
    finds("I1", "was queued and is not in the journal of KAZ", |e| drop(node(e, "KAZ").queued.pop()));
    finds("I1", "recorded more than once in the hub's journal", |e| {
        let mut again = e.hub.exchanges[0].clone();
        again.place.2 = 2;
        e.hub.exchanges.push(again);
    });
    finds("I1", "was sent by nobody", |e| drop(e.records.sent.pop()));
    finds("I1", "is not what KAZ sent", |e| e.hub.exchanges[1].body = Body::Kept(body(9)));
    finds("I1", "is not what KAZ sent", |e| e.hub.exchanges[1].body = Body::Absent);
    finds("I1", "is not what KAZ sent", |e| node(e, "KAZ").queued[1].body = Body::Gone);
    finds("I3", "was queued twice", |e| {
        let request = node(e, "KAZ").queued[0].request.clone();
        node(e, "KAZ").queued[1].request = request;
    });
    finds("I1", "Left of IRN about P is not in the hub's journal", |e| drop(e.hub.words.pop()));
    finds("I3", "statement 1 of KAZ chair stands in the hub's entries 5 and 9", |e| {
        e.hub.statements.push((e.hub.statements[0].0.clone(), 9));
    });
    finds("I1", "a surprise", |e| e.records.surprises.push("a surprise".to_owned()));
}

#[test]
fn an_audience_too_small_too_large_or_refused_is_found() {
    finds("I1", "was recorded for", |e| e.hub.exchanges[0].outcome = Ok(vec!["TUR".to_owned()]));
    finds("I1", "was recorded for", |e| e.hub.exchanges[1].outcome = Ok(vec!["IRN".to_owned(), "TUR".to_owned()]));
    finds("I1", "was refused with NARROWING_INVALID", |e| {
        e.hub.exchanges[1].outcome = Err("NARROWING_INVALID".to_owned());
    });
    finds("I1", "which was not for TUR", |e| {
        let given = Heard::Given { id: id(2), lane: LANE, origin: "KAZ".to_owned(), body: body(2) };
        e.records.heard.get_mut("TUR/agency").unwrap().push(given);
    });
}

#[test]
fn an_order_turned_around_and_a_gap_are_found() {
    finds("I4", "was sent next", |e| e.records.sent.swap(0, 1));
    finds("I4", "follows 1.1", |e| e.hub.exchanges[2].place.2 = 3);
    finds("I4", "stands in the journal of KAZ where", |e| {
        let queued = &mut node(e, "KAZ").queued;
        (queued[1].id, queued[2].id) = (id(3), id(2));
    });
    finds("I4", "the numbers from 2 on, after 0", |e| e.hub.runs[1].first = 2);
    finds("I4", "mailbox routine of IRN: 3 where 2 comes next", |e| drop(node(e, "IRN").mail.remove(1)));
    finds("I4", "feed of KAZ: 2 where 1 comes next", |e| node(e, "KAZ").feed = Some(vec![2]));
    finds("I4", "3 items of its feed, the hub gave 2", |e| node(e, "KAZ").feed = Some(vec![1, 2, 3]));
    finds("I4", "1 items of its feed, the hub gave 2", |e| node(e, "KAZ").feed = Some(vec![1]));
    // A recipient in the tests' own process keeps no feed.
    let mut evidence = holds();
    node(&mut evidence, "TUR").feed = None;
    evidence.hub.told.insert("TUR".to_owned(), vec![1]);
    assert_eq!(evidence.judge(), []);
    finds("I4", "was given by nobody", |e| {
        let more = Mail { number: 3, ..node(e, "TUR").mail[1].clone() };
        node(e, "TUR").mail.push(more);
    });
    finds("I4", "which was sent first", |e| e.records.heard.get_mut("TUR/agency").unwrap().swap(0, 1));
}

#[test]
fn a_delivery_that_is_missing_doubled_other_or_wrongly_withheld_is_found() {
    finds("I1", "was recorded and did not arrive", |e| drop(node(e, "TUR").mail.pop()));
    finds("I3", "is in IRN's journal twice", |e| {
        node(e, "IRN").mail[1].became = Became::Accepted(id(1), Body::Kept(body(1)));
    });
    finds("I1", "has another body", |e| node(e, "TUR").mail[0].became = Became::Accepted(id(1), Body::Kept(body(2))));
    finds("I1", "has no body", |e| node(e, "TUR").mail[0].became = Became::Accepted(id(1), Body::Gone));
    finds("I1", "was set aside", |e| node(e, "TUR").mail[0].became = Became::SetAside("DUPLICATE".to_owned()));
    finds("I1", "was set aside", |e| node(e, "TUR").mail[0].became = Became::SetAside("NOT_A_MEMBER".to_owned()));
    // Its own leave was there before what the hub had recorded for it.
    let mut evidence = holds();
    node(&mut evidence, "IRN").mail[2].became = Became::SetAside("NOT_A_MEMBER".to_owned());
    node(&mut evidence, "KAZ").told[2].state = "set-aside NOT_A_MEMBER".to_owned();
    let tracked = evidence.records.tracked[1].recipients.get_mut("IRN").unwrap();
    *tracked = ("set-aside".to_owned(), "NOT_A_MEMBER".to_owned());
    assert_eq!(evidence.judge(), []);
    finds("I1", "was withheld in entry 21 from one who stays", |e| node(e, "TUR").mail[0].became = Became::Withheld);
}

#[test]
fn what_an_agency_never_got_or_got_again_is_found() {
    finds("I3", "was given 01", |e| {
        let heard = e.records.heard.get_mut("IRN/agency").unwrap();
        heard.push(heard[0].clone());
    });
    finds("I3", "TUR/agency never got 03", |e| {
        let heard = e.records.heard.get_mut("TUR/agency").unwrap();
        heard.truncate(2);
        heard.push(Heard::Acknowledged(vec![id(1)]));
    });
    finds("I1", "otherwise than KAZ sent it", |e| {
        if let Heard::Given { body: given, .. } = &mut e.records.heard.get_mut("IRN/agency").unwrap()[0] {
            *given = body(9);
        }
    });
    // Given again before it was acknowledged is what a cut connection brings, and no violation.
    let mut evidence = holds();
    let heard = evidence.records.heard.get_mut("IRN/agency").unwrap();
    heard.insert(2, heard[0].clone());
    heard.insert(3, heard[1].clone());
    assert_eq!(evidence.judge(), []);
}

#[test]
fn a_receipt_that_is_not_true_is_found() {
    let receipts = "receipts";
    finds(receipts, "which the hub does not have", |e| node(e, "KAZ").receipts[0].entry_digest = [8; 32]);
    finds(receipts, "the hub has", |e| node(e, "KAZ").receipts[0].outcomes.truncate(2));
    finds(receipts, "never got a receipt", |e| node(e, "KAZ").receipts.clear());
    finds(receipts, "is the second one", |e| {
        let again = node(e, "KAZ").receipts[0].clone();
        node(e, "KAZ").receipts.push(again);
    });
    finds(receipts, "tells routine 1.2 as delivered", |e| node(e, "KAZ").told[2].state = "delivered".to_owned());
    finds(receipts, "for the second time", |e| {
        let again = node(e, "KAZ").told[0].clone();
        node(e, "KAZ").told.push(again);
    });
    finds(receipts, "was never told what became of", |e| drop(node(e, "KAZ").told.remove(0)));
    finds(receipts, "was never told that 0101010101010101 was taken at IRN", |e| drop(node(e, "KAZ").told.remove(5)));
    finds(receipts, "which KAZ never queued", |e| node(e, "KAZ").told[0].item.1 = 7);
    finds(receipts, "was shown delivered LEFT of 03", |e| {
        e.records.tracked[1].recipients.get_mut("IRN").unwrap().0 = "delivered".to_owned();
    });
    finds(receipts, "was shown taken", |e| {
        e.records.tracked[0].recipients.get_mut("TUR").unwrap().0 = "taken".to_owned();
        e.records.heard.remove("TUR/agency");
    });
}

#[test]
fn a_loss_that_healing_hid_is_found() {
    finds("I1", "a loss that was healed: entry 7 of the hub", |e| e.hub.losses.push((7, "a feed".to_owned())));
    finds("I1", "a loss that was healed: entry 7 of TUR", |e| node(e, "TUR").losses.push((7, "mail".to_owned())));
    finds("I1", "entry 5 of KAZ, receipts, names the history 0909", |e| node(e, "KAZ").hub_histories[0].2 = [9; 16]);
    finds("I1", "mail routine, names the history 0101", |e| node(e, "IRN").hub_histories.swap(0, 1));
}

#[test]
fn a_cursor_that_forgot_went_back_or_ran_ahead_is_found() {
    finds("I1", "which its cursor has not passed", |e| drop(node(e, "IRN").cursors.pop()));
    finds("I3", "where it was or behind that", |e| node(e, "IRN").cursors.swap(0, 1));
    finds("I1", "which had not come then", |e| node(e, "TUR").cursors[0].0 = 22);
    finds("I1", "the cursor of TUR/agency passed routine 2", |e| {
        let heard = e.records.heard.get_mut("TUR/agency").unwrap();
        heard.truncate(2);
        heard.extend([Heard::Acknowledging(vec![id(1)]), Heard::Acknowledged(vec![id(1)])]);
    });
}
