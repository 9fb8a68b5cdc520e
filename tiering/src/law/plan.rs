//! What to do about a host, and why.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::sample::CgroupKey;
use crate::memory_high;
use crate::node::NodeId;
use crate::policy::Mode;
use crate::reason::{DemoteReason, Limit};
use crate::units::{ByteRate, Bytes, Instant};

/// One plan for the whole host, to be carried out until the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When it was made.
    pub at: Instant,
    /// The nodes, by number.
    pub nodes: Vec<NodePlan>,
    /// Every known cgroup of which a sample was taken, by key. [`Plan::order`] says who acts first.
    pub cgroups: Vec<CgroupPlan>,
    /// What the kernel's own promotion may move per second to each node (`numa_balancing_promote_rate_limit_MBps`); zero where it is to
    /// stop for now, as all who have memory down are at their ceilings or pause, or nobody can make room for it. Only meant where the kernel promotes.
    pub kernel_promotion: ByteRate,
}

impl Plan {
    /// The plan of one cgroup.
    #[must_use]
    pub fn of(&self, key: CgroupKey) -> Option<&CgroupPlan> {
        self.cgroups.binary_search_by_key(&key, |plan| plan.key).ok().map(|i| &self.cgroups[i])
    }

    /// The plan of one node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodePlan> {
        self.nodes.binary_search_by_key(&node, |plan| plan.node).ok().map(|i| &self.nodes[i])
    }

    /// Indices of the cgroups that have something to move, most urgent first: headroom before ceilings before what is cold, older
    /// before younger.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        let rank = |plan: &CgroupPlan| {
            let most = plan.demote.iter().max_by_key(|demote| (demote.reason, demote.least_age));
            core::cmp::Reverse(most.map(|demote| (demote.reason, demote.least_age)))
        };
        let mut order: Vec<usize> = (0..self.cgroups.len()).filter(|i| !self.cgroups[*i].is_hold()).collect();
        order.sort_by_key(|i| rank(&self.cgroups[*i]));
        order
    }
}

/// What is known and wanted of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Which.
    pub node: NodeId,
    /// Free and reclaimable clean file memory: what the kernel can give.
    pub available: Bytes,
    /// What should be available: below, others' cold memory is demoted. Zero for slow nodes.
    pub headroom: Bytes,
    /// What is missing of the headroom.
    pub shortfall: Bytes,
    /// Room for what comes from the other tier: of a fast node above the line of promotion, of a slow one above its
    /// watermarks and a reserve.
    pub room: Bytes,
    /// Less than the kernel's low watermark is available: here, and only here, memory younger than `after` may have to go.
    pub urgent: bool,
    /// The age down to which memory is taken for headroom; `None` where nothing is missing.
    pub fill_age: Option<Duration>,
    /// What of the shortfall nobody can give at the ages that are allowed.
    pub unmet: Bytes,
}

/// Memory to be moved down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demote {
    /// From this fast node.
    pub from: NodeId,
    /// To these slow nodes, the first that takes it.
    pub to: Arc<[NodeId]>,
    /// At most this much, until the next plan.
    pub bytes: Bytes,
    /// Only memory at least this old; the coldest first. Zero where the age does not matter (a ceiling).
    pub least_age: Duration,
    /// Why.
    pub reason: DemoteReason,
}

/// Why memory should come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PromoteReason {
    /// It was touched on a slow node.
    Touched,
    /// What sank last is touched more than the policy allows.
    TooWarm,
    /// It is hotter than what stays in its place at the ceiling.
    Exchange,
}

impl PromoteReason {
    /// The reason as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Touched => "touched",
            Self::TooWarm => "too_warm",
            Self::Exchange => "exchange",
        }
    }

    /// Walks on end that must have found memory accessed for it to come up. What is touched once is only passed by, but where what sank
    /// last is touched too often that is enough.
    #[must_use]
    pub const fn hot_walks(self) -> u32 {
        match self {
            Self::Touched | Self::Exchange => 2,
            Self::TooWarm => 1,
        }
    }
}

/// Memory to be moved up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promote {
    /// From this slow node.
    pub from: NodeId,
    /// To this fast node.
    pub to: NodeId,
    /// At most this much, until the next plan.
    pub bytes: Bytes,
    /// At most this fast.
    pub rate: ByteRate,
    /// Why.
    pub reason: PromoteReason,
}

