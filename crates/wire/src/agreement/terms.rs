//! The terms of an agreement: words of the model and numbers of the protocol.

use concord_model::{InForceAmong, MediaRange, OnwardRelease, ParseError, PartyRole, SecretariatAccess, Terms};

use crate::convert::{handling, parse_handling};
use crate::proto::agreement::v1 as pb;

pub(super) fn terms(terms: &Terms) -> pb::Terms {
    pb::Terms {
        media_types: terms.media.iter().map(ToString::to_string).collect(),
        body_size_max_bytes: terms.body_size_max_bytes.unwrap_or_default(),
        handling_max: handling(terms.handling_max).into(),
        retention_days: terms.retention_days.unwrap_or_default(),
        secretariat: match terms.secretariat {
            SecretariatAccess::Carries => pb::SecretariatAccess::Carries,
            SecretariatAccess::Reads => pb::SecretariatAccess::Reads,
        }
        .into(),
        onward_release: match terms.onward_release {
            OnwardRelease::None => pb::OnwardRelease::None,
            OnwardRelease::State => pb::OnwardRelease::State,
            OnwardRelease::WithConsent => pb::OnwardRelease::WithConsent,
            OnwardRelease::Free => pb::OnwardRelease::Free,
        }
        .into(),
    }
}

pub(super) fn parse_terms(message: &pb::Terms) -> Result<Terms, ParseError> {
    let unknown = |what, number: i32, expected| ParseError::new(what, number.to_string(), expected);
    Ok(Terms {
        media: message.media_types.iter().map(|range| MediaRange::parse(range)).collect::<Result<_, _>>()?,
        body_size_max_bytes: Some(message.body_size_max_bytes).filter(|size| *size > 0),
        handling_max: parse_handling(message.handling_max)?,
        retention_days: Some(message.retention_days).filter(|days| *days > 0),
        secretariat: match message.secretariat() {
            pb::SecretariatAccess::Carries => SecretariatAccess::Carries,
            pb::SecretariatAccess::Reads => SecretariatAccess::Reads,
            pb::SecretariatAccess::Unspecified => {
                return Err(unknown("secretariat's access", message.secretariat, "carries or reads"));
            }
        },
        onward_release: match message.onward_release() {
            pb::OnwardRelease::None => OnwardRelease::None,
            pb::OnwardRelease::State => OnwardRelease::State,
            pb::OnwardRelease::WithConsent => OnwardRelease::WithConsent,
            pb::OnwardRelease::Free => OnwardRelease::Free,
            pb::OnwardRelease::Unspecified => {
                return Err(unknown("onward release", message.onward_release, "none, state, with-consent or free"));
            }
        },
    })
}

pub(super) fn role(role: PartyRole) -> pb::PartyRole {
    match role {
        PartyRole::Contribute => pb::PartyRole::Contribute,
        PartyRole::Receive => pb::PartyRole::Receive,
        PartyRole::Both => pb::PartyRole::Both,
    }
}

pub(super) fn parse_role(number: i32) -> Result<PartyRole, ParseError> {
    match pb::PartyRole::try_from(number) {
        Ok(pb::PartyRole::Contribute) => Ok(PartyRole::Contribute),
        Ok(pb::PartyRole::Receive) => Ok(PartyRole::Receive),
        Ok(pb::PartyRole::Both) => Ok(PartyRole::Both),
        Ok(pb::PartyRole::Unspecified) | Err(_) => {
            Err(ParseError::new("role on an agreement", number.to_string(), "contribute, receive or both"))
        }
    }
}

pub(super) fn in_force(among: InForceAmong) -> pb::InForceAmong {
    match among {
        InForceAmong::All => pb::InForceAmong::Unspecified,
        InForceAmong::Each => pb::InForceAmong::Each,
    }
}

pub(super) fn parse_in_force(number: i32) -> Result<InForceAmong, ParseError> {
    match pb::InForceAmong::try_from(number) {
        Ok(pb::InForceAmong::Unspecified) => Ok(InForceAmong::All),
        Ok(pb::InForceAmong::Each) => Ok(InForceAmong::Each),
        Err(_) => Err(ParseError::new("rule of when an agreement is in force", number.to_string(), "all or each")),
    }
}
