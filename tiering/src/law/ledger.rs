//! Our own record of how long a cgroup's memory on one node has gone unaccessed.
//!
//! # Problem
//! The kernel keeps four generations, shared with file memory. Its own reclaim opens new ones every few seconds where a file reader
//! is at work, and then all that is older piles up in the oldest, of which the kernel can prove but seconds.
//!
//! # Approach
//! Cohorts: bytes and a moment since which they were not accessed, as far as any reading showed. A reading lists classes, each a least
//! age and bytes. Cohorts that fit into the oldest class stay what they are, the others are what the reading says; where a class holds less than they do, memory was touched, moved
//! or freed, and goes out of the youngest cohorts of that class; where it holds more, the rest is as old as the class says. So an
//! age once proven is forgotten only with the memory, and what leaves a cohort says at what age memory was touched.
//!
//! Losses can't be more than what a reading shows to be new, else they were freed. Frequent aging by the kernel hides which cohort of the
//! oldest class was touched: the youngest is the likeliest.
//!
//! There is a ledger of each cgroup on each node, and every plan reads most of them: a cohort is kept in eight bytes, by its age at the last
//! change.
//!
//! # Properties
//! - `what_is_listed_is_known`: cohorts sum to what the last reading listed.
//! - `the_kernels_own_aging_erases_nothing`: classes that shrink to seconds leave an hour's age of what they still hold.
//! - `there_are_never_more_cohorts_than_so_many`, whoever tells of them.
//! - `what_a_short_interval_merged_is_no_older_than_it_must_be`.
//! - `what_is_distrusted_is_as_old_as_listed`.
//! - `ages_are_never_less_than_listed`: at any age, at least as much as the reading itself proves.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::sample::AgeReading;
use crate::age::AgeHistogram;
use crate::units::{Bytes, Instant};

/// More cohorts than this are thinned out, the nearest in age first.
const MOST: usize = 24;

/// The kernel lists at most so many generations.
const GENERATIONS: usize = 4;

/// Milliseconds since the epoch of [`Instant`]; memory may be older than that.
type Millis = i64;

/// An interval between walks that is less than this part of the next was short: a walk for the sake of slow nodes.
const SHORT_PART: u32 = 3;

/// A hundred years: as good as for ever, and far from overflowing.
const EVER: Millis = 100 * 365 * 24 * 3600 * 1000;

/// The smallest page of any kernel.
const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cohort {
    /// Not accessed since then.
    since: Millis,
    bytes: Bytes,
}

/// A cohort as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// Milliseconds; the greatest, seven weeks, is as good as for ever.
    age: u32,
    pages: u32,
}

impl Kept {
    fn age(self) -> Millis {
        if self.age == u32::MAX { EVER } else { self.age.into() }
    }

    fn bytes(self) -> Bytes {
        Bytes(u64::from(self.pages) * PAGE)
    }

    /// Takes away what it has of this much.
    fn take(&mut self, bytes: &mut Bytes) -> Bytes {
        let part = self.bytes().min(bytes.round_down(PAGE));
        self.pages = to_pages(self.bytes() - part);
        *bytes -= part;
        part
    }
}

/// Ages of a cgroup's memory on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The cohorts, then what the last reading listed; each oldest first.
    kept: Box<[Kept]>,
    cohorts: u32,
    /// The moment as of which ages are kept.
    at: Millis,
    /// Milliseconds from the last reading, and from the last walk, until then.
    read: Option<u32>,
    walked: Option<u32>,
    /// Between the last walk and the one before.
    interval: u32,
}

