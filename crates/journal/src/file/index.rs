//! Where each entry stands: four bytes for each that is held whole, in memory; twelve for each that a trim kept, in its base.

use std::sync::Arc;

use super::base::BaseFile;
use crate::digest::Digest;
use crate::entry::is_own_effect;

/// A segment's part of the index.
#[derive(Clone)]
pub(crate) struct SegmentIndex {
    pub(crate) first: u64,
    /// The digest of the entry before it, as its header says.
    pub(crate) previous: Digest,
    /// Where each frame begins; a segment is always shorter than 4 GiB.
    pub(crate) offsets: Vec<u32>,
    /// Where the last frame ends.
    pub(crate) end: u64,
    /// The positions, from 0, of the entries by which the journal tells of its own effects.
    pub(crate) own: Vec<u32>,
}

/// Where one entry stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    /// The first entry of its segment, which names the file.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

/// Every segment, in order.
#[derive(Default)]
pub(crate) struct Index {
    /// What stands for the entries before the first segment, once the journal was trimmed.
    pub(crate) base: Option<Arc<BaseFile>>,
    pub(crate) segments: Vec<SegmentIndex>,
}

impl Index {
    /// The first entry that is held whole.
    pub(crate) fn first(&self) -> u64 {
        let of_base = || self.base.as_ref().map_or(1, |base| base.first);
        self.segments.first().map_or_else(of_base, |segment| segment.first)
    }

    pub(crate) fn begin_segment(&mut self, first: u64, previous: Digest, end: u64) {
        self.segments.push(SegmentIndex { first, previous, offsets: Vec::new(), end, own: Vec::new() });
    }

    /// Adds an entry at the end of the last segment.
    pub(crate) fn push(&mut self, offset: u32, length: u32, kind: u16) {
        if let Some(segment) = self.segments.last_mut() {
            if is_own_effect(kind) {
                segment.own.extend(u32::try_from(segment.offsets.len()));
            }
            segment.offsets.push(offset);
            segment.end = u64::from(offset) + u64::from(length);
        }
    }

    pub(crate) fn locate(&self, sequence: u64) -> Option<Location> {
        let after = self.segments.partition_point(|segment| segment.first <= sequence);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let position = usize::try_from(sequence - segment.first).ok()?;
        let offset = u64::from(*segment.offsets.get(position)?);
        let end = segment.offsets.get(position + 1).map_or(segment.end, |next| u64::from(*next));
        let length = usize::try_from(end.checked_sub(offset)?).ok()?;
        Some(Location { segment: segment.first, offset, length })
    }
}
