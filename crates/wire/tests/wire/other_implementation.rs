//! Headers as another implementation of protobuf reads them: `tests/interop/headers.py` wrote down what Python's makes of some thousands,
//! valid ones and spoilt ones; this side must make the same of each.

use concord_model::Reason;
use concord_wire::proto::DESCRIPTORS;
use concord_wire::proto::exchange::v1 as pb;
use concord_wire::{convert, header};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

/// Where the vectors are; `./test interop` makes and names them.
const VECTORS_VARIABLE: &str = "CONCORD_HEADER_VECTORS";

#[test]
#[ignore = "needs what Python wrote: ./test interop runs it"]
fn every_header_is_read_as_another_implementation_reads_it_and_taken_in_its_one_spelling_only() {
    let path = std::env::var(VECTORS_VARIABLE).unwrap();
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let kind = pool.get_message_by_name("concord.exchange.v1.Header").unwrap();
    let (mut canonical, mut accepted, mut refused) = (0, 0, 0);
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
        let (verdict, bytes, says) = (word(), from_hex(word()), word());
        let read: Result<pb::Header, _> =
            convert::decode_canonical(Reason::HeaderMalformed, Reason::HeaderNotCanonical, "header", &bytes);
        match verdict {
            "canonical" => {
                let read = read.unwrap_or_else(|refusal| panic!("{refusal}: {line}"));
                // Every field that the descriptor has, by its name; one that is added is compared by itself.
                let fields = said(&kind, &read.encode_to_vec());
                assert_eq!(fields, says, "{line}");
                canonical += 1;
            }
            "malformed" | "other-spelling" => {
                assert!(read.is_err(), "{line}");
                refused += 1;
            }
            other => panic!("{other} is no verdict"),
        }
        match header::parse(&bytes) {
            // What was taken is written again as it came: the model has every byte of it.
            Ok(taken) => {
                assert_eq!((verdict, header::encode(&taken)), ("canonical", bytes.clone().into()), "{line}");
                let names = [("origin", taken.origin.to_string()), ("node", taken.node.to_string())];
                for (name, value) in names.into_iter().chain([("measure", taken.measure.to_string())]) {
                    let expected = format!("{name}={}", hex(value.as_bytes()));
                    assert!(says.split(';').any(|field| field == expected), "{name}: {line}");
                }
                accepted += 1;
            }
            Err(refusal) => {
                let by_spelling = [Reason::HeaderMalformed, Reason::HeaderNotCanonical].contains(&refusal.reason);
                assert!(verdict == "canonical" || by_spelling, "{refusal}: {line}");
            }
        }
    }
    println!("{canonical} in their one spelling, of which {accepted} are headers of this version; {refused} refused");
    assert!(canonical > 100 && accepted > 0 && refused > 100);
}

/// Each field that is set, in the order of their numbers, as the vectors say it.
fn said(kind: &MessageDescriptor, bytes: &[u8]) -> String {
    let message = DynamicMessage::decode(kind.clone(), bytes).unwrap();
    let mut lines = Vec::new();
    say(&message, "", &mut lines);
    lines.join(";")
}

fn say(message: &DynamicMessage, path: &str, lines: &mut Vec<String>) {
    let mut fields: Vec<_> = message.descriptor().fields().filter(|field| message.has_field(field)).collect();
    fields.sort_by_key(prost_reflect::FieldDescriptor::number);
    for field in fields {
        let name = format!("{path}{}", field.name());
        match &*message.get_field(&field) {
            Value::List(values) => values.iter().for_each(|value| say_value(&name, value, lines)),
            value => say_value(&name, value, lines),
        }
    }
}

fn say_value(name: &str, value: &Value, lines: &mut Vec<String>) {
    lines.push(match value {
        Value::Message(inner) => {
            lines.push(format!("{name}=message"));
            return say(inner, &format!("{name}."), lines);
        }
        Value::String(text) => format!("{name}={}", hex(text.as_bytes())),
        Value::Bytes(bytes) => format!("{name}={}", hex(bytes)),
        Value::Bool(flag) => format!("{name}={}", u8::from(*flag)),
        Value::EnumNumber(number) | Value::I32(number) => format!("{name}={number}"),
        Value::I64(number) => format!("{name}={number}"),
        Value::U32(number) => format!("{name}={number}"),
        Value::U64(number) => format!("{name}={number}"),
        other => panic!("{name}: {other:?} stands in no format"),
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
