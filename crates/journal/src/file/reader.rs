//! Reading by sequence: one look-up, one or two reads, and every result verified.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::watch;

use super::base::BaseFile;
use super::chain::Chain;
use super::disk::{Disk, DiskFile, read_onto};
use super::fault::Fault;
use super::frame::{FRAME_HEAD_SIZE_BYTES, Frame, Head, body_row, open_body, rows};
use super::holes::Holes;
use super::index::{Index, Location, SegmentIndex};
use super::scan::segment_name;
use super::seal::Seal;
use crate::blob::{Blob, NONCE_SIZE_BYTES};
use crate::digest::Tail;
use crate::entry::Entry;
use crate::journal::{READ_SIZE_MAX_BYTES, ReadError};
use crate::redaction::Body;
use crate::trim::{Base, KIND_TRIMMED, read_anchor};

/// How many segments are kept open for reading; beyond it the one opened longest ago is closed, and a reader of it
/// pays one more system call.
const OPEN_SEGMENTS_MAX: usize = 32;

/// What is read first of a frame whose bodies are not wanted; most heads, tables and payloads fit.
const PREFIX_READ_SIZE_BYTES: usize = 16 * 1024;

/// What readers and the writer share.
pub(crate) struct Shared {
    disk: Arc<dyn Disk>,
    index: RwLock<Index>,
    pub(crate) tail: watch::Sender<Tail>,
    open_segments: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
    holes: RwLock<Holes>,
    /// The base that was written last for a trim, until that has happened; held while one is written.
    pub(crate) prepared: Mutex<Option<Arc<BaseFile>>>,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, index: Index, tail: Tail) -> Shared {
        let (tail, index) = (watch::Sender::new(tail), RwLock::new(index));
        let (open_segments, holes, prepared) = (Mutex::default(), RwLock::default(), Mutex::default());
        Shared { disk, index, tail, open_segments, holes, prepared }
    }

    /// Makes a durable commit visible: first where its entries stand, then the tail that lets readers ask for them.
    pub(crate) fn publish(&self, tail: Tail, change: impl FnOnce(&mut Index)) {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
        self.tail.send_replace(tail);
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// The seal of the last segment but one, with which `chain` ends.
    pub(crate) fn seal_before_last(&self, chain: &Chain) -> Option<Seal> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let position = index.segments.len().checked_sub(2)?;
        Seal::of(index.segments.get(position)?, chain)
    }

    pub(crate) fn available_bytes(&self) -> io::Result<u64> {
        self.disk.available_bytes()
    }

    /// Looks at where the entries stand; brief, since it holds up the writer.
    pub(crate) fn with_index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which bodies are gone.
    pub(crate) fn with_holes<T>(&self, look: impl FnOnce(&Holes) -> T) -> T {
        look(&self.holes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_holes<T>(&self, change: impl FnOnce(&mut Holes) -> T) -> T {
        change(&mut self.holes.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_hole(&self, sequence: u64, index: usize) -> bool {
        self.with_holes(|holes| holes.names(sequence, index))
    }

    /// The base that the journal begins with.
    pub(crate) fn base_file(&self) -> Option<Arc<BaseFile>> {
        self.with_index(|index| index.base.clone())
    }

    pub(crate) fn base(&self) -> Result<Option<Base>, ReadError> {
        let Some(base) = self.base_file() else { return Ok(None) };
        let state = base.state(self.disk.as_ref());
        let state = state.map_err(|source| ReadError::Disk { file: base.name(), source })?;
        Ok(Some(Base { before: base.chain.tail, state, kept: base.kept().collect() }))
    }

    /// Begins with this base from now on: nobody is given what it stands for any more.
    pub(crate) fn begin_with(&self, base: Arc<BaseFile>) {
        let first = base.first;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.segments.retain(|segment| segment.first >= first);
        index.base = Some(base);
        drop(index);
        self.change_holes(|holes| holes.forget_before(first));
        self.open_segments.lock().unwrap_or_else(PoisonError::into_inner).retain(|(segment, _)| *segment >= first);
    }

    /// Head, table and payload of a kept entry's frame, verified.
    fn kept_frame(&self, base: &BaseFile, sequence: u64) -> Result<Bytes, ReadError> {
        let on_disk = |source| ReadError::Disk { file: base.name(), source };
        let (offset, bytes) =
            base.frame(self.disk.as_ref(), sequence).map_err(on_disk)?.ok_or_else(|| self.absent(sequence))?;
        let damaged = |what| ReadError::Damaged { sequence, file: base.name(), offset, what };
        checked(Frame::check_owned(&bytes), sequence).map_err(damaged)?;
        Ok(bytes)
    }

    /// Reads an entry where it stands. A trim beside it may take it from there, and its base with the next one: then from where it
    /// stands now.
    fn standing<T>(
        &self,
        sequence: u64,
        whole: impl Fn() -> Result<T, ReadError>,
        kept: impl Fn(&BaseFile) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let base = self.base_file();
            let found = match base.as_ref().filter(|base| sequence < base.first) {
                Some(base) => kept(base),
                None => whole(),
            };
            let first = |base: &Option<Arc<BaseFile>>| base.as_ref().map(|base| base.first);
            if found.is_ok() || first(&base) == first(&self.base_file()) {
                return found;
            }
        }
    }

    /// Head, table and payload of an entry's frame, verified; of one that is only kept, too.
    pub(crate) fn verified_prefix(&self, sequence: u64) -> Result<Bytes, ReadError> {
        self.standing(sequence, || self.whole_prefix(sequence), |base| self.kept_frame(base, sequence))
    }

    fn whole_prefix(&self, sequence: u64) -> Result<Bytes, ReadError> {
        let place = self.locate(sequence)?;
        let prefix = self.prefix(place).and_then(|bytes| {
            checked(Frame::check_owned(&bytes), sequence)?;
            Ok(bytes)
        });
        prefix.map_err(|problem| self.at(problem, sequence, place))
    }

    /// A problem with an entry that is not held any more is that it is gone.
    fn at(&self, problem: Problem, sequence: u64, place: Location) -> ReadError {
        match problem {
            Problem::Disk(error) if error.kind() == io::ErrorKind::NotFound && sequence < self.first_sequence() => {
                self.absent(sequence)
            }
            problem => problem.at(sequence, place),
        }
    }

    /// What the journal's own entries among the published ones say of bodies; and whether one names the base.
    pub(crate) fn read_facts(&self) -> Result<bool, ReadError> {
        let sequence = |segment: &SegmentIndex, position: &u32| segment.first + u64::from(*position);
        let own: Vec<u64> = self.with_index(|index| {
            let all =
                index.segments.iter().flat_map(|segment| segment.own.iter().map(move |own| sequence(segment, own)));
            all.collect()
        });
        let (mut holes, mut anchored, base) = (Holes::default(), false, self.base_file());
        for sequence in own {
            match self.head(sequence) {
                Ok(entry) if entry.kind == KIND_TRIMMED => {
                    let named = read_anchor(&entry.payload);
                    if let (Some((first, digest)), Some(base)) = (named, &base)
                        && first == base.first
                    {
                        if digest != base.digest {
                            let (file, what) = (base.name(), Fault::Base);
                            return Err(ReadError::Damaged { sequence, file, offset: 0, what });
                        }
                        anchored = true;
                    }
                }
                Ok(entry) => holes.take(sequence, entry.kind, &entry.payload),
                // As with any damage in a sealed segment: reads of what it names refuse, and verify finds it.
                Err(error @ ReadError::Damaged { .. }) => {
                    tracing::error!(%error, "the journal's word on a body is lost")
                }
                Err(error) => return Err(error),
            }
        }
        self.change_holes(|known| *known = holes);
        Ok(anchored)
    }

    pub(crate) fn bodies(&self, sequence: u64) -> Result<Vec<Body>, ReadError> {
        let bytes = self.verified_prefix(sequence)?;
        // Asked for behind the reading: what is named as there may go, and not the other way round.
        let is_trimmed = sequence < self.first_sequence();
        // Verified just now, so that this cannot fail.
        let frame = Frame::check_owned(&bytes).map_err(|_| self.absent(sequence))?;
        let sizes = rows(&frame.table).enumerate();
        let body = |(index, (length, _)): (usize, (usize, _))| Body {
            size_bytes: length as u64,
            is_gone: is_trimmed || self.is_hole(sequence, index),
        };
        Ok(sizes.map(body).collect())
    }

    /// Where the frame of a published entry is, and its verified head and table.
    pub(crate) fn table(&self, sequence: u64) -> Result<(Location, Head, Bytes), ReadError> {
        let place = self.locate(sequence)?;
        let frame = self.prefix(place).and_then(|bytes| Ok(checked(Frame::check_owned(&bytes), sequence)?));
        let frame = frame.map_err(|problem| self.at(problem, sequence, place))?;
        Ok((place, frame.head, frame.table))
    }

    /// One published entry without its bodies.
    pub(crate) fn head(&self, sequence: u64) -> Result<Entry, ReadError> {
        let bytes = self.verified_prefix(sequence)?;
        let frame = Frame::check_owned(&bytes);
        // Verified just now, so that this cannot fail.
        frame.map(Frame::into_entry).map_err(|_| self.absent(sequence))
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        self.with_index(Index::first)
    }

    pub(crate) fn read(&self, from: u64, max_entries: usize) -> Result<Vec<Entry>, ReadError> {
        let last = self.tail.borrow().sequence;
        if from < self.first_sequence() {
            return Err(self.absent(from));
        }
        let mut entries = Vec::new();
        let mut size = 0;
        for sequence in (from..=last).take(max_entries) {
            if size > READ_SIZE_MAX_BYTES {
                break;
            }
            let entry = self.head(sequence)?;
            size += entry.payload.len() as u64;
            entries.push(entry);
        }
        Ok(entries)
    }

    pub(crate) fn entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        self.standing(sequence, || self.whole_entry(sequence), |_| self.head(sequence))
    }

    fn whole_entry(&self, sequence: u64) -> Result<Entry, ReadError> {
        let place = self.locate(sequence)?;
        let entry = self.bytes(place, 0, place.length).and_then(|bytes| {
            // Asked for each body after its bytes were read: what is overwritten meanwhile was named before.
            let frame = checked(Frame::check_owned(&bytes), sequence)?;
            Ok(frame.into_whole_entry(|index| self.is_hole(sequence, index))?)
        });
        entry.map_err(|problem| self.at(problem, sequence, place))
    }

    pub(crate) fn blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError> {
        let gone = |_: &BaseFile| {
            let count = self.head(sequence)?.commitments.len();
            let is_there = index < count;
            Err(if is_there {
                ReadError::Redacted { sequence, index }
            } else {
                ReadError::BlobAbsent { sequence, index, count }
            })
        };
        self.standing(sequence, || self.whole_blob(sequence, index), gone)
    }

    fn whole_blob(&self, sequence: u64, index: usize) -> Result<Blob, ReadError> {
        let place = self.locate(sequence)?;
        let found = self.find_blob(place, sequence, index);
        if self.is_hole(sequence, index) && matches!(found, Ok(Ok(_)) | Err(Problem::Fault(Fault::Commitment { .. }))) {
            return Err(ReadError::Redacted { sequence, index });
        }
        let found = found.map_err(|problem| self.at(problem, sequence, place))?;
        found.map_err(|count| ReadError::BlobAbsent { sequence, index, count })
    }

    /// The blob, or how many there are. What binds it to its entry is its commitment in the verified table.
    fn find_blob(&self, place: Location, sequence: u64, index: usize) -> Result<Result<Blob, usize>, Problem> {
        let prefix = self.prefix(place)?;
        let frame = checked(Frame::check_owned(&prefix), sequence)?;
        let Some((before, length, commitment)) = body_row(&frame.table, index) else {
            return Ok(Err(frame.head.meta.blob_count as usize));
        };
        let start = frame.head.prefix_length() + before;
        let mut bytes = self.bytes(place, start, NONCE_SIZE_BYTES + length)?;
        Ok(Ok(open_body(&mut bytes, length, commitment, index)?))
    }

    /// Head, table and payload of a frame.
    fn prefix(&self, place: Location) -> Result<Bytes, Problem> {
        let bytes = self.bytes(place, 0, place.length.min(PREFIX_READ_SIZE_BYTES))?;
        let head = Head::parse(&bytes)?;
        if head.length as usize != place.length {
            return Err(Problem::Fault(Fault::Length));
        }
        let wanted = usize::try_from(head.prefix_length()).unwrap_or(usize::MAX).min(place.length);
        if wanted <= bytes.len() {
            return Ok(bytes.slice(..wanted));
        }
        self.bytes(place, 0, wanted)
    }

    fn bytes(&self, place: Location, start: u64, count: usize) -> Result<Bytes, Problem> {
        let file = self.open_segment(place.segment)?;
        let mut bytes = Vec::with_capacity(count);
        read_onto(file.as_ref(), place.offset + start, count, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    fn open_segment(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open_segments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(first, _)| *first == segment) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open_read(&segment_name(segment))?;
        if open.len() >= OPEN_SEGMENTS_MAX {
            open.pop_front();
        }
        open.push_back((segment, Arc::clone(&file)));
        Ok(file)
    }

    /// Only what is published: the index may be a commit ahead of the tail.
    fn locate(&self, sequence: u64) -> Result<Location, ReadError> {
        if sequence > self.tail.borrow().sequence {
            return Err(self.absent(sequence));
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let place = index.locate(sequence).filter(|place| place.length >= FRAME_HEAD_SIZE_BYTES);
        drop(index);
        place.ok_or_else(|| self.absent(sequence))
    }

    fn absent(&self, sequence: u64) -> ReadError {
        let last = self.tail.borrow().sequence;
        ReadError::EntryAbsent { sequence, first: self.first_sequence(), last }
    }
}

fn checked<B>(frame: Result<Frame<B>, Fault>, sequence: u64) -> Result<Frame<B>, Fault> {
    let frame = frame?;
    let found = frame.head.meta.sequence;
    if found == sequence { Ok(frame) } else { Err(Fault::Sequence { found }) }
}

/// What can go wrong at a known place.
enum Problem {
    Fault(Fault),
    Disk(io::Error),
}

impl Problem {
    fn at(self, sequence: u64, place: Location) -> ReadError {
        let file = segment_name(place.segment);
        match self {
            Problem::Fault(what) => ReadError::Damaged { sequence, file, offset: place.offset, what },
            Problem::Disk(source) => ReadError::Disk { file, source },
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem::Fault(fault)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Disk(error)
    }
}
