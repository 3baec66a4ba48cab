//! The log on stderr: text for a person at a terminal, one JSON object per line for everybody else.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Says what is logged, in the words of tracing's filters: `warn`, `info,concord_server=debug`.
pub const LOG_VARIABLE: &str = "CONCORD_LOG";

const DEFAULT_FILTER: &str = "info";

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The variable does not parse.
    #[error("{LOG_VARIABLE}='{text}' is not a filter: {source}; give a level such as info or debug")]
    Filter {
        /// Its value.
        text: String,
        /// What is wrong.
        source: ParseError,
    },
    /// A second call.
    #[error("the log was set up before: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets up the log of this process. Nothing else may be written to stderr in JSON mode, so that each line parses.
pub fn init_logging() -> Result<(), LoggingError> {
    let text = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = filter(&text)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        log.with_ansi(true).with_target(false).finish().try_init()?;
    } else {
        log.json().flatten_event(true).finish().try_init()?;
    }
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    let text = if text.trim().is_empty() { DEFAULT_FILTER } else { text };
    let parsed = EnvFilter::builder().parse(text);
    parsed.map_err(|source| LoggingError::Filter { text: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_an_error_and_none_means_info() {
        assert_eq!(filter("").unwrap().to_string(), "info");
        assert_eq!(filter("warn").unwrap().to_string(), "warn");
        let error = filter("info,=,=").unwrap_err();
        assert!(error.to_string().contains("CONCORD_LOG='info,=,='"), "{error}");
    }
}
