//! Judging one delivery by what this participant itself consented to. Pure.

use concord_identity::verify;
use concord_ledger::{Agreement, Agreements, check_terms};
use concord_model::{Header, Lane, ParticipantCode, PartyRole, SetAsideReason, Timestamp};
use concord_wire::convert::optional_timestamp;
use concord_wire::delivery::{self, Verified};
use concord_wire::proto::exchange::v1::Delivery;

use crate::state::{Directory, HubKeys};

/// Whether a delivery holds: header, path, signature under a key that counts for what the own officer consented to, blobs, and membership
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
    concord_faults::failure("node.judge.reads-header").map_err(|_| SetAsideReason::HeaderInvalid)?;
    if header.lane != lane {
        return Err(SetAsideReason::HeaderInvalid);
    }
    match header.withdraws {
        Some(_) => check_withdrawal(directory, own, &header)?,
        None => check_membership(directory, own, &header, delivery)?,
    }
    delivery::verify(delivery, &hub.name, |origin, key, message, signature| {
        let pinned = directory.agreements.version(&header.agreement);
        let party = pinned.and_then(|pinned| pinned.text.party(origin)).ok_or(SetAsideReason::NotAMember)?;
        if !directory.counts(origin, &party.signing_key, key) {
            return Err(SetAsideReason::KeyNotPinned);
        }
        let key = directory.registry.signing_key(origin, key).ok_or(SetAsideReason::KeyNotPinned)?;
        verify(&key.bytes, message, signature).map_err(|_| SetAsideReason::SignatureInvalid)
    })
}

/// A withdrawal speaks of what was sent under a version that this participant consented to once, with its origin on it: whoever left since is
/// told so all the same. What it never got by then, it stands for nothing.
fn check_withdrawal(directory: &Directory, own: &ParticipantCode, header: &Header) -> Result<(), SetAsideReason> {
    let named = directory.agreements.version(&header.agreement).filter(|_| directory.is_pinned(&header.agreement));
    let is_between = |named: &Agreement| {
        let is_party = |one| named.text.party(one).is_some();
        is_party(own) && is_party(&header.origin) && named.text.measures.contains(&header.measure)
    };
    let meant = header.narrowing.as_ref().is_none_or(|narrowing| narrowing.participants().contains(own));
    let holds = named.is_some_and(is_between) && meant && header.origin != *own;
    if holds { Ok(()) } else { Err(SetAsideReason::NotAMember) }
}

/// Both were members when it was recorded, by the named version and by the one in force then; this participant consented to exactly
/// the named one and has not left; and neither the narrowing nor the terms and measures of both versions say otherwise.
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
    let (agreements, id) = (&directory.agreements, &header.agreement.id);
    let named = agreements.version(&header.agreement).ok_or(stranger)?;
    let position = delivery.feed_number;
    let was_in_force = named.in_force_since.is_some_and(|since| since <= position);
    // What came again after a loss names a later position than it had. Its origin signed it for this version, and only a member's
    // node does: what the origin left since does not undo it.
    let by_member = agreements.was_member_at(id, &header.origin, position)
        || delivery.recorded_before_loss && agreements.was_member_before(id, &header.origin, position);
    let members = was_in_force && agreements.was_member_at(id, own, position) && by_member;
    // What ended for others was on its way when it ended; what this participant left is out at once.
    let left = agreements.left_after(id, own, position);
    let covered = named.text.measures.contains(&header.measure);
    let meant = header.narrowing.as_ref().is_none_or(|narrowing| narrowing.participants().contains(own));
    if !members || left || !covered || !meant {
        return Err(stranger);
    }
    // A hub that hands on what those on the versions did not agree to is not believed.
    let keeps = keeps_to(named, own, header) && keeps_to_present(agreements, own, header, delivery);
    if keeps { Ok(()) } else { Err(SetAsideReason::TermsBroken) }
}

/// Whether a version allows this from its origin to this participant.
fn keeps_to(version: &Agreement, own: &ParticipantCode, header: &Header) -> bool {
    let receives = version.role(own).is_some_and(PartyRole::receives);
    receives && version.text.measures.contains(&header.measure) && check_terms(version, &header.origin, header).is_ok()
}

/// Whether the version does that was in force when it was recorded, in its time. The time of the named one is over with its amendment.
fn keeps_to_present(agreements: &Agreements, own: &ParticipantCode, header: &Header, delivery: &Delivery) -> bool {
    // What came again after a loss was recorded under a version that its later position does not tell.
    if delivery.recorded_before_loss {
        return true;
    }
    let Some(present) = agreements.in_force_at(&header.agreement.id, delivery.feed_number) else { return false };
    let recorded_at = optional_timestamp(delivery.recorded_at.as_ref());
    let is_over = |until: Timestamp| recorded_at.is_none_or(|recorded| until <= recorded);
    keeps_to(present, own, header) && !present.text.valid_until.is_some_and(is_over)
}
