//! Whom a listener is for, and whom a client calls. What a method allows is decided later, in the method table.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use concord_model::{Identity, ParticipantCode, Role};

/// The identities that a listener lets through its handshake; everybody else gets a TLS alert and no byte is read.
#[derive(Debug, Clone)]
pub struct Admission {
    rules: Vec<Rule>,
    barred: Barred,
}

/// Identities that are let in no more, whatever certificates they have. Clones share them: who is added is out from the next handshake on.
#[derive(Debug, Clone, Default)]
pub struct Barred(Arc<ArcSwap<BTreeSet<Identity>>>);

impl Barred {
    /// Puts other identities in place of the present ones.
    pub fn replace(&self, identities: BTreeSet<Identity>) {
        self.0.store(Arc::new(identities));
    }

    fn has(&self, identity: &Identity) -> bool {
        self.0.load().contains(identity)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Absent: of any enrolled participant.
    participant: Option<ParticipantCode>,
    role: Role,
}

impl Admission {
    /// The hub's listener: nodes of all participants, officers and operators of the secretariat.
    pub fn hub() -> Self {
        let secretariat = ParticipantCode::secretariat();
        Self::of(vec![
            Rule { participant: None, role: Role::Node },
            Rule { participant: Some(secretariat.clone()), role: Role::Officer },
            Rule { participant: Some(secretariat), role: Role::Operator },
        ])
    }

    /// A node's listener: its own participant's agencies, officers and operators.
    pub fn node(own: &ParticipantCode) -> Self {
        let rule = |role| Rule { participant: Some(own.clone()), role };
        Self::of([Role::Agency, Role::Officer, Role::Operator].map(rule).to_vec())
    }

    /// An admin listener: operators of one participant only.
    pub fn operators(own: &ParticipantCode) -> Self {
        Self::of(vec![Rule { participant: Some(own.clone()), role: Role::Operator }])
    }

    fn of(rules: Vec<Rule>) -> Self {
        Self { rules, barred: Barred::default() }
    }

    /// The same, but for these.
    #[must_use]
    pub fn except(self, barred: Barred) -> Self {
        Self { barred, ..self }
    }

    /// Whether the listener is for this identity.
    pub fn allows(&self, identity: &Identity) -> bool {
        let is_for = |rule: &Rule| {
            rule.role == identity.role && rule.participant.as_ref().is_none_or(|code| *code == identity.participant)
        };
        self.rules.iter().any(is_for) && !self.barred.has(identity)
    }
}

/// Whom a client means to call. The DNS name or address that led there proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedServer {
    /// Exactly this one.
    Exactly(Identity),
    /// Any hub of the secretariat.
    AnyHub,
}

impl ExpectedServer {
    /// Whether the server that answered is meant.
    pub fn is(&self, found: &Identity) -> bool {
        match self {
            Self::Exactly(expected) => expected == found,
            Self::AnyHub => found.role == Role::Hub && found.participant == ParticipantCode::secretariat(),
        }
    }
}

impl fmt::Display for ExpectedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(identity) => identity.fmt(f),
            Self::AnyHub => f.write_str("a hub of the secretariat"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(admission: &Admission, allowed: &[&str]) {
        let mut found = Vec::new();
        for code in ["kaz", "uzb", "sec"] {
            for role in Role::ALL {
                let text = format!("spiffe://{code}.concord/{role}/x");
                let identity = text.parse::<Identity>();
                if identity.is_ok_and(|identity| admission.allows(&identity)) {
                    found.push(format!("{code}/{role}"));
                }
            }
        }
        assert_eq!(found, allowed);
    }

    #[test]
    fn each_listener_is_for_exactly_its_own() {
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        check(&Admission::hub(), &["kaz/node", "uzb/node", "sec/node", "sec/officer", "sec/operator"]);
        check(&Admission::node(&kaz), &["kaz/agency", "kaz/officer", "kaz/operator"]);
        check(&Admission::operators(&kaz), &["kaz/operator"]);
    }

    #[test]
    fn who_is_barred_is_let_in_no_more_and_nobody_else() {
        let kaz = ParticipantCode::parse("KAZ").unwrap();
        let barred = Barred::default();
        let admission = Admission::node(&kaz).except(barred.clone());
        let identity = |text: &str| text.parse::<Identity>().unwrap();
        let (cert, operator) = (identity("spiffe://kaz.concord/agency/x"), identity("spiffe://kaz.concord/operator/x"));
        assert!(admission.allows(&cert));
        barred.replace([cert.clone()].into());
        assert!(!admission.allows(&cert) && admission.allows(&operator));
        check(&admission, &["kaz/officer", "kaz/operator"]);
    }
}
