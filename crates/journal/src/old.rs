//! The walk over what was recorded before some time, which gathers bodies to be redacted.

use crate::entry::{Entry, is_reserved_kind};
use crate::journal::{Journal, ReadError};
use crate::redaction::Bodies;

/// What is redacted at once: for so long whoever appends waits.
const BATCH_SIZE_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Runs of bodies of one batch.
const BATCH_RUNS_MAX: usize = 10_000;
const ENTRIES_READ_AT_ONCE: usize = 256;

/// Goes through a journal from its beginning to what is too young, and gathers bodies in batches of bounded size. Which may go is
/// the caller's to say.
#[derive(Debug)]
pub struct OldEntries {
    before: i64,
    last: u64,
    next: u64,
    is_ended: bool,
}

impl OldEntries {
    /// Of what was recorded before this time, in microseconds, up to the entry `last`.
    pub fn new(journal: &dyn Journal, before: i64, last: u64) -> Self {
        Self { before, last, next: journal.first_sequence(), is_ended: false }
    }

    /// Whether all of it was gone through.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// The next bodies that may go; none at the end. `look` adds those of one entry and says how many bytes they take. Blocks.
    pub fn gather<E>(
        &mut self,
        journal: &dyn Journal,
        unread: impl Fn(ReadError) -> E,
        mut look: impl FnMut(&Entry, &mut Vec<Bodies>) -> Result<u64, E>,
    ) -> Result<Vec<Bodies>, E> {
        let (mut bodies, mut size) = (Vec::new(), 0);
        while !self.is_ended && size < BATCH_SIZE_MAX_BYTES && bodies.len() < BATCH_RUNS_MAX {
            let left = self.last.saturating_add(1).saturating_sub(self.next);
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(ENTRIES_READ_AT_ONCE);
            let entries = journal.read(self.next, wanted).map_err(&unread)?;
            self.is_ended = entries.is_empty();
            for entry in entries {
                // The time of the journal's own entries is the clock's, before anybody vouched for it.
                if entry.recorded_at >= self.before && !is_reserved_kind(entry.kind) {
                    self.is_ended = true;
                }
                if self.is_ended || size >= BATCH_SIZE_MAX_BYTES || bodies.len() >= BATCH_RUNS_MAX {
                    break;
                }
                size += look(&entry, &mut bodies)?;
                self.next = entry.sequence + 1;
            }
        }
        Ok(bodies)
    }
}
