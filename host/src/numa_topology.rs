//! Which nodes there are, in little: what tells that tiers are to be worked out anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Result;
use crate::file;
use crate::node::{Nodes, read_nodes, read_nodes_with_kernel_memory};
use crate::tiers::read_memory_tiers;

/// What changes when memory or processors of a node come online or go, or the kernel gives a node another tier. Distances and
/// what firmware says of a node do not change while it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    nodes: Nodes,
    with_kernel_memory: Option<BTreeSet<u32>>,
    memory_tiers: BTreeMap<u32, u32>,
}

/// Reads `devices/system/node/{online,has_cpu,has_memory,has_normal_memory}` and the `nodelist` of each memory tier.
pub fn read_topology(sys: &Path) -> Result<Topology> {
    Ok(Topology {
        nodes: read_nodes(sys)?,
        with_kernel_memory: file::there(read_nodes_with_kernel_memory(sys))?,
        memory_tiers: read_memory_tiers(sys)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn memory_that_comes_online_or_changes_its_tier_is_another_topology() {
        let node = "sys/devices/system/node";
        let tier = "sys/devices/virtual/memory_tiering/memory_tier";
        let read = |has_memory: &str, slow: u32| {
            let (_dir, roots) = tree(&[
                (&format!("{node}/online"), "0-1\n"),
                (&format!("{node}/has_cpu"), "0\n"),
                (&format!("{node}/has_memory"), has_memory),
                (&format!("{node}/has_normal_memory"), "0\n"),
                (&format!("{tier}4/nodelist"), "0\n"),
                (&format!("{tier}{slow}/nodelist"), "1\n"),
            ]);
            read_topology(&roots.sys).unwrap()
        };
        assert_eq!(read("0-1\n", 22), read("0-1\n", 22));
        assert_ne!(read("0\n", 22), read("0-1\n", 22));
        assert_ne!(read("0-1\n", 28), read("0-1\n", 22));
    }
}
