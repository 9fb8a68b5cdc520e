//! What is compared.

use misses::line::Counts;
use thermocline_tests::bench::Region;
use thermocline_tests::bench::told::Sample;

use super::run::Run;

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// One row of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) better: Better,
    /// `None`: says nothing about this run.
    pub(super) value: fn(&Run) -> Option<f64>,
}

/// A core at 3 GHz does twelve times as much as the guest's (docs/decisions/cpu-scaling.md).
const NATIVE: f64 = 12.0;
const MIB: f64 = (1 << 20) as f64;

/// In the order of the questions: how much is saved, what of it is wrong, what it costs, what is left.
pub(super) const ROWS: &[Row] = &[
    more("DRAM saved, mean of the run, %", |run| percent(run.mean_away(all(run), Region::counts))),
    more("cold memory found after 1 min, %", |run| found(run, 60)),
    more("after 2 min, %", |run| found(run, 120)),
    more("after 3 min, %", |run| found(run, 180)),
    more("before the shift, %", |run| found(run, run.shifted_ms / 1000)),
    less("hot memory sunk wrongly, mean, %", |run| percent(run.mean_away(before_shift(run), is_hot))),
    less("hot memory sunk wrongly, worst moment, MiB", |run| {
        most(run, before_shift(run), |run, at| run.away(at, is_hot))
    }),
    less("warm memory (15, 30, 60 s) sunk, mean, %", |run| {
        percent(run.mean_away(all(run), |kind| kind == Region::Warm))
    }),
    less("MADV_FREEd, locked, file, shared memory moved, most, MiB", |run| {
        most(run, all(run), |run, at| run.away(at, |kind| kind == Region::NeverMoves))
    }),
    less("neighbour's memory moved, most, MiB", |run| {
        most(run, all(run), |run, at| run.samples[at].neighbour_slow)
    }),
    less("the new hot set is in DRAM after, s", new_hot_back),
    less("the old hot set has sunk after, s", old_hot_sunk),
    less("slow share of misses before the shift, %", |run| percent(run.counts(0, run.shift()).slow_share())),
    less("slow share of misses after it, %", |run| percent(run.counts(run.shift(), last(run)).slow_share())),
    less("modelled slowdown at 100 ns, %", |run| slowdown(run, whole(run), 100.0)),
    less("modelled slowdown at 150 ns, %", |run| slowdown(run, whole(run), 150.0)),
    less("modelled slowdown at 250 ns, %", |run| slowdown(run, whole(run), 250.0)),
    less("regret at 150 ns, x", regret),
    less("CPU per MiB moved, native ms", cpu_per_mib),
    less("CPU in the last minute before the shift, % of a native core", cpu_at_rest),
    less("the workload's own CPU, native s", |run| {
        let of = |sample: &Sample| sample.workload_us as f64 / 1e6 / NATIVE;
        Some(of(&run.samples[last(run)]) - of(&run.samples[0]))
    }),
    less("resident memory, most, MiB", |run| most(run, all(run), |run, at| run.samples[at].rss)),
    less("settings left changed after kill -9", |run| Some(run.left.len() as f64)),
    less("pages with wrong content", |run| Some(run.wrong as f64)),
];

const fn less(name: &'static str, value: fn(&Run) -> Option<f64>) -> Row {
    Row { name, better: Better::Less, value }
}

const fn more(name: &'static str, value: fn(&Run) -> Option<f64>) -> Row {
    Row { name, better: Better::More, value }
}

fn last(run: &Run) -> usize {
    run.samples.len() - 1
}

fn all(run: &Run) -> std::ops::Range<usize> {
    0..run.samples.len()
}

/// The samples until the hot set shifted.
fn before_shift(run: &Run) -> std::ops::Range<usize> {
    let next = run.shift() + 1;
    0..next
}

fn whole(run: &Run) -> Counts {
    run.counts(0, last(run))
}

