//! Receipts and acknowledgements: one word each, signed, read exactly.

use std::collections::BTreeSet;

use bytes::Bytes;
use concord_journal::{Digest as JournalDigest, HistoryId};
use concord_ledger::{AudienceGroup, ConsignmentRecorded, IndexRange, ItemRefusal};
use concord_model::{
    AgreementRef, AsideEnd, ChainKey, ConsignmentDigest, Lane, ParticipantCode, Reason, SetAsideReason,
};
use concord_wire::acknowledgement::{self, ACKNOWLEDGEMENT_NUMBERS_MAX, Said};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::receipt::{self, Outcome};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use prost::Message as _;

use crate::fixtures::{
    HISTORY, NOW, agreement_ref, any_agreement_ref, any_code, any_digest, any_lane, any_name, any_time, code,
    exchanges, key, name, other_agreement_ref, recorded, sealed,
};
use crate::seals::flipped;

pub(crate) fn receipt_of(number: u64) -> pb::RecordedReceipt {
    let (sec, fact) = (key("SEC"), recorded(&sealed(number, &exchanges(4))));
    let entry = JournalDigest([0xed; 32]);
    receipt::receipt(HistoryId(HISTORY), entry, NOW, &fact, sec.fingerprint(), |message| sec.sign(message))
}

pub(crate) fn said() -> Said {
    Said {
        hub: name("main"),
        history: HistoryId(HISTORY),
        recipient: code("KGZ"),
        node: name("main"),
        lane: Lane::Priority,
        delivered_through: 300,
        set_aside: vec![(290, SetAsideReason::SignatureInvalid), (299, SetAsideReason::Duplicate)],
        withheld: vec![291, 300],
        taken_before: 12,
        taken: vec![280, 7],
        ended: Vec::new(),
    }
}

pub(crate) fn acknowledgement_of(said: &Said) -> pb::Acknowledgement {
    let kgz = key("KGZ");
    acknowledgement::sign(said, kgz.fingerprint(), |message| kgz.sign(message))
}

fn verify_receipt(receipt: &pb::RecordedReceipt) -> Result<receipt::Recorded, Reason> {
    let sec = key("SEC");
    receipt::verify(receipt, |named, message, signature| sec.verify(named, message, signature)).map_err(|r| r.reason)
}

fn verify_acknowledgement(message: &pb::Acknowledgement) -> Result<Said, Reason> {
    let kgz = key("KGZ");
    let verify = |named: &_, signed: &[u8], signature: &[u8]| kgz.verify(named, signed, signature);
    acknowledgement::verify(message, verify).map_err(|refusal| refusal.reason)
}

#[test]
fn a_receipt_tells_each_exchange_its_outcome_in_order() {
    let both = vec![code("KGZ"), code("UZB")];
    let read = verify_receipt(&receipt_of(7)).unwrap();
    assert_eq!(
        read.outcomes,
        [
            Outcome::Recorded { agreement: agreement_ref(), audience: both.clone() },
            Outcome::Refused(Reason::AudienceEmpty),
            Outcome::Recorded { agreement: other_agreement_ref(), audience: vec![code("KGZ")] },
            Outcome::Recorded { agreement: agreement_ref(), audience: both },
        ]
    );
    assert_eq!(
        (read.history, read.entry_digest, read.recorded_at),
        (HistoryId(HISTORY), JournalDigest([0xed; 32]), NOW)
    );
}

#[test]
fn a_repeated_receipt_has_the_same_words() {
    assert_eq!(receipt_of(7), receipt_of(7));
    assert_ne!(receipt_of(7), receipt_of(8));
}

#[test]
fn any_flipped_bit_of_a_receipt_is_found() {
    let good = receipt_of(7);
    for index in 0..good.statement.len() {
        let statement = flipped(&good.statement, index);
        assert_eq!(verify_receipt(&pb::RecordedReceipt { statement, ..good.clone() }), Err(Reason::SignatureInvalid));
    }
    for index in 0..good.signature.len() {
        let signature = flipped(&good.signature, index);
        assert_eq!(verify_receipt(&pb::RecordedReceipt { signature, ..good.clone() }), Err(Reason::SignatureInvalid));
    }
    let another = pb::RecordedReceipt { key_id: flipped(&good.key_id, 0), ..good.clone() };
    assert_eq!(verify_receipt(&another), Err(Reason::SigningKeyUnknown));
    let short = pb::RecordedReceipt { key_id: good.key_id.slice(1..), ..good };
    assert_eq!(verify_receipt(&short), Err(Reason::SignatureInvalid));
}

