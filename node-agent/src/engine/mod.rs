//! Engines: ways to find what is cold and to move it.
//!
//! docs/engines.md says which engine guarantees what on which kernel.

#[cfg(test)]
pub(crate) mod fixture;
mod lru_gen;
mod pages;
mod reclaim;

use std::collections::BTreeMap;
use std::time::Duration;

use host::cgroup::{Cgroup, CgroupId, CgroupRoot};
use host::probe::ProbeReport;
use host::roots::Roots;
use host::swap::{read_has_swap, read_may_swap};
use tiering::law::Stayed;
use tiering::{Bytes, EngineChoice, Instant, NodeId, NodeSet, TierMap};

pub use lru_gen::LruGenEngine;
pub use pages::PagesEngine;
pub use reclaim::ReclaimEngine;

use crate::state::State;
use crate::tunables::TunableError;

/// What engines work with: the host, and the tiers of its nodes.
#[derive(Debug)]
pub struct Ground {
    /// Mount points.
    pub roots: Roots,
    /// Tiers.
    pub tiers: TierMap,
    /// Where demotion comes from.
    pub fast: NodeSet,
    /// Where demotion goes to.
    pub slow: NodeSet,
}

impl Ground {
    /// The nodes of the other speed that memory of a node goes to, best first.
    #[must_use]
    pub fn targets(&self, node: NodeId) -> Vec<NodeId> {
        if self.fast.contains(node) {
            return self.tiers.demotion_targets(node).to_vec();
        }
        let nearest = self.tiers.promotion_target(node);
        std::iter::once(nearest).chain(self.fast.iter().filter(|other| *other != nearest)).collect()
    }

    /// A host of these tiers.
    #[must_use]
    pub fn new(roots: Roots, tiers: TierMap) -> Self {
        Self { fast: tiers.fast_nodes().clone(), slow: tiers.slow_nodes().clone(), roots, tiers }
    }
}

/// One cgroup to be looked at.
#[derive(Debug)]
pub struct Look<'a> {
    /// The cgroups that its memory is charged to.
    pub leaves: &'a [Cgroup],
    /// Whether to look anew who accessed what, which clears accessed bits; otherwise what is known is read.
    pub walk: bool,
}

/// What an engine knows of one cgroup.
#[derive(Debug, Default)]
pub struct Found {
    /// Least ages and anonymous bytes by fast node.
    pub ages: BTreeMap<NodeId, Vec<(Duration, Bytes)>>,
    /// Whether page tables were walked; not where no time was left.
    pub walked: bool,
    /// Whether those of fast nodes were, in this look or since the one before.
    pub aged: bool,
    /// After a walk: bytes touched since the walk before, by slow node.
    pub touched: BTreeMap<NodeId, Bytes>,
    /// Whether the engine knows no ages: the kernel chooses.
    pub blind: bool,
    /// Anonymous and shared memory on the kernel's lists by node, where the engine comes to know it anyway. While it does
    /// not change, `memory.numa_stat` is not worth its price.
    pub listed: Option<BTreeMap<NodeId, Bytes>>,
    /// Why single processes could not be looked at. Nothing is known of them.
    pub unread: Vec<EngineError>,
}

/// What an engine is asked to move.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The managed cgroup, with what is apart in it.
    pub cgroup: &'a Cgroup,
    /// The cgroups that its memory is charged to.
    pub leaves: &'a [Cgroup],
    /// Nodes that the cgroup may use.
    pub allowed: &'a NodeSet,
    /// The node that memory is to leave.
    pub from: NodeId,
    /// Where it is to go, the best first.
    pub to: &'a [NodeId],
    /// At most this much, overshot by one folio.
    pub bytes: Bytes,
    /// Demotion: only memory at least this old; zero takes the coldest first, whatever its age.
    pub age: Duration,
    /// Others need the room: a walk of its own does not wait until the last is long ago.
    pub is_urgent: bool,
    /// Stop beginning new steps after this much time.
    pub budget: Duration,
}

/// What was moved.
#[derive(Debug, Default)]
pub struct Moved {
    /// Bytes, as verified by the kernel's own counts.
    pub bytes: Bytes,
    /// Bytes that were tried, those that moved among them.
    pub tried: Bytes,
    /// Pages that were asked for and stayed, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Page tables were walked for it: the next regular walk is to come as long after that as after any.
    pub walked: bool,
}

