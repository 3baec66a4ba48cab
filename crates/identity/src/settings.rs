//! Settings in TOML, as a person wrote them.

use serde::de::DeserializeOwned;

/// Reads settings. An error is one line that says on which line of the file what is wrong: it goes into a log and onto a terminal, where a
/// drawing of several lines would be shown as escapes.
pub fn settings_from_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let what = error.message().trim().replace('\n', "; ");
        let number = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count());
        match number.and_then(|number| Some((number + 1, text.lines().nth(number)?.trim()))) {
            Some((number, line)) => format!("line {number}, `{line}`: {what}"),
            None => what,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[serde(rename = "quorum")]
        _quorum: u32,
    }

    #[test]
    fn what_is_wrong_with_settings_is_one_line_that_names_the_line() {
        for (text, begins) in [
            ("# one\n\nquorum = \n", "line 3, `quorum =`: "),
            ("quorum = \"two\"\n", "line 1, `quorum = \"two\"`: invalid type: string \"two\""),
            ("quorum = 2\nqourum = 2\n", "line 2, `qourum = 2`: unknown field `qourum`"),
            ("quorum = 2\nquorum = 3\n", "line 2, `quorum = 3`: duplicate key"),
        ] {
            let said = settings_from_toml::<Settings>(text).unwrap_err();
            assert!(said.starts_with(begins) && !said.contains('\n'), "{text}: {said}");
        }
        assert!(settings_from_toml::<Settings>("quorum = 2").is_ok());
    }
}
