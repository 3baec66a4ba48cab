//! The first contact: what came as a file is compared with what the other side says by telephone, before anything is signed or installed.

use std::io::{BufRead as _, IsTerminal as _};

use clap::Args;
use concord_model::{Fingerprint, Reason, Refusal};

use crate::exit::Failure;
use crate::output::Output;

/// How whoever runs a command says that it was compared.
#[derive(Args, Clone)]
pub(crate) struct Compared {
    /// The fingerprint that the other side read out, grouped or not: another one in the file is refused.
    #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::parse)]
    fingerprint: Option<Fingerprint>,
    /// It was compared otherwise: do not ask.
    #[arg(long, conflicts_with = "fingerprint")]
    yes: bool,
}

impl Compared {
    /// Whether somebody says in any way that it was compared, or can be asked.
    pub(crate) fn says_or_asks(&self) -> bool {
        self.fingerprint.is_some() || self.yes || self.asks()
    }

    /// What was said by option.
    pub(crate) const fn said(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Refuses a fingerprint where nothing carries one: whoever gives it means something else.
    pub(crate) fn check_nothing_to_compare(&self, what: &str) -> Result<(), Failure> {
        match self.fingerprint {
            Some(_) => Err(Failure::usage(format!("{what} carries no fingerprint, so there is nothing to compare"))
                .help("look at what waits with `concord approval list`: it may be something else than you mean")),
            None => Ok(()),
        }
    }

    /// Whether somebody sits at a terminal who is to be asked.
    pub(crate) fn asks(&self) -> bool {
        !self.yes && std::io::stdin().is_terminal()
    }

    /// Compares what the file carries with what was said; on a terminal, where nothing was, it is asked for. Off a terminal nobody can be
    /// asked: a note says that it was not compared.
    ///
    /// Fails with `FINGERPRINT_MISMATCH`, and nothing was done.
    pub(crate) fn check(&self, what: &str, carried: Fingerprint, output: Output) -> Result<(), Failure> {
        if let Some(said) = self.fingerprint {
            return same(what, carried, said);
        }
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            output.say(&format!(
                "note: {what} was not compared: its fingerprint is {}. Compare it by telephone, and give --fingerprint, or --yes once it is",
                carried.grouped()
            ));
            return Ok(());
        }
        let question = format!(
            "Ask the other side by telephone for the fingerprint of {what}. Type what it reads out, or the first four groups of it:"
        );
        ask_for(what, &question, carried, output)
    }
}

/// Asks a terminal for a fingerprint, and shows what the file carries only behind the right answer: what stands on the screen before would be
/// typed from there, and nothing compared.
///
/// Fails with `FINGERPRINT_MISMATCH`, and nothing was done.
pub(crate) fn ask_for(what: &str, question: &str, carried: Fingerprint, output: Output) -> Result<(), Failure> {
    output.say(question);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed("TERMINAL", format!("the answer cannot be read: {error}")))?;
    check_typed(what, carried, answer.trim())?;
    output.say(&format!("it is the one that {what} carries: {}", carried.grouped()));
    Ok(())
}

/// Of a fingerprint at least so much is compared: with half of it a file that begins alike cannot be made.
const DIGITS_COMPARED_MIN: usize = 32;

/// What a person typed: all of it, or at least its first four groups.
fn check_typed(what: &str, carried: Fingerprint, typed: &str) -> Result<(), Failure> {
    let digits: String = typed.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    if digits.len() >= DIGITS_COMPARED_MIN && carried.to_string().starts_with(&digits.to_ascii_lowercase()) {
        return Ok(());
    }
    Err(match digits.len() {
        0 => {
            let words = format!("no fingerprint was typed, and nothing was done with {what}");
            let failure = Failure::from(Refusal::new(Reason::FingerprintMismatch, words));
            failure.help("ask the other side for it by telephone, and run this again")
        }
        _ => mismatch(what, "what was typed is not how its fingerprint begins"),
    })
}

fn same(what: &str, carried: Fingerprint, said: Fingerprint) -> Result<(), Failure> {
    if carried == said {
        return Ok(());
    }
    Err(mismatch(what, &format!("it has {}, what was said is {}", carried.grouped(), said.grouped())))
}

fn mismatch(what: &str, why: &str) -> Failure {
    let words = format!("{what} does not have the fingerprint that was said, and nothing was done: {why}");
    let failure = Failure::from(Refusal::new(Reason::FingerprintMismatch, words));
    failure.help(
        "somebody may have put another file in its place: get it again another way, and compare again by telephone",
    )
}

#[cfg(test)]
mod tests {
    use concord_model::Digest;

    use super::*;

    #[test]
    fn what_is_typed_is_taken_by_its_first_groups_and_nothing_shorter() {
        let carried = Fingerprint(Digest(std::array::from_fn(|index| index as u8)));
        let grouped = carried.grouped();
        let first_four = "000102030405060708090a0b0c0d0e0f";
        for typed in [grouped.as_str(), &grouped.to_uppercase(), &grouped[..35], first_four] {
            assert!(check_typed("it", carried, typed).is_ok(), "{typed}");
        }
        let other = first_four.replace("0f", "0e");
        let last_differs = "00010203 04050607 08090a0b 0c0d0e10";
        let longer = format!("{grouped} 00");
        for typed in [
            "",
            "yes",
            "00010203 0405060",
            &grouped[..17],
            &grouped[..34],
            &first_four[..31],
            &other,
            last_differs,
            &longer,
        ] {
            assert!(check_typed("it", carried, typed).is_err(), "{typed}");
        }
        assert_eq!(Fingerprint::parse(&grouped), Ok(carried));
        assert!(Fingerprint::parse(&grouped[..35]).is_err(), "an option says all of it");
    }
}
