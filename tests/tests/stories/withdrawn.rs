//! An exchange that its origin takes back, or that another takes the place of: who had it is told, whoever has not got it never does, and its
//! content goes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use concord_model::{ConsignmentDigest, Digest, Lane};
use concord_tests::{
    Agency, DEADLINE, Draft, Ended, Forum, RawNode, Sent, concord, exchange_ids, reason_of, text_of, words,
};
use concord_wire::proto::exchange::v1 as pb;
use serde_json::Value;

const ID: &str = "KAZ/drugs";
const MEASURE: &str = "challenges.2";

fn try_withdraw(agency: &Agency, id: &str, options: &str) -> Ended {
    let mut line = words!["withdraw", id, "--yes", "--profile", agency.profile];
    line.extend(options.split_whitespace().map(Into::into));
    concord(line)
}

#[track_caller]
fn withdraw(agency: &Agency, id: &str) -> String {
    text_of(&try_withdraw(agency, id, "").ok().json(), "exchange_id")
}

#[track_caller]
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < DEADLINE, "it does not come: {what}");
    }
}

/// How far it came, once it is settled or refused.
#[track_caller]
fn outcome(agency: &Agency, id: &str) -> Value {
    let deadline = DEADLINE.as_secs().to_string();
    let wait = words!["track", id, "--wait", "delivered", "--timeout", deadline, "--profile", agency.profile];
    let ended = concord(wait);
    // A refusal is what it came to, too.
    assert!(matches!(ended.code, Some(0 | 3)), "{}", ended.text());
    serde_json::from_str(ended.text().lines().next().unwrap()).unwrap()
}

/// Whether bytes stand anywhere in a journal.
fn journal_has(dir: &Path, bytes: &[u8]) -> bool {
    let segments = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    segments.filter_map(|path| fs::read(path).ok()).any(|text| text.windows(bytes.len()).any(|window| window == bytes))
}

#[track_caller]
fn await_gone(dir: &Path, sent: &Sent) {
    await_that("the content goes", || !journal_has(dir, &sent.body));
}

/// What a received withdrawal says: what it withdraws, and how.
#[track_caller]
fn says(received: &Value) -> (String, String) {
    assert!(received["file"].is_null() && received["size_bytes"] == 0, "a withdrawal has no body: {received}");
    let withdraws = &received["withdraws"];
    (text_of(withdraws, "exchange_id"), text_of(withdraws, "kind"))
}

fn verify_all(mut forum: Forum, codes: &[&str]) {
    forum.stop_hub();
    codes.iter().for_each(|code| forum.stop_node(code));
    for dir in codes.iter().map(|code| forum.node_dir(code)).chain([forum.hub_dir()]) {
        concord(words!["verify", dir]).ok();
    }
}

