//! Who gives up DRAM of one node where it is short: the coldest first, whoever has it.
//!
//! # Problem
//! Several cgroups share a fast node. What the host misses should come from memory that nobody misses.
//!
//! # Approach
//! Each cgroup offers what it may give up by age: its histogram without what is bound and without what its floor keeps, both taken from
//! the ends where they lie: bound memory is the oldest, the floor keeps the youngest. A level of age is lowered over all offers at
//! once until the shortfall is met (a fractional knapsack); at the last level, all give in proportion. A weight scales age:
//! memory of weight 200 must be twice as old to be as cold as that of weight 100.
//!
//! Levels are rungs of a quarter octave: one pass over all cohorts fills the rungs, one pass down them finds the level.
//!
//! # Properties
//! - `coldest_first`: nobody gives memory while another keeps memory that is a rung older, but for floors, weights and bound memory.
//! - `floors_hold`, `nobody_gives_what_is_younger_than_allowed`.
//! - `conservation`: what is given is the shortfall, or all that is offered.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::touches::{LADDER, rung};
use crate::units::Bytes;

/// What one cgroup may give up on a node.
#[derive(Debug)]
pub(super) struct Offer<E> {
    /// Least ages and bytes, oldest first.
    pub(super) entries: E,
    /// Does not move: of the oldest.
    pub(super) bound: Bytes,
    /// At most this much: what is above the floor, and what its targets have room for.
    pub(super) most: Bytes,
    /// Nothing younger.
    pub(super) least_age: Duration,
    /// Scales age; 100 leaves it as it is.
    pub(super) weight: u32,
}

/// What one cgroup gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) bytes: Bytes,
    /// The age of the youngest of it.
    pub(super) least_age: Duration,
}

/// What is given of a shortfall.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// In the order of the offers.
    pub(super) given: Vec<Given>,
    /// What nobody has.
    pub(super) unmet: Bytes,
    /// Age of the level at which it ended, of weight 100.
    pub(super) level: Option<Duration>,
}

/// One step of an offer: bytes on a rung.
#[derive(Clone, Copy, Debug)]
struct Step {
    offer: u32,
    rung: u32,
    bytes: Bytes,
    age: Duration,
}

/// What all may give up on a node, in steps: each cgroup's ages are read once.
#[derive(Debug, Default)]
pub(super) struct Offers {
    steps: Vec<Step>,
    count: u32,
}

impl Offers {
    pub(super) fn add(&mut self, offer: Offer<impl Iterator<Item = (Duration, Bytes)>>) {
        let index = self.count;
        self.count += 1;
        let (mut bound, mut most) = (offer.bound, offer.most);
        for (age, bytes) in offer.entries {
            if age < offer.least_age || most.is_zero() {
                break;
            }
            let stuck = bytes.min(bound);
            bound -= stuck;
            let bytes = (bytes - stuck).min(most);
            if bytes.is_zero() {
                continue;
            }
            most -= bytes;
            let scaled =
                if offer.weight == 100 { age } else { age.saturating_mul(100) / offer.weight.max(1) };
            self.steps.push(Step { offer: index, rung: at(scaled), bytes, age });
        }
    }

    /// The shortfall, taken coldest first; of each offer no more than `most` by now.
    pub(super) fn fill(mut self, shortfall: Bytes, most: impl Fn(usize) -> Bytes) -> Filled {
        let mut given = vec![Given::default(); self.count as usize];
        if shortfall.is_zero() {
            return Filled { given, unmet: Bytes::ZERO, level: None };
        }
        let mut on_rung = [Bytes::ZERO; LADDER + 1];
        let mut oldest = 0;
        for of_one in self.steps.chunk_by_mut(|a, b| a.offer == b.offer) {
            let mut most = most(of_one[0].offer as usize);
            for step in of_one {
                step.bytes = step.bytes.min(most);
                most -= step.bytes;
                on_rung[step.rung as usize] += step.bytes;
                oldest = oldest.max(step.rung as usize);
            }
        }
        let mut missing = shortfall;
        let mut level = 0;
        for i in (0..=oldest).rev() {
            level = i;
            if on_rung[i] >= missing {
                break;
            }
            missing -= on_rung[i];
        }
        let (last, whole) = (on_rung[level], on_rung[level] <= missing);
        let mut left = missing;
        for step in &self.steps {
            let take = match (step.rung as usize).cmp(&level) {
                core::cmp::Ordering::Less => continue,
                core::cmp::Ordering::Greater => step.bytes,
                core::cmp::Ordering::Equal if whole => step.bytes,
                core::cmp::Ordering::Equal => {
                    let share = u128::from(step.bytes.0) * u128::from(missing.0);
                    let share = share.div_ceil(u128::from(last.0.max(1)));
                    Bytes(u64::try_from(share).unwrap_or(u64::MAX)).min(left).min(step.bytes)
                }
            };
            if step.rung as usize == level {
                left -= take;
            }
            if !take.is_zero() {
                let given = &mut given[step.offer as usize];
                given.bytes += take;
                given.least_age = step.age;
            }
        }
        let unmet = shortfall - given.iter().map(|given| given.bytes).sum();
        let age = if level == 0 { Duration::ZERO } else { rung(level - 1) };
        Filled { given, unmet, level: Some(age) }
    }
}

