//! The bytes of a segment file. All integers are little-endian.
//!
//! ```text
//! segment: magic 8 | format 4 | mark 8 | first sequence 8 | previous digest 32 | frame …
//! frame:   magic 4 | mark 8 | length 4 | commit first 8 | sequence 8 | recorded at 8 | history 16 | previous 32
//!          | kind 2 | version 2 | payload length 4 | blob count 4 | digest 32
//!          | (body length 4 | commitment 32) … | payload | (nonce 32 | body) …
//! ```
//!
//! Every bit is covered: by the digest, by a commitment, or by comparison with the one value that may stand there.

use bytes::Bytes;

use super::fault::Fault;
use crate::blob::{Blob, Commitment, NONCE_SIZE_BYTES};
use crate::digest::{Digest, HistoryId};
use crate::entry::{Draft, Entry, Meta, TABLE_ROW_SIZE_BYTES, stored_length, write_table};
use crate::journal::COMMIT_SIZE_MAX_BYTES;

const SEGMENT_MAGIC: [u8; 8] = *b"CNCRDSEG";
const SEGMENT_FORMAT: u32 = 1;
/// The length of a segment's header.
pub(crate) const SEGMENT_HEADER_SIZE_BYTES: usize = 60;

/// What a frame begins with, before the mark.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"CNJF";
/// The length of a frame's fixed part.
pub(crate) const FRAME_HEAD_SIZE_BYTES: usize = 132;

/// Eight random bytes, the same in every frame of one journal, that never leave its disk.
///
/// They make frames recognisable among content: without them a body that imitates a frame of a later commit could
/// keep a journal from opening after a torn write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMark(pub [u8; 8]);

/// The header of a segment file.
#[derive(PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) mark: FrameMark,
    pub(crate) first_sequence: u64,
    pub(crate) previous: Digest,
}

impl SegmentHeader {
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.mark.0);
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.previous.0);
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<SegmentHeader, Fault> {
        let mut fields = Fields(bytes);
        if fields.take() != Some(SEGMENT_MAGIC) {
            return Err(Fault::SegmentMagic);
        }
        match fields.u32().ok_or(Fault::Unfinished)? {
            SEGMENT_FORMAT => {}
            // Zeros are what a torn write leaves, not what a newer version writes.
            0 => return Err(Fault::SegmentMagic),
            found => return Err(Fault::SegmentFormat { found }),
        }
        fields.segment_header().ok_or(Fault::Unfinished)
    }
}

/// The fixed part of a frame.
pub(crate) struct Head {
    pub(crate) mark: FrameMark,
    pub(crate) length: u32,
    pub(crate) meta: Meta,
    pub(crate) digest: Digest,
}

impl Head {
    /// Parses the fixed part and bounds its lengths, so that whatever is read next is bounded too.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Head, Fault> {
        let mut fields = Fields(bytes);
        if fields.take() != Some(FRAME_MAGIC) {
            return Err(Fault::FrameMagic);
        }
        let head = fields.head().ok_or(Fault::Unfinished)?;
        let length = u64::from(head.length);
        if length > COMMIT_SIZE_MAX_BYTES || length < head.prefix_length() {
            return Err(Fault::Length);
        }
        Ok(head)
    }

    /// Where the bodies begin: head, table and payload.
    pub(crate) fn prefix_length(&self) -> u64 {
        let table = u64::from(self.meta.blob_count) * TABLE_ROW_SIZE_BYTES as u64;
        FRAME_HEAD_SIZE_BYTES as u64 + table + u64::from(self.meta.payload_length)
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&FRAME_MAGIC);
        bytes.extend_from_slice(&self.mark.0);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.meta.commit_first.to_le_bytes());
        bytes.extend_from_slice(&self.meta.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.meta.recorded_at.to_le_bytes());
        bytes.extend_from_slice(&self.meta.history.0);
        bytes.extend_from_slice(&self.meta.previous.0);
        bytes.extend_from_slice(&self.meta.kind.to_le_bytes());
        bytes.extend_from_slice(&self.meta.version.to_le_bytes());
        bytes.extend_from_slice(&self.meta.payload_length.to_le_bytes());
        bytes.extend_from_slice(&self.meta.blob_count.to_le_bytes());
        bytes.extend_from_slice(&self.digest.0);
    }
}

