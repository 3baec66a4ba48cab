//! The base file: what a trimmed journal keeps of the entries that are gone. Integers are little-endian.
//!
//! ```text
//! magic 8 | format 4 | mark 8 | first sequence kept whole 8
//! | the entry before it: history 16, digest 32, commit first 8, recorded at 8
//! | state length 8 | kept count 8 | state | frame without bodies … | SHA-256 of all before it 32
//! ```
//!
//! It is truth, durable before anything that it stands for is removed. The anchor, an entry of the journal, names its
//! digest.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::chain::Chain;
use super::disk::{Disk, DiskFile, read_onto};
use super::fault::{Damage, Fault};
use super::frame::{FRAME_HEAD_SIZE_BYTES, Fields, Frame, FrameMark, Head};
use super::scan::{list_segments, list_sequences};
use super::seal::remove_if_there;
use crate::digest::{Digest, HistoryId, Tail};
use crate::journal::COMMIT_SIZE_MAX_BYTES;

const BASE_MAGIC: [u8; 8] = *b"CNCRDBAS";
const BASE_FORMAT: u32 = 1;
const BASE_DOMAIN: &str = "concord journal base v1";
const BASE_HEAD_SIZE_BYTES: usize = 108;
const CHECKSUM_SIZE_BYTES: u64 = 32;
const BASE_SUFFIX: &str = ".base";
/// How much is read or written at once.
const STEP_SIZE_BYTES: usize = 1024 * 1024;
/// Of how many kept entries one has its place in memory; that of the others is counted from there.
const OFFSET_EVERY: usize = 64;
/// How many entries a base may keep: in memory, 1.2 GB. A trim that would keep more is refused.
pub(crate) const KEPT_ENTRIES_MAX: usize = 100_000_000;

/// The name of the base before the entry `first`.
pub(crate) fn base_name(first: u64) -> String {
    format!("{first:020}{BASE_SUFFIX}")
}

/// The first entries kept whole by the bases' names, in order.
pub(crate) fn list_bases(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    list_sequences(disk, BASE_SUFFIX)
}

/// A base whose checksum holds.
pub(crate) struct BaseFile {
    /// The first entry that is kept whole.
    pub(crate) first: u64,
    /// What the entries before it say about it.
    pub(crate) chain: Chain,
    pub(crate) digest: Digest,
    /// Its length in bytes.
    pub(crate) length: u64,
    state: (u64, usize),
    kept: Kept,
}

impl BaseFile {
    pub(crate) fn name(&self) -> String {
        base_name(self.first)
    }

    /// What the kept entries take.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let around = BASE_HEAD_SIZE_BYTES as u64 + self.state.1 as u64 + CHECKSUM_SIZE_BYTES;
        self.length.saturating_sub(around)
    }

    pub(crate) fn kept(&self) -> impl Iterator<Item = u64> {
        self.kept.sequences.iter().copied()
    }

    /// The first kept entry from `from` on.
    pub(crate) fn kept_from(&self, from: u64) -> Option<u64> {
        let position = self.kept.sequences.partition_point(|kept| *kept < from);
        self.kept.sequences.get(position).copied()
    }

    pub(crate) fn state(&self, disk: &dyn Disk) -> io::Result<Bytes> {
        self.read(disk, self.state.0, self.state.1)
    }

    /// The frame of a kept entry, without its bodies; where it stands.
    pub(crate) fn frame(&self, disk: &dyn Disk, sequence: u64) -> io::Result<Option<(u64, Bytes)>> {
        let Some((offset, length)) = self.kept.place(sequence) else { return Ok(None) };
        Ok(Some((offset, self.read(disk, offset, length)?)))
    }

    fn read(&self, disk: &dyn Disk, offset: u64, count: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        read_onto(disk.open_read(&self.name())?.as_ref(), offset, count, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    /// Reads the base before `first` if it is there, once from its beginning to its end; none if it is not whole.
    pub(crate) fn load(disk: &dyn Disk, first: u64) -> io::Result<Option<BaseFile>> {
        let file = disk.open_read(&base_name(first))?;
        let Some(mut bytes) = Checked::begin(file.as_ref())? else { return Ok(None) };
        let head = bytes.take(BASE_HEAD_SIZE_BYTES as u64)?.and_then(read_head);
        let Some((chain, state_length, count)) = head.filter(|(chain, ..)| chain.next_sequence() == first) else {
            return Ok(None);
        };
        let mut kept = Kept::default();
        if !bytes.pass(state_length)? {
            return Ok(None);
        }
        for _ in 0..count {
            let offset = bytes.offset();
            let Some((sequence, size)) = bytes.kept_frame()?.filter(|(sequence, _)| kept.goes_on_with(*sequence))
            else {
                return Ok(None);
            };
            kept.push(sequence, offset, size);
        }
        let Some(digest) = bytes.end()?.filter(|_| kept.goes_on_with(first)) else { return Ok(None) };
        kept.sequences.shrink_to_fit();
        kept.sizes.shrink_to_fit();
        let Ok(state_length) = usize::try_from(state_length) else { return Ok(None) };
        let (length, state) = (file.length()?, (BASE_HEAD_SIZE_BYTES as u64, state_length));
        Ok(Some(BaseFile { first, chain, digest, length, state, kept }))
    }
}

/// Where the kept entries stand: 12 bytes for each, in memory for as long as the journal is open.
#[derive(Default)]
struct Kept {
    sequences: Vec<u64>,
    /// Of their frames without bodies.
    sizes: Vec<u32>,
    /// Of each [`OFFSET_EVERY`]th.
    offsets: Vec<u64>,
}

impl Kept {
    fn goes_on_with(&self, sequence: u64) -> bool {
        self.sequences.last().is_none_or(|last| *last < sequence)
    }

    fn push(&mut self, sequence: u64, offset: u64, size: u32) {
        if self.sequences.len().is_multiple_of(OFFSET_EVERY) {
            self.offsets.push(offset);
        }
        self.sequences.push(sequence);
        self.sizes.push(size);
    }

    /// Offset and length of a frame.
    fn place(&self, sequence: u64) -> Option<(u64, usize)> {
        let position = self.sequences.binary_search(&sequence).ok()?;
        let anchored = position - position % OFFSET_EVERY;
        let between: u64 = self.sizes.get(anchored..position)?.iter().map(|size| u64::from(*size)).sum();
        let size = usize::try_from(*self.sizes.get(position)?).ok()?;
        Some((self.offsets.get(position / OFFSET_EVERY)? + between, size))
    }
}

/// Gives a file's bytes in order, in bounded memory, and at the end whether its checksum holds.
struct Checked<'a> {
    file: &'a dyn DiskFile,
    hash: Sha256,
    /// What was read and not given yet, from `given` on.
    held: Vec<u8>,
    given: usize,
    /// How much was read, and how much there is before the checksum.
    read: u64,
    end: u64,
}