impl Ledger {
    /// Takes a reading in; what it shows to have been touched is told by how long it was idle, and by how much longer it may be another time.
    /// This much was `promoted` from here by others since the last reading: what is gone for that was touched, too.
    pub(super) fn observe(
        &mut self,
        reading: &AgeReading,
        promoted: Bytes,
        now: Instant,
        mut touched: impl FnMut(Duration, Duration, Bytes),
    ) {
        let now = millis(now);
        let known: Vec<Cohort> = self.cohorts().collect();
        self.age_until(now);
        let since_last = self.read.replace(0).map(Millis::from);
        let mut is_merged = false;
        if reading.walked {
            let before = self.interval;
            self.interval = self.walked.replace(0).unwrap_or(0);
            is_merged = before > 0 && before < self.interval / SHORT_PART;
        }
        let mut classes: Vec<Cohort> = reading
            .ages
            .iter()
            .map(|(age, bytes)| Cohort { since: now - duration_millis(*age), bytes: *bytes })
            .collect();
        classes.sort_unstable_by_key(|class| class.since);
        // An engine that lists mappings lists many of one age.
        classes.dedup_by(|class, older| {
            let alike = class.since == older.since;
            older.bytes += if alike { class.bytes } else { Bytes::ZERO };
            alike
        });
        let mut next = Vec::with_capacity(known.len() + classes.len());
        let mut lost: Vec<(Millis, Bytes)> = Vec::new();
        let mut new = Bytes::ZERO;
        // Whether the kernel aged so often since the last reading that its oldest class holds all that was there then.
        let hidden = classes.len() >= GENERATIONS - 1;
        let oldest = classes.first().map(|class| now - class.since);
        let erased = since_last.is_some_and(|elapsed| oldest.is_none_or(|oldest| oldest < elapsed));
        let mut rest = known.as_slice();
        if erased && !hidden {
            lost.extend(rest.iter().map(|cohort| (cohort.since, cohort.bytes)));
            rest = &[];
        }
        for (i, class) in classes.iter().enumerate() {
            // The listing's milliseconds and ours differ a little from reading to reading.
            let tolerance = ((now - class.since) / 8).clamp(0, 1000);
            let youngest = i + 1 == classes.len();
            let fit =
                rest.iter().take_while(|cohort| youngest || cohort.since <= class.since + tolerance).count();
            let (own, younger) = rest.split_at(fit);
            rest = younger;
            let mut left = class.bytes;
            for cohort in own {
                let stays = cohort.bytes.min(left);
                left -= stays;
                if cohort.bytes > stays {
                    lost.push((cohort.since, cohort.bytes - stays));
                }
            }
            // Of all but the oldest class the listing says when it was accessed last; that one only says before when.
            if i == 0 {
                for cohort in staying(own, class.bytes - left, is_merged, now) {
                    push(&mut next, cohort);
                }
            } else {
                push(&mut next, Cohort { since: class.since, bytes: class.bytes - left });
            }
            if !left.is_zero() {
                push(&mut next, Cohort { since: class.since, bytes: left });
            }
            if since_last.is_some_and(|elapsed| now - class.since < elapsed) {
                new += left;
            }
        }
        lost.extend(rest.iter().map(|cohort| (cohort.since, cohort.bytes)));
        next.sort_unstable_by_key(|cohort| cohort.since);
        thin(&mut next, now);
        self.keep(&next, &classes);

        let all: Bytes = lost.iter().map(|(_, bytes)| *bytes).sum();
        let seen = all.min(new + promoted);
        for (since, bytes) in lost {
            let share = u128::from(bytes.0) * u128::from(seen.0) / u128::from(all.0.max(1));
            let share = Bytes(u64::try_from(share).unwrap_or(u64::MAX));
            if !share.is_zero() {
                // What a walk missed once may be missed by another, if it falls otherwise into the period.
                let idle = now - since;
                let interval = Millis::from(self.interval);
                let missed = if idle > interval / 2 * 3 { interval } else { 0 };
                touched(to_duration(idle), to_duration(missed), share);
            }
        }
    }

    /// Where no age source tells: keeps what arrived and left, so that the sum is what is there.
    pub(super) fn resize(&mut self, to: Bytes, now: Instant) {
        let total = self.total();
        if to > total {
            self.push(Cohort { since: millis(now), bytes: to - total }, now);
        } else {
            self.take_youngest(total - to);
        }
    }

    /// Memory of at least this age came here.
    pub(super) fn arrived(&mut self, bytes: Bytes, age: Duration, now: Instant) {
        let since = millis(now) - duration_millis(age);
        self.push(Cohort { since, bytes }, now);
    }

    /// The oldest memory left.
    pub(super) fn left(&mut self, bytes: Bytes) {
        let (cohorts, listed) = self.kept.split_at_mut(self.cohorts as usize);
        for list in [cohorts, listed] {
            let mut wanted = bytes;
            for kept in list {
                kept.take(&mut wanted);
            }
        }
    }

    /// Memory was touched here: of the youngest cohorts, whose age is told.
    pub(super) fn touch(&mut self, bytes: Bytes, now: Instant, mut told: impl FnMut(Duration, Bytes)) {
        self.age_until(millis(now));
        let mut left = bytes;
        for kept in self.kept[..self.cohorts as usize].iter_mut().rev() {
            let part = kept.take(&mut left);
            if !part.is_zero() {
                told(to_duration(kept.age()), part);
            }
        }
        self.push(Cohort { since: millis(now), bytes: bytes - left }, now);
    }

