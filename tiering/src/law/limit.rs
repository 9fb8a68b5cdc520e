//! What `memory.high` should be.
//!
//! # Problem
//! A limit bounds all tiers, demotion uncharges nothing, and at a limit the kernel throttles. A limit stepped down to a valley of a
//! sawtooth throttles its next rise; a limit below what can be uncharged throttles for nothing.
//!
//! # Approach
//! A fixed limit is stepped down below the peak of ten minutes only. `Pressure` is Senpai's law (oomd): each six seconds, or as soon as
//! tasks stalled for longer than those allow, where they stalled more than the target, `limit *= 1 + min((err / 20)^2, 1)` with `err = stalled / target`, else
//! `limit *= 1 - min((err / 10)^2 * 0.01, 0.01)` with `err = target / stalled`; never below usage by more than can be uncharged.
//!
//! # Properties
//! - `a_sawtooth_is_not_throttled`.
//! - `pressure_raises_and_calm_lowers`, `pressure_asks_for_no_more_than_can_be_uncharged`.

use core::time::Duration;

use super::sample::CgroupSample;
use crate::memory_high::Step;
use crate::units::{Bytes, Instant, Ratio};

const PEAK_HALF: Duration = Duration::from_mins(5);
const SENPAI_INTERVAL: Duration = Duration::from_secs(6);
/// A limit below usage has whoever writes it wait until so much is reclaimed.
const MOST_STEP: Bytes = Bytes::mib(256);

/// What is remembered of a cgroup's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Greatest usage of the last whole five minutes, and of those that are not over.
    peaks: (Bytes, Bytes),
    turned: Instant,
    senpai: Option<(Instant, Duration, Bytes)>,
}

impl Usage {
    pub(super) fn observe(&mut self, sample: &CgroupSample) {
        let (now, current) = (sample.at, sample.current);
        if now.since(self.turned) >= PEAK_HALF {
            self.peaks = (self.peaks.1, current);
            self.turned = now;
        }
        self.peaks.1 = self.peaks.1.max(current);
    }

    /// The greatest usage of the last five to ten minutes.
    pub(super) fn peak(&self) -> Bytes {
        self.peaks.0.max(self.peaks.1)
    }