#[test]
fn whoever_had_it_is_told_that_it_is_withdrawn_also_who_left_since_and_nobody_else() {
    let forum = Forum::of(&["KAZ", "IRN", "TUR", "KGZ", "UZB"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR", "KGZ"]);
    concord(words!["agency", "add", "border", "--dir", forum.node_dir("KAZ")]).ok();
    let [kaz, irn, tur, kgz, uzb] = ["KAZ", "IRN", "TUR", "KGZ", "UZB"].map(|code| forum.agency(code));
    let sent = kaz.submit("the body that is taken back", "--to IRN,TUR --wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [sent.id.clone()]);
    kaz.await_taken(&sent.id, "IRN");
    forum.leave(ID, "TUR");
    // Who comes later is on the agreement by then, and was never one of them.
    forum.as_officer("KAZ", &format!("agreement amend {ID} --add-participant UZB")).ok();
    for code in ["IRN", "KGZ", "UZB"] {
        await_that("the amendment", || {
            let shown = forum.as_officer(code, &format!("agreement show {ID}"));
            let shown = if shown.code == Some(0) { shown.json() } else { return false };
            shown["version"] == 2 || shown["amendment"]["version"] == 2
        });
        forum.as_officer(code, &format!("agreement consent {ID}")).ok();
    }
    forum.await_in_force(ID, "UZB");

    // Nobody but whoever sent it.
    for other in [forum.agency_named("KAZ", "border"), irn.clone(), kgz.clone()] {
        try_withdraw(&other, &sent.id, "").refused(3, "EXCHANGE_UNKNOWN");
    }
    concord(words!["withdraw", sent.id, "--profile", kaz.profile]).refused(2, "USAGE");
    let answer = try_withdraw(&kaz, &sent.id[..12], "--reason mistaken").ok().json();
    let withdrawal = text_of(&answer, "exchange_id");
    assert_eq!((text_of(&answer, "withdraws"), answer["was_withdrawn"].as_bool()), (sent.id.clone(), Some(false)));
    let again = try_withdraw(&kaz, &sent.id, "--reason another").ok().json();
    assert_eq!((text_of(&again, "exchange_id"), again["was_withdrawn"].as_bool()), (withdrawal.clone(), Some(true)));
    try_withdraw(&kaz, &withdrawal, "").refused(3, "EXCHANGE_NOT_CURRENT");

    // Its agency had it; and one that had not gets the notice only.
    assert_eq!(kaz.settled(&withdrawal), ["IRN delivered", "TUR delivered"]);
    for (agency, code) in [(&irn, "IRN"), (&tur, "TUR")] {
        let received = agency.receive(1);
        assert_eq!(exchange_ids(&received), [withdrawal.clone()], "{code}");
        assert_eq!(says(&received[0]), (sent.id.clone(), "withdrawn".to_owned()));
        assert_eq!(text_of(&received[0], "title"), "mistaken");
        kaz.await_taken(&withdrawal, code);
        assert!(agency.receive_rest().is_empty());
    }
    let last = kaz.submit("to all who are there now", "--wait delivered");
    for agency in [&kgz, &uzb] {
        assert_eq!(exchange_ids(&agency.receive(1)), [last.id.clone()], "nobody else hears of it");
    }
    // Who had it stays on record, and what became of it stands beside it.
    let tracked = kaz.track(&sent.id);
    assert_eq!(kaz.settled(&sent.id), ["IRN taken", "TUR delivered"]);
    let not_current = &tracked["not_current"];
    assert_eq!(
        (text_of(not_current, "kind"), text_of(not_current, "withdrawal")),
        ("withdrawn".into(), withdrawal.clone())
    );
    assert!(not_current["successor"].is_null() && !not_current["at"].is_null());
    assert_eq!(kaz.track(&withdrawal)["withdraws"], sent.id);
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN"), forum.node_dir("TUR")] {
        await_gone(&dir, &sent);
    }
    assert!(journal_has(&forum.hub_dir(), &last.body), "it would be found if it were there");
    for code in ["KAZ", "IRN", "TUR"] {
        assert_eq!(forum.status(&forum.node_dir(code))["alarms"], Value::Array(Vec::new()), "{code}");
    }
    verify_all(forum, &["KAZ", "IRN", "TUR", "KGZ", "UZB"]);
}

#[test]
fn what_is_withdrawn_before_it_was_delivered_never_is_whichever_comes_first() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    forum.stop_node("IRN");
    let recorded = kaz.submit("recorded, and not delivered", "--wait recorded");
    let withdrawal = withdraw(&kaz, &recorded.id);
    await_gone(&forum.hub_dir(), &recorded);
    forum.stop_hub();
    // Three that wait, and their withdrawals on a faster lane.
    let waiting: Vec<Sent> = (0..3).map(|at| kaz.submit(format!("waits for the hub {at}"), "")).collect();
    let others: Vec<String> = waiting.iter().map(|sent| withdraw(&kaz, &sent.id)).collect();
    forum.start_hub();
    forum.start_node("IRN");
    assert_eq!(kaz.settled(&recorded.id), ["IRN withheld WITHDRAWN"]);
    assert_eq!(kaz.settled(&withdrawal), ["IRN delivered"]);
    let mut told = vec![withdrawal];
    for (sent, withdrawal) in waiting.iter().zip(&others) {
        let (tracked, withdrawn) = (outcome(&kaz, &sent.id), outcome(&kaz, withdrawal));
        match text_of(&tracked, "state").as_str() {
            // The withdrawal came first: there is nobody to be told.
            "refused" => {
                assert_eq!(text_of(&tracked, "reason"), "EXCHANGE_WITHDRAWN");
                assert_eq!(withdrawn["recipients"], Value::Array(Vec::new()));
            }
            _ => told.push(withdrawal.clone()),
        }
        assert_eq!(text_of(&tracked["not_current"], "withdrawal"), *withdrawal);
    }
    let last = kaz.submit("after all", "--wait delivered");
    told.push(last.id);
    let mut received = exchange_ids(&irn.receive(told.len()));
    assert!(irn.receive_rest().is_empty(), "nothing of what was withdrawn");
    received.sort();
    told.sort();
    assert_eq!(received, told);
    for sent in waiting.iter().chain([&recorded]) {
        await_gone(&forum.node_dir("KAZ"), sent);
        await_gone(&forum.hub_dir(), sent);
    }
    verify_all(forum, &["KAZ", "IRN"]);
}

#[test]
fn what_takes_the_place_of_something_withdraws_it_and_where_it_is_refused_nothing_is_withdrawn() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN"]);
    forum.agree("KAZ/other", MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let under = format!("--agreement {ID}");
    let first = kaz.submit("the first version", &format!("{under} --lane priority --wait delivered"));
    assert_eq!(exchange_ids(&irn.receive(1)), [first.id.clone()]);
    kaz.try_submit("x", &format!("--agreement KAZ/other --supersedes {}", first.id)).refused(3, "ARGUMENT_INVALID");
    irn.try_submit("x", &format!("{under} --supersedes {}", first.id)).refused(3, "EXCHANGE_UNKNOWN");
    // Under the agreement of what it takes the place of, although two would fit.
    let second = kaz.submit("the second version", &format!("--supersedes {} --wait delivered", first.id));
    let received = irn.receive(2);
    assert_eq!(text_of(&received[0], "exchange_id"), second.id);
    assert_eq!(
        (text_of(&received[0], "supersedes"), text_of(&received[0], "lane")),
        (first.id.clone(), "priority".into())
    );
    assert_eq!(says(&received[1]), (first.id.clone(), "superseded".to_owned()));
    let not_current = kaz.track(&first.id)["not_current"].clone();
    assert_eq!(
        (text_of(&not_current, "kind"), text_of(&not_current, "successor")),
        ("superseded".into(), second.id.clone())
    );
    await_gone(&forum.hub_dir(), &first);
    kaz.try_submit("x", &format!("{under} --supersedes {}", first.id)).refused(3, "EXCHANGE_WITHDRAWN");
    assert_eq!(
        text_of(&try_withdraw(&kaz, &first.id, "").ok().json(), "exchange_id"),
        text_of(&not_current, "withdrawal")
    );

    // What would take its place expires before the hub has it.
    forum.stop_hub();
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 5;
    let expires = prost_types::Timestamp::from(UNIX_EPOCH + Duration::from_secs(soon));
    let third = kaz.submit("too late", &format!("{under} --supersedes {} --expires {expires}", second.id));
    let over = UNIX_EPOCH + Duration::from_secs(soon + 1);
    while let Ok(left) = over.duration_since(SystemTime::now()) {
        std::thread::sleep(left);
    }
    forum.start_hub();
    let tracked = outcome(&kaz, &third.id);
    assert_eq!(
        (text_of(&tracked, "state"), text_of(&tracked, "reason")),
        ("refused".into(), "EXCHANGE_EXPIRED".into())
    );
    assert!(kaz.track(&second.id)["not_current"].is_null(), "it is current still");
    assert!(journal_has(&forum.hub_dir(), &second.body));
    let withdrawal = withdraw(&kaz, &second.id);
    assert_eq!(exchange_ids(&irn.receive(1)), [withdrawal.clone()]);
    assert_eq!(text_of(&kaz.track(&second.id)["not_current"], "withdrawal"), withdrawal);
    try_withdraw(&kaz, &third.id, "").refused(3, "EXCHANGE_NOT_CURRENT");
    verify_all(forum, &["KAZ", "IRN"]);
}

#[test]
fn content_goes_also_where_the_hub_or_a_node_dies_before_it_went_and_stays_where_the_operator_keeps_it() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    forum.configure_node("TUR", |settings| concord_tests::replace_line(settings, "keep_withdrawn", "true"));
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let sent = kaz.submit("the body that goes late", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [sent.id.clone()]);
    forum.stop_hub();
    // The same request again, until it is answered.
    for point in ["node.withdraw.prepared", "node.withdraw.queued"] {
        forum.stop_node("KAZ");
        let dying = forum.begin_node_to_die_at(point, "KAZ");
        dying.await_serving();
        try_withdraw(&kaz, &sent.id, "--request-id once").refused(4, "UNAVAILABLE");
        dying.await_death();
        forum.start_node("KAZ");
    }
    let withdrawal = text_of(&try_withdraw(&kaz, &sent.id, "--request-id once").ok().json(), "exchange_id");
    // Away before the hub has it: else it may be told, and have let the content go, before the hub dies.
    forum.kill_node("IRN");
    forum.start_hub_to_die_at("hub.withdrawal.found");
    assert_eq!(text_of(&kaz.track(&withdrawal), "state"), "queued");
    forum.start_hub_to_die_at("hub.withdrawal.due");
    assert!(journal_has(&forum.hub_dir(), &sent.body));
    let dying = forum.begin_node_to_die_at("node.withdrawal.due", "IRN");
    forum.start_hub_to_die_at("hub.withdrawal.redacted");
    forum.start_hub();
    dying.await_death();
    assert!(journal_has(&forum.node_dir("IRN"), &sent.body));
    await_gone(&forum.hub_dir(), &sent);
    forum.start_node_to_die_at("node.withdrawal.redacted", "IRN");
    forum.start_node("IRN");
    await_gone(&forum.node_dir("IRN"), &sent);
    await_gone(&forum.node_dir("KAZ"), &sent);
    assert_eq!(kaz.settled(&withdrawal), ["IRN delivered", "TUR delivered"]);
    assert_eq!(exchange_ids(&irn.receive(1)), [withdrawal.clone()]);
    assert_eq!(exchange_ids(&forum.agency("TUR").receive(1)), [withdrawal], "its agency had not got it");
    assert!(journal_has(&forum.node_dir("TUR"), &sent.body));
    verify_all(forum, &["KAZ", "IRN", "TUR"]);
}