    /// What was taken for its oldest memory was in use: nothing is older than the last reading proves.
    pub(super) fn distrust(&mut self) {
        let (cohorts, listed) = self.kept.split_at_mut(self.cohorts as usize);
        let proven = listed.first().map_or(0, |oldest| oldest.age);
        for kept in cohorts {
            kept.age = kept.age.min(proven);
        }
    }

    /// Memory left for having been touched: the youngest.
    pub(super) fn take_youngest(&mut self, mut bytes: Bytes) {
        for kept in self.kept[..self.cohorts as usize].iter_mut().rev() {
            kept.take(&mut bytes);
        }
    }

    /// Another cohort.
    fn push(&mut self, cohort: Cohort, now: Instant) {
        if cohort.bytes.is_zero() {
            return;
        }
        self.age_until(millis(now));
        let mut cohorts: Vec<Cohort> = self.cohorts().collect();
        push(&mut cohorts, cohort);
        cohorts.sort_unstable_by_key(|cohort| cohort.since);
        thin(&mut cohorts, millis(now));
        let listed: Vec<Cohort> = self.listed().collect();
        self.keep(&cohorts, &listed);
    }

    fn age_until(&mut self, now: Millis) {
        let passed = now - self.at;
        self.at = now;
        let ages = self.kept.iter_mut().map(|kept| &mut kept.age);
        for age in ages.chain(&mut self.read).chain(&mut self.walked) {
            *age = to_age(passed + Millis::from(*age));
        }
    }

    fn keep(&mut self, cohorts: &[Cohort], listed: &[Cohort]) {
        let at = self.at;
        let some = |cohort: &&Cohort| cohort.bytes.0 >= PAGE;
        let kept = cohorts.iter().filter(some).chain(listed.iter().filter(some));
        self.kept = kept
            .map(|cohort| Kept { age: to_age(at - cohort.since), pages: to_pages(cohort.bytes) })
            .collect();
        self.cohorts = u32::try_from(cohorts.iter().filter(some).count()).unwrap_or(u32::MAX);
    }

    fn cohorts(&self) -> impl Iterator<Item = Cohort> + '_ {
        self.unpacked(&self.kept[..self.cohorts as usize])
    }

    fn listed(&self) -> impl Iterator<Item = Cohort> + '_ {
        self.unpacked(&self.kept[self.cohorts as usize..])
    }

    fn unpacked<'a>(&self, kept: &'a [Kept]) -> impl Iterator<Item = Cohort> + use<'a> {
        let at = self.at;
        let some = kept.iter().filter(|kept| kept.pages > 0);
        some.map(move |kept| Cohort { since: at - kept.age(), bytes: kept.bytes() })
    }

    /// Bytes not accessed for at least `age`.
    #[must_use]
    pub fn at_least(&self, age: Duration, now: Instant) -> Bytes {
        let least = duration_millis(age) - (millis(now) - self.at);
        let cohorts = self.kept[..self.cohorts as usize].iter();
        cohorts.take_while(|kept| kept.age() >= least).map(|kept| kept.bytes()).sum()
    }

    /// Least ages and bytes, oldest first.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = (Duration, Bytes)> + '_ {
        let now = millis(now);
        self.cohorts().map(move |cohort| (to_duration(now - cohort.since), cohort.bytes))
    }

    /// All bytes.
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.cohorts().map(|cohort| cohort.bytes).sum()
    }

    /// The greatest age at which the last reading lists at least so much: what the kernel's own listing calls this memory.
    #[must_use]
    pub fn listed_age(&self, bytes: Bytes, now: Instant) -> Duration {
        let mut sum = Bytes::ZERO;
        for class in self.listed() {
            sum += class.bytes;
            if sum >= bytes {
                return to_duration(millis(now) - class.since);
            }
        }
        Duration::ZERO
    }

    /// As a histogram.
    #[must_use]
    pub fn histogram(&self, now: Instant) -> AgeHistogram {
        AgeHistogram::new(self.entries(now))
    }
}

/// What stays of the cohorts of the oldest class, oldest first, of which so much is there still. What was touched was the youngest. But where
/// a short interval `is_merged` with the one before it, those about as old as the youngest may have been touched as well, and the rest is taken
/// to be as young as it can be.
fn staying(own: &[Cohort], mut left: Bytes, is_merged: bool, now: Millis) -> impl Iterator<Item = Cohort> {
    let youngest = own.last().map_or(0, |cohort| now - cohort.since);
    let is_alike = |cohort: &Cohort| is_merged && now - cohort.since <= youngest / 2 * 5;
    let alike = own.iter().position(is_alike).unwrap_or(own.len());
    let (older, alike) = own.split_at(alike);
    let mut stays: Vec<Cohort> = Vec::with_capacity(own.len());
    let mut take = |cohort: &Cohort| {
        let bytes = cohort.bytes.min(left);
        left -= bytes;
        Cohort { bytes, ..*cohort }
    };
    stays.extend(older.iter().map(&mut take));
    let from = stays.len();
    stays.extend(alike.iter().rev().map(take));
    stays[from..].reverse();
    stays.into_iter()
}