#[allow(clippy::unnecessary_wraps, reason = "as the rows have it")]
fn percent(share: f64) -> Option<f64> {
    Some(share * 100.0)
}

fn is_hot(kind: Region) -> bool {
    matches!(kind, Region::Hot | Region::ReadHot)
}

fn is_cold(kind: Region) -> bool {
    matches!(kind, Region::Cold | Region::Stays)
}

/// Percent of the cold memory that is not in DRAM so many seconds after the start.
fn found(run: &Run, seconds: u64) -> Option<f64> {
    let at = run.samples.iter().rposition(|sample| sample.at_ms <= seconds * 1000 + 500)?;
    let long_enough = run.shifted_ms >= seconds * 1000;
    long_enough.then(|| run.away(at.min(run.shift()), is_cold) as f64 / run.bytes(is_cold) as f64 * 100.0)
}

#[allow(clippy::unnecessary_wraps, reason = "as the rows have it")]
fn most(run: &Run, samples: std::ops::Range<usize>, of: impl Fn(&Run, usize) -> u64) -> Option<f64> {
    Some(samples.map(|at| of(run, at)).max().unwrap_or(0) as f64 / MIB)
}

/// Seconds after the shift until it holds and goes on to hold; infinite where that was never.
fn since_shift(run: &Run, holds: impl Fn(usize) -> bool) -> f64 {
    let broken = (run.shift()..run.samples.len()).rev().find(|at| !holds(*at));
    match broken {
        Some(at) if at == last(run) => f64::INFINITY,
        Some(at) => (run.samples[at + 1].at_ms - run.shifted_ms) as f64 / 1e3,
        None => 0.0,
    }
}

/// Says nothing where it had not sunk.
fn new_hot_back(run: &Run) -> Option<f64> {
    let (is_new, bytes) = (|kind| kind == Region::Cold, run.bytes(|kind| kind == Region::Cold));
    let sunk = run.away(run.shift(), is_new) * 2 > bytes;
    sunk.then(|| since_shift(run, |at| run.away(at, is_new) * 20 <= bytes))
}

#[allow(clippy::unnecessary_wraps, reason = "as the rows have it")]
fn old_hot_sunk(run: &Run) -> Option<f64> {
    let (is_old, bytes) = (|kind| kind == Region::Hot, run.bytes(|kind| kind == Region::Hot));
    Some(since_shift(run, |at| run.away(at, is_old) * 20 >= bytes * 19))
}

#[allow(clippy::unnecessary_wraps, reason = "as the rows have it")]
fn slowdown(run: &Run, counts: Counts, extra_ns: f64) -> Option<f64> {
    Some(counts.slowdown(extra_ns, run.seconds() * 1e9) * 100.0)
}

/// The run's time beside the oracle's.
#[allow(clippy::unnecessary_wraps, reason = "as the rows have it")]
fn regret(run: &Run) -> Option<f64> {
    let ns = run.seconds() * 1e9;
    let oracle = Counts { slow: run.oracle(), ..Counts::default() };
    Some((1.0 + whole(run).slowdown(150.0, ns)) / (1.0 + oracle.slowdown(150.0, ns)))
}

fn cpu(sample: &Sample) -> f64 {
    (sample.contender_us + sample.kernel_us) as f64 / 1e6 / NATIVE
}

/// Says nothing where next to nothing was moved.
fn cpu_per_mib(run: &Run) -> Option<f64> {
    let (first, last) = (&run.samples[0], &run.samples[last(run)]);
    let moved = (last.migrated - first.migrated) as f64 / MIB;
    (moved >= 1.0).then(|| (cpu(last) - cpu(first)) * 1e3 / moved)
}

fn cpu_at_rest(run: &Run) -> Option<f64> {
    let end = &run.samples[run.shift()];
    let start = run.samples.iter().rfind(|sample| sample.at_ms + 59_500 <= end.at_ms)?;
    Some((cpu(end) - cpu(start)) / ((end.at_ms - start.at_ms) as f64 / 1e3) * 100.0)
}
