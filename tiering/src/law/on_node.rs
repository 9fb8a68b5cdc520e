//! One node's part of a cgroup.

use core::time::Duration;

use super::bound::Bound;
use super::ledger::Ledger;
use super::sample::Speed;
use crate::node::NodeId;
use crate::units::{Bytes, Instant};

/// One node's part of a cgroup.
#[derive(Clone, Debug)]
pub(super) struct OnNode {
    pub(super) node: NodeId,
    pub(super) speed: Speed,
    pub(super) anon: Bytes,
    /// What can't be unmovable for sure.
    pub(super) surely_movable: Bytes,
    pub(super) ledger: Ledger,
    pub(super) bound: Bound,
    /// On a slow node: touched as of the last walk, less what was promoted since.
    pub(super) hot: Bytes,
    /// Of that, what the walk before had found touched, too.
    pub(super) hot_twice: Bytes,
    /// As of the last sample that tells it.
    pub(super) kernel_promoted: Option<Bytes>,
}

impl OnNode {
    pub(super) fn new(node: NodeId, speed: Speed) -> Self {
        Self {
            node,
            speed,
            anon: Bytes::ZERO,
            surely_movable: Bytes::ZERO,
            ledger: Ledger::default(),
            bound: Bound::default(),
            hot: Bytes::ZERO,
            hot_twice: Bytes::ZERO,
            kernel_promoted: None,
        }
    }

    /// What may move at any age. Locked pages are on no list that has ages.
    pub(super) fn movable(&self, now: Instant) -> Bytes {
        self.ledger.total().max(self.surely_movable).min(self.anon) - self.bound.get(now)
    }

    /// What may move of what was not accessed for so long.
    pub(super) fn older(&self, age: Duration, now: Instant) -> Bytes {
        self.ledger.at_least(age, now).min(self.anon) - self.bound.get(now)
    }
}
