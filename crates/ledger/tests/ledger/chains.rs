use concord_ledger::{Candidate, Command, Consign, Decision};
use concord_model::limits::{CONSIGNMENT_EXCHANGES_MAX, RECEIPTS_KEPT_PER_CHAIN};
use concord_model::{AgreementRef, ConsignmentDigest, Fingerprint, Lane, Reason, Refusal};

use crate::forum::{Forum, chain, digest, reason, t};

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

#[test]
fn a_consignment_that_is_not_its_chains_next_is_refused_whole_and_records_nothing() {
    let check = |change: &dyn Fn(&mut Consign), expected: Reason| {
        let (mut forum, agreement) = forum();
        let first = next(&mut forum, &agreement);
        forum.consigned(first).unwrap();
        let mut consign = next(&mut forum, &agreement);
        change(&mut consign);
        let before = forum.ledger.clone();
        let heard = forum.run(&Command::Consign(consign));
        assert_eq!(reason(heard), Err(expected));
        assert_eq!(forum.ledger, before);
    };
    check(&|consign| consign.chain.hub = t("other"), Reason::ChainMismatch);
    check(&|consign| consign.chain.epoch = 2, Reason::ChainMismatch);
    check(&|consign| consign.chain.epoch = 0, Reason::ChainMismatch);
    check(&|consign| consign.chain.node = t("second"), Reason::ChainMismatch);
    check(&|consign| consign.chain.origin = t("IRN"), Reason::SigningKeyUnknown);
    check(&|consign| consign.chain.origin = t("CHN"), Reason::SigningKeyUnknown);
    check(&|consign| consign.key = Fingerprint(digest("another")), Reason::SigningKeyUnknown);
    check(&|consign| consign.number = 3, Reason::NumberOutOfOrder);
    check(&|consign| consign.number = 0, Reason::NumberOutOfOrder);
    check(&|consign| consign.number = u64::MAX, Reason::NumberOutOfOrder);
    check(&|consign| consign.number = 1, Reason::Fork);
    check(&|consign| consign.previous = ConsignmentDigest(digest("another")), Reason::PreviousMismatch);
    check(&|consign| consign.exchanges.clear(), Reason::ConsignmentMalformed);
    check(
        &|consign| {
            let unfit = Candidate::Unfit(Refusal::new(Reason::BodyEmpty, ""));
            consign.exchanges = vec![unfit; CONSIGNMENT_EXCHANGES_MAX + 1];
        },
        Reason::ConsignmentMalformed,
    );
}

#[test]
fn the_first_of_a_chain_follows_nothing() {
    let (mut forum, agreement) = forum();
    let mut consign = next(&mut forum, &agreement);
    consign.previous = ConsignmentDigest(digest("something"));
    assert_eq!(reason(forum.run(&Command::Consign(consign))), Err(Reason::PreviousMismatch));
}

#[test]
fn the_last_receipts_are_repeated_and_older_ones_are_known_as_recorded() {
    let (mut forum, agreement) = forum();
    let mut sent = Vec::new();
    for _ in 0..RECEIPTS_KEPT_PER_CHAIN + 2 {
        let consign = next(&mut forum, &agreement);
        forum.consigned(consign.clone()).unwrap();
        sent.push((consign, forum.ledger.sequence()));
    }
    let before = forum.ledger.clone();
    for (index, (consign, sequence)) in sent.into_iter().enumerate() {
        let mut fork = consign.clone();
        fork.digest = ConsignmentDigest(digest("another"));
        let again = forum.run(&Command::Consign(consign));
        let forked = reason(forum.run(&Command::Consign(fork)));
        if index < 2 {
            assert_eq!(reason(again), Err(Reason::AlreadyRecorded));
            assert_eq!(forked, Err(Reason::AlreadyRecorded));
        } else {
            let refusal = None;
            assert_eq!(again, Ok(Decision::Repeat { sequence, refusal }));
            assert_eq!(forked, Err(Reason::Fork));
        }
    }
    assert_eq!(forum.ledger, before);
}

#[test]
fn each_lane_is_a_chain_of_its_own() {
    let (mut forum, agreement) = forum();
    for lane in Lane::ALL {
        let mut header = forum.header("KAZ", &agreement);
        header.lane = lane;
        let item = forum.item(header);
        let consign = forum.consign("KAZ", lane, vec![item]);
        assert_eq!(consign.number, 1);
        forum.consigned(consign).unwrap();
        assert_eq!(forum.ledger.chain_last(&chain("KAZ", lane)), 1);
        assert_eq!(forum.ledger.mailbox(&t("IRN"), lane).last, 1);
    }
}
