//! A bounded view of a file that is read from front to back.

use std::io;
use std::sync::Arc;

use super::disk::{DiskFile, read_onto};

/// How much is read at once; together with the largest frame it bounds what a walk holds in memory.
const READ_AHEAD_SIZE_BYTES: u64 = 1024 * 1024;

/// The part of a file that is in memory.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    /// The file's length when it was last asked for.
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> io::Result<Window> {
        let length = file.length()?;
        Ok(Window { file, length, start: 0, bytes: Vec::new() })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Ends the view before the file does.
    pub(crate) fn limit(&mut self, length: u64) {
        self.length = self.length.min(length);
    }

    /// Asks for the length again: a writer may have gone on. True if the file has grown.
    pub(crate) fn refresh(&mut self) -> io::Result<bool> {
        let before = std::mem::replace(&mut self.length, self.file.length()?);
        Ok(self.length > before)
    }

    /// The bytes from `offset` on, up to `count` of them; fewer only where the file ends.
    pub(crate) fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let wanted_end = offset.saturating_add(count as u64).min(self.length);
        let held_end = self.start + self.bytes.len() as u64;
        if offset < self.start || wanted_end > held_end {
            self.load(offset, wanted_end)?;
        }
        Ok(self.held(offset, count))
    }

    /// The same of what is in memory already.
    pub(crate) fn held(&self, offset: u64, count: usize) -> &[u8] {
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let rest = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        rest.get(..count).unwrap_or(rest)
    }

    fn load(&mut self, offset: u64, wanted_end: u64) -> io::Result<()> {
        let kept = self.held(offset, usize::MAX).len();
        if kept == 0 || offset < self.start {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.bytes.len() - kept);
        }
        self.start = offset;
        let held_end = offset + self.bytes.len() as u64;
        let ahead_end = wanted_end.max(held_end.saturating_add(READ_AHEAD_SIZE_BYTES)).min(self.length);
        let count = usize::try_from(ahead_end.saturating_sub(held_end)).unwrap_or(0);
        read_onto(self.file.as_ref(), held_end, count, &mut self.bytes)
    }
}
