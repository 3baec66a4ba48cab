//! What one's own node hands back to a hub about coming back and joining: never more than the hub would let it do now.

use concord_ledger::{AgreementState, Command, Decision, PartyState, Statement, StatementContent};
use concord_model::{AgreementRef, AgreementText, InForceAmong, Reason, Timestamp};

use crate::forum::{Forum, digest, t};
use crate::healing::{hand, pretend};

const ID: &str = "KAZ/floods";
const ALL: [&str; 4] = ["IRN", "KAZ", "TUR", "UZB"];

/// TUR has left; its return.
fn left(forum: &mut Forum, agreed: &AgreementRef) -> StatementContent {
    forum.say("TUR", StatementContent::Leave(agreed.clone())).unwrap();
    StatementContent::Return(agreed.clone(), forum.last_statement().statement.digest)
}

fn refused(decided: Result<Decision, Reason>) -> Option<Reason> {
    match decided {
        Ok(Decision::Fact { refusal, .. }) => refusal.map(|refusal| refusal.reason),
        other => panic!("{other:?}"),
    }
}

fn amendment(forum: &mut Forum, agreed: &AgreementRef) -> AgreementRef {
    let text = AgreementText { amends: Some(agreed.clone()), ..forum.text(ID, &["IRN", "KAZ", "UZB"]) };
    forum.propose_text("KAZ", text).unwrap()
}

fn is_member(forum: &Forum, who: &str) -> bool {
    forum.ledger.agreements().is_member(&t(ID), &t(who))
}

#[test]
fn nobody_comes_back_by_its_own_word_where_this_hub_would_not_let_it() {
    let agree = || {
        let mut forum = Forum::of(ALL);
        let agreed = forum.agree(ID, &ALL);
        let back = left(&mut forum, &agreed);
        (forum, agreed, back)
    };
    // An amendment without it waits: who goes by that was settled when it was proposed.
    let (mut forum, agreed, back) = agree();
    forum.say("IRN", StatementContent::End(agreed.clone())).unwrap();
    let second = amendment(&mut forum, &agreed);
    assert_eq!(refused(pretend(&mut forum, "TUR", back.clone())), Some(Reason::AgreementNotInForce));
    assert!(!is_member(&forum, "TUR"));
    // Nor when that is in force.
    forum.consent("IRN", &second).unwrap();
    forum.consent("UZB", &second).unwrap();
    let statement = forum.statement("TUR", back);
    assert_eq!(refused(hand(&mut forum, "TUR", &statement, None)), Some(Reason::AgreementNotInForce));
    let version = forum.ledger.agreements().version(&agreed).unwrap();
    assert_eq!(version.party_state(&t("TUR")), Some(PartyState::Left));
    // By the word of another it came back once; of what is over it hears nothing that was said since.
    assert_eq!(refused(hand(&mut forum, "IRN", &statement, None)), None);
    assert_eq!(forum.last_statement().missed, [] as [u64; 0]);
    assert!(!is_member(&forum, "TUR"));
    // By a leave that it never said.
    let (mut forum, agreed, back) = agree();
    let made_up = StatementContent::Return(agreed, digest("no leave"));
    assert_eq!(refused(pretend(&mut forum, "TUR", made_up)), Some(Reason::AgreementNotInForce));
    // What the hub would let it say it may hand back.
    assert_eq!(refused(pretend(&mut forum, "TUR", back)), None);
    assert!(is_member(&forum, "TUR"));
}

#[test]
fn by_its_own_word_nobody_comes_back_to_what_is_over() {
    let mut forum = Forum::of(ALL);
    let until = Timestamp::from_micros(forum.at().now.as_micros() + 60_000_000);
    let text = AgreementText { valid_until: Some(until), ..forum.text(ID, &ALL) };
    let agreed = forum.propose_text("KAZ", text).unwrap();
    for who in ["IRN", "TUR", "UZB"] {
        forum.consent(who, &agreed).unwrap();
    }
    let back = left(&mut forum, &agreed);
    // Its time is over, and the fact is still to come; then it is there.
    while forum.at().now < until {
        forum.say("KAZ", StatementContent::Consent(agreed.clone())).unwrap();
    }
    assert_eq!(refused(pretend(&mut forum, "TUR", back.clone())), Some(Reason::AgreementNotInForce));
    forum.run(&Command::Lapse(agreed)).unwrap();
    assert_eq!(refused(pretend(&mut forum, "TUR", back)), Some(Reason::AgreementNotInForce));
}

