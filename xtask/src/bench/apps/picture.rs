//! Saved and paid over time by all applications together, a line each policy.

use anyhow::Result;

use super::run::Part;
use super::table::Measured;
use crate::bench::picture::{self, Panel};

const MIB: f64 = (1 << 20) as f64;

/// The first run of each as an SVG document.
pub(super) fn svg(measured: &Measured) -> Result<String> {
    let panel = |unit, of: fn(Part<'_>) -> Vec<(f64, f64)>| -> Panel {
        let first = measured
            .managed
            .iter()
            .filter_map(|(policy, runs)| Some((policy, runs.iter().flatten().next()?)));
        (unit, first.map(|(policy, run)| (policy.name().to_owned(), of(run.part(None)))).collect())
    };
    picture::svg(&[panel("anonymous MiB not in DRAM", saved), panel("modelled slowdown at 150 ns, %", paid)])
}

fn saved(all: Part<'_>) -> Vec<(f64, f64)> {
    all.away().into_iter().map(|(at, bytes)| (at, bytes as f64 / MIB)).collect()
}

fn paid(all: Part<'_>) -> Vec<(f64, f64)> {
    all.slowdowns(150.0).into_iter().map(|(at, share)| (at, share * 100.0)).collect()
}
