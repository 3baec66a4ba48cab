//! Walks all segments from the first entry, verifying every bit, in bounded memory.
//!
//! It works beside a running writer: it asks for a file's length, and for further segments, again before it says
//! that something ends.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::base::{self, BaseFile, Chosen};
use super::chain::Chain;
use super::disk::{Disk, read_onto};
use super::fault::{Damage, Fault};
use super::frame::{
    BadBody, FRAME_HEAD_SIZE_BYTES, FRAME_MAGIC, Frame, FrameMark, Head, SEGMENT_HEADER_SIZE_BYTES, SegmentHeader,
};
use super::holes::{Holes, Verdict};
use super::window::Window;
use crate::digest::Digest;
use crate::trim::{KIND_TRIMMED, read_anchor};

/// The name of the segment whose first entry is `first`.
pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:020}.segment")
}

/// The sequence that a file's name begins with, if it ends in `suffix`.
fn named_sequence(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix).filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The first entries of all segments by their files' names, in order; other files are none of ours.
pub(crate) fn list_segments(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    list_sequences(disk, ".segment")
}

/// The sequences of all files whose names end in `suffix`, in order and each once, however often the system lists it.
pub(crate) fn list_sequences(disk: &dyn Disk, suffix: &str) -> io::Result<Vec<u64>> {
    let mut sequences: Vec<u64> = disk.list()?.iter().filter_map(|name| named_sequence(name, suffix)).collect();
    sequences.sort_unstable();
    sequences.dedup();
    Ok(sequences)
}

/// The storage could not be read.
#[derive(Debug)]
pub(crate) struct ScanError {
    pub(crate) file: String,
    pub(crate) source: io::Error,
}

/// A walk cannot begin.
#[derive(Debug)]
pub(crate) enum Unstarted {
    Scan(ScanError),
    /// The base file is damaged.
    Damaged(Damage),
}

impl From<ScanError> for Unstarted {
    fn from(error: ScanError) -> Unstarted {
        Unstarted::Scan(error)
    }
}

/// One step of the walk.
pub(crate) enum Step {
    /// A segment's header holds.
    Segment { first: u64, previous: Digest },
    /// The next entry holds; [`Scanner::frame`] has its bytes.
    Entry { offset: u32, length: u32, kind: u16 },
    /// The segment ends, and another follows.
    SegmentEnd,
    /// Everything holds, up to the end.
    End,
    /// Something does not.
    Stopped { damage: Damage, in_last_segment: bool },
}

/// The walk.
pub(crate) struct Scanner {
    disk: Arc<dyn Disk>,
    /// The segments known so far, by first entry.
    pub(crate) segments: Vec<u64>,
    /// Which of them is being read.
    pub(crate) position: usize,
    window: Option<Window>,
    /// Where the next frame begins; 0 while the header is not verified.
    offset: u64,
    frame: (u64, usize),
    /// The bodies of that entry that are holes.
    pub(crate) frame_holes: Vec<usize>,
    /// What the facts from some place on name; looked for when the first hole is met.
    holes: Option<Holes>,
    /// What stands for the entries before the first.
    pub(crate) base: Option<Arc<BaseFile>>,
    /// Bases that are not whole, of interrupted trims.
    pub(crate) torn_bases: Vec<u64>,
    pub(crate) chain: Chain,
}

enum Outcome {
    Step(Step),
    Fault(Fault),
    Incomplete,
    SegmentEnd,
}

impl Scanner {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Result<Scanner, Unstarted> {
        let Chosen { base, torn } = base::choose(disk.as_ref()).map_err(in_folder)?.map_err(Unstarted::Damaged)?;
        let mut segments = list_segments(disk.as_ref()).map_err(in_folder)?;
        segments.retain(|first| base.as_ref().is_none_or(|base| *first >= base.first));
        let base = base.map(Arc::new);
        Ok(Scanner {
            disk,
            segments,
            position: 0,
            window: None,
            offset: 0,
            frame: (0, 0),
            frame_holes: Vec::new(),
            holes: None,
            torn_bases: torn,
            chain: base.as_ref().map_or(Chain::ORIGIN, |base| base.chain.clone()),
            base,
        })
    }

