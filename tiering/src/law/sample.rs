//! What was read of a host in one round. Plain data; what could not be read is `None`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::node::{NodeId, NodeSet};
use crate::sample::StallTotals;
use crate::units::{Bytes, Instant};

/// Who a cgroup is, whatever its path: the caller's choice, such as its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupKey(pub u64);

/// On which side of the tier boundary a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speed {
    /// Demotion takes from it.
    Fast,
    /// Demotion goes to it.
    Slow,
}

/// All nodes at one moment. A node that is left out is gone: nothing is moved to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSample {
    /// When they were read.
    pub at: Instant,
    /// The nodes, in any order.
    pub nodes: Vec<NodeSample>,
}

/// One memory node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSample {
    /// Which.
    pub node: NodeId,
    /// Fast or slow.
    pub speed: Speed,
    /// All its memory.
    pub total: Bytes,
    /// Free memory that any allocation may take: without what zones keep back for allocations that can be nowhere else.
    pub free: Bytes,
    /// Free memory on lists of single CPUs (pcp). It counts towards the headroom, not against the watermarks.
    pub pcp: Bytes,
    /// Sum of the zones' min watermarks.
    pub min: Bytes,
    /// Sum of the zones' low watermarks, where kswapd wakes.
    pub low: Bytes,
    /// Sum of the zones' high watermarks, where kswapd rests.
    pub high: Bytes,
    /// File memory that the kernel can drop without I/O: on the file lists, neither dirty nor under writeback nor shmem.
    pub reclaimable_file: Bytes,
    /// Nodes of the other speed that its pages may go to, best first: of a fast node its demotion targets, of a slow one
    /// the fast nodes to promote to.
    pub targets: Vec<NodeId>,
}

/// What an age source knows of a cgroup's anonymous memory on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgeReading {
    /// Least ages and bytes, as the age source lists them; see [`crate::AgeHistogram::of_generations`]. Empty ones, too: they bound the
    /// age of the next.
    pub ages: Vec<(Duration, Bytes)>,
    /// Whether page tables were looked at for this reading. Otherwise ages have only advanced since the one before.
    pub walked: bool,
}

/// A cgroup's memory on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUse {
    /// Anonymous memory.
    pub anon: Bytes,
    /// Anonymous memory that may be unmovable: mlocked, `MADV_FREE`d. An upper bound, for locked shmem counts as well. What really
    /// stays is learned from what was asked and did not move.
    pub unmovable: Bytes,
    /// Ages of the anonymous memory; `None` where no age source can tell about this node.
    pub ages: Option<AgeReading>,
    /// After a walk, on a slow node: bytes touched since the walk before. `None` where none was done since the last sample.
    pub touched: Option<Bytes>,
    /// Bytes of this cgroup that the kernel promoted to this node since it began, where it counts them by node.
    pub kernel_promoted: Option<Bytes>,
}

/// Limits of a cgroup as the kernel enforces them; `None` is none, or `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `memory.min`.
    pub min: Option<Bytes>,
    /// `memory.low`.
    pub low: Option<Bytes>,
    /// `memory.max`, the least of it and of the cgroups above.
    pub max: Option<Bytes>,
    /// `memory.high` as it stands.
    pub high: Option<Bytes>,
    /// `memory.high` as it was before our first write.
    pub high_before_us: Option<Bytes>,
    /// The value of ours in `memory.high`; `None` where there is none.
    pub high_of_ours: Option<Bytes>,
}

/// One reading of a managed cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupSample {
    /// When it was read.
    pub at: Instant,
    /// Memory by node, hierarchical, without cgroups below that are managed apart.
    pub nodes: BTreeMap<NodeId, NodeUse>,
    /// `memory.current`: the footprint on all tiers, files included.
    pub current: Bytes,
    /// Its file memory that can be dropped without I/O (clean, not shmem), all nodes.
    pub clean_file: Bytes,
    /// Whether anonymous memory of it could be swapped out: there is swap, and its limits leave some.
    pub may_swap: bool,
    /// Whether nothing tells how old memory is: the kernel chooses.
    pub blind: bool,
    /// Its limits.
    pub limits: Limits,
    /// Stall times.
    pub stalls: StallTotals,
}

/// Where a cgroup's memory may be, and what may be done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Nodes it may use (`cpuset.mems.effective`).
    pub allowed: NodeSet,
    /// What keeps us from demoting it at all, if anything does.
    pub barrier: Option<Barrier>,
    /// Less cold memory than this on one node stays: the move would cost more than it saves.
    pub least: Bytes,
}

/// What keeps a cgroup from being demoted whatever its memory does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The engine can't tell demotion from swapping out, and the cgroup may swap.
    MaySwap,
    /// There is no engine that can demote.
    NoEngine,
}

/// Who brings hot memory back up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promoter {
    /// Nobody: nothing voluntary is demoted, for it could never come back.
    #[default]
    None,
    /// The kernel's NUMA balancing, at a rate of the whole host.
    Kernel,
    /// We do, per cgroup.
    Agent,
}

/// What was really moved of one order, as the kernel's counts say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it was.
    pub from: NodeId,
    /// Where it is now, as far as that is known.
    pub to: Option<NodeId>,
    /// Bytes that were tried: not what the order said where time or room ran out before.
    pub asked: Bytes,
    /// Bytes that moved.
    pub moved: Bytes,
    /// Why the rest stayed.
    pub stayed: Stayed,
    /// Least age of what was asked for; zero where the order had none.
    pub least_age: Duration,
}

/// Why pages that were tried did not move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stayed {
    /// Nothing stayed, or nobody knows.
    #[default]
    Unknown,
    /// They had been touched after all.
    Touched,
    /// They can't be moved: pinned, locked, bound to their node, in use.
    Bound,
    /// The target had no room.
    TargetFull,
}
