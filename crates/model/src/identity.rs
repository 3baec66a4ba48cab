//! Who somebody is: exactly one URI name in a certificate, valid only under that participant's anchor.

use std::fmt;
use std::str::FromStr;

use crate::name::{Name, ParseError, ParticipantCode};

/// What a certificate lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The secretariat's hub.
    Hub,
    /// A participant's node.
    Node,
    /// A national agency.
    Agency,
    /// Speaks for the state.
    Officer,
    /// Keeps the machine healthy; sees no titles or bodies.
    Operator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Hub, Self::Node, Self::Agency, Self::Officer, Self::Operator];

    /// The word for it in a URI name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Node => "node",
            Self::Agency => "agency",
            Self::Officer => "officer",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A URI name: `spiffe://kaz.concord/agency/drug-control`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Whose anchor vouches for it.
    pub participant: ParticipantCode,
    /// What it may be.
    pub role: Role,
    /// Which one.
    pub name: Name,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = self.participant.as_str().to_ascii_lowercase();
        write!(f, "spiffe://{domain}.concord/{}/{}", self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("URI name", text, "spiffe://<code in lower case>.concord/<role>/<name>");
        let rest = text.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let (domain, path) = rest.split_once('/').ok_or_else(wrong)?;
        let code = domain.strip_suffix(".concord").ok_or_else(wrong)?;
        if code.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong());
        }
        let (role, name) = path.split_once('/').ok_or_else(wrong)?;
        let identity = Self {
            participant: ParticipantCode::parse(&code.to_ascii_uppercase()).map_err(|_| wrong())?,
            role: Role::ALL.into_iter().find(|known| known.as_str() == role).ok_or_else(wrong)?,
            name: Name::parse(name).map_err(|_| wrong())?,
        };
        // The hub belongs to the secretariat and to nobody else, whatever an anchor signs.
        let is_secretariat = identity.participant == ParticipantCode::secretariat();
        if identity.role == Role::Hub && !is_secretariat {
            return Err(wrong());
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_name_is_read_exactly_or_not_at_all() {
        for text in
            ["spiffe://kaz.concord/node/main", "spiffe://sec.concord/hub/main", "spiffe://un.concord/officer/a-1"]
        {
            assert_eq!(text.parse::<Identity>().map(|identity| identity.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "spiffe://KAZ.concord/node/main",
            "spiffe://kaz.concord/hub/main",
            "spiffe://kaz.concord/node/main/x",
            "spiffe://kaz.concord/node/",
            "spiffe://kaz.concord/king/main",
            "spiffe://kaz.concord.evil/node/main",
            "spiffe://*.concord/node/main",
            "spiffe://kaz.concord/node/Main",
            "https://kaz.concord/node/main",
            "spiffe://kaz.concord/node/main?x",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text} was accepted");
        }
    }
}
