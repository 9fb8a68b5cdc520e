//! What a host says about its memory nodes.

use alloc::collections::BTreeMap;

use super::{TierError, TierName};
use crate::node::{NodeId, NodeSet};
use crate::units::Bytes;

/// The distance of a node to itself in `nodeN/distance`. Firmware that gives it to two different nodes says nothing.
const LOCAL_DISTANCE: u32 = 10;

/// What a host says about one of its memory nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub id: NodeId,
    /// Whether it is in `/sys/devices/system/node/has_cpu`.
    pub has_cpu: bool,
    /// Its size; nothing for a node without memory, which no tier gets.
    pub memory: Bytes,
    /// The `N` of the `memory_tierN` whose `nodelist` has it; smaller is faster. `None` where the kernel shows none.
    pub kernel_tier: Option<u32>,
    /// What the firmware (HMAT) says of it; `None` where it says nothing.
    pub performance: Option<Performance>,
    /// The device its memory comes from; `None` for memory that the firmware reported as ordinary RAM.
    pub device: Option<Device>,
    /// Whether the kernel may keep nothing of its own there (it is not in `has_normal_memory`): memory that was put
    /// online later as movable, by dax/kmem or by a device's driver.
    pub movable_only: bool,
    /// Its distances to nodes, from `nodeN/distance`.
    pub distances: BTreeMap<NodeId, u32>,
}

/// What the firmware says of a node, seen from its best initiator (`nodeN/access0/initiators`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Performance {
    /// Nanoseconds.
    pub read_latency_ns: Option<u32>,
    /// Nanoseconds.
    pub write_latency_ns: Option<u32>,
    /// MiB/s.
    pub read_bandwidth_mib: Option<u32>,
    /// MiB/s.
    pub write_bandwidth_mib: Option<u32>,
}

/// What the device behind a node's memory says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// Persistent memory.
    Pmem,
    /// Memory behind a CXL link.
    Cxl,
    /// High-bandwidth memory.
    Hbm,
    /// A dax device that does not say what it is.
    Dax,
}

impl Device {
    /// The name of a tier of such devices, if it tells more than `slow`.
    pub(super) const fn tier_name(self) -> Option<TierName> {
        match self {
            Self::Pmem => Some(TierName::Pmem),
            Self::Cxl => Some(TierName::Cxl),
            Self::Hbm => Some(TierName::Hbm),
            Self::Dax => None,
        }
    }
}

/// The facts of the nodes that have memory, by node.
pub(super) struct MemoryNodes<'a>(BTreeMap<NodeId, &'a NodeFacts>);

impl<'a> MemoryNodes<'a> {
    pub(super) fn new(facts: &'a [NodeFacts]) -> Result<Self, TierError> {
        let mut by_id = BTreeMap::new();
        for node in facts {
            if by_id.insert(node.id, node).is_some() {
                return Err(TierError::FactsTwice(node.id));
            }
        }
        by_id.retain(|_, node| !node.memory.is_zero());
        let nodes = Self(by_id);
        if nodes.0.is_empty() {
            return Err(TierError::NoMemory);
        }
        if !nodes.iter().any(|node| node.has_cpu) {
            return Err(TierError::NoCpus(nodes.ids()));
        }
        Ok(nodes)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a NodeFacts> + '_ {
        self.0.values().copied()
    }

    pub(super) fn ids(&self) -> NodeSet {
        self.0.keys().copied().collect()
    }

    pub(super) fn has_cpu(&self, id: NodeId) -> bool {
        self.0.get(&id).is_some_and(|node| node.has_cpu)
    }

    pub(super) fn kernel_tier(&self, id: NodeId) -> Option<u32> {
        self.0.get(&id)?.kernel_tier
    }

    /// How far the nearest node with CPUs is; `None` where firmware does not say.
    pub(super) fn distance_to_cpus(&self, node: NodeId) -> Option<u32> {
        let with_cpus = self.iter().filter(|other| other.has_cpu);
        with_cpus.map(|other| self.distance(other.id, node)).min().filter(|distance| *distance != u32::MAX)
    }

    /// How far `to` is from `from`. A distance that is absent, or that no two different nodes can have, is the
    /// greatest: such a node is still better than none.
    pub(super) fn distance(&self, from: NodeId, to: NodeId) -> u32 {
        let seen = |a: &NodeId, b: &NodeId| self.0.get(a)?.distances.get(b).copied();
        let sane = |distance: &u32| *distance > LOCAL_DISTANCE;
        seen(&from, &to).filter(sane).or_else(|| seen(&to, &from).filter(sane)).unwrap_or(u32::MAX)
    }
}
