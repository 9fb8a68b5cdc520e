//! How much sinks before the touches of what sank last are known.
//!
//! # Problem
//! Heat is a gradient: of memory touched ever more rarely, most may sink before the first feedback comes.
//!
//! # Approach
//! What is cold sinks in portions. A walk of the slow nodes judges the last one: within the allowance, the next is four times as large; above,
//! it is a quarter, and as much as sank last comes up again. Memory that has been idle for several ages needs no trial. The first is no greater than what is foreseen to
//! stay within the allowance, by what is touched of what is idle ([`super::touches`]).
//!
//! # Properties
//! - `nothing_more_sinks_unjudged`.
//! - `good_portions_grow`, `bad_ones_come_up_again`.

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

    /// A walk since the last portion says what was touched of what is down.
    pub(super) fn judge(&mut self, touched: Bytes, allowed: Bytes, fast: Bytes, now: Instant) {
        self.undo = Bytes::ZERO;
        if self.sunk.is_zero() || now <= self.last {
            return;
        }
        let size = self.size.unwrap_or(Bytes(fast.0 / FIRST)).max(LEAST);
        if touched <= allowed {
            self.size = Some(if self.sunk.0 >= size.0 / 2 { Bytes(size.0.saturating_mul(4)) } else { size });
        } else {
            self.size = Some(Bytes(size.0 / 4).max(LEAST));
            self.undo = self.sunk;
        }
        self.sunk = Bytes::ZERO;
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
