//! The table, as it is committed.

use std::fmt::Write as _;

use thermocline_tests::bench::Contender;

use super::rows::{Better, ROWS, Row};
use super::run::Run;

/// Ours, of which the table says where it is not the best.
const OURS: &str = "thermocline";
/// Not compared: it does nothing.
const NOBODY: &str = "nobody";
/// Of the mean: what is nearer is equal.
const EQUAL: f64 = 0.05;

/// A row's values of one contender's runs.
struct Cell {
    mean: f64,
    least: f64,
    most: f64,
    runs: usize,
}

impl Cell {
    fn of(row: &Row, runs: &[Run]) -> Option<Self> {
        let values: Vec<f64> = runs.iter().filter_map(row.value).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (!values.is_empty()).then_some(Self { mean, least, most, runs: values.len() })
    }

    fn text(&self) -> String {
        if self.runs > 1 && number(self.least) != number(self.most) {
            format!("{} ({} to {})", number(self.mean), number(self.least), number(self.most))
        } else {
            number(self.mean)
        }
    }

    /// Whether it is as good as another, within what the runs differ.
    fn is_as_good_as(&self, other: &Self, better: Better) -> bool {
        let spread = (self.most - self.least).max(other.most - other.least);
        let spread = if spread.is_finite() { spread } else { 0.0 };
        let equal = spread.max(other.mean.abs() * EQUAL);
        match better {
            _ if self.mean.to_bits() == other.mean.to_bits() => true,
            Better::Less => self.mean <= other.mean + equal,
            Better::More => self.mean >= other.mean - equal,
        }
    }
}

/// The table of all that came to their end, in their order.
pub(super) fn markdown(measured: &[(&Contender, &[Run])], picture: &str, conditions: &str) -> String {
    let mut text = format!(
        "# Beside the peers\n\n{conditions}\n\nIn a guest whose processor is emulated: no latency is measured. Accesses are counted behind a model \
         of the last-level cache, and a miss to the slow node is priced at so much more than one to DRAM. CPU is guest time divided by 12. \
         One pod: 64 MiB hot, half of them only read, 48 MiB touched every 15, 30 or 60 s, 128 MiB cold, 16 MiB each of MADV_FREEd, locked, \
         file and shared memory; later the first 32 MiB hot and 32 MiB of the cold change places. Numbers are means, and least to most of \
         the runs where they differ.\n\n![saved and paid over time]({picture})\n\n"
    );
    for (contender, runs) in measured {
        let _ = writeln!(text, "- `{}`: {}", contender.name, runs[0].settings);
    }
    let names: Vec<&str> = measured.iter().map(|(contender, _)| contender.name).collect();
    let _ = writeln!(text, "\n| | {} | ours |\n|---|{}---|", names.join(" | "), "---:|".repeat(names.len()));
    let saved = |runs: &[Run]| Cell::of(&ROWS[0], runs).map_or(0.0, |cell| cell.mean);
    let ours = measured.iter().find(|(contender, _)| contender.name == OURS).map(|(_, runs)| *runs);
    let bar = ours.map_or(0.0, saved) / 2.0;
    // Who does nothing pays nothing.
    let rivals: Vec<_> = measured
        .iter()
        .filter(|(contender, runs)| !matches!(contender.name, OURS | NOBODY) && saved(runs) >= bar)
        .collect();
    for row in ROWS {
        let cells: Vec<String> = measured
            .iter()
            .map(|(_, runs)| Cell::of(row, runs).map_or_else(|| "-".to_owned(), |cell| cell.text()))
            .collect();
        let ours = ours.and_then(|runs| Cell::of(row, runs));
        let better: Vec<&str> = rivals
            .iter()
            .filter(|(_, runs)| {
                let theirs = Cell::of(row, runs);
                ours.as_ref()
                    .zip(theirs)
                    .is_some_and(|(ours, theirs)| !ours.is_as_good_as(&theirs, row.better))
            })
            .map(|(contender, _)| contender.name)
            .collect();
        let word = match (&ours, better.as_slice()) {
            (None, _) => "-".to_owned(),
            (_, []) => "best or equal".to_owned(),
            (_, better) => format!("**behind {}**", better.join(", ")),
        };
        let _ = writeln!(text, "| {} | {} | {word} |", row.name, cells.join(" | "));
    }
    let _ = write!(
        text,
        "\n`ours` compares with those that saved at least half as much DRAM ({}); what is within the runs' spread, or 5 %, is equal. `-`: says \
         nothing there, as where nothing was moved.\n",
        if rivals.is_empty() {
            "none".to_owned()
        } else {
            rivals.iter().map(|(c, _)| c.name).collect::<Vec<_>>().join(", ")
        }
    );
    for (contender, runs) in measured {
        for left in &runs[0].left {
            let _ = writeln!(text, "\n`{}` killed leaves `{left}`.", contender.name);
        }
    }
    text
}

/// Three digits, or all before the point.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return "never".to_owned();
    }
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else if value.abs() >= 1.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(mean: f64, spread: f64) -> Cell {
        Cell { mean, least: mean - spread, most: mean + spread, runs: 3 }
    }

    #[test]
    fn equal_is_within_the_spread_or_a_twentieth() {
        assert!(cell(104.0, 0.0).is_as_good_as(&cell(100.0, 0.0), Better::Less));
        assert!(!cell(106.0, 0.0).is_as_good_as(&cell(100.0, 0.0), Better::Less));
        assert!(cell(106.0, 5.0).is_as_good_as(&cell(100.0, 0.0), Better::Less));
        assert!(!cell(90.0, 0.0).is_as_good_as(&cell(100.0, 0.0), Better::More));
        assert!(!cell(f64::INFINITY, 0.0).is_as_good_as(&cell(100.0, 0.0), Better::Less));
        assert!(cell(f64::INFINITY, 0.0).is_as_good_as(&cell(f64::INFINITY, 0.0), Better::Less));
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.1234, 1.5, 12.345, 1234.5, 100.0, f64::INFINITY].map(number);
        assert_eq!(texts, ["0", "0.123", "1.5", "12.3", "1234", "100", "never"]);
    }
}
