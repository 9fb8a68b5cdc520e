//! Memory tiers of a host: which nodes, how fast, and where pages go from each.

mod discover;
mod facts;
mod name;
mod support;
mod targets;
#[cfg(test)]
mod tests;

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::node::{NodeId, NodeSet};
use facts::MemoryNodes;

pub use facts::{Device, NodeFacts, Performance};
pub use name::{TierName, TierParseError, TierRef};
pub use support::DemotionSupport;

/// Memory nodes of like speed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Place among the host's tiers; 0 is the fastest.
    pub rank: u8,
    /// What it is called; not always unique.
    pub name: TierName,
    /// Its nodes; at least one.
    pub nodes: NodeSet,
}

/// A tier as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierOverride {
    /// What it is called.
    pub name: TierName,
    /// Its nodes.
    pub nodes: NodeSet,
}

/// Why a host has no tiers, or not those that were configured.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TierError {
    /// No node has memory.
    #[error("no node has memory; check that /sys/devices/system/node is this host's")]
    NoMemory,
    /// Nodes have either CPUs or memory, so none is DRAM.
    #[error(
        "none of the nodes with memory ({0}) has CPUs, so none is DRAM and this host cannot be tiered; bring a node's CPUs online, or check has_cpu and has_memory in /sys/devices/system/node"
    )]
    NoCpus(NodeSet),
    /// The caller reported a node twice.
    #[error("{0} was reported twice; report each node once")]
    FactsTwice(NodeId),
    /// A configured tier without nodes.
    #[error("configured tier {0} has no nodes; name its nodes or remove it")]
    EmptyTier(TierName),
    /// A configured node that does not exist.
    #[error("configured tier {tier} names {node}, which this host does not have; remove it from the tier")]
    NodeNotThere {
        /// The tier that names it.
        tier: TierName,
        /// The node.
        node: NodeId,
    },
    /// A configured node that exists without memory.
    #[error(
        "configured tier {tier} names {node}, which has no memory; bring its memory online or remove it from the tier"
    )]
    NodeWithoutMemory {
        /// The tier that names it.
        tier: TierName,
        /// The node.
        node: NodeId,
    },
    /// A node in two configured tiers.
    #[error("{node} is in two configured tiers, {first} and {second}; keep it in one")]
    NodeTwice {
        /// The node.
        node: NodeId,
        /// The first tier that names it.
        first: TierName,
        /// The next one.
        second: TierName,
    },
    /// CPUs whose memory no configured tier has.
    #[error(
        "no configured tier has the memory of nodes {0}, which have CPUs; put them into dram (nodes without CPUs may be left out)"
    )]
    CpusLeftOut(NodeSet),
    /// A configured tier `dram` below every CPU.
    #[error(
        "configured tier dram (nodes {0}) has no node with CPUs; dram is the tier with CPUs, so call this one slow"
    )]
    DramWithoutCpus(NodeSet),
    /// A configured tier `slow` that is not below every tier with CPUs.
    #[error(
        "configured tier slow (nodes {0}) has CPUs or is listed before a tier that has; list tiers fast to slow, and call nodes with CPUs dram"
    )]
    SlowNotBelow(NodeSet),
    /// More tiers than ranks.
    #[error("{0} tiers are more than the 256 that have a rank; configure fewer")]
    TooManyTiers(usize),
}

/// The tiers of a host, and where pages go from each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierMap {
    tiers: Vec<Tier>,
    nodes: NodeSet,
    left_out: BTreeMap<NodeId, String>,
    fast: NodeSet,
    slow: NodeSet,
    first_dram: NodeId,
    demotion: BTreeMap<NodeId, Vec<NodeId>>,
    promotion: BTreeMap<NodeId, NodeId>,
    support: DemotionSupport,
}

