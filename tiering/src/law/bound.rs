//! Memory that does not move, as far as what was asked and stayed tells.
//!
//! # Problem
//! Pages that a device, RDMA or `io_uring` holds, strictly bound mappings, memory in use: all count as ordinary anonymous memory.
//! Asking for them again and again starves the host of headroom, while others could give.
//!
//! # Approach
//! Where a part of what was asked stayed, as much of the rest is taken to stay, but no more than some multiple of what was seen and known.
//! It fades, so that memory that was let go is found again, the more slowly the more often it was found to stay: a single failure may be a
//! node that was just coming online. What moves says at once that it moves.
//!
//! # Properties
//! - `what_stayed_is_asked_for_no_more`, for a while.
//! - `bound_fades`: by half in half a minute at first, in ten minutes once it stayed five times on end.

use alloc::boxed::Box;
use core::time::Duration;

use crate::units::{Bytes, Instant};

/// Of 200 GiB that are pinned, a first request may be for but ten.
const REACH: u64 = 32;
/// After one failure, doubled by each that follows.
const FIRST_HALF_LIFE: Duration = Duration::from_secs(30);
const LONGEST_HALF_LIFE: Duration = Duration::from_mins(10);

/// What is known to stay on a node, of one cgroup. Of most, nothing does.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound(Option<Box<Stayed>>);

#[derive(Clone, Copy, Debug, Default)]
struct Stayed {
    bytes: Bytes,
    at: Instant,
    /// Failures on end.
    times: u8,
}

impl Bound {
    /// Some of what was asked for stayed, out of `movable` that was believed to be able to move.
    pub(super) fn learn(&mut self, asked: Bytes, moved: Bytes, movable: Bytes, now: Instant) {
        let known = self.get(now);
        let stayed = asked - moved;
        if stayed.0 < asked.0 / 8 {
            let bytes = Bytes(known.0 / 2);
            self.0 = (!bytes.is_zero()).then(|| Box::new(Stayed { bytes, at: now, times: 0 }));
            return;
        }
        let share = u128::from(movable.0) * u128::from(stayed.0) / u128::from(asked.0.max(1));
        let share = Bytes(u64::try_from(share).unwrap_or(u64::MAX));
        let reach = known + Bytes(stayed.0.saturating_mul(REACH));
        let last = self.0.get_or_insert_default();
        last.at = now;
        last.bytes = known + share.min(reach).max(stayed);
        last.times = last.times.saturating_add(1);
    }

    /// What stays, as of now.
    pub(super) fn get(&self, now: Instant) -> Bytes {
        let Some(last) = &self.0 else { return Bytes::ZERO };
        let doublings = u32::from(last.times.saturating_sub(1)).min(8);
        let half_life = FIRST_HALF_LIFE.saturating_mul(1 << doublings).min(LONGEST_HALF_LIFE);
        let halvings = now.since(last.at).as_secs() / half_life.as_secs();
        Bytes(last.bytes.0 >> halvings.min(63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    /// Of 8 GiB a GiB is asked for so often on end, and none of it moves.
    fn failed(times: u64) -> (Bound, Instant) {
        let mut bound = Bound::default();
        for second in 0..times {
            bound.learn(Bytes::mib(1024), Bytes::ZERO, Bytes::mib(8 << 10), at(second));
        }
        (bound, at(times - 1))
    }

    #[test]
    fn what_stayed_is_asked_for_no_more() {
        let (bound, now) = failed(1);
        assert_eq!(bound.get(now), Bytes::mib(8 << 10));
        let mut bound = bound;
        bound.learn(Bytes::mib(1024), Bytes::mib(1024), Bytes::mib(8 << 10), now);
        assert_eq!(bound.get(now), Bytes::mib(4 << 10), "what moves says that more does");
    }

    #[test]
    fn of_much_a_part_is_taken_to_stay() {
        let mut bound = Bound::default();
        bound.learn(Bytes::mib(10), Bytes::ZERO, Bytes::mib(200 << 10), at(0));
        assert_eq!(bound.get(at(0)), Bytes::mib(10 * REACH));
    }

    #[test]
    fn bound_fades() {
        let check = |times, half_life: u64| {
            let (bound, now) = failed(times);
            let known = bound.get(now);
            let after = |seconds: u64| bound.get(now + Duration::from_secs(seconds));
            assert_eq!(
                (after(half_life - 1), after(half_life)),
                (known, Bytes(known.0 / 2)),
                "{times} failures"
            );
        };
        check(1, 30);
        check(2, 60);
        check(5, 480);
        check(6, 600);
    }
}