    /// Senpai's step, of a cgroup with this much anonymous memory.
    pub(super) fn pressure(
        &mut self,
        sample: &CgroupSample,
        anon: Bytes,
        target: Ratio,
        floor: Bytes,
        page: u64,
    ) -> Step {
        let now = sample.at;
        let Some(stalled) = sample.stalls.memory else { return Step::Leave };
        let Some((at, before, value)) = self.senpai else {
            self.senpai = Some((now, stalled, sample.current.max(floor)));
            return Step::Leave;
        };
        let elapsed = now.since(at);
        let settled = |value: Bytes| match sample.limits.high_of_ours {
            Some(ours) if ours == value => Step::Settled(value),
            _ => Step::Set(value),
        };
        let stalled_us = stalled.saturating_sub(before).as_micros().max(1);
        let target_us =
            (elapsed.max(SENPAI_INTERVAL).as_micros() * u128::from(target.ppm()) / 1_000_000).max(1);
        // What stalled for longer than a whole interval allows need not wait for its end.
        if elapsed < SENPAI_INTERVAL && stalled_us <= target_us {
            return settled(value);
        }
        let parts = if stalled_us > target_us {
            let err = stalled_us * 1000 / target_us / 20;
            1_000_000 + (err * err).min(1_000_000)
        } else {
            let err = (target_us * 1000 / stalled_us / 10).min(1000);
            1_000_000 - (err * err / 100).min(10_000)
        };
        let scaled = u128::from(value.0) * parts / 1_000_000;
        let mut next = Bytes(u64::try_from(scaled).unwrap_or(u64::MAX));
        let uncharged = sample.clean_file + if sample.may_swap { anon } else { Bytes::ZERO };
        let step = Bytes(sample.current.0 / 100).min(uncharged).min(MOST_STEP);
        next = next.max(sample.current - step).max(floor).max(sample.limits.min.unwrap_or_default());
        // Above usage by a quarter, it is no limit any more, and would take long to be one again.
        next = next.min(sample.current + Bytes(sample.current.0 / 4)).max(floor).round_down(page.max(1));
        if sample.limits.high_before_us.is_some_and(|original| original <= next) {
            self.senpai = Some((now, stalled, next));
            return Step::Leave;
        }
        self.senpai = Some((now, stalled, next));
        settled(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    use crate::law::sample::Limits;
    use crate::sample::StallTotals;

    const TARGET: Ratio = match Ratio::from_ppm(1000) {
        Some(target) => target,
        None => Ratio::ZERO,
    };
    const FLOOR: Bytes = Bytes::mib(100);
    const PAGE: u64 = 4096;

    fn sample(
        second: u64,
        current: Bytes,
        clean_file: Bytes,
        stalled_ms: u64,
        ours: Option<Bytes>,
    ) -> CgroupSample {
        CgroupSample {
            at: Instant(Duration::from_secs(second)),
            current,
            clean_file,
            stalls: StallTotals { memory: Some(Duration::from_millis(stalled_ms)), io: None },
            limits: Limits { high_of_ours: ours, ..Limits::default() },
            ..CgroupSample::default()
        }
    }

    #[test]
    fn a_sawtooth_is_not_throttled() {
        let mut usage = Usage::default();
        for second in 0..3600 {
            let saw = Bytes::mib(500 + second % 240);
            usage.observe(&sample(second, saw, Bytes::ZERO, 0, None));
            assert!(second < 240 || usage.peak() >= Bytes::mib(739), "{second} s: {}", usage.peak());
        }
    }

    /// A cgroup of a GiB, half of it clean cache, that stalls so many milliseconds a second and uses what its limit leaves it; its limits.
    fn run(seconds: u64, stalls: impl Fn(Bytes) -> u64) -> Vec<Bytes> {
        let (mut usage, mut limits) = (Usage::default(), Vec::new());
        let (mut current, mut stalled, mut ours) = (Bytes::mib(1024), 0, None);
        for second in 0..seconds {
            stalled += stalls(current);
            let clean = current - Bytes::mib(512);
            let sample = sample(second, current, clean, stalled, ours);
            if let Step::Set(limit) = usage.pressure(&sample, Bytes::mib(512), TARGET, FLOOR, PAGE) {
                ours = Some(limit);
                limits.push(limit);
            }
            current = Bytes::mib(1024).min(ours.unwrap_or(Bytes::MAX));
        }
        limits
    }

    #[test]
    fn pressure_raises_and_calm_lowers() {
        let calm = run(600, |_| 0);
        assert!(calm.windows(2).all(|pair| pair[1] < pair[0]), "{calm:?}");
        let pressed = run(600, |current| if current < Bytes::mib(800) { 40 } else { 0 });
        let last = pressed[pressed.len() - 1];
        assert!((Bytes::mib(760)..Bytes::mib(900)).contains(&last), "{last}");
    }

    #[test]
    fn who_stalls_for_longer_than_an_interval_allows_is_not_made_to_wait() {
        let mut usage = Usage::default();
        let mut step = |second, stalled_ms| {
            let ours = Some(Bytes::mib(1024));
            usage.pressure(
                &sample(second, Bytes::mib(1024), Bytes::mib(512), stalled_ms, ours),
                Bytes::ZERO,
                TARGET,
                FLOOR,
                PAGE,
            )
        };
        assert_eq!(step(0, 0), Step::Leave);
        assert_eq!(step(1, 6), Step::Settled(Bytes::mib(1024)));
        assert!(matches!(step(2, 300), Step::Set(limit) if limit > Bytes::mib(1024)));
    }

    #[test]
    fn pressure_asks_for_no_more_than_can_be_uncharged() {
        let mut usage = Usage::default();
        for second in (0..600).step_by(6) {
            let sample = sample(second, Bytes::mib(1024), Bytes::ZERO, 0, None);
            if let Step::Set(limit) = usage.pressure(&sample, Bytes::mib(1024), TARGET, FLOOR, PAGE) {
                assert!(limit >= Bytes::mib(1024), "{limit}");
            }
        }
    }
}
