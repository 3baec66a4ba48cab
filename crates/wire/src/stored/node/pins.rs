//! The entry about whose keys count here.

use concord_journal::{Draft, Entry};
use concord_model::{Digest, Fingerprint, ParticipantCode, Timestamp};

use super::{NodeEntry, plain};
use crate::convert::digest_bytes;
use crate::proto::journal::v1 as pb;
use crate::stored::{StoredError, decode, malformed};

pub(super) const KIND_PIN_CONFIRMED: u16 = 129;

/// An officer confirms a signing key of another participant.
pub fn pin_confirmed(participant: &ParticipantCode, signing_key: &Fingerprint, recorded_at: Timestamp) -> Draft {
    let message = pb::PinConfirmed {
        participant: participant.to_string(),
        signing_key_fingerprint: digest_bytes(&signing_key.0),
    };
    plain(KIND_PIN_CONFIRMED, &message, recorded_at)
}

pub(super) fn read(entry: &Entry) -> Result<NodeEntry, StoredError> {
    let message: pb::PinConfirmed = decode(entry)?;
    let participant = ParticipantCode::parse(&message.participant).map_err(|error| malformed(entry, error))?;
    let key = Digest::from_slice(&message.signing_key_fingerprint).map_err(|error| malformed(entry, error))?;
    Ok(NodeEntry::PinConfirmed(participant, Fingerprint(key)))
}
