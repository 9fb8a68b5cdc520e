//! What was read of a cgroup in one round. Plain data.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::node::NodeId;
use crate::units::{Bytes, Instant};

/// One generation of the multi-generational LRU, of one cgroup on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The kernel's sequence number; newer generations have greater ones.
    pub seq: u64,
    /// Time since the generation was begun.
    pub birth_age: Duration,
    /// Anonymous memory in it.
    pub anon: Bytes,
    /// File memory (and clean `MADV_FREE` memory) in it.
    pub file: Bytes,
}

/// A cgroup's memory on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUse {
    /// Anonymous memory.
    pub anon: Bytes,
    /// Anonymous memory that can't be moved by us: mlocked, `MADV_FREE`d.
    pub unmovable: Bytes,
}

/// Total time stalled since the cgroup began, `some` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallTotals {
    /// `memory.pressure`.
    pub memory: Option<Duration>,
    /// `io.pressure`.
    pub io: Option<Duration>,
}

/// One reading of a managed cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupSample {
    /// When it was read.
    pub at: Instant,
    /// Memory by node, hierarchical.
    pub nodes: BTreeMap<NodeId, NodeUse>,
    /// `memory.current`: the footprint on all tiers, files included.
    pub current: Bytes,
    /// Anonymous memory on fast nodes by least age, of all leaves; empty where no age source could be read.
    pub ages: Vec<(Duration, Bytes)>,
    /// Bytes that a walk found touched on slow nodes since the walk before it; `None` where none was done since the
    /// last sample.
    pub slow_touched: Option<Bytes>,
    /// Bytes promoted since the cgroup began, where the kernel counts them.
    pub promoted_total: Option<Bytes>,
    /// Stall times.
    pub stalls: StallTotals,
}
