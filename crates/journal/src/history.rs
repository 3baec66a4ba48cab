//! The one kind of entry that belongs to the journal itself: a history begins.

use bytes::Bytes;

use crate::digest::{Digest, HistoryId, Tail};
use crate::entry::Draft;

/// The kind of the entry that begins a history. No caller may append this kind.
pub const KIND_HISTORY_BEGUN: u16 = 0;

/// The version of that entry's encoding.
pub const HISTORY_BEGUN_VERSION: u16 = 1;

/// The payload of a [`KIND_HISTORY_BEGUN`] entry.
///
/// Encoding: history (16 bytes), then 0, or 1 with the parent's history (16), sequence (8, little-endian) and
/// digest (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBegun {
    /// The history that this entry is the first of.
    pub history: HistoryId,
    /// The tail at which its parent ends; absent in entry 1 of a journal.
    pub parent: Option<Tail>,
}

/// The bytes are not those of a begun history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes are not the encoding of a begun history (17 bytes without a parent, 73 with one)")]
pub struct HistoryBegunError {
    /// How many bytes there were.
    pub length: usize,
}

impl HistoryBegun {
    /// The encoding described above.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(73);
        bytes.extend_from_slice(&self.history.0);
        match &self.parent {
            None => bytes.push(0),
            Some(parent) => {
                bytes.push(1);
                bytes.extend_from_slice(&parent.history.0);
                bytes.extend_from_slice(&parent.sequence.to_le_bytes());
                bytes.extend_from_slice(&parent.digest.0);
            }
        }
        Bytes::from(bytes)
    }

    /// Reads exactly what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<HistoryBegun, HistoryBegunError> {
        Self::parse(bytes).ok_or(HistoryBegunError { length: bytes.len() })
    }

    fn parse(bytes: &[u8]) -> Option<HistoryBegun> {
        let (history, rest) = bytes.split_first_chunk::<16>()?;
        let (has_parent, rest) = rest.split_first()?;
        let (parent, rest) = match has_parent {
            0 => (None, rest),
            1 => {
                let (parent_history, rest) = rest.split_first_chunk::<16>()?;
                let (sequence, rest) = rest.split_first_chunk::<8>()?;
                let (digest, rest) = rest.split_first_chunk::<32>()?;
                let parent = Tail {
                    history: HistoryId(*parent_history),
                    sequence: u64::from_le_bytes(*sequence),
                    digest: Digest(*digest),
                };
                (Some(parent), rest)
            }
            _ => return None,
        };
        rest.is_empty().then_some(HistoryBegun { history: HistoryId(*history), parent })
    }

    pub(crate) fn into_draft(self, recorded_at: i64) -> Draft {
        Draft {
            kind: KIND_HISTORY_BEGUN,
            version: HISTORY_BEGUN_VERSION,
            recorded_at,
            payload: self.encode(),
            blobs: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_encode_writes_is_decoded() {
        let parent = Tail { history: HistoryId([2; 16]), sequence: 3, digest: Digest([4; 32]) };
        for parent in [None, Some(parent)] {
            let begun = HistoryBegun { history: HistoryId([1; 16]), parent };
            let bytes = begun.encode();
            assert_eq!(HistoryBegun::decode(&bytes), Ok(begun));
            for length in 0..bytes.len() {
                assert_eq!(HistoryBegun::decode(&bytes[..length]), Err(HistoryBegunError { length }));
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(HistoryBegun::decode(&longer).is_err());
            let mut other_flag = bytes.to_vec();
            other_flag[16] = 2;
            assert!(HistoryBegun::decode(&other_flag).is_err());
        }
    }
}
