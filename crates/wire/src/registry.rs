//! The registry and the catalogue as messages say them.

use std::collections::BTreeMap;

use concord_ledger::{Change, DecisionContent, Enrolment};
use concord_model::{
    Area, Fingerprint, Measure, MeasureCode, Name, ParseError, Participant, ParticipantCode, ParticipantKind, Reason,
    Refusal,
};

use crate::agreement::offices::contact;
use crate::convert::{digest_bytes, refuse, timestamp};
use crate::proto::feed::v1 as pb;
use crate::proto::operations::v1 as operations;

/// Contact points from which on a page of them takes in no other participant.
const CONTACTS_PAGE: usize = 1000;

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

/// A page of the contact points, of one participant or of all behind this one; who ever set one comes whole.
pub fn contacts(
    contacts: &concord_ledger::Contacts,
    only: Option<&ParticipantCode>,
    after: Option<&ParticipantCode>,
) -> operations::ListContactsResponse {
    let mut page = operations::ListContactsResponse::default();
    let is_asked =
        |code: &&ParticipantCode| only.is_none_or(|only| only == *code) && after.is_none_or(|after| *code > after);
    let mut last: Option<&ParticipantCode> = None;
    for participant in contacts.participants().filter(is_asked) {
        if let Some(last) = last.filter(|_| page.contacts.len() >= CONTACTS_PAGE) {
            page.more_after = last.to_string();
            break;
        }
        page.contacts.extend(contacts.of(participant).map(|(measure, point)| operations::ContactPoint {
            participant: participant.to_string(),
            measure: measure.map(ToString::to_string).unwrap_or_default(),
            revision: point.revision.number,
            contact: point.contact.as_ref().map(contact),
            officer: point.officer.to_string(),
            at: Some(timestamp(point.at)),
        }));
        last = Some(participant);
    }
    page
}

/// What a page of contact points is asked for by: whose, and behind whom. Refuses with `ARGUMENT_INVALID`.
pub fn parse_contacts_request(
    asked: &operations::ListContactsRequest,
) -> Result<(Option<ParticipantCode>, Option<ParticipantCode>), Refusal> {
    let code = |text: &str| match text {
        "" => Ok(None),
        text => ParticipantCode::parse(text).map(Some).map_err(refuse(Reason::ArgumentInvalid)),
    };
    Ok((code(&asked.participant)?, code(&asked.after)?))
}

/// The roles as a message.
pub fn roles(roles: &concord_ledger::Roles) -> operations::ListRolesResponse {
    let text = |of: Option<String>| of.unwrap_or_default();
    let roles = roles.iter().map(|(place, held)| operations::RolePlace {
        role: place.role.to_string(),
        area: text(place.scope.area.as_ref().map(ToString::to_string)),
        measure: text(place.scope.measure.as_ref().map(ToString::to_string)),
        words: text(place.scope.words.as_ref().map(ToString::to_string)),
        of: text(place.of.as_ref().map(ToString::to_string)),
        revision: held.revision.number,
        holder: text(held.holder.as_ref().map(ToString::to_string)),
        reference: held.reference.to_string(),
        at: Some(timestamp(held.at)),
    });
    operations::ListRolesResponse { roles: roles.collect() }
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
    pb::Participant {
        code: participant.code.to_string(),
        kind: kind(participant.kind).into(),
        names: names(&participant.names),
    }
}

/// A kind of participant as a message.
pub fn kind(kind: ParticipantKind) -> pb::ParticipantKind {
    match kind {
        ParticipantKind::Member => pb::ParticipantKind::Member,
        ParticipantKind::ObserverState => pb::ParticipantKind::ObserverState,
        ParticipantKind::ObserverOrganisation => pb::ParticipantKind::ObserverOrganisation,
        ParticipantKind::Secretariat => pb::ParticipantKind::Secretariat,
    }
}

/// Reads a kind of participant.
pub fn parse_kind(kind: i32) -> Result<ParticipantKind, ParseError> {
    Ok(match pb::ParticipantKind::try_from(kind) {
        Ok(pb::ParticipantKind::Member) => ParticipantKind::Member,
        Ok(pb::ParticipantKind::ObserverState) => ParticipantKind::ObserverState,
        Ok(pb::ParticipantKind::ObserverOrganisation) => ParticipantKind::ObserverOrganisation,
        Ok(pb::ParticipantKind::Secretariat) => ParticipantKind::Secretariat,
        Ok(pb::ParticipantKind::Unspecified) | Err(_) => {
            return Err(ParseError::new("kind of participant", kind.to_string(), "a kind that is known here"));
        }
    })
}

