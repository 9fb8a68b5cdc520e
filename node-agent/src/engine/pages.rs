//! The `pages` engine: finds mappings that nobody accessed and moves their pages with `move_pages(2)`, both ways.
//!
//! Its age source is `clear_refs` and `Referenced` of `smaps`, the one access information of single processes that every
//! kernel has. It speaks of whole mappings: a mapping with one page accessed is warm. Needs neither demotion nor memory
//! tiers of the kernel, so it works where the kernel sees one tier only.

mod mapping;
mod relocation;
mod step;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant as Clock};

use host::cgroup::{Cgroup, CgroupId, charged_processes};
use host::pages::maps::write_clear_refs;
use host::pages::movable::{Movable, MovablePages};
use host::pages::node_pfns::{NodePfns, read_node_pfns};
use host::pages::page_size;
use host::probe::ProbeReport;
use tiering::{Bytes, Instant, NodeSet};

use super::{EngineError, Found, Ground, Look, Moved, Order};
use mapping::{Mapping, Process, mapping, read_mappings, still_idle};
use relocation::Pass;
use step::Step;

/// Address space that is looked at page by page in one go: 16 MiB of small pages. A round may end after each.
const WINDOW: u64 = 16 << 20;

/// Where more is asked for than is known, what came since the last walk is looked for at most this often.
const WALK_AGAIN: Duration = Duration::from_secs(5);

/// Memory may come online at any time, and a frame of no node is not moved.
const PFNS_EVERY: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug)]
pub struct PagesEngine {
    movable: MovablePages,
    node_pfns: NodePfns,
    pfns_read: Instant,
    leaves: HashMap<CgroupId, Leaf>,
    /// Of cgroups whose tiers change: how far they were looked at.
    relocating: HashMap<CgroupId, Pass>,
}

/// What the last walk of one leaf found.
#[derive(Debug)]
struct Leaf {
    walked: Instant,
    /// Mappings by where they start.
    processes: BTreeMap<Process, BTreeMap<u64, Mapping>>,
}

impl PagesEngine {
    /// The engine, or what is missing for it.
    pub fn new(probe: &ProbeReport, ground: &Ground) -> Result<Self, String> {
        if !probe.page_moves() {
            return Err(
                "move_pages(2) and the page maps are not permitted, see `thermocline-agent probe`".to_owned()
            );
        }
        let words = |error: host::Error| error.to_string();
        Ok(Self {
            movable: MovablePages::open(&ground.roots.proc).map_err(words)?,
            node_pfns: read_node_pfns(&ground.roots.sys).map_err(words)?,
            pfns_read: Instant::default(),
            leaves: HashMap::new(),
            relocating: HashMap::new(),
        })
    }

    /// Reads, and walks where asked and time is left, the processes of each cgroup.
    pub fn look(
        &mut self,
        ground: &Ground,
        looks: &[Look<'_>],
        budget: Duration,
        now: Instant,
    ) -> Vec<Result<Found, EngineError>> {
        self.refresh_pfns(ground, now);
        let began = Clock::now();
        let look_at = |look: &Look<'_>| {
            let walk = look.walk && began.elapsed() < budget;
            self.look_at(ground, look.leaves, walk, now)
        };
        looks.iter().map(look_at).collect()
    }

    fn look_at(
        &mut self,
        ground: &Ground,
        leaves: &[Cgroup],
        walk: bool,
        now: Instant,
    ) -> Result<Found, EngineError> {
        let mut found = Found { walked: walk, aged: walk, ..Found::default() };
        if walk {
            for leaf in leaves {
                found.unread.extend(self.walk(ground, leaf, now)?.into_iter().map(EngineError::from));
            }
        }
        if walk {
            found.touched = ground.slow.iter().map(|node| (node, Bytes::ZERO)).collect();
        }
        for mapping in leaves.iter().flat_map(|leaf| self.mappings(leaf.id())) {
            let idle = now.since(mapping.idle_since);
            for (node, bytes) in &mapping.places {
                if ground.fast.contains(*node) {
                    let bytes = mapping.movable(*node, now);
                    found.ages.entry(*node).or_default().push((idle, bytes));
                } else if walk {
                    *found.touched.entry(*node).or_default() += (*bytes).min(mapping.referenced);
                }
            }
        }
        Ok(found)
    }

