//! Contact points and roles, as officers sign them.

use concord_ledger::{ContactSetting, RoleDecision};
use concord_model::{
    Contact, Language, Languages, MeasureCode, Name, ParseError, ParticipantCode, RoleScope, ShortLine, Telephone,
    Title,
};

use crate::proto::agreement::v1 as pb;

pub(super) fn contact_setting(setting: &ContactSetting) -> pb::ContactSetting {
    pb::ContactSetting {
        measure: text(setting.measure.as_ref()),
        revision: setting.revision,
        contact: setting.contact.as_ref().map(contact),
    }
}

/// Whom one calls, as a message.
pub(crate) fn contact(contact: &Contact) -> pb::Contact {
    pb::Contact {
        office: contact.office.to_string(),
        telephone: contact.telephone.to_string(),
        hours: contact.hours.to_string(),
        languages: contact.languages.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn parse_contact_setting(message: &pb::ContactSetting) -> Result<ContactSetting, ParseError> {
    Ok(ContactSetting {
        measure: parsed(&message.measure, MeasureCode::parse)?,
        revision: message.revision,
        contact: message.contact.as_ref().map(parse_contact).transpose()?,
    })
}

fn parse_contact(message: &pb::Contact) -> Result<Contact, ParseError> {
    let languages = message.languages.iter().map(|tag| Language::parse(tag));
    Ok(Contact {
        office: ShortLine::parse(&message.office)?,
        telephone: Telephone::parse(&message.telephone)?,
        hours: ShortLine::parse(&message.hours)?,
        languages: Languages::new(languages.collect::<Result<_, _>>()?)?,
    })
}

pub(super) fn role_decision(decision: &RoleDecision) -> pb::RoleDecision {
    let RoleScope { area, measure, words } = &decision.scope;
    pb::RoleDecision {
        participant: decision.participant.to_string(),
        role: decision.role.to_string(),
        area: text(area.as_ref()),
        measure: text(measure.as_ref()),
        words: text(words.as_ref()),
        revision: decision.revision,
        is_taken: !decision.is_given,
        reference: decision.reference.to_string(),
    }
}

pub(super) fn parse_role_decision(message: &pb::RoleDecision) -> Result<RoleDecision, ParseError> {
    Ok(RoleDecision {
        participant: ParticipantCode::parse(&message.participant)?,
        role: message.role.parse()?,
        scope: RoleScope {
            area: parsed(&message.area, Name::parse)?,
            measure: parsed(&message.measure, MeasureCode::parse)?,
            words: parsed(&message.words, ShortLine::parse)?,
        },
        revision: message.revision,
        is_given: !message.is_taken,
        reference: Title::parse(&message.reference)?,
    })
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// Empty stands for none.
fn parsed<T>(text: &str, parse: fn(&str) -> Result<T, ParseError>) -> Result<Option<T>, ParseError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}
