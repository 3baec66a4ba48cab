//! SIGKILL at any moment: nothing acknowledged is lost, everything has exactly one effect, order stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use concord_model::{ConsignmentDigest, Digest, Lane};
use concord_tests::{Agency, DEADLINE, Forum, RawNode, concord, count_in_journal, exchange_ids, words};

const AGREEMENT: &str = "KAZ/warnings";
const MEASURE: &str = "environmental.5";
const ROUNDS: u64 = 10;
const LANES: [&str; 3] = ["flash", "priority", "routine"];

fn forum() -> Forum {
    let forum = Forum::of(&["KAZ", "IRN", "TUR"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN", "TUR"]);
    forum
}

/// Submits on one lane, one after the other, until told to end; what a dying node did not answer is said again under the same
/// request id. Returns the exchange ids that were acknowledged, in order, and tells of each when it was.
fn submit_until(agency: &Agency, lane: &str, end: &AtomicBool, acknowledged: &Sender<()>) -> Vec<String> {
    let mut sent = Vec::new();
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let options = format!("--lane {lane} --title T --request-id {lane}-{number}");
        let answer = loop {
            let ended = agency.try_submit(format!("{lane} {number}"), &options);
            match ended.code {
                Some(4) => {}
                _ => break ended.ok().json(),
            }
        };
        sent.push(answer["exchange_id"].as_str().unwrap().to_owned());
        acknowledged.send(()).unwrap();
    }
    sent
}

/// A moment that differs from round to round.
fn some_moment(round: u64) -> Duration {
    Duration::from_millis((round * 7919 + u64::from(std::process::id())) % 170)
}

/// Runs a story of kills while KAZ submits on every lane; then everything acknowledged is at both others, once and in order.
fn check(mut forum: Forum, kill: impl Fn(&mut Forum)) {
    let end = AtomicBool::new(false);
    let kaz = forum.agency("KAZ");
    let (tell, acknowledged) = channel();
    let sent = thread::scope(|scope| {
        let submit = |lane| {
            let (kaz, end, tell) = (&kaz, &end, tell.clone());
            scope.spawn(move || submit_until(kaz, lane, end, &tell))
        };
        let submitting = LANES.map(submit);
        for round in 0..ROUNDS {
            for _ in LANES {
                acknowledged.recv_timeout(DEADLINE).unwrap();
            }
            // Not waited for anything: a kill must be right at every moment.
            thread::sleep(some_moment(round));
            kill(&mut forum);
        }
        end.store(true, Ordering::Relaxed);
        submitting.map(|lane| lane.join().unwrap())
    });
    let all: Vec<String> = sent.iter().flatten().cloned().collect();
    for id in &all {
        let settled = kaz.settled(id);
        assert_eq!(settled.len(), 2, "{settled:?}");
    }
    for code in ["IRN", "TUR"] {
        let received = forum.agency(code).receive(all.len());
        for (lane, ids) in LANES.iter().zip(&sent) {
            let of_lane: Vec<_> = received.iter().filter(|one| one["lane"] == **lane).cloned().collect();
            assert_eq!(&exchange_ids(&of_lane), ids, "{code}, {lane}");
        }
        assert!(forum.agency(code).receive_rest().is_empty(), "{code} got more than was sent");
        assert_eq!(count_in_journal(&forum.node_dir(code), &all), (all.len(), all.len()), "{code}");
    }
    for dir in [forum.hub_dir(), forum.node_dir("KAZ"), forum.node_dir("IRN"), forum.node_dir("TUR")] {
        concord(words!["verify", dir]).ok();
        let status = forum.status(&dir);
        let alarms: Vec<&str> =
            status["alarms"].as_array().unwrap().iter().map(|alarm| alarm.as_str().unwrap()).collect();
        // A write that a kill cut short is told, and is no reason for anything else.
        assert!(alarms.iter().all(|alarm| alarm.starts_with("journal-cut")), "{alarms:?}");
    }
}

#[test]
fn a_hub_killed_between_submission_and_receipt_loses_nothing_and_doubles_nothing() {
    check(forum(), |forum| {
        forum.kill_hub();
        forum.start_hub();
    });
}

#[test]
fn a_senders_node_killed_at_any_moment_loses_nothing_that_it_answered_and_doubles_nothing() {
    check(forum(), |forum| {
        forum.kill_node("KAZ");
        forum.start_node("KAZ");
    });
}

#[test]
fn a_recipients_node_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    check(forum(), |forum| {
        forum.kill_node("IRN");
        forum.start_node("IRN");
    });
}

#[test]
fn everybody_killed_at_once_loses_nothing_and_doubles_nothing() {
    check(forum(), |forum| {
        forum.kill_hub();
        forum.kill_node("KAZ");
        forum.kill_node("TUR");
        forum.start_node("TUR");
        forum.start_node("KAZ");
        forum.start_hub();
    });
}

