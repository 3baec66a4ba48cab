//! Roles: the chair, and who coordinates what. The forum decides, its secretariat records it with the paper, and everybody is told.
//!
//! A role is shown and gives no right: who may have what is agreed on and nothing else. So one officer's signature is enough.
//!
//! Invariant: of one place the newest decision holds ([`crate::revision`]), in whatever order a hub that lost data is handed them back. A
//! place is what one participant coordinates; the chair is one place whoever has it, so that there never are two.

use std::collections::BTreeMap;

use concord_model::{
    ForumRole, MeasureCode, Name, ParticipantCode, ParticipantKind, Reason, Refusal, RoleScope, Timestamp, Title,
};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::revision::{Revision, check_handed, check_next};
use crate::statement::{RoleDecision, Statement};

/// Places that were ever given to somebody. Over it: `ARGUMENT_INVALID`.
pub const ROLES_MAX: usize = 1024;

/// The roles of a forum. Folded by the hub, and by every node for its directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles {
    newest: BTreeMap<RolePlace, RoleHeld>,
}

/// What is given and taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RolePlace {
    /// The role.
    pub role: ForumRole,
    /// Over what.
    pub scope: RoleScope,
    /// Whose it is to have; none of the chair, which goes from one to the next.
    pub of: Option<ParticipantCode>,
}

/// The newest decision about one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleHeld {
    /// Which decision it is; its number is how often was decided about the place.
    pub revision: Revision,
    /// Who has it; nobody any more, where that was decided.
    pub holder: Option<ParticipantCode>,
    /// The paper.
    pub reference: Title,
    /// Who recorded it for the secretariat.
    pub officer: Name,
    /// When the hub recorded it.
    pub at: Timestamp,
}

impl Roles {
    /// All places, also those that nobody has any more.
    pub fn iter(&self) -> impl Iterator<Item = (&RolePlace, &RoleHeld)> {
        self.newest.iter()
    }

    /// One place, if it was ever decided about.
    pub fn get(&self, place: &RolePlace) -> Option<&RoleHeld> {
        self.newest.get(place)
    }

    /// Takes in a decision, unless a newer one is known.
    pub(crate) fn take_in(&mut self, statement: &Statement, decision: &RoleDecision, at: Timestamp) {
        let place = decision.place();
        let revision = Revision::of(statement, decision.revision);
        if self.get(&place).is_none_or(|known| revision > known.revision) {
            let held = RoleHeld {
                revision,
                holder: Some(decision.participant.clone()).filter(|_| decision.is_given),
                reference: decision.reference.clone(),
                officer: statement.officer.clone(),
                at,
            };
            self.newest.insert(place, held);
        }
    }
}

impl RoleDecision {
    /// What it is about.
    pub fn place(&self) -> RolePlace {
        let of = Some(self.participant.clone()).filter(|_| self.role != ForumRole::Chair);
        RolePlace { role: self.role, scope: self.scope.clone(), of }
    }
}

/// Whether an officer of this participant may record this decision now.
///
/// Refuses with `CALLER_NOT_ALLOWED`, `PARTICIPANT_UNKNOWN`, `MEASURE_UNKNOWN`, `REGISTRY_CHANGED`, `ROLE_EXISTS`, `ROLE_UNKNOWN` or
/// `ARGUMENT_INVALID`.
pub(crate) fn check_role(registry: &Registry, by: &ParticipantCode, decision: &RoleDecision) -> Result<(), Refusal> {
    check_role_form(registry, by, decision)?;
    let RoleDecision { participant, role, scope, revision, .. } = decision;
    let Some(one) = registry.participant(participant) else {
        let what = format!("there is no participant {participant} in the registry");
        return Err(Refusal::new(Reason::ParticipantUnknown, what));
    };
    if decision.is_given && one.kind != ParticipantKind::Member {
        let what = format!("{participant} is of kind {}: roles are the members'", one.kind);
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    check_scope(registry, scope)?;
    let known = registry.roles().get(&decision.place());
    let holder = known.and_then(|known| known.holder.as_ref());
    match (decision.is_given, holder == Some(participant)) {
        (true, true) => {
            let what = format!("{participant} is {role} there already");
            return Err(Refusal::new(Reason::RoleExists, what));
        }
        (false, false) => {
            let what = format!("{participant} is not {role} there");
            return Err(Refusal::new(Reason::RoleUnknown, what));
        }
        _ => {}
    }
    let last = known.map_or(0, |known| known.revision.number);
    check_next(*revision, last, || {
        format!("there were {last} decisions about it, so that decision {revision} cannot be the next")
    })
}

/// Whether a decision that is handed back can mean anything here: those before it may have yet to come back.
///
/// Refuses with `CALLER_NOT_ALLOWED`, `REGISTRY_CHANGED` or `ARGUMENT_INVALID`.
pub(crate) fn check_handed_role(
    registry: &Registry,
    by: &ParticipantCode,
    decision: &RoleDecision,
) -> Result<(), Refusal> {
    check_role_form(registry, by, decision)?;
    let last = registry.roles().get(&decision.place()).map_or(0, |known| known.revision.number);
    check_handed(decision.revision, last, || format!("decision {} about it", decision.revision))
}

/// What must hold of a decision whenever it comes: also of one that a hub that lost data is handed back.
fn check_role_form(registry: &Registry, by: &ParticipantCode, decision: &RoleDecision) -> Result<(), Refusal> {
    let RoleDecision { role, scope, .. } = decision;
    if *by != ParticipantCode::secretariat() {
        let what = "only an officer of the secretariat records which roles the forum gave";
        return Err(Refusal::new(Reason::CallerNotAllowed, what));
    }
    let invalid = |what: String| Err(Refusal::new(Reason::ArgumentInvalid, what));
    match role {
        ForumRole::Chair if *scope != RoleScope::default() => {
            return invalid("the chair is the chair of the forum, and of no area or measure".to_owned());
        }
        ForumRole::Chair => {}
        ForumRole::Coordinator | ForumRole::CoCoordinator if *scope == RoleScope::default() => {
            return invalid(format!("a {role} is one over something: name an area, a measure, or it in words"));
        }
        ForumRole::Coordinator | ForumRole::CoCoordinator if scope.area.is_some() && scope.measure.is_some() => {
            return invalid(format!("a {role} is one over an area or over a measure of it, not both"));
        }
        ForumRole::Coordinator | ForumRole::CoCoordinator => {}
    }
    let is_new = registry.roles().get(&decision.place()).is_none();
    if is_new && registry.roles().iter().count() >= ROLES_MAX {
        return invalid(format!("there are at most {ROLES_MAX} places of roles, with those that nobody has any more"));
    }
    Ok(())
}

fn check_scope(registry: &Registry, scope: &RoleScope) -> Result<(), Refusal> {
    if let Some(area) = &scope.area
        && !registry.areas().iter().any(|known| known.slug == *area)
    {
        let areas: Vec<_> = registry.areas().iter().map(|area| area.slug.as_str()).collect();
        let what = format!("there is no area {area} in the catalogue: there are {}", areas.join(", "));
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    let unknown = |measure: &&MeasureCode| registry.measure(measure).is_none();
    if let Some(measure) = scope.measure.as_ref().filter(unknown) {
        let what = format!("there is no measure {measure} in the catalogue");
        return Err(Refusal::new(Reason::MeasureUnknown, what));
    }
    Ok(())
}
