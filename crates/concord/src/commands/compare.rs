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
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            output.say(&format!(
                "note: {what} was not compared: its fingerprint is {}. Compare it by telephone, and give --fingerprint, or --yes once it is",
                carried.grouped()
            ));
            return Ok(());
        }
        // It is not shown before: what stands on the screen would be typed from there, and nothing compared.
        output.say(&format!(
            "Ask the other side by telephone for the fingerprint of {what}. Type what it reads out, or the first two groups of it:"
        ));
        let mut answer = String::new();
        let read = stdin.lock().read_line(&mut answer);
        read.map_err(|error| Failure::failed("TERMINAL", format!("the answer cannot be read: {error}")))?;
        check_typed(what, carried, answer.trim())
    }
}

/// What a person typed: all of it, or at least its first two groups.
fn check_typed(what: &str, carried: Fingerprint, typed: &str) -> Result<(), Failure> {
    let digits: String = typed.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    if digits.len() >= 16 && carried.to_string().starts_with(&digits.to_ascii_lowercase()) {
        return Ok(());
    }
    Err(mismatch(what, "what was typed is not how its fingerprint begins"))
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
        for typed in [grouped.as_str(), &grouped.to_uppercase(), &grouped[..17], "0001020304050607"] {
            assert!(check_typed("it", carried, typed).is_ok(), "{typed}");
        }
        for typed in ["", "y", "yes", "00010203", "00010203 0405060", "00010203 04050608", &format!("{grouped} 00")] {
            assert!(check_typed("it", carried, typed).is_err(), "{typed}");
        }
    }
}