impl<'a> Checked<'a> {
    fn begin(file: &'a dyn DiskFile) -> io::Result<Option<Self>> {
        let Some(end) = file.length()?.checked_sub(CHECKSUM_SIZE_BYTES) else { return Ok(None) };
        Ok(Some(Checked { file, hash: hasher(), held: Vec::new(), given: 0, read: 0, end }))
    }

    /// Where the next byte stands.
    fn offset(&self) -> u64 {
        self.read - (self.held.len() - self.given) as u64
    }

    /// The next bytes; none if there are not so many, or more than a frame may have.
    fn take(&mut self, count: u64) -> io::Result<Option<&[u8]>> {
        if !self.hold(count)? {
            return Ok(None);
        }
        let from = self.given;
        self.given += usize::try_from(count).map_err(io::Error::other)?;
        Ok(self.held.get(from..self.given))
    }

    /// Reads on until so many bytes are held.
    fn hold(&mut self, count: u64) -> io::Result<bool> {
        if count > COMMIT_SIZE_MAX_BYTES.max(STEP_SIZE_BYTES as u64) || count > self.end - self.offset() {
            return Ok(false);
        }
        let missing = (self.offset() + count).saturating_sub(self.read);
        if missing == 0 {
            return Ok(true);
        }
        self.held.drain(..self.given);
        self.given = 0;
        let step = missing.max(STEP_SIZE_BYTES as u64).min(self.end - self.read);
        let (before, step) = (self.held.len(), usize::try_from(step).map_err(io::Error::other)?);
        read_onto(self.file, self.read, step, &mut self.held)?;
        let Some(new) = self.held.get(before..) else { return Ok(false) };
        self.hash.update(new);
        self.read += new.len() as u64;
        Ok(new.len() == step)
    }

    fn pass(&mut self, mut count: u64) -> io::Result<bool> {
        while count > 0 {
            let step = count.min(STEP_SIZE_BYTES as u64);
            if self.take(step)?.is_none() {
                return Ok(false);
            }
            count -= step;
        }
        Ok(true)
    }

    /// A kept entry's sequence, and the size of its frame without bodies, if it holds.
    fn kept_frame(&mut self) -> io::Result<Option<(u64, u32)>> {
        if !self.hold(FRAME_HEAD_SIZE_BYTES as u64)? {
            return Ok(None);
        }
        let Ok(head) = Head::parse(self.held.get(self.given..).unwrap_or_default()) else { return Ok(None) };
        let Ok(size) = u32::try_from(head.prefix_length()) else { return Ok(None) };
        let frame = self.take(u64::from(size))?;
        Ok(frame.filter(|frame| Frame::check(frame).is_ok()).map(|_| (head.meta.sequence, size)))
    }

