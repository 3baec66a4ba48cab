//! What needs several officers: it waits, counts for nothing, and takes effect with the last signature that it needs.

use std::time::Duration;

use concord_ledger::{
    APPROVAL_LASTS, APPROVALS_WAITING_MAX, Command, Decision, Handed, JoinRequest, Quorum, Replacement, Statement,
    StatementContent,
};
use concord_model::{Digest, Lane, ParticipantCode, Reason, Refusal, Timestamp, Title};

use crate::forum::{Forum, digest, join_request, public_key, reason, t};

const TWO: u32 = 2;

impl Forum {
    /// A statement by one of several officers.
    fn by(&mut self, who: &str, officer: &str, content: StatementContent) -> Statement {
        let statement = self.statement(who, content);
        let last = self.ledger.signers().last(&t(who), &t(officer));
        Statement { officer: t(officer), number: last.map_or(1, |last| last.number + 1), ..statement }
    }

    /// Says it under a quorum, and hears the officer's answer.
    fn says(&mut self, officer: &str, content: StatementContent, quorum: u32) -> Result<Digest, Refusal> {
        let statement = self.by("SEC", officer, content);
        let digest = statement.digest;
        match self.run(&Command::Statement(statement, Quorum::new(quorum).unwrap()))? {
            Decision::Fact { refusal: Some(refusal), .. } => Err(refusal),
            _ => Ok(digest),
        }
    }

    fn enrols(&mut self, code: &str, quorum: u32) -> Digest {
        self.says("officer", StatementContent::Enrol(join_request(code)), quorum).unwrap()
    }

    fn is_enrolled(&self, code: &str) -> bool {
        self.ledger.registry().enrolment(&t(code)).is_some()
    }

    fn told_of_last(&self) -> Vec<ParticipantCode> {
        self.last_statement().told.iter().map(|told| told.participant.clone()).collect()
    }

    fn hands_back(&mut self, statement: &Statement, approvals: &[Statement], quorum: u32) -> Result<Decision, Refusal> {
        let handed = Handed {
            statement: statement.clone(),
            by: t("IRN"),
            was_told: true,
            refused: None,
            closes: None,
            approvals: approvals.to_vec(),
            quorum: Quorum::new(quorum).unwrap(),
        };
        self.run(&Command::HandBack(handed))
    }
}

#[test]
fn an_enrolment_counts_for_nothing_before_its_last_signature_and_for_all_with_it() {
    for quorum in [2, 3] {
        let mut forum = Forum::founded(["KAZ", "IRN"]);
        let enrolment = forum.enrols("KAZ", quorum);
        assert!(forum.last_statement().waits());
        assert!(forum.told_of_last().is_empty(), "in nobody's feed stands what waits");
        let officers: Vec<String> = (2..=quorum).map(|number| format!("officer-{number}")).collect();
        for officer in &officers {
            assert!(!forum.is_enrolled("KAZ"));
            let twice = forum.says("officer", StatementContent::Approve(enrolment), quorum);
            assert_eq!(reason(twice), Err(Reason::ApprovalRepeated));
            forum.says(officer, StatementContent::Approve(enrolment), quorum).unwrap();
        }
        assert!(forum.is_enrolled("KAZ"));
        assert_eq!(forum.told_of_last(), [t("IRN"), t("KAZ"), t("SEC")]);
        let signed = &forum.ledger.registry().enrolment(&t("KAZ")).unwrap().signed_by;
        let signed: Vec<&str> = signed.iter().map(|officer| officer.as_str()).collect();
        assert_eq!(signed[0], "officer");
        assert_eq!(signed[1..], officers.iter().map(String::as_str).collect::<Vec<_>>());
        // What is over can be signed no more.
        let late = forum.says("officer-9", StatementContent::Approve(enrolment), quorum);
        assert_eq!(reason(late), Err(Reason::ApprovalUnknown));
        crate::snapshots::check_at_every_fact(&forum.facts);
    }
}

#[test]
fn one_rejection_ends_it_and_it_may_be_said_anew() {
    let mut forum = Forum::founded(["KAZ"]);
    let enrolment = forum.enrols("KAZ", TWO);
    let again = forum.says("officer-2", StatementContent::Enrol(join_request("KAZ")), TWO);
    assert_eq!(reason(again), Err(Reason::ApprovalExists));
    forum.says("officer-2", StatementContent::Reject(enrolment), TWO).unwrap();
    let late = forum.says("officer-3", StatementContent::Approve(enrolment), TWO);
    assert_eq!(reason(late), Err(Reason::ApprovalUnknown));
    assert_eq!(reason(forum.says("officer-2", StatementContent::Reject(enrolment), TWO)), Err(Reason::ApprovalUnknown));
    let anew = forum.enrols("KAZ", TWO);
    forum.says("officer-2", StatementContent::Approve(anew), TWO).unwrap();
    assert!(forum.is_enrolled("KAZ"));
}

