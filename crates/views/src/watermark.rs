//! The watermark row: how far the journal has been applied, by which projection, and to which rows.

use concord_journal::{Digest, HistoryId, Tail};
use sha2::{Digest as _, Sha256};

use crate::{
    Table,
    fingerprint::{Fingerprint, leading},
};

/// The only key of the watermark's table.
pub(crate) fn row() -> Vec<u8> {
    Table::WATERMARK.row(b"watermark")
}

/// What the watermark row says. Sequence 0 means: made, nothing applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) projection_version: u32,
    pub(crate) at: Tail,
    /// Of the rows of the groups, each of which has the sum of its own.
    pub(crate) rows: Fingerprint,
}

/// The shape of the row and of the fingerprint; another one is another projection version's folder to us.
const LAYOUT: u8 = 2;
const CHECKED_SIZE: usize = 1 + 4 + 16 + 8 + 32 + 16;
const SIZE: usize = CHECKED_SIZE + 16;

impl Watermark {
    /// Nothing applied yet.
    pub(crate) fn nothing(projection_version: u32) -> Self {
        let at = Tail { history: HistoryId([0; 16]), sequence: 0, digest: Digest::ZERO };
        Self { projection_version, at, rows: Fingerprint::default() }
    }

    /// How far the journal has been applied, if it has been at all.
    pub(crate) fn applied(&self) -> Option<Tail> {
        (self.at.sequence > 0).then_some(self.at)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(SIZE);
        row.push(LAYOUT);
        row.extend_from_slice(&self.projection_version.to_be_bytes());
        row.extend_from_slice(&self.at.history.0);
        row.extend_from_slice(&self.at.sequence.to_be_bytes());
        row.extend_from_slice(&self.at.digest.0);
        row.extend_from_slice(&self.rows.to_bytes());
        row.extend_from_slice(&check(&row));
        row
    }

    /// What `encode` wrote; `None` for anything else.
    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let (checked, stated_check) = row.split_at_checked(CHECKED_SIZE)?;
        if stated_check != check(checked) {
            return None;
        }
        let (layout, rest) = checked.split_first_chunk::<1>()?;
        let (projection_version, rest) = rest.split_first_chunk::<4>()?;
        let (history, rest) = rest.split_first_chunk::<16>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let (rows, _) = rest.split_first_chunk::<16>()?;
        (*layout == [LAYOUT]).then(|| Self {
            projection_version: u32::from_be_bytes(*projection_version),
            at: Tail { history: HistoryId(*history), sequence: u64::from_be_bytes(*sequence), digest: Digest(*digest) },
            rows: Fingerprint::from_bytes(*rows),
        })
    }
}

/// A damaged watermark could claim that the journal lost data; that alarm must not come from a flipped bit here.
fn check(fields: &[u8]) -> [u8; 16] {
    leading(&Sha256::digest(fields)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_reads_back_and_no_byte_of_it_may_change() {
        let mut rows = Fingerprint::default();
        rows.add(b"row", b"value");
        let at = Tail { history: HistoryId([7; 16]), sequence: 258, digest: Digest([9; 32]) };
        let watermark = Watermark { projection_version: 3, at, rows };
        let row = watermark.encode();
        assert_eq!(Watermark::decode(&row), Some(watermark));
        for position in 0..row.len() {
            let mut damaged = row.clone();
            damaged[position] ^= 1;
            assert_eq!(Watermark::decode(&damaged), None, "byte {position}");
            assert_eq!(Watermark::decode(&row[..position]), None, "cut at {position}");
        }
    }
}
