//! What a world's runs say, as a table.

use std::fmt::Write as _;

use crate::host::Host;
use crate::judge::{Judged, Line, Verdict};
use crate::world::PAGE;

/// The worst of several seeds.
#[derive(Clone, Debug)]
pub struct Report {
    /// The world's name.
    pub world: String,
    /// How many seeds ran.
    pub seeds: usize,
    /// For each bar, the worst verdict, the seed of it, and of how many seeds it holds.
    pub bars: Vec<(Verdict, u64, usize)>,
    /// The laws' lines with the first seed.
    pub lines: Vec<Line>,
}

impl Report {
    /// From a world's runs, one a seed; at least one.
    #[must_use]
    pub fn of(world: &str, runs: &[Judged]) -> Self {
        let bars = (0..runs.first().map_or(0, |run| run.verdicts.len())).filter_map(|bar| {
            let held = runs.iter().filter(|run| run.verdicts[bar].holds).count();
            // A failure is worse than any success, whatever the numbers.
            let worst = runs.iter().max_by(|a, b| {
                let (a, b) = (&a.verdicts[bar], &b.verdicts[bar]);
                (!a.holds).cmp(&!b.holds).then(a.badness.total_cmp(&b.badness))
            })?;
            Some((worst.verdicts[bar].clone(), worst.seed, held))
        });
        Self {
            world: world.to_owned(),
            seeds: runs.len(),
            bars: bars.collect(),
            lines: runs.first().map_or(Vec::new(), |run| run.lines.clone()),
        }
    }

    /// Whether every bar holds with every seed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.bars.iter().all(|(verdict, ..)| verdict.holds)
    }

    /// Its lines of the table: bars, then laws.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let seeds =
            if self.seeds == 1 { "1 seed".to_owned() } else { format!("{} seeds, the worst", self.seeds) };
        let _ = writeln!(text, "{} ({seeds})", self.world);
        for (verdict, seed, held) in &self.bars {
            let state = if verdict.holds { "ok  " } else { "FAIL" };
            let of = if verdict.holds {
                String::new()
            } else {
                format!("  [holds with {held} of {}; seed {seed}]", self.seeds)
            };
            let _ =
                writeln!(text, "  {state} {}: {} (asked {}){of}", verdict.what, verdict.seen, verdict.asked);
        }
        for line in &self.lines {
            let _ = writeln!(text, "{}", law_line(line));
        }
        text
    }
}

/// One law's line.
#[must_use]
pub fn law_line(line: &Line) -> String {
    let gib = |pages: u64| (pages * PAGE) as f64 / (1_u64 << 30) as f64;
    format!(
        "       {:<18} saved {:>5.1} %  slow {:>7.3} % of accesses  regret {:>6.2}  down {:>8.1} GiB  up {:>8.1} GiB",
        line.law,
        line.regret.saved_share() * 100.0,
        line.regret.slow_share() * 100.0,
        line.regret.ratio(),
        gib(line.demoted),
        gib(line.promoted),
    )
}

/// What the law said of the first managed pods, and their minutes: in MiB, but for the age in seconds. Minutes of data that another
/// program reads begin with `minute`.
#[must_use]
pub fn explained(host: &Host) -> String {
    const PODS: usize = 4;
    let mib = |pages: u64| (pages * PAGE) >> 20;
    let mut text = String::new();
    for pod in host.pods.iter().filter(|pod| pod.managed).take(PODS) {
        for (at, words) in &pod.ledger.said {
            let _ = writeln!(text, "said {} {} s: {words}", pod.name, at.as_secs());
        }
        for (at, minute) in pod.ledger.minutes.iter().enumerate() {
            let _ = writeln!(
                text,
                "minute {} {} fast={} slow={} workingSet={} slowTouched={} answeredFor={} demoted={} promoted={} age={:.0}",
                pod.name,
                at + 1,
                mib(minute.fast),
                mib(minute.slow),
                mib(minute.working_set),
                mib(minute.slow_touched),
                mib(minute.answered_for),
                mib(minute.demoted),
                mib(minute.promoted),
                minute.age,
            );
        }
    }
    text
}
