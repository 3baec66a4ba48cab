//! Keys that follow others by their owner's own word: a new signing key, for which the one before vouches, and a new trust anchor, for which
//! the signing key does.
//!
//! Invariant: keys follow so only with a signature of the key that all know, which was verified outside, so that of a state's keys nobody
//! needs to believe the hub or the secretariat; and what was signed with the keys before stands for ever. A signing key counts from an epoch on, that opens
//! with it, so by chain position and not by time. An anchor has no position: the one before goes on to count beside it until its owner
//! says that it ends, so that certificates are made anew one by one.

use concord_model::{Fingerprint, ParticipantCode, PublicKey, Reason, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::epoch::EpochOpening;
use crate::registry::{EarlierKeys, Enrolment, Registry};

/// A new signing key of the own participant's node, or of the secretariat's hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotation {
    /// The node, and the epoch of its chains that opens with the new key; none of the hub, which has no chains.
    pub opening: Option<EpochOpening>,
    /// The present key, which vouches for the new one.
    pub before: PublicKey,
    /// The new one.
    pub signing_key: PublicKey,
}

/// A new trust anchor of the own participant; the secretariat's is the hub's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorSuccession {
    /// The new anchor's certificate, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub anchor_fingerprint: Fingerprint,
    /// The present signing key, which vouches for it.
    pub signing_key: PublicKey,
}

impl Enrolment {
    /// The signing keys that it had and has, the first first, each with whether the one before vouches for it.
    pub fn succession(&self) -> impl Iterator<Item = (Fingerprint, bool)> {
        let keys = self.earlier.iter().map(|keys| keys.signing_key.fingerprint).chain([self.signing_key.fingerprint]);
        let vouched = std::iter::once(false).chain(self.earlier.iter().map(|keys| keys.vouches));
        keys.zip(vouched)
    }

    /// Whether its present keys are these, or follow these by their owner's own word alone.
    pub(crate) fn leads_from(&self, anchor: &Fingerprint, signing_key: &Fingerprint) -> bool {
        if self.anchor_fingerprint == *anchor && self.signing_key.fingerprint == *signing_key {
            return true;
        }
        let is_it =
            |keys: &EarlierKeys| keys.anchor_fingerprint == *anchor && keys.signing_key.fingerprint == *signing_key;
        self.earlier.iter().rev().take_while(|keys| keys.vouches).any(is_it)
    }

    /// Whether what is said now may be signed with this key: the present one, or the one before, where that vouches for it, since what was
    /// signed with it may be on its way.
    pub fn speaks_with(&self, signing_key: &Fingerprint) -> bool {
        let present = self.signing_key.fingerprint;
        let before = self.earlier.iter().rev().take_while(|keys| keys.vouches);
        let before = before.map(|keys| keys.signing_key.fingerprint).find(|key| *key != present);
        present == *signing_key || before == Some(*signing_key)
    }

    /// The keys that came first: of the hub's, those that it was founded with.
    pub fn first_keys(&self) -> (&[u8], &PublicKey) {
        let first = self.earlier.first().map(|keys| (keys.anchor.as_slice(), &keys.signing_key));
        first.unwrap_or((&self.anchor, &self.signing_key))
    }

    /// The anchors under which callers and what is new are known: the present one, and the one before until its end.
    pub fn present_anchors(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.anchor.as_slice()).chain(self.ending.as_ref().map(|ending| ending.anchor.as_slice()))
    }

    pub(crate) fn rotate(&mut self, signing_key: &PublicKey, at: Timestamp) {
        let before = self.keys(true);
        self.earlier.push(before);
        self.signing_key.clone_from(signing_key);
        self.enrolled_at = at;
    }

    pub(crate) fn succeed(&mut self, next: &AnchorSuccession, at: Timestamp) {
        let before = self.keys(true);
        self.ending = Some(EndingAnchor { anchor: before.anchor.clone(), fingerprint: before.anchor_fingerprint });
        self.earlier.push(before);
        self.anchor.clone_from(&next.anchor);
        self.anchor_fingerprint = next.anchor_fingerprint;
        self.enrolled_at = at;
    }

    pub(crate) fn end(&mut self, anchor: &Fingerprint) {
        self.ending.take_if(|ending| ending.fingerprint == *anchor);
    }

    /// The present keys, to be kept when others come.
    pub(crate) fn keys(&self, vouches: bool) -> EarlierKeys {
        EarlierKeys {
            anchor: self.anchor.clone(),
            anchor_fingerprint: self.anchor_fingerprint,
            signing_key: self.signing_key.clone(),
            vouches,
        }
    }
}

/// The anchor before the present one, while certificates under it count too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingAnchor {
    /// The anchor's certificate, DER.
    pub anchor: Vec<u8>,
    /// SHA-256 of it.
    pub fingerprint: Fingerprint,
}

