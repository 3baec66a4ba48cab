//! Entries about how it ended with what had been set aside.

use concord_journal::{Blob, Draft, Entry};
use concord_model::{AsideEnd, Lane, Timestamp};

use super::{NodeEntry, Received, Verdict};
use crate::convert::{lane, parse_lane};
use crate::proto::exchange::v1::Delivery;
use crate::proto::journal::v1 as pb;
use crate::stored::{StoredError, check_blobs, decode, draft, malformed, required};

pub(super) const KIND_ASIDE_ENDED: u16 = 128;

/// What had been set aside came to an end.
pub struct AsideEnded {
    /// The lane.
    pub lane: Lane,
    /// The number in the lane's mailbox.
    pub number: u64,
    /// The number that the hub is told in its place; none where it knows it by none.
    pub told_as: Option<u64>,
    /// How.
    pub outcome: AsideOutcome,
}

/// How it ended with something that had been set aside.
pub enum AsideOutcome {
    /// Judged again, it holds: as if it had come with this entry. Its verdict is always [`Verdict::Accepted`].
    Accepted(Box<Received>),
    /// An officer discarded it.
    Discarded {
        /// Who said so: a URI name.
        by: String,
        /// Why.
        reason: String,
    },
}

impl AsideEnded {
    /// As it is told to the hub.
    pub const fn end(&self) -> AsideEnd {
        match self.outcome {
            AsideOutcome::Accepted(_) => AsideEnd::Holds,
            AsideOutcome::Discarded { .. } => AsideEnd::Discarded,
        }
    }
}

/// What had been set aside holds after all, with its blobs.
pub fn aside_accepted(
    lane_of: Lane,
    delivery: Delivery,
    blobs: Vec<Blob>,
    told_as: Option<u64>,
    recorded_at: Timestamp,
) -> Draft {
    let message = pb::AsideEnded {
        lane: lane(lane_of).into(),
        number: delivery.number,
        told_as: told_as.unwrap_or(0),
        end: Some(pb::aside_ended::End::Accepted(delivery)),
    };
    draft(KIND_ASIDE_ENDED, &message, blobs, recorded_at)
}

/// What had been set aside is discarded.
pub fn aside_discarded(
    (lane_of, number): (Lane, u64),
    by: &str,
    reason: &str,
    told_as: Option<u64>,
    recorded_at: Timestamp,
) -> Draft {
    let discarded = pb::AsideDiscarded { by: by.to_owned(), reason: reason.to_owned() };
    let message = pb::AsideEnded {
        lane: lane(lane_of).into(),
        number,
        told_as: told_as.unwrap_or(0),
        end: Some(pb::aside_ended::End::Discarded(discarded)),
    };
    draft(KIND_ASIDE_ENDED, &message, Vec::new(), recorded_at)
}

pub(super) fn read(entry: &Entry) -> Result<NodeEntry, StoredError> {
    use pb::aside_ended::End;
    let message: pb::AsideEnded = decode(entry)?;
    let blob_count = entry.commitments.len() as u32;
    let outcome = match required(entry, "how it ended", message.end)? {
        End::Accepted(delivery) if delivery.number != message.number => {
            return Err(malformed(entry, "its delivery has another number"));
        }
        End::Accepted(delivery) => {
            AsideOutcome::Accepted(Box::new(Received { verdict: Verdict::Accepted(delivery), blob_count }))
        }
        End::Discarded(discarded) => {
            check_blobs(entry, std::iter::empty())?;
            AsideOutcome::Discarded { by: discarded.by, reason: discarded.reason }
        }
    };
    Ok(NodeEntry::AsideEnded(AsideEnded {
        lane: parse_lane(message.lane).map_err(|error| malformed(entry, error))?,
        number: message.number,
        told_as: (message.told_as != 0).then_some(message.told_as),
        outcome,
    }))
}
