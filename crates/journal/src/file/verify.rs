//! Reading a journal's folder without opening it: no lock, nothing written, beside a running writer.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::base;
use super::disk::Disk;
use super::fault::{Damage, Fault};
use super::frame::Frame;
use super::scan::{ScanError, Scanner, Step, Unstarted};
use crate::digest::Tail;
use crate::entry::Entry;

/// What a whole journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many entries hold.
    pub entries: u64,
    /// The first of them; 0 if there is none.
    pub first: u64,
    /// The last of them; none if nothing whole is there yet.
    pub tail: Option<Tail>,
    /// How many segment files hold them.
    pub segments: u64,
    /// How many bytes of files were verified.
    pub bytes: u64,
    /// How many entries of before the first can be read on from the base of a trimmed journal; none without a base.
    pub kept_entries: Option<u64>,
    /// How many bodies are gone by redaction.
    pub redacted_bodies: u64,
    /// What follows them.
    pub unfinished: Option<Unfinished>,
}

/// A commit that is being written, or whose writing was interrupted; then the next open cuts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The segment file.
    pub file: String,
    /// Where in it the unfinished frame or header begins.
    pub offset: u64,
    /// How much of it there is.
    pub bytes: u64,
}

/// A journal does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Something in it is not as it was written.
    #[error("{damage}; {}", advice(*.next_open_cuts))]
    Damaged {
        /// File, byte, expected entry, and what is wrong.
        damage: Damage,
        /// It is in the last commit: the next open would cut it and begin a new history.
        next_open_cuts: bool,
    },
    /// The storage cannot be read.
    #[error("cannot read {file}: {source}")]
    Disk {
        /// The file.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
}

fn advice(next_open_cuts: bool) -> &'static str {
    if next_open_cuts {
        "it is in the last commit: the next open would cut it and begin a new history"
    } else {
        "it is before the last commit, and nothing is cut; content is asked for again from peers while the process runs and somebody \
         waits for it, all else is put back from a backup"
    }
}

/// Verifies every bit of the journal on `disk`, from its first entry, or its base, to its last whole commit.
pub fn verify(disk: Arc<dyn Disk>) -> Result<Verified, VerifyError> {
    Ok(scrub(disk, |_| ControlFlow::Continue(()))?.unwrap_or_default())
}