impl Registry {
    /// Whether an officer of this participant may say so of its server's signing key. That an epoch opens is asked elsewhere.
    ///
    /// Refuses with `CALLER_NOT_ALLOWED`, `PARTICIPANT_NOT_ENROLLED`, `CHAIN_MISMATCH`, `SIGNING_KEY_UNKNOWN` or
    /// `PARTICIPANT_ALREADY_ENROLLED`.
    pub(crate) fn check_rotate(&self, by: &ParticipantCode, rotation: &KeyRotation) -> Result<(), Refusal> {
        let keys = match &rotation.opening {
            Some(opening) => {
                let keys = self.enrolment(by).ok_or_else(|| no_keys(by))?;
                if keys.node != opening.node {
                    let what = format!("{} is not the node of {by}, which is {}", opening.node, keys.node);
                    return Err(Refusal::new(Reason::ChainMismatch, what));
                }
                keys
            }
            None => self.own_keys(by).filter(|_| *by == ParticipantCode::secretariat()).ok_or_else(|| {
                let what = "only the secretariat's officers speak for the hub";
                Refusal::new(Reason::CallerNotAllowed, what)
            })?,
        };
        check_vouches(keys, &rotation.before)?;
        // An earlier one would make a chain of consignments verifiable by a key that was given up.
        let new = &rotation.signing_key.fingerprint;
        let of_hub = self.hub_keys().is_some_and(|hub| hub.known_key(new).is_some());
        if of_hub || self.enrolments().any(|(_, others)| others.known_key(new).is_some()) {
            let what =
                format!("the key {} is or was in use: a server that changes its key makes a new one", new.grouped());
            return Err(Refusal::new(Reason::ParticipantAlreadyEnrolled, what));
        }
        Ok(())
    }

    /// Whether an officer of this participant may say so of its anchor.
    ///
    /// Refuses with `PARTICIPANT_NOT_ENROLLED`, `SIGNING_KEY_UNKNOWN`, `PARTICIPANT_ALREADY_ENROLLED` or `ANCHOR_ENDING`.
    pub(crate) fn check_succeed(&self, by: &ParticipantCode, next: &AnchorSuccession) -> Result<(), Refusal> {
        let keys = self.own_keys(by).ok_or_else(|| no_keys(by))?;
        check_vouches(keys, &next.signing_key)?;
        if keys.anchors().any(|anchor| anchor == next.anchor) {
            let what = format!(
                "{by} has or had the anchor {}: a new one has a key of its own",
                next.anchor_fingerprint.grouped()
            );
            return Err(Refusal::new(Reason::ParticipantAlreadyEnrolled, what));
        }
        if let Some(ending) = &keys.ending {
            let what = format!("the anchor {} before the present one still counts", ending.fingerprint.grouped());
            return Err(Refusal::new(Reason::AnchorEnding, what));
        }
        Ok(())
    }

    /// Whether an officer of this participant may end this anchor: the one before the present one, once.
    ///
    /// Refuses with `PARTICIPANT_NOT_ENROLLED` or `ANCHOR_UNKNOWN`.
    pub(crate) fn check_end(&self, by: &ParticipantCode, anchor: &Fingerprint) -> Result<(), Refusal> {
        let keys = self.own_keys(by).ok_or_else(|| no_keys(by))?;
        if keys.ending.as_ref().is_some_and(|ending| ending.fingerprint == *anchor) {
            return Ok(());
        }
        let what = format!("{} is no anchor of {by} that counts beside its present one", anchor.grouped());
        Err(Refusal::new(Reason::AnchorUnknown, what))
    }

    /// Whether this is the key that vouches for a new anchor of this participant.
    pub(crate) fn vouches(&self, participant: &ParticipantCode, signing_key: &PublicKey) -> bool {
        self.own_keys(participant).is_some_and(|keys| keys.signing_key == *signing_key)
    }

    /// The keys that an officer speaks for when it speaks of the anchor: its node's; of the secretariat the hub's, whose anchor its node
    /// has too.
    pub(crate) fn own_keys(&self, by: &ParticipantCode) -> Option<&Enrolment> {
        if *by == ParticipantCode::secretariat() { self.hub_keys() } else { self.enrolment(by) }
    }
}

fn check_vouches(keys: &Enrolment, by: &PublicKey) -> Result<(), Refusal> {
    if keys.signing_key == *by {
        return Ok(());
    }
    let what = format!(
        "the key that vouches for it is {}, and the present signing key of {} is {}",
        by.fingerprint.grouped(),
        keys.node,
        keys.signing_key.fingerprint.grouped()
    );
    Err(Refusal::new(Reason::SigningKeyUnknown, what))
}

fn no_keys(whose: &ParticipantCode) -> Refusal {
    Refusal::new(Reason::ParticipantNotEnrolled, format!("{whose} has no enrolled keys that others could follow"))
}
