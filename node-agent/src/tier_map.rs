//! From what the kernel says of nodes to tiers.

use std::fmt::Write as _;

use host::dax::DaxKind;
use host::tiers::TierFacts;
use tiering::{Bytes, Device, NodeFacts, NodeId, NodeSet, Performance, TierError, TierMap, TierOverride};

/// Tiers as discovered, or as the configuration says.
pub fn tier_map(facts: &TierFacts, configured: &[TierOverride]) -> Result<TierMap, TierError> {
    let facts: Vec<NodeFacts> = facts.nodes.iter().filter(|node| node.has_memory).map(node_facts).collect();
    if configured.is_empty() { TierMap::discover(&facts) } else { TierMap::configured(&facts, configured) }
}

fn node_facts(node: &host::tiers::NodeFacts) -> NodeFacts {
    let narrow = |value: Option<u64>| value.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    NodeFacts {
        id: NodeId(node.id),
        has_cpu: node.has_cpu,
        memory: Bytes(node.mem_total.unwrap_or(0)),
        kernel_tier: node.memory_tier,
        performance: node.performance.map(|performance| Performance {
            read_latency_ns: narrow(performance.read_latency_ns),
            write_latency_ns: narrow(performance.write_latency_ns),
            read_bandwidth_mib: narrow(performance.read_bandwidth_mib_s),
            write_bandwidth_mib: narrow(performance.write_bandwidth_mib_s),
        }),
        device: node.dax_kmem.map(|kind| match kind {
            DaxKind::Pmem => Device::Pmem,
            DaxKind::Cxl => Device::Cxl,
            DaxKind::Unknown => Device::Dax,
        }),
        movable_only: node.movable_only,
        distances: node.distances.iter().map(|(node, distance)| (NodeId(*node), *distance)).collect(),
    }
}

/// The same of what is there now: configured nodes without memory are left out until it comes, and tiers with them.
pub fn present_tier_map(facts: &TierFacts, configured: &[TierOverride]) -> Result<TierMap, TierError> {
    let there: NodeSet = facts.nodes.iter().filter(|node| node.has_memory).map(|node| node.id).collect();
    let present = configured
        .iter()
        .map(|tier| TierOverride { name: tier.name, nodes: tier.nodes.intersection(&there) });
    let present: Vec<_> = present.filter(|tier| !tier.nodes.is_empty()).collect();
    tier_map(facts, &present)
}

