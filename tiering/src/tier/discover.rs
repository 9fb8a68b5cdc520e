//! Tiers from what the host says.
//!
//! Every node gets a place on the kernel's own scale (the `N` of `memory_tierN`), or is left out:
//!
//! 1. Nodes with CPUs are DRAM. Where the kernel spreads them over several tiers, all from the fastest to the
//!    slowest of these are DRAM: a page is never demoted onto another socket's memory.
//! 2. Memory of a device, as a GPU's, is left out: its owner's driver put it online, movable and far away, and nobody
//!    said that pods may fill it. Only an operator's `tiers` can name it.
//! 3. A CPU-less node that the kernel puts outside the DRAM tiers stays where the kernel puts it, but for dax memory of
//!    which HMAT knows that it is not slower: kernels before 6.7 put all of it in one default tier below DRAM.
//! 4. A CPU-less node in the DRAM tiers, or in none, is judged by HMAT with the kernel's formula, then by its device.
//! 5. With neither: where the kernel tells tiers apart, its word is that this is DRAM; so it is right beside CPUs.
//!    Farther ordinary memory of a host whose kernel knows one tier is taken to be slow, and memory that was put online
//!    later is left out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{borrow::ToOwned, format};
use core::cmp::Ordering;

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
/// Nodes of one socket are nearer than this: 11 to 14 with sub-NUMA clusters. Its PMEM is at 17, other sockets at 20 and more.
const OTHER_SOCKET: u32 = 15;
/// Firmware gives this distance and more to memory of devices: GPUs of AC922 and GH200 are at 80.
const DEVICE: u32 = 80;

/// Tiers, fast to slow, and why nodes are not where the kernel has them.
pub(super) struct Discovered {
    pub(super) tiers: Vec<(TierName, NodeSet)>,
    pub(super) why: BTreeMap<NodeId, String>,
    pub(super) left_out: BTreeMap<NodeId, String>,
}

/// Where a node is.
enum Place {
    /// In the tier of this number, and why if it is not the kernel's.
    Tier(i64, Option<String>),
    /// In none, and why.
    LeftOut(&'static str),
}

pub(super) fn discover(nodes: &MemoryNodes<'_>) -> Discovered {
    let dram = DramTiers::of(nodes);
    let mut groups: BTreeMap<i64, Vec<&NodeFacts>> = BTreeMap::new();
    let (mut why, mut left_out) = (BTreeMap::new(), BTreeMap::new());
    for node in nodes.iter() {
        match dram.place(node, nodes) {
            Place::Tier(place, reason) => {
                why.extend(reason.map(|reason| (node.id, reason)));
                groups.entry(place).or_default().push(node);
            }
            Place::LeftOut(reason) => drop(left_out.insert(node.id, reason.to_owned())),
        }
    }
    let tiers = groups
        .into_iter()
        .map(|(place, group)| {
            (name(&group, place < dram.fastest), group.iter().map(|node| node.id).collect())
        })
        .collect();
    Discovered { tiers, why, left_out }
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
    /// What HMAT says of DRAM.
    performance: Option<Performance>,
    /// Whether the kernel has memory in other tiers, too.
    kernel_tells_apart: bool,
}

impl DramTiers {
    fn of(nodes: &MemoryNodes<'_>) -> Self {
        let with_cpus =
            || nodes.iter().filter(|node| node.has_cpu).filter_map(|node| node.kernel_tier.map(i64::from));
        let fastest = with_cpus().min().unwrap_or(DRAM_TIER);
        let slowest = with_cpus().max().unwrap_or(DRAM_TIER);
        let mut others = nodes.iter().filter_map(|node| node.kernel_tier.map(i64::from));
        Self {
            fastest,
            slowest,
            performance: nodes.iter().filter(|node| node.has_cpu).find_map(|node| node.performance),
            kernel_tells_apart: others.any(|tier| tier < fastest || tier > slowest),
        }
    }

    fn place(&self, node: &NodeFacts, nodes: &MemoryNodes<'_>) -> Place {
        // All of DRAM is in one place.
        if node.has_cpu {
            return Place::Tier(self.fastest, None);
        }
        let distance = nodes.distance_to_cpus(node.id);
        let far = distance.is_some_and(|distance| distance >= DEVICE);
        if node.movable_only && far && node.device.is_none() {
            return Place::LeftOut(
                "it looks like memory of a device, such as a GPU: far from all CPUs, put online as movable, and no dax device",
            );
        }
        let kernel = node.kernel_tier.map(i64::from);
        if let Some(tier) = kernel.filter(|tier| *tier < self.fastest || *tier > self.slowest) {
            let by_default = tier == DAX_TIER && tier > self.slowest;
            let not_slower = self.by_hmat(node).filter(|(place, _)| by_default && *place <= self.slowest);
            let (place, reason) = not_slower.map_or((tier, None), |(place, why)| (place, Some(why)));
            return Place::Tier(place, reason);
        }
        if let Some((place, why)) = self.by_hmat(node) {
            return Place::Tier(place, (place < self.fastest || place > self.slowest).then_some(why));
        }
        let below = DAX_TIER.max(self.slowest + 1);
        if let Some(device) = node.device {
            let (place, why) = match device {
                Device::Hbm => (self.fastest - 1, "it is high-bandwidth memory"),
                Device::Pmem => (below, "it is persistent memory"),
                Device::Cxl => (below, "it is CXL memory"),
                Device::Dax => (below, "it is dax memory"),
            };
            return Place::Tier(place, Some(why.to_owned()));
        }
        if far {
            Place::LeftOut(
                "it has no CPUs, nothing tells its speed, and it is as far away as memory of a device, such as a GPU",
            )
        } else if distance.is_some_and(|distance| distance < OTHER_SOCKET) {
            Place::Tier(self.fastest, None)
        } else if node.movable_only {
            Place::LeftOut(
                "it has no CPUs, nothing tells its speed, and it was put online later as movable, as drivers do with memory of devices",
            )
        } else if kernel.is_some() && self.kernel_tells_apart {
            Place::Tier(self.fastest, None)
        } else {
            let assumed = "it has no CPUs and nothing tells its speed (no HMAT, no dax device), so it is taken to be slow";
            Place::Tier(below, Some(assumed.to_owned()))
        }
    }

    /// Where HMAT puts a CPU-less node, and what it says.
    fn by_hmat(&self, node: &NodeFacts) -> Option<(i64, String)> {
        let adistance = adistance(node.performance?, self.performance?)?;
        let tier = i64::try_from(adistance >> CHUNK_BITS).unwrap_or(i64::MAX);
        let tenths = adistance.saturating_mul(10) / DRAM_ADISTANCE;
        let times = format!("{}.{}", tenths / 10, tenths % 10);
        Some(match tier.cmp(&DRAM_TIER) {
            Ordering::Greater => {
                (tier.max(self.slowest + 1), format!("HMAT says that it is {times} times as slow as DRAM"))
            }
            Ordering::Less => (
                tier.min(self.fastest - 1),
                format!("HMAT says that it is faster than DRAM ({times} times as slow)"),
            ),
            Ordering::Equal => (self.fastest, "HMAT says that it is as fast as DRAM".to_owned()),
        })
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
