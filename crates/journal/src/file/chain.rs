//! What the entries so far say about the next one.

use super::fault::Fault;
use super::frame::{Frame, FrameMark, SegmentHeader};
use crate::digest::Tail;
use crate::history::{HISTORY_BEGUN_VERSION, HistoryBegun, KIND_HISTORY_BEGUN};

/// The end of the entries that hold.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) tail: Tail,
    pub(crate) commit_first: u64,
    pub(crate) recorded_at: i64,
    /// Not known before the first segment's header, and not certain before the first entry.
    pub(crate) mark: Option<FrameMark>,
}

impl Chain {
    pub(crate) const ORIGIN: Chain = Chain { tail: Tail::ORIGIN, commit_first: 0, recorded_at: i64::MIN, mark: None };

    pub(crate) fn next_sequence(&self) -> u64 {
        self.tail.sequence + 1
    }

    /// The mark, once an entry proves it.
    pub(crate) fn proven_mark(&self) -> Option<FrameMark> {
        self.mark.filter(|_| self.tail.sequence > 0)
    }

    /// Checks the header of the segment that begins with the next entry.
    pub(crate) fn enter_segment(&mut self, header: &SegmentHeader) -> Result<(), Fault> {
        if header.first_sequence != self.next_sequence() {
            return Err(Fault::SegmentFirst { found: header.first_sequence });
        }
        if header.previous != self.tail.digest {
            return Err(Fault::SegmentPrevious { found: header.previous });
        }
        if *self.mark.get_or_insert(header.mark) != header.mark {
            return Err(Fault::Mark);
        }
        Ok(())
    }

    /// Checks that the frame is the next one, and makes it the last one. Its own digest has been checked.
    pub(crate) fn extend(&mut self, frame: &Frame<&[u8]>, begins_segment: bool) -> Result<(), Fault> {
        let meta = &frame.head.meta;
        if self.mark != Some(frame.head.mark) {
            return Err(Fault::Mark);
        }
        if meta.sequence != self.next_sequence() {
            return Err(Fault::Sequence { found: meta.sequence });
        }
        if meta.previous != self.tail.digest {
            return Err(Fault::Previous { found: meta.previous });
        }
        let begins_commit = meta.commit_first == meta.sequence;
        if !begins_commit && (begins_segment || meta.commit_first != self.commit_first) {
            return Err(Fault::Commit { found: meta.commit_first });
        }
        if meta.kind == KIND_HISTORY_BEGUN {
            self.check_begun(frame)?;
        } else if meta.history != self.tail.history || self.tail.sequence == 0 {
            return Err(Fault::History { found: meta.history });
        }
        self.tail = Tail { history: meta.history, sequence: meta.sequence, digest: frame.head.digest };
        self.commit_first = meta.commit_first;
        self.recorded_at = meta.recorded_at;
        Ok(())
    }

    fn check_begun(&self, frame: &Frame<&[u8]>) -> Result<(), Fault> {
        let meta = &frame.head.meta;
        if meta.version != HISTORY_BEGUN_VERSION {
            return Err(Fault::HistoryVersion { found: meta.version });
        }
        let parent = (self.tail.sequence > 0).then_some(self.tail);
        let expected = HistoryBegun { history: meta.history, parent };
        match HistoryBegun::decode(frame.payload) {
            Ok(begun) if begun == expected && meta.blob_count == 0 => Ok(()),
            _ => Err(Fault::HistoryBegun),
        }
    }
}