#[test]
fn what_nobody_signs_for_thirty_days_is_over() {
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    let enrolment = forum.enrols("KAZ", TWO);
    let since = forum.ledger.last_recorded_at().as_micros();
    let after = |lasts: Duration| Timestamp::from_micros(since + lasts.as_micros() as i64);
    let approval = forum.by("SEC", "officer-2", StatementContent::Approve(enrolment));
    let mut at = forum.at();
    let mut decided = |now: Timestamp| {
        at.now = now;
        let decision = forum.ledger.decide(&Command::Statement(approval.clone(), Quorum::new(TWO).unwrap()), at);
        match decision.unwrap() {
            Decision::Fact { refusal, .. } => refusal.map(|refusal| refusal.reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(decided(after(APPROVAL_LASTS - Duration::from_micros(1))), None);
    assert_eq!(decided(after(APPROVAL_LASTS)), Some(Reason::ApprovalUnknown));
}

#[test]
fn only_so_many_wait_and_none_for_a_state_or_an_officer_of_one() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let request = |number: usize| JoinRequest { node: t(&format!("node-{number}")), ..join_request("TUR") };
    let mut forum_of_three = Forum::founded(["TUR"]);
    for number in 0..APPROVALS_WAITING_MAX {
        forum_of_three.says("officer", StatementContent::Enrol(request(number)), TWO).unwrap();
    }
    let more = forum_of_three.says("officer", StatementContent::Enrol(request(1000)), TWO);
    assert_eq!(reason(more), Err(Reason::QueueFull));

    let hold = |participant| StatementContent::Hold { participant, reason: Title::parse("it floods").unwrap() };
    // One officer holds; a state's own hold and its release are its own matter.
    let by_secretariat = forum.says("officer", hold(t("KAZ")), TWO).unwrap();
    assert!(forum.ledger.registry().holds().is_held(&t("KAZ")));
    let own = forum.by("KAZ", "officer", hold(t("KAZ")));
    let (own_digest, two) = (own.digest, Quorum::new(TWO).unwrap());
    forum.run(&Command::Statement(own, two)).unwrap();
    let release = forum.by("KAZ", "officer", StatementContent::Release(own_digest));
    forum.run(&Command::Statement(release, two)).unwrap();
    assert_eq!(forum.ledger.registry().holds().iter().count(), 1);
    // The secretariat's release takes two.
    let release = forum.says("officer", StatementContent::Release(by_secretariat), TWO).unwrap();
    assert!(forum.ledger.registry().holds().is_held(&t("KAZ")));
    let foreign = forum.by("KAZ", "officer", StatementContent::Approve(release));
    match forum.run(&Command::Statement(foreign, two)).unwrap() {
        Decision::Fact { refusal: Some(refusal), .. } => assert_eq!(refusal.reason, Reason::CallerNotAllowed),
        other => panic!("{other:?}"),
    }
    forum.says("officer-2", StatementContent::Approve(release), TWO).unwrap();
    assert!(!forum.ledger.registry().holds().is_held(&t("KAZ")));
}

#[test]
fn a_replacement_closes_the_epoch_with_its_last_signature_where_the_chains_stand_then() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.agree("KAZ/floods", &["IRN", "KAZ"]);
    let request = JoinRequest { participant: t("KAZ"), ..join_request("ABC") };
    let replacement = Replacement { request: request.clone(), reference: Title::parse("note 17").unwrap() };
    let waiting = forum.says("officer", StatementContent::Replace(replacement), TWO).unwrap();
    assert_eq!((forum.ledger.epochs().current(&t("KAZ")), forum.last_statement().closes.as_ref()), (1, None));
    let header = forum.header("KAZ", &agreement);
    forum.send("KAZ", vec![header]).unwrap();
    forum.says("officer-2", StatementContent::Approve(waiting), TWO).unwrap();
    assert_eq!(forum.ledger.epochs().current(&t("KAZ")), 2);
    let closes = forum.last_statement().closes.as_ref().unwrap();
    assert_eq!(closes.tip(Lane::Routine).number, 1, "what was recorded while it waited counts");
    assert_eq!(forum.ledger.registry().enrolment(&t("KAZ")).unwrap().signing_key, request.signing_key);
    crate::snapshots::check_at_every_fact(&forum.facts);
}

#[test]
fn what_was_true_when_it_was_said_is_judged_again_with_the_last_signature() {
    let mut forum = Forum::founded(["KAZ"]);
    let swapped = JoinRequest { signing_key: public_key("IRN"), ..join_request("KAZ") };
    let (first, other) = (forum.enrols("KAZ", TWO), forum.says("officer", StatementContent::Enrol(swapped), TWO));
    let other = other.unwrap();
    forum.says("officer-2", StatementContent::Approve(first), TWO).unwrap();
    let late = forum.says("officer-2", StatementContent::Approve(other), TWO);
    assert_eq!(reason(late), Err(Reason::ParticipantAlreadyEnrolled));
    let key = &forum.ledger.registry().enrolment(&t("KAZ")).unwrap().signing_key;
    assert_eq!(*key, join_request("KAZ").signing_key);
    // What only says again what holds needs nobody.
    forum.enrols("KAZ", TWO);
    assert!(!forum.last_statement().waits());
}

/// An enrolment that took effect with two signatures, as nodes were told of it.
fn took_effect() -> (Statement, Statement) {
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    let enrolment = forum.by("SEC", "officer", StatementContent::Enrol(join_request("KAZ")));
    let approval = forum.by("SEC", "officer-2", StatementContent::Approve(enrolment.digest));
    (enrolment, Statement { digest: digest("an approval"), ..approval })
}

#[test]
fn what_took_effect_does_so_again_at_a_hub_that_lost_it_whatever_that_knows_of_it() {
    let (enrolment, approval) = took_effect();
    let two = Quorum::new(TWO).unwrap();
    let before: [&dyn Fn(&mut Forum); 3] = [
        &|_| {},
        // The copy is of before the second signature.
        &|forum| drop(forum.run(&Command::Statement(enrolment.clone(), two)).unwrap()),
        // And officers who do not know that it took effect ended it.
        &|forum| {
            forum.run(&Command::Statement(enrolment.clone(), two)).unwrap();
            forum.says("officer-3", StatementContent::Reject(enrolment.digest), TWO).unwrap();
        },
    ];
    for prepare in before {
        let mut forum = Forum::founded(["KAZ", "IRN"]);
        prepare(&mut forum);
        forum.hands_back(&enrolment, std::slice::from_ref(&approval), TWO).unwrap();
        let signed = &forum.ledger.registry().enrolment(&t("KAZ")).unwrap().signed_by;
        assert_eq!(*signed, [t("officer"), t("officer-2")]);
        assert_eq!(forum.ledger.approvals().iter().count(), 0);
        // Its number is known: nothing else is said under it.
        assert_eq!(forum.ledger.signers().last(&t("SEC"), &t("officer-2")).map(|last| last.number), Some(1));
        // Once more is nothing new.
        assert_eq!(forum.hands_back(&enrolment, std::slice::from_ref(&approval), TWO), Ok(Decision::Nothing));
    }
}

#[test]
fn no_nodes_hand_brings_in_what_has_too_few_signatures() {
    let (enrolment, approval) = took_effect();
    let forged = [
        Vec::new(),
        vec![Statement { officer: t("officer"), ..approval.clone() }],
        vec![Statement { content: StatementContent::Approve(digest("another")), ..approval.clone() }],
        vec![Statement { participant: t("IRN"), ..approval.clone() }],
    ];
    for approvals in forged {
        let mut forum = Forum::founded(["KAZ", "IRN"]);
        // Refused whole, or it waits.
        let _ = forum.hands_back(&enrolment, &approvals, TWO);
        assert!(!forum.is_enrolled("KAZ"), "{approvals:?}");
    }
    // With one of three it waits for the third here.
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    forum.hands_back(&enrolment, std::slice::from_ref(&approval), 3).unwrap();
    assert!(!forum.is_enrolled("KAZ"));
    assert_eq!(forum.ledger.approvals().get(&enrolment.digest).map(|waiting| waiting.missing()), Some(1));
    forum.says("officer-3", StatementContent::Approve(enrolment.digest), 3).unwrap();
    assert!(forum.is_enrolled("KAZ"));
    // By itself an approval is nothing.
    assert_eq!(forum.hands_back(&approval, &[], TWO), Ok(Decision::Nothing));
}

#[test]
fn an_officer_whose_number_was_used_again_has_signed_all_the_same() {
    let (enrolment, approval) = took_effect();
    let mut forum = Forum::founded(["KAZ", "IRN"]);
    let hold = StatementContent::Hold { participant: t("IRN"), reason: Title::parse("it floods").unwrap() };
    forum.says("officer-2", hold, TWO).unwrap();
    forum.hands_back(&enrolment, &[approval], TWO).unwrap();
    assert!(forum.is_enrolled("KAZ"));
}

#[test]
fn no_number_under_which_an_approval_came_back_silences_its_officer() {
    let (enrolment, approval) = took_effect();
    for number in [u64::MAX, 0] {
        let mut forum = Forum::founded(["KAZ", "IRN"]);
        let approval = Statement { number, ..approval.clone() };
        forum.hands_back(&enrolment, &[approval], TWO).unwrap();
        assert!(forum.is_enrolled("KAZ"), "its signature holds all the same");
        assert_eq!(
            forum.ledger.signers().last(&t("SEC"), &t("officer-2")),
            None,
            "{number} is no number to go on from"
        );
        let hold = StatementContent::Hold { participant: t("IRN"), reason: Title::parse("it floods").unwrap() };
        forum.says("officer-2", hold, TWO).unwrap();
    }
}

#[test]
fn what_waits_for_more_than_are_asked_for_now_takes_effect_with_as_many_as_it_waits_for() {
    let (enrolment, approval) = took_effect();
    let three = Quorum::new(3).unwrap();
    for is_ended in [false, true] {
        let mut forum = Forum::founded(["KAZ", "IRN"]);
        forum.run(&Command::Statement(enrolment.clone(), three)).unwrap();
        if is_ended {
            forum.says("officer-3", StatementContent::Reject(enrolment.digest), 3).unwrap();
        }
        for quorum in [1, TWO] {
            let _ = forum.hands_back(&enrolment, std::slice::from_ref(&approval), quorum);
            assert!(!forum.is_enrolled("KAZ"), "two signed what was said under three");
        }
        let third = Statement { officer: t("officer-3"), digest: digest("a third"), ..approval.clone() };
        forum.hands_back(&enrolment, &[approval.clone(), third], 1).unwrap();
        assert!(forum.is_enrolled("KAZ"));
    }
}

#[test]
fn only_so_many_wait_of_those_that_come_back_and_the_rest_is_heard_again() {
    let mut forum = Forum::founded(["TUR", "IRN"]);
    let enrolment = forum.by("SEC", "officer", StatementContent::Enrol(join_request("TUR")));
    let numbered = |number: usize| {
        let request = JoinRequest { node: t(&format!("node-{number}")), ..join_request("TUR") };
        let digest = digest(&format!("enrolment {number}"));
        Statement { number: number as u64, digest, content: StatementContent::Enrol(request), ..enrolment.clone() }
    };
    for number in 1..=APPROVALS_WAITING_MAX {
        let decided = forum.hands_back(&numbered(number), &[], TWO).unwrap();
        assert!(matches!(decided, Decision::Fact { refusal: None, .. }), "{decided:?}");
    }
    let one_more = numbered(APPROVALS_WAITING_MAX + 1);
    let refused = |forum: &mut Forum| match forum.hands_back(&one_more, &[], TWO).unwrap() {
        Decision::Fact { refusal, .. } => refusal.map(|refusal| refusal.reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut forum), Some(Reason::QueueFull));
    assert_eq!(forum.ledger.approvals().iter().count(), APPROVALS_WAITING_MAX);
    forum.says("officer-2", StatementContent::Reject(numbered(1).digest), TWO).unwrap();
    assert_eq!(refused(&mut forum), None);
    assert!(forum.ledger.approvals().get(&one_more.digest).is_some());
    crate::snapshots::check_at_every_fact(&forum.facts);
}

#[test]
fn what_named_keys_that_waited_for_signatures_counts_when_it_is_handed_back_again() {
    let mut before = Forum::of(["KAZ", "IRN"]);
    let text = before.text("KAZ/floods", &["IRN", "KAZ"]);
    let agreement = before.propose_text("KAZ", text).unwrap();
    let proposal = before.last_statement().statement.clone();

    let mut forum = Forum::founded(["KAZ", "IRN"]);
    forum.enrol("KAZ").unwrap();
    let enrolment = forum.enrols("IRN", TWO);
    let own = |forum: &mut Forum| {
        let handed = Handed {
            statement: proposal.clone(),
            by: t("KAZ"),
            was_told: true,
            refused: None,
            closes: None,
            approvals: Vec::new(),
            quorum: Quorum::new(TWO).unwrap(),
        };
        match forum.run(&Command::HandBack(handed)).unwrap() {
            Decision::Fact { refusal, .. } => refusal.map(|refusal| refusal.reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(own(&mut forum), Some(Reason::ParticipantNotEnrolled));
    forum.says("officer-2", StatementContent::Approve(enrolment), TWO).unwrap();
    assert_eq!(own(&mut forum), None);
    assert!(forum.ledger.agreements().version(&agreement).is_some());
}
