//! Where pages of a node go.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Tier;
use super::facts::MemoryNodes;
use crate::node::{NodeId, NodeSet};

/// The slow nodes for every DRAM node, in the order in which they are to be filled: tier by tier, and in each its own
/// node ([`assign`]) before the others by distance. Nothing goes on from a slow node, so there is no cycle.
pub(super) fn demotion(
    dram: &NodeSet,
    slow: &[Tier],
    facts: &MemoryNodes<'_>,
) -> BTreeMap<NodeId, Vec<NodeId>> {
    let mut chains: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for tier in slow {
        let own = assign(dram, &tier.nodes, facts);
        for from in dram.iter() {
            let mut targets: Vec<_> = tier.nodes.iter().collect();
            targets.sort_by_key(|to| (own.get(&from) != Some(to), facts.distance(from, *to), *to));
            chains.entry(from).or_default().extend(targets);
        }
    }
    chains
}

/// One target in `lower` for every node of `upper`.
///
/// All pairs are taken by (distance, upper node, lower node), nearest first; a pair counts if its upper node has no
/// target yet and its lower node is nobody's. So each socket gets a lower node of its own where there are enough,
/// its near one unless that is still nearer to another, and equal distances pair the nodes in order of their
/// numbers. Upper nodes that remain share: each takes the nearest lower node, of equally near ones the least shared.
/// The sum of distances is not always the least possible; it is where each socket has its own near nodes.
fn assign(upper: &NodeSet, lower: &NodeSet, facts: &MemoryNodes<'_>) -> BTreeMap<NodeId, NodeId> {
    let mut pairs: Vec<_> = upper
        .iter()
        .flat_map(|from| lower.iter().map(move |to| (from, to)))
        .map(|(from, to)| (facts.distance(from, to), from, to))
        .collect();
    pairs.sort_unstable();
    let mut shared: BTreeMap<NodeId, usize> = lower.iter().map(|to| (to, 0)).collect();
    let mut targets = BTreeMap::new();
    for (_, from, to) in pairs {
        if let Some(count @ 0) = shared.get_mut(&to)
            && !targets.contains_key(&from)
        {
            *count = 1;
            targets.insert(from, to);
        }
    }
    for from in upper.iter() {
        if targets.contains_key(&from) {
            continue;
        }
        let nearest = shared.iter_mut().min_by_key(|(to, count)| (facts.distance(from, **to), **count, **to));
        if let Some((to, count)) = nearest {
            *count += 1;
            targets.insert(from, *to);
        }
    }
    targets
}

/// The nearest DRAM node of every slow node. Of equally near ones it is the one whose pages come here first, then the one
/// with the smallest number.
pub(super) fn promotion(
    dram: &NodeSet,
    slow: &NodeSet,
    demotion: &BTreeMap<NodeId, Vec<NodeId>>,
    facts: &MemoryNodes<'_>,
) -> BTreeMap<NodeId, NodeId> {
    let nearest = |from: NodeId| {
        let is_partner = |to: NodeId| demotion.get(&to).is_some_and(|chain| chain.first() == Some(&from));
        dram.iter().min_by_key(|to| (facts.distance(from, *to), !is_partner(*to), *to)).map(|to| (from, to))
    };
    slow.iter().filter_map(nearest).collect()
}