    /// Reads anew, now and then, which frames are of which node.
    fn refresh_pfns(&mut self, ground: &Ground, now: Instant) {
        if now.since(self.pfns_read) < PFNS_EVERY {
            return;
        }
        self.pfns_read = now;
        match read_node_pfns(&ground.roots.sys) {
            Ok(pfns) => self.node_pfns = pfns,
            Err(error) => {
                tracing::warn!(%error, "which memory is of which node can't be read; what was known is used");
            }
        }
    }

    /// Takes in which mappings were accessed since the last walk, and begins anew. What can't be read of a process is returned, and
    /// the process forgotten: the others are no worse for it.
    fn walk(
        &mut self,
        ground: &Ground,
        leaf: &Cgroup,
        now: Instant,
    ) -> Result<Vec<host::Error>, EngineError> {
        let proc = &ground.roots.proc;
        let pids = match charged_processes(leaf) {
            Err(error) if error.is_gone() => Vec::new(),
            pids => pids?,
        };
        let mut before = self.leaves.remove(&leaf.id()).map(|leaf| leaf.processes).unwrap_or_default();
        let (mut processes, mut unread) = (BTreeMap::new(), Vec::new());
        for pid in pids {
            let known = (|| {
                let process = Process::of(proc, pid)?;
                let known = before.remove(&process).unwrap_or_default();
                let mappings = read_mappings(proc, pid)?
                    .map(|(vma, places)| {
                        (vma.start, mapping(process, &vma, &places, known.get(&vma.start), ground, now))
                    })
                    .collect();
                write_clear_refs(&ground.roots.written_proc, pid)?;
                Ok::<_, host::Error>((process, mappings))
            })();
            match known {
                Ok((process, mappings)) => drop(processes.insert(process, mappings)),
                Err(error) if error.is_gone() => {}
                Err(error) => unread.push(error),
            }
        }
        self.leaves.insert(leaf.id(), Leaf { walked: now, processes });
        Ok(unread)
    }

    /// Walks leaves where less is known than is `wanted` at any age: a shortage does not wait for the next walk.
    fn look_for_more(&mut self, ground: &Ground, order: Order<'_>, now: Instant) -> Result<(), EngineError> {
        let known = order.leaves.iter().flat_map(|leaf| self.mappings(leaf.id()));
        if known.map(|mapping| mapping.movable(order.from, now)).sum::<Bytes>() >= order.bytes {
            return Ok(());
        }
        for leaf in order.leaves {
            if self.leaves.get(&leaf.id()).is_none_or(|known| now.since(known.walked) >= WALK_AGAIN) {
                self.walk(ground, leaf, now)?;
            }
        }
        Ok(())
    }

