//! Traces, off unless the standard variables of OpenTelemetry name a collector: one trace for each exchange, from the call of the agency that
//! hands it in to the agency that receives it.
//!
//! Invariant: nothing of a trace travels between states, and nothing of it stands in what they sign or send. The ids of a trace and its
//! spans are digests of the exchange's id: whoever has the exchange makes the same ones by itself, so that the spans of all parties meet
//! where their collectors do; whoever has not got it cannot make them, nor tell from two of them what they have in common. Only an agency
//! and its own node tell each other anything: the agency's `traceparent`.
//!
//! A span says who did which step of the way when, on which lane; never a title, a body, an agreement or the exchange's id.

mod export;
mod settings;

use std::sync::OnceLock;
use std::time::SystemTime;

use concord_model::{ExchangeId, Lane};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

pub use export::{SPANS_WAITING_MAX, Traces};
pub use settings::TraceSettings;

const TRACE_DOMAIN: &[u8] = b"concord trace v1";
const SPAN_DOMAIN: &[u8] = b"concord span v1";

static SPANS: OnceLock<mpsc::Sender<Span>> = OnceLock::new();

/// A step of the way of an exchange, and who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An agency hands it in; the id of the span is the one that it told its node.
    Call([u8; 8]),
    /// Its node queues it, durably.
    Submit,
    /// The hub records it.
    Record,
    /// The hub sends it to this recipient's node.
    Deliver(String),
    /// A recipient's node has verified it, durably.
    Receive(String),
    /// A recipient's node hands it to this agency, of this participant.
    HandOver(String, String),
}

/// One step of the way of one exchange.
#[derive(Debug, Clone)]
pub struct Span {
    /// The exchange, of which only digests leave the process.
    pub exchange: ExchangeId,
    /// What was done.
    pub step: Step,
    /// On which lane.
    pub lane: Lane,
    /// Who did it: a participant's code.
    pub participant: String,
    /// When it began.
    pub begun: SystemTime,
    /// Where the agency's own trace goes on: its `traceparent`.
    pub caller: Option<TraceParent>,
}

/// What a caller's `traceparent` names: the id of its trace and of its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The caller's trace.
    pub trace: [u8; 16],
    /// The caller's span.
    pub span: [u8; 8],
}

impl TraceParent {
    /// Of the W3C header, version 00: `00-{32 hex digits}-{16 hex digits}-{2 hex digits}`. Anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() || bytes_of::<1>(flags).is_none() {
            return None;
        }
        let parsed = Self { trace: bytes_of(trace)?, span: bytes_of(span)? };
        (parsed.trace != [0; 16] && parsed.span != [0; 8]).then_some(parsed)
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{}-{}-01", hex(&self.trace), hex(&self.span))
    }
}

/// Whether anybody collects: what a span is made of need not be looked for otherwise.
pub fn is_traced() -> bool {
    SPANS.get().is_some()
}

/// Ends a span now. It waits for nobody: one that finds no room is counted and forgotten.
pub fn trace(span: Span) {
    if let Some(spans) = SPANS.get()
        && spans.try_send(span).is_err()
    {
        metrics::counter!("concord_spans_dropped_total").increment(1);
    }
}

/// The trace of an exchange.
pub fn trace_id(exchange: &ExchangeId) -> [u8; 16] {
    digest(TRACE_DOMAIN, exchange, "", "")
}

/// The span of a step of an exchange; the same, whoever asks.
pub fn span_id(exchange: &ExchangeId, step: &Step) -> [u8; 8] {
    match step {
        Step::Call(told) => *told,
        Step::Submit | Step::Record => digest(SPAN_DOMAIN, exchange, step.name(), ""),
        Step::Deliver(whom) | Step::Receive(whom) => digest(SPAN_DOMAIN, exchange, step.name(), whom),
        Step::HandOver(whose, agency) => digest(SPAN_DOMAIN, exchange, step.name(), &format!("{whose}/{agency}")),
    }
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Submit => "submit",
            Self::Record => "record",
            Self::Deliver(_) => "deliver",
            Self::Receive(_) => "receive",
            Self::HandOver(..) => "hand over",
        }
    }

    /// The step that this one follows, which another party may have done.
    fn before(&self, caller: Option<TraceParent>) -> Option<Self> {
        match self {
            Self::Call(_) => None,
            Self::Submit => caller.map(|caller| Self::Call(caller.span)),
            Self::Record => Some(Self::Submit),
            Self::Deliver(_) => Some(Self::Record),
            Self::Receive(whom) => Some(Self::Deliver(whom.clone())),
            Self::HandOver(whose, _) => Some(Self::Receive(whose.clone())),
        }
    }
}

/// The first bytes of a digest over parts that are told apart by their lengths; never all zero but by a chance that is none.
fn digest<const N: usize>(domain: &[u8], exchange: &ExchangeId, step: &str, whom: &str) -> [u8; N] {
    let mut hasher = Sha256::new();
    for part in [domain, exchange.0.as_bytes(), step.as_bytes(), whom.as_bytes()] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let whole: [u8; 32] = hasher.finalize().into();
    std::array::from_fn(|place| whole[place])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    if text.len() != 2 * N || !text.as_bytes().iter().all(digits) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use concord_model::Digest;

    use super::*;

    #[test]
    fn whoever_has_the_exchange_makes_the_same_ids_and_steps_and_parties_are_told_apart() {
        let (one, other) = (ExchangeId(Digest([1; 32])), ExchangeId(Digest([2; 32])));
        assert_ne!(trace_id(&one), trace_id(&other));
        let steps = [
            Step::Submit,
            Step::Record,
            Step::Deliver("KAZ".to_owned()),
            Step::Deliver("IRN".to_owned()),
            Step::Receive("KAZ".to_owned()),
            Step::HandOver("KAZ".to_owned(), "police".to_owned()),
            Step::HandOver("KAZ".to_owned(), "cert".to_owned()),
        ];
        let ids: std::collections::BTreeSet<_> =
            [one, other].iter().flat_map(|exchange| steps.iter().map(move |step| span_id(exchange, step))).collect();
        assert_eq!(ids.len(), 2 * steps.len());
        // A golden value: parties of different versions meet in one trace.
        assert_eq!(hex(&trace_id(&ExchangeId(Digest([1; 32])))), GOLDEN_TRACE);
    }

    const GOLDEN_TRACE: &str = "543f5bc986c498dbdb6b05798ca0565b";

    #[test]
    fn a_traceparent_is_taken_only_as_the_standard_writes_it() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceParent::parse(good).map(|parsed| parsed.to_string()).as_deref(), Some(good));
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-1",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