#[test]
fn what_another_was_told_counts_though_the_own_node_s_word_did_not() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    let back = left(&mut forum, &agreed);
    amendment(&mut forum, &agreed);
    let statement = forum.statement("TUR", back);
    assert!(refused(hand(&mut forum, "TUR", &statement, None)).is_some());
    assert_eq!(refused(hand(&mut forum, "IRN", &statement, None)), None);
    assert!(is_member(&forum, "TUR"));
}

/// Two together can make up leaves and returns; no more of them than a hub accepts.
#[test]
fn whoever_hands_it_back_nobody_comes_back_more_often_than_a_hub_accepts() {
    let mut forum = Forum::of(ALL);
    let agreed = forum.agree(ID, &ALL);
    let mut accepted = 0;
    for number in 0..20 {
        let made_up = StatementContent::Return(agreed.clone(), digest(&format!("leave {number}")));
        let statement = forum.statement("TUR", made_up);
        accepted += usize::from(refused(hand(&mut forum, "IRN", &statement, None)).is_none());
    }
    assert_eq!(accepted, concord_ledger::agreement::RETURNS_MAX);
    let version = forum.ledger.agreements().version(&agreed).unwrap();
    assert_eq!(version.parties[&t("TUR")].earlier.len(), accepted);
}

fn among_each(forum: &mut Forum) -> AgreementRef {
    let text = AgreementText { in_force: InForceAmong::Each, ..forum.text(ID, &ALL) };
    forum.propose_text("KAZ", text).unwrap()
}

#[test]
fn nobody_joins_by_its_own_word_what_is_about_to_be_amended_without_it() {
    let mut forum = Forum::of(ALL);
    let agreed = among_each(&mut forum);
    forum.consent("IRN", &agreed).unwrap();
    let text = AgreementText { amends: Some(agreed.clone()), ..forum.text(ID, &["IRN", "KAZ", "UZB"]) };
    forum.propose_text("KAZ", text).unwrap();
    let consent = StatementContent::Consent(agreed.clone());
    assert_eq!(refused(pretend(&mut forum, "TUR", consent)), Some(Reason::AgreementNotPending));
    assert!(!is_member(&forum, "TUR"));
    let waits = forum.latest(ID);
    forum.decline("IRN", &waits).unwrap();
    assert_eq!(refused(pretend(&mut forum, "TUR", StatementContent::Consent(agreed))), None);
    assert!(is_member(&forum, "TUR"));
}

#[test]
fn a_leave_of_one_who_never_consented_ends_nothing_for_the_others() {
    let mut forum = Forum::of(ALL);
    let agreed = among_each(&mut forum);
    assert_eq!(refused(pretend(&mut forum, "TUR", StatementContent::Leave(agreed.clone()))), None);
    let state = |forum: &Forum| forum.ledger.agreements().version(&agreed).unwrap().state;
    assert_eq!(state(&forum), AgreementState::Proposed);
    forum.consent("IRN", &agreed).unwrap();
    assert_eq!(state(&forum), AgreementState::InForce);
    assert!(!is_member(&forum, "TUR"), "the leave is not forgotten");
    // Its consent comes back after its leave: it was a member, and is out.
    let consent: Statement = forum.statement("TUR", StatementContent::Consent(agreed.clone()));
    assert_eq!(refused(hand(&mut forum, "IRN", &consent, None)), None);
    assert!(!is_member(&forum, "TUR") && is_member(&forum, "IRN"));
}