#[test]
fn a_hub_that_lost_a_withdrawal_and_what_it_withdraws_is_handed_both_back_and_delivers_neither_anew() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    let (kaz, irn, tur) = (forum.agency("KAZ"), forum.agency("IRN"), forum.agency("TUR"));
    let before = kaz.submit("known to the backup", "--wait delivered");
    let (profile, file) = (forum.hub_dir().join("officer"), forum.path().join("backup"));
    concord(words!["hub", "backup", "--profile", profile, "--out", file]).ok();
    let after = kaz.submit("not known to the backup", "--wait delivered");
    assert_eq!(irn.receive(2).len(), 2);
    forum.stop_node("TUR");
    let waits = kaz.submit("not delivered to all", "--wait recorded");
    let withdrawals = [&before, &after, &waits].map(|sent| withdraw(&kaz, &sent.id));
    for sent in [&before, &after, &waits] {
        await_gone(&forum.hub_dir(), sent);
        await_gone(&forum.node_dir("KAZ"), sent);
    }
    forum.stop_hub();
    concord(words!["hub", "restore", file, "--dir", forum.hub_dir()]).ok();
    forum.start_hub();
    forum.start_node("TUR");
    let last = kaz.submit("after all", "--wait delivered");
    let mut expected: Vec<String> = withdrawals.iter().cloned().chain([last.id.clone()]).collect();
    expected.sort();
    for (agency, code) in [(&irn, "IRN"), (&tur, "TUR")] {
        let mut received = exchange_ids(&agency.receive(expected.len()));
        received.sort();
        assert_eq!(received, expected, "{code}");
        assert!(agency.receive_rest().is_empty(), "{code} is given nothing that was withdrawn");
    }
    await_gone(&forum.hub_dir(), &before);
    for (sent, withdrawal) in [&before, &after, &waits].into_iter().zip(&withdrawals) {
        assert_eq!(text_of(&kaz.track(&sent.id)["not_current"], "withdrawal"), *withdrawal);
    }
    let alarms = forum.status(&forum.hub_dir())["alarms"].to_string();
    assert!(!alarms.contains("not-healed"), "what was withdrawn is no loss: {alarms}");
    verify_all(forum, &["KAZ", "IRN", "TUR"]);
}

