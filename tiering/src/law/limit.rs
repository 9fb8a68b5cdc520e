//! `memory.high` and what is reclaimed ahead of a limit.
//!
//! # Problem
//! A limit bounds all tiers, demotion uncharges nothing, and at a limit the kernel throttles. A limit stepped down to a valley of a
//! sawtooth throttles its next rise; a limit below what can be uncharged throttles for nothing.
//!
//! # Approach
//! A fixed limit is stepped down below the peak of ten minutes only. `Pressure` is Senpai's law (oomd): each six seconds, where tasks
//! stalled more than the target, `limit *= 1 + min((err / 20)^2, 1)` with `err = stalled / target`, else
//! `limit *= 1 - min((err / 10)^2 * 0.01, 0.01)` with `err = target / stalled`; never below usage by more than can be uncharged.
//! Ahead of a limit, so much is reclaimed that the growth of the next seconds fits below.
//!
//! # Properties
//! - `a_sawtooth_is_not_throttled`.
//! - `pressure_raises_and_calm_lowers`, `pressure_asks_for_no_more_than_can_be_uncharged`.
//! - `reclaim_is_ahead_of_the_limit`, `far_from_a_limit_nothing_is_reclaimed`.

use core::time::Duration;

use super::plan::Reclaim;
use super::sample::CgroupSample;
use crate::memory_high::Step;
use crate::units::{Bytes, Instant, Ratio};

const PEAK_HALF: Duration = Duration::from_mins(5);
const SENPAI_INTERVAL: Duration = Duration::from_secs(6);
/// Growth of this time is made room for.
const AHEAD: Duration = Duration::from_secs(3);

/// What is remembered of a cgroup's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Greatest usage of the last whole five minutes, and of those that are not over.
    peaks: (Bytes, Bytes),
    turned: Instant,
    /// Bytes per second, the greater of now and a fading past.
    growth: u64,
    last: Option<(Instant, Bytes)>,
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
        if let Some((at, before)) = self.last {
            let millis = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
            if let Some(growth) = (current - before).0.saturating_mul(1000).checked_div(millis) {
                self.growth = growth.max(self.growth / 4 * 3);
            }
        }
        self.last = Some((now, current));
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
        if elapsed < SENPAI_INTERVAL {
            return settled(value);
        }
        let stalled_us = stalled.saturating_sub(before).as_micros().max(1);
        let target_us = (elapsed.as_micros() * u128::from(target.ppm()) / 1_000_000).max(1);
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
        let step = Bytes(sample.current.0 / 100).min(uncharged);
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

    /// What to reclaim before usage meets a limit, of a cgroup with this much anonymous memory, and how soon to look again.
    pub(super) fn reclaim(&self, sample: &CgroupSample, anon: Bytes) -> (Option<Reclaim>, Option<Duration>) {
        let limits = sample.limits;
        let Some(limit) = [limits.high, limits.max].into_iter().flatten().min() else { return (None, None) };
        let growth = u128::from(self.growth) * AHEAD.as_millis() / 1000;
        let growth = Bytes(u64::try_from(growth).unwrap_or(u64::MAX));
        let margin = Bytes(limit.0 / 64).max(Bytes::mib(16)).max(growth).min(Bytes(limit.0 / 4));
        let near = sample.current + margin + margin > limit;
        let soon = near.then_some(Duration::from_millis(250));
        let over = sample.current + margin - limit;
        if over.is_zero() {
            return (None, soon);
        }
        let file_only = sample.clean_file >= over || !sample.may_swap;
        let most = if file_only { sample.clean_file } else { sample.clean_file + anon };
        // In bounded steps: a reclaim of gigabytes takes its caller seconds.
        let bytes = over.min(most).min(Bytes(limit.0 / 16).max(Bytes::mib(64)));
        ((!bytes.is_zero()).then_some(Reclaim { bytes, file_only }), soon)
    }
}
