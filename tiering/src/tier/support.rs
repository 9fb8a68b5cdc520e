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
/// behind it. It follows the map if these next nodes are all in the map's next tier, and the map's next tier has no
/// node that the kernel would never demote to.
pub(super) fn of(
    tiers: &[Tier],
    demotion: &BTreeMap<NodeId, NodeId>,
    facts: &MemoryNodes<'_>,
    why: &BTreeMap<NodeId, String>,
) -> DemotionSupport {
    let mut steps = tiers.windows(2).flat_map(|pair| pair[0].nodes.iter().map(|from| (from, &pair[1].nodes)));
    let reason = steps
        .by_ref()
        .filter(|(from, _)| demotion.contains_key(from))
        .find_map(|(from, lower)| disagreement(from, lower, facts, why));
    match reason {
        None => DemotionSupport::Kernel,
        Some(reason) => DemotionSupport::AgentOnly { reason },
    }
}

fn disagreement(
    from: NodeId,
    lower: &NodeSet,
    facts: &MemoryNodes<'_>,
    why: &BTreeMap<NodeId, String>,
) -> Option<String> {
    let because = |node: NodeId| why.get(&node).or_else(|| why.get(&from)).map(|why| format!(": {why}"));
    let Some(tier) = facts.kernel_tier(from) else {
        return Some(format!("the kernel shows no memory tier for {from}"));
    };
    for to in lower.iter() {
        let because = because(to).unwrap_or_default();
        match facts.kernel_tier(to) {
            None => return Some(format!("the kernel shows no memory tier for {to}{because}")),
            Some(same) if same == tier => {
                return Some(format!(
                    "the kernel has {from} and {to} in one tier (memory_tier{tier}){because}"
                ));
            }
            Some(faster) if faster < tier => {
                return Some(format!(
                    "the kernel has {to} (memory_tier{faster}) above {from} (memory_tier{tier}){because}"
                ));
            }
            Some(_) => {}
        }
    }
    let next = facts.iter().filter_map(|node| node.kernel_tier).filter(|other| *other > tier).min()?;
    let preferred: NodeSet =
        facts.iter().filter(|node| node.kernel_tier == Some(next)).map(|node| node.id).collect();
    if preferred.is_subset(lower) {
        return None;
    }
    Some(format!(
        "the kernel demotes {from} to the nodes of memory_tier{next} ({preferred}), not to those of the next tier ({lower})"
    ))
}
