//! What the kernel tells of a cgroup. Plain data.

use core::time::Duration;

use crate::units::Bytes;

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

/// Total time stalled since the cgroup began, `some` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallTotals {
    /// `memory.pressure`.
    pub memory: Option<Duration>,
    /// `io.pressure`.
    pub io: Option<Duration>,
}
