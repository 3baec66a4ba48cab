//! What the forum decided about itself: participants and measures that join, new names and kinds. The registry and the catalogue grow, and
//! nothing of them is ever removed, so that what was said under a code or a name stays readable.
//!
//! One officer of the secretariat records a decision, with its paper, and everybody is told both. It needs no second signature: it lets
//! nobody in and gives nobody anything before an enrolment or an agreement, which need theirs.
//!
//! Invariant: whatever order a hub that lost data is handed decisions back in, the registry comes out the same. So changes of one
//! participant are numbered ([`crate::revision`]), and what holds is made of all of them in that order. Of two additions the first made
//! counts.

use std::collections::BTreeMap;

use concord_model::{
    Measure, MeasureCode, Name, Participant, ParticipantCode, ParticipantKind, Reason, Refusal, Timestamp, Title,
};
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::revision::{Revision, check_handed, check_next};
use crate::statement::{DecisionContent, ForumDecision, Statement};

/// Participants of a forum. Over it: `ARGUMENT_INVALID`.
pub const PARTICIPANTS_MAX: usize = 1024;
/// Measures of a catalogue. Over it: `ARGUMENT_INVALID`.
pub const MEASURES_MAX: usize = 4096;
/// Languages in which a participant has a name. Over it: `ARGUMENT_INVALID`.
pub const LANGUAGES_MAX: usize = 32;

/// What the forum decided about one participant, or one measure; the addition is number 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    by_number: BTreeMap<Revision, Change>,
}

/// One decision that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What was decided, with its paper.
    pub decision: ForumDecision,
    /// Who recorded it for the secretariat.
    pub officer: Name,
    /// When the hub recorded it.
    pub at: Timestamp,
}

impl Changes {
    /// In their order, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Change)> {
        self.by_number.iter().map(|(revision, change)| (revision.number, change))
    }

    /// The number of the newest; 0 where there is none but the addition.
    pub fn last(&self) -> u32 {
        self.by_number.last_key_value().map_or(0, |(revision, _)| revision.number)
    }

    pub(crate) fn take_in(&mut self, statement: &Statement, decision: &ForumDecision, at: Timestamp) {
        let number = match &decision.content {
            DecisionContent::Rename { revision, .. } | DecisionContent::SetKind { revision, .. } => *revision,
            DecisionContent::AddParticipant(_) | DecisionContent::AddMeasure(_) => 0,
        };
        let change = Change { decision: decision.clone(), officer: statement.officer.clone(), at };
        self.by_number.entry(Revision::of(statement, number)).or_insert(change);
    }

    /// The decision by which it joined, if one that is known did.
    pub(crate) fn addition(&self) -> Option<&Change> {
        self.iter().next().filter(|(number, _)| *number == 0).map(|(_, change)| change)
    }

    /// What became of a participant that began so.
    pub fn applied_to(&self, begun: &Participant) -> Participant {
        let mut now = begun.clone();
        self.iter().for_each(|(_, change)| change.apply_to(&mut now));
        now
    }
}

impl Change {
    /// What it makes of a participant.
    pub fn apply_to(&self, participant: &mut Participant) {
        self.decision.content.apply_to(participant);
    }
}

impl DecisionContent {
    fn apply_to(&self, participant: &mut Participant) {
        match self {
            Self::Rename { names, .. } => {
                participant.names.extend(names.iter().map(|(language, name)| (language.clone(), name.clone())));
            }
            Self::SetKind { kind, .. } => participant.kind = *kind,
            Self::AddParticipant(_) | Self::AddMeasure(_) => {}
        }
    }

    fn changes_nothing(&self, now: &Participant) -> bool {
        let mut then = now.clone();
        self.apply_to(&mut then);
        then == *now
    }
}

/// Whether a decision that is handed back can mean anything here. What it changes may have yet to come back, and changes that came before
/// it; an addition may have been made anew meanwhile, and then both stand.
///
/// Refuses with `REGISTRY_CHANGED` a change too far ahead, which would leave no number for the next, or as [`check_decision`] does.
pub(crate) fn check_handed_decision(
    registry: &Registry,
    by: &ParticipantCode,
    decision: &ForumDecision,
) -> Result<(), Refusal> {
    check_decision_form(registry, by, &decision.content)?;
    let (participant, revision) = match &decision.content {
        DecisionContent::AddParticipant(participant) if registry.is_added(&participant.code) => return Ok(()),
        DecisionContent::AddMeasure(measure) if registry.addition_of(&measure.code).is_some() => return Ok(()),
        DecisionContent::AddParticipant(_) | DecisionContent::AddMeasure(_) => {
            return check_decision(registry, by, decision);
        }
        DecisionContent::Rename { participant, revision, .. }
        | DecisionContent::SetKind { participant, revision, .. } => (participant, revision),
    };
    let last = registry.changes_of(participant).map_or(0, Changes::last);
    check_handed(*revision, last, || format!("change {revision} of {participant}"))
}

/// Puts a measure behind those of its area that come before it by number, whatever was there first.
pub(crate) fn insert_measure(measures: &mut Vec<Measure>, measure: Measure) {
    let key = |code: &MeasureCode| (code.as_str().len(), code.as_str().to_owned());
    let area = area_of(&measure.code).to_owned();
    let of_area = |one: &Measure| area_of(&one.code) == area;
    let before = measures.iter().rposition(|one| of_area(one) && key(&one.code) < key(&measure.code));
    let first = measures.iter().position(of_area);
    let place = before.map(|place| place + 1).or(first).unwrap_or(measures.len());
    measures.insert(place, measure);
}

