//! What was set aside and waits for a person's word.

use concord_model::{Digest, ExchangeId, Lane, Timestamp};
use concord_views::KeyReader;
use concord_wire::consignment::blob_to_bytes;
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::stored::node::Verdict;

use super::{Index, IndexError, lane_number};
use crate::projection::{OPEN_ASIDE, OpenAside, SET_ASIDE, lane_key};

/// One delivery that was set aside, without its content.
pub(crate) struct Evidence {
    pub(crate) lane: Lane,
    pub(crate) id: ExchangeId,
    pub(crate) at: Timestamp,
    pub(crate) reason: String,
    pub(crate) delivery: Delivery,
    /// What came beside the header.
    pub(crate) size_bytes: u64,
    row: OpenAside,
}

impl Index {
    /// What of a lane was set aside and waits for a word, from a number on, ascending; at most `limit`.
    pub(crate) fn open_asides(&self, lane: Lane, from: u64, limit: usize) -> Result<Vec<(u64, OpenAside)>, IndexError> {
        let prefix = lane_key(lane);
        let rows = self.views.scan(OPEN_ASIDE, prefix.clone().number(from).as_ref(), prefix.as_ref(), limit)?;
        let decoded = rows.into_iter().map(|(key, value)| Some((lane_number(&key)?, OpenAside::decode(&value)?)));
        decoded.collect::<Option<_>>().ok_or(IndexError::Row("what waits set aside"))
    }

    /// Whether a number was set aside and waits for a word.
    pub(crate) fn is_open_aside(&self, lane: Lane, number: u64) -> Result<bool, IndexError> {
        Ok(self.views.get(OPEN_ASIDE, lane_key(lane).number(number).as_ref())?.is_some())
    }

    /// One of them, as it came.
    pub(crate) fn evidence(&self, lane: Lane, number: u64) -> Result<Option<Evidence>, IndexError> {
        let missing = || IndexError::Row("what waits set aside");
        let Some(value) = self.views.get(OPEN_ASIDE, lane_key(lane).number(number).as_ref())? else { return Ok(None) };
        let row = OpenAside::decode(&value).ok_or_else(missing)?;
        let (Verdict::SetAside(delivery, reason), at) = self.verdict(row.sequence, row.index)? else {
            return Err(missing());
        };
        let id = ExchangeId(Digest(row.exchange_id));
        let bodies = self.journal.bodies(row.sequence)?.into_iter();
        let [first, count] = [row.first_blob, row.blob_count].map(|of| usize::try_from(of).unwrap_or(usize::MAX));
        let size_bytes = bodies.skip(first).take(count).map(|body| body.size_bytes).sum();
        Ok(Some(Evidence { lane, id, at, reason, delivery, size_bytes, row }))
    }

    /// What was set aside, whatever became of it, whose exchange id begins with these digits: its place, and whether it was discarded; at
    /// most two.
    pub(crate) fn set_aside_ever(&self, digits: &str) -> Result<Vec<(ExchangeId, Lane, u64, bool)>, IndexError> {
        let mut found = Vec::new();
        self.begin_so(SET_ASIDE, digits, |key, value| {
            let missing = || IndexError::Row("what was set aside");
            let id = ExchangeId(Digest::from_slice(key).map_err(|_| missing())?);
            let mut reader = KeyReader::new(value);
            let lane = reader.small().and_then(|lane| Lane::ALL.get(usize::from(lane)).copied());
            let (lane, number) = lane.zip(reader.number()).ok_or_else(missing)?;
            let (_sequence, _index) = (reader.number(), reader.number());
            found.push((id, lane, number, reader.small() == Some(1)));
            Ok(found.len() > 1)
        })?;
        Ok(found)
    }

    /// The whole delivery, with the content that came. Blocks.
    pub(crate) fn as_it_came(&self, evidence: &Evidence) -> Result<Delivery, IndexError> {
        let row = &evidence.row;
        let first = usize::try_from(row.first_blob).unwrap_or(usize::MAX);
        let count = usize::try_from(row.blob_count).unwrap_or(usize::MAX);
        let blobs = self.journal.blobs(row.sequence, first..first.saturating_add(count))?;
        Ok(Delivery { blobs: blobs.iter().map(blob_to_bytes).collect(), ..evidence.delivery.clone() })
    }
}
