//! The table, as it is committed, and its bars.

use std::fmt::Write as _;

use thermocline_tests::bench::App;

use super::policy::Policy;
use super::run::{Part, Run};
use crate::bench::spread::{Spread, number};

const MIB: f64 = (1 << 20) as f64;

/// Runs without anybody who moves memory, and those with each policy.
pub(super) struct Measured {
    pub(super) unmanaged: Vec<Run>,
    /// One each of those; `None` did not come to its end.
    pub(super) managed: Vec<(Policy, Vec<Option<Run>>)>,
}

impl Measured {
    pub(super) fn all_ended(&self) -> bool {
        self.managed.iter().all(|(_, runs)| runs.iter().all(Option::is_some))
    }
}

/// A column: its name, and its value of a part beside the same part unmanaged.
type Column = (&'static str, fn(Part<'_>, Part<'_>) -> f64);

const COLUMNS: &[Column] = &[
    ("anonymous, MiB", |part, _| part.bytes() as f64 / MIB),
    ("saved, mean of the run, %", |part, _| part.saved() * 100.0),
    ("saved before the shift, %", |part, _| part.saved_before_shift() * 100.0),
    ("slow share of misses, %", |part, _| part.slow_share() * 100.0),
    ("slowdown at 100 ns, %", |part, _| part.slowdown(100.0) * 100.0),
    ("at 150 ns, %", |part, _| part.slowdown(150.0) * 100.0),
    ("at 250 ns, %", |part, _| part.slowdown(250.0) * 100.0),
    ("at 150 ns, % of its own CPU time", |part, _| part.slowdown_of_cpu(150.0) * 100.0),
    ("regret at 150 ns, x", |part, _| part.regret()),
    ("throughput, x unmanaged", |part, unmanaged| part.throughput() / unmanaged.throughput()),
    ("p99, ms", |part, _| part.p99_ms()),
    ("p99 unmanaged, ms", |_, unmanaged| unmanaged.p99_ms()),
    ("wrong data", |part, _| part.wrong() as f64),
];

/// What must hold of all applications together with a policy.
struct Bar {
    policy: Policy,
    name: &'static str,
    value: fn(Part<'_>, Part<'_>) -> f64,
    limit: Limit,
}

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

const BARS: &[Bar] = &[
    at_least(
        Policy::Default,
        "anonymous DRAM saved, mean of the run, %",
        |part, _| part.saved() * 100.0,
        30.0,
    ),
    at_most(Policy::Default, "modelled slowdown at 150 ns, %", |part, _| part.slowdown(150.0) * 100.0, 1.0),
    at_most(Policy::Default, "regret at 150 ns, x", |part, _| part.regret(), 1.15),
    at_least(
        Policy::Default,
        "throughput, x unmanaged",
        |part, free| part.throughput() / free.throughput(),
        0.99,
    ),
    at_most(Policy::Default, "wrong data", |part, _| part.wrong() as f64, 0.0),
    at_most(Policy::Latency, "modelled slowdown at 150 ns, %", |part, _| part.slowdown(150.0) * 100.0, 0.3),
    at_least(
        Policy::Latency,
        "throughput, x unmanaged",
        |part, free| part.throughput() / free.throughput(),
        0.99,
    ),
    at_most(Policy::Latency, "wrong data", |part, _| part.wrong() as f64, 0.0),
    at_most(Policy::Batch, "wrong data", |part, _| part.wrong() as f64, 0.0),
];

const fn at_least(
    policy: Policy,
    name: &'static str,
    value: fn(Part<'_>, Part<'_>) -> f64,
    limit: f64,
) -> Bar {
    Bar { policy, name, value, limit: Limit::AtLeast(limit) }
}

const fn at_most(
    policy: Policy,
    name: &'static str,
    value: fn(Part<'_>, Part<'_>) -> f64,
    limit: f64,
) -> Bar {
    Bar { policy, name, value, limit: Limit::AtMost(limit) }
}

impl Limit {
    fn text(&self) -> String {
        match self {
            Self::AtLeast(limit) => format!(">= {}", number(*limit)),
            Self::AtMost(limit) => format!("<= {}", number(*limit)),
        }
    }

    /// Whether it holds for the mean.
    fn holds(&self, value: &Spread) -> bool {
        match self {
            Self::AtLeast(limit) => value.mean >= *limit,
            Self::AtMost(limit) => value.mean <= *limit,
        }
    }
}

/// The table of all that came to their end, and whether every bar held. Bars are of all applications together: `None` of some.
pub(super) fn markdown(
    measured: &Measured,
    apps: &[&App],
    all_apps: bool,
    conditions: &str,
) -> (String, bool) {
    let mut text = conditions.to_owned();
    for app in apps {
        let _ = writeln!(text, "- `{}`: {}", app.name, app.about);
    }
    for (policy, runs) in &measured.managed {
        let _ = writeln!(text, "\n## {}\n", policy.name());
        if runs.iter().all(Option::is_none) {
            let _ = writeln!(text, "No run came to its end.");
            continue;
        }
        let names = apps.iter().map(|app| app.name).chain(["all together"]);
        let _ = writeln!(
            text,
            "| | {} |\n|---|{}",
            names.collect::<Vec<_>>().join(" | "),
            "---:|".repeat(apps.len() + 1)
        );
        for (name, value) in COLUMNS {
            let parts = (0..apps.len()).map(Some).chain([None]);
            let cells = parts.map(|app| {
                let spread = spread(measured, runs, app, *value);
                spread.map_or_else(|| "-".to_owned(), |spread| spread.text())
            });
            let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        let agent = |of: fn(&Run) -> f64| {
            Spread::of(runs.iter().flatten().map(of)).map(|spread| spread.text()).unwrap_or_default()
        };
        let _ = writeln!(
            text,
            "\nAgent and kernel threads: {} % of a native core; resident {} MiB.",
            agent(|run| run.agent_cpu() * 100.0),
            agent(|run| run.rss() as f64 / MIB)
        );
    }
    let mut all_held = true;
    if all_apps {
        let _ = writeln!(
            text,
            "\n## Bars, all together\n\n| policy | | measured | bar | |\n|---|---|---:|---:|---|"
        );
        for bar in BARS {
            let runs = measured.managed.iter().find(|(policy, _)| *policy == bar.policy);
            let Some(value) = runs.and_then(|(_, runs)| spread(measured, runs, None, bar.value)) else {
                continue;
            };
            let held = bar.limit.holds(&value);
            all_held &= held;
            let word = if held { "held" } else { "**not held**" };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {word} |",
                bar.policy.name(),
                bar.name,
                value.text(),
                bar.limit.text()
            );
        }
    }
    (text, all_held)
}

/// Each run beside the one of its number that was not managed: both were asked for the same.
fn spread(
    measured: &Measured,
    runs: &[Option<Run>],
    app: Option<usize>,
    value: fn(Part<'_>, Part<'_>) -> f64,
) -> Option<Spread> {
    let pairs = runs.iter().zip(&measured.unmanaged);
    let pairs = pairs.filter_map(|(run, unmanaged)| Some((run.as_ref()?, unmanaged)));
    Spread::of(pairs.map(|(run, unmanaged)| value(run.part(app), unmanaged.part(app))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_held_by_the_mean() {
        let value = Spread { mean: 30.0, least: 20.0, most: 40.0, runs: 3 };
        assert!(Limit::AtLeast(30.0).holds(&value) && !Limit::AtLeast(30.1).holds(&value));
        assert!(Limit::AtMost(30.0).holds(&value) && !Limit::AtMost(29.9).holds(&value));
    }
}
