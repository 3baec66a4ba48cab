//! Names and codes. Each parses from text and refuses what it is not, so that a value of the type is always well formed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{SHORT_LINE_SIZE_MAX_BYTES, TITLE_SIZE_MAX_BYTES};

/// Why a text is not the thing that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{input}' is not a {kind}: {expected}")]
pub struct ParseError {
    /// What was looked for, in DESIGN's words.
    pub kind: &'static str,
    /// What was there instead, shortened.
    pub input: String,
    /// What is expected, for a person to correct it.
    pub expected: &'static str,
}

impl ParseError {
    /// Keeps at most 80 characters of the input, without control characters.
    pub fn new(kind: &'static str, input: impl AsRef<str>, expected: &'static str) -> Self {
        let input = input.as_ref().chars().filter(|c| !c.is_control()).take(80).collect();
        Self { kind, input, expected }
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        // A value of the type is well formed wherever it comes from, a file included.
        #[serde(try_from = "Box<str>")]
        pub struct $name(Box<str>);

        impl TryFrom<Box<str>> for $name {
            type Error = ParseError;

            fn try_from(text: Box<str>) -> Result<Self, ParseError> {
                Self::parse(&text)
            }
        }

        impl $name {
            /// Parses the text, or says what is expected.
            pub fn parse(text: &str) -> Result<Self, ParseError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(ParseError::new($kind, text, $expected))
                }
            }

            /// The text as it was parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_type! {
    /// A participant in the registry: `KAZ`, `UN`, `SEC`. States use ISO 3166-1 alpha-3.
    ParticipantCode, "participant code", "two to eight capital letters A-Z, such as KAZ",
    |text| (2..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase())
}

text_type! {
    /// An item of the catalogue, `<area>.<number>`: `challenges.3`.
    MeasureCode, "measure code", "<area>.<number>, such as challenges.3",
    |text| text.split_once('.').is_some_and(|(area, number)| is_slug(area) && is_ordinal(number))
}

text_type! {
    /// The name of a node, an agency, an officer, an operator or a hub.
    Name, "name", "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    is_slug
}

text_type! {
    /// A versioned agreed-participant list, scoped to its proposer: `KAZ/flood-warnings`.
    AgreementId, "agreement id", "CODE/name, such as KAZ/flood-warnings",
    |text| text.split_once('/').is_some_and(|(code, name)| ParticipantCode::parse(code).is_ok() && is_slug(name))
}

text_type! {
    /// A media type without parameters, lower case: `application/cap+xml`.
    MediaType, "media type", "type/subtype in lower case without parameters, such as application/cap+xml",
    |text| text.len() <= 127 && text.split_once('/').is_some_and(|(kind, sub)| is_media_token(kind) && is_media_token(sub))
}

text_type! {
    /// Media types that an agreement allows: one, or all of a kind.
    MediaRange, "media type or range", "type/subtype or type/* in lower case, such as application/cap+xml or text/*",
    |text| MediaType::parse(text).is_ok() || text.len() <= 127 && text.strip_suffix("/*").is_some_and(is_media_token)
}

text_type! {
    /// A language tag as BCP 47 writes it: `ru`, `en-GB`.
    Language, "language tag", "a BCP 47 tag, such as ru or en-GB",
    |text| text.len() <= 35 && text.split('-').all(|sub| (1..=8).contains(&sub.len()) && sub.bytes().all(|b| b.is_ascii_alphanumeric()))
}

