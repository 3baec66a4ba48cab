//! What an agency of a state may send and receive.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{AgreementId, MeasureCode};

/// All of something, or some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope<T: Ord> {
    /// All, those to come too.
    All,
    /// These. Nothing ever falls back to all: none of them means none.
    These(BTreeSet<T>),
}

impl<T: Ord> Scope<T> {
    /// Whether one is in it.
    pub fn has(&self, one: &T) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains(one),
        }
    }

    /// Whether everything of the other is in it.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::These(_), Self::All) => false,
            (Self::These(these), Self::These(others)) => others.is_subset(these),
        }
    }

    /// Whether something is in both.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::All, Self::These(these)) | (Self::These(these), Self::All) => !these.is_empty(),
            (Self::These(these), Self::These(others)) => !these.is_disjoint(others),
        }
    }
}

impl<T: Ord + fmt::Display> fmt::Display for Scope<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::These(these) => {
                let these: Vec<String> = these.iter().map(ToString::to_string).collect();
                f.write_str(&these.join(", "))
            }
        }
    }
}

/// A right as it is granted or taken away: directions × measures × agreements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// To send.
    pub send: bool,
    /// To receive.
    pub receive: bool,
    /// Of these measures.
    pub measures: Scope<MeasureCode>,
    /// Under these agreements.
    pub agreements: Scope<AgreementId>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directions = match (self.send, self.receive) {
            (true, true) => "send and receive",
            (true, false) => "send",
            (false, _) => "receive",
        };
        write!(f, "{directions}; measures: {}; agreements: {}", self.measures, self.agreements)
    }
}
