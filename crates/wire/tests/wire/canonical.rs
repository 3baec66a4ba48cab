//! One message, one serialisation: every other spelling of what is signed or hashed is refused.

use concord_model::{Description, Lane, Reason, Refusal, Title};
use concord_wire::agreement::{
    DraftContent, encode_statement, encode_text, parse_join_request, parse_statement, parse_text,
};
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::{acknowledgement, consignment, header, receipt};
use prost::Message as _;

use crate::fixtures::{agreement_ref, agreement_text, chain, exchange, exchanges, sealed};
use crate::seals::resealed;
use crate::signed_words::{acknowledgement_of, receipt_of, said};
use crate::statements::{draft, join_request, signed};

/// A field as it is serialised: tag, length where it has one, value.
struct Field {
    number: u64,
    tag: Vec<u8>,
    length: Option<Vec<u8>>,
    value: Vec<u8>,
}

impl Field {
    fn bytes(&self) -> Vec<u8> {
        [&self.tag[..], self.length.as_deref().unwrap_or_default(), &self.value].concat()
    }
}

fn fields(mut bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (tag, key) = varint(&mut bytes);
        let (length, value) = match key & 7 {
            0 => (None, varint(&mut bytes).0),
            2 => {
                let (length, count) = varint(&mut bytes);
                let (value, rest) = bytes.split_at(count as usize);
                bytes = rest;
                (Some(length), value.to_vec())
            }
            other => panic!("wire type {other} stands in no format"),
        };
        fields.push(Field { number: key >> 3, tag, length, value });
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> (Vec<u8>, u64) {
    let length = 1 + bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (varint, rest) = bytes.split_at(length);
    *bytes = rest;
    let value = varint.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    (varint.to_vec(), value)
}

/// The same number with one byte more.
fn longer(varint: &[u8]) -> Vec<u8> {
    let mut longer = varint.to_vec();
    *longer.last_mut().unwrap() |= 0x80;
    longer.push(0);
    longer
}

fn encoded(varint: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(varint, &mut bytes);
    bytes
}

fn with(fields: &[Field], index: usize, replacement: Vec<u8>) -> Vec<u8> {
    let field =
        |(position, field): (usize, &Field)| if position == index { replacement.clone() } else { field.bytes() };
    fields.iter().enumerate().flat_map(field).collect()
}

/// Checks every other spelling of `good`; `parse` gives the refusal.
fn check(good: &[u8], malformed: Reason, not_canonical: Reason, parse: &dyn Fn(&[u8]) -> Result<(), Refusal>) {
    let refused = |bytes: &[u8], expectation: Reason, how: &str| {
        assert_eq!(parse(bytes).map_err(|refusal| refusal.reason), Err(expectation), "{how}");
    };
    assert_eq!(parse(good), Ok(()));
    let fields = fields(good);

    refused(&good[..good.len() - 1], malformed, "the last byte is missing");
    refused(&good[1..], malformed, "the first byte is missing");
    for byte in 0..=u8::MAX {
        refused(&[good, &[byte]].concat(), malformed, &format!("byte {byte} is appended"));
    }
    // Field 100 is in no message: a varint, bytes, and a group.
    for unknown in [&[0xa0, 0x06, 1][..], &[0xa2, 0x06, 0], &[0xa3, 0x06, 0xa4, 0x06]] {
        refused(&[good, unknown].concat(), not_canonical, "an unknown field is appended");
        refused(&[unknown, good].concat(), not_canonical, "an unknown field stands first");
    }
    for (index, field) in fields.iter().enumerate() {
        let how = |what: &str| format!("field {} with {what}", field.number);
        let length = field.length.clone().unwrap_or_default();
        let long_tag = [&longer(&field.tag)[..], &length, &field.value].concat();
        refused(&with(&fields, index, long_tag), not_canonical, &how("a long tag"));
        let long = match &field.length {
            Some(length) => [&field.tag[..], &longer(length), &field.value].concat(),
            None => [&field.tag[..], &longer(&field.value)].concat(),
        };
        refused(&with(&fields, index, long), not_canonical, &how("a long varint"));
        let emptied_before =
            [&field.tag[..], if field.length.is_some() { &[0] } else { &[0][..] }, &field.bytes()].concat();
        let repeated = fields.iter().filter(|other| other.number == field.number).count() > 1;
        if !repeated && !REPEATED.contains(&field.number) {
            refused(&with(&fields, index, emptied_before), not_canonical, &how("an empty one before it"));
        }
        if let Some(next) = fields.get(index + 1).filter(|next| next.number != field.number) {
            let swapped = [next.bytes(), field.bytes()].concat();
            let mut bytes = with(&fields[..=index], index, swapped);
            fields[index + 2..].iter().for_each(|field| bytes.extend(field.bytes()));
            refused(&bytes, not_canonical, &how("its neighbour before it"));
        }
    }
}

/// Field numbers under which some format has a list, whose first element may be empty as far as the spelling goes.
const REPEATED: [u64; 6] = [2, 4, 5, 7, 9, 10];

#[test]
fn a_header_has_one_spelling() {
    let good = header::encode(&exchange(1).header);
    check(&good, Reason::HeaderMalformed, Reason::HeaderNotCanonical, &|bytes| header::parse(bytes).map(drop));
    for length in 0..good.len() {
        assert_eq!(header::parse(&good[..length]).unwrap_err().reason, Reason::HeaderMalformed, "{length} bytes");
    }
}

#[test]
fn messages_within_a_header_have_one_spelling() {
    let good = header::encode(&exchange(1).header);
    let outer = fields(&good);
    for (index, field) in outer.iter().enumerate().filter(|(_, field)| [4, 7, 9, 10].contains(&field.number)) {
        let inner = fields(&field.value);
        let spelt =
            |value: Vec<u8>| with(&outer, index, [&field.tag[..], &encoded(value.len() as u64), &value].concat());
        assert_eq!(spelt(field.value.clone()), good);
        let mut others = vec![[&field.value[..], &[0xa0, 0x06, 1]].concat()];
        for (position, part) in inner.iter().enumerate() {
            let length = part.length.clone().unwrap_or_default();
            others.push(with(&inner, position, [&longer(&part.tag)[..], &length, &part.value].concat()));
        }
        if inner.len() > 1 && inner[0].number != inner[1].number {
            let mut reversed: Vec<_> = inner.iter().map(Field::bytes).collect();
            reversed.reverse();
            others.push(reversed.concat());
        }
        for other in others {
            let refusal = header::parse(&spelt(other)).unwrap_err();
            assert_eq!(refusal.reason, Reason::HeaderNotCanonical, "within field {}", field.number);
        }
    }
}

#[test]
fn a_field_set_to_its_default_is_another_spelling() {
    let good = header::encode(&exchange(1).header);
    // handling: unspecified; supersedes: empty; exercise: false.
    for explicit in [&[0x60, 0][..], &[0x72, 0], &[0x80, 1, 0]] {
        let refusal = header::parse(&[&good, explicit].concat()).unwrap_err();
        assert_eq!(refusal.reason, Reason::HeaderNotCanonical);
    }
}

#[test]
fn a_description_has_one_spelling() {
    let title = Title::parse("Изъятие героина").unwrap();
    let good = header::encode_description(&Description { title, caveats: vec!["a caveat".into()] });
    check(&good, Reason::HeaderMalformed, Reason::HeaderNotCanonical, &|bytes| {
        header::parse_description(bytes).map(drop)
    });
}

#[test]
fn what_officers_and_joining_nodes_sign_has_one_spelling() {
    let reason = Reason::AgreementMalformed;
    check(&encode_text(&agreement_text()), reason, reason, &|bytes| parse_text(bytes).map(drop));
    let reason = Reason::StatementMalformed;
    check(&join_request(), reason, reason, &|bytes| parse_join_request(bytes).map(drop));
    for content in [DraftContent::Consent(agreement_ref()), DraftContent::Leave(agreement_ref())] {
        check(&encode_statement(&draft(300, content)), reason, reason, &|bytes| {
            parse_statement(&signed(bytes.to_vec().into())).map(drop)
        });
    }
}

#[test]
fn what_hubs_and_nodes_sign_has_one_spelling() {
    let reason = Reason::ConsignmentMalformed;
    check(&receipt_of(4).statement, reason, reason, &|bytes| receipt::parse(bytes).map(drop));
    let reason = Reason::CursorInvalid;
    check(&acknowledgement_of(&said()).statement, reason, reason, &|bytes| {
        let mut message = acknowledgement_of(&said());
        message.statement = bytes.to_vec().into();
        acknowledgement::verify(&message, |_, _, _| Ok(())).map(drop)
    });
}

#[test]
fn a_seal_and_a_head_have_one_spelling() {
    let reason = Reason::ConsignmentMalformed;
    let (exchanges, origin) = (exchanges(2), chain(Lane::Routine).origin);
    let good = sealed(300, &exchanges);
    check(&good.seal, reason, reason, &|bytes| {
        let mut message = crate::fixtures::message(&good, &exchanges);
        message.seal = bytes.to_vec().into();
        consignment::open(message, &origin, |_, _, _| Ok(())).map(drop)
    });
    check(&good.head, reason, reason, &|bytes| {
        // Sealed as it is spelt, so that nothing but the spelling is wrong.
        let message = resealed(&good, &exchanges, bytes.to_vec().into(), |_| ());
        consignment::open(message, &origin, |_, _, _| Ok(())).map(drop)
    });
    assert!(pb::ConsignmentHead::decode(&good.head[..]).is_ok());
}
