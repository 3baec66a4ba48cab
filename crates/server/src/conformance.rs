//! What the configuration files of hub and node alike have to keep to. A broken promise panics; call it from tests only.

use std::fmt::Debug;

use proptest::test_runner::{Config, TestRunner};

/// What stands in the place of a value or a line.
const PIECES: &str = "[0-9]{1,20}|-1|\"[a-zA-Z0-9.:]{0,20}\"|\\[\\]|\\PC{0,12}";

/// A file is read as what it was written for; and what is read of a damaged one, where it is read at all, is what is written of it
/// again: nothing that a person set is taken for something else.
pub fn check_configuration<C: Debug + PartialEq>(
    written: &C,
    write: impl Fn(&C) -> String,
    parse: impl Fn(&str) -> Result<C, String>,
) {
    let text = write(written);
    assert_eq!(parse(&text).as_ref(), Ok(written));
    let change = (proptest::arbitrary::any::<usize>(), proptest::arbitrary::any::<u8>(), PIECES);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let checked = runner.run(&proptest::collection::vec(change, 1..4), |changes| {
        let damaged = changes.iter().fold(text.clone(), |text, (at, how, piece)| damaged(&text, *at, *how, piece));
        if let Ok(read) = parse(&damaged) {
            proptest::prop_assert_eq!(parse(&write(&read)), Ok(read));
        }
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

/// A line of the file is taken away, doubled, or has something else in it.
fn damaged(text: &str, at: usize, how: u8, piece: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    let at = at % lines.len().max(1);
    let Some(line) = lines.get(at).cloned() else { return piece.to_owned() };
    match how % 4 {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, line),
        2 => lines[at] = piece.to_owned(),
        _ => lines[at] = format!("{}= {piece}", line.split('=').next().unwrap_or_default()),
    }
    lines.join("\n")
}
