//! One run of the applications: what the guest told beside what was counted.

use anyhow::{Context as _, Result, ensure};
use misses::line::{Counts, Line, Pages};
use thermocline_tests::bench::told::{AppMoment, AppsMoment, Told};
use thermocline_tests::bench::{APPS, App};

use crate::bench::counter::Counted;

/// A core at 3 GHz does twelve times as much as the guest's (docs/decisions/cpu-scaling.md).
const NATIVE: f64 = 12.0;

/// A run that came to its end.
pub(super) struct Run {
    pub(super) kernel: String,
    pub(super) apps: Vec<&'static App>,
    pub(super) moments: Vec<AppsMoment>,
    /// How many moments were before the keys that are asked for moved.
    before_shift: usize,
    /// By each application's own look at its data.
    wrong: Vec<u64>,
    /// One each moment.
    lines: Vec<Line>,
    /// By slot, the pages that missed at all.
    pages: Vec<Vec<Pages>>,
}

/// One application of a run, or all of them.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    run: &'a Run,
    /// `None`: all.
    app: Option<usize>,
}

impl Run {
    /// # Errors
    /// Where the guest failed, or anything that it told or that was counted is missing.
    pub(super) fn of(counted: Counted) -> Result<Self> {
        let mut run = Self {
            kernel: String::new(),
            apps: Vec::new(),
            moments: Vec::new(),
            before_shift: 0,
            wrong: Vec::new(),
            lines: counted.lines,
            pages: Vec::new(),
        };
        for told in counted.told {
            match told {
                Told::Began { kernel, regions, .. } => {
                    let apps = regions.iter().map(|(name, _)| App::find(name));
                    run.apps = apps.collect::<Option<_>>().context("an application that nobody knows")?;
                    run.kernel = kernel;
                }
                Told::Apps(moment) => run.moments.push(moment),
                Told::Shifted { .. } => run.before_shift = run.moments.len(),
                Told::Verified { wrong } => run.wrong = wrong,
                _ => {}
            }
        }
        let told = run.moments.len() > run.before_shift && run.before_shift > 1;
        // Wrong data are an outcome; that they were not looked at is none.
        ensure!(told && !run.wrong.is_empty(), "the guest did not tell everything");
        let whole = |moment: &AppsMoment| moment.apps.len() == run.apps.len();
        ensure!(
            run.moments.iter().all(whole) && run.wrong.len() == run.apps.len(),
            "an application is missing"
        );
        let last = run.lines.pop().context("nothing was counted")?;
        ensure!(last.mark == misses::END, "the count has no end");
        let marks: Vec<u64> = run.lines.iter().map(|line| line.mark).collect();
        let rung: Vec<u64> = run.moments.iter().map(|moment| moment.mark).collect();
        ensure!(marks == rung, "the guest rang {} times, {} were counted", rung.len(), marks.len());
        run.pages = last.pages;
        Ok(run)
    }

    /// One application of it, or all.
    pub(super) fn part(&self, app: Option<usize>) -> Part<'_> {
        Part { run: self, app }
    }

    /// Length, seconds.
    fn seconds(&self) -> f64 {
        (self.last().at_ms - self.moments[0].at_ms) as f64 / 1e3
    }

    fn last(&self) -> &AppsMoment {
        &self.moments[self.moments.len() - 1]
    }

    /// CPU of the agent and the kernel's threads, share of a native core.
    pub(super) fn agent_cpu(&self) -> f64 {
        let us = self.last().agent_us - self.moments[0].agent_us;
        us as f64 / 1e6 / NATIVE / self.seconds()
    }

    /// Resident bytes of the agent, most.
    pub(super) fn rss(&self) -> u64 {
        self.moments.iter().map(|moment| moment.rss).max().unwrap_or(0)
    }
}