impl TierMap {
    /// The tiers that the host itself tells, whatever the order of `facts`. Nodes without memory are left out.
    ///
    /// DRAM is the tier with CPUs. Other nodes are where the kernel's memory tiers put them; those that the kernel
    /// does not tell from DRAM are split off when HMAT says that they are at least 1.11 times as slow (or that much
    /// faster), when they are dax memory, or when nothing is known of them but that they have no CPUs and are not near;
    /// [`Self::demotion_support`] then says that the kernel does not know. Memory of devices is [left
    /// out](Self::left_out). Only DRAM nodes get demotion targets.
    pub fn discover(facts: &[NodeFacts]) -> Result<Self, TierError> {
        let facts = MemoryNodes::new(facts)?;
        let found = discover::discover(&facts);
        Self::build(found.tiers, found.left_out, &facts, &found.why)
    }

    /// The tiers of the configuration, fast to slow, instead of those that the host tells. Nodes that are in none are
    /// left out; nodes with CPUs must not be.
    pub fn configured(facts: &[NodeFacts], overrides: &[TierOverride]) -> Result<Self, TierError> {
        let known: NodeSet = facts.iter().map(|node| node.id).collect();
        let facts = MemoryNodes::new(facts)?;
        let mut taken: BTreeMap<NodeId, TierName> = BTreeMap::new();
        for &TierOverride { name: tier, ref nodes } in overrides {
            if nodes.is_empty() {
                return Err(TierError::EmptyTier(tier));
            }
            for node in nodes.iter() {
                if !known.contains(node) {
                    return Err(TierError::NodeNotThere { tier, node });
                }
                if !facts.ids().contains(node) {
                    return Err(TierError::NodeWithoutMemory { tier, node });
                }
                if let Some(first) = taken.insert(node, tier) {
                    return Err(TierError::NodeTwice { node, first, second: tier });
                }
            }
        }
        let left_out = facts.ids().difference(&taken.keys().copied().collect());
        let with_cpus: NodeSet = left_out.iter().filter(|node| facts.has_cpu(*node)).collect();
        if !with_cpus.is_empty() {
            return Err(TierError::CpusLeftOut(with_cpus));
        }
        let left_out =
            left_out.iter().map(|node| (node, "the configured tiers do not name it".to_owned())).collect();
        let has_cpu = |tier: &TierOverride| tier.nodes.iter().any(|node| facts.has_cpu(node));
        let slowest_with_cpus = overrides.iter().rposition(has_cpu);
        for (place, tier) in overrides.iter().enumerate() {
            match tier.name {
                TierName::Dram if !has_cpu(tier) => {
                    return Err(TierError::DramWithoutCpus(tier.nodes.clone()));
                }
                TierName::Slow if Some(place) <= slowest_with_cpus => {
                    return Err(TierError::SlowNotBelow(tier.nodes.clone()));
                }
                _ => {}
            }
        }
        let tiers = overrides.iter().map(|tier| (tier.name, tier.nodes.clone())).collect();
        Self::build(tiers, left_out, &facts, &BTreeMap::new())
    }

    fn build(
        tiers: Vec<(TierName, NodeSet)>,
        left_out: BTreeMap<NodeId, String>,
        facts: &MemoryNodes<'_>,
        why: &BTreeMap<NodeId, String>,
    ) -> Result<Self, TierError> {
        let too_many = TierError::TooManyTiers(tiers.len());
        let mut ranks = 0..=u8::MAX;
        let tiers: Option<Vec<_>> =
            tiers.into_iter().map(|(name, nodes)| Some(Tier { rank: ranks.next()?, name, nodes })).collect();
        let tiers = tiers.ok_or(too_many)?;
        let with_cpu = |tier: &Tier| tier.nodes.iter().find(|node| facts.has_cpu(*node));
        let slowest_with_cpus =
            tiers.iter().enumerate().rev().find_map(|(at, tier)| Some((at, with_cpu(tier)?)));
        let Some((slowest_with_cpus, first_dram)) = slowest_with_cpus else {
            return Err(TierError::NoCpus(facts.ids()));
        };
        let fast_tiers = slowest_with_cpus + 1;
        let fastest_with_cpus = tiers.iter().position(|tier| with_cpu(tier).is_some()).unwrap_or(0);
        let nodes_of =
            |tiers: &[Tier]| -> NodeSet { tiers.iter().flat_map(|tier| tier.nodes.iter()).collect() };
        let (fast, slow) = (nodes_of(&tiers[..fast_tiers]), nodes_of(&tiers[fast_tiers..]));
        let dram = nodes_of(&tiers[fastest_with_cpus..fast_tiers]);
        let demotion = targets::demotion(&dram, &tiers[fast_tiers..], facts);
        let promotion = targets::promotion(&dram, &slow, &demotion, facts);
        let reasons: BTreeMap<_, _> = why.iter().chain(&left_out).map(|(n, why)| (*n, why.clone())).collect();
        let support = support::of(&dram, &tiers[fast_tiers..], facts, &reasons);
        let nodes = nodes_of(&tiers);
        Ok(Self { tiers, nodes, left_out, fast, slow, first_dram, demotion, promotion, support })
    }