fn push(cohorts: &mut Vec<Cohort>, cohort: Cohort) {
    if cohort.bytes.is_zero() {
        return;
    }
    match cohorts.last_mut() {
        Some(last) if last.since == cohort.since => last.bytes += cohort.bytes,
        _ => cohorts.push(cohort),
    }
}

fn thin(cohorts: &mut Vec<Cohort>, now: Millis) {
    while cohorts.len() > MOST {
        let nearest = cohorts
            .windows(2)
            .enumerate()
            .min_by_key(|(_, pair)| (pair[1].since - pair[0].since) * 1024 / (now - pair[1].since).max(1000))
            .map_or(0, |(i, _)| i);
        let older = cohorts.remove(nearest);
        cohorts[nearest].bytes += older.bytes;
    }
}

fn to_age(millis: Millis) -> u32 {
    u32::try_from(millis.max(0)).unwrap_or(u32::MAX)
}

fn to_pages(bytes: Bytes) -> u32 {
    u32::try_from(bytes.0 / PAGE).unwrap_or(u32::MAX)
}

fn millis(at: Instant) -> Millis {
    duration_millis(at.0)
}

fn duration_millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(EVER).min(EVER)
}

fn to_duration(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    fn reading(classes: &[(u64, u64)]) -> AgeReading {
        let ages = classes.iter().map(|(age, mib)| (Duration::from_secs(*age), Bytes::mib(*mib))).collect();
        AgeReading { ages, walked: true }
    }

    /// Least ages and MiB touched.
    fn observe(ledger: &mut Ledger, second: u64, classes: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut touched = Vec::new();
        ledger.observe(&reading(classes), Bytes::ZERO, at(second), |idle, more, bytes| {
            touched.push(((idle + more).as_secs(), bytes.0 >> 20));
        });
        touched
    }

    #[test]
    fn what_a_short_interval_merged_is_no_older_than_it_must_be() {
        // 100 MiB were idle for 1000 s when a walk came early. Of what both intervals held 90 are left by the next: these, or others.
        let check = |early: u64, oldest: u64| {
            let mut ledger = Ledger::default();
            observe(&mut ledger, 1000, &[(0, 500)]);
            observe(&mut ledger, 2000, &[(1000, 100), (0, 400)]);
            observe(&mut ledger, early, &[(early - 1000, 100), (early - 2000, 300), (0, 100)]);
            observe(&mut ledger, early + 1000, &[(early - 1000, 90), (1000, 10), (0, 400)]);
            let oldest_known = ledger.entries(at(early + 1000)).next().unwrap();
            assert_eq!(oldest_known, (Duration::from_secs(oldest), Bytes::mib(90)), "{early}");
        };
        check(3000, 3000);
        check(2100, 1100);
    }

    #[test]
    fn what_is_distrusted_is_as_old_as_listed() {
        let mut ledger = Ledger::default();
        observe(&mut ledger, 1000, &[(1000, 10), (30, 5), (0, 20)]);
        // The kernel's own aging: what is an hour old by now is listed as a minute old.
        observe(&mut ledger, 3600, &[(60, 10), (30, 5), (0, 20)]);
        let older = |ledger: &Ledger, seconds| ledger.at_least(Duration::from_secs(seconds), at(3600));
        assert_eq!(older(&ledger, 3500), Bytes::mib(10));
        ledger.distrust();
        assert_eq!((older(&ledger, 61), older(&ledger, 60)), (Bytes::ZERO, Bytes::mib(10)));
        assert_eq!(ledger.total(), Bytes::mib(35));
    }

    #[test]
    fn what_is_listed_is_known() {
        let mut ledger = Ledger::default();
        for (second, classes) in [(0, [(90, 300), (30, 40), (0, 10)]), (60, [(150, 200), (60, 90), (0, 80)])]
        {
            observe(&mut ledger, second, &classes);
            assert_eq!(ledger.total(), classes.iter().map(|(_, mib)| Bytes::mib(*mib)).sum());
        }
    }

    #[test]
    fn ages_are_never_less_than_listed() {
        let mut ledger = Ledger::default();
        let mut seed = 1_u64;
        for second in (0..6000).step_by(60) {
            let mut next = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 33
            };
            let classes =
                [(120 + next() % 60, next() % 500), (60 + next() % 50, next() % 500), (0, next() % 500)];
            observe(&mut ledger, second, &classes);
            let listed = AgeHistogram::new(reading(&classes).ages);
            for age in [0, 30, 60, 100, 120, 150].map(Duration::from_secs) {
                assert!(ledger.at_least(age, at(second)) >= listed.at_least(age), "{age:?} at {second} s");
            }
        }
    }

    #[test]
    fn the_kernels_own_aging_erases_nothing() {
        let mut ledger = Ledger::default();
        observe(&mut ledger, 0, &[(3600, 800), (60, 100), (0, 100)]);
        // A file reader opens a generation every two seconds: all that is older is six seconds old, as far as the kernel can prove.
        for second in (60..600).step_by(60) {
            observe(&mut ledger, second, &[(6, 850), (4, 50), (2, 50), (0, 50)]);
        }
        assert!(ledger.at_least(Duration::from_hours(1), at(600)) >= Bytes::mib(800));
    }

    #[test]
    fn what_is_touched_is_told_by_its_age() {
        let mut ledger = Ledger::default();
        observe(&mut ledger, 0, &[(600, 300), (0, 100)]);
        // 40 MiB of what was idle for ten minutes, and all that is hot.
        let touched = observe(&mut ledger, 60, &[(660, 260), (60, 0), (0, 140)]);
        // An interval more than at the last walk: another walk may miss it once more.
        assert_eq!(touched, [(720, 40), (60, 100)]);
        assert_eq!(ledger.at_least(Duration::from_mins(10), at(60)), Bytes::mib(260));
    }

    #[test]
    fn what_is_freed_was_not_touched() {
        let mut ledger = Ledger::default();
        observe(&mut ledger, 0, &[(600, 300), (0, 0)]);
        assert_eq!(observe(&mut ledger, 60, &[(660, 100), (60, 0), (0, 0)]), []);
    }

    #[test]
    fn what_is_old_without_end_is_merged_like_the_rest() {
        let mut ledger = Ledger::default();
        for seconds in 0..200_u64 {
            ledger.arrived(Bytes::mib(1), Duration::from_secs(seconds * seconds), at(seconds));
            ledger.arrived(Bytes::mib(1), Duration::MAX, at(seconds));
        }
        assert_eq!(ledger.total(), Bytes::mib(400));
        assert_eq!(ledger.at_least(Duration::from_hours(24 * 365), at(200)), Bytes::mib(200));
    }

    #[test]
    fn there_are_never_more_cohorts_than_so_many() {
        let mut ledger = Ledger::default();
        for minute in 0..10_000_u64 {
            let now = Instant(Duration::from_mins(minute));
            ledger.resize(Bytes::mib(64 + 3 * minute), now);
            ledger.touch(Bytes::mib(minute % 3), now, |_, _| ());
            if minute.is_multiple_of(5) {
                ledger.arrived(Bytes::mib(1), Duration::from_secs(minute), now);
            }
            assert!(ledger.kept.len() <= MOST, "{} after {minute} minutes", ledger.kept.len());
        }
    }

    #[test]
    fn mappings_that_are_used_alike_are_not_touched_twice() {
        let mut ledger = Ledger::default();
        let mut told = Vec::new();
        // Two hot mappings, one warm, and one cold that sinks step by step.
        let mut cold = 224;
        for tick in 0..40_u64 {
            let now = Duration::from_millis(10_000 * tick / 4);
            let walked = Duration::from_secs(now.as_secs() / 10 * 10);
            let hot = now.saturating_sub(walked);
            let ages = [
                (hot, 0),
                (hot, 48),
                (hot, 32),
                (hot, 32),
                (hot, 32),
                (now, cold / 3),
                (now, cold - cold / 3),
            ];
            let ages = ages.iter().map(|(age, mib)| (*age, Bytes::mib(*mib))).collect();
            let reading = AgeReading { ages, walked: hot.is_zero() };
            let now = Instant(now);
            ledger.observe(&reading, Bytes::ZERO, now, |idle, more, bytes| {
                if idle + more >= Duration::from_secs(20) {
                    told.push((tick, idle, bytes));
                }
            });
            if tick > 8 {
                let step = cold.min(16);
                ledger.left(Bytes::mib(step));
                cold -= step;
            }
        }
        assert_eq!(told, []);
    }
}
