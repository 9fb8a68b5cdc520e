//! What a guest says on its console in a form that the host reads: `RESULT {json}` for each check, one
//! `VERDICT {json}` at the end; of the demo also `FRAME {json}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One measured number beside its bar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was measured.
    pub name: String,
    /// The number, with its unit.
    pub value: String,
    /// What it had to be.
    pub bar: String,
    /// Whether it was.
    pub pass: bool,
}

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// All checks passed, and there was at least one.
    pub pass: bool,
    /// Checks made.
    pub checks: usize,
    /// The error that ended the scenario early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Guest time since boot, milliseconds.
    pub guest_ms: u64,
    /// Of it, guest time until the scenario began, milliseconds.
    pub boot_ms: u64,
}

/// A line of the console that means something to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `RESULT`
    Result(Check),
    /// `VERDICT`
    Verdict(Verdict),
}

impl Line {
    /// Reads a console line; `None` for all that is meant for people.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        parse_after("RESULT", line)
            .map(Self::Result)
            .or_else(|| parse_after("VERDICT", line).map(Self::Verdict))
    }

    /// The line, without its end.
    #[must_use]
    pub fn render(&self) -> String {
        match self {
            Self::Result(check) => render_after("RESULT", check),
            Self::Verdict(verdict) => render_after("VERDICT", verdict),
        }
    }
}

/// What a console line says in JSON after a word; `None` where the word is not in it.
pub(crate) fn parse_after<T: DeserializeOwned>(word: &str, line: &str) -> Option<T> {
    // The kernel's own messages may share the line.
    let (_, json) = line.split_once(&format!("{word} "))?;
    serde_json::from_str(json.trim()).ok()
}

/// A console line that says this after a word, without its end.
pub(crate) fn render_after(word: &str, value: &impl Serialize) -> String {
    format!("{word} {}", serde_json::to_string(value).unwrap_or_default())
}

/// What a terminal shows at one moment of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Guest time since boot, milliseconds.
    pub at_ms: u64,
    /// Lines with a newline each, with colours by ANSI sequences if the host asked for them.
    pub text: String,
}

impl Frame {
    /// Reads a console line; `None` for all others.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        parse_after("FRAME", line)
    }

    /// The console line, without its end.
    #[must_use]
    pub fn render(&self) -> String {
        render_after("FRAME", self)
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Frame, Line};

    #[test]
    fn a_frame_is_one_line_and_reads_back() {
        let frame = Frame { at_ms: 1500, text: "\x1b[1mone\x1b[0m\ntwo █\n".into() };
        assert_eq!(frame.render().lines().count(), 1);
        assert_eq!(Frame::parse(&frame.render()), Some(frame));
    }

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        let line = Line::Result(Check {
            name: "recall".into(),
            value: "1.000".into(),
            bar: ">= 0.98".into(),
            pass: true,
        });
        assert_eq!(Line::parse(&line.render()), Some(line));
    }

    #[test]
    fn other_lines_mean_nothing() {
        assert_eq!(Line::parse("[    1.2] NUMA: node 1"), None);
    }
}
