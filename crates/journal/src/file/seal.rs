//! Seals: what an open needs to know of a full segment, so that it need not read it.
//!
//! A seal is a cache and never truth: it is not synced, and one that is missing, torn or of another past is written
//! again from a scan. Integers are little-endian.
//!
//! ```text
//! magic 8 | format 4 | mark 8 | first sequence 8 | previous digest 32 | segment's length 8
//! | tail: history 16, sequence 8, digest 32 | commit first 8 | recorded at 8
//! | entry count 4 | own count 4 | offset 4 … | position of an own entry 4 … | SHA-256 of all before it 32
//! ```

use std::io;
use std::sync::Arc;

use super::chain::Chain;
use super::disk::{Disk, DiskFile, read_onto};
use super::frame::{Fields, FrameMark, SEGMENT_HEADER_SIZE_BYTES, SegmentHeader};
use super::index::SegmentIndex;
use super::scan::{list_sequences, segment_name};
use crate::digest::{Digest, HistoryId, Tail};

const SEAL_MAGIC: [u8; 8] = *b"CNCRDSEL";
const SEAL_FORMAT: u32 = 1;
const SEAL_DOMAIN: &str = "concord journal seal v1";
const CHECKSUM_SIZE_BYTES: usize = 32;
/// No segment that may be written has more entries than fit into this; a longer file is no seal.
const SEAL_SIZE_MAX_BYTES: u64 = 160 * 1024 * 1024;
const SEAL_SUFFIX: &str = ".seal";

/// The name of the seal of the segment whose first entry is `first`.
pub(crate) fn seal_name(first: u64) -> String {
    format!("{first:020}{SEAL_SUFFIX}")
}

/// A full segment, as its last entry left it.
pub(crate) struct Seal {
    mark: FrameMark,
    tail: Tail,
    commit_first: u64,
    recorded_at: i64,
    segment: SegmentIndex,
}

impl Seal {
    /// The seal of the segment that ends where `chain` does; none of any other.
    pub(crate) fn of(segment: &SegmentIndex, chain: &Chain) -> Option<Seal> {
        let Chain { tail, commit_first, recorded_at, mark } = chain.clone();
        if segment.first + segment.offsets.len() as u64 != chain.next_sequence() {
            return None;
        }
        Some(Seal { mark: mark?, tail, commit_first, recorded_at, segment: segment.clone() })
    }

    pub(crate) fn chain(&self) -> Chain {
        let Seal { mark, tail, commit_first, recorded_at, .. } = *self;
        Chain { tail, commit_first, recorded_at, mark: Some(mark) }
    }

    pub(crate) fn into_segment(self) -> SegmentIndex {
        self.segment
    }

    /// The first entry of the sealed segment.
    pub(crate) fn first(&self) -> u64 {
        self.segment.first
    }

    fn header(&self) -> SegmentHeader {
        SegmentHeader { mark: self.mark, first_sequence: self.segment.first, previous: self.segment.previous }
    }

    fn encode(&self) -> Vec<u8> {
        let count = |list: &[u32]| u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes();
        let SegmentIndex { first, previous, offsets, end, own } = &self.segment;
        let mut bytes = Vec::with_capacity(200 + 4 * (offsets.len() + own.len()));
        bytes.extend_from_slice(&SEAL_MAGIC);
        bytes.extend_from_slice(&SEAL_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.mark.0);
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&previous.0);
        bytes.extend_from_slice(&end.to_le_bytes());
        bytes.extend_from_slice(&self.tail.history.0);
        bytes.extend_from_slice(&self.tail.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.tail.digest.0);
        bytes.extend_from_slice(&self.commit_first.to_le_bytes());
        bytes.extend_from_slice(&self.recorded_at.to_le_bytes());
        bytes.extend_from_slice(&count(offsets));
        bytes.extend_from_slice(&count(own));
        offsets.iter().chain(own).for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        let checksum = Digest::of(SEAL_DOMAIN, &[&bytes]);
        bytes.extend_from_slice(&checksum.0);
        bytes
    }

    /// Reads exactly what `encode` writes, of a segment that can be.
    fn decode(bytes: &[u8]) -> Option<Seal> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_SIZE_BYTES)?)?;
        if Digest::of(SEAL_DOMAIN, &[content]).0 != *checksum {
            return None;
        }
        let mut fields = Fields(content);
        if fields.take() != Some(SEAL_MAGIC) || fields.u32() != Some(SEAL_FORMAT) {
            return None;
        }
        let mark = FrameMark(fields.take()?);
        let (first, previous, end) = (fields.u64()?, Digest(fields.take()?), fields.u64()?);
        let history = HistoryId(fields.take()?);
        let tail = Tail { history, sequence: fields.u64()?, digest: Digest(fields.take()?) };
        let (commit_first, recorded_at) = (fields.u64()?, i64::from_le_bytes(fields.take()?));
        let (entries, own) = (fields.u32()? as usize, fields.u32()? as usize);
        let (numbers, rest) = fields.0.as_chunks::<4>();
        if !rest.is_empty() || numbers.len() != entries.checked_add(own)? {
            return None;
        }
        let mut numbers = numbers.iter().map(|number| u32::from_le_bytes(*number));
        let offsets: Vec<u32> = numbers.by_ref().take(entries).collect();
        let segment = SegmentIndex { first, previous, offsets, end, own: numbers.collect() };
        let seal = Seal { mark, tail, commit_first, recorded_at, segment };
        seal.is_possible().then_some(seal)
    }

    fn is_possible(&self) -> bool {
        let SegmentIndex { first, offsets, end, own, .. } = &self.segment;
        let begins = offsets.first().is_some_and(|offset| *offset as usize == SEGMENT_HEADER_SIZE_BYTES);
        let rises = offsets.is_sorted_by(|one, next| one < next) && own.is_sorted_by(|one, next| one < next);
        let ends = offsets.last().is_some_and(|offset| u64::from(*offset) < *end);
        let counts = first.checked_add(offsets.len() as u64) == self.tail.sequence.checked_add(1);
        begins && rises && ends && counts && own.last().is_none_or(|position| (*position as usize) < offsets.len())
    }

    /// Writes it beside its segment. What fails here costs the next open a scan, and nothing else.
    pub(crate) fn write(&self, disk: &dyn Disk) {
        let name = seal_name(self.first());
        let written = remove_if_there(disk, &name).and_then(|()| disk.create(&name)?.append(&self.encode()));
        if let Err(error) = written {
            tracing::debug!(name, %error, "a segment was not sealed; the next open reads it");
            // Half a seal would only be refused by its checksum.
            remove_if_there(disk, &name).unwrap_or_default();
        }
    }
}

