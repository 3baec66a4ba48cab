//! Where each entry stands: four bytes per entry, in memory.

/// A segment's part of the index.
pub(crate) struct SegmentIndex {
    pub(crate) first: u64,
    /// Where each frame begins; a segment is always shorter than 4 GiB.
    pub(crate) offsets: Vec<u32>,
    /// Where the last frame ends.
    pub(crate) end: u64,
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
    pub(crate) segments: Vec<SegmentIndex>,
}

impl Index {
    pub(crate) fn begin_segment(&mut self, first: u64, end: u64) {
        self.segments.push(SegmentIndex { first, offsets: Vec::new(), end });
    }

    /// Adds an entry at the end of the last segment.
    pub(crate) fn push(&mut self, offset: u32, length: u32) {
        if let Some(segment) = self.segments.last_mut() {
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