#[test]
fn whoever_has_what_a_hub_lost_and_gave_no_receipt_for_hears_that_it_is_withdrawn() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let (profile, file) = (forum.hub_dir().join("officer"), forum.path().join("backup"));
    concord(words!["hub", "backup", "--profile", profile, "--out", file]).ok();
    // Recorded and delivered, and its receipt is never kept.
    forum.stop_hub();
    let sent = kaz.submit("there before its receipt", "");
    forum.stop_node("KAZ");
    forum.start_hub();
    forum.start_node_to_die_at("node.receipt.verified", "KAZ");
    assert_eq!(exchange_ids(&irn.receive(1)), [sent.id.clone()]);
    forum.stop_hub();
    concord(words!["hub", "restore", file, "--dir", forum.hub_dir()]).ok();
    forum.start_node("KAZ");
    let withdrawal = withdraw(&kaz, &sent.id);
    forum.stop_node("KAZ");
    // That the hub lost data it learns of who has what it lost.
    forum.start_hub();
    await_that("the loss is shown", || {
        let log = fs::read_to_string(forum.log("IRN")).unwrap();
        log.contains("the hub lost data: the mailbox goes on under later numbers")
    });
    forum.start_node("KAZ");
    assert_eq!(kaz.settled(&withdrawal), ["IRN delivered", "TUR delivered"]);
    assert_eq!(exchange_ids(&irn.receive(1)), [withdrawal.clone()]);
    // Whichever of the two came first, on its own lane: nobody is given it anew.
    let again = outcome(&kaz, &sent.id);
    assert_eq!(again["not_current"]["kind"], "withdrawn", "{again}");
    let is_refused = again["state"] == "refused" && again["reason"] == "EXCHANGE_WITHDRAWN";
    let is_known = |one: &Value| match one["state"].as_str() {
        Some("withheld") => one["reason"] == "WITHDRAWN",
        // It came under another number before its withdrawal did: known already.
        Some("delivered" | "taken") => true,
        _ => false,
    };
    let went = again["recipients"].as_array().is_some_and(|each| each.len() == 2 && each.iter().all(is_known));
    assert!(is_refused || went, "{again}");
    let last = kaz.submit("after all", "--wait delivered");
    assert_eq!(exchange_ids(&irn.receive(1)), [last.id]);
    verify_all(forum, &["KAZ", "IRN", "TUR"]);
}