/// The seal of the segment `first`, if everything that stands around the segment agrees with it.
///
/// Invariant: a seal that is trusted tells what a scan of the undamaged segment would tell. Its own checksum binds what
/// it tells; the segment's length and header and, decisively, the digest in the header of the segment `next` bind it to
/// this past: a seal from before a cut names another last entry.
pub(crate) fn trusted(disk: &dyn Disk, first: u64, next: u64, before: &Chain) -> Option<Seal> {
    let seal =
        read(disk, first).inspect_err(|error| tracing::debug!(first, %error, "a seal cannot be read")).ok()??;
    if concord_faults::planted("trust-any-seal") {
        return Some(seal);
    }
    let follows = first == before.next_sequence()
        && seal.segment.previous == before.tail.digest
        && before.mark.is_none_or(|mark| mark == seal.mark);
    let next_header = SegmentHeader { mark: seal.mark, first_sequence: next, previous: seal.tail.digest };
    let is_followed = seal.tail.sequence.checked_add(1) == Some(next) && header_of(disk, next)? == next_header;
    let length = disk.open_read(&segment_name(first)).and_then(|file| file.length()).ok()?;
    let fits = length == seal.segment.end && header_of(disk, first)? == seal.header() && seal.first() == first;
    (follows && is_followed && fits).then_some(seal)
}

fn header_of(disk: &dyn Disk, first: u64) -> Option<SegmentHeader> {
    let file = disk.open_read(&segment_name(first)).ok()?;
    let mut bytes = Vec::new();
    read_onto(file.as_ref(), 0, SEGMENT_HEADER_SIZE_BYTES, &mut bytes).ok()?;
    SegmentHeader::parse(&bytes).ok()
}

fn read(disk: &dyn Disk, first: u64) -> io::Result<Option<Seal>> {
    let file: Arc<dyn DiskFile> = match disk.open_read(&seal_name(first)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let length = file.length()?;
    if length > SEAL_SIZE_MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    read_onto(file.as_ref(), 0, usize::try_from(length).unwrap_or(0), &mut bytes)?;
    Ok(Seal::decode(&bytes))
}

/// Removes a file that need not be there.
pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the seals of segments that are not full ones, from the last segment on, and those without a segment: what
/// comes after a cut must not find them.
pub(crate) fn remove_stale(disk: &dyn Disk, segments: &[u64]) -> io::Result<()> {
    let full = segments.split_last().map_or(&[][..], |(_, full)| full);
    let is_stale = |first: &u64| full.binary_search(first).is_err();
    let mut stale = list_sequences(disk, SEAL_SUFFIX)?.into_iter().filter(is_stale);
    stale.try_for_each(|first| remove_if_there(disk, &seal_name(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        let tail = Tail { history: HistoryId([1; 16]), sequence: 11, digest: Digest([2; 32]) };
        let segment =
            SegmentIndex { first: 9, previous: Digest([3; 32]), offsets: vec![60, 200, 350], end: 500, own: vec![1] };
        Seal { mark: FrameMark([4; 8]), tail, commit_first: 10, recorded_at: -5, segment }
    }

    #[test]
    fn a_seal_is_read_as_written_and_not_with_any_bit_flipped_or_byte_less() {
        let bytes = seal().encode();
        assert_eq!(Seal::decode(&bytes).unwrap().encode(), bytes);
        for length in 0..bytes.len() {
            assert!(Seal::decode(&bytes[..length]).is_none(), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Seal::decode(&flipped).is_none(), "{bit}");
        }
    }

    #[test]
    fn a_seal_of_an_impossible_segment_is_none() {
        let spoil: [fn(&mut Seal); 6] = [
            |seal| seal.segment.offsets.clear(),
            |seal| seal.segment.offsets[0] = 61,
            |seal| seal.segment.offsets[1] = 60,
            |seal| seal.segment.end = 350,
            |seal| seal.tail.sequence = 12,
            |seal| seal.segment.own = vec![3],
        ];
        for spoil in spoil {
            let mut spoiled = seal();
            spoil(&mut spoiled);
            assert!(Seal::decode(&spoiled.encode()).is_none());
        }
    }
}
