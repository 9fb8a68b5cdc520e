//! From what the kernel says of nodes to tiers.

use host::dax::DaxKind;
use host::tiers::TierFacts;
use tiering::{Bytes, Device, NodeFacts, NodeId, Performance, TierError, TierMap, TierOverride};

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
        distances: node.distances.iter().map(|(node, distance)| (NodeId(*node), *distance)).collect(),
    }
}
