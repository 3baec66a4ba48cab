//! Commands to paste: the running executable's path, every path absolute and quoted.

use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::output::Output;

/// A command line of this executable, one shell line.
pub(crate) struct Line(String);

impl Line {
    /// Begins with the executable and plain words, such as `hub serve`.
    pub(crate) fn new(words: &str) -> Self {
        let executable = executable().unwrap_or_else(|_| PathBuf::from("concord"));
        Self(format!("{} {words}", quoted(&executable.to_string_lossy())))
    }

    /// Adds plain words.
    pub(crate) fn words(mut self, words: &str) -> Self {
        self.0.push(' ');
        self.0.push_str(words);
        self
    }

    /// Adds a path, absolute and quoted.
    pub(crate) fn path(self, path: &Path) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.text(&absolute.to_string_lossy())
    }

    /// Adds any text, quoted.
    pub(crate) fn text(self, text: &str) -> Self {
        let text = quoted(text);
        self.words(&text)
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells, on stderr, what to do next.
pub(crate) fn next(output: Output, why: &str, lines: &[Line]) {
    output.say(&format!("\nnext: {why}"));
    lines.iter().for_each(|line| output.say(&format!("  {line}")));
}

/// This executable.
pub(crate) fn executable() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::failed("EXECUTABLE", format!("cannot find the running executable: {error}")))
}

/// One word for a POSIX shell, always in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_one_word_for_a_shell() {
        for text in ["/srv/a b", "/srv/it's", "/srv/$HOME;`x`\"\\", "/srv/Ж"] {
            let line = format!("printf %s {}", quoted(text));
            let shown = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(shown.stdout).unwrap(), text);
        }
    }
}