/// The same in steps of [`SCRUB_STEP_SIZE_BYTES`] with `between` called after each, which may wait, or break it off.
pub(crate) fn scrub(
    disk: Arc<dyn Disk>,
    mut between: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Verified>, VerifyError> {
    loop {
        let (began, outcome) = scrub_once(&disk, &mut between);
        let Err(error) = outcome else { return outcome };
        // A writer trimmed meanwhile and took away what was to be read: then all begins again behind the new base. By its
        // name alone a base says nothing: it may have been written still when this began.
        let is_other = match base::choose(disk.as_ref()) {
            Ok(Ok(chosen)) => began != Some(chosen.base.map(|base| base.first)),
            _ => false,
        };
        if !is_other {
            return Err(error);
        }
    }
}

/// What was found; and the base that it began with, if it began at all.
fn scrub_once(
    disk: &Arc<dyn Disk>,
    between: &mut impl FnMut(u64) -> ControlFlow<()>,
) -> (Option<Option<u64>>, Result<Option<Verified>, VerifyError>) {
    match walk(Arc::clone(disk), false) {
        Ok(walk) => (Some(walk.scanner.base.as_ref().map(|base| base.first)), scrub_from(walk, between)),
        Err(error) => (None, Err(error)),
    }
}

fn scrub_from(
    mut walk: Walk,
    between: &mut impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Verified>, VerifyError> {
    let (mut summed, mut told) = (Summed::default(), 0);
    while let Some(step) = walk.advance()? {
        summed.add(&step, &walk);
        if summed.bytes - told >= SCRUB_STEP_SIZE_BYTES {
            told = summed.bytes;
            if between(told).is_break() {
                return Ok(None);
            }
        }
    }
    Ok(Some(summed.finish(walk)))
}

/// What a scrub verifies without a pause.
pub const SCRUB_STEP_SIZE_BYTES: u64 = 1024 * 1024;

#[derive(Default)]
struct Summed {
    entries: u64,
    segments: u64,
    bytes: u64,
    redacted_bodies: u64,
}

impl Summed {
    fn add(&mut self, step: &Step, walk: &Walk) {
        match step {
            Step::Segment { .. } => {
                self.segments += 1;
                self.bytes += super::frame::SEGMENT_HEADER_SIZE_BYTES as u64;
            }
            Step::Entry { length, .. } => {
                self.entries += 1;
                self.bytes += u64::from(*length);
                self.redacted_bodies += walk.scanner.frame_holes.len() as u64;
            }
            Step::SegmentEnd | Step::End | Step::Stopped { .. } => {}
        }
    }

    fn finish(self, walk: Walk) -> Verified {
        let Summed { entries, segments, bytes, redacted_bodies } = self;
        let last = walk.scanner.chain.tail;
        let tail = (last.sequence > 0).then_some(last);
        let first = tail.map_or(0, |tail| tail.sequence + 1 - entries);
        let base = walk.scanner.base.as_ref();
        let bytes = bytes + base.map_or(0, |base| base.length);
        let kept_entries = base.map(|base| base.kept().count() as u64);
        Verified { entries, first, tail, segments, bytes, kept_entries, redacted_bodies, unfinished: walk.unfinished }
    }
}

/// The entries that the journal on `disk` holds, in order, each verified before it is given: first those that trims kept, without
/// bodies, then the whole ones, whose bodies are verified too and given only if `with_bodies`.
pub fn walk(disk: Arc<dyn Disk>, with_bodies: bool) -> Result<Walk, VerifyError> {
    let scanner = Scanner::new(Arc::clone(&disk))?;
    Ok(Walk { disk, scanner, kept_through: 0, with_bodies, unfinished: None, has_ended: false })
}

/// Iterates over entries; ends at the last whole one, or after an error.
pub struct Walk {
    disk: Arc<dyn Disk>,
    scanner: Scanner,
    /// The last kept entry that was given.
    kept_through: u64,
    with_bodies: bool,
    unfinished: Option<Unfinished>,
    has_ended: bool,
}

impl Walk {
    /// What follows the last entry; known once the walk has ended.
    pub fn unfinished(&self) -> Option<&Unfinished> {
        self.unfinished.as_ref()
    }

    fn advance(&mut self) -> Result<Option<Step>, VerifyError> {
        if self.has_ended {
            return Ok(None);
        }
        let step = self.scanner.step();
        self.has_ended = !matches!(step, Ok(Step::Segment { .. } | Step::Entry { .. } | Step::SegmentEnd));
        match step? {
            Step::End => Ok(None),
            Step::Stopped { damage, in_last_segment } => {
                self.unfinished = Some(self.judge(damage, in_last_segment)?);
                Ok(None)
            }
            step => Ok(Some(step)),
        }
    }

    /// Only a frame that the file ends in, in the last segment, with nothing later inside it, is unfinished.
    fn judge(&self, damage: Damage, in_last_segment: bool) -> Result<Unfinished, VerifyError> {
        let is_later = self.scanner.later_commit_after(&damage)?;
        if damage.what == Fault::Unfinished && in_last_segment && !is_later {
            let bytes = self.scanner.file_length().saturating_sub(damage.offset);
            return Ok(Unfinished { file: damage.file, offset: damage.offset, bytes });
        }
        let is_stray = matches!(damage.what, Fault::SegmentMissing { found } if found < damage.sequence);
        let next_open_cuts = !(is_later || is_stray || damage.what.is_foreign());
        Err(VerifyError::Damaged { damage, next_open_cuts })
    }

    /// The next entry that a trim kept; none behind the last.
    fn next_kept(&mut self) -> Option<Result<Entry, VerifyError>> {
        let base = self.scanner.base.as_ref()?;
        let sequence = base.kept_from(self.kept_through + 1)?;
        self.kept_through = sequence;
        let frame = base.frame(self.disk.as_ref(), sequence).transpose()?;
        let frame = frame.map_err(|source| VerifyError::Disk { file: base.name(), source });
        Some(frame.and_then(|(offset, bytes)| {
            Frame::check_owned(&bytes).map(Frame::into_entry).map_err(|what| {
                let damage = Damage { file: base.name(), offset, sequence, what };
                VerifyError::Damaged { damage, next_open_cuts: false }
            })
        }))
    }

    fn current(&self) -> Result<Entry, Fault> {
        let bytes = Bytes::copy_from_slice(self.scanner.frame());
        let frame = Frame::check_owned(&bytes)?;
        let is_hole = |index: usize| self.scanner.frame_holes.contains(&index);
        if self.with_bodies { frame.into_whole_entry(is_hole) } else { Ok(frame.into_entry()) }
    }
}

impl Iterator for Walk {
    type Item = Result<Entry, VerifyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(kept) = self.next_kept() {
            return Some(kept);
        }
        loop {
            match self.advance() {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(Step::Entry { offset, .. })) => {
                    let (file, sequence) = (self.scanner.file(), self.scanner.chain.tail.sequence);
                    return Some(self.current().map_err(|what| VerifyError::Damaged {
                        damage: Damage { file, offset: u64::from(offset), sequence, what },
                        next_open_cuts: false,
                    }));
                }
                Ok(Some(_)) => {}
            }
        }
    }
}

impl From<Unstarted> for VerifyError {
    fn from(error: Unstarted) -> VerifyError {
        match error {
            Unstarted::Scan(error) => error.into(),
            Unstarted::Damaged(damage) => VerifyError::Damaged { damage, next_open_cuts: false },
        }
    }
}

impl From<ScanError> for VerifyError {
    fn from(error: ScanError) -> VerifyError {
        VerifyError::Disk { file: error.file, source: error.source }
    }
}
