//! How much sinks before the touches of what sank last are known.
//!
//! # Problem
//! Heat is a gradient: of memory touched ever more rarely, most may sink before the first feedback comes.
//!
//! # Approach
//! What is cold sinks in portions. A walk of the slow nodes judges the last one: within the allowance, the next is four times as large, but no
//! larger than what would, touched twice as much as the last, use up the allowance; above, it is a quarter, and as much as sank last comes
//! up again. Memory that has been idle for several ages needs no trial. The first is no greater than what is foreseen to
//! stay within the allowance, by what is touched of what is idle ([`super::touches`]).
//!
//! # Properties
//! - `nothing_more_sinks_unjudged`.
//! - `good_portions_grow`, `bad_ones_come_up_again`, `a_portion_is_no_larger_than_its_touches_foretell`.

use core::mem;

use crate::units::{Bytes, Instant};

/// The first portion is this part of the memory on fast nodes.
const FIRST: u64 = 8;
const LEAST: Bytes = Bytes::mib(32);

/// The trial of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Portion {
    /// `None` before the first.
    size: Option<Bytes>,
    /// Sunk since the last judgement.
    sunk: Bytes,
    last: Instant,
    /// On slow nodes, before it sank.
    touched: Bytes,
    /// To come up again.
    undo: Bytes,
}

impl Portion {
    /// What of `wanted` may sink now, where so much is foreseen to stay within the allowance.
    pub(super) fn left(&self, wanted: Bytes, fast: Bytes, foreseen: Bytes) -> Bytes {
        if !self.undo.is_zero() {
            return Bytes::ZERO;
        }
        let size = self.size.unwrap_or(Bytes(fast.0 / FIRST).min(foreseen)).max(LEAST);
        // A rest that is small beside a portion goes with it, or it would wait for a judgement of its own.
        if self.sunk + wanted <= size + Bytes(size.0 / 4) { wanted } else { size - self.sunk }
    }

    pub(super) fn sank(&mut self, bytes: Bytes, now: Instant) {
        self.sunk += bytes;
        self.last = now;
    }

    pub(super) fn came_up(&mut self, bytes: Bytes) {
        self.undo -= bytes;
    }

    /// A walk since the last portion says what was touched of what is down; whether that is too much.
    pub(super) fn judge(
        &mut self,
        touched: Bytes,
        allowed: Bytes,
        fast: Bytes,
        slow: Bytes,
        now: Instant,
    ) -> bool {
        self.undo = Bytes::ZERO;
        if self.sunk.is_zero() {
            self.touched = touched;
        }
        if self.sunk.is_zero() || now <= self.last {
            return false;
        }
        let size = self.size.unwrap_or(Bytes(fast.0 / FIRST)).max(LEAST);
        // What came up meanwhile was touched before: at least as hot as all that is down it is taken to be.
        let alike = u128::from(touched.0) * u128::from(self.sunk.0) / u128::from(slow.0.max(self.sunk.0));
        let by_it = (touched - mem::replace(&mut self.touched, touched))
            .max(Bytes(u64::try_from(alike).unwrap_or(u64::MAX)));
        let is_good = touched <= allowed;
        if is_good {
            let next = if self.sunk.0 >= size.0 / 2 { Bytes(size.0.saturating_mul(4)) } else { size };
            self.size = Some(next.min(fits(self.sunk, by_it, allowed - touched)).max(LEAST));
        } else {
            self.size = Some(Bytes(size.0 / 4).max(LEAST));
            self.undo = self.sunk;
        }
        self.sunk = Bytes::ZERO;
        !is_good
    }

    /// The size of what is on trial.
    pub(super) fn on_trial(&self) -> Bytes {
        self.sunk
    }

    /// What is to come up again.
    pub(super) fn undo(&self) -> Bytes {
        self.undo
    }
}

/// How much of what is touched twice as much as so many sunk bytes are touched within what is left of the allowance.
fn fits(sunk: Bytes, touched: Bytes, left: Bytes) -> Bytes {
    let fits = (u128::from(sunk.0) * u128::from(left.0)).checked_div(2 * u128::from(touched.0));
    Bytes(fits.map_or(u64::MAX, |bytes| u64::try_from(bytes).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Bytes = Bytes::mib(8 << 10);
    const ALLOWED: Bytes = Bytes::mib(100);
    const ALL: Bytes = Bytes::mib(6 << 10);

    fn at(seconds: u64) -> Instant {
        Instant(core::time::Duration::from_secs(seconds))
    }

    fn left(portion: &Portion) -> u64 {
        portion.left(ALL, FAST, Bytes::MAX).0 >> 20
    }

    /// Sinks all that may, and has it judged by what is touched then, in MiB a minute.
    fn sink(portion: &mut Portion, now: u64, touched: u64) {
        portion.sank(Bytes::mib(left(portion)), at(now));
        portion.judge(Bytes::mib(touched), ALLOWED, FAST, Bytes::ZERO, at(now + 1));
    }

    #[test]
    fn nothing_more_sinks_unjudged() {
        let mut portion = Portion::default();
        assert_eq!(left(&portion), 1024);
        portion.sank(Bytes::mib(1024), at(9));
        assert_eq!(left(&portion), 0);
        portion.judge(Bytes::ZERO, ALLOWED, FAST, ALL, at(9));
        assert_eq!(left(&portion), 0, "a walk from before it sank says nothing of it");
        portion.judge(Bytes::ZERO, ALLOWED, FAST, ALL, at(10));
        assert!(left(&portion) > 0);
    }

    #[test]
    fn the_first_is_no_larger_than_foreseen() {
        assert_eq!(Portion::default().left(ALL, FAST, Bytes::mib(200)), Bytes::mib(200));
    }

    #[test]
    fn a_small_rest_goes_along() {
        let portion = Portion::default();
        assert_eq!(portion.left(Bytes::mib(1200), FAST, Bytes::MAX), Bytes::mib(1200));
        assert_eq!(portion.left(Bytes::mib(1300), FAST, Bytes::MAX), Bytes::mib(1024));
    }

    #[test]
    fn good_portions_grow() {
        let mut portion = Portion::default();
        sink(&mut portion, 1, 0);
        assert_eq!(left(&portion), 4096);
    }

    #[test]
    fn bad_ones_come_up_again() {
        let mut portion = Portion::default();
        sink(&mut portion, 1, 101);
        assert_eq!((left(&portion), portion.undo()), (0, Bytes::mib(1024)));
        portion.came_up(Bytes::mib(1024));
        assert_eq!(left(&portion), 256);
    }

    #[test]
    fn a_portion_is_no_larger_than_its_touches_foretell() {
        let mut portion = Portion::default();
        sink(&mut portion, 1, 40);
        // A GiB was touched 40 MiB a minute, 60 are left: as much that is twice as hot is three quarters.
        assert_eq!(left(&portion), 768);
        sink(&mut portion, 3, 100);
        assert_eq!(left(&portion), 32, "nothing is left of the allowance");
    }
}
