//! The age at which a cgroup's memory is cold, from what was touched at which age.
//!
//! # Problem
//! A policy's `after` is a guess: memory that is revisited a little less often would go down and come back for ever. Nobody tells
//! us revisit periods, and they change. A nightly job must not cost a season, a log rotation not the age of 200 GiB.
//!
//! # Approach
//! Google's promotion-rate objective (software-defined far memory, ASPLOS 2019): each minute wants the least age whose touches would
//! have stayed within the allowance, a share of the working set; the age is a high percentile (98 %) of what the minutes of the last
//! day wanted, older ones fading with a half-life of a day, and never less than what the last minute wanted. Touches on fast nodes
//! count like those on slow ones: they say what a lesser age would cost, so that the age comes down by evidence, not by trial.
//! The allowance is a share of the greatest working set of about a day.
//!
//! What is touched after having been idle for long, once, is a shift and teaches nothing; what is idle and touched again within two
//! and a half times its idle time is a period. What was idle for longer than `after_max` is cold by the policy's own word: no age that is
//! allowed would have kept it, and it teaches nothing either.
//!
//! # Properties
//! - `bounds`: never below `after`, never above `after_max`.
//! - `a_period_is_passed`: after two touches at an age, the age is above it, as far as `after_max` allows.
//! - `one_shift_teaches_nothing`.
//! - `a_nightly_job_costs_no_day`.
//! - `quiet_heals`: what is no longer seen is forgotten within days.
//! - `a_set_that_is_touched_at_once_is_no_average`: walks that are far apart do not hide it behind quiet minutes.
//! - `what_an_age_may_have_kept_teaches`, though walks can't tell its idle time better than by their interval.

use alloc::vec::Vec;
use core::time::Duration;

use super::learned::Learned;
use crate::units::{Bytes, Instant, Ratio};

/// Rungs of ages, quarters of an octave from one second to a week and more.
pub(super) const LADDER: usize = 80;

/// What one minute weighs.
const MINUTE: u32 = 1024;

/// The percentile of minutes whose wish is met.
const PERCENTILE: (u64, u64) = (98, 100);

/// What is touched in a window of many minutes may have been touched in few of them: no more than so many minutes' allowance is taken to
/// have been for it.
const MINUTES_AT_ONCE: u32 = 4;

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
    /// What was touched in the minute that is not over, by rung: most cgroups touch nothing that is of interest here.
    touched: Vec<OnRung>,
    began: Instant,
    /// Weight of the minutes that wanted each rung; the first is all that `after` satisfies.
    wanted: Vec<u32>,
    faded: Instant,
    working_set: Bytes,
    working_set_faded: Instant,
    /// What the last minute wanted.
    last: Duration,
    /// Bytes touched per minute, in the last window, at ages that count as cold; whether a shift or not.
    passed: Bytes,
    /// Of what had been idle for `after`, touched per minute, fading; and how much was idle so.
    idle: (Bytes, Bytes),
    /// The last burst of touches above the allowance.
    burst: Option<Burst>,
    comebacks: u64,
    current: Duration,
}

/// What was touched that an age of this rung would have kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OnRung {
    rung: usize,
    bytes: u64,
    /// The seconds for which the least idle of it had been idle.
    least_idle: u32,
}

/// What a closing wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    rung: usize,
    /// How long what it is for had been idle.
    idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Burst {
    /// In how many closings on end.
    walks: u32,
    /// Whether it followed another.
    is_period: bool,
    ended: Instant,
    wanted: Wanted,
    /// Touched in the last of them at ages of `after` and more.
    bytes: u64,
}

impl TouchLaw {
    pub(super) fn new(after: Duration, after_max: Duration, learned: Option<&Learned>, now: Instant) -> Self {
        let mut law = Self {
            after,
            after_max: after_max.max(after),
            touched: Vec::new(),
            began: now,
            wanted: Vec::new(),
            faded: now,
            working_set: Bytes::ZERO,
            working_set_faded: now,
            last: Duration::ZERO,
            passed: Bytes::ZERO,
            idle: (Bytes::ZERO, Bytes::ZERO),
            burst: None,
            comebacks: 0,
            current: after,
        };
        if let Some(learned) = learned.filter(|learned| learned.is_usable()) {
            law.wanted = learned.wanted.iter().map(|known| (*known).min(MINUTE * 60 * 24)).collect();
            law.working_set = learned.working_set();
        }
        law.settle();
        law
    }

