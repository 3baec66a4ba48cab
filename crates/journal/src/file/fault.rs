//! What can be wrong with the bytes of a journal, and where.

use crate::digest::{Digest, HistoryId};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends before what must stand here is complete.
    #[error("the file ends before the frame is complete")]
    Unfinished,
    /// The file does not begin as a segment does.
    #[error("this is not the header of a segment")]
    SegmentMagic,
    /// Another version of the program wrote this; it is never cut.
    #[error("segment format {found} is not known to this version; open it with the version that wrote it")]
    SegmentFormat {
        /// The format found.
        found: u32,
    },
    /// The header of the segment names another first entry.
    #[error("the segment's header says that it begins with entry {found}")]
    SegmentFirst {
        /// The entry named.
        found: u64,
    },
    /// The header of the segment follows another entry.
    #[error("the segment's header says that it follows an entry with the digest {found}")]
    SegmentPrevious {
        /// The digest named.
        found: Digest,
    },
    /// A file is missing before this one, or this one does not belong here.
    #[error("the next segment file begins with entry {found}; a file is missing or does not belong here")]
    SegmentMissing {
        /// The first entry by the file's name.
        found: u64,
    },
    /// The file is longer than any segment may be.
    #[error("the segment is longer than any may be")]
    SegmentLength,
    /// No frame begins here.
    #[error("no frame begins here")]
    FrameMagic,
    /// The frame is one of another journal.
    #[error("the frame does not carry this journal's mark")]
    Mark,
    /// The frame's lengths do not agree or are out of bounds.
    #[error("the frame's length does not agree with its content")]
    Length,
    /// The frame is that of another entry.
    #[error("the frame says that it is entry {found}")]
    Sequence {
        /// The entry named.
        found: u64,
    },
    /// The frame follows another entry.
    #[error("the frame says that it follows an entry with the digest {found}")]
    Previous {
        /// The digest named.
        found: Digest,
    },
    /// The frame is of another commit than it can be.
    #[error("the frame says that its commit begins with entry {found}")]
    Commit {
        /// The entry named.
        found: u64,
    },
    /// The frame is of another history, and none begins with it.
    #[error("the frame is of history {found}")]
    History {
        /// The history named.
        found: HistoryId,
    },
    /// The entry that begins a history does not name the right parent.
    #[error("the entry that begins a history does not name the history before it")]
    HistoryBegun,
    /// Another version of the program wrote this; it is never cut.
    #[error("version {found} of a begun history is not known; open it with the version that wrote it")]
    HistoryVersion {
        /// The version found.
        found: u16,
    },
    /// Some bit of head, blob table or payload is not as written.
    #[error("the entry's digest does not hold")]
    Digest,
    /// The base file is not whole, or not the one that the journal names; it is never cut.
    #[error("the base file is not as it was written: what was trimmed is known by it alone")]
    Base,
    /// A redaction of this blob is said to be done, and something of it is there.
    #[error("blob {index} was redacted and is not all zeros")]
    NotGone {
        /// Which one, from 0.
        index: usize,
    },
    /// Some bit of a blob is not as written.
    #[error("the commitment of blob {index} does not hold")]
    Commitment {
        /// Which one, from 0.
        index: usize,
    },
}

impl Fault {
    /// Whole, but beyond this version: cutting it would destroy what a newer version made durable.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Fault::SegmentFormat { .. } | Fault::HistoryVersion { .. } | Fault::Base)
    }
}

/// A place in a journal where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} at byte {offset}, where entry {sequence} is expected: {what}")]
pub struct Damage {
    /// The segment file.
    pub file: String,
    /// Where in it the damaged frame or header begins.
    pub offset: u64,
    /// The entry that should stand there.
    pub sequence: u64,
    /// What is wrong.
    pub what: Fault,
}
