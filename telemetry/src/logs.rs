//! Where log lines go: standard error, as text for a person and as JSON for a collector.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Filters log lines, in the syntax of `RUST_LOG`: `info,node_agent=debug`.
pub const FILTER_VARIABLE: &str = "THERMOCLINE_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

impl LogFormat {
    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("{FILTER_VARIABLE}={filter}: {source}; write it as `info` or `info,node_agent=debug`")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word of the filter is no level, and names no module's either.
    #[error(
        "{FILTER_VARIABLE}={filter}: `{word}` is no level{} Levels are {}; a module's is written as `info,{word}=debug`",
        meant(word), LEVELS.join(", ")
    )]
    Level {
        /// As it was given.
        filter: String,
        /// What is none.
        word: String,
    },
    /// A log was set up before.
    #[error("cannot set up the log: {0}")]
    Init(#[from] TryInitError),
}

/// Sends log lines of this process to standard error from now on, filtered by `directives`.
pub fn init(format: LogFormat, directives: &str) -> Result<(), TelemetryError> {
    let filter = filter(directives)?;
    let terminal = io::stderr().is_terminal();
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    if format.is_json(terminal) {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()?;
    } else {
        let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colour).with_target(false).finish().try_init()?;
    }
    Ok(())
}

/// What the client library says of each request that fails, which whoever made the request says with more sense.
const REPEATED: &str = "kube_client::client::builder=off";

/// What stands alone in a filter. Another word there would be a target, and all others silent.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn meant(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    let near = LEVELS.into_iter().find(|level| word.starts_with(level) || level.starts_with(&word));
    near.map_or_else(|| ".".to_owned(), |level| format!("; did you mean `{level}`?"))
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let mut words = text.split(',').filter(|word| !word.is_empty() && !word.contains('='));
    if let Some(word) = words.find(|word| !is_level(word)) {
        return Err(TelemetryError::Level { filter: text.to_owned(), word: word.to_owned() });
    }
    let parse = |text: &str| EnvFilter::builder().parse(text);
    let given = if text.is_empty() { "info" } else { text };
    // Whoever names the library gets what they ask for. An error is about what was given.
    let with_ours = if text.contains("kube") { given.to_owned() } else { format!("{given},{REPEATED}") };
    parse(given)
        .and_then(|_| parse(&with_ours))
        .map_err(|source| TelemetryError::Filter { filter: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_and_a_pipe_json_unless_told() {
        assert!(!LogFormat::Auto.is_json(true) && LogFormat::Auto.is_json(false));
        assert!(!LogFormat::Text.is_json(false) && LogFormat::Json.is_json(true));
    }

    #[test]
    fn a_filter_leaves_out_what_the_client_library_repeats_unless_it_names_it() {
        for (given, used) in [
            ("", "kube_client::client::builder=off,info"),
            ("warn", "kube_client::client::builder=off,warn"),
            ("info,kube_client=debug", "kube_client=debug,info"),
        ] {
            assert_eq!(filter(given).unwrap().to_string(), used);
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_the_only_module_that_logs() {
        for (given, says) in [
            ("warning", "`warning` is no level; did you mean `warn`? Levels are off, error, warn, info,"),
            ("info,node_agent", "`node_agent` is no level. Levels are"),
            ("bogus", "`info,bogus=debug`"),
        ] {
            let words = filter(given).unwrap_err().to_string();
            assert!(
                words.starts_with(&format!("THERMOCLINE_LOG={given}: ")) && words.contains(says),
                "{words}"
            );
        }
        for given in ["WARN", "off", "node_agent=debug", "info,,node_agent::engine=trace"] {
            assert!(filter(given).is_ok(), "{given}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_quoted_with_an_example() {
        let words = filter("node_agent=loud").unwrap_err().to_string();
        assert!(
            words.starts_with("THERMOCLINE_LOG=node_agent=loud: ") && words.contains("`info`"),
            "{words}"
        );
    }
}