fn names(names: &BTreeMap<String, String>) -> Vec<pb::LocalName> {
    let one = |(language, name): (&String, &String)| pb::LocalName { language: language.clone(), name: name.clone() };
    names.iter().map(one).collect()
}

/// What the forum decided about a participant since it began, as messages.
pub fn decisions(
    registry: &concord_ledger::Registry,
    participant: &ParticipantCode,
) -> Vec<operations::RegistryDecision> {
    let Some(changes) = registry.changes_of(participant) else { return Vec::new() };
    // What it was before each change: as it began, and as the changes before made it.
    let mut before = registry.begun(participant).cloned();
    let mut made = Vec::new();
    for (revision, change) in changes.iter() {
        made.push(decision(revision, change, before.as_ref()));
        if let Some(before) = &mut before {
            change.apply_to(before);
        }
    }
    made
}

/// By what measures joined the catalogue since it began, as messages.
pub fn measure_decisions(registry: &concord_ledger::Registry) -> Vec<operations::RegistryDecision> {
    let added = registry.measures().iter().filter_map(|measure| registry.addition_of(&measure.code));
    added.map(|change| decision(0, change, None)).collect()
}

fn decision(revision: u32, change: &Change, before: Option<&Participant>) -> operations::RegistryDecision {
    use operations::registry_decision::What;
    let what = match &change.decision.content {
        DecisionContent::AddParticipant(added) => What::Added(participant(added)),
        DecisionContent::AddMeasure(added) => What::MeasureAdded(measure(added)),
        DecisionContent::Rename { names: new, .. } => {
            let named = before.map(|before| &before.names);
            let of_these = named.into_iter().flatten().filter(|(language, _)| new.contains_key(*language));
            let of_these: BTreeMap<_, _> = of_these.map(|(language, name)| (language.clone(), name.clone())).collect();
            What::Renamed(operations::ParticipantRenamed { names: names(new), before: names(&of_these) })
        }
        DecisionContent::SetKind { kind: new, .. } => What::KindChanged(operations::KindChanged {
            kind: kind(*new).into(),
            before: before.map_or(pb::ParticipantKind::Unspecified, |before| kind(before.kind)).into(),
        }),
    };
    operations::RegistryDecision {
        what: Some(what),
        reference: change.decision.reference.to_string(),
        officer: change.officer.to_string(),
        at: Some(timestamp(change.at)),
        revision,
    }
}

/// Reads a participant.
pub fn parse_participant(message: &pb::Participant) -> Result<Participant, ParseError> {
    Ok(Participant {
        code: ParticipantCode::parse(&message.code)?,
        kind: parse_kind(message.kind)?,
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

/// A participant with its keys, as it is shown; `fingerprint` is over all keys of an enrolment.
pub fn registered(
    registry: &concord_ledger::Registry,
    one: &Participant,
    fingerprint: impl Fn(&Enrolment) -> Fingerprint,
) -> operations::RegisteredParticipant {
    let shown = |keys: &Enrolment| enrolled(keys, fingerprint(keys));
    let is_secretariat = one.code == ParticipantCode::secretariat();
    operations::RegisteredParticipant {
        participant: Some(participant(one)),
        enrolled: registry.shown_keys(&one.code).map(shown),
        holds: holds(registry.holds(), &one.code),
        decisions: decisions(registry, &one.code),
        hub: registry.hub_keys().filter(|_| is_secretariat).map(shown),
    }
}

/// Keys of a participant or of the hub, as they are shown; the fingerprint is over all of them.
pub fn enrolled(keys: &Enrolment, fingerprint: Fingerprint) -> operations::EnrolledKeys {
    operations::EnrolledKeys {
        node: keys.node.to_string(),
        anchor_fingerprint: digest_bytes(&keys.anchor_fingerprint.0),
        signing_key_fingerprint: digest_bytes(&keys.signing_key.fingerprint.0),
        enrolment_fingerprint: digest_bytes(&fingerprint.0),
        enrolled_at: Some(timestamp(keys.enrolled_at)),
        signed_by: keys.signed_by.iter().map(ToString::to_string).collect(),
        ending_anchor_fingerprint: keys
            .ending
            .as_ref()
            .map(|ending| digest_bytes(&ending.fingerprint.0))
            .unwrap_or_default(),
        earlier: keys
            .earlier
            .iter()
            .map(|earlier| operations::EarlierKeys {
                anchor_fingerprint: digest_bytes(&earlier.anchor_fingerprint.0),
                signing_key_fingerprint: digest_bytes(&earlier.signing_key.fingerprint.0),
                vouch: earlier.vouches,
            })
            .collect(),
    }
}