impl Moved {
    /// Nothing was tried, for this reason.
    pub(crate) fn refused(reason: &'static str) -> Self {
        Self { failed: BTreeMap::from([(reason, 1)]), ..Self::default() }
    }

    /// Why what was tried and did not move stayed, as far as the kernel told.
    #[must_use]
    pub fn stayed(&self) -> Stayed {
        let most = self.failed.iter().max_by_key(|(_, pages)| **pages).map(|(reason, _)| *reason);
        match most {
            Some("no_memory") => Stayed::TargetFull,
            Some("touched") => Stayed::Touched,
            Some("busy" | "not_movable" | "shared") => Stayed::Bound,
            _ => Stayed::Unknown,
        }
    }

    /// Counts pages that stayed.
    pub(crate) fn count(&mut self, reason: &'static str, pages: u64) {
        if pages > 0 {
            *self.failed.entry(reason).or_default() += pages;
        }
    }
}

/// Why an engine could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel refused.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// A kernel-wide setting.
    #[error(transparent)]
    Tunable(#[from] TunableError),
}

impl EngineError {
    /// Whether the cgroup is gone, which is no error.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Host(error) | Self::Tunable(TunableError::Host(error)) if error.is_gone())
    }

    /// The kernel's errno.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Host(error) | Self::Tunable(TunableError::Host(error)) => error.errno(),
            Self::Tunable(_) => None,
        }
    }
}

/// A way to find and move pages.
#[derive(Debug)]
pub enum Engine {
    /// Generations of the multi-generational LRU.
    LruGen(Box<LruGenEngine>),
    /// Page scan and `move_pages(2)`.
    Pages(Box<PagesEngine>),
    /// `memory.reclaim`.
    Reclaim(ReclaimEngine),
}

impl Engine {
    /// The engine that was asked for, or the best that works here: `lru-gen`, then `reclaim`. `pages` holds up the processes it
    /// looks at, so it works only where it is asked for by name.
    ///
    /// # Errors
    /// In words, what is missing.
    pub fn choose(choice: EngineChoice, probe: &ProbeReport, ground: &Ground) -> Result<Self, String> {
        let lru_gen = || LruGenEngine::new(probe, ground).map(|engine| Self::LruGen(Box::new(engine)));
        let pages = || {
            if probe.page_moves() && !probe.pages() {
                // It would move what it is told to, but never find anything cold.
                return Err(
                    "clear_refs of processes is not permitted, see `thermocline-agent probe`".to_owned()
                );
            }
            PagesEngine::new(probe, ground).map(|engine| Self::Pages(Box::new(engine)))
        };
        let reclaim = || ReclaimEngine::new(probe, ground).map(Self::Reclaim);
        match choice {
            EngineChoice::LruGen => lru_gen(),
            EngineChoice::Pages => pages(),
            EngineChoice::Reclaim => reclaim(),
            EngineChoice::Auto => lru_gen().or_else(|first| {
                reclaim().map_err(|second| {
                    let by_name = if pages().is_ok() { "; `engine: Pages` would work" } else { "" };
                    format!("no engine works here by itself: lru-gen: {first}; reclaim: {second}{by_name}")
                })
            }),
        }
    }

    /// What only looks, where nothing can be moved.
    ///
    /// # Errors
    /// In words, what is missing.
    pub fn observing(probe: &ProbeReport) -> Result<Self, String> {
        LruGenEngine::observing(probe).map(|engine| Self::LruGen(Box::new(engine)))
    }

    /// Whether it learns by accessed bits of pages, which it clears.
    #[must_use]
    pub fn reads_accessed_bits(&self) -> bool {
        match self {
            Self::LruGen(_) | Self::Pages(_) => true,
            Self::Reclaim(_) => false,
        }
    }

    /// Whether its walk of one fast node would hide what is touched on another, while the kernel clears accessed bits of directories.
    #[must_use]
    pub fn hides_touches(&self) -> bool {
        matches!(self, Self::LruGen(engine) if engine.hides_touches())
    }