text_type! {
    /// Names a submission in the words of the agency, so that it can be repeated without a second effect.
    RequestId, "request id", "1 to 128 printable ASCII characters without spaces",
    |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

text_type! {
    /// A title in any script: one line, not empty. Titles of exchanges are content and never logged.
    Title, "title", "one line of 1 to 1024 bytes of UTF-8 without control characters",
    |text| !text.trim().is_empty() && text.len() <= TITLE_SIZE_MAX_BYTES && !text.chars().any(char::is_control)
}

text_type! {
    /// One line in any script, not empty, of what everybody may read: an office, hours, a part of a measure.
    ShortLine, "line", "one line of 1 to 256 bytes of UTF-8 without control characters",
    |text| !text.trim().is_empty() && text.len() <= SHORT_LINE_SIZE_MAX_BYTES && !text.chars().any(char::is_control)
}

text_type! {
    /// A telephone number as it is dialled from abroad, maybe with an extension.
    Telephone, "telephone number", "a number as it is dialled from abroad, such as +7 7172 70-15-22 or +7 7172 701522 ext 14",
    is_telephone
}

impl AgreementId {
    /// The participant that proposed it.
    pub fn proposer(&self) -> ParticipantCode {
        let (code, _) = self.0.split_once('/').unwrap_or((&self.0, ""));
        ParticipantCode(code.into())
    }
}

impl MediaRange {
    /// Whether it allows this media type.
    pub fn allows(&self, media_type: &MediaType) -> bool {
        match self.0.strip_suffix("/*") {
            Some(kind) => media_type.as_str().split_once('/').is_some_and(|(of, _)| of == kind),
            None => self.as_str() == media_type.as_str(),
        }
    }
}

impl ParticipantCode {
    /// The code of the secretariat, which runs the hub.
    pub fn secretariat() -> Self {
        Self("SEC".into())
    }
}

fn is_slug(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_ordinal(text: &str) -> bool {
    (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}

fn is_telephone(text: &str) -> bool {
    let (number, extension) = text.split_once(" ext ").unwrap_or((text, "1"));
    let is_part = |c: char| c.is_ascii_digit() || " -()".contains(c);
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    text.len() <= 48
        && number
            .strip_prefix('+')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(is_part))
        && (7..=15).contains(&digits(number))
        && (1..=8).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_digit())
}

fn is_media_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$&-^_.+".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = ParseError> + fmt::Display>(accepted: &[&str], refused: &[&str]) {
        for text in accepted {
            let parsed = text.parse::<T>().map(|value| value.to_string());
            assert_eq!(parsed.as_deref(), Ok(*text));
        }
        for text in refused {
            assert!(text.parse::<T>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn names_accept_what_the_domain_uses_and_refuse_the_rest() {
        check::<ParticipantCode>(&["KAZ", "UN", "OSCE", "SEC"], &["", "K", "kaz", "KAZ ", "КАЗ", "K4Z", "TOOLONGCODE"]);
        check::<MeasureCode>(
            &["challenges.3", "economic.10"],
            &["", "challenges", "challenges.", "challenges.03", "Challenges.3", "a.b", ".3"],
        );
        check::<Name>(&["cert", "drug-control", "1"], &["", "-x", "x-", "Cert", "a b", "a/b", "a.b"]);
        check::<AgreementId>(&["KAZ/flood-warnings"], &["", "KAZ", "KAZ/", "/x", "kaz/x", "KAZ/x/y", "KAZ/X"]);
        check::<MediaType>(
            &["application/cap+xml", "text/csv", "application/vnd.oasis.stix+json"],
            &["", "text", "text/", "text/csv; charset=utf-8", "Text/CSV", "a/b/c"],
        );
        check::<MediaRange>(
            &["application/cap+xml", "text/*"],
            &["", "*/*", "text", "text/", "/*", "text/**", "Text/*"],
        );
        check::<Language>(&["ru", "en-GB"], &["", "ru_RU", "-", "toolongsubtag"]);
        check::<RequestId>(&["a", "2026-11-24/17#3"], &["", "a b", "é", "\n"]);
        check::<ShortLine>(&["Дежурная часть", &"x".repeat(256)], &["", " ", "a\nb", &"x".repeat(257)]);
        check::<Telephone>(
            &["+7 7172 70-15-22", "+98 (21) 6115 4000", "+16502530000 ext 14"],
            &[
                "",
                "+",
                "7 7172 701522",
                "+7 71",
                "+7 7172 701522 ext",
                "+7 7172 701522 ext a",
                "+1234567890123456",
                "+(7) 7172 701522",
            ],
        );
        check::<Title>(&["Изъятие героина", "x"], &["", "  ", "a\nb", "\u{7}"]);
    }

    #[test]
    fn a_media_range_allows_its_own_kind_only() {
        let csv = MediaType::parse("text/csv").unwrap();
        let allows = |range: &str| MediaRange::parse(range).unwrap().allows(&csv);
        assert!(allows("text/*") && allows("text/csv"));
        assert!(!allows("text/plain") && !allows("application/*") && !allows("tex/*"));
    }

    #[test]
    fn an_error_shows_at_most_eighty_characters_and_no_control_characters() {
        let error = Name::parse(&format!("\u{1b}[2J{}", "x".repeat(500))).unwrap_err();
        assert_eq!(error.input.chars().count(), 80);
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