    pub(super) fn set_bounds(&mut self, after: Duration, after_max: Duration) {
        (self.after, self.after_max) = (after, after_max.max(after));
        self.settle();
    }

    /// Memory idle for this long was touched, at any time of the last `window`; it may be idle for so much `more` another time. That counts for
    /// what went down or would have: where the age was enough, it is no reason for a longer one.
    pub(super) fn touched(&mut self, idle: Duration, more: Duration, window: Duration, bytes: Bytes) {
        let age = if idle > self.current + more / 2 { idle + more } else { idle };
        if age < self.after {
            return;
        }
        // Of what an age that is allowed could have kept, the rung is such an age.
        let could_keep = idle.saturating_sub(window) <= self.after_max;
        let rung = above(if could_keep { age.min(self.after_max) } else { age });
        let i = match self.touched.binary_search_by_key(&rung, |on| on.rung) {
            Ok(i) => i,
            Err(i) => {
                self.touched.insert(i, OnRung { rung, bytes: 0, least_idle: u32::MAX });
                i
            }
        };
        let on = &mut self.touched[i];
        on.bytes = on.bytes.saturating_add(bytes.0);
        on.least_idle = on.least_idle.min(u32::try_from(idle.as_secs()).unwrap_or(u32::MAX));
    }

    /// What may be touched per minute at ages that count as cold. Below a huge page it is noise.
    #[must_use]
    pub fn allowance(&self, rate: Ratio) -> Bytes {
        rate.of(self.working_set).max(Bytes::mib(2))
    }

    /// After a walk, which found this much in use and this much `idle` for `after`: closes the minutes since the last closing, once there is one. Whether memory came back that had better stayed.
    pub(super) fn walked(&mut self, working_set: Bytes, idle: Bytes, rate: Ratio, now: Instant) -> bool {
        self.note_working_set(working_set, now);
        let elapsed = now.since(self.began);
        if elapsed < ONE_MINUTE {
            return false;
        }
        let minutes = u32::try_from(elapsed.as_secs() / 60).unwrap_or(u32::MAX).clamp(1, 60 * 24);
        let allowed = self.allowance(rate).0.saturating_mul(u64::from(minutes.min(MINUTES_AT_ONCE)));
        let mut sum = 0_u64;
        let mut wants = None;
        let most = above(self.after_max);
        for on in self.touched.iter().rev().filter(|on| on.rung <= most) {
            sum = sum.saturating_add(on.bytes);
            if sum > allowed {
                let idle = Duration::from_secs(u64::from(on.least_idle));
                wants = Some(Wanted { rung: on.rung, idle });
                break;
            }
        }
        let cold_from = above(self.current);
        let from = |least: usize| {
            let on = self.touched.iter().filter(|on| on.rung >= least);
            on.fold(0_u64, |sum, on| sum.saturating_add(on.bytes)) / u64::from(minutes)
        };
        let all = from(0);
        self.passed = Bytes(from(cold_from));
        self.idle = (Bytes(all.max(self.idle.0.0 / 4 * 3)), idle);
        self.touched = Vec::new();
        self.began = now;
        self.fade(now);
        let bytes = all.saturating_mul(u64::from(minutes));
        let lesson = wants.and_then(|wants| self.lesson(wants, bytes, elapsed, now));
        let (at, before) = lesson.unwrap_or((0, 0));
        if self.wanted.len() <= at {
            self.wanted.resize(at + 1, 0);
        }
        let weighs = &mut self.wanted[at];
        *weighs = weighs.saturating_add(MINUTE.saturating_mul(minutes.saturating_add(before)));
        self.last = lesson.map_or(Duration::ZERO, |(at, _)| rung(at));
        let learns = lesson.is_some();
        self.comebacks += u64::from(learns);
        self.settle();
        learns
    }

