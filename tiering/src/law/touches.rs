//! The age at which a cgroup's memory is cold, from what was touched at which age.
//!
//! # Problem
//! A policy's `after` is a guess: memory that is revisited a little less often would go down and come back for ever. Nobody tells
//! us revisit periods, and they change. A nightly job must not cost a season, a log rotation not the age of 200 GiB.
//!
//! # Approach
//! Google's promotion-rate objective (software-defined far memory, ASPLOS 2019): each minute wants the least age whose touches would
//! have stayed within the allowance, a share of the working set; the age is a high percentile (98 %) of what the minutes of the last
//! day wanted, older ones fading with a half-life of half a day, and never less than what the last minute wanted. Touches on fast nodes
//! count like those on slow ones: they say what a lesser age would cost, so that the age comes down by evidence, not by trial.
//! The allowance is a share of the greatest working set of about a day.
//!
//! What is touched after having been idle for long, once, is a shift and teaches nothing; what is idle and touched again within two
//! and a half times its idle time is a period.
//!
//! # Properties
//! - `bounds`: never below `after`, never above `after_max`.
//! - `a_period_is_passed`: after two touches at an age, the age is above it, as far as `after_max` allows.
//! - `one_shift_teaches_nothing`.
//! - `a_nightly_job_costs_no_day`.
//! - `quiet_heals`: what is no longer seen is forgotten within days.

use core::time::Duration;

use super::learned::Learned;
use crate::units::{Bytes, Instant, Ratio};

/// Rungs of ages, quarters of an octave from one second to a week and more.
pub(super) const LADDER: usize = 80;

/// What one minute weighs.
const MINUTE: u32 = 1024;

/// The percentile of minutes whose wish is met.
const PERCENTILE: (u64, u64) = (98, 100);

/// A shift that begins between two walks is seen by both.
const SHIFT_WALKS: u32 = 2;

const ONE_MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// 2^(1/4) to the powers 0 to 3, in 1/1000.
const QUARTERS: [u64; 4] = [1000, 1189, 1414, 1682];

/// The age of a rung.
pub(super) fn rung(i: usize) -> Duration {
    Duration::from_millis(QUARTERS[i % 4] << (i / 4))
}

/// The lowest rung above an age.
fn above(age: Duration) -> usize {
    (0..LADDER).position(|i| rung(i) > age).unwrap_or(LADDER - 1)
}

/// Touches by age, and the age that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchLaw {
    after: Duration,
    after_max: Duration,
    /// Bytes of the minute that is not over, by the rung that would have kept them.
    touched: [u64; LADDER],
    began: Instant,
    /// Weight of the minutes that wanted each rung; the first is all that `after` satisfies.
    wanted: [u32; LADDER],
    faded: Instant,
    working_set: Bytes,
    working_set_faded: Instant,
    /// What the last minute wanted.
    last: Duration,
    /// Bytes touched per minute, in the last window, at ages that count as cold; whether a shift or not.
    passed: Bytes,
    /// The last burst of touches above the allowance.
    burst: Option<Burst>,
    comebacks: u64,
    current: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Burst {
    /// In how many closings on end.
    walks: u32,
    /// Whether it followed another.
    is_period: bool,
    ended: Instant,
    wanted: usize,
}

impl TouchLaw {
    pub(super) fn new(after: Duration, after_max: Duration, learned: Option<&Learned>, now: Instant) -> Self {
        let mut law = Self {
            after,
            after_max: after_max.max(after),
            touched: [0; LADDER],
            began: now,
            wanted: [0; LADDER],
            faded: now,
            working_set: Bytes::ZERO,
            working_set_faded: now,
            last: Duration::ZERO,
            passed: Bytes::ZERO,
            burst: None,
            comebacks: 0,
            current: after,
        };
        if let Some(learned) = learned.filter(|learned| learned.is_usable()) {
            for (weight, known) in law.wanted.iter_mut().zip(&learned.wanted) {
                *weight = (*known).min(MINUTE * 60 * 24);
            }
            law.working_set = learned.working_set();
        }
        law.settle();
        law
    }

    pub(super) fn set_bounds(&mut self, after: Duration, after_max: Duration) {
        (self.after, self.after_max) = (after, after_max.max(after));
        self.settle();
    }

    /// Memory idle for this long was touched.
    pub(super) fn touched(&mut self, age: Duration, bytes: Bytes) {
        if age >= self.after {
            let rung = &mut self.touched[above(age)];
            *rung = rung.saturating_add(bytes.0);
        }
    }

    /// What may be touched per minute at ages that count as cold. Below a huge page it is noise.
    #[must_use]
    pub fn allowance(&self, rate: Ratio) -> Bytes {
        rate.of(self.working_set).max(Bytes::mib(2))
    }

