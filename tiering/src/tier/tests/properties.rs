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
    let distances =
        prop::collection::vec(prop::sample::select(vec![0, 10, 12, 17, 20, 20, 28, 80, 255]), 0..10);
    let flags = (any::<bool>(), prop::bool::weighted(0.9), any::<bool>());
    let any_node = (flags, kernel_tier, performances(), device, distances);
    prop::collection::vec(any_node, 1..10).prop_map(|nodes| {
        let facts = |(id, (flags, kernel_tier, performance, device, distances)): (u32, _)| {
            let distances: Vec<u32> = distances;
            let (has_cpu, memory, movable_only) = flags;
            NodeFacts {
                has_cpu: has_cpu || id == 0,
                memory: if memory || id == 0 { Bytes::mib(64) } else { Bytes::ZERO },
                kernel_tier,
                performance,
                device,
                movable_only,
                ..node(id, &distances)
            }
        };
        (0..).zip(nodes).map(facts).collect()
    })
}

/// The host's own tiers, and the same tiers configured.
fn maps(facts: &[NodeFacts]) -> [TierMap; 2] {
    let found = TierMap::discover(facts).unwrap();
    let same: Vec<_> = found
        .tiers()
        .iter()
        .map(|tier| TierOverride { name: tier.name, nodes: tier.nodes.clone() })
        .collect();
    let configured = TierMap::configured(facts, &same).unwrap();
    [found, configured]
}

proptest! {
    #[test]
    fn only_dram_demotes_and_only_to_slower_nodes_each_once(facts in hosts()) {
        for map in maps(&facts) {
            for node in map.nodes().iter() {
                let chain = map.demotion_targets(node);
                let targets: NodeSet = chain.iter().copied().collect();
                prop_assert_eq!(targets.len(), chain.len());
                prop_assert!(chain.is_empty() || targets == *map.slow_nodes());
                prop_assert!(chain.is_empty() || map.fast_nodes().contains(node));
                let rank = |node: NodeId| map.tier_of(node).map(|tier| tier.rank);
                prop_assert!(chain.iter().all(|to| rank(*to) > rank(node)));
                prop_assert!(chain.is_sorted_by_key(|to| rank(*to)));
                prop_assert!(facts.iter().all(|fact| fact.id != node || !fact.has_cpu || targets == *map.slow_nodes()));
            }
        }
    }

    #[test]
    fn first_targets_are_injective_when_slow_nodes_suffice(facts in hosts()) {
        for map in maps(&facts) {
            let Some(slow) = map.tiers().iter().find(|tier| tier.nodes.is_subset(map.slow_nodes())) else { continue };
            let first: Vec<_> = map.nodes().iter().filter_map(|from| map.demotion_target(from)).collect();
            let different: NodeSet = first.iter().copied().collect();
            prop_assert_eq!(different.len(), first.len().min(slow.nodes.len()));
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
    fn every_memory_node_is_in_one_tier_or_left_out_and_cpus_make_it_fast(facts in hosts()) {
        let map = TierMap::discover(&facts).unwrap();
        let with_memory: Vec<_> = facts.iter().filter(|node| !node.memory.is_zero()).collect();
        for node in &with_memory {
            let tiers = map.tiers().iter().filter(|tier| tier.nodes.contains(node.id)).count();
            prop_assert_eq!(tiers, usize::from(!map.left_out().contains_key(&node.id)));
            prop_assert!(tiers == 1 || !node.has_cpu);
            prop_assert!(!node.has_cpu || map.fast_nodes().contains(node.id));
            prop_assert!(map.fast_nodes().contains(map.promotion_target(node.id)));
        }
        prop_assert_eq!(map.nodes().len() + map.left_out().len(), with_memory.len());
        prop_assert_eq!(map.nodes(), &map.fast_nodes().union(map.slow_nodes()));
        prop_assert_eq!(map.tiers().iter().filter(|tier| tier.name == TierName::Dram).count(), 1);
    }
}
