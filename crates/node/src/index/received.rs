//! What other states sent: found by exchange id, with what became of it here.

use bytes::Bytes;
use concord_model::{Digest, ExchangeId, Timestamp};
use concord_views::KeyReader;
use concord_wire::convert::optional_timestamp;
use concord_wire::header::{exchange_id, parse};
use concord_wire::proto::exchange::v1::Delivery;
use concord_wire::stored::node::{Verdict, read};

use super::{DISCARDED, Index, IndexError};
use crate::projection::{RECEIVED, SET_ASIDE};
use crate::state::rights::About;

/// One exchange that came, without its content.
pub(crate) struct ReceivedOne {
    pub(crate) id: ExchangeId,
    /// Serialised, as it came.
    pub(crate) header: Bytes,
    /// When the hub recorded it.
    pub(crate) recorded_at: Option<Timestamp>,
    /// When it was journaled here.
    pub(crate) delivered_at: Timestamp,
    pub(crate) became: Became,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Became {
    /// It verified; whether an agency acknowledged it.
    Accepted { taken: bool },
    /// It did not verify, for this reason.
    SetAside(String),
}

impl Index {
    /// What came whose id begins with these hexadecimal digits, of what `may` lets through; at most two: one is found, two are ambiguous.
    pub(crate) fn received(&self, digits: &str, may: impl Fn(&About) -> bool) -> Result<Vec<ReceivedOne>, IndexError> {
        let mut found: Vec<ReceivedOne> = Vec::new();
        self.begin_so(RECEIVED, digits, |key, _| {
            found.extend(self.accepted(key, &may)?);
            Ok(found.len() > 1)
        })?;
        self.begin_so(SET_ASIDE, digits, |_, value| {
            let set_aside = self.set_aside(value, &may)?;
            // One that came once more and held is received.
            found.extend(set_aside.filter(|one| found.iter().all(|known| known.id != one.id)));
            Ok(found.len() > 1)
        })?;
        found.truncate(2);
        Ok(found)
    }

    fn accepted(&self, id: &[u8], may: &impl Fn(&About) -> bool) -> Result<Option<ReceivedOne>, IndexError> {
        let missing = || IndexError::Row("a received exchange");
        let id = ExchangeId(Digest::from_slice(id).map_err(|_| missing())?);
        let row = self.inbox_place(&id)?.ok_or_else(missing)?;
        // Whoever might have had it before it was withdrawn may know that it was.
        if !may(&About { is_withdrawn: false, ..row.about.clone() }) {
            return Ok(None);
        }
        let (Verdict::Accepted(delivery), delivered_at) = self.verdict(row.sequence, row.index)? else {
            return Err(missing());
        };
        let taken = match row.about.is_withdrawn {
            true => row.was_taken,
            false => {
                let lane = parse(&delivery.header).map_err(|_| missing())?.lane;
                !self.is_untaken(lane, delivery.number)?
            }
        };
        Ok(Some(one(id, &delivery, delivered_at, Became::Accepted { taken })))
    }

    /// Whose header cannot be read is nobody's.
    fn set_aside(&self, row: &[u8], may: &impl Fn(&About) -> bool) -> Result<Option<ReceivedOne>, IndexError> {
        let missing = || IndexError::Row("what was set aside");
        let mut reader = KeyReader::new(row);
        let (_lane, _number) = (reader.small(), reader.number());
        let (sequence, index) = reader.number().zip(reader.number()).ok_or_else(missing)?;
        let is_discarded = reader.small() == Some(1);
        let (Verdict::SetAside(delivery, reason), delivered_at) = self.verdict(sequence, index)? else {
            return Err(missing());
        };
        let Ok(header) = parse(&delivery.header) else { return Ok(None) };
        let id = exchange_id(&delivery.header);
        let reason = if is_discarded { DISCARDED.to_owned() } else { reason };
        Ok(may(&About::of(&header)).then(|| one(id, &delivery, delivered_at, Became::SetAside(reason))))
    }

    /// What was found of one delivery, and when.
    pub(super) fn verdict(&self, sequence: u64, index: u64) -> Result<(Verdict, Timestamp), IndexError> {
        let entry = self.read_one(sequence)?;
        let at = Timestamp::from_micros(entry.recorded_at);
        let mut items = read(&entry)?.into_received().ok_or(IndexError::Row("a delivery"))?;
        match usize::try_from(index).ok().filter(|index| *index < items.len()) {
            Some(index) => Ok((items.swap_remove(index).verdict, at)),
            None => Err(IndexError::Row("a delivery")),
        }
    }
}

fn one(id: ExchangeId, delivery: &Delivery, delivered_at: Timestamp, became: Became) -> ReceivedOne {
    let recorded_at = optional_timestamp(delivery.recorded_at.as_ref());
    ReceivedOne { id, header: delivery.header.clone(), recorded_at, delivered_at, became }
}