    /// Its name, as users see it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LruGen(_) => "lru-gen",
            Self::Pages(_) => "pages",
            Self::Reclaim(_) => "reclaim",
        }
    }

    /// Whether an order is preceded by a walk of its own where the last is long enough ago.
    #[must_use]
    pub fn walks_for_orders(&self) -> bool {
        matches!(self, Self::LruGen(engine) if engine.is_careful())
    }

    /// What is known of each cgroup, in their order: one that can't be looked at hides no other. No walk is begun after
    /// `budget`.
    ///
    /// # Errors
    /// What is read once for all of them can't be read.
    pub fn look(
        &mut self,
        ground: &Ground,
        looks: &[Look<'_>],
        budget: Duration,
        now: Instant,
    ) -> Result<Vec<Result<Found, EngineError>>, EngineError> {
        if looks.is_empty() {
            return Ok(Vec::new());
        }
        Ok(match self {
            Self::LruGen(engine) => engine.look(ground, looks, budget, now)?.into_iter().map(Ok).collect(),
            Self::Pages(engine) => engine.look(ground, looks, budget, now),
            Self::Reclaim(engine) => looks.iter().map(|look| engine.look(ground, look)).collect(),
        })
    }

    /// Whether moving memory of this cgroup down would also swap out what is down already. What can't be read counts as so.
    #[must_use]
    pub fn swaps_out(&self, ground: &Ground, root: &CgroupRoot, cgroup: &Cgroup) -> bool {
        match self {
            Self::LruGen(_) | Self::Pages(_) => false,
            Self::Reclaim(_) => {
                let may_swap = || {
                    Ok::<_, host::Error>(read_has_swap(&ground.roots.proc)? && read_may_swap(root, cgroup)?)
                };
                may_swap().unwrap_or(true)
            }
        }
    }

    /// Less cold memory on one node than this, of a cgroup of so many leaves, costs more to move than that saves.
    #[must_use]
    pub fn least(&self, leaves: usize) -> Bytes {
        match self {
            Self::LruGen(engine) => Bytes(engine.least().0 * leaves as u64),
            Self::Pages(_) | Self::Reclaim(_) => Bytes::ZERO,
        }
    }

    /// Forgets what is known of cgroups that are not of interest any more.
    pub fn retain(&mut self, is_managed: impl Fn(CgroupId) -> bool) {
        match self {
            Self::LruGen(engine) => engine.retain(is_managed),
            Self::Pages(engine) => engine.retain(is_managed),
            Self::Reclaim(_) => {}
        }
    }

    /// Moves cold memory down.
    pub fn demote(
        &mut self,
        ground: &Ground,
        state: &mut State,
        order: Order<'_>,
        now: Instant,
    ) -> Result<Moved, EngineError> {
        match self {
            Self::LruGen(engine) => engine.demote(ground, state, order, now),
            Self::Pages(engine) => engine.demote(ground, order, now),
            Self::Reclaim(engine) => engine.demote(ground, state, order),
        }
    }
}

/// Anonymous bytes of a cgroup on some nodes.
pub(crate) fn anon_on(cgroup: &Cgroup, nodes: &NodeSet) -> host::Result<Bytes> {
    let Some(stat) = cgroup.read_memory_numa_stat()? else { return Ok(Bytes::ZERO) };
    Ok(nodes.iter().filter_map(|node| stat.anon.get(&node.0)).map(|bytes| Bytes(*bytes)).sum())
}

/// Whether the kernel would demote from `from` only to nodes that the cgroup may use. Before 6.16 or so it does not look at
/// that itself, and falls back to any of the nodes below.
pub(crate) fn targets_allowed(ground: &Ground, allowed: &NodeSet, from: NodeId) -> bool {
    let targets = ground.tiers.demotion_targets(from);
    !targets.is_empty() && targets.iter().all(|target| allowed.contains(*target))
}

/// Whether a kernel that looks at `cpuset.mems` itself finds a node to demote to.
pub(crate) fn any_target_allowed(ground: &Ground, allowed: &NodeSet, from: NodeId) -> bool {
    ground.tiers.demotion_targets(from).iter().any(|target| allowed.contains(*target))
}
