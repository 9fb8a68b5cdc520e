//! All faults of a text at once: what is wrong is taken out, and the rest is read again.
//!
//! A reader of YAML ends at the first value that does not fit. So the entry that the fault is in (a field with its value, or an
//! element of a list) is blanked, with lines and columns of all else as they were, and the text is read anew.

use std::collections::BTreeSet;
use std::ops::Range;

use super::error::{Place, Problem, Whereabouts};
use super::file::{ConfigFile, Fault, FaultKind, read};
use super::locate::{Key, locate};

/// Nobody mends more at once, and each costs a reading of the text.
const AT_MOST: usize = 20;

/// What could be read of a text, and what is wrong with the rest.
pub(super) struct Reading {
    /// Without what is wrong; `None` where the text can't be read on after a fault.
    pub(super) file: Option<ConfigFile>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// The text of `file`, every place as it was.
    pub(super) text: String,
    original: Vec<String>,
    /// Lines that were taken out, from 0.
    blanked: BTreeSet<usize>,
}

/// Reads what can be read.
pub(super) fn read_all(text: &str) -> Reading {
    let original: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut lines = original.clone();
    let mut reading = Reading {
        file: None,
        problems: Vec::new(),
        text: text.to_owned(),
        original,
        blanked: BTreeSet::new(),
    };
    for _ in 0..=3 * AT_MOST {
        let Fault { kind, place, message } = match read(&reading.text) {
            Ok(file) => {
                reading.file = Some(file);
                break;
            }
            Err(fault) => fault,
        };
        let entry = place.and_then(|place| Entry::at_fault(&reading.original, kind, place));
        // What lacks what was taken out of it, or holds nothing any more, goes with it.
        let follows = entry.as_ref().is_some_and(|entry| reading.was_taken(entry.lines.clone()));
        if !follows {
            let whereabouts = place.map_or(Whereabouts::Unknown, Whereabouts::Place);
            reading.problems.push(Problem { whereabouts, message });
        }
        let Some(entry) = entry.filter(|_| kind != FaultKind::Syntax && reading.problems.len() < AT_MOST)
        else {
            break;
        };
        // The dash of an element stays as long as there are other fields in it.
        let kept = if follows { 0 } else { entry.kept };
        lines[entry.lines.start].truncate(kept);
        lines[entry.lines.start + 1..entry.lines.end].iter_mut().for_each(String::clear);
        reading.blanked.extend(entry.lines);
        reading.text = lines.join("\n");
    }
    reading
}

impl Reading {
    fn was_taken(&self, lines: Range<usize>) -> bool {
        self.blanked.range(lines).next().is_some()
    }

    /// Whether a value of this path, or what it is judged together with, was taken out: a whole policy, a whole setting.
    pub(super) fn is_torn(&self, path: &[Key]) -> bool {
        let lines = match path {
            [Key::Field("policies"), index @ Key::Index(_), ..] => {
                let element = locate(&self.text, &[Key::Field("policies"), index.clone()]);
                element.and_then(|place| Entry::element(&self.original, place)).map(|entry| entry.lines)
            }
            [Key::Field(name), ..] => {
                let begins =
                    |line: &String| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
                let line = self.original.iter().position(begins);
                line.map(|line| Entry::field(&self.original, line).lines)
            }
            _ => None,
        };
        lines.is_some_and(|lines| self.was_taken(lines))
    }
}

/// What is to be taken out for a fault.
struct Entry {
    lines: Range<usize>,
    /// Columns of the first line that stay.
    kept: usize,
}

/// The column of the first dash of a line, and that of what it says.
fn columns(text: &str) -> (Option<usize>, usize) {
    let mut says = text.len() - text.trim_start().len();
    let mut dash = None;
    while text[says..].starts_with("- ") || text[says..].trim_end() == "-" {
        dash = dash.or(Some(says));
        let rest = &text[says + 1..];
        says += 1 + rest.len() - rest.trim_start().len();
    }
    (dash, says)
}

/// The end of what is deeper than `column` below a line.
fn end(lines: &[String], line: usize, column: usize) -> usize {
    let opens = lines[line].trim_end().ends_with(':');
    let is_part = |line: &&String| {
        let (dash, says) = columns(line);
        let indent = dash.unwrap_or(says);
        line.trim().is_empty() || indent > column || (opens && dash == Some(column))
    };
    let below = lines[line + 1..].iter().take_while(is_part).count();
    let empty = lines[line + 1..][..below].iter().rev().take_while(|line| line.trim().is_empty()).count();
    line + 1 + below - empty
}

impl Entry {
    fn at_fault(lines: &[String], kind: FaultKind, place: Place) -> Option<Self> {
        let line = place.line - 1;
        let (dash, says) = columns(lines.get(line)?);
        match kind {
            FaultKind::Missing => Self::element(lines, place),
            // A value on lines of its own: it is its field's.
            FaultKind::Shape if place.column - 1 == says && dash.is_none() => Self::parent(lines, line, says),
            _ => Some(Self::field(lines, line)),
        }
    }

    /// The field that begins in a line, also right behind a dash.
    fn field(lines: &[String], line: usize) -> Self {
        let (_, says) = columns(&lines[line]);
        Self { lines: line..end(lines, line, says), kept: lines[line][..says].trim_end().len() }
    }

    /// The element of a list that begins at or before a place that is in it, or else the field.
    fn element(lines: &[String], place: Place) -> Option<Self> {
        let column = place.column - 1;
        let (line, dash) = lines[..place.line].iter().enumerate().rev().find_map(|(line, text)| {
            let (dash, says) = columns(text);
            let above = dash.unwrap_or(says) < column && !text.trim().is_empty();
            above.then_some((line, dash))
        })?;
        match dash {
            Some(dash) => Some(Self { lines: line..end(lines, line, dash), kept: 0 }),
            None => Some(Self::field(lines, line)),
        }
    }

    fn parent(lines: &[String], line: usize, says: usize) -> Option<Self> {
        let above = |(_, text): &(usize, &String)| !text.trim().is_empty() && columns(text).1 < says;
        let (line, _) = lines[..line].iter().enumerate().rev().find(above)?;
        Some(Self::field(lines, line))
    }
}
