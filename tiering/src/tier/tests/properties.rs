//! What holds for every host.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn performances() -> impl Strategy<Value = Option<Performance>> {
    let value = || prop::option::of(prop_oneof![Just(0), 50..500_u32, Just(u32::MAX)]);
    prop::option::of((value(), value(), value(), value()).prop_map(
        |(read, write, read_bandwidth, write_bandwidth)| Performance {
            read_latency_ns: read,
            write_latency_ns: write,
            read_bandwidth_mib: read_bandwidth,
            write_bandwidth_mib: write_bandwidth,
        },
    ))
}

/// Any host of up to ten nodes, node 0 with CPUs and memory; distances may be absent, local, asymmetric or equal.
fn hosts() -> impl Strategy<Value = Vec<NodeFacts>> {
    let device =
        prop::option::of(prop::sample::select(vec![Device::Pmem, Device::Cxl, Device::Hbm, Device::Dax]));
    let kernel_tier = prop::option::of(prop::sample::select(vec![0, 1, 4, 4, 4, 5, 22, 28]));
    let distances = prop::collection::vec(prop::sample::select(vec![0, 10, 17, 20, 20, 28, 255]), 0..10);
    let any_node = (any::<bool>(), prop::bool::weighted(0.9), kernel_tier, performances(), device, distances);
    prop::collection::vec(any_node, 1..10).prop_map(|nodes| {
        let facts = |(id, (has_cpu, memory, kernel_tier, performance, device, distances)): (u32, _)| {
            let distances: Vec<u32> = distances;
            NodeFacts {
                has_cpu: has_cpu || id == 0,
                memory: if memory || id == 0 { Bytes::mib(64) } else { Bytes::ZERO },
                kernel_tier,
                performance,
                device,
                ..node(id, &distances)
            }
        };
        (0..).zip(nodes).map(facts).collect()
    })
}

/// The host's own tiers, and the same tiers configured, where every tier but the lowest demotes.
fn maps(facts: &[NodeFacts]) -> [TierMap; 2] {
    let found = TierMap::discover(facts).unwrap();
    let same: Vec<_> = found
        .tiers()
        .iter()
        .map(|tier| TierOverride { name: tier.name, nodes: tier.nodes.clone() })
        .collect();
    let chained = TierMap::configured(facts, &same).unwrap();
    [found, chained]
}

proptest! {
    #[test]
    fn demotion_graph_is_acyclic(facts in hosts()) {
        for map in maps(&facts) {
            for &start in map.demotion_targets().keys() {
                let path = core::iter::successors(Some(start), |at| map.demotion_target(*at));
                prop_assert!(path.take(facts.len() + 1).count() <= facts.len(), "from {}", start);
            }
        }
    }

    #[test]
    fn sources_are_never_in_the_lowest_tier(facts in hosts()) {
        for map in maps(&facts) {
            let lowest = &map.tiers()[map.tiers().len() - 1];
            for (from, to) in map.demotion_targets() {
                prop_assert!(!lowest.nodes.contains(*from));
                let rank = |node: NodeId| map.tier_of(node).map(|tier| u32::from(tier.rank)).unwrap();
                prop_assert_eq!(rank(*from) + 1, rank(*to));
            }
        }
        let found = TierMap::discover(&facts).unwrap();
        prop_assert!(found.demotion_targets().keys().all(|from| found.fast_nodes().contains(*from)));
    }

    #[test]
    fn targets_are_injective_when_slow_nodes_suffice(facts in hosts()) {
        for map in maps(&facts) {
            for pair in map.tiers().windows(2) {
                let sources: Vec<_> = pair[0].nodes.iter().filter_map(|from| map.demotion_target(from)).collect();
                let different: NodeSet = sources.iter().copied().collect();
                prop_assert_eq!(different.len(), sources.len().min(pair[1].nodes.len()));
            }
        }
    }

    #[test]
    fn order_of_facts_does_not_matter(facts in hosts(), seed in any::<prop::sample::Index>()) {
        let mut other = facts.clone();
        other.rotate_left(seed.index(facts.len()));
        prop_assert_eq!(TierMap::discover(&facts), TierMap::discover(&other));
        other.reverse();
        prop_assert_eq!(TierMap::discover(&facts), TierMap::discover(&other));
    }

    #[test]
    fn every_memory_node_is_in_one_tier_and_cpus_make_it_fast(facts in hosts()) {
        let map = TierMap::discover(&facts).unwrap();
        let with_memory: Vec<_> = facts.iter().filter(|node| !node.memory.is_zero()).collect();
        for node in &with_memory {
            prop_assert_eq!(map.tiers().iter().filter(|tier| tier.nodes.contains(node.id)).count(), 1);
            prop_assert!(!node.has_cpu || map.fast_nodes().contains(node.id));
            prop_assert!(map.fast_nodes().contains(map.promotion_target(node.id)));
        }
        prop_assert_eq!(map.nodes().len(), with_memory.len());
        prop_assert_eq!(map.nodes(), &map.fast_nodes().union(map.slow_nodes()));
        prop_assert_eq!(map.tiers().iter().filter(|tier| tier.name == TierName::Dram).count(), 1);
    }
}
