//! What a command prints: tables or JSON lines on stdout, talk on stderr, and text of others made harmless.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};
use concord_model::Timestamp;
use serde::Serialize;

use crate::exit::Failure;

/// Whoever read stdout has enough, as `head` does: the command ends, as failed, and says nothing.
const READER_GONE: &str = "READER_GONE";

/// Where output goes and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    /// stdout carries a body: what else there is to print goes to stderr.
    body_on_stdout: bool,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    reason: &'a str,
    message: &'a str,
    help: &'a str,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, body_on_stdout: false }
    }

    /// The same, with stdout left to a body.
    pub(crate) fn beside_a_body(self) -> Self {
        Self { body_on_stdout: true, ..self }
    }

    /// One result: as JSON, or as the text that `human` makes. Flushed, so that whoever reads has it.
    pub(crate) fn result<T: Serialize>(&self, value: &T, human: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = if self.json { json_line(value)? } else { human() };
        self.print(&text)
    }

    /// Several results: one JSON object per line, or one table.
    pub(crate) fn results<T: Serialize>(&self, values: &[T], table: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.json {
            return self.print(&table());
        }
        values.iter().try_for_each(|value| self.print(&json_line(value)?))
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        let text = text.trim_end_matches('\n');
        let written = if self.body_on_stdout {
            writeln!(io::stderr().lock(), "{text}")
        } else {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        };
        written.map_err(|error| unwritten("output", &error))
    }

    /// The body of an exchange, as it is, to stdout.
    pub(crate) fn body(&self, body: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(body).and_then(|()| stdout.flush()).map_err(|error| unwritten("body", &error))
    }

    /// On a terminal, the next result begins at the top of an empty screen, in place of the one before.
    pub(crate) fn begin_again(&self) {
        if !self.json && io::stdout().is_terminal() {
            let mut stdout = io::stdout().lock();
            // Whoever reads stdout is told by the result that follows if this cannot be written.
            let _ = write!(stdout, "\x1b[H\x1b[2J").and_then(|()| stdout.flush());
        }
    }

    /// Talk, for a person who watches.
    pub(crate) fn say(&self, text: &str) {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// What, why, what next, and the reason: in words, or with --json as one object, so that whoever reads the errors reads nothing else.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.reason == READER_GONE {
            return;
        }
        if self.json {
            return self.failure_line(failure);
        }
        let mut text = format!("concord: {}", safe(&failure.message));
        if !failure.help.is_empty() {
            let _ = write!(text, "\n  next: {}", safe(&failure.help));
        }
        let _ = write!(text, "\n  reason: {}", failure.reason);
        self.say(&text);
    }

    fn failure_line(&self, failure: &Failure) {
        let error = ErrorObject { reason: &failure.reason, message: &failure.message, help: &failure.help };
        if let Ok(line) = json_line(&ErrorLine { error }) {
            self.say(&line);
        }
    }
}

fn unwritten(what: &str, error: &io::Error) -> Failure {
    let reason = if error.kind() == io::ErrorKind::BrokenPipe { READER_GONE } else { "OUTPUT" };
    Failure::failed(reason, format!("the {what} could not be written: {error}"))
}

/// Whether stdout may be coloured: a terminal, and nobody asked for none (no-color.org).
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// One object on one line. Control characters that JSON lets through are escaped too: the line may go to a terminal.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::failed("OUTPUT", format!("the result cannot be written as JSON: {error}")))?;
    Ok(escape(&text, |escaped, character| {
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }))
}

/// Text of another state for a terminal: what would move the cursor, or turn the line around, is shown instead of done.
pub(crate) fn safe(text: &str) -> String {
    escape(text, |escaped, character| {
        let _ = write!(escaped, "{}", character.escape_unicode());
    })
}