#[test]
fn a_consignment_whose_receipt_a_kill_cut_off_is_recorded_once_and_gets_its_receipt() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    let agreement = forum.agreement(AGREEMENT, "KAZ");
    forum.stop_node("KAZ");
    let raw = RawNode::of(&forum, "KAZ");
    let mut previous = ConsignmentDigest(Digest::ZERO);
    let (mut ids, mut cut_off) = (Vec::new(), 0);
    for round in 0..3 * ROUNDS {
        let draft = raw.draft(&agreement, MEASURE, Lane::Routine, format!("body {round}").as_bytes());
        let (consignment, digest) = raw.consignment(Lane::Routine, round + 1, previous, &[draft.clone()]);
        let said = thread::scope(|scope| {
            let saying = scope.spawn(|| raw.consign(Lane::Routine, vec![consignment.clone()]));
            thread::sleep(Duration::from_micros(round * 400));
            forum.kill_hub();
            saying.join().unwrap()
        });
        forum.start_hub();
        // The hub serves nobody before its feed was shown again.
        raw.follow(&[], 0).unwrap();
        // Whether it had been recorded is not known to who sends: the same again finds out.
        let again = raw.consign(Lane::Routine, vec![consignment]);
        assert_eq!(again.outcomes(), ["IRN"], "round {round}");
        match said.receipts.as_slice() {
            [] => cut_off += 1,
            receipts => assert_eq!(receipts, again.receipts, "round {round}"),
        }
        ids.push(draft.id());
        previous = digest;
    }
    println!("{cut_off} of {} receipts were cut off", ids.len());
    assert!(cut_off > 0, "no kill came before a receipt: this shows nothing");
    assert_eq!(exchange_ids(&forum.agency("IRN").receive(ids.len())), ids);
    assert!(forum.agency("IRN").receive_rest().is_empty());
    concord(words!["verify", forum.hub_dir()]).ok();
}

#[test]
fn an_officers_word_outlives_the_kill_of_the_hub_and_of_its_own_node() {
    let mut forum = Forum::of(&["KAZ", "IRN"]);
    for round in 0..ROUNDS {
        let id = format!("KAZ/agreement-{round}");
        let propose = words![
            "agreement",
            "propose",
            id,
            "--title",
            "T",
            "--measure",
            MEASURE,
            "--participant",
            "IRN",
            "--profile",
            forum.officer("KAZ")
        ];
        let proposed = thread::scope(|scope| {
            let proposing = scope.spawn(|| concord(propose));
            thread::sleep(some_moment(round));
            forum.kill_hub();
            if round % 2 == 0 {
                forum.kill_node("KAZ");
                forum.start_node("KAZ");
            }
            forum.start_hub();
            proposing.join().unwrap()
        });
        // Nobody was answered, or it was before the kill: then it is said again, or it stands.
        if proposed.code != Some(0) {
            let propose = words![
                "agreement",
                "propose",
                id,
                "--title",
                "T",
                "--measure",
                MEASURE,
                "--participant",
                "IRN",
                "--profile",
                forum.officer("KAZ")
            ];
            let again = concord(propose);
            assert!(
                again.code == Some(0) || again.reason().as_deref() == Some("AGREEMENT_EXISTS"),
                "{proposed}\n{again}"
            );
        }
        forum.consent(&id, "IRN");
        forum.await_in_force(&id, "KAZ");
    }
    let list = concord(words!["agreement", "list", "--profile", forum.officer("IRN")]).ok().lines();
    assert_eq!(list.len() as u64, ROUNDS);
}

#[test]
fn an_agency_killed_while_it_receives_is_given_what_it_did_not_acknowledge_and_nothing_else_again() {
    let forum = Forum::of(&["KAZ", "IRN"]);
    forum.agree(AGREEMENT, MEASURE, &["KAZ", "IRN"]);
    let (kaz, irn) = (forum.agency("KAZ"), forum.agency("IRN"));
    let mut sent = Vec::new();
    let mut given = Vec::new();
    for round in 0..ROUNDS {
        let following = irn.follow();
        for number in 0..3 {
            sent.push(kaz.submit(format!("{round} {number}"), "").id);
        }
        given.push(following.json()["exchange_id"].as_str().unwrap().to_owned());
        let rest = following.kill();
        let values = rest.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        given.extend(values.map(|value| value["exchange_id"].as_str().unwrap().to_owned()));
    }
    // What was queued last may still be on its way to the recipient's node.
    kaz.track_delivered(sent.last().unwrap());
    given.extend(exchange_ids(&irn.receive_rest()));
    // The last one of a killed command may come again, at once; nothing that was acknowledged does.
    given.dedup();
    assert_eq!(given, sent);
    assert_eq!(std::fs::read_dir(&irn.received).unwrap().count(), sent.len());
}
