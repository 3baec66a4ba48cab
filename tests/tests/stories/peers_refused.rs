//! Bad input to the hub's other calls by somebody who holds a node's keys: positions, acknowledgements, statements, methods.

use bytes::Bytes;
use concord_identity::SigningKey;
use concord_model::{Lane, ParticipantCode};
use concord_tests::{Forum, Mailbox, RawNode, agreement_reference, exchange_ids, text_of};
use concord_wire::agreement::DraftContent;
use concord_wire::proto::exchange::v1::Limits;
use tonic::Code;

const AGREEMENT: &str = "KAZ/warnings";
const LANE: Lane = Lane::Routine;

fn refused(code: Code, reason: &str) -> Option<(Code, String)> {
    Some((code, reason.to_owned()))
}

/// IRN's node stands still while KAZ sent it two exchanges; somebody else has its keys.
fn stage() -> (Forum, RawNode, Vec<String>) {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, "environmental.5", &["KAZ", "IRN", "TUR"]);
    forum.stop_node("IRN");
    let kaz = forum.agency("KAZ");
    kaz.submit("for TUR only", "--to TUR --wait recorded");
    let sent = ["one", "two"].map(|body| kaz.submit(body, "--wait recorded").id).into();
    let raw = RawNode::of(&forum, "IRN");
    (forum, raw, sent)
}

/// Afterwards IRN's own node gets all of it.
fn goes_on(mut forum: Forum, sent: &[String]) {
    forum.start_node("IRN");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(2)), sent);
    assert!(forum.agency("IRN").receive_rest().is_empty());
    let id = &forum.agency("IRN").submit("from the other side", "--wait delivered").id;
    assert_eq!(forum.agency("IRN").settled(id).len(), 2);
    assert_eq!(forum.status(&forum.node_dir("IRN"))["alarms"], serde_json::json!([]));
}

#[test]
fn a_mailbox_is_its_owners_only_and_its_numbers_tell_nothing_of_others() {
    let (forum, raw, sent) = stage();
    let heard = raw.mailbox(LANE, &[], 0, Vec::new(), 2);
    let numbers: Vec<u64> = heard.deliveries.iter().map(|delivery| delivery.number).collect();
    assert_eq!(numbers, [1, 2]);
    let ids = heard.deliveries.iter().map(|delivery| concord_wire::header::exchange_id(&delivery.header).to_string());
    assert_eq!(ids.collect::<Vec<_>>(), sent);
    // Not acknowledged: it comes again.
    assert_eq!(raw.mailbox(LANE, &heard.history, 0, Vec::new(), 2).deliveries, heard.deliveries);
    assert_eq!(raw.mailbox(LANE, &heard.history, 1, Vec::new(), 1).deliveries, heard.deliveries[1..]);
    goes_on(forum, &sent);
}

#[test]
fn positions_that_the_hub_never_gave_make_it_ask_and_the_honest_node_goes_on() {
    let (forum, raw, sent) = stage();
    let history = raw.mailbox(LANE, &[], 0, Vec::new(), 2).history;
    let malformed = raw.mailbox(LANE, &history[..5], 1, Vec::new(), 1);
    assert_eq!(malformed.refused, refused(Code::InvalidArgument, "ARGUMENT_INVALID"));
    let told = raw.follow(&[], 0).unwrap();
    assert_eq!(raw.follow(&history, told), Ok(told));
    // The hub believes that it lost data: it asks for what it forgot, and says nothing more.
    let asks = Err((Code::Ok, "healing".to_owned()));
    assert_eq!(raw.follow(&[7; 16], 1), asks);
    assert_eq!(raw.follow(&history, told + 1), asks);
    // That began a new history, under which nobody is served before its feed was shown.
    let unshown = raw.mailbox(LANE, &history, 0, Vec::new(), 1);
    assert_eq!(unshown.refused, refused(Code::Unavailable, "HEALING"));
    assert_eq!(raw.follow(&history, told), Ok(told));
    // A position in a history that is none of this hub's: what was not acknowledged comes under later numbers.
    let numbers = |heard: Mailbox| heard.deliveries.iter().map(|delivery| delivery.number).collect::<Vec<_>>();
    assert_eq!(numbers(raw.mailbox(LANE, &[7; 16], 1, Vec::new(), 2)), [3, 4]);
    assert_eq!(numbers(raw.mailbox(LANE, &[7; 16], 1, Vec::new(), 2)), [3, 4], "once for each position");
    goes_on(forum, &sent);
}

