//! Damage of every kind to good messages, and what has to hold whatever comes of it: what parses is what was said, byte for byte.
//!
//! A slice by default; `PROPTEST_CASES=1000000 cargo test --release -p concord-wire --test wire fuzz` for more. The seeds are the messages of
//! the golden vectors' fixtures.

use bytes::Bytes;
use concord_model::{
    AgreementId, Identity, Language, MeasureCode, MediaType, Name, ParseError, ParticipantCode, RequestId, Title,
};
use concord_wire::proto::agreement::v1 as agreement_pb;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::{acknowledgement, agreement, bounds, consignment, header, receipt};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use crate::fixtures::{chain, exchange};
use crate::garbage::good;
use concord_model::Lane;

const CASES_MIN: u32 = 2_048;

/// The slice, or what the environment asks for.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(CASES_MIN), failure_persistence: None, ..asked }
}

/// One change of a message, at or between the places where its fields begin.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Remove(Index, Index),
    Repeat(Index, Index),
    /// A piece of another message.
    Splice(Index, Index, Index, Index),
    Insert(Index, Vec<u8>),
    Cut(Index),
    /// A number that is written longer than it has to be.
    Lengthen(Index),
}

fn any_change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        (place(), place()).prop_map(|(from, to)| Change::Remove(from, to)),
        (place(), place()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (place(), place(), place(), place()).prop_map(|(at, of, from, to)| Change::Splice(at, of, from, to)),
        (place(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        place().prop_map(Change::Cut),
        place().prop_map(Change::Lengthen),
    ]
}

/// Where fields begin, as far as the bytes are a message; and the end.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut places = vec![0];
    let mut rest = bytes;
    while let Some(tag) = varint(&mut rest) {
        let length = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut rest),
            5 => Some(4),
            _ => None,
        };
        let Some(left) = length.and_then(|length| rest.get(usize::try_from(length).ok()?..)) else { break };
        rest = left;
        places.push(bytes.len() - rest.len());
    }
    places.push(bytes.len());
    places
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let length = 1 + bytes.iter().take(9).position(|byte| byte & 0x80 == 0)?;
    let (varint, rest) = bytes.split_at(length);
    *bytes = rest;
    Some(varint.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)))
}

fn changed(mut bytes: Vec<u8>, changes: &[Change], others: &[Vec<u8>]) -> Vec<u8> {
    let between = |bytes: &[u8], from: &Index, to: &Index| {
        let places = places(bytes);
        let (from, to) = (places[from.index(places.len())], places[to.index(places.len())]);
        from.min(to)..from.max(to)
    };
    let at = |bytes: &[u8], place: &Index| {
        let places = places(bytes);
        places[place.index(places.len())]
    };
    for change in changes {
        match change {
            Change::Flip(place, byte) if !bytes.is_empty() => {
                let place = place.index(bytes.len());
                bytes[place] ^= byte;
            }
            Change::Lengthen(place) if !bytes.is_empty() => {
                let place = place.index(bytes.len());
                bytes[place] |= 0x80;
                bytes.insert(place + 1, 0);
            }
            Change::Flip(..) | Change::Lengthen(_) => {}
            Change::Remove(from, to) => drop(bytes.drain(between(&bytes, from, to))),
            Change::Repeat(from, to) => {
                let range = between(&bytes, from, to);
                let (end, again) = (range.end, bytes[range].to_vec());
                bytes.splice(end..end, again);
            }
            Change::Splice(place, of, from, to) => {
                let other = &others[of.index(others.len())];
                let (place, piece) = (at(&bytes, place), other[between(other, from, to)].to_vec());
                bytes.splice(place..place, piece);
            }
            Change::Insert(place, piece) => {
                let place = at(&bytes, place);
                bytes.splice(place..place, piece.iter().copied());
            }
            Change::Cut(place) => bytes.truncate(place.index(bytes.len() + 1)),
        }
    }
    bytes
}