#[test]
fn a_reason_of_a_newer_hub_is_still_a_refusal() {
    let mut statement = pb::RecordedStatement::decode(receipt_of(7).statement).unwrap();
    statement.outcomes[1].refused = "A_REASON_OF_TOMORROW".into();
    let read = receipt::parse(&statement.encode_to_vec()).unwrap();
    assert_eq!(read.outcomes[1], Outcome::Refused(Reason::Internal));
}

#[test]
fn a_receipt_that_says_something_impossible_is_refused() {
    let check = |change: &dyn Fn(&mut pb::RecordedStatement)| {
        let mut statement = pb::RecordedStatement::decode(receipt_of(7).statement).unwrap();
        change(&mut statement);
        assert_eq!(receipt::parse(&statement.encode_to_vec()).unwrap_err().reason, Reason::ConsignmentMalformed);
    };
    check(&|statement| statement.history.truncate(15));
    check(&|statement| statement.entry_digest.clear());
    check(&|statement| statement.origin = "kaz".into());
    check(&|statement| statement.chain = None);
    check(&|statement| statement.consignment_digest.truncate(31));
    check(&|statement| statement.recorded_at = None);
    check(&|statement| statement.outcomes[0].agreement = None);
    check(&|statement| statement.outcomes[0].audience = vec!["nobody".into()]);
}

#[test]
fn any_flipped_bit_of_an_acknowledgement_is_found() {
    let good = acknowledgement_of(&said());
    for index in 0..good.statement.len() {
        let statement = flipped(&good.statement, index);
        let message = pb::Acknowledgement { statement, ..good.clone() };
        assert_eq!(verify_acknowledgement(&message), Err(Reason::SignatureInvalid));
    }
    let another = pb::Acknowledgement { key_id: flipped(&good.key_id, 0), ..good.clone() };
    assert_eq!(verify_acknowledgement(&another), Err(Reason::SigningKeyUnknown));
    let short = pb::Acknowledgement { key_id: Bytes::new(), ..good };
    assert_eq!(verify_acknowledgement(&short), Err(Reason::CursorInvalid));
}

/// Changes a good acknowledgement and checks that it is taken, or refused with these words.
fn check_acknowledgement(expectation: Result<(), &str>, change: impl FnOnce(&mut pb::AcknowledgementStatement)) {
    let mut message = acknowledgement_of(&said());
    let mut statement = pb::AcknowledgementStatement::decode(message.statement).unwrap();
    change(&mut statement);
    message.statement = statement.encode_to_vec().into();
    match (acknowledgement::verify(&message, |_, _, _| Ok(())), expectation) {
        (Ok(_), Ok(())) => {}
        (Err(refusal), Err(why)) => {
            assert_eq!(refusal.reason, Reason::CursorInvalid, "{statement:?}");
            assert!(refusal.message.contains(why), "{:?} does not say {why:?}", refusal.message);
        }
        (read, expected) => panic!("{read:?} is not {expected:?}: {statement:?}"),
    }
}

fn asides(numbers: impl IntoIterator<Item = u64>) -> Vec<pb::SetAside> {
    numbers.into_iter().map(|number| pb::SetAside { number, reason: "DUPLICATE".into() }).collect()
}

#[test]
fn an_acknowledgement_that_says_something_impossible_is_refused() {
    check_acknowledgement(Ok(()), |_| ());
    check_acknowledgement(Err("name"), |statement| statement.hub.clear());
    check_acknowledgement(Err("names no history"), |statement| statement.history.clear());
    check_acknowledgement(Err("kgz"), |statement| statement.recipient = "kgz".into());
    check_acknowledgement(Err("Main"), |statement| statement.node = "Main".into());
    check_acknowledgement(Err("lane"), |statement| statement.lane = 0);
}

#[test]
fn each_list_of_an_acknowledgement_is_taken_up_to_its_limit() {
    let most = ACKNOWLEDGEMENT_NUMBERS_MAX as u64;
    for (count, expectation) in [(most, Ok(())), (most + 1, Err("lists at most"))] {
        // All are delivered and each list stands alone, so that nothing but its length can be wrong.
        let alone = |statement: &mut pb::AcknowledgementStatement| {
            statement.delivered_through = count;
            (statement.set_aside, statement.withheld, statement.taken) = Default::default();
        };
        check_acknowledgement(expectation, |statement| {
            alone(statement);
            statement.set_aside = asides(1..=count);
        });
        check_acknowledgement(expectation, |statement| {
            alone(statement);
            statement.withheld = (1..=count).collect();
        });
        check_acknowledgement(expectation, |statement| {
            alone(statement);
            statement.taken = (1..=count).collect();
        });
    }
}

