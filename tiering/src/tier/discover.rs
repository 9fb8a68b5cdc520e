//! Tiers from what the host says.
//!
//! Every node gets a place on the kernel's own scale (the `N` of `memory_tierN`):
//!
//! 1. Nodes with CPUs are DRAM. Where the kernel spreads them over several tiers, all from the fastest to the
//!    slowest of these are DRAM: a page is never demoted onto another socket's memory.
//! 2. A CPU-less node that the kernel puts outside the DRAM tiers stays where the kernel puts it.
//! 3. Any other CPU-less node is judged here, because the kernel has no opinion (ordinary RAM without HMAT, and any
//!    ordinary RAM on 6.1, is in the default tier): by HMAT with the kernel's formula, then by its device. With
//!    neither it is taken to be slow, since a node without CPUs is seldom put into a host for its speed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{borrow::ToOwned, format};

use super::facts::MemoryNodes;
use super::{Device, NodeFacts, Performance, TierName};
use crate::node::{NodeId, NodeSet};

/// Abstract distance of DRAM (`MEMTIER_ADISTANCE_DRAM`, include/linux/memory-tiers.h).
const DRAM_ADISTANCE: u64 = 4 * 128 + 64;
/// Abstract distances of one tier: 1 << `MEMTIER_CHUNK_BITS`.
const CHUNK_BITS: u32 = 7;
/// `N` of the tier of DRAM.
const DRAM_TIER: i64 = 4;
/// `N` of the tier that the kernel gives to dax memory of unknown speed (drivers/dax/kmem.c).
const DAX_TIER: i64 = 22;

/// Tiers, fast to slow, and why the nodes are where the kernel does not have them.
pub(super) struct Discovered {
    pub(super) tiers: Vec<(TierName, NodeSet)>,
    pub(super) why: BTreeMap<NodeId, String>,
}

pub(super) fn discover(nodes: &MemoryNodes<'_>) -> Discovered {
    let dram = DramTiers::of(nodes);
    let reference = nodes.iter().filter(|node| node.has_cpu).find_map(|node| node.performance);
    let mut groups: BTreeMap<i64, Vec<&NodeFacts>> = BTreeMap::new();
    let mut why = BTreeMap::new();
    for node in nodes.iter() {
        let (place, reason) =
            dram.kernel_place(node).map_or_else(|| dram.judge(node, reference), |place| (place, None));
        why.extend(reason.map(|reason| (node.id, reason)));
        groups.entry(place).or_default().push(node);
    }
    let tiers = groups
        .into_iter()
        .map(|(place, group)| {
            (name(&group, place < dram.fastest), group.iter().map(|node| node.id).collect())
        })
        .collect();
    Discovered { tiers, why }
}

fn name(group: &[&NodeFacts], above_dram: bool) -> TierName {
    if group.iter().any(|node| node.has_cpu) {
        return TierName::Dram;
    }
    let said: BTreeSet<_> = group.iter().map(|node| node.device.and_then(Device::tier_name)).collect();
    match (said.len(), said.first().copied().flatten()) {
        (1, Some(name)) => name,
        // CPU-less memory that is faster than DRAM is high-bandwidth memory, whether it says so or not.
        _ if above_dram => TierName::Hbm,
        _ => TierName::Slow,
    }
}

/// The kernel tiers that have CPUs, and those between them.
struct DramTiers {
    fastest: i64,
    slowest: i64,
}

impl DramTiers {
    fn of(nodes: &MemoryNodes<'_>) -> Self {
        let with_cpus =
            || nodes.iter().filter(|node| node.has_cpu).filter_map(|node| node.kernel_tier.map(i64::from));
        Self {
            fastest: with_cpus().min().unwrap_or(DRAM_TIER),
            slowest: with_cpus().max().unwrap_or(DRAM_TIER),
        }
    }

    /// Where the node is if the kernel says so, or its CPUs do. All of DRAM is in one place.
    fn kernel_place(&self, node: &NodeFacts) -> Option<i64> {
        if node.has_cpu {
            return Some(self.fastest);
        }
        node.kernel_tier.map(i64::from).filter(|tier| *tier < self.fastest || *tier > self.slowest)
    }

