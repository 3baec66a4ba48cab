//! How much a message may become in memory: counted on its bytes, before anything is made of them.
//!
//! Two bytes make an empty field, which in a list takes ten times as much and more: a message that is within its limit of bytes
//! would cost twenty times that limit. So the fields are counted first, as the descriptors know them, those of messages within
//! too, and a message that has far more of them than any honest one for its size is refused.

use std::collections::HashMap;
use std::sync::LazyLock;

use concord_model::{Reason, Refusal};
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::proto::DESCRIPTORS;

/// Fields that a message of any size may have, those of messages within counted too. Over it, and over what its bytes allow: refused,
/// `ARGUMENT_INVALID`.
pub const FIELDS_MAX: usize = 65_536;
/// For each so many bytes a message may have one field more.
pub const BYTES_PER_FIELD_MIN: usize = 8;
/// Numbers of one packed list that count as one field.
const PACKED_PER_FIELD: usize = 4;
/// Messages in each other that are looked into; the decoder has a limit of its own, which is no lower.
const DEPTH_MAX: usize = 64;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// What is in a field that is delimited.
#[derive(Debug, Clone)]
enum Within {
    /// A message of this type.
    Message(String),
    /// Numbers as varints.
    Packed,
}

type Types = HashMap<String, HashMap<u64, Within>>;

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let mut types = Types::new();
    // They are built in, and a test reads them: without them nothing would be looked into.
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    for file in files.file {
        let package = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| learn(&mut types, &package, message));
    }
    types
});

fn learn(types: &mut Types, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    let fields = message.field.iter().filter_map(|field| {
        let within = match field.r#type() {
            Type::Message => Within::Message(field.type_name().to_owned()),
            Type::Uint32 | Type::Uint64 | Type::Int32 | Type::Int64 | Type::Bool | Type::Enum => Within::Packed,
            _ => return None,
        };
        Some((u64::try_from(field.number()).ok()?, within))
    });
    let fields = fields.collect();
    message.nested_type.iter().for_each(|nested| learn(types, &name, nested));
    types.insert(name, fields);
}

/// Checks a message of type `M`. What is no message at all passes: that is for the decoder to say.
///
/// Refuses with `ARGUMENT_INVALID`.
pub fn check<M: prost::Name>(bytes: &[u8]) -> Result<(), Refusal> {
    // No more fields than bytes: short ones are not looked at.
    if bytes.len() <= FIELDS_MAX {
        return Ok(());
    }
    let mut left = FIELDS_MAX + bytes.len() / BYTES_PER_FIELD_MIN;
    match count(&format!(".{}", M::full_name()), bytes, &mut left, DEPTH_MAX) {
        Some(()) => Ok(()),
        None => {
            let what = format!("the message has more fields than one of {} bytes may have", bytes.len());
            Err(Refusal::new(Reason::ArgumentInvalid, what))
        }
    }
}

/// Takes the fields of a message out of `left`; none where there are not enough.
fn count(name: &str, mut bytes: &[u8], left: &mut usize, depth: usize) -> Option<()> {
    let known = TYPES.get(name);
    while !bytes.is_empty() {
        *left = left.checked_sub(1)?;
        let Some(tag) = varint(&mut bytes) else { return Some(()) };
        let length = match tag & 7 {
            VARINT => {
                if varint(&mut bytes).is_none() {
                    return Some(());
                }
                continue;
            }
            FIXED64 => 8,
            FIXED32 => 4,
            DELIMITED => match varint(&mut bytes) {
                Some(length) => length,
                None => return Some(()),
            },
            // The begin or the end of a group, whose fields stand in line.
            _ => continue,
        };
        let Some(content) = usize::try_from(length).ok().and_then(|length| bytes.split_off(..length)) else {
            return Some(());
        };
        match known.and_then(|known| known.get(&(tag >> 3))) {
            Some(Within::Message(within)) if depth > 0 && tag & 7 == DELIMITED => {
                count(within, content, left, depth - 1)?
            }
            Some(Within::Packed) if tag & 7 == DELIMITED => {
                let numbers = content.iter().filter(|byte| **byte < 0x80).count();
                *left = left.checked_sub(numbers / PACKED_PER_FIELD)?;
            }
            _ => {}
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(7 * place)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::agency::v1::SubmitRequest;
    use crate::proto::exchange::v1 as pb;

    const LARGE: usize = 4 * 1024 * 1024;

    fn reason<M: prost::Name>(message: &M) -> Result<(), Reason> {
        check::<M>(&message.encode_to_vec()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn every_type_of_the_protocol_is_known() {
        for name in ["concord.exchange.v1.Consignment", "concord.agency.v1.SubmitRequest", "google.protobuf.Timestamp"]
        {
            assert!(TYPES.contains_key(&format!(".{name}")), "{name}");
        }
    }

    #[test]
    fn the_largest_honest_messages_pass_and_crumbs_do_not_wherever_they_lie() {
        let blobs = || pb::ExchangeBlobs { blobs: vec![Bytes::from(vec![8; 40]), Bytes::from(vec![9; 2000])] };
        let full = pb::Consignment {
            headers: vec![Bytes::from(vec![0x0a; 300]); 1024],
            blobs: (0..1024).map(|_| blobs()).collect(),
            ..Default::default()
        };
        assert_eq!(reason(&full), Ok(()));
        assert_eq!(reason(&SubmitRequest { body: vec![0x52; LARGE].into(), ..Default::default() }), Ok(()));
        let numbers = pb::TakenBefore { numbers: (0..50_000).collect() };
        assert_eq!(reason(&numbers), Ok(()));

        let crumbs = vec![Bytes::new(); LARGE / 2];
        assert_eq!(reason(&pb::Consignment { headers: crumbs.clone(), ..full.clone() }), Err(Reason::ArgumentInvalid));
        let blobs = vec![pb::ExchangeBlobs { blobs: crumbs }];
        let message = Some(pb::consign_request::Message::Consignment(pb::Consignment { blobs, ..full }));
        assert_eq!(reason(&pb::ConsignRequest { message, ..Default::default() }), Err(Reason::ArgumentInvalid));
        let numbers = pb::TakenBefore { numbers: vec![1; LARGE] };
        assert_eq!(reason(&numbers), Err(Reason::ArgumentInvalid));
    }

    #[test]
    fn what_is_no_message_passes_to_the_decoder() {
        for byte in 0..=255 {
            let bytes = vec![byte; FIELDS_MAX + 1];
            let _whatever = check::<pb::Consignment>(&bytes);
        }
        assert_eq!(check::<pb::Consignment>(&vec![0xff; LARGE]), Ok(()));
    }
}
