//! The walks over what was recorded before some time: one gathers bodies to be redacted, the other finds what can be trimmed.

use bytes::Bytes;

use crate::entry::{Entry, bare_size_bytes, is_own_effect, is_reserved_kind};
use crate::journal::{Journal, ReadError};
use crate::redaction::{Bodies, Body};
use crate::trim::Trim;

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
            let (entries, damaged) = read_up_to_damage(journal, self.next, wanted).map_err(&unread)?;
            if let Some(damaged) = damaged.filter(|damaged| *damaged == self.next) {
                tracing::error!(
                    entry = damaged,
                    "an entry is damaged: what stands beside it stays, and the retention goes on behind it"
                );
                self.next = damaged + 1;
                continue;
            }
            self.is_ended = entries.is_empty();
            for entry in entries {
                self.is_ended |= is_young(&entry, self.before);
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

/// Entries from one on, up to one that is damaged, and which that is.
fn read_up_to_damage(journal: &dyn Journal, from: u64, wanted: usize) -> Result<(Vec<Entry>, Option<u64>), ReadError> {
    match journal.read(from, wanted) {
        Err(ReadError::Damaged { sequence, .. }) if sequence >= from => {
            let whole = usize::try_from(sequence - from).unwrap_or(0);
            let entries = if whole == 0 { Vec::new() } else { journal.read(from, whole)? };
            Ok((entries, Some(sequence)))
        }
        entries => Ok((entries?, None)),
    }
}

/// The time of the journal's own entries is the clock's, before anybody vouched for it: it says nothing.
fn is_young(entry: &Entry, before: i64) -> bool {
    entry.recorded_at >= before && !is_reserved_kind(entry.kind)
}

/// The beginning of a journal that can be trimmed.
///
/// Invariant: of what goes, every entry but those by which the journal tells of its own effects is kept, without its bodies. So whoever
/// reads facts, receipts or statements finds the same as before, and only bodies are gone, as after a redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldSegments {
    /// The first entry that stays whole.
    pub first_kept: u64,
    /// Of those before it, the ones to be kept without bodies; from an earlier trim's on.
    pub kept: Vec<u64>,
    /// How many entries are not held whole any more once they go.
    pub entries: u64,
    /// What the files take that go.
    pub size: Held,
    /// What those take that are to be kept: the new base holds them all, also those of the one before.
    pub kept_bytes: u64,
}

/// What files of a journal hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// How many segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the entries that an earlier trim kept.
    pub kept_bytes: u64,
}

impl OldSegments {
    /// Those of which every entry was recorded before this time, in microseconds, is not after `last`, and `may_go` with its bodies. None
    /// where no whole segment can go. Blocks.
    pub fn find<E>(
        journal: &dyn Journal,
        before: i64,
        last: u64,
        unread: impl Fn(ReadError) -> E,
        mut may_go: impl FnMut(&Entry, &[Body]) -> Result<bool, E>,
    ) -> Result<Option<OldSegments>, E> {
        let mut kept: Vec<u64> =
            std::iter::successors(journal.kept_from(1), |kept| journal.kept_from(kept + 1)).collect();
        let first = journal.first_sequence();
        let (mut next, earlier, mut sizes) = (first, kept.len(), Vec::new());
        'walk: loop {
            // What is damaged stays, and all behind it.
            let (entries, _) = read_up_to_damage(journal, next, ENTRIES_READ_AT_ONCE).map_err(&unread)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let bodies = match entry.commitments.len() {
                    0 => Vec::new(),
                    _ => journal.bodies(entry.sequence).map_err(&unread)?,
                };
                let stays = !may_go(&entry, &bodies)? && !concord_faults::planted("trim-what-somebody-waits-for");
                if entry.sequence > last || is_young(&entry, before) || stays {
                    break 'walk;
                }
                if !is_own_effect(entry.kind) && !concord_faults::planted("trim-what-was-said") {
                    sizes.push(bare_size_bytes(&entry));
                    kept.push(entry.sequence);
                }
                next = entry.sequence + 1;
            }
        }
        let Some(first_kept) = journal.trim_point(next) else { return Ok(None) };
        kept.retain(|sequence| *sequence < first_kept);
        let (entries, size) = (first_kept.saturating_sub(first), journal.held_before(first_kept));
        let kept_bytes = size.kept_bytes + sizes.iter().take(kept.len().saturating_sub(earlier)).sum::<u64>();
        Ok(Some(OldSegments { first_kept, kept, entries, size, kept_bytes }))
    }

    /// Whether as much goes as is written: what a trim keeps is written anew each time, and grows with the journal's age.
    pub fn is_worth_it(&self, state: &[u8]) -> bool {
        self.size.bytes >= self.base_bytes(state)
    }

    /// What the base takes that is to be written, with this state.
    pub fn base_bytes(&self, state: &[u8]) -> u64 {
        self.kept_bytes + state.len() as u64
    }

    /// The trim by which they go behind a base that carries this state.
    pub fn into_trim(self, state: Bytes) -> Trim {
        Trim { first_kept: self.first_kept, state, kept: self.kept }
    }
}
