//! How much of the time a cgroup stands still, over long enough to mean something.

use core::time::Duration;

use crate::sample::StallTotals;
use crate::units::{Instant, Ratio};

/// Least window: a single stall of a millisecond in a round of a second would be 0.1 %, all that a policy allows.
const WINDOW: Duration = Duration::from_secs(10);

/// The share of the time stalled over the last one to two windows, or since the sample before if that is longer ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StallWindow {
    began: (Instant, StallTotals),
    next: (Instant, StallTotals),
}

impl StallWindow {
    /// Begins at a sample.
    pub(crate) fn new(at: Instant, totals: StallTotals) -> Self {
        Self { began: (at, totals), next: (at, totals) }
    }

    /// Shares of memory and I/O, as of this sample.
    pub(crate) fn shares(&mut self, at: Instant, totals: StallTotals) -> (Option<Ratio>, Option<Ratio>) {
        let full = at.since(self.next.0) >= WINDOW;
        if full {
            self.began = self.next;
        }
        let elapsed = at.since(self.began.0);
        let share = |now: Option<Duration>, before: Option<Duration>| {
            let stalled = now?.saturating_sub(before?);
            (!elapsed.is_zero())
                .then(|| Ratio::of_parts(stalled.as_micros(), elapsed.max(WINDOW).as_micros()))
        };
        let before = self.began.1;
        if full {
            self.next = (at, totals);
        }
        (share(totals.memory, before.memory), share(totals.io, before.io))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(memory_ms: u64) -> StallTotals {
        StallTotals { memory: Some(Duration::from_millis(memory_ms)), io: None }
    }

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    #[test]
    fn one_short_stall_is_no_pressure_and_steady_stalls_are() {
        let mut window = StallWindow::new(at(0), totals(0));
        let check =
            |share: (Option<Ratio>, Option<Ratio>), ppm| assert_eq!(share.0.map(Ratio::ppm), Some(ppm));
        check(window.shares(at(1), totals(5)), 500);
        check(window.shares(at(10), totals(5)), 500);
        check(window.shares(at(15), totals(5)), 333);
        for second in 16..60 {
            window.shares(at(second), totals(5 + (second - 15) * 10));
        }
        check(window.shares(at(60), totals(5 + 45 * 10)), 10_000);
        assert_eq!(window.shares(at(61), totals(0)).1, None, "a kernel that does not say is not stalled");
    }

    #[test]
    fn rare_samples_count_from_the_sample_before() {
        let mut window = StallWindow::new(at(0), totals(0));
        assert_eq!(window.shares(at(60), totals(600)).0.map(Ratio::ppm), Some(10_000));
        assert_eq!(window.shares(at(120), totals(600)).0.map(Ratio::ppm), Some(0), "it is over");
    }
}
