//! What is reclaimed ahead of a limit.
//!
//! # Problem
//! At `memory.high` the kernel throttles whoever allocates, at `memory.max` it reclaims in their place, though most of what is charged may be
//! page cache that nobody waits for. Demotion uncharges nothing, so tiering does not help.
//!
//! # Approach
//! Usage is read several times a second. While it is nearer to the limit than it may grow until the reclaim after next, so much is reclaimed, in
//! bounded steps: clean page cache, and beyond that what the cgroup may swap.
//!
//! # Properties
//! - `reclaim_is_ahead_of_the_limit`, `far_from_a_limit_nothing_is_reclaimed`.
//! - `no_more_than_can_be_uncharged`.
//! - `who_is_far_from_a_limit_is_read_seldom`.

use core::time::Duration;

use crate::units::{Bytes, Instant};

/// Growth of this time is made room for.
const AHEAD: Duration = Duration::from_secs(1);

/// The least room that is kept, and the part of the limit that it is where that is more.
const LEAST_ROOM: Bytes = Bytes::mib(16);
const ROOM_PART: u64 = 64;
/// The most.
const MOST_ROOM_PART: u64 = 4;

/// No cgroup is taken to grow faster, per second: what one core clears, or a fast device reads.
const FASTEST: u64 = 4 << 30;

/// One step is no more than this, else a part of the limit: a reclaim of gigabytes takes its caller seconds.
const STEP: Bytes = Bytes::mib(64);
const STEP_PART: u64 = 16;

/// What is remembered of a cgroup's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Bytes per second, the greater of now and a fading past.
    growth: u64,
    last: Option<(Instant, Bytes)>,
}

/// What of a cgroup can be uncharged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncharged {
    /// Page cache that can be dropped without I/O (clean, not shmem).
    pub clean_file: Bytes,
    /// Anonymous memory that may be swapped out; zero where there is no swap for it.
    pub swappable: Bytes,
}

/// Memory to be given back ahead of a limit, by `memory.reclaim`, without demotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaim {
    /// How much.
    pub bytes: Bytes,
    /// Page cache only: there is enough of it, or the cgroup may not swap.
    pub file_only: bool,
}

impl Ahead {
    /// Takes in `memory.current`.
    pub fn observe(&mut self, current: Bytes, now: Instant) {
        if let Some((at, before)) = self.last {
            let millis = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
            if let Some(growth) = (current - before).0.saturating_mul(1000).checked_div(millis) {
                self.growth = growth.max(self.growth / 4 * 3);
            }
        }
        self.last = Some((now, current));
    }

    /// Takes in `memory.current` after a reclaim, so that what was reclaimed hides no growth.
    pub fn reclaimed(&mut self, current: Bytes) {
        if let Some((_, last)) = &mut self.last {
            *last = current;
        }
    }

    /// By how much usage, as last read, is too near to a limit.
    #[must_use]
    pub fn over(&self, limit: Bytes) -> Bytes {
        let current = self.last.map_or(Bytes::ZERO, |(_, current)| current);
        let growth = u128::from(self.growth) * AHEAD.as_millis() / 1000;
        let growth = Bytes(u64::try_from(growth).unwrap_or(u64::MAX));
        let room =
            Bytes(limit.0 / ROOM_PART).max(LEAST_ROOM).max(growth).min(Bytes(limit.0 / MOST_ROOM_PART));
        current + room - limit
    }

    /// How long usage, as last read, stays far enough from a limit for nothing to be done.
    #[must_use]
    pub fn safe_for(&self, limit: Bytes) -> Duration {
        let Some((_, current)) = self.last else { return Duration::ZERO };
        let left = limit - current - Bytes(limit.0 / MOST_ROOM_PART);
        Duration::from_millis(left.0.saturating_mul(1000) / FASTEST)
    }

    /// What to reclaim under a limit.
    #[must_use]
    pub fn reclaim(&self, limit: Bytes, uncharged: Uncharged) -> Option<Reclaim> {
        let over = self.over(limit);
        let Uncharged { clean_file, swappable } = uncharged;
        let file_only = clean_file >= over || swappable.is_zero();
        let most = if file_only { clean_file } else { clean_file + swappable };
        let bytes = over.min(most).min(Bytes(limit.0 / STEP_PART).max(STEP));
        (!bytes.is_zero()).then_some(Reclaim { bytes, file_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Bytes = Bytes::mib(1024);

    /// A quarter of a second later each time.
    fn after(usage_mib: &[u64]) -> Ahead {
        let mut ahead = Ahead::default();
        for (i, mib) in (0_u64..).zip(usage_mib) {
            ahead.observe(Bytes::mib(*mib), Instant(Duration::from_millis(250 * i)));
        }
        ahead
    }

    fn cache(mib: u64) -> Uncharged {
        Uncharged { clean_file: Bytes::mib(mib), swappable: Bytes::ZERO }
    }

    #[test]
    fn reclaim_is_ahead_of_the_limit() {
        // 200 MiB a second, and as long as it goes on the limit is never met.
        let (mut ahead, mut current, mut reclaimed) = (Ahead::default(), 0_u64, 0);
        for i in 0..400 {
            current += 50;
            assert!(Bytes::mib(current) < LIMIT, "after {i} quarters of a second");
            ahead.observe(Bytes::mib(current), Instant(Duration::from_millis(250 * i)));
            if let Some(reclaim) = ahead.reclaim(LIMIT, cache(current - 10)) {
                assert!(reclaim.file_only);
                current -= reclaim.bytes.0 >> 20;
                ahead.reclaimed(Bytes::mib(current));
                reclaimed += 1;
            }
        }
        assert!(reclaimed > 100, "{reclaimed}");
    }

    #[test]
    fn far_from_a_limit_nothing_is_reclaimed() {
        assert_eq!(after(&[100, 150, 200]).reclaim(LIMIT, cache(100)), None);
        assert_eq!(after(&[1000; 9]).reclaim(LIMIT, cache(900)), None, "it does not grow");
        assert!(after(&[900, 950]).reclaim(LIMIT, cache(900)).is_some(), "it does");
    }

    #[test]
    fn who_is_far_from_a_limit_is_read_seldom() {
        assert_eq!(Ahead::default().safe_for(LIMIT), Duration::ZERO);
        assert_eq!(after(&[800]).safe_for(LIMIT), Duration::ZERO, "less than the most room is left");
        assert_eq!(after(&[256]).safe_for(LIMIT), Duration::from_millis(125));
        assert_eq!(after(&[256]).safe_for(Bytes::mib(100 << 10)), Duration::from_millis(18_687));
    }

    #[test]
    fn no_more_than_can_be_uncharged() {
        let ahead = after(&[1020]);
        let check = |clean_mib, swappable_mib, bytes_mib, file_only| {
            let uncharged =
                Uncharged { clean_file: Bytes::mib(clean_mib), swappable: Bytes::mib(swappable_mib) };
            let wanted = Reclaim { bytes: Bytes::mib(bytes_mib), file_only };
            assert_eq!(ahead.reclaim(LIMIT, uncharged), Some(wanted), "{clean_mib} {swappable_mib}");
        };
        check(500, 500, 12, true);
        check(5, 0, 5, true);
        check(5, 4, 9, false);
        check(5, 500, 12, false);
        assert_eq!(ahead.reclaim(LIMIT, cache(0)), None);
    }
}