    /// The tiers, fast to slow; at least one.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The tier of the node; `None` if the node has no memory or is not there.
    #[must_use]
    pub fn tier_of(&self, node: NodeId) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.nodes.contains(node))
    }

    /// The nodes of all tiers: those with memory that are not left out.
    #[must_use]
    pub fn nodes(&self) -> &NodeSet {
        &self.nodes
    }

    /// Nodes with memory that are in no tier, and why: nothing is moved there, and what is there is not looked at.
    #[must_use]
    pub fn left_out(&self) -> &BTreeMap<NodeId, String> {
        &self.left_out
    }

    /// The nodes of the slowest tier with CPUs and of all faster tiers: what the kernel calls the top tier
    /// (`node_is_toptier`). At least one.
    #[must_use]
    pub fn fast_nodes(&self) -> &NodeSet {
        &self.fast
    }

    /// The nodes that are not fast; none on a host of one tier.
    #[must_use]
    pub fn slow_nodes(&self) -> &NodeSet {
        &self.slow
    }

    /// Whether there is a slow node: without one there is nothing to do but observe.
    #[must_use]
    pub fn has_lower_tier(&self) -> bool {
        !self.slow.is_empty()
    }

    /// The tier that is meant; the fastest where several have the name. `slow` is the fastest tier of slow nodes
    /// whatever its name, so that a policy need not know what a host has. `None` if this host has no such tier.
    #[must_use]
    pub fn resolve(&self, tier: TierRef) -> Option<&Tier> {
        let mut tiers = self.tiers.iter();
        match tier {
            TierRef::Rank(rank) => tiers.find(|tier| tier.rank == rank),
            TierRef::Name(TierName::Slow) => tiers.find(|tier| tier.nodes.is_subset(&self.slow)),
            TierRef::Name(name) => tiers.find(|tier| tier.name == name),
        }
    }

    /// Where pages of the node are demoted to as long as there is room: a node of the first slow tier, near, and its alone
    /// where there are enough. `None` if they stay.
    #[must_use]
    pub fn demotion_target(&self, node: NodeId) -> Option<NodeId> {
        self.demotion_targets(node).first().copied()
    }

    /// Where pages of the node may be demoted to, in the order in which these nodes are to be filled: all slow nodes, tier
    /// by tier. Empty but for DRAM nodes, so there is no cycle.
    #[must_use]
    pub fn demotion_targets(&self, node: NodeId) -> &[NodeId] {
        self.demotion.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Where pages of a slow node are promoted to: the nearest DRAM node. A fast node is its own; for a node that is
    /// not in the map it is the first DRAM node.
    #[must_use]
    pub fn promotion_target(&self, node: NodeId) -> NodeId {
        let fast = Some(node).filter(|node| self.fast.contains(*node));
        fast.or_else(|| self.promotion.get(&node).copied()).unwrap_or(self.first_dram)
    }

    /// Whether the kernel's own demotion goes where the map says.
    #[must_use]
    pub fn demotion_support(&self) -> &DemotionSupport {
        &self.support
    }
}
