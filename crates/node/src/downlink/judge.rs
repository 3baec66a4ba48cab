//! Judging one delivery by what this participant itself consented to. Pure.

use concord_identity::verify;
use concord_model::{Header, Lane, ParticipantCode, SetAsideReason};
use concord_wire::delivery::{self, Verified};
use concord_wire::proto::exchange::v1::Delivery;

use crate::state::{Directory, HubKeys};
use concord_ledger::PartyState;

/// Whether a delivery holds: header, path, signature under the key that the own officer consented to, blobs, and membership
/// of both sides. The feed must be applied up to `delivery.feed_number`. Whether it came before is the writer's to find.
pub fn judge(
    directory: &Directory,
    hub: &HubKeys,
    own: &ParticipantCode,
    lane: Lane,
    delivery: &Delivery,
) -> Result<Verified, SetAsideReason> {
    // The header decides which key counts, so it is read before anything is verified with one.
    let header = concord_wire::header::parse(&delivery.header).map_err(|_| SetAsideReason::HeaderInvalid)?;
    if header.lane != lane {
        return Err(SetAsideReason::HeaderInvalid);
    }
    check_membership(directory, own, &header, delivery)?;
    delivery::verify(delivery, &hub.name, |origin, key, message, signature| {
        let pinned = directory.agreements.version(&header.agreement);
        let party = pinned.and_then(|pinned| pinned.text.party(origin)).ok_or(SetAsideReason::NotAMember)?;
        if party.signing_key != *key {
            return Err(SetAsideReason::KeyNotPinned);
        }
        let key = directory.registry.signing_key(origin, key).ok_or(SetAsideReason::KeyNotPinned)?;
        verify(&key.bytes, message, signature).map_err(|_| SetAsideReason::SignatureInvalid)
    })
}

/// Both were members of the named version when it was recorded, this participant consented to exactly that version and has
/// not left, and neither measure nor narrowing says otherwise.
fn check_membership(
    directory: &Directory,
    own: &ParticipantCode,
    header: &Header,
    delivery: &Delivery,
) -> Result<(), SetAsideReason> {
    let stranger = SetAsideReason::NotAMember;
    if !directory.is_pinned(&header.agreement) || header.origin == *own {
        return Err(stranger);
    }
    let agreement = directory.agreements.version(&header.agreement).ok_or(stranger)?;
    let position = delivery.feed_number;
    // What came again after a loss names a later position than it had. Its origin signed it for this version, and only a member's
    // node does: what the origin left since does not undo it.
    let by_member = agreement.was_member_at(&header.origin, position)
        || delivery.recorded_before_loss && agreement.was_member_before(&header.origin, position);
    let members = agreement.was_member_at(own, position) && by_member;
    // What ended for others was on its way when it ended; what this participant left is out at once.
    let left = agreement.party_state(own) == Some(PartyState::Left);
    let covered = agreement.text.measures.contains(&header.measure);
    let meant = header.narrowing.as_ref().is_none_or(|narrowing| narrowing.participants().contains(own));
    if members && !left && covered && meant { Ok(()) } else { Err(stranger) }
}
