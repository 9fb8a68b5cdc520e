//! Whether the kernel's own demotion goes where these tiers say.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use super::Tier;
use super::facts::MemoryNodes;
use crate::node::{NodeId, NodeSet};

/// Who can demote along the tiers of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemotionSupport {
    /// The kernel's tiers agree: with `numa/demotion_enabled`, reclaim demotes where the map says.
    Kernel,
    /// The kernel would demote nothing, or elsewhere; only engines that name the target node (`move_pages`, DAMON)
    /// follow the map.
    AgentOnly {
        /// What the kernel does instead and why the map differs; for people.
        reason: String,
    },
}

/// The kernel demotes to the nodes of the next greater `memory_tierN`, and when these are full to any of the tiers
/// behind it. It follows the map if these next nodes are all in the map's first slow tier, there is no slow node that it
/// would never demote to, and none of its lower tiers has a node that the map does not have below DRAM.
pub(super) fn of(
    dram: &NodeSet,
    slow: &[Tier],
    facts: &MemoryNodes<'_>,
    why: &BTreeMap<NodeId, String>,
) -> DemotionSupport {
    let Some(lower) = slow.first() else { return DemotionSupport::Kernel };
    let all_slow: NodeSet = slow.iter().flat_map(|tier| tier.nodes.iter()).collect();
    let mut steps = dram.iter().filter_map(|from| disagreement(from, &lower.nodes, &all_slow, facts, why));
    match steps.next() {
        None => DemotionSupport::Kernel,
        Some(reason) => DemotionSupport::AgentOnly { reason },
    }
}

/// Why the kernel would never demote from one node to the other.
fn not_below(
    from: NodeId,
    to: NodeId,
    facts: &MemoryNodes<'_>,
    why: &BTreeMap<NodeId, String>,
) -> Option<String> {
    let because = why.get(&to).or_else(|| why.get(&from)).map(|why| format!(": {why}")).unwrap_or_default();
    let Some(tier) = facts.kernel_tier(from) else {
        return Some(format!("the kernel shows no memory tier for {from}"));
    };
    match facts.kernel_tier(to) {
        None => Some(format!("the kernel shows no memory tier for {to}{because}")),
        Some(same) if same == tier => {
            Some(format!("the kernel has {from} and {to} in one tier (memory_tier{tier}){because}"))
        }
        Some(faster) if faster < tier => Some(format!(
            "the kernel has {to} (memory_tier{faster}) above {from} (memory_tier{tier}){because}"
        )),
        Some(_) => None,
    }
}

fn disagreement(
    from: NodeId,
    lower: &NodeSet,
    slow: &NodeSet,
    facts: &MemoryNodes<'_>,
    why: &BTreeMap<NodeId, String>,
) -> Option<String> {
    if let Some(reason) = slow.iter().find_map(|to| not_below(from, to, facts, why)) {
        return Some(reason);
    }
    let tier = facts.kernel_tier(from)?;
    let below = || facts.iter().filter_map(|node| Some((node.id, node.kernel_tier.filter(|it| *it > tier)?)));
    if let Some((node, other)) = below().find(|(node, _)| !slow.contains(*node)) {
        let because = why.get(&node).map(|why| format!(": {why}")).unwrap_or_default();
        return Some(format!(
            "the kernel would also demote {from} to {node} (memory_tier{other}), which is not below DRAM here{because}"
        ));
    }
    let next = below().map(|(_, tier)| tier).min()?;
    let preferred: NodeSet = below().filter(|(_, tier)| *tier == next).map(|(node, _)| node).collect();
    if preferred.is_subset(lower) {
        return None;
    }
    Some(format!(
        "the kernel demotes {from} to the nodes of memory_tier{next} ({preferred}), not to those of the next tier ({lower})"
    ))
}
