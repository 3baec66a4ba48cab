//! The registry and the catalogue as messages say them.

use concord_model::{Area, Measure, MeasureCode, Name, ParseError, Participant, ParticipantCode, ParticipantKind};

use crate::convert::{digest_bytes, timestamp};
use crate::proto::feed::v1 as pb;
use crate::proto::operations::v1 as operations;

/// Who there is and what may be exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Who there is.
    pub participants: Vec<Participant>,
    /// The areas of the catalogue.
    pub areas: Vec<Area>,
    /// The catalogue.
    pub measures: Vec<Measure>,
}

/// The registry as a message.
pub fn registry(participants: &[Participant], areas: &[Area], measures: &[Measure]) -> pb::Registry {
    pb::Registry {
        participants: participants.iter().map(participant).collect(),
        areas: areas.iter().map(area).collect(),
        measures: measures.iter().map(measure).collect(),
    }
}

/// The technical holds on a participant as a message.
pub fn holds(holds: &concord_ledger::Holds, participant: &ParticipantCode) -> Vec<operations::TechnicalHold> {
    let on_it = holds.iter().filter(|(_, hold)| hold.participant == *participant);
    let one = |(statement, hold): (&concord_model::Digest, &concord_ledger::Hold)| operations::TechnicalHold {
        by: hold.by.to_string(),
        reason: hold.reason.to_string(),
        since: Some(timestamp(hold.since)),
        statement: digest_bytes(statement),
    };
    on_it.map(one).collect()
}

/// Reads a registry.
pub fn parse(message: &pb::Registry) -> Result<Registry, ParseError> {
    Ok(Registry {
        participants: message.participants.iter().map(parse_participant).collect::<Result<_, _>>()?,
        areas: message.areas.iter().map(parse_area).collect::<Result<_, _>>()?,
        measures: message.measures.iter().map(parse_measure).collect::<Result<_, _>>()?,
    })
}

/// A participant as a message.
pub fn participant(participant: &Participant) -> pb::Participant {
    let kind = match participant.kind {
        ParticipantKind::Member => pb::ParticipantKind::Member,
        ParticipantKind::ObserverState => pb::ParticipantKind::ObserverState,
        ParticipantKind::ObserverOrganisation => pb::ParticipantKind::ObserverOrganisation,
        ParticipantKind::Secretariat => pb::ParticipantKind::Secretariat,
    };
    let names = participant.names.iter();
    pb::Participant {
        code: participant.code.to_string(),
        kind: kind.into(),
        names: names.map(|(language, name)| pb::LocalName { language: language.clone(), name: name.clone() }).collect(),
    }
}

/// Reads a participant.
pub fn parse_participant(message: &pb::Participant) -> Result<Participant, ParseError> {
    let kind = match message.kind() {
        pb::ParticipantKind::Member => ParticipantKind::Member,
        pb::ParticipantKind::ObserverState => ParticipantKind::ObserverState,
        pb::ParticipantKind::ObserverOrganisation => ParticipantKind::ObserverOrganisation,
        pb::ParticipantKind::Secretariat => ParticipantKind::Secretariat,
        pb::ParticipantKind::Unspecified => {
            return Err(ParseError::new("kind of participant", message.kind.to_string(), "a kind that is known here"));
        }
    };
    Ok(Participant {
        code: ParticipantCode::parse(&message.code)?,
        kind,
        names: message.names.iter().map(|local| (local.language.clone(), local.name.clone())).collect(),
    })
}

/// An area as a message.
pub fn area(area: &Area) -> pb::Area {
    pb::Area { slug: area.slug.to_string(), title: area.title.clone() }
}

/// A measure as a message.
pub fn measure(measure: &Measure) -> pb::Measure {
    pb::Measure { code: measure.code.to_string(), slug: measure.slug.to_string(), title: measure.title.clone() }
}

fn parse_area(message: &pb::Area) -> Result<Area, ParseError> {
    Ok(Area { slug: Name::parse(&message.slug)?, title: message.title.clone() })
}

fn parse_measure(message: &pb::Measure) -> Result<Measure, ParseError> {
    Ok(Measure {
        code: MeasureCode::parse(&message.code)?,
        slug: Name::parse(&message.slug)?,
        title: message.title.clone(),
    })
}
