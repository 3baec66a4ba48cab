//! Redaction: bodies that go while their entries stay, and the entries by which the journal tells of it.
//!
//! A *fact* names the bodies; they are overwritten by zeros, nonces too, once the fact can no longer be cut; a *step*
//! after it says that this begins, and another one that it is done. All three are the journal's own entries.

use bytes::Bytes;

use crate::entry::{Draft, KIND_RESERVED_FIRST};

/// The kind of the entry that names redacted bodies.
pub const KIND_REDACTED: u16 = KIND_RESERVED_FIRST;

/// The kind of the entry that says how far a redaction is.
pub const KIND_REDACTION_STEP: u16 = KIND_RESERVED_FIRST + 1;

/// The version of both encodings.
pub const REDACTION_VERSION: u16 = 1;

const BODIES_SIZE_BYTES: usize = 16;

/// Neighbouring bodies of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bodies {
    /// The entry.
    pub sequence: u64,
    /// The first of them, counted from 0.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
}

impl Bodies {
    /// Adds them behind `all`: to the last ones, where they follow these in the same entry.
    pub fn add_to(self, all: &mut Vec<Self>) {
        match all.last_mut() {
            Some(last) if last.sequence == self.sequence && last.first + last.count == self.first => {
                last.count += self.count;
            }
            _ => all.push(self),
        }
    }

    /// Whether this body is one of them.
    pub fn contains(&self, sequence: u64, index: usize) -> bool {
        let from = self.first as usize;
        self.sequence == sequence && (from..from + self.count as usize).contains(&index)
    }
}

/// One body, as it stands beside its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// How long it is, or was.
    pub size_bytes: u64,
    /// Whether it was redacted or trimmed.
    pub is_gone: bool,
}

/// What became of a redaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// Where the journal ends now: what the next append must expect.
    pub tail: crate::Tail,
    /// The fact is durable: nobody is given the bodies any more.
    pub recorded: bool,
    /// The bodies are overwritten. If not, there was no room to say so; the next redaction or the next open does it.
    pub gone: bool,
}

/// The payload of a [`KIND_REDACTED`] entry: for each run of bodies its entry (8 bytes, little-endian), first (4) and
/// count (4).
pub(crate) fn fact(bodies: &[Bodies], recorded_at: i64) -> Draft {
    let mut payload = Vec::with_capacity(bodies.len() * BODIES_SIZE_BYTES);
    for Bodies { sequence, first, count } in bodies {
        payload.extend_from_slice(&sequence.to_le_bytes());
        payload.extend_from_slice(&first.to_le_bytes());
        payload.extend_from_slice(&count.to_le_bytes());
    }
    own(KIND_REDACTED, payload, recorded_at)
}

/// The payload of a [`KIND_REDACTION_STEP`] entry: the sequence of its fact (8), then 0 (it begins) or 1 (it is done).
pub(crate) fn step(fact: u64, is_done: bool, recorded_at: i64) -> Draft {
    let payload = [&fact.to_le_bytes()[..], &[u8::from(is_done)]].concat();
    own(KIND_REDACTION_STEP, payload, recorded_at)
}

pub(crate) fn own(kind: u16, payload: Vec<u8>, recorded_at: i64) -> Draft {
    Draft { kind, version: REDACTION_VERSION, recorded_at, payload: Bytes::from(payload), blobs: Vec::new() }
}

/// Reads what `fact` writes.
pub(crate) fn read_fact(payload: &[u8]) -> Option<Vec<Bodies>> {
    let (rows, rest) = payload.as_chunks::<BODIES_SIZE_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let read = |row: &[u8; BODIES_SIZE_BYTES]| {
        let (sequence, rest) = row.split_first_chunk::<8>()?;
        let (first, rest) = rest.split_first_chunk::<4>()?;
        let (count, _) = rest.split_first_chunk::<4>()?;
        let (first, count) = (u32::from_le_bytes(*first), u32::from_le_bytes(*count));
        Some(Bodies { sequence: u64::from_le_bytes(*sequence), first, count })
    };
    rows.iter().map(read).collect()
}

/// Reads what `step` writes.
pub(crate) fn read_step(payload: &[u8]) -> Option<(u64, bool)> {
    let (fact, rest) = payload.split_first_chunk::<8>()?;
    match rest {
        [done @ (0 | 1)] => Some((u64::from_le_bytes(*fact), *done == 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_steps_are_read_as_written_and_not_when_cut() {
        let bodies = [Bodies { sequence: 7, first: 0, count: 3 }, Bodies { sequence: 9, first: 4, count: 1 }];
        let fact = fact(&bodies, 1);
        assert_eq!(read_fact(&fact.payload).unwrap(), bodies);
        assert!(read_fact(&fact.payload[..31]).is_none());
        for done in [false, true] {
            let step = step(12, done, 1);
            assert_eq!(read_step(&step.payload), Some((12, done)));
            assert!(read_step(&step.payload[..8]).is_none());
        }
        assert!(read_step(&[0, 0, 0, 0, 0, 0, 0, 0, 2]).is_none());
    }
}
