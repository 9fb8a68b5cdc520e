//! At a ceiling: how old what goes down for what is hotter must be, and how much of it changes places.
//!
//! # Problem
//! Whether a page is hotter than another, walks tell: it was touched in both of two, the other in neither. Too near to each other, they
//! find next to nothing touched, and all that is idle is alike; too far, all is touched. Pages at the border of a Zipf distribution
//! are touched once in seconds, or once in half an hour. And each page that changes places costs, however little it gains.
//!
//! # Approach
//! Only which pages change places decides where it ends, not how many, as long as it is one for one: so after each walk it is a
//! quarter of what is on slow nodes at first, and a sixteenth less each time; more touches than the least that there were, by a half, begin anew.
//!
//! The age follows what walks find, between `after` and `after_max`: where less than a quarter of that portion is as old in DRAM, it shrinks
//! by a third; where half of it is, and less than seven eighths of what is on slow nodes were touched since the walk before, it grows by half.
//! Where next to nothing down there is hot, it shrinks.
//!
//! # Properties
//! - `walks_are_as_far_apart_as_tells_most`.
//! - `portions_shrink_until_heat_moves`.

use core::time::Duration;

use crate::policy::DemotePolicy;
use crate::units::Bytes;

/// Parts of what is on slow nodes.
const PARTS: u64 = 1024;
const FIRST: u64 = PARTS / 4;
const LEAST: u64 = PARTS / 32;

/// What changes places at the ceiling of one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    /// Before it is held within the policy's bounds.
    age: Duration,
    /// Of what is on slow nodes, after each walk.
    share: u64,
    /// Of it, until the next walk.
    left: Bytes,
    /// What the last plan wants to sink of that.
    planned: Bytes,
    /// The least that was touched per minute.
    least: Option<Bytes>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { age: Duration::ZERO, share: FIRST, left: Bytes::ZERO, planned: Bytes::ZERO, least: None }
    }
}

impl Exchange {
    /// What was idle for so long is colder than what two walks within it found touched.
    pub(super) fn age(&self, policy: &DemotePolicy) -> Duration {
        self.age.clamp(policy.after, policy.after_max.max(policy.after))
    }

    /// A walk near the ceiling: it found so much touched of what is on `slow` nodes, and so much on fast ones is as old as the age.
    pub(super) fn walked(
        &mut self,
        (hot, slow): (Bytes, Bytes),
        cold: Bytes,
        per_minute: Bytes,
        policy: &DemotePolicy,
    ) {
        self.share = (self.share - self.share / 16).max(LEAST);
        // Longer ages see less of the same touches, so that the least falls with them.
        let least = self.least.map_or(per_minute, |least| least.min(per_minute));
        if per_minute > least + Bytes(least.0 / 2) {
            (self.share, self.least) = (FIRST, Some(per_minute));
        } else {
            self.least = Some(least);
        }
        self.left = Bytes(slow.0 / PARTS * self.share);
        let age = self.age(policy);
        // Where next to nothing down there is hot, walks are to find soon what becomes it.
        self.age = if cold < Bytes(self.left.0 / 4) || hot <= Bytes(slow.0 / 64) {
            age * 2 / 3
        } else if cold >= Bytes(self.left.0 / 2) && hot.0 < slow.0 / 8 * 7 {
            age * 3 / 2
        } else {
            age
        };
    }

    /// Of what could change places, what is to.
    pub(super) fn plan(&mut self, able: Bytes) -> Bytes {
        self.planned = able.min(self.left);
        self.planned
    }

    /// What sank at the ceiling; returns what of it was for no exchange.
    pub(super) fn swapped(&mut self, bytes: Bytes) -> Bytes {
        let part = bytes.min(self.planned);
        self.planned -= part;
        self.left -= part;
        bytes - part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const SLOW: Bytes = Bytes::mib(1 << 10);

    #[test]
    fn walks_are_as_far_apart_as_tells_most() {
        let policy = Policy::default().demote;
        // All pages are touched at random, once in so many seconds in the mean; in each second one in so many of those that are idle.
        for (mean, least, most) in [(30, 120, 180), (300, 900, 1400), (2000, 1920, 1920)] {
            let mut exchange = Exchange::default();
            for _ in 0..40 {
                let age = exchange.age(&policy).as_secs();
                let idle = |seconds: u64| Bytes((0..seconds).fold(SLOW.0, |idle, _| idle - idle / mean));
                let hot = SLOW - idle(age / 2);
                exchange.walked((hot, SLOW), idle(age), hot, &policy);
            }
            let age = exchange.age(&policy).as_secs();
            assert!((least..=most).contains(&age), "{mean} s: {age} s");
        }
    }

    #[test]
    fn portions_shrink_until_heat_moves() {
        let policy = Policy::default().demote;
        let mut exchange = Exchange::default();
        let mut portion = |per_minute: u64| {
            exchange.walked((Bytes(SLOW.0 / 4 * 3), SLOW), SLOW, Bytes::mib(per_minute), &policy);
            let portion = exchange.plan(Bytes::MAX);
            assert_eq!(exchange.swapped(portion + Bytes::mib(1)), Bytes::mib(1), "the rest is no exchange");
            assert_eq!(exchange.plan(Bytes::MAX), Bytes::ZERO, "no more before the next walk");
            portion
        };
        let first = portion(100);
        assert!(first < Bytes(SLOW.0 / 4) && (0..100).map(|_| portion(100)).is_sorted_by(|a, b| a >= b));
        assert!(portion(100) <= Bytes(SLOW.0 / 32));
        assert!(portion(400) > first);
    }
}
