//! A part of a core that work keeps to, averaged over a minute.

use core::time::Duration;

use crate::units::Instant;

/// Over so long the share holds: one costly pass delays nothing, costly passes do.
const OVER: Duration = Duration::from_mins(1);

/// CPU time spent, of one part of a core in so many.
///
/// Over any window of length `t`, no more than `(t + a minute) / part` is spent, but for the last pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuBudget {
    part: u32,
    /// What was spent and not yet earned.
    spent: Duration,
    at: Instant,
}

impl CpuBudget {
    /// Nothing spent; `part` is at least one.
    #[must_use]
    pub fn new(part: u32, now: Instant) -> Self {
        Self { part: part.max(1), spent: Duration::ZERO, at: now }
    }

    /// Takes in CPU time that a pass took, which ended now.
    pub fn spend(&mut self, cpu: Duration, now: Instant) {
        self.spent = self.spent.saturating_sub(now.since(self.at) / self.part).saturating_add(cpu);
        self.at = now;
    }

    /// For how long from the last pass on nothing is to be spent.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.spent.saturating_sub(OVER / self.part).saturating_mul(self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes of so many milliseconds of CPU time, a quarter of a second apart or as long as is to be waited: the longest wait, and what was
    /// spent of a thousandth of a core.
    fn check(passes: impl IntoIterator<Item = u64>, longest: Duration, spent_permille: u128) {
        let (mut budget, mut now, mut waited, mut spent) =
            (CpuBudget::new(200, Instant::default()), Instant::default(), Duration::ZERO, Duration::ZERO);
        for cpu in passes.into_iter().map(Duration::from_millis) {
            now = now + cpu;
            budget.spend(cpu, now);
            spent += cpu;
            waited = waited.max(budget.wait());
            now = now + budget.wait().max(Duration::from_millis(250));
        }
        assert_eq!(waited, longest);
        assert_eq!(spent.as_millis() * 1000 / now.0.as_millis(), spent_permille);
    }

    #[test]
    fn one_costly_pass_delays_nothing_and_costly_passes_are_held() {
        check((0..10_000).map(|_| 1), Duration::ZERO, 3);
        check((0..1000).map(|i| if i == 500 { 100 } else { 1 }), Duration::ZERO, 4);
        check((0..10_000).map(|_| 10), Duration::from_millis(1990), 5);
    }
}
