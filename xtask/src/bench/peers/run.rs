//! One contender's run: what the guest told beside what was counted.

use anyhow::{Context as _, Result, ensure};
use misses::line::{Counts, Line, Pages};
use thermocline_tests::bench::Region;
use thermocline_tests::bench::told::{Sample, Told};

use crate::bench::counter::Counted;

/// A run that came to its end.
pub(super) struct Run {
    pub(super) kernel: String,
    pub(super) settings: String,
    pub(super) regions: Vec<(Region, u64)>,
    pub(super) samples: Vec<Sample>,
    /// When the hot set shifted, milliseconds.
    pub(super) shifted_ms: u64,
    /// How many samples were before.
    before_shift: usize,
    pub(super) wrong: u64,
    pub(super) left: Vec<String>,
    /// One each sample.
    lines: Vec<Line>,
    /// The pod's pages that missed at all.
    pages: Vec<Pages>,
}

impl Run {
    /// # Errors
    /// Where the guest failed, or anything that it told or that was counted is missing.
    pub(super) fn of(counted: Counted) -> Result<Self> {
        ensure!(counted.outcome.pass(), "the guest failed");
        let mut run = Self {
            kernel: String::new(),
            settings: String::new(),
            regions: Vec::new(),
            samples: Vec::new(),
            shifted_ms: 0,
            before_shift: 0,
            wrong: 0,
            left: Vec::new(),
            lines: counted.lines,
            pages: Vec::new(),
        };
        let (mut began, mut ended) = (false, false);
        for told in counted.told {
            match told {
                Told::Began { kernel, settings, regions } => {
                    began = true;
                    (run.kernel, run.settings) = (kernel, settings);
                    let kinds = Region::ALL.iter().map(|(kind, ..)| *kind);
                    run.regions = kinds.zip(regions).map(|(kind, (_, bytes))| (kind, bytes)).collect();
                }
                Told::Sample(sample) => run.samples.push(sample),
                Told::Shifted { at_ms } => (run.shifted_ms, run.before_shift) = (at_ms, run.samples.len()),
                Told::Ended { wrong, left, .. } => {
                    ended = true;
                    (run.wrong, run.left) = (wrong, left);
                }
                Told::Expected { .. } | Told::Apps(_) | Told::Verified { .. } | Told::Moment(_) => {}
            }
        }
        ensure!(
            began && ended && run.before_shift > 1 && run.samples.len() > run.before_shift,
            "the guest did not tell everything"
        );
        let last = run.lines.pop().context("nothing was counted")?;
        ensure!(last.mark == misses::END, "the count has no end");
        let marks: Vec<u64> = run.lines.iter().map(|line| line.mark).collect();
        let rung: Vec<u64> = run.samples.iter().map(|sample| sample.mark).collect();
        ensure!(marks == rung, "the guest rang {} times, {} were counted", rung.len(), marks.len());
        run.pages = last.pages.into_iter().take(Region::ALL.len()).flatten().collect();
        Ok(run)
    }

    /// The pod's accesses between two samples.
    pub(super) fn counts(&self, from: usize, to: usize) -> Counts {
        let slots = 0..self.regions.len();
        self.lines[to].of_slots(slots.clone()) - self.lines[from].of_slots(slots)
    }

    /// Length, seconds.
    pub(super) fn seconds(&self) -> f64 {
        (self.samples[self.samples.len() - 1].at_ms - self.samples[0].at_ms) as f64 / 1e3
    }

    /// The last sample before the hot set shifted.
    pub(super) fn shift(&self) -> usize {
        self.before_shift.saturating_sub(1)
    }

    /// Bytes of some regions.
    pub(super) fn bytes(&self, which: impl Fn(Region) -> bool) -> u64 {
        self.regions.iter().filter(|(kind, _)| which(*kind)).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of some regions that are not in DRAM at a sample.
    pub(super) fn away(&self, at: usize, which: impl Fn(Region) -> bool) -> u64 {
        let sample = &self.samples[at];
        let places = self.regions.iter().zip(sample.slow.iter().zip(&sample.swapped));
        places.filter(|((kind, _), _)| which(*kind)).map(|(_, (slow, swapped))| slow + swapped).sum()
    }

    /// The mean of that over some samples, as a share of those regions.
    pub(super) fn mean_away(
        &self,
        samples: std::ops::Range<usize>,
        which: impl Fn(Region) -> bool + Copy,
    ) -> f64 {
        let sum: u64 = samples.clone().map(|at| self.away(at, which)).sum();
        sum as f64 / samples.len().max(1) as f64 / self.bytes(which) as f64
    }

    /// Misses to slow memory that the oracle would have had, with as much there on average.
    pub(super) fn oracle(&self) -> u64 {
        let all = self.bytes(Region::counts);
        let slow = self.mean_away(0..self.samples.len(), Region::counts) * all as f64;
        let pages = self.bytes(|_| true) / misses::PAGE;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of pages")]
        let slow = (slow / misses::PAGE as f64) as u64;
        misses::oracle::least(&self.pages, pages, slow)
    }
}
