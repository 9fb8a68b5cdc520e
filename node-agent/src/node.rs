//! Free memory of the host's nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use host::node::{read_node_meminfo, read_nodes_with_kernel_memory};
use host::zoneinfo::{NodeWatermarks, read_zoneinfo};
use tiering::law::{HostSample, NodeSample, Speed};
use tiering::{Bytes, Instant, NodeId, NodeSet};

use crate::engine::Ground;

/// What each node has free, and for whom. Free memory is read every round; watermarks, and what single CPUs hold free, once a minute
/// and while the fast nodes seem short.
#[derive(Debug, Default)]
pub struct NodeMemory {
    nodes: BTreeMap<NodeId, Node>,
    kernel: NodeSet,
    watermarks_read: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    total: Bytes,
    free: Bytes,
    /// On lists of single CPUs; nothing where that was not read in this round.
    per_cpu: Bytes,
    /// On the file lists, and not dirty: page cache, and what `MADV_FREE` gave up.
    clean_file: Bytes,
    watermarks: NodeWatermarks,
}

impl Node {
    /// What of the free memory any allocation may take. How much is kept back changes with the watermarks, or as the last of it
    /// is used.
    fn usable(&self) -> Bytes {
        self.free - pages(self.watermarks.reserved)
    }

    fn sample(&self, id: NodeId, ground: &Ground) -> NodeSample {
        NodeSample {
            node: id,
            speed: if ground.fast.contains(id) { Speed::Fast } else { Speed::Slow },
            total: self.total,
            free: self.usable(),
            pcp: self.per_cpu,
            min: pages(self.watermarks.min),
            low: pages(self.watermarks.low),
            high: pages(self.watermarks.high),
            reclaimable_file: self.reclaimable(),
            targets: ground.targets(id),
        }
    }

    /// What the kernel frees for whoever allocates, without any loss: clean file memory, but for half of it or a low watermark, whichever
    /// is less, as it reckons itself for `MemAvailable` (`si_mem_available`).
    fn reclaimable(&self) -> Bytes {
        self.clean_file - Bytes(self.clean_file.0 / 2).min(pages(self.watermarks.low))
    }
}

impl NodeMemory {
    /// The kernel recomputes watermarks on memory hotplug and sysctl writes only.
    const WATERMARKS_EVERY: Duration = Duration::from_mins(1);

    /// Reads what is due. A node that went offline is left out, so that nothing is moved there.
    pub fn read(&mut self, ground: &Ground, now: Instant) -> host::Result<()> {
        let (roots, tiers) = (&ground.roots, &ground.tiers);
        self.kernel = read_nodes_with_kernel_memory(&roots.sys)?.into_iter().collect();
        let nodes = std::mem::take(&mut self.nodes);
        for id in tiers.nodes().iter() {
            let meminfo = match read_node_meminfo(&roots.sys, id.0) {
                Ok(meminfo) => meminfo,
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            };
            let file = meminfo.active_file.unwrap_or(0).saturating_add(meminfo.inactive_file.unwrap_or(0));
            let dirty = meminfo.dirty.unwrap_or(0).saturating_add(meminfo.writeback.unwrap_or(0));
            let node = Node {
                total: Bytes(meminfo.mem_total.unwrap_or(0)),
                free: Bytes(meminfo.mem_free.unwrap_or(0)),
                per_cpu: Bytes::ZERO,
                clean_file: Bytes(file) - Bytes(dirty),
                watermarks: nodes.get(&id).map(|node| node.watermarks).unwrap_or_default(),
            };
            // A node whose last block went offline is still listed, with nothing in it.
            if !node.total.is_zero() {
                self.nodes.insert(id, node);
            }
        }
        let stale = self.watermarks_read.is_none_or(|read| now.since(read) >= Self::WATERMARKS_EVERY);
        let is_short = |(id, node): (&NodeId, &Node)| !node.sample(*id, ground).shortfall().is_zero();
        if stale || self.nodes.iter().any(is_short) {
            let zones = read_zoneinfo(&roots.proc)?;
            self.watermarks_read = Some(now);
            for (id, node) in &mut self.nodes {
                node.watermarks = zones.get(&id.0).copied().unwrap_or_default();
                // Both from one reading: pages go back and forth between the two.
                node.free = pages(node.watermarks.free);
                node.per_cpu = pages(node.watermarks.per_cpu);
            }
        }
        Ok(())
    }

    /// Whether it was read at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.watermarks_read.is_some()
    }

    /// Nodes with memory that the kernel may use for itself: all but those of movable memory alone.
    #[must_use]
    pub fn with_kernel_memory(&self) -> &NodeSet {
        &self.kernel
    }

    /// Capacity and free bytes of several nodes.
    #[must_use]
    pub fn size_of(&self, nodes: &NodeSet) -> (Bytes, Bytes) {
        let sizes = nodes.iter().filter_map(|node| self.nodes.get(&node));
        sizes.fold((Bytes::ZERO, Bytes::ZERO), |(total, free), node| (total + node.total, free + node.free))
    }

    /// The nodes as the law takes them.
    #[must_use]
    pub fn sample(&self, ground: &Ground, now: Instant) -> HostSample {
        let nodes = self.nodes.iter().map(|(id, node)| node.sample(*id, ground)).collect();
        HostSample { at: now, nodes }
    }
}

fn pages(pages: u64) -> Bytes {
    Bytes(pages.saturating_mul(host::pages::page_size()))
}