    /// The rung that a burst of touches teaches, if it follows an earlier one so soon that it is the same memory's period: what either
    /// wanted, and in how many minutes before, which were taken for a shift's.
    ///
    /// A burst that goes on from walk to walk, ever less, is a shift that comes up. Memory that has been idle for longer than the time since an earlier
    /// burst was not touched in it.
    fn lesson(&mut self, wants: Wanted, bytes: u64, elapsed: Duration, now: Instant) -> Option<(usize, u32)> {
        let Some(burst) = self.burst else {
            self.burst = Some(Burst { walks: 1, is_period: false, ended: now, wanted: wants, bytes });
            return None;
        };
        let gap = now.since(burst.ended);
        let goes_on = gap <= elapsed + elapsed / 4;
        let seen_before = |wants: Wanted| wants.idle <= gap + elapsed * 2;
        let wanted = if (goes_on || seen_before(burst.wanted)) && burst.wanted.rung > wants.rung {
            burst.wanted
        } else {
            wants
        };
        let is_period = if goes_on {
            let less = bytes < burst.bytes / 8 * 5;
            burst.is_period || (burst.walks >= SHIFT_WALKS && !less)
        } else {
            gap <= rung(wanted.rung).saturating_mul(5) / 2 + elapsed && seen_before(wants)
        };
        let walks = if goes_on { burst.walks.saturating_add(1) } else { 1 };
        // What was taught already does not teach once more.
        let lesson = if burst.is_period { (wants.rung, 0) } else { (wanted.rung, burst.walks) };
        let kept = if goes_on { wanted } else { wants };
        self.burst = Some(Burst { walks, is_period, ended: now, wanted: kept, bytes });
        is_period.then_some(lesson)
    }

    fn note_working_set(&mut self, working_set: Bytes, now: Instant) {
        while now.since(self.working_set_faded) >= HOUR {
            self.working_set_faded = self.working_set_faded + HOUR;
            // Half in a day.
            self.working_set -= Bytes(self.working_set.0 / 1000 * 28);
        }
        self.working_set = self.working_set.max(working_set);
    }