    /// The file being read.
    pub(crate) fn file(&self) -> String {
        self.segments.get(self.position).copied().map_or_else(String::new, segment_name)
    }

    /// The length of the file being read.
    pub(crate) fn file_length(&self) -> u64 {
        self.window.as_ref().map_or(0, Window::length)
    }

    /// The bytes of the entry of the last step.
    pub(crate) fn frame(&self) -> &[u8] {
        self.window.as_ref().map_or(&[], |window| window.held(self.frame.0, self.frame.1))
    }

    pub(crate) fn step(&mut self) -> Result<Step, ScanError> {
        loop {
            let Some(first) = self.segments.get(self.position).copied() else {
                return Ok(Step::End);
            };
            let outcome = self.check_next(first);
            match outcome.map_err(|source| ScanError { file: segment_name(first), source })? {
                Outcome::Step(step) => return Ok(step),
                Outcome::Fault(fault) => {
                    let in_last_segment = !self.has_successor()?;
                    return Ok(self.stopped(fault, in_last_segment));
                }
                Outcome::Incomplete => {
                    // A writer may have been halfway; and what is not the last segment any more has its final
                    // length only now.
                    if self.grown()? {
                        continue;
                    }
                    let in_last_segment = !self.has_successor()?;
                    if in_last_segment || !self.grown()? {
                        return Ok(self.stopped(Fault::Unfinished, in_last_segment));
                    }
                }
                Outcome::SegmentEnd => {
                    if !self.has_successor()? {
                        return Ok(Step::End);
                    }
                    if !self.grown()? {
                        self.next_segment();
                        return Ok(Step::SegmentEnd);
                    }
                }
            }
        }
    }

    /// The segment that is read next and the one after it, where the walk stands before a segment that is not the last.
    pub(crate) fn before_full_segment(&self) -> Option<(u64, u64)> {
        let is_before = self.window.is_none() && self.offset == 0;
        let next = self.segments.get(self.position + 1).filter(|_| is_before)?;
        Some((*self.segments.get(self.position)?, *next))
    }

    /// Goes on behind the segment, as if it had been read to where `chain` ends.
    pub(crate) fn pass_segment(&mut self, chain: Chain) {
        self.chain = chain;
        self.next_segment();
    }

    fn next_segment(&mut self) {
        self.position += 1;
        self.window = None;
        self.offset = 0;
    }

    fn check_next(&mut self, first: u64) -> io::Result<Outcome> {
        let mut window = match self.window.take() {
            Some(window) => window,
            None if first != self.chain.next_sequence() => {
                return Ok(Outcome::Fault(Fault::SegmentMissing { found: first }));
            }
            None => Window::new(self.disk.open_read(&segment_name(first))?)?,
        };
        let outcome =
            if self.offset == 0 { self.check_header(&mut window, first) } else { self.check_frame(&mut window) };
        self.window = Some(window);
        outcome
    }

    fn check_header(&mut self, window: &mut Window, first: u64) -> io::Result<Outcome> {
        let bytes = window.bytes(0, SEGMENT_HEADER_SIZE_BYTES)?;
        if bytes.len() < SEGMENT_HEADER_SIZE_BYTES {
            return Ok(Outcome::Incomplete);
        }
        let header = SegmentHeader::parse(bytes);
        let entered = header.and_then(|header| self.chain.enter_segment(&header).map(|()| header.previous));
        Ok(match entered {
            Err(fault) => Outcome::Fault(fault),
            Ok(previous) => {
                self.offset = SEGMENT_HEADER_SIZE_BYTES as u64;
                Outcome::Step(Step::Segment { first, previous })
            }
        })
    }