fn area_of(code: &MeasureCode) -> &str {
    code.as_str().split('.').next().unwrap_or_default()
}

/// Whether an officer of this participant may record this decision now.
///
/// Refuses with `CALLER_NOT_ALLOWED`, `PARTICIPANT_EXISTS`, `PARTICIPANT_UNKNOWN`, `REGISTRY_CHANGED`, `MEASURE_EXISTS` or
/// `ARGUMENT_INVALID`.
pub(crate) fn check_decision(
    registry: &Registry,
    by: &ParticipantCode,
    decision: &ForumDecision,
) -> Result<(), Refusal> {
    check_decision_form(registry, by, &decision.content)?;
    match &decision.content {
        DecisionContent::AddParticipant(participant) if registry.participant(&participant.code).is_some() => {
            let what = format!("there is a participant {}: codes are never used again", participant.code);
            Err(Refusal::new(Reason::ParticipantExists, what))
        }
        DecisionContent::AddMeasure(measure) if registry.measure(&measure.code).is_some() => {
            let what = format!("there is a measure {}: codes are never used again", measure.code);
            Err(Refusal::new(Reason::MeasureExists, what))
        }
        DecisionContent::AddMeasure(measure) => match registry.measures().iter().find(|one| one.slug == measure.slug) {
            Some(other) => {
                let what = format!("{} is the short name of {} already", measure.slug, other.code);
                Err(Refusal::new(Reason::MeasureExists, what))
            }
            None => Ok(()),
        },
        DecisionContent::AddParticipant(_) => Ok(()),
        DecisionContent::Rename { participant, revision, .. }
        | DecisionContent::SetKind { participant, revision, .. } => {
            let Some(now) = registry.participant(participant) else {
                let what = format!("there is no participant {participant} in the registry");
                return Err(Refusal::new(Reason::ParticipantUnknown, what));
            };
            let last = registry.changes_of(participant).map_or(0, Changes::last);
            check_next(*revision, last, || {
                format!("{participant} was changed {last} times, so that change {revision} cannot be the next")
            })?;
            // Said twice by mistake it would stand twice in what all are told.
            if decision.content.changes_nothing(now) {
                let what = format!("{participant} is so already: there is nothing to record");
                return Err(Refusal::new(Reason::ArgumentInvalid, what));
            }
            Ok(())
        }
    }
}

/// What must hold of a decision whenever it comes: also of one that a hub that lost data is handed back.
pub(crate) fn check_decision_form(
    registry: &Registry,
    by: &ParticipantCode,
    content: &DecisionContent,
) -> Result<(), Refusal> {
    let secretariat = ParticipantCode::secretariat();
    let invalid = |what: String| Err(Refusal::new(Reason::ArgumentInvalid, what));
    if *by != secretariat {
        let what = "only an officer of the secretariat records what the forum decided";
        return Err(Refusal::new(Reason::CallerNotAllowed, what));
    }
    match content {
        DecisionContent::AddParticipant(participant) => {
            if registry.participants().count() >= PARTICIPANTS_MAX {
                return invalid(format!("a forum has at most {PARTICIPANTS_MAX} participants"));
            }
            if !participant.names.contains_key("en") {
                return invalid(format!("{} has no English name: give one for en", participant.code));
            }
            check_kind(&participant.code, participant.kind)?;
            check_names(&participant.names)
        }
        DecisionContent::Rename { names, .. } => check_names(names),
        DecisionContent::SetKind { participant, kind, .. } => check_kind(participant, *kind),
        DecisionContent::AddMeasure(measure) => {
            if registry.measures().len() >= MEASURES_MAX {
                return invalid(format!("a catalogue has at most {MEASURES_MAX} measures"));
            }
            if !registry.areas().iter().any(|area| area.slug.as_str() == area_of(&measure.code)) {
                let areas: Vec<_> = registry.areas().iter().map(|area| area.slug.as_str()).collect();
                return invalid(format!("{} is of no area of the catalogue: {}", measure.code, areas.join(", ")));
            }
            Title::parse(&measure.title).map(drop).or_else(|error| invalid(error.to_string()))
        }
    }
}

fn check_kind(participant: &ParticipantCode, kind: ParticipantKind) -> Result<(), Refusal> {
    let secretariat = ParticipantCode::secretariat();
    if *participant == secretariat || kind == ParticipantKind::Secretariat {
        let what = format!("the secretariat, and only it, is {secretariat}: that is no decision of the forum here");
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    Ok(())
}

fn check_names(names: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let invalid = |what: String| Err(Refusal::new(Reason::ArgumentInvalid, what));
    if names.is_empty() || names.len() > LANGUAGES_MAX {
        return invalid(format!("a participant is named in 1 to {LANGUAGES_MAX} languages"));
    }
    for (language, name) in names {
        let is_tag = (2..=16).contains(&language.len())
            && language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_tag {
            return invalid("a name is said with its language, such as en or ru".to_owned());
        }
        Title::parse(name).map(drop).or_else(|error| invalid(error.to_string()))?;
    }
    Ok(())
}