#[test]
fn an_acknowledgement_of_a_number_that_was_not_delivered_is_refused() {
    let undelivered = Err("not delivered");
    check_acknowledgement(undelivered, |statement| statement.delivered_through = 299);
    check_acknowledgement(undelivered, |statement| statement.delivered_through = 0);
    for beyond in [301, u64::MAX] {
        check_acknowledgement(undelivered, |statement| statement.set_aside.extend(asides([beyond])));
        check_acknowledgement(undelivered, |statement| statement.withheld.push(beyond));
        check_acknowledgement(undelivered, |statement| statement.taken.push(beyond));
    }
    check_acknowledgement(undelivered, |statement| statement.set_aside.splice(..0, asides([0])).for_each(drop));
    check_acknowledgement(undelivered, |statement| statement.withheld.insert(0, 0));
    check_acknowledgement(undelivered, |statement| statement.taken.push(0));
    check_acknowledgement(Ok(()), |statement| {
        statement.set_aside.splice(..0, asides([1])).for_each(drop);
        statement.withheld.insert(0, 2);
        statement.taken.extend([1, 300]);
    });
}

#[test]
fn set_aside_and_withheld_numbers_that_do_not_ascend_are_refused() {
    let ascend = Err("ascend");
    check_acknowledgement(ascend, |statement| statement.set_aside.reverse());
    check_acknowledgement(ascend, |statement| statement.set_aside = asides([290, 290]));
    check_acknowledgement(ascend, |statement| statement.set_aside = asides([280, 299, 290]));
    check_acknowledgement(ascend, |statement| statement.withheld.reverse());
    check_acknowledgement(ascend, |statement| statement.withheld = vec![291, 291]);
    check_acknowledgement(ascend, |statement| statement.withheld = vec![280, 300, 291]);
}

#[test]
fn a_number_that_is_both_set_aside_and_withheld_is_refused() {
    for both in [290, 299] {
        check_acknowledgement(Err("both"), |statement| statement.withheld = vec![both]);
        check_acknowledgement(Err("both"), |statement| statement.withheld = vec![1, both, 300]);
    }
}

#[test]
fn a_number_is_taken_once_and_in_any_order() {
    check_acknowledgement(Err("taken twice"), |statement| statement.taken = vec![7, 7]);
    check_acknowledgement(Err("taken twice"), |statement| statement.taken = vec![280, 7, 280]);
    check_acknowledgement(Ok(()), |statement| statement.taken = vec![280, 7, 300, 1]);
    check_acknowledgement(Ok(()), |statement| statement.taken = vec![1, 7, 280, 300]);
}

#[test]
fn what_had_been_set_aside_ends_once_and_may_be_taken_behind_that() {
    let ends = |places: &[u32]| -> Vec<pb::EndOfAside> {
        places.iter().map(|place| pb::EndOfAside { place: *place, end: pb::AsideEnd::Holds.into() }).collect()
    };
    let check = |expected, taken: &[u64], places: &[u32]| {
        check_acknowledgement(expected, |statement| {
            statement.taken = taken.to_vec();
            statement.ended = ends(places);
        });
    };
    check(Ok(()), &[290, 290], &[0]);
    check(Ok(()), &[7, 290, 280, 290], &[1]);
    check(Err("taken twice"), &[290, 290], &[0, 1]);
    check(Err("taken twice"), &[290, 290], &[]);
    check(Err("place of the taken that is none"), &[290], &[1]);
    check(Err("ascend"), &[290, 291], &[1, 0]);
    check(Err("ascend"), &[290, 291], &[1, 1]);
    check_acknowledgement(Err("how something ended"), |statement| {
        statement.ended = vec![pb::EndOfAside { place: 0, end: 0 }];
    });
}

#[test]
fn a_reason_of_a_newer_node_is_still_set_aside() {
    let mut message = acknowledgement_of(&said());
    let mut statement = pb::AcknowledgementStatement::decode(message.statement).unwrap();
    statement.set_aside[0].reason = "A_REASON_OF_TOMORROW".into();
    message.statement = statement.encode_to_vec().into();
    let read = acknowledgement::verify(&message, |_, _, _| Ok(())).unwrap();
    assert_eq!(read.set_aside[0], (290, SetAsideReason::SignatureInvalid));
}