    fn check_frame(&mut self, window: &mut Window) -> io::Result<Outcome> {
        let remaining = window.length().saturating_sub(self.offset);
        if remaining == 0 {
            return Ok(Outcome::SegmentEnd);
        }
        let Ok(offset) = u32::try_from(self.offset) else {
            return Ok(Outcome::Fault(Fault::SegmentLength));
        };
        let head = window.bytes(self.offset, FRAME_HEAD_SIZE_BYTES)?;
        if head.len() < FRAME_HEAD_SIZE_BYTES {
            let begins_well = head.iter().zip(FRAME_MAGIC).all(|(found, wanted)| *found == wanted);
            return Ok(if begins_well { Outcome::Incomplete } else { Outcome::Fault(Fault::FrameMagic) });
        }
        let length = match Head::parse(head) {
            Err(fault) => return Ok(Outcome::Fault(fault)),
            Ok(head) => head.length,
        };
        let bytes = window.bytes(self.offset, length as usize)?;
        let is_whole = bytes.len() == length as usize;
        let begins_segment = self.offset == SEGMENT_HEADER_SIZE_BYTES as u64;
        let mut chain = self.chain.clone();
        let checked = Frame::check(bytes).and_then(|frame| {
            chain.extend(&frame, begins_segment)?;
            if frame.head.meta.kind == KIND_TRIMMED
                && let (Some((first, digest)), Some(base)) = (read_anchor(frame.payload), &self.base)
                && (first == base.first && digest != base.digest)
            {
                return Err(Fault::Base);
            }
            Ok((frame.head.meta.kind, frame.bad_bodies()?))
        });
        let checked = match checked {
            Ok((kind, bad)) => self.judge_bodies(&chain, &bad)?.map(|holes| (kind, holes)),
            Err(fault) => Err(fault),
        };
        Ok(match checked {
            // Only what the end of the file explains is unfinished; anything else is wrong already.
            Err(Fault::Unfinished) if !is_whole => Outcome::Incomplete,
            Err(fault) => Outcome::Fault(fault),
            Ok((kind, holes)) => {
                self.chain = chain;
                self.frame = (self.offset, length as usize);
                self.frame_holes = holes;
                self.offset += u64::from(length);
                Outcome::Step(Step::Entry { offset, length, kind })
            }
        })
    }

    /// The holes among the bodies of the entry with which `chain` ends, or what is wrong with them.
    fn judge_bodies(&mut self, chain: &Chain, bad: &[BadBody]) -> io::Result<Result<Vec<usize>, Fault>> {
        let (sequence, mut holes) = (chain.tail.sequence, Vec::new());
        for body in bad {
            let known = self.holes.as_ref().map(|holes| holes.judge(sequence, body.index, body.is_zero));
            if known != Some(Verdict::Hole) {
                // The first hole, or a writer redacts meanwhile: what it has said by now is on the disk, also in segments
                // that it began meanwhile.
                self.list_new_segments().map_err(|error| error.source)?;
                let segments = self.segments.get(self.position..).unwrap_or_default();
                self.holes = Some(Holes::ahead(self.disk.as_ref(), segments, self.offset, chain.mark)?);
            }
            let is_zero = body.is_zero || self.is_zero_by_now(body)?;
            match self.holes.as_ref().map(|holes| holes.judge(sequence, body.index, is_zero)) {
                Some(Verdict::Hole) => holes.push(body.index),
                Some(Verdict::NotGone) => return Ok(Err(Fault::NotGone { index: body.index })),
                Some(Verdict::Damaged) | None => return Ok(Err(Fault::Commitment { index: body.index })),
            }
        }
        Ok(Ok(holes))
    }

    /// Reads the body again: it may have been overwritten since.
    fn is_zero_by_now(&self, body: &BadBody) -> io::Result<bool> {
        let file = self.disk.open_read(&self.file())?;
        let mut bytes = Vec::new();
        read_onto(file.as_ref(), self.offset + body.offset, body.size, &mut bytes)?;
        Ok(bytes.len() == body.size && bytes.iter().all(|byte| *byte == 0))
    }

