//! Roles that the forum gives to its members. They are shown to all and give no right to anything that is exchanged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{MeasureCode, Name, ParseError, ShortLine};

/// What a member is for the forum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ForumRole {
    /// Presides over the forum: one member at a time.
    Chair,
    /// Leads the work on something, and drafts its concept paper.
    Coordinator,
    /// Shares in that.
    CoCoordinator,
}

impl ForumRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Chair, Self::Coordinator, Self::CoCoordinator];

    /// The word for it in statements and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chair => "chair",
            Self::Coordinator => "coordinator",
            Self::CoCoordinator => "co-coordinator",
        }
    }
}

impl fmt::Display for ForumRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ForumRole {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| ParseError::new("role", text, "chair, coordinator or co-coordinator"))
    }
}

/// What a coordinator has to do with: an area or a measure, the whole of it or the part that the words name, or what the words name alone.
/// The chair's is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct RoleScope {
    /// An area of the catalogue.
    pub area: Option<Name>,
    /// A measure of the catalogue, instead of an area.
    pub measure: Option<MeasureCode>,
    /// The part of it, or what is in no catalogue.
    pub words: Option<ShortLine>,
}

impl fmt::Display for RoleScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.measure.as_ref().map(MeasureCode::as_str).or(self.area.as_ref().map(Name::as_str));
        match (of, &self.words) {
            (Some(of), Some(words)) => write!(f, "{of}: {words}"),
            (Some(of), None) => f.write_str(of),
            (None, Some(words)) => write!(f, "{words}"),
            (None, None) => Ok(()),
        }
    }
}
