//! Receipts and acknowledgements: one word each, signed, read exactly.

use std::collections::BTreeSet;

use bytes::Bytes;
use concord_journal::{Digest as JournalDigest, HistoryId};
use concord_ledger::{AudienceGroup, ConsignmentRecorded, IndexRange, ItemRefusal};
use concord_model::{AgreementRef, ChainKey, ConsignmentDigest, Lane, ParticipantCode, Reason, SetAsideReason};
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

#[test]
fn an_acknowledgement_that_says_something_impossible_is_refused() {
    let check = |expectation: Result<(), Reason>, change: &dyn Fn(&mut pb::AcknowledgementStatement)| {
        let mut message = acknowledgement_of(&said());
        let mut statement = pb::AcknowledgementStatement::decode(message.statement).unwrap();
        change(&mut statement);
        message.statement = statement.encode_to_vec().into();
        let read = acknowledgement::verify(&message, |_, _, _| Ok(())).map(drop).map_err(|refusal| refusal.reason);
        assert_eq!(read, expectation, "{statement:?}");
    };
    let impossible = Err(Reason::CursorInvalid);
    check(impossible, &|statement| statement.hub.clear());
    check(impossible, &|statement| statement.history.clear());
    check(impossible, &|statement| statement.recipient = "kgz".into());
    check(impossible, &|statement| statement.node = "Main".into());
    check(impossible, &|statement| statement.lane = 0);
    let most = ACKNOWLEDGEMENT_NUMBERS_MAX as u64;
    check(Ok(()), &|statement| statement.taken = (1..=most).collect());
    check(impossible, &|statement| statement.taken = (1..=most + 1).collect());
    check(impossible, &|statement| statement.withheld = (1..=most + 1).collect());
    let aside = pb::SetAside { number: 290, reason: "DUPLICATE".into() };
    check(impossible, &|statement| statement.set_aside = vec![aside.clone(); ACKNOWLEDGEMENT_NUMBERS_MAX + 1]);
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
        ConsignmentRecorded { chain, number, digest: ConsignmentDigest(digest), count, groups, refused, mailboxes: vec![] }
    }
}

prop_compose! {
    fn any_said()(
        (hub, recipient, node, lane) in (any_name(), any_code(), any_name(), any_lane()),
        (history, delivered_through, taken_before) in (any::<[u8; 16]>(), any::<u64>(), any::<u64>()),
        set_aside in vec((any::<u64>(), prop::sample::select(SetAsideReason::ALL)), 0..20),
        (withheld, taken) in (vec(any::<u64>(), 0..20), vec(any::<u64>(), 0..20)),
    ) -> Said {
        let history = HistoryId(history);
        Said { hub, history, recipient, node, lane, delivered_through, set_aside, withheld, taken_before, taken }
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