#[test]
fn forged_and_impossible_acknowledgements_are_refused_and_tell_the_sender_nothing() {
    let (forum, mut raw, sent) = stage();
    let history = raw.mailbox(LANE, &[], 0, Vec::new(), 2).history;
    let mut flipped = raw.acknowledgement(LANE, &history, 1, |_| {});
    let mut signature = flipped.signature.to_vec();
    signature[9] ^= 1;
    flipped.signature = signature.into();
    let own = std::mem::replace(&mut raw.signing_key, SigningKey::generate().unwrap());
    let foreign = raw.acknowledgement(LANE, &history, 1, |_| {});
    raw.signing_key = own;
    let said = |through, change: fn(&mut concord_wire::acknowledgement::Said)| {
        raw.acknowledgement(LANE, &history, through, change)
    };
    let garbage = concord_wire::proto::exchange::v1::Acknowledgement {
        statement: Bytes::from_static(b"\xff"),
        ..flipped.clone()
    };
    let table = [
        ("signature", flipped, Code::PermissionDenied, "SIGNATURE_INVALID"),
        ("garbage", garbage, Code::PermissionDenied, "SIGNATURE_INVALID"),
        ("a key that is not enrolled", foreign, Code::PermissionDenied, "SIGNING_KEY_UNKNOWN"),
        (
            "another recipient",
            said(1, |said| said.recipient = ParticipantCode::parse("TUR").unwrap()),
            Code::InvalidArgument,
            "CURSOR_INVALID",
        ),
        ("another lane", said(1, |said| said.lane = Lane::Flash), Code::InvalidArgument, "CURSOR_INVALID"),
        ("another history", said(1, |said| said.history.0 = [7; 16]), Code::InvalidArgument, "CURSOR_INVALID"),
        ("beyond the mailbox", said(3, |_| {}), Code::DataLoss, "HISTORY_UNKNOWN"),
        ("taken and not delivered", said(1, |said| said.taken = vec![2]), Code::InvalidArgument, "CURSOR_INVALID"),
        ("taken twice", said(2, |said| said.taken = vec![1, 1]), Code::InvalidArgument, "CURSOR_INVALID"),
        ("taken after a gap", said(2, |said| said.taken_before = 1), Code::InvalidArgument, "CURSOR_INVALID"),
    ];
    for (what, acknowledgement, code, reason) in table {
        // A refused word ends the stream; until then deliveries may still come, and none is counted as a record.
        let heard = raw.mailbox(LANE, &history, 0, vec![acknowledgement], usize::MAX);
        assert_eq!((heard.refused, heard.recorded.len()), (refused(code, reason), 0), "{what}");
    }
    for id in &sent {
        let tracked = forum.agency("KAZ").track(id);
        assert_eq!(text_of(&tracked["recipients"][0], "state"), "recorded", "{tracked}");
    }
    goes_on(forum, &sent);
}

#[test]
fn idle_streams_of_an_older_run_bring_nothing_once_a_later_one_was_welcomed() {
    let (forum, mut raw, _) = stage();
    let (history, told) = (raw.mailbox(LANE, &[], 0, Vec::new(), 2).history, raw.follow(&[], 0).unwrap());
    let idle = raw.idle(LANE, &history, 2, told);
    raw.begin_run();
    assert_eq!(raw.follow(&history, told), Ok(told));
    // Welcomed: what comes from now on is the later run's, also where the older one waits for it with open streams.
    let later = forum.agency("KAZ").submit("behind the welcome", "--wait recorded").id;
    let ended = (Code::DataLoss, "NODE_SUPERSEDED".to_owned());
    assert_eq!(raw.ends(idle), vec![ended; 3]);
    let heard = raw.mailbox(LANE, &history, 2, Vec::new(), 1);
    assert_eq!(concord_wire::header::exchange_id(&heard.deliveries[0].header).to_string(), later);
}