fn escape(text: &str, mut show: impl FnMut(&mut String, char)) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text_around(character) {
            show(&mut escaped, character);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Explicit bidirectional formatting and line separators (Unicode UAX 9, 14).
fn turns_text_around(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// The same beside words of ours: runs of blanks are one, so that nothing is pushed into another line, and script from right to left turns
/// nothing around that stands beside it.
pub(crate) fn inline(text: &str) -> String {
    isolated(&safe(&folded(text)))
}

/// The same in quotation marks, which it cannot close.
pub(crate) fn quoted(text: &str) -> String {
    let escaped = folded(text).replace('\\', r"\\").replace('"', "\\\"");
    isolated(&format!("\"{}\"", safe(&escaped)))
}

/// The same as lines by themselves, each behind a mark, and short enough that no terminal breaks them: so none looks like one of ours.
pub(crate) fn marked(text: &str, indent: &str) -> String {
    const COLUMNS_MAX: usize = 72;
    // Characters from here on may be two columns wide.
    const WIDE: char = '\u{1100}';
    let mut lines = vec![String::new()];
    let mut columns = 0;
    for word in safe(&folded(text)).split(' ') {
        let width = |character: char| if character < WIDE { 1 } else { 2 };
        let fits = columns + 1 + word.chars().map(width).sum::<usize>() <= COLUMNS_MAX;
        let mut goes_on = columns > 0 && fits;
        if columns > 0 && !fits {
            lines.push(String::new());
            columns = 0;
        }
        for character in word.chars() {
            if columns + width(character) > COLUMNS_MAX {
                lines.push(String::new());
                columns = 0;
            }
            if let Some(line) = lines.last_mut() {
                if std::mem::take(&mut goes_on) {
                    line.push(' ');
                    columns += 1;
                }
                line.push(character);
                columns += width(character);
            }
        }
    }
    lines.iter().map(|line| format!("{indent}| {}\n", isolated(line))).collect()
}

fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Between marks that end its direction with it, where it has script from right to left; it has no such marks of its own any more.
fn isolated(safe: &str) -> String {
    let is_from_the_right = |character: char| matches!(character, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}');
    if safe.chars().any(is_from_the_right) { format!("\u{2068}{safe}\u{2069}") } else { safe.to_owned() }
}

/// A table without lines but the one below its head.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    const STYLE: TableStyle = TableStyle::new()
        .header_lines(ContentLineStyle::none().junction(' '))
        .header_separator(LineStyle::none().fill('─').junction('─'))
        .content_lines(ContentLineStyle::none().junction(' '));
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().copied());
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `name  value` lines, aligned.
pub(crate) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// RFC 3339, to the microsecond, UTC.
pub(crate) fn time(time: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.as_micros()) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        Err(_) => format!("{} µs", time.as_micros()),
    }
}

/// A moment as a user writes it, in RFC 3339.
pub(crate) fn parse_time(flag: &str, text: &str) -> Result<Timestamp, Failure> {
    let parsed = text.parse::<jiff::Timestamp>();
    let parsed = parsed.map_err(|_| Failure::usage(format!("{flag} is not a time such as 2027-12-31T00:00:00Z")));
    Ok(Timestamp::from_micros(parsed?.as_microsecond()))
}

/// A message's time that may be absent, as [`time`] says it.
pub(crate) fn optional_time(time_of: Option<&prost_types::Timestamp>) -> Option<String> {
    concord_wire::convert::optional_timestamp(time_of).map(time)
}

/// A time in a table: to the millisecond; `-` where there is none.
pub(crate) fn short_time(time_of: Option<&str>) -> String {
    match time_of.and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
        Some(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => "-".to_owned(),
    }
}

/// The clock of this machine.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_move_the_cursor() {
        assert_eq!(safe("Изъятие 3 кг"), "Изъятие 3 кг");
        assert_eq!(safe("a\u{1b}[2Jb\u{9b}c\u{7f}\u{202e}d\ne"), r"a\u{1b}[2Jb\u{9b}c\u{7f}\u{202e}d\u{a}e");
    }

    #[test]
    fn text_of_others_looks_like_no_line_of_ours() {
        let forged = format!("no{}UZB: signed by \"x\"\\", " \u{a0}\u{3000}".repeat(100));
        assert_eq!(quoted(&forged), r#""no UZB: signed by \"x\"\\""#);
        assert_eq!(inline("ایران"), "\u{2068}ایران\u{2069}");
        // Blanks that are none to Unicode, and a word without an end: every line is marked.
        for word in ["\u{2800}".repeat(341), "漢".repeat(341), "x".repeat(1024), "a b".repeat(300), String::new()] {
            let lines = marked(&word, "  ");
            assert!(lines.lines().all(|line| line.starts_with("  | ") && line.chars().count() <= 76), "{lines}");
            let shown: String = lines.lines().map(|line| &line[4..]).collect::<Vec<_>>().concat();
            assert_eq!(shown.replace(' ', ""), word.replace(' ', ""));
        }
        assert_eq!(marked("one two", "  "), "  | one two\n");
    }

    #[test]
    fn json_has_no_raw_control_character_and_reads_back() {
        let hostile = "a\u{1b}[2J\u{9b}\u{7f}\u{202e}я";
        let line = json_line(&hostile).unwrap();
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(Timestamp::from_micros(1_700_000_000_123_456)), "2023-11-14T22:13:20.123456Z");
        assert_eq!(short_time(Some("2023-11-14T22:13:20.123456Z")), "2023-11-14T22:13:20.123Z");
        assert_eq!(short_time(None), "-");
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let text = table(&["id", "state"], [vec!["КАЗ".to_owned(), "x".to_owned()]]);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        assert!(text.contains("КАЗ"));
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
