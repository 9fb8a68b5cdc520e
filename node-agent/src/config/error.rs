//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::locate::{Key, locate};

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Why a configuration is refused: the file, and everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// At least one, in the order of the file.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong: line and column, what it is, what to do, and the line itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the file, if it is a matter of a place.
    pub place: Option<Place>,
    /// What is wrong and what to do.
    pub message: String,
    /// The line at `place`.
    pub source_line: Option<String>,
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, source: &io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => "create it, or name another file",
            io::ErrorKind::PermissionDenied => "run as a user that may read it",
            io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "see that it is a readable file",
        };
        let message = format!("cannot read the configuration: {source}; {remedy}");
        Self { file: file.to_owned(), faults: vec![Fault { place: None, message, source_line: None }] }
    }

    pub(super) fn new(file: &Path, text: &str, problems: Vec<Problem>) -> Self {
        let mut faults: Vec<Fault> = problems.into_iter().map(|problem| problem.at(text)).collect();
        faults.sort_by_key(|fault| fault.place.map(|place| (place.line, place.column)));
        faults.dedup();
        Self { file: file.to_owned(), faults }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i > 0 { "\n" } else { "" };
            write!(f, "{separator}{}{fault}", self.file.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(place), Some(line)) = (self.place, &self.source_line) {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            let indent = " ".repeat(place.column.saturating_sub(1));
            write!(f, "\n{margin} |\n{number} | {line}\n{margin} | {indent}^")?;
        }
        Ok(())
    }
}

/// Something valid that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where in the file, if it is a matter of a place.
    pub place: Option<Place>,
    /// What a person should know.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "line {}: {}", place.line, self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// An error before its place in the text is looked up.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) whereabouts: Whereabouts,
    pub(super) message: String,
}

#[derive(Debug)]
pub(super) enum Whereabouts {
    Unknown,
    Place(Place),
    Path(Vec<Key>),
}

impl Problem {
    pub(super) fn new(path: Vec<Key>, message: impl Into<String>) -> Self {
        Self { whereabouts: Whereabouts::Path(path), message: message.into() }
    }

    /// The place of what is wrong.
    pub(super) fn place(&self, text: &str) -> Option<Place> {
        match &self.whereabouts {
            Whereabouts::Unknown => None,
            Whereabouts::Place(place) => Some(*place),
            Whereabouts::Path(path) => locate(text, path),
        }
    }

    fn at(self, text: &str) -> Fault {
        let place = self.place(text);
        // A tab would move the caret away from what it points at.
        let source_line =
            place.and_then(|place| text.lines().nth(place.line - 1)).map(|line| line.replace('\t', " "));
        Fault { place, message: self.message, source_line }
    }
}