#[test]
fn who_hands_back_says_what_it_understands() {
    let (forum, raw, sent) = stage();
    let (history, told) = (raw.mailbox(LANE, &[], 0, Vec::new(), 2).history, raw.follow(&[], 0).unwrap());
    let ours = concord_wire::limits();
    let unsupported = Err((Code::FailedPrecondition, "PROTOCOL_UNSUPPORTED".to_owned()));
    let foreign = [Limits { versions: vec![99], ..ours.clone() }, Limits { suites: vec![99], ..ours.clone() }];
    for limits in foreign.into_iter().map(Some).chain([None]) {
        assert_eq!(raw.hand_back(limits.clone(), &history, told), unsupported, "{limits:?}");
    }
    assert_eq!(raw.hand_back(Some(ours), &history, told), Ok(0));
    goes_on(forum, &sent);
}

#[test]
fn the_newest_stream_of_a_mailbox_wins() {
    let (forum, raw, sent) = stage();
    assert_eq!(raw.mailbox_twice(LANE), refused(Code::Aborted, "STREAM_REPLACED"));
    goes_on(forum, &sent);
}

#[test]
fn forged_statements_are_refused_and_the_honest_next_one_is_taken() {
    let (mut forum, raw, sent) = stage();
    let agreement = agreement_reference(&forum.agreement(AGREEMENT, "KAZ"));
    let leave = || DraftContent::Leave(agreement.clone());
    let officer = forum.officer("IRN");
    // IRN's officer has said one thing: its consent.
    let honest = raw.statement(&officer, 2, leave());
    let mut flipped = honest.clone();
    let mut signature = flipped.signature.to_vec();
    signature[9] ^= 1;
    flipped.signature = signature.into();
    let mut without = honest.clone();
    without.certificates.clear();
    let mut by_another = honest.clone();
    by_another.certificates = raw.statement(&forum.officer("TUR"), 2, leave()).certificates;
    let table = [
        ("signature", flipped, Code::PermissionDenied, "STATEMENT_SIGNATURE_INVALID"),
        ("no certificate", without, Code::PermissionDenied, "STATEMENT_SIGNATURE_INVALID"),
        ("another state's certificate", by_another, Code::PermissionDenied, "STATEMENT_SIGNATURE_INVALID"),
        (
            "another state's statement",
            raw.statement(&forum.officer("TUR"), 2, leave()),
            Code::PermissionDenied,
            "CALLER_NOT_ALLOWED",
        ),
        ("a number ahead", raw.statement(&officer, 3, leave()), Code::FailedPrecondition, "STATEMENT_OUT_OF_ORDER"),
        ("a number used before", raw.statement(&officer, 1, leave()), Code::AlreadyExists, "STATEMENT_FORK"),
        (
            "no statement",
            concord_wire::proto::agreement::v1::SignedStatement::default(),
            Code::InvalidArgument,
            "STATEMENT_MALFORMED",
        ),
    ];
    for (what, statement, code, reason) in table {
        assert_eq!(raw.state(statement).err(), refused(code, reason), "{what}");
    }
    assert_eq!(text_of(&forum.agreement(AGREEMENT, "KAZ"), "state"), "in-force");
    assert_eq!(raw.overreach(), vec![(Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned()); 3]);

    assert_eq!(raw.state(honest.clone()), Ok(()));
    assert_eq!(raw.state(honest), Ok(()), "a repeat is harmless");
    forum.start_node("IRN");
    for id in &sent {
        assert_eq!(forum.agency("KAZ").settled(id)[0], "IRN withheld LEFT");
    }
}