/// The shortfall, taken coldest first.
pub(super) fn fill<E>(offers: impl Iterator<Item = Offer<E>>, shortfall: Bytes) -> Filled
where
    E: Iterator<Item = (Duration, Bytes)>,
{
    let mut all = Offers { steps: Vec::with_capacity(32), count: 0 };
    offers.for_each(|offer| all.add(offer));
    all.fill(shortfall, |_| Bytes::MAX)
}

/// The rung of an age: 0 below one second, then the number of rungs that are not above it.
fn at(age: Duration) -> u32 {
    let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let seconds = millis / 1000;
    if seconds == 0 {
        return 0;
    }
    let octave = seconds.ilog2().min(19);
    let base = 1000 << octave;
    let quarter =
        [1189, 1414, 1682].iter().filter(|factor| millis.saturating_mul(1000) >= base * **factor).count();
    octave * 4 + u32::try_from(quarter).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Duration = Duration::ZERO;

    fn offer(entries: &[(u64, u64)]) -> Offer<impl Iterator<Item = (Duration, Bytes)> + '_> {
        let entries = entries.iter().map(|(age, mib)| (Duration::from_secs(*age), Bytes::mib(*mib)));
        Offer { entries, bound: Bytes::ZERO, most: Bytes::MAX, least_age: ANY, weight: 100 }
    }

    fn given(filled: &Filled) -> Vec<u64> {
        filled.given.iter().map(|given| given.bytes.0 >> 20).collect()
    }

    #[test]
    fn coldest_first() {
        let offers = || [offer(&[(300, 50), (10, 100)]), offer(&[(200, 50), (100, 100)])].into_iter();
        assert_eq!(given(&fill(offers(), Bytes::mib(40))), [40, 0]);
        assert_eq!(given(&fill(offers(), Bytes::mib(90))), [50, 40]);
        assert_eq!(given(&fill(offers(), Bytes::mib(250))), [100, 150]);
        // At one age, in proportion to what each has.
        let alike = [offer(&[(100, 300)]), offer(&[(100, 100)])].into_iter();
        assert_eq!(given(&fill(alike, Bytes::mib(100))), [75, 25]);
    }

    #[test]
    fn conservation() {
        for shortfall in [0, 1, 77, 200, 250, 1000] {
            let offers = [offer(&[(300, 50), (10, 100)]), offer(&[(200, 50)])].into_iter();
            let filled = fill(offers, Bytes::mib(shortfall));
            let sum: Bytes = filled.given.iter().map(|given| given.bytes).sum();
            assert_eq!((sum, sum + filled.unmet), (Bytes::mib(shortfall.min(200)), Bytes::mib(shortfall)));
        }
    }

    /// What one gives of 50 MiB of 300 s and 50 of 200 s.
    fn one_gives(how: impl Fn(&mut Bytes, &mut Bytes, &mut Duration)) -> u64 {
        let mut one = offer(&[(300, 50), (200, 50)]);
        how(&mut one.most, &mut one.bound, &mut one.least_age);
        given(&fill([one].into_iter(), Bytes::mib(100)))[0]
    }

    #[test]
    fn floors_hold() {
        assert_eq!(one_gives(|most, _, _| *most = Bytes::mib(30)), 30);
        assert_eq!(one_gives(|_, bound, _| *bound = Bytes::mib(60)), 40);
    }

    #[test]
    fn nobody_gives_what_is_younger_than_allowed() {
        assert_eq!(one_gives(|_, _, least_age| *least_age = Duration::from_secs(250)), 50);
        assert_eq!(one_gives(|_, _, least_age| *least_age = Duration::from_secs(301)), 0);
    }

    #[test]
    fn weights_scale_ages() {
        let heavy = Offer { weight: 300, ..offer(&[(300, 50)]) };
        assert_eq!(given(&fill([heavy, offer(&[(200, 50)])].into_iter(), Bytes::mib(50))), [0, 50]);
    }

    #[test]
    fn rungs_are_in_order() {
        for i in 0..LADDER - 1 {
            assert_eq!(at(rung(i)) as usize, i + 1, "{:?}", rung(i));
        }
        assert_eq!((at(ANY), at(Duration::from_hours(24 * 365)) as usize <= LADDER), (0, true));
    }
}
