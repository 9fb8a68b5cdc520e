//! Saved and paid over time, a line each contender.

use anyhow::Result;
use thermocline_tests::bench::{Contender, Region};

use super::run::Run;
use crate::bench::picture::{self, Panel};

const MIB: f64 = (1 << 20) as f64;

/// The first run of each as an SVG document.
pub(super) fn svg(measured: &[(&Contender, &[Run])]) -> Result<String> {
    let panel = |unit, of: fn(&Run) -> Vec<(f64, f64)>| -> Panel {
        (unit, measured.iter().map(|(contender, runs)| (contender.name.to_owned(), of(&runs[0]))).collect())
    };
    picture::svg(&[panel("MiB not in DRAM", saved), panel("modelled slowdown at 150 ns, %", paid)])
}

fn saved(run: &Run) -> Vec<(f64, f64)> {
    let at = |at: usize| (run.samples[at].at_ms as f64 / 1e3, run.away(at, Region::counts) as f64 / MIB);
    (0..run.samples.len()).map(at).collect()
}

/// Over half a minute at a time.
fn paid(run: &Run) -> Vec<(f64, f64)> {
    const STEPS: usize = 6;
    let at = |to: usize| {
        let from = to - STEPS;
        let ns = (run.samples[to].at_ms - run.samples[from].at_ms) as f64 * 1e6;
        (run.samples[to].at_ms as f64 / 1e3, run.counts(from, to).slowdown(150.0, ns) * 100.0)
    };
    (STEPS..run.samples.len()).map(at).collect()
}
