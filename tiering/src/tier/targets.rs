//! Where pages of a node go.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Tier;
use super::facts::MemoryNodes;
use crate::node::{NodeId, NodeSet};

/// A target for every node of the first `sources` tiers, in the tier right below its own; so there is no cycle.
pub(super) fn demotion(tiers: &[Tier], sources: usize, facts: &MemoryNodes<'_>) -> BTreeMap<NodeId, NodeId> {
    tiers.windows(2).take(sources).flat_map(|pair| assign(&pair[0].nodes, &pair[1].nodes, facts)).collect()
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

/// The nearest fast node of every slow node. Of equally near ones it is the one whose pages come here, then one of the
/// slower tier, then the one with the smallest number.
pub(super) fn promotion(
    tiers: &[Tier],
    slow: &NodeSet,
    demotion: &BTreeMap<NodeId, NodeId>,
    facts: &MemoryNodes<'_>,
) -> BTreeMap<NodeId, NodeId> {
    let fast: Vec<_> = tiers
        .iter()
        .flat_map(|tier| tier.nodes.iter().map(|node| (node, tier.rank)))
        .filter(|(node, _)| !slow.contains(*node))
        .collect();
    let nearest = |from: NodeId| {
        let partner = |to: NodeId| demotion.get(&to) == Some(&from);
        let near =
            |(to, rank): &(NodeId, u8)| (facts.distance(from, *to), !partner(*to), Reverse(*rank), *to);
        fast.iter().copied().min_by_key(near).map(|(to, _)| (from, to))
    };
    slow.iter().filter_map(nearest).collect()
}
