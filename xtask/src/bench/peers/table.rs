//! The table, as it is committed.

use std::fmt::Write as _;

use thermocline_tests::bench::Contender;

use super::rows::{Better, ROWS, Row};
use super::run::Run;
use crate::bench::spread::Spread;

/// Ours, of which the table says where it is not the best.
const OURS: &str = "thermocline";
/// Not compared: it does nothing.
const NOBODY: &str = "nobody";
/// Of the mean: what is nearer is equal.
const EQUAL: f64 = 0.05;

/// A row's values of one contender's runs; `None` where it says nothing about them.
fn cell(row: &Row, runs: &[Run]) -> Option<Spread> {
    Spread::of(runs.iter().filter_map(row.value))
}

/// Whether one is as good as another, within what the runs differ.
fn is_as_good(one: &Spread, other: &Spread, better: Better) -> bool {
    let spread = (one.most - one.least).max(other.most - other.least);
    let spread = if spread.is_finite() { spread } else { 0.0 };
    let equal = spread.max(other.mean.abs() * EQUAL);
    match better {
        _ if one.mean.to_bits() == other.mean.to_bits() => true,
        Better::Less => one.mean <= other.mean + equal,
        Better::More => one.mean >= other.mean - equal,
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
    let saved = |runs: &[Run]| cell(&ROWS[0], runs).map_or(0.0, |cell| cell.mean);
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
            .map(|(_, runs)| cell(row, runs).map_or_else(|| "-".to_owned(), |cell| cell.text()))
            .collect();
        let ours = ours.and_then(|runs| cell(row, runs));
        let better: Vec<&str> = rivals
            .iter()
            .filter(|(_, runs)| {
                let theirs = cell(row, runs);
                ours.as_ref().zip(theirs).is_some_and(|(ours, theirs)| !is_as_good(ours, &theirs, row.better))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(mean: f64, by: f64) -> Spread {
        Spread { mean, least: mean - by, most: mean + by, runs: 3 }
    }

    #[test]
    fn equal_is_within_the_spread_or_a_twentieth() {
        let (hundred, never) = (spread(100.0, 0.0), spread(f64::INFINITY, 0.0));
        assert!(is_as_good(&spread(104.0, 0.0), &hundred, Better::Less));
        assert!(!is_as_good(&spread(106.0, 0.0), &hundred, Better::Less));
        assert!(is_as_good(&spread(106.0, 5.0), &hundred, Better::Less));
        assert!(!is_as_good(&spread(90.0, 0.0), &hundred, Better::More));
        assert!(!is_as_good(&never, &hundred, Better::Less));
        assert!(is_as_good(&never, &never, Better::Less));
    }
}