    fn mappings(&self, leaf: CgroupId) -> impl Iterator<Item = &Mapping> + '_ {
        let processes = self.leaves.get(&leaf).into_iter().flat_map(|leaf| leaf.processes.values());
        processes.flat_map(BTreeMap::values)
    }

    /// Forgets cgroups, and leaves of cgroups, that are not `managed`.
    pub fn retain(&mut self, managed: impl Fn(CgroupId) -> bool) {
        self.leaves.retain(|leaf, _| managed(*leaf));
        self.relocating.retain(|cgroup, _| managed(*cgroup));
    }

    /// Moves the mappings that are idle longest down, if they still are idle.
    pub fn demote(&mut self, ground: &Ground, order: Order<'_>, now: Instant) -> Result<Moved, EngineError> {
        self.refresh_pfns(ground, now);
        if order.age.is_zero() {
            self.look_for_more(ground, order, now)?;
        }
        let leaves = order.leaves.iter().flat_map(|leaf| self.mappings(leaf.id()));
        let old = |mapping: &&Mapping| now.since(mapping.idle_since) >= order.age;
        let mut cold: Vec<Mapping> = leaves
            .filter(|mapping| old(mapping) && !mapping.movable(order.from, now).is_zero())
            .cloned()
            .collect();
        cold.sort_by_key(|mapping| mapping.idle_since);
        if !order.age.is_zero() {
            let still = still_idle(ground, &cold);
            cold.retain(|mapping| mapping.touched || still.contains(&(mapping.process, mapping.start)));
        }
        let moved = self.move_mappings(ground, order, &mut cold);
        for mapping in &mut cold {
            if mapping.cursor >= mapping.end && mapping.found.is_zero() {
                mapping.stuck = Some(now);
            }
        }
        self.take_back(order.leaves, &cold);
        Ok(moved)
    }

    /// Moves mappings on slow nodes that so many walks on end found accessed up, the hottest first.
    pub fn promote(&mut self, ground: &Ground, order: Order<'_>, hot_walks: u32) -> Moved {
        let from = NodeSet::from_iter([order.from]);
        let leaves = order.leaves.iter().flat_map(|leaf| self.mappings(leaf.id()));
        let mut hot: Vec<Mapping> = leaves
            .filter(|mapping| mapping.hot_walks >= hot_walks && !mapping.on(&from).is_zero())
            .cloned()
            .collect();
        hot.sort_by_key(|mapping| std::cmp::Reverse((mapping.hot_walks, mapping.referenced)));
        let moved = self.move_mappings(ground, order, &mut hot);
        self.take_back(order.leaves, &hot);
        moved
    }

    /// Keeps how far mappings were looked at.
    fn take_back(&mut self, leaves: &[Cgroup], mappings: &[Mapping]) {
        for leaf in leaves {
            let Some(known) = self.leaves.get_mut(&leaf.id()) else { continue };
            for mapping in mappings {
                let known =
                    known.processes.get_mut(&mapping.process).and_then(|known| known.get_mut(&mapping.start));
                if let Some(known) = known {
                    known.clone_from(mapping);
                }
            }
        }
    }

    /// Moves what may be moved of these mappings, a window at a time, and notes how far it came.
    fn move_mappings(&mut self, ground: &Ground, order: Order<'_>, mappings: &mut [Mapping]) -> Moved {
        let mut step =
            Step { most: order.bytes, began: Clock::now(), budget: order.budget, moved: Moved::default() };
        let Some(to) = order.to.iter().copied().find(|to| order.allowed.contains(*to)) else {
            return Moved::refused("target_not_allowed");
        };
        let from = BTreeSet::from([order.from.0]);
        for mapping in mappings.iter_mut() {
            while mapping.cursor < mapping.end {
                if step.is_over() {
                    return step.moved;
                }
                let proc = &ground.roots.proc;
                if !mapping.process.lives(proc) {
                    mapping.cursor = mapping.end;
                    break;
                }
                let window = mapping.cursor..mapping.cursor.saturating_add(WINDOW).min(mapping.end);
                let pid = mapping.process.pid;
                let folios = match self.movable.of(proc, pid, window.clone(), &from, &self.node_pfns) {
                    Ok(folios) => folios,
                    Err(error) => {
                        if !error.is_gone() {
                            tracing::debug!(pid, %error, "pages stay where they are");
                            step.moved.count("error", 1);
                        }
                        Vec::new()
                    }
                };
                let before = step.moved.bytes;
                let all_tried = step.move_folios(pid, &folios, to, &mut mapping.touched);
                let went = step.moved.bytes - before;
                mapping.found += folios.iter().map(bytes).sum::<Bytes>();
                if let Some((_, here)) = mapping.places.iter_mut().find(|(node, _)| *node == order.from) {
                    *here -= went;
                }
                if !all_tried {
                    // What takes all the time and gives nothing is passed over, or it would be tried for ever.
                    if went.is_zero() && step.moved.bytes < step.most {
                        mapping.cursor = window.end;
                    }
                    return step.moved;
                }
                mapping.cursor = window.end;
            }
        }
        step.moved
    }
}

/// The size of a folio.
fn bytes(folio: &Movable) -> Bytes {
    Bytes(folio.pages.saturating_mul(page_size()))
}

#[cfg(test)]
mod tests;