/// An exchange that withdraws another, as an honest node would make it.
fn raw_withdrawal(of: &Draft, lane: Lane) -> Draft {
    let withdraws = Some(pb::Withdrawal {
        exchange_id: concord_wire::header::exchange_id(&of.serialised()).0.as_bytes().to_vec().into(),
        kind: pb::WithdrawalKind::Withdrawn.into(),
    });
    let mut withdrawal = of.with(|header| {
        header.withdraws = withdraws.clone();
        header.parts.clear();
        header.lane = concord_wire::convert::lane(lane).into();
    });
    withdrawal.blobs.truncate(1);
    withdrawal
}

fn place(number: u64, target_index: u32) -> pb::WithdrawnPlace {
    pb::WithdrawnPlace { lane: pb::Lane::Routine.into(), epoch: 1, number, target_index, ..Default::default() }
}

#[test]
fn the_hub_believes_of_a_withdrawal_only_what_it_finds_in_its_own_origins_chains() {
    let mut forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(ID, MEASURE, &["KAZ", "IRN", "TUR"]);
    let agreement = forum.agreement(ID, "KAZ");
    let irn = forum.agency("IRN");
    // TUR's first consignment of lane routine.
    let of_another = forum.agency("TUR").submit("by another state", "--wait recorded");
    forum.stop_node("KAZ");
    let raw = RawNode::of(&forum, "KAZ");
    let draft = |body: &str| raw.draft(&agreement, MEASURE, Lane::Routine, body.as_bytes());
    let (first, second, later) = (draft("the first"), draft("the second"), draft("not yet there"));
    let start = ConsignmentDigest(Digest::ZERO);
    let (routine, last) = raw.consignment(Lane::Routine, 1, start, &[first.clone(), second.clone()]);

    // Sent right behind each other on one stream: the hub looks once the first is there.
    let beside = raw_withdrawal(&first, Lane::Routine);
    let (behind, last) = raw.consignment(Lane::Routine, 2, last, std::slice::from_ref(&beside));
    let answer = raw.consign_withdrawing(Lane::Routine, vec![(routine, vec![]), (behind, vec![place(1, 0)])]);
    let both = "IRN TUR".to_owned();
    assert_eq!(answer.all_outcomes(), [vec![both.clone(), both.clone()], vec![both.clone()]]);
    let queued_in =
        |history: &[u8], place| pb::WithdrawnPlace { queued_in_history: Bytes::copy_from_slice(history), ..place };
    let unsent = |place| queued_in(&answer.history, place);

    // Each in turn on lane priority.
    let mut chain = (0, start);
    let mut hand_in = |withdrawal: &Draft, places: Vec<pb::WithdrawnPlace>| {
        let (one, digest) = raw.consignment(Lane::Priority, chain.0 + 1, chain.1, std::slice::from_ref(withdrawal));
        chain = (chain.0 + 1, digest);
        raw.consign_withdrawing(Lane::Priority, vec![(one, places)]).outcomes().remove(0)
    };
    let of_second = || raw_withdrawal(&second, Lane::Priority);
    let unknown = "EXCHANGE_UNKNOWN";
    assert_eq!(hand_in(&of_second(), vec![]), unknown, "nowhere");
    assert_eq!(hand_in(&of_second(), vec![place(1, 0)]), unknown, "at another");
    assert_eq!(hand_in(&of_second(), vec![place(1, 2)]), unknown, "at none");
    assert_eq!(hand_in(&of_second(), vec![place(0, 1)]), unknown, "before the first");
    assert_eq!(hand_in(&of_second(), vec![pb::WithdrawnPlace { epoch: 2, ..place(1, 1) }]), unknown);
    let green = pb::HandlingCode::Green.into();
    assert_eq!(hand_in(&of_second().with(|header| header.handling = green), vec![place(1, 1)]), unknown, "otherwise");
    let narrowing = Some(pb::Narrowing { participants: vec!["IRN".to_owned()] });
    let narrower = of_second().with(|header| header.narrowing = narrowing.clone());
    assert_eq!(hand_in(&narrower, vec![place(1, 1)]), unknown);
    assert_eq!(hand_in(&raw_withdrawal(&beside, Lane::Priority), vec![place(2, 0)]), unknown, "a withdrawal");
    assert_eq!(hand_in(&raw_withdrawal(&first, Lane::Priority), vec![place(1, 0)]), "EXCHANGE_WITHDRAWN", "again");
    // What another sent stands in no chain of its own; said to have yet to come, it changes nothing for that other.
    let id: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&of_another.id[2 * at..2 * at + 2], 16).unwrap()).collect();
    let forged = of_second().with(|header| header.withdraws.as_mut().unwrap().exchange_id = Bytes::from(id.clone()));
    assert_eq!(hand_in(&forged, vec![place(1, 1)]), unknown);
    assert_eq!(hand_in(&forged, vec![unsent(place(9, 0))]), "", "for nobody");
    assert_eq!(hand_in(&of_second(), vec![place(1, 1)]), both);
    // It overtakes.
    assert_eq!(hand_in(&raw_withdrawal(&later, Lane::Priority), vec![unsent(place(3, 0))]), "");
    let (late, last) = raw.consignment(Lane::Routine, 3, last, std::slice::from_ref(&later));
    assert_eq!(raw.consign(Lane::Routine, vec![late]).outcomes(), ["EXCHANGE_WITHDRAWN"]);
    // What a hub said to be withdrawn, and forgot, its node says itself; of others than its own it says nothing.
    let stands = draft("not withdrawn");
    let (marked, last) = raw.consignment(Lane::Routine, 4, last, &[draft("withdrawn before"), stands.clone()]);
    let before = |withdrawn_before| pb::ConsignRequest { withdrawn_before, ..Default::default() };
    let answer = raw.consign_beside(Lane::Routine, vec![(marked, before(vec![0]))]);
    assert_eq!(answer.all_outcomes(), [vec!["EXCHANGE_WITHDRAWN".to_owned(), both.clone()]]);
    let (other, _) = raw.consignment(Lane::Routine, 5, last, &[draft("of which too much is said")]);
    let one = |place: pb::WithdrawnPlace| pb::ConsignRequest { withdrawn: vec![place], ..Default::default() };
    for beside in [
        before(vec![1]),
        before(vec![0, 0]),
        one(pb::WithdrawnPlace { index: 1, ..place(1, 1) }),
        one(queued_in(b"short", place(1, 1))),
    ] {
        let refused = raw.consign_beside(Lane::Routine, vec![(other.clone(), beside)]).refused.unwrap();
        assert_eq!(reason_of(&refused).as_deref(), Some("CONSIGNMENT_MALFORMED"), "{refused}");
    }

    let withdrawals = [beside.id(), of_second().id()];
    let mut received = exchange_ids(&irn.receive(4));
    assert!(irn.receive_rest().is_empty());
    let mut expected = vec![of_another.id.clone(), withdrawals[0].clone(), withdrawals[1].clone(), stands.id()];
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
    assert_eq!(forum.status(&forum.hub_dir())["alarms"], Value::Array(Vec::new()));
}
