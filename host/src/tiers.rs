//! Everything the kernel says about how fast memory nodes are, as plain facts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::dax::{DaxKind, read_dax_devices};
use crate::error::{Error, Result};
use crate::node::{
    AccessClass, NodePerformance, read_node_distance, read_node_meminfo, read_node_performance, read_nodes,
    read_nodes_with_kernel_memory,
};
use crate::{file, parse};

/// Facts about all online nodes, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TierFacts {
    /// One per online node.
    pub nodes: Vec<NodeFacts>,
}

/// Facts about one online node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFacts {
    /// The node.
    pub id: u32,
    /// It has processors.
    pub has_cpu: bool,
    /// It has memory.
    pub has_memory: bool,
    /// Bytes.
    pub mem_total: Option<u64>,
    /// N of the kernel's `memory_tierN` that lists it; smaller is faster, 4 is DRAM.
    pub memory_tier: Option<u32>,
    /// For the best initiator with processors, else for the best of any kind.
    pub performance: Option<NodePerformance>,
    /// Its memory is all in the zone Movable: the kernel keeps nothing of its own there.
    pub movable_only: bool,
    /// The kind of the dax device that serves as its memory, if one does.
    pub dax_kmem: Option<DaxKind>,
    /// Pairs of node and distance from this node, 10 being local.
    pub distances: Vec<(u32, u32)>,
}

/// Reads `devices/virtual/memory_tiering/memory_tierN/nodelist`: the number N for each node. Empty on kernels without
/// memory tiers.
pub fn read_memory_tiers(sys: &Path) -> Result<BTreeMap<u32, u32>> {
    let dir = sys.join("devices/virtual/memory_tiering");
    let Some(entries) = file::there(fs::read_dir(&dir).map_err(|source| Error::io(&dir, "list", source)))?
    else {
        return Ok(BTreeMap::new());
    };
    let mut tiers = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::io(&dir, "list", source))?;
        let name = entry.file_name();
        let Some(tier) =
            name.to_str().and_then(|name| name.strip_prefix("memory_tier")).and_then(|n| n.parse().ok())
        else {
            continue;
        };
        let path = entry.path().join("nodelist");
        // A tier vanishes with its last node.
        let Some(text) = file::read_if_there(&path)? else { continue };
        tiers.extend(parse::id_list(&text, &path)?.into_iter().map(|node| (node, tier)));
    }
    Ok(tiers)
}

/// Reads all facts. Nodes that go offline meanwhile are left out.
pub fn read_tier_facts(sys: &Path) -> Result<TierFacts> {
    let nodes = read_nodes(sys)?;
    let kernel = file::there(read_nodes_with_kernel_memory(sys))?;
    let tiers = read_memory_tiers(sys)?;
    let dax = read_dax_devices(sys)?;
    let mut facts = TierFacts::default();
    for &id in &nodes.online {
        let Some(meminfo) = file::there(read_node_meminfo(sys, id))? else { continue };
        let Some(distances) = file::there(read_node_distance(sys, id, &nodes.online))? else { continue };
        let performance = match read_node_performance(sys, id, AccessClass::Cpu)? {
            None => read_node_performance(sys, id, AccessClass::Any)?,
            some => some,
        };
        facts.nodes.push(NodeFacts {
            id,
            has_cpu: nodes.has_cpu.contains(&id),
            has_memory: nodes.has_memory.contains(&id),
            mem_total: meminfo.mem_total,
            memory_tier: tiers.get(&id).copied(),
            performance,
            movable_only: kernel.as_ref().is_some_and(|kernel| !kernel.contains(&id)),
            dax_kmem: dax.iter().find(|d| d.is_kmem() && d.target_node == Some(id)).map(|d| d.kind),
            distances,
        });
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn facts_of_a_host_whose_firmware_describes_a_slow_node() {
        let node = "sys/devices/system/node";
        let tiers = "sys/devices/virtual/memory_tiering";
        let (_dir, roots) = tree(&[
            (&format!("{node}/online"), "0-1\n"),
            (&format!("{node}/has_cpu"), "0\n"),
            (&format!("{node}/has_memory"), "0-1\n"),
            (&format!("{node}/node0/distance"), "10 20\n"),
            (&format!("{node}/node1/distance"), "20 10\n"),
            (&format!("{node}/node0/meminfo"), "Node 0 MemTotal:        1018912 kB\n"),
            (&format!("{node}/node1/meminfo"), "Node 1 MemTotal:        1031180 kB\n"),
            (&format!("{node}/node1/access0/initiators/read_latency"), "350\n"),
            (&format!("{tiers}/memory_tier4/nodelist"), "0\n"),
            (&format!("{tiers}/memory_tier98/nodelist"), "1\n"),
            (&format!("{tiers}/uevent"), ""),
        ]);
        let facts = read_tier_facts(&roots.sys).unwrap();
        let seen: Vec<_> = facts.nodes.iter().map(|n| (n.id, n.has_cpu, n.memory_tier)).collect();
        assert_eq!(seen, [(0, true, Some(4)), (1, false, Some(98))]);
        assert_eq!(facts.nodes[1].performance.unwrap().read_latency_ns, Some(350));
        assert_eq!(facts.nodes[1].distances, [(0, 20), (1, 10)]);
        assert_eq!(facts.nodes[1].dax_kmem, None);
    }
}