/// A frame's bytes, split; with or without its bodies.
pub(crate) struct Frame<B> {
    pub(crate) head: Head,
    pub(crate) table: B,
    pub(crate) payload: B,
    /// Empty where the bodies were not read.
    pub(crate) bodies: B,
}

impl<'a> Frame<&'a [u8]> {
    /// Splits the bytes of a frame, which may end where its bodies begin, and checks its lengths and its digest.
    pub(crate) fn check(bytes: &'a [u8]) -> Result<Frame<&'a [u8]>, Fault> {
        let head = Head::parse(bytes)?;
        let (_, rest) = bytes.split_at_checked(FRAME_HEAD_SIZE_BYTES).ok_or(Fault::Unfinished)?;
        let table_size = head.meta.blob_count as usize * TABLE_ROW_SIZE_BYTES;
        let (table, rest) = rest.split_at_checked(table_size).ok_or(Fault::Unfinished)?;
        if head.prefix_length() + bodies_length(table) != u64::from(head.length) {
            return Err(Fault::Length);
        }
        let payload_size = head.meta.payload_length as usize;
        let (payload, bodies) = rest.split_at_checked(payload_size).ok_or(Fault::Unfinished)?;
        if head.meta.digest(payload, table) != head.digest && !concord_faults::planted("serve-unverified") {
            return Err(Fault::Digest);
        }
        Ok(Frame { head, table, payload, bodies })
    }

    /// Computes the commitment of every body and compares it with the table's.
    pub(crate) fn check_bodies(&self) -> Result<(), Fault> {
        self.bad_bodies()?.first().map_or(Ok(()), |bad| Err(Fault::Commitment { index: bad.index }))
    }

    /// The bodies whose commitment does not hold.
    pub(crate) fn bad_bodies(&self) -> Result<Vec<BadBody>, Fault> {
        let (mut rest, mut bad, mut offset) = (self.bodies, Vec::new(), self.head.prefix_length());
        for (index, (length, stored)) in rows(self.table).enumerate() {
            let (nonce, after) = rest.split_first_chunk::<NONCE_SIZE_BYTES>().ok_or(Fault::Unfinished)?;
            let (body, after) = after.split_at_checked(length).ok_or(Fault::Unfinished)?;
            let size = NONCE_SIZE_BYTES + length;
            if Blob::commitment_of(nonce, body) != stored {
                let is_zero = nonce.iter().chain(body).all(|byte| *byte == 0);
                bad.push(BadBody { index, offset, size, is_zero });
            }
            offset += size as u64;
            rest = after;
        }
        Ok(bad)
    }
}

impl Frame<Bytes> {
    /// The same check for owned bytes; the parts share them.
    pub(crate) fn check_owned(bytes: &Bytes) -> Result<Frame<Bytes>, Fault> {
        let Frame { head, table, payload, bodies } = Frame::check(bytes.as_ref())?;
        let (table, payload) = (bytes.slice_ref(table), bytes.slice_ref(payload));
        Ok(Frame { head, table, payload, bodies: bytes.slice_ref(bodies) })
    }

    /// The entry with its bodies, each sealed again and compared; without those that are holes.
    pub(crate) fn into_whole_entry(self, is_hole: impl Fn(usize) -> bool) -> Result<Entry, Fault> {
        let mut rest = self.bodies.clone();
        let mut blobs = Vec::new();
        for (index, (length, stored)) in rows(&self.table).enumerate() {
            if is_hole(index) {
                rest = rest.get(NONCE_SIZE_BYTES + length..).map(|after| rest.slice_ref(after)).unwrap_or_default();
                blobs.push(None);
                continue;
            }
            blobs.push(Some(open_body(&mut rest, length, stored, index)?));
        }
        Ok(Entry { blobs, ..self.into_entry() })
    }