    fn fade(&mut self, now: Instant) {
        while now.since(self.faded) >= HOUR {
            self.faded = self.faded + HOUR;
            for weight in &mut self.wanted {
                *weight -= u32::try_from(u64::from(*weight) * 28 / 1000).unwrap_or(0);
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

    /// How much may sink so that its touches stay within `allowed`, if it is touched as what is idle for `after` is, but the more rarely the older
    /// it is.
    pub(super) fn foreseen(&self, allowed: Bytes) -> Bytes {
        let (touched, idle) = self.idle;
        if touched <= allowed {
            return Bytes::MAX;
        }
        let ages = self.current.as_millis() / self.after.as_millis().max(1);
        let most = u128::from(allowed.0) * u128::from(idle.0) / u128::from(touched.0) * ages.max(1);
        Bytes(u64::try_from(most).unwrap_or(u64::MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_mins(2);
    const MAX: Duration = Duration::from_mins(32);
    const WORKING_SET: Bytes = Bytes::mib(10 << 10);
    const DAY: u64 = 24 * 3600;

    fn rate() -> Ratio {
        Ratio::of_parts(2, 1000)
    }

    /// A cgroup walked each minute; `touches` says at which age, in seconds, and how many MiB are touched in the minute before.
    fn run(
        days: u64,
        mut touches: impl FnMut(u64) -> Option<(u64, u64)>,
        mut each: impl FnMut(u64, &TouchLaw),
    ) {
        let mut law = TouchLaw::new(AFTER, MAX, None, Instant::default());
        for second in (60..=days * DAY).step_by(60) {
            if let Some((age, mib)) = touches(second) {
                law.touched(Duration::from_secs(age), Duration::ZERO, Duration::ZERO, Bytes::mib(mib));
            }
            law.walked(WORKING_SET, Bytes::ZERO, rate(), Instant(Duration::from_secs(second)));
            each(second, &law);
        }
    }

    #[test]
    fn bounds() {
        let all_ages = |second: u64| Some((second * 7919 % 100_000, second % 3000));
        run(2, all_ages, |second, law| assert!((AFTER..=MAX).contains(&law.age()), "{second} s"));
        run(2, |_| None, |second, law| assert_eq!(law.age(), AFTER, "{second} s"));
    }

    #[test]
    fn a_period_is_passed() {
        for minutes in [3, 5, 10, 20] {
            let period = minutes * 60;
            let touches = |second: u64| second.is_multiple_of(period).then_some((period, 500));
            run(1, touches, |second, law| {
                if second >= 2 * period {
                    assert!(law.age() > Duration::from_secs(period), "{period} s at {second} s");
                }
            });
        }
    }

    #[test]
    fn one_shift_teaches_nothing() {
        // What is hot from then on is found bit by bit, ever less of it.
        let shift = |second: u64| match second.checked_sub(7200)? / 60 {
            0 => Some((3600, 1000)),
            minute @ 1..8 => Some((3600 + minute * 60, 6000 >> minute)),
            _ => None,
        };
        run(1, shift, |second, law| assert_eq!(law.age(), AFTER, "{second} s"));
    }

    #[test]
    fn a_nightly_job_costs_no_day() {
        // Twenty minutes each night in which all that sank in the day is touched.
        let night =
            |second: u64| ((DAY / 2..DAY / 2 + 20 * 60).contains(&(second % DAY))).then_some((DAY, 500));
        run(4, night, |second, law| {
            // In the first days a job is a greater part of what is known; half a day later it is none.
            if !(DAY / 2..DAY).contains(&(second % DAY)) {
                assert_eq!(law.age(), AFTER, "{second} s");
            }
        });
    }

    #[test]
    fn quiet_heals() {
        let for_a_day = |second: u64| (second < DAY && second.is_multiple_of(600)).then_some((600, 500));
        run(8, for_a_day, |second, law| {
            if second > 4 * DAY {
                assert_eq!(law.age(), AFTER, "{second} s");
            }
        });
    }

    /// A set of 300 MiB that is touched every half hour and walked each quarter of one, idle at each touch for so long as two walks tell.
    fn walked_seldom(idle: u64, window: u64) -> TouchLaw {
        let mut law = TouchLaw::new(AFTER, MAX, None, Instant::default());
        for walk in 1..=20 {
            if walk % 2 == 0 {
                let [idle, window] = [idle, window].map(Duration::from_secs);
                law.touched(idle, Duration::ZERO, window, Bytes::mib(300));
            }
            law.walked(WORKING_SET, Bytes::ZERO, rate(), Instant(Duration::from_mins(15 * walk)));
        }
        law
    }

    #[test]
    fn a_set_that_is_touched_at_once_is_no_average() {
        // 300 MiB are less than 20 MiB for each of fifteen minutes, and came in one.
        let law = walked_seldom(30 * 60, 15 * 60);
        assert!(law.allowance(rate()).0 * 15 > 300 << 20);
        assert!(law.age() > Duration::from_mins(30), "{:?}", law.age());
    }

    #[test]
    fn what_an_age_may_have_kept_teaches() {
        let check = |idle, window, age| assert_eq!(walked_seldom(idle, window).age(), age, "{idle} {window}");
        check(40 * 60, 15 * 60, MAX);
        check(40 * 60, 0, AFTER);
        check(60 * 60, 15 * 60, AFTER);
    }

    #[test]
    fn what_is_within_the_allowance_is_no_touch() {
        run(1, |_| Some((1000, 20)), |_, law| assert_eq!(law.age(), AFTER));
    }

    #[test]
    fn what_was_learned_counts_for_a_replica() {
        let mut learned = None;
        let touches = |second: u64| second.is_multiple_of(600).then_some((600, 500));
        run(1, touches, |_, law| learned = Some(Learned::of(law, Duration::from_secs(DAY))));
        let replica = TouchLaw::new(AFTER, MAX, learned.as_ref(), Instant::default());
        assert!(replica.age() > Duration::from_mins(10));
        let other = learned.map(|learned| Learned { version: 0, ..learned });
        assert_eq!(TouchLaw::new(AFTER, MAX, other.as_ref(), Instant::default()).age(), AFTER);
    }
}