/// What parses under these readers was written exactly so. Each refuses with a `Refusal`, by its type.
fn holds(bytes: &[u8]) {
    let owned = Bytes::copy_from_slice(bytes);
    if let Ok(header) = header::parse(bytes) {
        assert_eq!(header::encode(&header), bytes, "a header");
    }
    if let Ok(description) = header::parse_description(bytes) {
        assert_eq!(header::encode_description(&description), bytes, "a description");
    }
    if let Ok(text) = agreement::parse_text(bytes) {
        assert_eq!(agreement::encode_text(&text), bytes, "the text of an agreement");
    }
    if agreement::parse_join_request(bytes).is_ok() {
        encodes_again::<agreement_pb::JoinRequest>(bytes);
    }
    let signed = agreement_pb::SignedStatement { statement: owned.clone(), suite: 1, ..Default::default() };
    if agreement::parse_statement(&signed).is_ok() {
        encodes_again::<agreement_pb::Statement>(bytes);
    }
    if receipt::parse(bytes).is_ok() {
        encodes_again::<pb::RecordedStatement>(bytes);
    }
    let word = pb::Acknowledgement { statement: owned.clone(), key_id: vec![0; 32].into(), ..Default::default() };
    if acknowledgement::verify(&word, |_, _, _| Ok(())).is_ok() {
        encodes_again::<pb::AcknowledgementStatement>(bytes);
    }
    if let Ok(message) = pb::Consignment::decode(owned)
        && let Ok(opened) = consignment::open(message, &chain(Lane::Routine).origin, |_, _, _| Ok(()))
    {
        encodes_again::<pb::ConsignmentSeal>(&opened.sealed.seal);
        encodes_again::<pb::ConsignmentHead>(&opened.sealed.head);
        assert_eq!(opened.candidates.len(), opened.sealed.headers.len());
        assert_eq!(opened.blobs.len(), opened.sealed.headers.len());
    }
    assert!(bounds::check::<pb::Consignment>(bytes).is_ok(), "no short message has too many fields");
}

fn encodes_again<M: Message + Default>(bytes: &[u8]) {
    assert_eq!(M::decode(bytes).unwrap().encode_to_vec(), bytes);
}

fn says<T: ToString>(parsed: Result<T, ParseError>, text: &str) {
    if let Ok(parsed) = parsed {
        assert_eq!(parsed.to_string(), text);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_parses_was_written_exactly_so_whatever_was_done_to_it(
        which in any::<Index>(),
        changes in vec(any_change(), 0..4),
    ) {
        let mut good = good();
        good.push(header::encode(&exchange(1).header).to_vec());
        let bytes = changed(good[which.index(good.len())].clone(), &changes, &good);
        holds(&bytes);
    }

    #[test]
    fn a_name_that_parses_is_the_text_that_it_was(
        text in prop_oneof![
            "[A-Z]{2,4}",
            "[a-z0-9.-]{0,70}",
            "[A-Z]{3}/[a-z0-9-]{0,70}",
            "[a-z]{1,20}\\.[0-9]{1,3}",
            "[a-zA-Z0-9+.-]{1,30}/[a-zA-Z0-9+.-]{1,30}(; ?[a-z]+=[a-z0-9\"]+)?",
            "spiffe://[a-zA-Z]{2,4}\\.concord/(node|agency|officer|operator|hub|king)/[a-z0-9./%-]{0,70}",
            "\\PC{0,40}",
            any::<String>(),
        ],
    ) {
        says(ParticipantCode::parse(&text), &text);
        says(Name::parse(&text), &text);
        says(AgreementId::parse(&text), &text);
        says(MeasureCode::parse(&text), &text);
        says(MediaType::parse(&text), &text);
        says(Language::parse(&text), &text);
        says(RequestId::parse(&text), &text);
        says(Title::parse(&text), &text);
        says(text.parse::<Identity>(), &text);
    }
}