impl Part<'_> {
    fn apps(self) -> std::ops::Range<usize> {
        self.app.map_or(0..self.run.apps.len(), |app| app..app + 1)
    }

    fn sum(self, at: usize, of: impl Fn(&AppMoment) -> u64) -> u64 {
        self.run.moments[at].apps[self.apps()].iter().map(of).sum()
    }

    fn during(self, of: impl Fn(&AppMoment) -> u64 + Copy) -> u64 {
        self.sum(self.run.moments.len() - 1, of) - self.sum(0, of)
    }

    /// Anonymous bytes at the end.
    pub(super) fn bytes(self) -> u64 {
        self.sum(self.run.moments.len() - 1, |app| app.fast + app.slow)
    }

    /// Anonymous bytes that are not in DRAM, by seconds.
    pub(super) fn away(self) -> Vec<(f64, u64)> {
        let at = |at: usize| (self.run.moments[at].at_ms as f64 / 1e3, self.sum(at, |app| app.slow));
        (0..self.run.moments.len()).map(at).collect()
    }

    /// Anonymous memory that is not in DRAM, mean of the run.
    pub(super) fn saved(self) -> f64 {
        self.mean_away() / self.mean_bytes()
    }

    /// The same at the end of what was before the shift.
    pub(super) fn saved_before_shift(self) -> f64 {
        let at = self.run.before_shift - 1;
        self.sum(at, |app| app.slow) as f64 / self.sum(at, |app| app.fast + app.slow).max(1) as f64
    }

    fn mean_away(self) -> f64 {
        self.mean(|app| app.slow)
    }

    fn mean_bytes(self) -> f64 {
        self.mean(|app| app.fast + app.slow).max(1.0)
    }

    fn mean(self, of: impl Fn(&AppMoment) -> u64 + Copy) -> f64 {
        let sum: u64 = (0..self.run.moments.len()).map(|at| self.sum(at, of)).sum();
        sum as f64 / self.run.moments.len() as f64
    }

    fn slots(self) -> impl Iterator<Item = usize> {
        let names = self.run.apps[self.apps()].iter().map(|app| app.name);
        names.filter_map(|name| APPS.iter().position(|app| app.name == name))
    }

    fn counted(self, from: usize, to: usize) -> Counts {
        let lines = &self.run.lines;
        let mut sum = Counts::default();
        for slot in self.slots() {
            sum += lines[to].of_slots(slot..slot + 1) - lines[from].of_slots(slot..slot + 1);
        }
        sum
    }

    fn counts(self) -> Counts {
        self.counted(0, self.run.lines.len() - 1)
    }

    /// Of the misses those to slow memory.
    pub(super) fn slow_share(self) -> f64 {
        self.counts().slow_share()
    }

    /// Of the run's time, were a slow miss so much slower.
    pub(super) fn slowdown(self, extra_ns: f64) -> f64 {
        self.counts().slowdown(extra_ns, self.run.seconds() * 1e9)
    }

    /// The same of the CPU time that the application itself had, on a native core.
    pub(super) fn slowdown_of_cpu(self, extra_ns: f64) -> f64 {
        let ns = self.during(|app| app.cpu_us) as f64 * 1e3 / NATIVE;
        self.counts().slowdown(extra_ns, ns)
    }

    /// The slowdown at each moment, over the last minute or so.
    pub(super) fn slowdowns(self, extra_ns: f64) -> Vec<(f64, f64)> {
        const STEPS: usize = 6;
        let moments = &self.run.moments;
        let at = |to: usize| {
            let from = to - STEPS;
            let ns = (moments[to].at_ms - moments[from].at_ms) as f64 * 1e6;
            (moments[to].at_ms as f64 / 1e3, self.counted(from, to).slowdown(extra_ns, ns))
        };
        (STEPS..moments.len()).map(at).collect()
    }

    /// The run's time beside the oracle's, at 150 ns.
    pub(super) fn regret(self) -> f64 {
        let pages: Vec<Pages> =
            self.slots().filter_map(|slot| self.run.pages.get(slot)).flatten().copied().collect();
        let ever: u64 = pages.iter().map(|pages| pages.pages).sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of pages")]
        let [all, slow] =
            [self.mean_bytes(), self.mean_away()].map(|bytes| (bytes / misses::PAGE as f64) as u64);
        let least = misses::oracle::least(&pages, all.max(ever), slow);
        let ns = self.run.seconds() * 1e9;
        let oracle = Counts { slow: least, ..Counts::default() };
        (1.0 + self.counts().slowdown(150.0, ns)) / (1.0 + oracle.slowdown(150.0, ns))
    }

    /// Requests answered a second of waiting for answers.
    pub(super) fn throughput(self) -> f64 {
        self.during(|app| app.requests) as f64 / (self.during(|app| app.busy_us).max(1) as f64 / 1e6)
    }

    /// 99 % of the answers took less, milliseconds; of several the longest.
    pub(super) fn p99_ms(self) -> f64 {
        let last = self.run.last();
        last.apps[self.apps()].iter().map(|app| app.p99_us).max().unwrap_or(0) as f64 / 1e3
    }

    /// Wrong answers, and what was wrong in the end.
    pub(super) fn wrong(self) -> u64 {
        self.sum(self.run.moments.len() - 1, |app| app.wrong)
            + self.run.wrong[self.apps()].iter().sum::<u64>()
    }
}