/// The tiers in words: nodes by tier, fast to slow, where what sinks goes, and what is left out.
#[must_use]
pub fn in_words(map: &TierMap) -> String {
    let tiers = map.tiers().iter().map(|tier| format!("{} {}", tier.name, tier.nodes));
    let mut words = tiers.collect::<Vec<_>>().join(", then ");
    for node in map.nodes().iter() {
        let chain = map.demotion_targets(node);
        if !chain.is_empty() {
            let chain: Vec<_> = chain.iter().map(|to| to.0.to_string()).collect();
            let _ = write!(words, "; {node} demotes to {}", chain.join(", then "));
        }
    }
    for (node, why) in map.left_out() {
        let _ = write!(words, "; {node} is left out: {why}");
    }
    words
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tiering::{NodeSet, TierName};

    use super::*;

    /// A node of a machine: its CPUs, whether all of its memory is movable, the kernel's tier, the bus of its dax device,
    /// latency and bandwidth by HMAT, and its distances.
    struct Node(
        u32,
        &'static str,
        bool,
        Option<u32>,
        Option<&'static str>,
        Option<(u32, u32)>,
        &'static [u32],
    );

    fn list(ids: impl Iterator<Item = u32>) -> String {
        ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",") + "\n"
    }

    /// Writes what the kernel shows of such a machine; a tier of nodes without memory has no number.
    fn machine(sys: &Path, nodes: &[Node]) {
        let write = |path: String, text: &str| {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let of = |keep: fn(&Node) -> bool| list(nodes.iter().filter(|node| keep(node)).map(|node| node.0));
        let dir = "devices/system/node";
        write(format!("{dir}/online"), &of(|_| true));
        write(format!("{dir}/has_cpu"), &of(|node| !node.1.is_empty()));
        write(format!("{dir}/has_memory"), &of(|node| node.3.is_some()));
        write(format!("{dir}/has_normal_memory"), &of(|node| node.3.is_some() && !node.2));
        for Node(id, cpus, _, tier, dax, hmat, distances) in nodes {
            let node = format!("{dir}/node{id}");
            write(format!("{node}/cpulist"), cpus);
            let distances: Vec<_> = distances.iter().map(ToString::to_string).collect();
            write(format!("{node}/distance"), &distances.join(" "));
            let size = if tier.is_some() { 1 << 20 } else { 0 };
            write(format!("{node}/meminfo"), &format!("Node {id} MemTotal:       {size} kB\n"));
            if let Some(tier) = tier {
                let same = nodes.iter().filter(|node| node.3 == Some(*tier)).map(|node| node.0);
                let tiers = "devices/virtual/memory_tiering";
                write(format!("{tiers}/memory_tier{tier}/nodelist"), &list(same));
            }
            for (file, value) in hmat.iter().flat_map(|(latency, bandwidth)| {
                [("read_latency", latency), ("write_latency", latency), ("read_bandwidth", bandwidth)]
            }) {
                write(format!("{node}/access1/initiators/{file}"), &format!("{value}\n"));
            }
            if let Some(bus) = dax {
                let device = format!("devices/{bus}/dax{id}.0");
                write(format!("{device}/target_node"), &format!("{id}\n"));
                fs::create_dir_all(sys.join("bus/dax/devices")).unwrap();
                fs::create_dir_all(sys.join("bus/dax/drivers/kmem")).unwrap();
                let device = sys.join(device);
                symlink(&device, sys.join(format!("bus/dax/devices/dax{id}.0"))).unwrap();
                symlink(sys.join("bus/dax/drivers/kmem"), device.join("driver")).unwrap();
            }
        }
    }

    #[track_caller]
    fn check(nodes: &[Node], configured: &[TierOverride], words: &str) {
        let dir = tempfile::tempdir().unwrap();
        machine(dir.path(), nodes);
        let facts = host::tiers::read_tier_facts(dir.path()).unwrap();
        assert_eq!(in_words(&tier_map(&facts, configured).unwrap()), words);
    }

    fn gh200() -> Vec<Node> {
        const FAR: &[u32] = &[80, 10, 255, 255];
        let mut nodes = vec![
            Node(0, "0-71", false, Some(4), None, None, &[10, 80, 80, 80]),
            Node(1, "", true, Some(4), None, None, FAR),
        ];
        nodes.extend([2, 3].map(|id| Node(id, "", false, None, None, None, FAR)));
        nodes
    }

    #[test]
    fn memory_of_a_gpu_takes_cold_pages_only_where_the_operator_says_so() {
        let left_out = "dram 0; node 1 is left out: it looks like memory of a device, such as a GPU: far from all CPUs, put \
                        online as movable, and no dax device";
        check(&gh200(), &[], left_out);
        let named = |name, node: u32| TierOverride { name, nodes: NodeSet::from_iter([node]) };
        let both = [named(TierName::Dram, 0), named(TierName::Slow, 1)];
        check(&gh200(), &both, "dram 0, then slow 1; node 0 demotes to 1");
    }

    #[test]
    fn dram_without_cpus_is_where_the_kernel_has_it() {
        const CXL: &str = "platform/ACPI0017:00/root0/decoder0.2/region2/dax_region2";
        let nodes = [
            Node(0, "0-31", false, Some(4), None, None, &[10, 12, 20]),
            Node(1, "", false, Some(4), None, None, &[12, 10, 22]),
            Node(2, "", true, Some(22), Some(CXL), None, &[20, 22, 10]),
        ];
        check(&nodes, &[], "dram 0,1, then cxl 2; node 0 demotes to 2; node 1 demotes to 2");
    }

    #[test]
    fn high_bandwidth_memory_in_the_default_dax_tier_is_above_dram() {
        let nodes = [
            Node(0, "0-55", false, Some(4), None, Some((110, 200_000)), &[10, 13]),
            Node(2, "", true, Some(22), Some("platform/hmem.2"), Some((130, 800_000)), &[13, 10]),
        ];
        check(&nodes, &[], "hbm 2, then dram 0");
    }

    #[test]
    fn two_tiers_of_cxl_are_filled_in_turn() {
        const A: &str = "platform/ACPI0017:00/root0/decoder0.2/region2/dax_region2";
        const B: &str = "platform/ACPI0017:00/root0/decoder0.3/region3/dax_region3";
        let nodes = [
            Node(0, "0-11", false, Some(4), None, Some((110, 220_000)), &[10, 14, 24]),
            Node(2, "", false, Some(35), Some(A), Some((250, 64_000)), &[14, 10, 26]),
            Node(3, "", false, Some(38), Some(B), Some((270, 64_000)), &[24, 26, 10]),
        ];
        check(&nodes, &[], "dram 0, then cxl 2, then cxl 3; node 0 demotes to 2, then 3");
    }
}
