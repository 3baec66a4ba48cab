//! A message as lines of field paths and values, for a comparison of two runs: of what is random by its nature only the length is said.
//!
//! [`RANDOM`] and [`DRAWN`] are all that is left out of a comparison, by field.

use concord_wire::proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, ReflectMessage as _, Value};

/// Fields of which only the length is compared: ids, salts, nonces, digests, roots and signatures, which are drawn or follow from
/// what is drawn, and positions in journals' histories. Each is fixed in length, so that the length says nothing either.
const RANDOM: &[&str] = &[
    "concord.exchange.v1.Header.uuid",
    "concord.exchange.v1.Header.description",
    "concord.exchange.v1.Part.commitment",
    "concord.exchange.v1.Delivery.leaf_salt",
    "concord.exchange.v1.Delivery.path",
    "concord.exchange.v1.Delivery.signature",
    // A nonce, and then the content, which the agencies' items have in the clear.
    "concord.exchange.v1.Delivery.blobs",
    "concord.exchange.v1.ConsignmentSeal.root",
    "concord.exchange.v1.ConsignmentSeal.head",
    "concord.exchange.v1.RecordedReceipt.signature",
    "concord.exchange.v1.RecordedStatement.entry_digest",
    "concord.exchange.v1.RecordedStatement.consignment_digest",
    "concord.exchange.v1.ConsignWelcome.last_digest",
    "concord.agency.v1.ReceiveResponse.cursor",
    "concord.agency.v1.ReceiveResponse.exchange_id",
];

/// Numbers that are drawn: the place of an exchange in its consignment's tree.
const DRAWN: &[&str] = &["concord.exchange.v1.Delivery.slot"];

/// Bytes that are a message themselves.
const SERIALISED: &[(&str, &str)] = &[
    ("concord.exchange.v1.Delivery.header", "concord.exchange.v1.Header"),
    ("concord.exchange.v1.Delivery.seal", "concord.exchange.v1.ConsignmentSeal"),
    ("concord.exchange.v1.RecordedReceipt.statement", "concord.exchange.v1.RecordedStatement"),
    ("concord.agreement.v1.SignedStatement.statement", "concord.agreement.v1.Statement"),
    ("concord.agreement.v1.Proposal.text", "concord.agreement.v1.AgreementText"),
    ("concord.agency.v1.ReceiveResponse.header", "concord.exchange.v1.Header"),
];

/// Reads messages by the protocol's own descriptors: a new field is compared by itself.
pub(crate) struct Plain {
    pool: DescriptorPool,
}

impl Plain {
    pub(crate) fn new() -> Self {
        let plain = Self { pool: DescriptorPool::decode(DESCRIPTORS).unwrap() };
        // A field that has another name by now must not be missing from a list in silence.
        let listed = RANDOM.iter().chain(DRAWN).copied();
        for field in listed.chain(SERIALISED.iter().map(|(field, _)| *field)) {
            let (message, name) = field.rsplit_once('.').unwrap();
            let known = plain.pool.get_message_by_name(message).and_then(|message| message.get_field_by_name(name));
            assert!(known.is_some(), "{field} is in a list, and the protocol has none");
        }
        plain
    }

    /// The lines of a message of this kind.
    pub(crate) fn lines(&self, kind: &str, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        self.message(kind, bytes, "", &mut lines);
        lines
    }

    fn message(&self, kind: &str, bytes: &[u8], path: &str, lines: &mut Vec<String>) {
        let descriptor = self.pool.get_message_by_name(kind).unwrap();
        self.fields(&DynamicMessage::decode(descriptor, bytes).unwrap(), path, lines);
    }

    fn fields(&self, message: &DynamicMessage, path: &str, lines: &mut Vec<String>) {
        for field in message.descriptor().fields().filter(|field| is_said(message, field)) {
            let path = format!("{path}.{}", field.name());
            match &*message.get_field(&field) {
                Value::List(values) => {
                    for (place, value) in values.iter().enumerate() {
                        self.value(&field, value, &format!("{path}[{place}]"), lines);
                    }
                }
                value => self.value(&field, value, &path, lines),
            }
        }
    }

    fn value(&self, field: &FieldDescriptor, value: &Value, path: &str, lines: &mut Vec<String>) {
        let name = field.full_name();
        if DRAWN.contains(&name) {
            return lines.push(format!("{path}: drawn"));
        }
        let serialised = SERIALISED.iter().find(|(outer, _)| *outer == name);
        match (value, serialised) {
            (Value::Message(inner), _) => {
                lines.push(format!("{path}:"));
                self.fields(inner, path, lines);
            }
            (Value::Bytes(bytes), Some((_, kind))) => self.message(kind, bytes, path, lines),
            (Value::Bytes(bytes), None) if RANDOM.contains(&name) => {
                lines.push(format!("{path}: {} bytes", bytes.len()));
            }
            (value, _) => lines.push(format!("{path}: {value:?}")),
        }
    }
}

/// What is there; and what is drawn also where 0 was, which no message has.
fn is_said(message: &DynamicMessage, field: &FieldDescriptor) -> bool {
    message.has_field(field) || DRAWN.contains(&field.full_name())
}