    /// Where a CPU-less node is of which the kernel does not know that it is not DRAM, and why if it is not.
    fn judge(&self, node: &NodeFacts, dram: Option<Performance>) -> (i64, Option<String>) {
        let below = |tier: i64| tier.max(self.slowest + 1);
        let above = |tier: i64| tier.min(self.fastest - 1);
        let ratio = node.performance.zip(dram).and_then(|(node, dram)| adistance(node, dram));
        if let Some(adistance) = ratio {
            let tier = i64::try_from(adistance >> CHUNK_BITS).unwrap_or(i64::MAX);
            let tenths = adistance.saturating_mul(10) / DRAM_ADISTANCE;
            let times = format!("{}.{}", tenths / 10, tenths % 10);
            if tier > DRAM_TIER {
                return (below(tier), Some(format!("HMAT says that it is {times} times as slow as DRAM")));
            }
            if tier < DRAM_TIER {
                return (
                    above(tier),
                    Some(format!("HMAT says that it is faster than DRAM ({times} times as slow)")),
                );
            }
        }
        match node.device {
            Some(Device::Hbm) => (above(DRAM_TIER - 1), Some("it is high-bandwidth memory".to_owned())),
            Some(Device::Pmem) => (below(DAX_TIER), Some("it is persistent memory".to_owned())),
            Some(Device::Cxl) => (below(DAX_TIER), Some("it is CXL memory".to_owned())),
            Some(Device::Dax) => (below(DAX_TIER), Some("it is dax memory".to_owned())),
            None if ratio.is_some() => (self.fastest, None),
            None => {
                let assumed = "it has no CPUs and nothing tells its speed (no HMAT, no dax device), so it is taken to be slow";
                (below(DAX_TIER), Some(assumed.to_owned()))
            }
        }
    }
}

/// The kernel's formula (`mt_perf_to_adistance`): latencies and inverse bandwidths, read plus write, relative to DRAM.
/// What only one of the two sides reports is left out; `None` if nothing remains.
fn adistance(node: Performance, dram: Performance) -> Option<u64> {
    let latency =
        sums([(node.read_latency_ns, dram.read_latency_ns), (node.write_latency_ns, dram.write_latency_ns)]);
    let bandwidth = sums([
        (node.read_bandwidth_mib, dram.read_bandwidth_mib),
        (node.write_bandwidth_mib, dram.write_bandwidth_mib),
    ]);
    if latency.is_none() && bandwidth.is_none() {
        return None;
    }
    let (node_latency, dram_latency) = latency.unwrap_or((1, 1));
    let (node_bandwidth, dram_bandwidth) = bandwidth.unwrap_or((1, 1));
    Some((DRAM_ADISTANCE * node_latency / dram_latency).saturating_mul(dram_bandwidth) / node_bandwidth)
}

/// The sums over the values that both sides have. Firmware writes zero for what it does not know.
fn sums(pairs: [(Option<u32>, Option<u32>); 2]) -> Option<(u64, u64)> {
    let mut both = pairs
        .into_iter()
        .filter_map(|(node, dram)| node.filter(|value| *value > 0).zip(dram.filter(|value| *value > 0)))
        .map(|(node, dram)| (u64::from(node), u64::from(dram)));
    let first = both.next()?;
    Some(both.fold(first, |sum, next| (sum.0 + next.0, sum.1 + next.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn performance(latency: u32, bandwidth: u32) -> Performance {
        Performance {
            read_latency_ns: Some(latency),
            write_latency_ns: Some(latency),
            read_bandwidth_mib: Some(bandwidth),
            write_bandwidth_mib: Some(bandwidth),
        }
    }

    #[test]
    fn abstract_distance_is_the_kernels() {
        let dram = performance(100, 100_000);
        let check = |node: Performance, expected: Option<u64>| assert_eq!(adistance(node, dram), expected);
        check(dram, Some(576));
        // Measured on 6.12 and 7.2: memory_tier28.
        check(performance(250, 40_000), Some(3600));
        check(performance(120, 400_000), Some(172));
        check(Performance { read_latency_ns: Some(200), ..Performance::default() }, Some(1152));
        check(Performance { write_bandwidth_mib: Some(50_000), ..Performance::default() }, Some(1152));
        check(performance(0, 0), None);
        check(Performance::default(), None);
        check(performance(u32::MAX, 1), Some(576 * u64::from(u32::MAX) / 100 * 100_000));
    }
}
