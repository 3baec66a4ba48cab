//! The first anchor of a folder comes in a file: it is compared with what is known where the anchor is kept, before anything is installed.

use std::io::{BufRead as _, IsTerminal as _};

use clap::Args;
use concord_identity::Anchor;
use concord_model::{Digest, Fingerprint};

use crate::exit::Failure;
use crate::output::Output;

/// How many digits of it a person types at least, the first four groups: with half of it an anchor that begins alike cannot be made.
const TYPED_DIGITS_MIN: usize = 32;

/// How whoever installs says that the anchor was compared.
#[derive(Args)]
pub(crate) struct FirstAnchorArgs {
    /// The anchor's fingerprint as `concord anchor` shows it where the anchor is kept, grouped or not; needed once, where this folder goes
    /// by no anchor yet and there is no terminal to ask.
    #[arg(long, value_name = "FINGERPRINT", value_parser = parse)]
    fingerprint: Option<Fingerprint>,
}

impl FirstAnchorArgs {
    /// What was said of the anchor that would come: by the option, or on a terminal.
    pub(crate) fn said(&self, comes: Option<&Anchor>, output: Output) -> Result<Option<Fingerprint>, Failure> {
        let stdin = std::io::stdin();
        let (None, Some(anchor)) = (self.fingerprint, comes) else { return Ok(self.fingerprint) };
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let carried = anchor.fingerprint();
        // It is not shown before: what stands on the screen would be typed from there, and nothing compared.
        output.say(
            "Type the anchor's fingerprint, or its first four groups, as it is known where the anchor is kept (`concord anchor sign` shows it there):",
        );
        let mut answer = String::new();
        let read = stdin.lock().read_line(&mut answer);
        read.map_err(|error| Failure::failed("TERMINAL", format!("the answer cannot be read: {error}")))?;
        match is_how_it_begins(carried, answer.trim()) {
            true => Ok(Some(carried)),
            false => Err(Failure::failed(
                "FINGERPRINT_MISMATCH",
                "what was typed is not that fingerprint; nothing was installed",
            )
            .help("somebody may have put another file in its place: get it again another way")),
        }
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect::<String>().to_ascii_lowercase()
}

fn parse(text: &str) -> Result<Fingerprint, String> {
    let parsed = Digest::from_hex(&digits(text)).map(Fingerprint);
    parsed.map_err(|_| "a fingerprint has 64 digits 0-9, a-f, in groups or not".to_owned())
}

fn is_how_it_begins(carried: Fingerprint, typed: &str) -> bool {
    let typed = digits(typed);
    typed.len() >= TYPED_DIGITS_MIN && carried.to_string().starts_with(&typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_taken_by_its_first_four_groups_and_nothing_shorter() {
        let carried = Fingerprint(Digest(std::array::from_fn(|index| index as u8)));
        let grouped = carried.grouped();
        for typed in [grouped.as_str(), &grouped.to_uppercase(), &grouped[..35], "000102030405060708090a0b0c0d0e0f"] {
            assert!(is_how_it_begins(carried, typed), "{typed}");
        }
        for typed in [
            "",
            "yes",
            "00010203 0405060",
            "00010203 04050607",
            "00010203 04050607 08090a0b 0c0d0e10",
            &format!("{grouped} 00"),
        ] {
            assert!(!is_how_it_begins(carried, typed), "{typed}");
        }
        assert_eq!(parse(&grouped), Ok(carried));
        assert!(parse(&grouped[..35]).is_err(), "an option says all of it");
    }
}
