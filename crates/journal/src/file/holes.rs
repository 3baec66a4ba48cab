//! Which bodies the facts of the journal say are gone.

use std::collections::BTreeMap;
use std::io;

use super::disk::{Disk, DiskFile, read_onto};
use super::frame::{FRAME_HEAD_SIZE_BYTES, Frame, FrameMark, Head, SEGMENT_HEADER_SIZE_BYTES};
use super::scan::segment_name;
use crate::entry::is_own_effect;
use crate::redaction::{Bodies, KIND_REDACTED, KIND_REDACTION_STEP, read_fact, read_step};

/// What facts name, by entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holes {
    by_entry: BTreeMap<u64, Vec<(u32, u32)>>,
    /// The facts whose bodies may be there still, in whole or in part.
    unfinished: BTreeMap<u64, Vec<Bodies>>,
}

impl Holes {
    /// Takes in one of the journal's own entries.
    pub(crate) fn take(&mut self, sequence: u64, kind: u16, payload: &[u8]) {
        match kind {
            KIND_REDACTED => {
                let Some(bodies) = read_fact(payload) else { return };
                for Bodies { sequence, first, count } in &bodies {
                    self.by_entry.entry(*sequence).or_default().push((*first, *count));
                }
                self.unfinished.insert(sequence, bodies);
            }
            KIND_REDACTION_STEP => {
                if let Some((fact, true)) = read_step(payload) {
                    self.unfinished.remove(&fact);
                }
            }
            _ => {}
        }
    }

    /// Whether a fact names this body.
    pub(crate) fn names(&self, sequence: u64, index: usize) -> bool {
        let is_in = |(first, count): &(u32, u32)| (*first as usize..*first as usize + *count as usize).contains(&index);
        self.by_entry.get(&sequence).is_some_and(|spans| spans.iter().any(is_in))
    }

    /// Whether this body may still be there in part: its overwriting is not said to be done.
    fn may_be_half_gone(&self, sequence: u64, index: usize) -> bool {
        self.unfinished.values().flatten().any(|bodies| bodies.contains(sequence, index))
    }

    /// The first fact behind `after` that is not finished.
    pub(crate) fn unfinished_after(&self, after: u64) -> Option<(u64, Vec<Bodies>)> {
        self.unfinished.range(after + 1..).next().map(|(fact, bodies)| (*fact, bodies.clone()))
    }

    /// Whether nothing that this fact names is there any more.
    pub(crate) fn is_finished(&self, fact: u64) -> bool {
        !self.unfinished.contains_key(&fact)
    }

    /// Forgets what is before this entry.
    pub(crate) fn forget_before(&mut self, first: u64) {
        self.by_entry = self.by_entry.split_off(&first);
        self.unfinished.retain(|fact, _| *fact >= first);
    }

    /// Looks through the segments, from this place in the first of them on, for facts. It goes from head to head, and
    /// believes only frames that are whole.
    pub(crate) fn ahead(disk: &dyn Disk, segments: &[u64], from: u64, mark: Option<FrameMark>) -> io::Result<Holes> {
        let mut holes = Holes::default();
        for (position, first) in segments.iter().enumerate() {
            let file = disk.open_read(&segment_name(*first))?;
            let mut offset = if position == 0 { from } else { SEGMENT_HEADER_SIZE_BYTES as u64 };
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                read_onto(file.as_ref(), offset, FRAME_HEAD_SIZE_BYTES, &mut bytes)?;
                let Some(head) = Head::parse(&bytes).ok().filter(|head| mark.is_none_or(|mark| mark == head.mark))
                else {
                    break;
                };
                if is_own_effect(head.meta.kind) {
                    holes.take_frame(file.as_ref(), offset, &head, &mut bytes)?;
                }
                offset += u64::from(head.length);
            }
        }
        Ok(holes)
    }

    fn take_frame(&mut self, file: &dyn DiskFile, offset: u64, head: &Head, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        read_onto(file, offset, head.length as usize, bytes)?;
        if let Ok(frame) = Frame::check(bytes) {
            self.take(head.meta.sequence, head.meta.kind, frame.payload);
        }
        Ok(())
    }

    /// What is to be made of a body whose commitment does not hold.
    ///
    /// Invariant: it is a hole only where a fact names it; and of one that is said to be gone there is nothing but zeros.
    pub(crate) fn judge(&self, sequence: u64, index: usize, is_zero: bool) -> Verdict {
        if !self.names(sequence, index) {
            return Verdict::Damaged;
        }
        if is_zero || self.may_be_half_gone(sequence, index) { Verdict::Hole } else { Verdict::NotGone }
    }
}

/// What a body is whose commitment does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Hole,
    /// It should be zeros, and is not.
    NotGone,
    Damaged,
}