prop_compose! {
    /// A consignment in which each exchange is refused or goes to one of some audiences.
    pub(crate) fn any_recorded()(
        (origin, hub, node, lane) in (any_code(), any_name(), any_name(), any_lane()),
        (epoch, number, digest) in (any::<u32>(), any::<u64>(), any_digest()),
        audiences in vec((any_agreement_ref(), btree_set(any_code(), 1..5)), 1..4),
        outcomes in vec((any::<prop::sample::Index>(), prop::option::of(prop::sample::select(Reason::ALL))), 1..30),
    ) -> ConsignmentRecorded {
        let group = |(agreement, recipients): (AgreementRef, BTreeSet<ParticipantCode>)| {
            AudienceGroup { agreement, recipients: recipients.into_iter().collect(), items: Vec::new() }
        };
        let mut groups: Vec<_> = audiences.into_iter().map(group).collect();
        let mut refused = Vec::new();
        for (index, (group, reason)) in (0..).zip(&outcomes) {
            match reason {
                Some(reason) => refused.push(ItemRefusal { index, reason: *reason }),
                None => {
                    let group = group.index(groups.len());
                    IndexRange::push(&mut groups[group].items, index);
                }
            }
        }
        groups.retain(|group| !group.items.is_empty());
        let chain = ChainKey { origin, hub, node, epoch, lane };
        let count = outcomes.len() as u32;
        ConsignmentRecorded { chain, number, digest: ConsignmentDigest(digest), count, groups, refused, mailboxes: vec![], rehanded: false, withdrawals: vec![], withdrawn_before: vec![] }
    }
}

/// Up to 20 numbers of what was delivered, each once, in any order.
fn any_delivered(through: u64) -> impl Strategy<Value = Vec<u64>> {
    // Nothing has the number 0; where nothing was delivered, only it is drawn and nothing remains.
    let numbers = btree_set(0..=through, 0..20);
    numbers.prop_map(|numbers| numbers.into_iter().filter(|number| *number > 0).collect::<Vec<_>>()).prop_shuffle()
}

prop_compose! {
    /// What a node can say: of each number that came without its exchange, whether it was set aside or withheld.
    fn any_said()(delivered_through in prop_oneof![0..40_u64, any::<u64>()])(
        (hub, recipient, node, lane) in (any_name(), any_code(), any_name(), any_lane()),
        (history, taken_before, delivered_through) in (any::<[u8; 16]>(), any::<u64>(), Just(delivered_through)),
        (mut without, taken) in (any_delivered(delivered_through), any_delivered(delivered_through)),
        reasons in vec(prop::option::of(prop::sample::select(SetAsideReason::ALL)), 20),
        ends in vec(prop::option::of(prop::sample::select(&[AsideEnd::Holds, AsideEnd::Discarded][..])), 20),
    ) -> Said {
        let history = HistoryId(history);
        without.sort_unstable();
        let (mut set_aside, mut withheld) = (Vec::new(), Vec::new());
        for (number, reason) in without.into_iter().zip(reasons) {
            match reason {
                Some(reason) => set_aside.push((number, reason)),
                None => withheld.push(number),
            }
        }
        let ended = (0..taken.len() as u32).zip(ends).filter_map(|(place, end)| Some((place, end?))).collect();
        Said { hub, history, recipient, node, lane, delivered_through, set_aside, withheld, taken_before, taken, ended }
    }
}

proptest! {
    #[test]
    fn a_receipt_survives_the_wire(fact in any_recorded(), at in any_time(), history in any::<[u8; 16]>()) {
        let sec = key("SEC");
        let made = receipt::receipt(HistoryId(history), JournalDigest([3; 32]), at, &fact, sec.fingerprint(), |m| sec.sign(m));
        let read = verify_receipt(&made).unwrap();
        prop_assert_eq!(&read, &receipt::parse(&made.statement).unwrap());
        prop_assert_eq!((read.history, read.recorded_at), (HistoryId(history), at));
        prop_assert_eq!((&read.chain, read.number, read.digest), (&fact.chain, fact.number, fact.digest));
        prop_assert_eq!(read.outcomes.len(), fact.count as usize);
        for (index, outcome) in (0..).zip(read.outcomes) {
            let expected = match fact.refused.iter().find(|refusal| refusal.index == index) {
                Some(refusal) => Outcome::Refused(refusal.reason),
                None => {
                    let has = |group: &&AudienceGroup| group.items.iter().any(|range| range.indices().contains(&index));
                    let group = fact.groups.iter().find(has).unwrap().clone();
                    Outcome::Recorded { agreement: group.agreement, audience: group.recipients }
                }
            };
            prop_assert_eq!(outcome, expected);
        }
    }

    #[test]
    fn an_acknowledgement_survives_the_wire(said in any_said()) {
        prop_assert_eq!(verify_acknowledgement(&acknowledgement_of(&said)), Ok(said));
    }
}