    fn grown(&mut self) -> Result<bool, ScanError> {
        let grown = self.window.as_mut().map_or(Ok(false), Window::refresh);
        grown.map_err(|source| ScanError { file: self.file(), source })
    }

    fn has_successor(&mut self) -> Result<bool, ScanError> {
        if self.position + 1 >= self.segments.len() {
            self.list_new_segments()?;
        }
        Ok(self.position + 1 < self.segments.len())
    }

    /// Only what is new: a trim may have removed what was passed.
    fn list_new_segments(&mut self) -> Result<(), ScanError> {
        let last = self.segments.last().copied();
        let listed = list_segments(self.disk.as_ref()).map_err(in_folder)?;
        let is_new = |first: &u64| last.map_or(*first >= self.chain.next_sequence(), |last| *first > last);
        self.segments.extend(listed.into_iter().filter(is_new));
        Ok(())
    }

    fn stopped(&self, what: Fault, in_last_segment: bool) -> Step {
        let sequence = self.chain.next_sequence();
        let damage = Damage { file: self.file(), offset: self.offset, sequence, what };
        Step::Stopped { damage, in_last_segment }
    }

    /// Looks from the place of the damage to the end for a whole frame of a later commit than the damaged one.
    ///
    /// The damaged entry is the next of the chain, so whatever its commit is, a commit that begins after it is a
    /// later one.
    pub(crate) fn later_commit_after(&self, damage: &Damage) -> Result<bool, ScanError> {
        for (index, first) in self.segments.iter().skip(self.position).enumerate() {
            let file = segment_name(*first);
            // What a running writer added since the damage was seen says nothing about it.
            let seen = if index == 0 { self.window.as_ref().map(Window::length) } else { None };
            let from = if index == 0 { damage.offset } else { 0 };
            let found = self.search(&file, from..seen.unwrap_or(u64::MAX), damage.sequence);
            if found.map_err(|source| ScanError { file, source })? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn search(&self, file: &str, range: Range<u64>, damaged: u64) -> io::Result<bool> {
        let mark = self.chain.proven_mark();
        let mut window = Window::new(self.disk.open_read(file)?)?;
        window.limit(range.end);
        let mut offset = range.start;
        loop {
            let chunk = window.bytes(offset, SEARCH_STEP_SIZE_BYTES)?;
            if chunk.len() < FRAME_HEAD_SIZE_BYTES {
                return Ok(false);
            }
            match chunk.windows(FRAME_MAGIC.len()).position(|bytes| bytes == FRAME_MAGIC) {
                None => offset += (chunk.len() - FRAME_MAGIC.len() + 1) as u64,
                Some(distance) => {
                    offset += distance as u64;
                    if is_later_frame(&mut window, offset, damaged, mark)? {
                        return Ok(true);
                    }
                    offset += 1;
                }
            }
        }
    }
}

const SEARCH_STEP_SIZE_BYTES: usize = 64 * 1024;

fn is_later_frame(window: &mut Window, offset: u64, damaged: u64, mark: Option<FrameMark>) -> io::Result<bool> {
    let Ok(head) = Head::parse(window.bytes(offset, FRAME_HEAD_SIZE_BYTES)?) else {
        return Ok(false);
    };
    let is_later = head.meta.commit_first > damaged && head.meta.sequence >= head.meta.commit_first;
    if !is_later || mark.is_some_and(|mark| mark != head.mark) {
        return Ok(false);
    }
    let length = head.length as usize;
    let bytes = window.bytes(offset, length)?;
    Ok(bytes.len() == length && Frame::check(bytes).and_then(|frame| frame.check_bodies()).is_ok())
}

fn in_folder(source: io::Error) -> ScanError {
    ScanError { file: "the journal's folder".to_owned(), source }
}
