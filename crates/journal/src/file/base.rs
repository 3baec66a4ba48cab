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
use super::scan::{list_segments, named_sequence};
use super::seal::remove_if_there;
use crate::digest::{Digest, HistoryId, Tail};

const BASE_MAGIC: [u8; 8] = *b"CNCRDBAS";
const BASE_FORMAT: u32 = 1;
const BASE_DOMAIN: &str = "concord journal base v1";
const BASE_HEAD_SIZE_BYTES: usize = 108;
const CHECKSUM_SIZE_BYTES: u64 = 32;
const BASE_SUFFIX: &str = ".base";
/// How much is read or written at once.
const STEP_SIZE_BYTES: usize = 1024 * 1024;

/// The name of the base before the entry `first`.
pub(crate) fn base_name(first: u64) -> String {
    format!("{first:020}{BASE_SUFFIX}")
}

/// The first entries kept whole by the bases' names, in order.
pub(crate) fn list_bases(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut firsts: Vec<u64> = disk.list()?.iter().filter_map(|name| named_sequence(name, BASE_SUFFIX)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// A base whose checksum holds.
#[derive(Clone)]
pub(crate) struct BaseFile {
    /// The first entry that is kept whole.
    pub(crate) first: u64,
    /// What the entries before it say about it.
    pub(crate) chain: Chain,
    pub(crate) digest: Digest,
    /// Its length in bytes.
    pub(crate) length: u64,
    state: (u64, usize),
    /// The kept entries: sequence, offset, length of the frame without bodies.
    kept: Vec<(u64, u64, usize)>,
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
        self.kept.iter().map(|(sequence, ..)| *sequence)
    }

    /// The first kept entry from `from` on.
    pub(crate) fn kept_from(&self, from: u64) -> Option<u64> {
        let position = self.kept.partition_point(|(kept, ..)| *kept < from);
        self.kept.get(position).map(|(kept, ..)| *kept)
    }

    pub(crate) fn state(&self, disk: &dyn Disk) -> io::Result<Bytes> {
        self.read(disk, self.state.0, self.state.1)
    }

    /// The frame of a kept entry, without its bodies; where it stands.
    pub(crate) fn frame(&self, disk: &dyn Disk, sequence: u64) -> io::Result<Option<(u64, Bytes)>> {
        let Ok(index) = self.kept.binary_search_by_key(&sequence, |(kept, ..)| *kept) else { return Ok(None) };
        let Some((_, offset, length)) = self.kept.get(index) else { return Ok(None) };
        Ok(Some((*offset, self.read(disk, *offset, *length)?)))
    }

    fn read(&self, disk: &dyn Disk, offset: u64, count: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        read_onto(disk.open_read(&self.name())?.as_ref(), offset, count, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    /// Reads the base before `first` if it is there; none if it is not whole.
    pub(crate) fn load(disk: &dyn Disk, first: u64) -> io::Result<Option<BaseFile>> {
        let file = disk.open_read(&base_name(first))?;
        let Some(digest) = checked_digest(file.as_ref())? else { return Ok(None) };
        let mut bytes = Vec::new();
        read_onto(file.as_ref(), 0, BASE_HEAD_SIZE_BYTES, &mut bytes)?;
        let Some((chain, state_length, count)) = read_head(&bytes).filter(|(chain, ..)| chain.next_sequence() == first)
        else {
            return Ok(None);
        };
        let length = file.length()?;
        let mut offset = BASE_HEAD_SIZE_BYTES as u64 + state_length;
        let Ok(state_length) = usize::try_from(state_length) else { return Ok(None) };
        let mut kept = Vec::new();
        for _ in 0..count {
            let Some((sequence, size)) = kept_frame(file.as_ref(), offset)? else { return Ok(None) };
            kept.push((sequence, offset, size));
            offset += size as u64;
        }
        let rises = kept.is_sorted_by(|one, next| one.0 < next.0) && kept.last().is_none_or(|(last, ..)| *last < first);
        if !rises || offset + CHECKSUM_SIZE_BYTES != length {
            return Ok(None);
        }
        let state = (BASE_HEAD_SIZE_BYTES as u64, state_length);
        Ok(Some(BaseFile { first, chain, digest, length, state, kept }))
    }
}

/// The digest of what the checksum at the end covers, if it holds.
fn checked_digest(file: &dyn DiskFile) -> io::Result<Option<Digest>> {
    let Some(end) = file.length()?.checked_sub(CHECKSUM_SIZE_BYTES) else { return Ok(None) };
    let (mut hash, mut offset, mut bytes) = (hasher(), 0, Vec::new());
    while offset < end {
        bytes.clear();
        let count = usize::try_from(end - offset).unwrap_or(STEP_SIZE_BYTES).min(STEP_SIZE_BYTES);
        read_onto(file, offset, count, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        hash.update(&bytes);
        offset += bytes.len() as u64;
    }
    bytes.clear();
    read_onto(file, end, CHECKSUM_SIZE_BYTES as usize, &mut bytes)?;
    let digest: [u8; 32] = hash.finalize().into();
    Ok((bytes == digest).then_some(Digest(digest)))
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

/// A kept entry's sequence, and the size of its frame without bodies, if it holds.
fn kept_frame(file: &dyn DiskFile, offset: u64) -> io::Result<Option<(u64, usize)>> {
    let mut bytes = Vec::new();
    read_onto(file, offset, FRAME_HEAD_SIZE_BYTES, &mut bytes)?;
    let Ok(head) = Head::parse(&bytes) else { return Ok(None) };
    let Ok(size) = usize::try_from(head.prefix_length()) else { return Ok(None) };
    bytes.clear();
    read_onto(file, offset, size, &mut bytes)?;
    Ok(Frame::check(&bytes).is_ok().then_some((head.meta.sequence, size)))
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