    /// The entry without bodies.
    pub(crate) fn into_entry(self) -> Entry {
        let Meta { history, sequence, recorded_at, previous, kind, version, commit_first, .. } = self.head.meta;
        let commitments: Vec<Commitment> = rows(&self.table).map(|(_, commitment)| commitment).collect();
        Entry {
            history,
            sequence,
            recorded_at,
            previous,
            kind,
            version,
            commit_first,
            payload: self.payload,
            blobs: vec![None; commitments.len()],
            commitments,
            digest: self.head.digest,
        }
    }
}

/// A body whose commitment does not hold.
pub(crate) struct BadBody {
    pub(crate) index: usize,
    /// Where its nonce begins, in bytes from the frame's beginning.
    pub(crate) offset: u64,
    /// Nonce and body together, in bytes.
    pub(crate) size: usize,
    pub(crate) is_zero: bool,
}

/// Takes nonce and body from the front of `bytes`.
pub(crate) fn open_body(bytes: &mut Bytes, length: usize, stored: Commitment, index: usize) -> Result<Blob, Fault> {
    let nonce = *bytes.first_chunk::<NONCE_SIZE_BYTES>().ok_or(Fault::Unfinished)?;
    if bytes.len() - NONCE_SIZE_BYTES < length {
        return Err(Fault::Unfinished);
    }
    let mut body = bytes.split_to(NONCE_SIZE_BYTES + length);
    let blob = Blob::seal(nonce, body.split_off(NONCE_SIZE_BYTES));
    if blob.commitment() == stored { Ok(blob) } else { Err(Fault::Commitment { index }) }
}

/// The rows of a table: body length and commitment.
pub(crate) fn rows(table: &[u8]) -> impl Iterator<Item = (usize, Commitment)> {
    table.as_chunks::<TABLE_ROW_SIZE_BYTES>().0.iter().filter_map(|row| {
        let mut fields = Fields(row);
        Some((fields.u32()? as usize, Commitment::from_bytes(fields.take()?)))
    })
}

/// Where the body at `index` stands behind a frame's prefix, in bytes, and its row; none where there are fewer.
pub(crate) fn body_row(table: &[u8], index: usize) -> Option<(u64, usize, Commitment)> {
    let before = rows(table).take(index).map(|(length, _)| (NONCE_SIZE_BYTES + length) as u64).sum();
    rows(table).nth(index).map(|(length, commitment)| (before, length, commitment))
}

/// Writes a body as it stands in a frame.
pub(crate) fn write_body(bytes: &mut Vec<u8>, blob: &Blob) {
    bytes.extend_from_slice(blob.nonce());
    bytes.extend_from_slice(blob.bytes());
}

fn bodies_length(table: &[u8]) -> u64 {
    rows(table).map(|(length, _)| (NONCE_SIZE_BYTES + length) as u64).sum()
}

/// Writes the frame of one entry at the end of `bytes` and returns its digest.
pub(crate) fn write_frame(bytes: &mut Vec<u8>, mark: FrameMark, meta: Meta, draft: &Draft) -> Digest {
    let mut table = Vec::with_capacity(draft.blobs.len() * TABLE_ROW_SIZE_BYTES);
    write_table(&draft.blobs, &mut table);
    let digest = meta.digest(&draft.payload, &table);
    let length = usize::try_from(draft.size_bytes()).map_or(u32::MAX, stored_length);
    Head { mark, length, meta, digest }.write(bytes);
    bytes.extend_from_slice(&table);
    bytes.extend_from_slice(&draft.payload);
    draft.blobs.iter().for_each(|blob| write_body(bytes, blob));
    digest
}

/// Takes fixed-size fields off the front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn segment_header(&mut self) -> Option<SegmentHeader> {
        Some(SegmentHeader {
            mark: FrameMark(self.take()?),
            first_sequence: self.u64()?,
            previous: Digest(self.take()?),
        })
    }

    fn head(&mut self) -> Option<Head> {
        let mark = FrameMark(self.take()?);
        let length = self.u32()?;
        let (commit_first, sequence) = (self.u64()?, self.u64()?);
        let recorded_at = self.take().map(i64::from_le_bytes)?;
        let (history, previous) = (HistoryId(self.take()?), Digest(self.take()?));
        let (kind, version) = (self.u16()?, self.u16()?);
        let (payload_length, blob_count) = (self.u32()?, self.u32()?);
        let digest = Digest(self.take()?);
        let meta =
            Meta { history, sequence, recorded_at, previous, kind, version, commit_first, payload_length, blob_count };
        Some(Head { mark, length, meta, digest })
    }
}
