use concord_ledger::{Command, Decision, JoinRequest, Quorum, Statement, StatementContent};
use concord_model::Reason;

use crate::forum::{Forum, digest, join_request, public_key, reason, t};

const ID: &str = "KAZ/floods";

#[test]
fn a_statement_that_is_not_its_officers_next_records_nothing() {
    let check = |change: &dyn Fn(&mut Statement), expected: Reason| {
        let mut forum = Forum::of(["KAZ", "IRN"]);
        forum.propose(ID, &["IRN", "KAZ"]).unwrap();
        let left = forum.latest(ID);
        let mut statement = forum.statement("KAZ", StatementContent::Leave(left));
        change(&mut statement);
        let before = forum.ledger.clone();
        assert_eq!(reason(forum.run(&Command::Statement(statement, Quorum::ONE))), Err(expected));
        assert_eq!(forum.ledger, before);
    };
    check(&|said| said.hub = t("other"), Reason::StatementMalformed);
    check(&|said| said.participant = t("CHN"), Reason::ParticipantNotEnrolled);
    check(&|said| said.number = 3, Reason::StatementOutOfOrder);
    check(&|said| said.number = 0, Reason::StatementOutOfOrder);
    check(&|said| said.number = u64::MAX, Reason::StatementOutOfOrder);
    check(&|said| said.number = 1, Reason::StatementFork);
    check(&|said| (said.officer, said.number) = (t("second"), 2), Reason::StatementOutOfOrder);
}

#[test]
fn a_statement_given_again_hears_the_same_answer() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    let agreement = forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let accepted = forum.statement("IRN", StatementContent::Consent(agreement.clone()));
    let first = forum.run(&Command::Statement(accepted.clone(), Quorum::ONE));
    assert!(matches!(first, Ok(Decision::Fact { refusal: None, .. })));
    let sequence = forum.ledger.sequence();
    let again = forum.run(&Command::Statement(accepted, Quorum::ONE));
    let refusal = None;
    assert_eq!(again, Ok(Decision::Repeat { sequence, refusal }));

    let refused = forum.statement("IRN", StatementContent::Decline(agreement, None));
    forum.run(&Command::Statement(refused.clone(), Quorum::ONE)).unwrap();
    let at = forum.ledger.sequence();
    match forum.run(&Command::Statement(refused, Quorum::ONE)) {
        Ok(Decision::Repeat { sequence, refusal: Some(refusal) }) => {
            assert_eq!((sequence, refusal.reason), (at, Reason::AgreementNotPending))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(forum.ledger.sequence(), at);
}

#[test]
fn a_refused_statement_uses_its_number_up_and_tells_only_its_own_participant() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let agreement = forum.agree(ID, &["IRN", "KAZ"]);
    let before = forum.ledger.clone();
    let statement = forum.statement("TUR", StatementContent::Consent(agreement));
    let number = statement.number;
    let decision = forum.run(&Command::Statement(statement, Quorum::ONE)).unwrap();
    let Decision::Fact { refusal: Some(refusal), .. } = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(refusal.reason, Reason::AgreementUnknown);
    assert!(!refusal.message.is_empty(), "the officer who waits hears words");
    let decided = forum.last_statement();
    assert_eq!(decided.refused, Some(Reason::AgreementUnknown));
    assert_eq!(decided.told.len(), 1);
    assert_eq!(decided.told[0].participant, t("TUR"));
    assert_eq!(decided.told[0].number, before.feed_last(&t("TUR")) + 1);
    let last = forum.ledger.signers().last(&t("TUR"), &t("officer")).unwrap();
    assert_eq!(last.number, number);
    // Nothing else moved.
    assert_eq!(forum.ledger.agreements(), before.agreements());
    assert_eq!(forum.ledger.registry(), before.registry());
    assert_eq!(forum.ledger.feed_last(&t("KAZ")), before.feed_last(&t("KAZ")));
}

#[test]
fn a_stranger_s_agreement_reaches_the_feeds_of_its_parties_only() {
    let mut forum = Forum::of(["KAZ", "IRN", "TUR"]);
    let before = forum.ledger.clone();
    forum.agree(ID, &["IRN", "KAZ"]);
    forum.leave("IRN", ID).unwrap();
    for outside in ["TUR", "SEC"] {
        assert_eq!(forum.ledger.feed_last(&t(outside)), before.feed_last(&t(outside)));
    }
    // KAZ: proposal, its own consent again, IRN's consent, IRN's leave. IRN: all but KAZ's repeat.
    assert_eq!(forum.ledger.feed_last(&t("KAZ")), before.feed_last(&t("KAZ")) + 4);
    assert_eq!(forum.ledger.feed_last(&t("IRN")), before.feed_last(&t("IRN")) + 3);
}

#[test]
fn each_officer_counts_for_itself() {
    let mut forum = Forum::of(["KAZ", "IRN"]);
    forum.propose(ID, &["IRN", "KAZ"]).unwrap();
    let left = forum.latest(ID);
    let mut statement = forum.statement("KAZ", StatementContent::Leave(left));
    statement.officer = t("second");
    statement.number = 1;
    statement.digest = digest("of the second");
    let decided = forum.run(&Command::Statement(statement, Quorum::ONE));
    assert!(matches!(decided, Ok(Decision::Fact { refusal: Some(_), .. })));
}

#[test]
fn the_secretariat_is_a_party_only_where_it_is_named() {
    let mut forum = Forum::of(["KAZ"]);
    let node = JoinRequest { signing_key: public_key("papers"), ..join_request("SEC") };
    let mut text = forum.text("SEC/papers", &["KAZ", "SEC"]);
    text.parties[1].signing_key = node.signing_key.fingerprint;
    forum.say("SEC", StatementContent::Enrol(node)).unwrap();
    let agreement = forum.propose_text("SEC", text).unwrap();
    forum.consent("KAZ", &agreement).unwrap();
    let header = forum.header("KAZ", &agreement);
    assert_eq!(forum.audience(header), Ok(vec!["SEC".to_owned()]));
}