/// What to do about one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPlan {
    /// Which.
    pub key: CgroupKey,
    /// Whether it is to be carried out. Decisions are the same either way.
    pub mode: Mode,
    /// The age that counts as cold.
    pub effective_age: Duration,
    /// Anonymous bytes on fast nodes at least that old.
    pub cold: Bytes,
    /// What to move down, at most one order a fast node.
    pub demote: Vec<Demote>,
    /// What kept it from more.
    pub limit: Option<Limit>,
    /// What to move up, where we promote. Where the kernel does, nothing is promised.
    pub promote: Vec<Promote>,
    /// What kept it from more, where something on slow nodes is hot.
    pub promote_limit: Option<Limit>,
    /// The floor and ceiling that were applied.
    pub floor: Bytes,
    /// See `floor`.
    pub ceiling: Bytes,
    /// Cold bytes that the policy could move now but for rates and guards: without floor, bound memory, and what slow nodes
    /// have no room for.
    pub would_free: Bytes,
    /// What would be touched on slow nodes per minute if all that the policy says is cold were there, but for the floor: as much as was touched at
    /// such ages wherever it lay.
    pub would_touch: Bytes,
    /// Memory on fast nodes that does not move, as learned.
    pub bound: Bytes,
    /// Bytes touched on slow nodes per minute.
    pub touched_per_minute: Bytes,
    /// What the policy allows of it.
    pub allowed_touch: Bytes,
    /// `memory.high`.
    pub memory_high: memory_high::Step,
    /// Time between two walks of its page tables.
    pub walk_every: Duration,
    /// When to sample it again at the latest, for something is expected to change by then.
    pub look_again: Instant,
}

impl CgroupPlan {
    /// All bytes to move down.
    #[must_use]
    pub fn demoted(&self) -> Bytes {
        self.demote.iter().map(|demote| demote.bytes).sum()
    }

    /// All bytes to move up.
    #[must_use]
    pub fn promoted(&self) -> Bytes {
        self.promote.iter().map(|promote| promote.bytes).sum()
    }

    /// The weightiest reason to demote: headroom, ceiling, cold.
    #[must_use]
    pub fn reason(&self) -> DemoteReason {
        self.demote.iter().map(|demote| demote.reason).max().unwrap_or(DemoteReason::Cold)
    }

    /// Whether nothing is to be moved.
    #[must_use]
    pub fn is_hold(&self) -> bool {
        self.demote.is_empty() && self.promote.is_empty()
    }
}

impl fmt::Display for CgroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let demoted = self.demoted();
        let (would, observed) = match self.mode {
            Mode::Observe => ("would ", " (observed)"),
            Mode::Enforce => ("", ""),
        };
        match (demoted.is_zero(), self.reason()) {
            (true, _) => match self.limit {
                Some(limit) => write!(f, "hold: {limit}")?,
                None => write!(f, "hold")?,
            },
            (false, DemoteReason::Cold) => {
                write!(
                    f,
                    "{would}demote {demoted}{observed}: {} not accessed for {:?}",
                    self.cold, self.effective_age
                )?;
            }
            (false, DemoteReason::Ceiling) => {
                write!(f, "{would}demote {demoted}{observed}: over the ceiling of {}", self.ceiling)?;
            }
            (false, DemoteReason::Headroom) => {
                write!(f, "{would}demote {demoted}{observed}: the host is short of DRAM")?;
            }
        }
        if let (false, Some(limit)) = (demoted.is_zero(), self.limit) {
            write!(f, " ({limit})")?;
        }
        if let Some(first) = self.promote.first() {
            let why = match first.reason {
                PromoteReason::Touched => "touched on a slow node",
                PromoteReason::TooWarm => "what sank last is touched too often",
                PromoteReason::Exchange => "hotter than what is in its place",
            };
            write!(f, "; {would}promote {}{observed}: {why}", self.promoted())?;
        }
        match self.promote_limit {
            Some(Limit::PromotionOff) | None => Ok(()),
            Some(limit) => write!(f, " (promotion: {limit})"),
        }
    }
}