    /// After a walk: closes the minutes since the last closing, once there is one. Whether memory came back that had better stayed.
    pub(super) fn walked(&mut self, working_set: Bytes, rate: Ratio, now: Instant) -> bool {
        self.note_working_set(working_set, now);
        let elapsed = now.since(self.began);
        if elapsed < ONE_MINUTE {
            return false;
        }
        let minutes = u32::try_from(elapsed.as_secs() / 60).unwrap_or(u32::MAX).clamp(1, 60 * 24);
        let allowed = self.allowance(rate).0.saturating_mul(u64::from(minutes));
        let mut sum = 0_u64;
        let mut wants = 0;
        for i in (0..LADDER).rev() {
            sum = sum.saturating_add(self.touched[i]);
            if sum > allowed {
                wants = i;
                break;
            }
        }
        let cold_from = above(self.current);
        let passed: u64 = self.touched[cold_from..].iter().fold(0, |sum, bytes| sum.saturating_add(*bytes));
        self.passed = Bytes(passed / u64::from(minutes));
        self.touched = [0; LADDER];
        self.began = now;
        self.fade(now);
        let lesson = if wants > 0 { self.lesson(wants, elapsed, now) } else { None };
        let weighs = &mut self.wanted[lesson.unwrap_or(0)];
        *weighs = weighs.saturating_add(MINUTE.saturating_mul(minutes));
        self.last = lesson.map_or(Duration::ZERO, rung);
        let learns = lesson.is_some();
        self.comebacks += u64::from(learns);
        self.settle();
        learns
    }

    /// The rung that a burst of touches teaches, if it follows an earlier one so soon that it is the same memory's period: what either
    /// wanted. A burst that goes on from walk to walk is one, for as long as a shift shows.
    fn lesson(&mut self, wants: usize, elapsed: Duration, now: Instant) -> Option<usize> {
        let Some(burst) = self.burst else {
            self.burst = Some(Burst { walks: 1, is_period: false, ended: now, wanted: wants });
            return None;
        };
        let goes_on = now.since(burst.ended) <= elapsed + elapsed / 4;
        let wanted = wants.max(burst.wanted);
        let soon = now.since(burst.ended) <= rung(wanted).saturating_mul(5) / 2 + elapsed;
        let is_period = if goes_on { burst.is_period || burst.walks >= SHIFT_WALKS } else { soon };
        let walks = if goes_on { burst.walks.saturating_add(1) } else { 1 };
        // What was taught already does not teach once more.
        let known = if burst.is_period { wants } else { wanted };
        let kept = if goes_on { wanted } else { wants };
        self.burst = Some(Burst { walks, is_period, ended: now, wanted: kept });
        is_period.then_some(known)
    }

    fn note_working_set(&mut self, working_set: Bytes, now: Instant) {
        while now.since(self.working_set_faded) >= HOUR {
            self.working_set_faded = self.working_set_faded + HOUR;
            // Half in twelve hours.
            self.working_set -= Bytes(self.working_set.0 / 1000 * 56);
        }
        self.working_set = self.working_set.max(working_set);
    }

    fn fade(&mut self, now: Instant) {
        while now.since(self.faded) >= HOUR {
            self.faded = self.faded + HOUR;
            for weight in &mut self.wanted {
                *weight -= u32::try_from(u64::from(*weight) * 56 / 1000).unwrap_or(0);
            }
        }
    }

    fn settle(&mut self) {
        let total: u64 = self.wanted.iter().map(|weight| u64::from(*weight)).sum();
        let enough = total * PERCENTILE.0 / PERCENTILE.1;
        let mut sum = 0;
        let mut at = 0;
        for (i, weight) in self.wanted.iter().enumerate() {
            sum += u64::from(*weight);
            if sum > 0 && sum >= enough {
                at = i;
                break;
            }
        }
        let percentile = if at == 0 { Duration::ZERO } else { rung(at) };
        self.current = percentile.max(self.last).clamp(self.after, self.after_max);
    }

    /// Bytes touched per minute in the last window at ages that count as cold, wherever they were.
    #[must_use]
    pub fn passed(&self) -> Bytes {
        self.passed
    }

    /// The age.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.current
    }

    /// How often memory came back.
    #[must_use]
    pub fn comebacks(&self) -> u64 {
        self.comebacks
    }

    /// The greatest working set of about a day.
    #[must_use]
    pub fn working_set(&self) -> Bytes {
        self.working_set
    }

    pub(super) fn wanted(&self) -> &[u32] {
        let used = self.wanted.iter().rposition(|weight| *weight > 0).map_or(0, |last| last + 1);
        &self.wanted[..used]
    }
}