    /// The digest of all of it, if nothing is left and the checksum holds.
    fn end(self) -> io::Result<Option<Digest>> {
        if self.offset() != self.end {
            return Ok(None);
        }
        let mut checksum = Vec::new();
        read_onto(self.file, self.end, CHECKSUM_SIZE_BYTES as usize, &mut checksum)?;
        let digest: [u8; 32] = self.hash.finalize().into();
        Ok((checksum == digest).then_some(Digest(digest)))
    }
}

fn hasher() -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(BASE_DOMAIN.as_bytes());
    hash.update([0]);
    hash
}

/// What stands before the first entry kept whole, the state's length, and how many entries are kept.
fn read_head(bytes: &[u8]) -> Option<(Chain, u64, u64)> {
    let mut fields = Fields(bytes);
    if fields.take() != Some(BASE_MAGIC) || fields.u32() != Some(BASE_FORMAT) {
        return None;
    }
    let (mark, first) = (FrameMark(fields.take()?), fields.u64()?);
    let (history, digest) = (HistoryId(fields.take()?), Digest(fields.take()?));
    let tail = Tail { history, sequence: first.checked_sub(1).filter(|last| *last > 0)?, digest };
    let (commit_first, recorded_at) = (fields.u64()?, i64::from_le_bytes(fields.take()?));
    let chain = Chain { tail, commit_first, recorded_at, mark: Some(mark) };
    Some((chain, fields.u64()?, fields.u64()?))
}

/// Writes a base, in steps.
pub(crate) struct BaseWriter {
    file: Arc<dyn DiskFile>,
    hash: Sha256,
    buffer: Vec<u8>,
}

impl BaseWriter {
    /// Begins the base behind the entry with which `chain` ends.
    pub(crate) fn begin(disk: &dyn Disk, chain: &Chain, mark: FrameMark, state: &[u8], kept: u64) -> io::Result<Self> {
        let name = base_name(chain.next_sequence());
        remove_if_there(disk, &name)?;
        let mut head = Vec::with_capacity(BASE_HEAD_SIZE_BYTES);
        head.extend_from_slice(&BASE_MAGIC);
        head.extend_from_slice(&BASE_FORMAT.to_le_bytes());
        head.extend_from_slice(&mark.0);
        head.extend_from_slice(&chain.next_sequence().to_le_bytes());
        head.extend_from_slice(&chain.tail.history.0);
        head.extend_from_slice(&chain.tail.digest.0);
        head.extend_from_slice(&chain.commit_first.to_le_bytes());
        head.extend_from_slice(&chain.recorded_at.to_le_bytes());
        head.extend_from_slice(&(state.len() as u64).to_le_bytes());
        head.extend_from_slice(&kept.to_le_bytes());
        let mut writer = BaseWriter { file: disk.create(&name)?, hash: hasher(), buffer: Vec::new() };
        writer.write(&head)?;
        writer.write(state)?;
        Ok(writer)
    }

    /// Adds bytes; those of a kept entry's frame.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= STEP_SIZE_BYTES {
            self.file.append(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends it durably, but for its name.
    pub(crate) fn end(mut self) -> io::Result<Digest> {
        let digest: [u8; 32] = self.hash.finalize().into();
        self.buffer.extend_from_slice(&digest);
        self.file.append(&self.buffer)?;
        self.file.sync_data()?;
        Ok(Digest(digest))
    }
}

/// The base with which a journal begins, and those that are not whole.
pub(crate) struct Chosen {
    pub(crate) base: Option<BaseFile>,
    /// Of interrupted trims, by the entry in their names.
    pub(crate) torn: Vec<u64>,
}

/// Chooses the newest whole base.
///
/// Invariant: a base that is not whole may be passed over only where everything is there for which it stands: it was
/// being written. Where that is gone already, the base was durable before, and is damaged now.
pub(crate) fn choose(disk: &dyn Disk) -> io::Result<Result<Chosen, Damage>> {
    let segments = list_segments(disk)?;
    let mut torn = Vec::new();
    for first in list_bases(disk)?.into_iter().rev() {
        let base = match BaseFile::load(disk, first) {
            // Removed by a running writer since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            base => base?,
        };
        match base {
            Some(base) => {
                return Ok(begins_at(&segments, base.first, &torn).map(|()| Chosen { base: Some(base), torn }));
            }
            None => torn.push(first),
        }
    }
    Ok(begins_at(&segments, 1, &torn).map(|()| Chosen { base: None, torn }))
}

/// Whether the segments from `first` on are there, if some base after it is not whole.
fn begins_at(segments: &[u64], first: u64, torn: &[u64]) -> Result<(), Damage> {
    let Some(newest) = torn.first().filter(|_| !segments.contains(&first)) else { return Ok(()) };
    Err(Damage { file: base_name(*newest), offset: 0, sequence: *newest, what: Fault::Base })
}
