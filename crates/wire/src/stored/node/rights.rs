//! Entries about what agencies may send and receive.

use concord_journal::{Draft, Entry};
use concord_model::{Lane, Name, Right, Timestamp};

use super::{NodeEntry, plain};
use crate::convert::{lane, parse_lane};
use crate::proto::journal::v1 as pb;
use crate::right::{parse_right, right};
use crate::stored::{StoredError, decode, malformed, required, unknown};

pub(super) const KIND_GRANTED: u16 = 123;
pub(super) const KIND_REVOKED: u16 = 124;
pub(super) const KIND_ENDED: u16 = 125;
pub(super) const KIND_COLLECTED: u16 = 126;
pub(super) const KIND_CONFIRMED: u16 = 127;

/// What changed of an agency's rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RightsChange {
    /// It was given a right more.
    Granted(Right),
    /// A right was taken from it.
    Revoked(Right),
    /// It was ended.
    Ended,
    /// An officer confirmed it behind a restore.
    Confirmed {
        /// What came back is given to it, where it was added behind the restore.
        with_past: bool,
    },
}

/// An agency acknowledged one delivery behind its cursor, which no agency had had the right to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The agency.
    pub agency: Name,
    /// The lane.
    pub lane: Lane,
    /// The number in the lane's mailbox.
    pub number: u64,
    /// What the hub is told in its place, where it gave the number again since.
    pub taken_as: Option<Vec<u64>>,
}

impl Collected {
    /// What the hub is told.
    pub fn told(&self) -> &[u64] {
        self.taken_as.as_deref().unwrap_or(std::slice::from_ref(&self.number))
    }
}

/// What an agency may send and receive changes.
pub fn rights_changed(name: &Name, change: &RightsChange, recorded_at: Timestamp) -> Draft {
    let name = name.to_string();
    match change {
        RightsChange::Granted(given) => {
            plain(KIND_GRANTED, &pb::AgencyGranted { name, right: Some(right(given)) }, recorded_at)
        }
        RightsChange::Revoked(taken) => {
            plain(KIND_REVOKED, &pb::AgencyRevoked { name, right: Some(right(taken)) }, recorded_at)
        }
        RightsChange::Ended => plain(KIND_ENDED, &pb::AgencyEnded { name }, recorded_at),
        RightsChange::Confirmed { with_past } => {
            plain(KIND_CONFIRMED, &pb::AgencyConfirmed { name, with_past: *with_past }, recorded_at)
        }
    }
}

/// An agency acknowledges one delivery behind its cursor.
pub fn collected(fact: &Collected, recorded_at: Timestamp) -> Draft {
    let message = pb::AgencyCollected {
        agency: fact.agency.to_string(),
        lane: lane(fact.lane).into(),
        number: fact.number,
        taken_as: fact.taken_as.clone().map(|numbers| pb::TakenAs { numbers }),
    };
    plain(KIND_COLLECTED, &message, recorded_at)
}

pub(super) fn read(entry: &Entry) -> Result<NodeEntry, StoredError> {
    let name = |name: &str| Name::parse(name).map_err(|error| malformed(entry, error));
    let right = |message| {
        let message = required(entry, "the right", message)?;
        parse_right(&message).map_err(|refusal| malformed(entry, refusal.message))
    };
    Ok(match entry.kind {
        KIND_GRANTED => {
            let message: pb::AgencyGranted = decode(entry)?;
            NodeEntry::RightsChanged(name(&message.name)?, RightsChange::Granted(right(message.right)?))
        }
        KIND_REVOKED => {
            let message: pb::AgencyRevoked = decode(entry)?;
            NodeEntry::RightsChanged(name(&message.name)?, RightsChange::Revoked(right(message.right)?))
        }
        KIND_ENDED => {
            let message: pb::AgencyEnded = decode(entry)?;
            NodeEntry::RightsChanged(name(&message.name)?, RightsChange::Ended)
        }
        KIND_CONFIRMED => {
            let pb::AgencyConfirmed { name: of, with_past } = decode(entry)?;
            NodeEntry::RightsChanged(name(&of)?, RightsChange::Confirmed { with_past })
        }
        KIND_COLLECTED => {
            let message: pb::AgencyCollected = decode(entry)?;
            NodeEntry::AgencyCollected(Collected {
                agency: name(&message.agency)?,
                lane: parse_lane(message.lane).map_err(|error| malformed(entry, error))?,
                number: message.number,
                taken_as: message.taken_as.map(|taken_as| taken_as.numbers),
            })
        }
        _ => return Err(unknown(entry)),
    })
}
