//! Who holds which certificate: by what is in the folder, and by the anchor's register.

use concord_identity::{AnchorFolder, CertificateFacts, Registered};
use concord_model::{Identity, Role, Timestamp};

use super::taken_back::TakenBack;
use super::{Holders, HoldersError};

const MICROS_PER_DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// One certificate of one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub holder: Identity,
    /// In hexadecimal; none where it has yet to come.
    pub serial: Option<String>,
    /// First moment, if that is known.
    pub not_before: Option<Timestamp>,
    /// Last moment, if that is known.
    pub not_after: Option<Timestamp>,
    /// Over its key, if that is known.
    pub key: Option<String>,
    /// `valid`, `expired`, `revoked`, or `requested` where it has yet to come.
    pub state: &'static str,
    /// It is the one that stands in the folder.
    pub is_here: bool,
}

impl Held {
    /// Whole days that are left; negative ones after its end.
    pub fn days_left(&self, now: Timestamp) -> Option<i64> {
        self.not_after.map(|end| (end.as_micros() - now.as_micros()).div_euclid(MICROS_PER_DAY))
    }
}

impl Holders {
    /// The certificates of everybody of this role, or of all roles.
    pub fn list(&self, role: Option<Role>, now: Timestamp) -> Result<Vec<Held>, HoldersError> {
        let registered = AnchorFolder::register_in(&self.anchor_folder()).read()?;
        // Also by the lists beside: where the anchor is elsewhere there is no register to say so.
        let taken_back = self.taken_back()?;
        let mut all = Vec::new();
        for holder in self.everybody() {
            let place = self.place(&holder)?;
            let facts = match place.is_whole() {
                true => Some(self.present(&holder, &place)?),
                false => None,
            };
            all.push(of_folder(holder, facts, &taken_back, now));
        }
        for one in &registered {
            let Ok(holder) = one.name.parse::<Identity>() else { continue };
            if !all.iter().any(|held| held.serial.as_ref() == Some(&one.serial)) {
                all.push(of_register(holder, one, &taken_back, now));
            }
        }
        all.retain(|held| role.is_none_or(|role| held.holder.role == role));
        all.sort_by_key(|held| (held.holder.role.as_str(), held.holder.name.clone()));
        Ok(all)
    }
}

fn of_folder(holder: Identity, facts: Option<CertificateFacts>, taken_back: &TakenBack, now: Timestamp) -> Held {
    let Some(facts) = facts else {
        return Held {
            holder,
            serial: None,
            not_before: None,
            not_after: None,
            key: None,
            state: "requested",
            is_here: true,
        };
    };
    Held {
        holder,
        not_before: Some(facts.not_before),
        not_after: Some(facts.not_after),
        key: facts.key_fingerprint().map(|key| key.grouped()),
        state: state(taken_back.has_serial(&facts.serial), Some(facts.not_after), now),
        serial: Some(facts.serial),
        is_here: true,
    }
}

fn of_register(holder: Identity, one: &Registered, taken_back: &TakenBack, now: Timestamp) -> Held {
    let (not_before, not_after) = one.validity();
    Held {
        holder,
        serial: Some(one.serial.clone()),
        not_before,
        not_after,
        key: one.key_fingerprint().map(|key| key.grouped()),
        state: state(taken_back.has_serial(&one.serial), not_after, now),
        is_here: false,
    }
}

fn state(is_revoked: bool, not_after: Option<Timestamp>, now: Timestamp) -> &'static str {
    match (is_revoked, not_after) {
        (true, _) => "revoked",
        (false, Some(end)) if end < now => "expired",
        (false, _) => "valid",
    }
}
