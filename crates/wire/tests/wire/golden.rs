//! Golden vectors: `tests/golden/*.txt`, each a format's bytes in hexadecimal under what they say, read by the descriptors.

use std::fmt::Write as _;
use std::path::Path;

use concord_wire::proto::DESCRIPTORS;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, ReflectMessage as _, Value};

/// Fields whose bytes are a message serialised once: shown as what they say.
const SERIALISED: [(&str, &str); 14] = [
    ("concord.agreement.v1.Enrolment.request", "concord.agreement.v1.JoinRequest"),
    ("concord.agreement.v1.Proposal.text", "concord.agreement.v1.AgreementText"),
    ("concord.agreement.v1.SignedStatement.statement", "concord.agreement.v1.Statement"),
    ("concord.exchange.v1.Acknowledgement.statement", "concord.exchange.v1.AcknowledgementStatement"),
    ("concord.exchange.v1.Consignment.head", "concord.exchange.v1.ConsignmentHead"),
    ("concord.exchange.v1.Consignment.headers", "concord.exchange.v1.Header"),
    ("concord.exchange.v1.Consignment.seal", "concord.exchange.v1.ConsignmentSeal"),
    ("concord.exchange.v1.Delivery.header", "concord.exchange.v1.Header"),
    ("concord.exchange.v1.Delivery.seal", "concord.exchange.v1.ConsignmentSeal"),
    ("concord.exchange.v1.RecordedReceipt.statement", "concord.exchange.v1.RecordedStatement"),
    ("concord.journal.v1.StoredConsignment.head", "concord.exchange.v1.ConsignmentHead"),
    ("concord.journal.v1.StoredConsignment.headers", "concord.exchange.v1.Header"),
    ("concord.journal.v1.StoredConsignment.seal", "concord.exchange.v1.ConsignmentSeal"),
    ("concord.agency.v1.ReceiveResponse.header", "concord.exchange.v1.Header"),
];

/// One file of vectors, in the making.
pub(crate) struct Golden {
    file: &'static str,
    text: String,
    pool: DescriptorPool,
}

impl Golden {
    /// Begins the file with what it is about.
    pub(crate) fn new(file: &'static str, about: &str) -> Self {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        Self { file, text: format!("# {about}\n"), pool }
    }

    /// A heading.
    pub(crate) fn section(&mut self, title: &str) -> &mut Self {
        writeln!(self.text, "\n## {title}").unwrap();
        self
    }

    /// A value that is text.
    pub(crate) fn text(&mut self, label: &str, value: impl ToString) -> &mut Self {
        writeln!(self.text, "{label}: {}", value.to_string()).unwrap();
        self
    }

    /// Bytes that are not a message.
    pub(crate) fn bytes(&mut self, label: &str, bytes: &[u8]) -> &mut Self {
        writeln!(self.text, "{label} ({} bytes):", bytes.len()).unwrap();
        bytes.chunks(64).for_each(|line| writeln!(self.text, "  {}", hex(line)).unwrap());
        self
    }

    /// A serialised message: what it says, then its bytes.
    pub(crate) fn message(&mut self, label: &str, kind: &str, bytes: &[u8]) -> &mut Self {
        writeln!(self.text, "{label}, {kind}:").unwrap();
        self.say(kind, bytes, 1);
        self.bytes(label, bytes)
    }

    /// Compares with the committed file, or writes it.
    pub(crate) fn check(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(self.file);
        if std::env::var_os("CONCORD_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&path, &self.text).unwrap();
            return;
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if committed == self.text {
            return;
        }
        let mut lines = committed.lines().zip(self.text.lines()).zip(1..);
        let different = lines.find(|((old, new), _)| old != new);
        let place = match different {
            Some(((old, new), line)) => format!("line {line}\n  committed: {old}\n  now:       {new}"),
            None => format!("{} lines committed, {} now", committed.lines().count(), self.text.lines().count()),
        };
        panic!(
            "the format of tests/golden/{} has changed: {place}\nif that is meant, `CONCORD_BLESS=1 cargo test -p \
             concord-wire` writes the vectors anew; read their diff",
            self.file
        );
    }

    fn say(&mut self, kind: &str, bytes: &[u8], depth: usize) {
        let descriptor = self.pool.get_message_by_name(kind).unwrap();
        let message = DynamicMessage::decode(descriptor, bytes).unwrap();
        self.say_fields(&message, depth);
    }

    fn say_fields(&mut self, message: &DynamicMessage, depth: usize) {
        assert_eq!(message.unknown_fields().count(), 0, "a golden message has only known fields");
        for field in message.descriptor().fields().filter(|field| message.has_field(field)) {
            match &*message.get_field(&field) {
                Value::List(values) => values.iter().for_each(|value| self.say_value(&field, value, depth)),
                value => self.say_value(&field, value, depth),
            }
        }
    }

    fn say_value(&mut self, field: &FieldDescriptor, value: &Value, depth: usize) {
        let indent = "  ".repeat(depth);
        let name = field.name();
        let serialised = SERIALISED.iter().find(|(outer, _)| *outer == field.full_name());
        match (value, serialised) {
            (Value::Message(inner), _) => {
                writeln!(self.text, "{indent}{name}:").unwrap();
                self.say_fields(inner, depth + 1);
            }
            (Value::Bytes(bytes), Some((_, kind))) => {
                writeln!(self.text, "{indent}{name}, serialised {kind}:").unwrap();
                self.say(kind, bytes, depth + 1);
            }
            (Value::Bytes(bytes), None) => writeln!(self.text, "{indent}{name}: {}", hex(bytes)).unwrap(),
            (Value::String(text), _) => writeln!(self.text, "{indent}{name}: {text:?}").unwrap(),
            (Value::EnumNumber(number), _) => {
                let kind = field.kind();
                let value = kind.as_enum().unwrap().get_value(*number).unwrap();
                writeln!(self.text, "{indent}{name}: {}", value.name()).unwrap();
            }
            (Value::U32(number), _) => writeln!(self.text, "{indent}{name}: {number}").unwrap(),
            (Value::U64(number), _) => writeln!(self.text, "{indent}{name}: {number}").unwrap(),
            (Value::I32(number), _) => writeln!(self.text, "{indent}{name}: {number}").unwrap(),
            (Value::I64(number), _) => writeln!(self.text, "{indent}{name}: {number}").unwrap(),
            (Value::Bool(flag), _) => writeln!(self.text, "{indent}{name}: {flag}").unwrap(),
            (value, _) => panic!("{name}: {value:?} stands in no format"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_field_that_is_shown_as_a_message_exists() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    for (field, kind) in SERIALISED {
        let (message, name) = field.rsplit_once('.').unwrap();
        assert!(pool.get_message_by_name(message).unwrap().get_field_by_name(name).is_some(), "{field}");
        assert!(pool.get_message_by_name(kind).is_some(), "{kind}");
    }
}
