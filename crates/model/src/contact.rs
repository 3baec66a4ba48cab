//! Contact points: whom one calls in a state, and in which languages.

use serde::{Deserialize, Serialize};

use crate::name::{Language, ParseError, ShortLine, Telephone};

/// Languages of one contact point. Over it a setting is refused with `STATEMENT_MALFORMED`.
pub const CONTACT_LANGUAGES_MAX: usize = 16;

/// Whom one calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The office, in words of any script.
    pub office: ShortLine,
    /// As it is dialled from abroad.
    pub telephone: Telephone,
    /// When somebody answers there, with the time zone, in words.
    pub hours: ShortLine,
    /// The languages spoken there.
    pub languages: Languages,
}

/// One to [`CONTACT_LANGUAGES_MAX`] languages, the preferred first, each once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Language>")]
pub struct Languages(Vec<Language>);

impl Languages {
    /// Takes them in this order, or says what is wrong with them.
    pub fn new(languages: Vec<Language>) -> Result<Self, ParseError> {
        let wrong = |input: &str| Err(ParseError::new("list of languages", input, "1 to 16 languages, each once"));
        if languages.is_empty() || languages.len() > CONTACT_LANGUAGES_MAX {
            return wrong(&format!("{} languages", languages.len()));
        }
        let is_same = |one: &Language, other: &Language| one.as_str().eq_ignore_ascii_case(other.as_str());
        let repeats =
            |(place, one): (usize, &Language)| languages.iter().take(place).any(|before| is_same(before, one));
        match languages.iter().enumerate().find(|(place, one)| repeats((*place, one))) {
            Some((_, twice)) => wrong(twice.as_str()),
            None => Ok(Self(languages)),
        }
    }

    /// The preferred first.
    pub fn iter(&self) -> impl Iterator<Item = &Language> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Language>> for Languages {
    type Error = ParseError;

    fn try_from(languages: Vec<Language>) -> Result<Self, ParseError> {
        Self::new(languages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_some_each_once_and_not_too_many() {
        let languages = |tags: &[&str]| Languages::new(tags.iter().map(|tag| Language::parse(tag).unwrap()).collect());
        assert!(languages(&["ru", "en", "kk"]).is_ok());
        assert!(languages(&[]).is_err());
        assert!(languages(&["ru", "en", "RU"]).is_err());
        let tags: Vec<String> = (0..=CONTACT_LANGUAGES_MAX).map(|number| format!("x-{number}")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        assert!(languages(&tags).is_err());
        assert!(languages(&tags[1..]).is_ok());
    }
}
