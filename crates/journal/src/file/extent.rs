//! What a copy of the journal's files has to hold, so that it is the journal up to one tail.

use super::FileJournal;
use super::scan::segment_name;
use crate::digest::Tail;
use crate::journal::Journal as _;

/// The files of a journal as far as they hold its published entries. Since the journal only appends, the same lengths of
/// the same files are a whole journal for as long as the files are there and nothing in them is redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The tail of a journal that consists of exactly these bytes.
    pub tail: Tail,
    /// Each file's name in the journal's folder, and how many of its bytes.
    pub files: Vec<(String, u64)>,
}

impl FileJournal {
    /// What a copy has to hold now.
    pub fn extent(&self) -> Extent {
        loop {
            let tail = self.tail();
            let (last, files) = self.shared.files();
            // A commit is in the index a moment before it is the tail: the two must speak of the same entry.
            if last == tail.sequence {
                return Extent { tail, files };
            }
            std::thread::yield_now();
        }
    }
}

impl super::reader::Shared {
    /// The last entry that the index knows, and its files.
    fn files(&self) -> (u64, Vec<(String, u64)>) {
        self.with_index(|index| {
            let last = index.segments.last().map_or(0, |last| last.first - 1 + last.offsets.len() as u64);
            let base = index.base.iter().map(|base| (base.name(), base.length));
            let segments = index.segments.iter().map(|segment| (segment_name(segment.first), segment.end));
            (last, base.chain(segments).collect())
        })
    }
}
