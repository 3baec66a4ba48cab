//! Contact points: whom one calls in each state, about a measure or about everything. A state's own officers say so, and everybody is told.
//!
//! Invariant: of one place the newest setting holds, in whatever order a hub that lost data is handed them back. So settings of a place are
//! numbered ([`crate::revision`]); one that says that there is nobody any more counts like any other.

use std::collections::BTreeMap;

use concord_model::{Contact, MeasureCode, Name, ParticipantCode, Reason, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::revision::{Revision, check_handed, check_next};
use crate::statement::{ContactSetting, Statement};

/// Places of one participant for which it has or had a contact point. Over it: `ARGUMENT_INVALID`.
pub const CONTACTS_MAX: usize = 256;

/// The contact points of a forum. Folded by the hub, and by every node for its directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contacts {
    /// By participant, then by measure; none is everything that has no contact point of its own.
    newest: BTreeMap<ParticipantCode, BTreeMap<Option<MeasureCode>, ContactPoint>>,
}

/// The newest setting of one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactPoint {
    /// Which setting it is; its number is how often the place was set.
    pub revision: Revision,
    /// Whom one calls; nobody any more, where that was the last word.
    pub contact: Option<Contact>,
    /// Who said so.
    pub officer: Name,
    /// When the hub recorded it.
    pub at: Timestamp,
}

impl Contacts {
    /// Everybody who ever set one, by code.
    pub fn participants(&self) -> impl Iterator<Item = &ParticipantCode> {
        self.newest.keys()
    }

    /// A participant's places, that for everything first.
    pub fn of(&self, participant: &ParticipantCode) -> impl Iterator<Item = (Option<&MeasureCode>, &ContactPoint)> {
        self.newest.get(participant).into_iter().flatten().map(|(measure, point)| (measure.as_ref(), point))
    }

    /// One place, if it was ever set.
    pub fn get(&self, participant: &ParticipantCode, measure: Option<&MeasureCode>) -> Option<&ContactPoint> {
        self.newest.get(participant)?.get(&measure.cloned())
    }

    /// Takes in a setting, unless a newer one is known.
    pub(crate) fn take_in(&mut self, statement: &Statement, setting: &ContactSetting, at: Timestamp) {
        let ContactSetting { measure, contact, .. } = setting;
        let revision = Revision::of(statement, setting.revision);
        if self.get(&statement.participant, measure.as_ref()).is_none_or(|known| revision > known.revision) {
            let officer = statement.officer.clone();
            let point = ContactPoint { revision, contact: contact.clone(), officer, at };
            self.newest.entry(statement.participant.clone()).or_default().insert(measure.clone(), point);
        }
    }
}

/// Whether an officer of this participant may set its contact point so now.
///
/// Refuses with `MEASURE_UNKNOWN`, `REGISTRY_CHANGED`, `CONTACT_UNKNOWN` or `ARGUMENT_INVALID`.
pub(crate) fn check_contact(
    registry: &Registry,
    by: &ParticipantCode,
    setting: &ContactSetting,
) -> Result<(), Refusal> {
    check_contact_form(registry, by, setting)?;
    let known = registry.contacts().get(by, setting.measure.as_ref());
    let (number, last) = (setting.revision, known.map_or(0, |known| known.revision.number));
    check_next(number, last, || {
        format!("this contact point of {by} was set {last} times, so that setting {number} cannot be the next")
    })?;
    if setting.contact.is_none() && known.is_none_or(|known| known.contact.is_none()) {
        return Err(Refusal::new(Reason::ContactUnknown, format!("{by} has no such contact point")));
    }
    Ok(())
}

/// Whether a setting that is handed back can mean anything here: those before it may have yet to come back.
///
/// Refuses with `MEASURE_UNKNOWN`, `REGISTRY_CHANGED` or `ARGUMENT_INVALID`.
pub(crate) fn check_handed_contact(
    registry: &Registry,
    by: &ParticipantCode,
    setting: &ContactSetting,
) -> Result<(), Refusal> {
    check_contact_form(registry, by, setting)?;
    let last = registry.contacts().get(by, setting.measure.as_ref()).map_or(0, |known| known.revision.number);
    check_handed(setting.revision, last, || format!("setting {} of this contact point of {by}", setting.revision))
}

/// What must hold of a setting whenever it comes: also of one that a hub that lost data is handed back.
fn check_contact_form(registry: &Registry, by: &ParticipantCode, setting: &ContactSetting) -> Result<(), Refusal> {
    if let Some(measure) = &setting.measure
        && registry.measure(measure).is_none()
    {
        let what = format!("there is no measure {measure} in the catalogue");
        return Err(Refusal::new(Reason::MeasureUnknown, what));
    }
    let is_new = registry.contacts().get(by, setting.measure.as_ref()).is_none();
    if is_new && registry.contacts().of(by).count() >= CONTACTS_MAX {
        let what = format!("a participant has contact points for at most {CONTACTS_MAX} measures");
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    Ok(())
}
