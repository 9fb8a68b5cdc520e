//! What was measured, as a table in Markdown. Printed row by row: what was measured before something fails is not lost.

use std::io::Write as _;

/// The head.
pub(crate) fn head() {
    print("what", "seen");
    print("---", "---:");
}

/// A number and its unit.
pub(crate) fn row(what: &str, value: f64, unit: &str) {
    let digits = if value >= 100.0 { 0 } else { 2 };
    print(what, format!("{value:.digits$} {unit}").trim_end());
}

/// An amount of memory.
pub(crate) fn bytes(what: &str, bytes: u64) {
    row(what, bytes as f64 / f64::from(1 << 20), "MiB");
}

fn print(what: &str, value: &str) {
    let _ = writeln!(std::io::stdout(), "| {what} | {value} |");
}
