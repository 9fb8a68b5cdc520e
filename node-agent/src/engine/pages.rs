//! The `pages` engine: finds mappings that nobody accessed and moves their pages with `move_pages(2)`, both ways.
//!
//! Its age source is `clear_refs` and `Referenced` of `smaps`, the one access information of single processes that every
//! kernel has. It speaks of whole mappings: a mapping with one page accessed is warm. Needs neither demotion nor memory
//! tiers of the kernel, so it works where the kernel sees one tier only.

mod step;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant as Clock};

use host::cgroup::{Cgroup, CgroupId};
use host::pages::maps::{Vma, read_smaps, write_clear_refs};
use host::pages::movable::{Movable, MovablePages};
use host::pages::node_pfns::{NodePfns, read_node_pfns};
use host::pages::numa_maps::read_numa_maps;
use host::pages::page_size;
use host::probe::ProbeReport;
use host::proc::read_start_time;
use tiering::{Bytes, Instant, NodeId, NodeSet};

use super::{EngineError, Found, Ground, Look, Moved, Order};
use step::Step;

/// Address space that is looked at page by page in one go: 16 MiB of small pages. A round may end after each.
const WINDOW: u64 = 16 << 20;

/// A mapping that is accessed in two walks on end is hot, not just passed by.
const HOT_WALKS: u32 = 2;

/// What can't be moved is offered again after this long: a child that shared it may have ended.
const STUCK_FOR: Duration = Duration::from_mins(10);

/// Where more is asked for than is known, what came since the last walk is looked for at most this often.
const WALK_AGAIN: Duration = Duration::from_secs(5);

/// A pass that was not gone on with for so long knows nothing of what was mapped since, and begins anew.
const PASS_FOR: Duration = Duration::from_mins(1);

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

/// All memory of a cgroup looked at once, for a change of its tiers: in as many rounds as it takes.
#[derive(Debug)]
struct Pass {
    from: NodeId,
    /// When it was gone on with.
    at: Instant,
    /// What is still to be looked at.
    left: Vec<Mapping>,
    moved: Bytes,
}

/// What a step of a change of tiers came to.
#[derive(Debug)]
pub struct RelocationStep {
    /// What was moved.
    pub moved: Moved,
    /// All was looked at once more, and nothing of it could be moved.
    pub stuck: bool,
}

/// What the last walk of one leaf found.
#[derive(Debug)]
struct Leaf {
    walked: Instant,
    /// Mappings by where they start.
    processes: BTreeMap<Process, BTreeMap<u64, Mapping>>,
}

/// A process: pids are used again, a pid and its start time are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: i32,
    start_time: u64,
}

impl Process {
    /// The process that has this pid now.
    fn of(proc: &Path, pid: i32) -> host::Result<Self> {
        Ok(Self { pid, start_time: read_start_time(proc, pid)? })
    }

    /// Whether it still has its pid. Once it ended, another's process may have it.
    fn lives(self, proc: &Path) -> host::Result<bool> {
        match Self::of(proc, self.pid) {
            Err(error) if error.is_gone() => Ok(false),
            now => Ok(now? == self),
        }
    }
}

/// What is known of one mapping.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    process: Process,
    start: u64,
    end: u64,
    /// No access is known since.
    idle_since: Instant,
    /// Walks on end that found it accessed.
    hot_walks: u32,
    referenced: Bytes,
    fast: Bytes,
    slow: Bytes,
    /// Since the last walk its pages were looked at up to here.
    cursor: u64,
    /// What of it, up to the cursor, could be moved.
    found: Bytes,
    /// Since the last walk it was touched by our own move: who else accessed it is not known until the next.
    touched: bool,
    /// When all of it was looked at page by page and none could be moved: shared with a child, say.
    stuck: Option<Instant>,
}

impl Mapping {
    /// What may be moved down, as far as is known.
    fn movable(&self, now: Instant) -> Bytes {
        let stuck = self.stuck.is_some_and(|looked| now.since(looked) < STUCK_FOR);
        if stuck || self.cursor >= self.end { Bytes::ZERO } else { self.fast }
    }
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
        let mut found = Found { slow_touched: walk.then_some(Bytes::ZERO), ..Found::default() };
        if walk {
            for leaf in leaves {
                found.unread.extend(self.walk(ground, leaf, now)?.into_iter().map(EngineError::from));
            }
        }
        for mapping in leaves.iter().flat_map(|leaf| self.mappings(leaf.id())) {
            found.ages.push((now.since(mapping.idle_since), mapping.movable(now)));
            if let Some(touched) = &mut found.slow_touched {
                *touched += mapping.slow.min(mapping.referenced);
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
        let pids = match leaf.read_cgroup_procs() {
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
    fn look_for_more(
        &mut self,
        ground: &Ground,
        leaves: &[Cgroup],
        wanted: Bytes,
        now: Instant,
    ) -> Result<(), EngineError> {
        let known = leaves.iter().flat_map(|leaf| self.mappings(leaf.id()));
        if known.map(|mapping| mapping.movable(now)).sum::<Bytes>() >= wanted {
            return Ok(());
        }
        for leaf in leaves {
            if self.leaves.get(&leaf.id()).is_none_or(|known| now.since(known.walked) >= WALK_AGAIN) {
                self.walk(ground, leaf, now)?;
            }
        }
        Ok(())
    }

    fn mappings(&self, leaf: CgroupId) -> impl Iterator<Item = Mapping> + '_ {
        let processes = self.leaves.get(&leaf).into_iter().flat_map(|leaf| leaf.processes.values());
        processes.flat_map(|mappings| mappings.values().copied())
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
            self.look_for_more(ground, order.leaves, order.bytes, now)?;
        }
        let leaves = order.leaves.iter().flat_map(|leaf| self.mappings(leaf.id()));
        let old = |mapping: &Mapping| now.since(mapping.idle_since) >= order.age;
        let mut cold: Vec<Mapping> =
            leaves.filter(|mapping| old(mapping) && !mapping.movable(now).is_zero()).collect();
        cold.sort_by_key(|mapping| mapping.idle_since);
        if !order.age.is_zero() {
            let still = still_idle(ground, &cold);
            cold.retain(|mapping| mapping.touched || still.contains(&(mapping.process, mapping.start)));
        }
        let from = ground.fast.intersection(order.allowed);
        let moved =
            self.move_mappings(ground, order, &mut cold, &from, |node| ground.tiers.demotion_target(node));
        for mapping in &mut cold {
            if mapping.cursor >= mapping.end && mapping.found.is_zero() {
                mapping.stuck = Some(now);
            }
        }
        self.take_back(order.leaves, &cold);
        Ok(moved)
    }

    /// Moves mappings on slow nodes that are hot up.
    pub fn promote(&mut self, ground: &Ground, order: Order<'_>) -> Result<Moved, EngineError> {
        let leaves = order.leaves.iter().flat_map(|leaf| self.mappings(leaf.id()));
        let mut hot: Vec<Mapping> =
            leaves.filter(|mapping| mapping.hot_walks >= HOT_WALKS && !mapping.slow.is_zero()).collect();
        hot.sort_by_key(|mapping| std::cmp::Reverse((mapping.hot_walks, mapping.referenced)));
        let from = ground.slow.intersection(order.allowed);
        let target = |node| Some(ground.tiers.promotion_target(node));
        let moved = self.move_mappings(ground, order, &mut hot, &from, target);
        self.take_back(order.leaves, &hot);
        Ok(moved)
    }

    /// Keeps how far mappings were looked at.
    fn take_back(&mut self, leaves: &[Cgroup], mappings: &[Mapping]) {
        for leaf in leaves {
            let Some(known) = self.leaves.get_mut(&leaf.id()) else { continue };
            for mapping in mappings {
                let known =
                    known.processes.get_mut(&mapping.process).and_then(|known| known.get_mut(&mapping.start));
                if let Some(known) = known {
                    *known = *mapping;
                }
            }
        }
    }

    /// Forgets how far the cgroup was looked at for a change of its tiers: it is over.
    pub fn end_relocation(&mut self, cgroup: CgroupId) {
        self.relocating.remove(&cgroup);
    }

    /// Moves anonymous memory of any age between nodes, for a change of the allowed tiers.
    pub fn relocate(
        &mut self,
        ground: &Ground,
        order: Order<'_>,
        from: NodeId,
        to: NodeId,
        now: Instant,
    ) -> Result<RelocationStep, EngineError> {
        self.refresh_pfns(ground, now);
        let id = order.cgroup.id();
        let goes_on = |pass: &Pass| pass.from == from && now.since(pass.at) < PASS_FOR;
        let mut pass = match self.relocating.remove(&id).filter(goes_on) {
            Some(pass) => Pass { at: now, ..pass },
            None => Pass { from, at: now, left: everything(ground, order.leaves)?, moved: Bytes::ZERO },
        };
        let from = NodeSet::from_iter([from]);
        let moved = self.move_mappings(ground, order, &mut pass.left, &from, |_| Some(to));
        pass.moved += moved.bytes;
        pass.left.retain(|mapping| mapping.cursor < mapping.end);
        let stuck = pass.left.is_empty() && pass.moved.is_zero();
        if !pass.left.is_empty() {
            self.relocating.insert(id, pass);
        }
        Ok(RelocationStep { moved, stuck })
    }

    /// Moves what may be moved of these mappings, a window at a time, and notes how far it came.
    fn move_mappings(
        &mut self,
        ground: &Ground,
        order: Order<'_>,
        mappings: &mut [Mapping],
        from: &NodeSet,
        target: impl Fn(NodeId) -> Option<NodeId>,
    ) -> Moved {
        let mut step =
            Step { most: order.bytes, began: Clock::now(), budget: order.budget, moved: Moved::default() };
        let mut ways = Vec::new();
        for node in from.iter() {
            match target(node) {
                Some(to) if order.allowed.contains(to) => ways.push((node, to)),
                Some(_) => step.moved.count("target_not_allowed", 1),
                None => {}
            }
        }
        for mapping in mappings.iter_mut() {
            while mapping.cursor < mapping.end {
                if step.is_over() {
                    return step.moved;
                }
                let proc = &ground.roots.proc;
                if !mapping.process.lives(proc).unwrap_or(false) {
                    mapping.cursor = mapping.end;
                    break;
                }
                let window = mapping.cursor..mapping.cursor.saturating_add(WINDOW).min(mapping.end);
                for (node, to) in &ways {
                    let nodes = BTreeSet::from([node.0]);
                    let pid = mapping.process.pid;
                    let folios = match self.movable.of(proc, pid, window.clone(), &nodes, &self.node_pfns) {
                        Ok(folios) => folios,
                        Err(error) => {
                            if !error.is_gone() {
                                tracing::debug!(pid, %error, "pages stay where they are");
                                step.moved.count("error", 1);
                            }
                            break;
                        }
                    };
                    let movable: Bytes = folios.iter().map(bytes).sum();
                    let before = step.moved.bytes;
                    let all_tried = step.move_folios(pid, &folios, *to, &mut mapping.touched);
                    let went = step.moved.bytes - before;
                    mapping.found += movable;
                    let here =
                        if ground.fast.contains(*node) { &mut mapping.fast } else { &mut mapping.slow };
                    *here -= went;
                    if !all_tried {
                        // What takes all the time and gives nothing is passed over, or it would be tried for ever.
                        if went.is_zero() && step.moved.bytes < step.most {
                            mapping.cursor = window.end;
                        }
                        return step.moved;
                    }
                }
                mapping.cursor = window.end;
            }
        }
        step.moved
    }
}

/// Every mapping that may hold movable memory.
fn everything(ground: &Ground, leaves: &[Cgroup]) -> Result<Vec<Mapping>, EngineError> {
    let none = Instant::default();
    let mut all = Vec::new();
    for leaf in leaves {
        let pids = match leaf.read_cgroup_procs() {
            Err(error) if error.is_gone() => continue,
            pids => pids?,
        };
        for pid in pids {
            let proc = &ground.roots.proc;
            let (process, mappings) = match Process::of(proc, pid)
                .and_then(|process| Ok((process, read_mappings(proc, pid)?)))
            {
                Ok(known) => known,
                Err(error) => {
                    if !error.is_gone() {
                        tracing::warn!(cgroup = %leaf.path(), pid, %error, "can't be read; its memory moves with cpuset.mems");
                    }
                    continue;
                }
            };
            all.extend(mappings.map(|(vma, places)| mapping(process, &vma, &places, None, ground, none)));
        }
    }
    Ok(all)
}

/// Mappings of a process that may hold movable memory, and their pages by node.
fn read_mappings(
    proc: &Path,
    pid: i32,
) -> host::Result<impl Iterator<Item = (Vma, BTreeMap<u32, u64>)> + use<>> {
    let mut places = read_numa_maps(proc, pid)?;
    let vmas = read_smaps(proc, pid)?.into_iter().filter(Vma::may_hold_movable);
    Ok(vmas.filter_map(move |vma| places.remove(&vma.start).map(|places| (vma, places))))
}

/// One mapping after a walk.
fn mapping(
    process: Process,
    vma: &Vma,
    places: &BTreeMap<u32, u64>,
    known: Option<&Mapping>,
    ground: &Ground,
    now: Instant,
) -> Mapping {
    let on = |nodes: &NodeSet| {
        let counts = places.iter().filter(|(node, _)| nodes.contains(NodeId(**node)));
        counts.map(|(_, pages)| Bytes(pages.saturating_mul(page_size()))).sum::<Bytes>()
    };
    // A mapping that moved or grew since is as good as new.
    let known = known.filter(|known| known.end == vma.end);
    let by_us = known.is_some_and(|known| known.touched);
    let referenced = if by_us { Bytes::ZERO } else { Bytes(vma.referenced.unwrap_or(0)) };
    let (idle_since, hot_walks) = match known {
        Some(known) if referenced.is_zero() => (known.idle_since, 0),
        Some(known) => (now, known.hot_walks.saturating_add(1)),
        None => (now, u32::from(!referenced.is_zero())),
    };
    Mapping {
        process,
        start: vma.start,
        end: vma.end,
        idle_since,
        hot_walks,
        referenced,
        fast: on(&ground.fast) - Bytes(vma.lazyfree.unwrap_or(0)),
        slow: on(&ground.slow),
        cursor: vma.start,
        found: Bytes::ZERO,
        touched: false,
        stuck: known.filter(|_| referenced.is_zero()).and_then(|known| known.stuck),
    }
}

/// Of these mappings, those that were not accessed since the last walk. What can't be read is not among them.
fn still_idle(ground: &Ground, mappings: &[Mapping]) -> BTreeSet<(Process, u64)> {
    let mut idle = BTreeSet::new();
    let processes: BTreeSet<Process> = mappings.iter().map(|mapping| mapping.process).collect();
    for process in processes {
        let vmas = read_smaps(&ground.roots.proc, process.pid).unwrap_or_default();
        idle.extend(vmas.iter().filter(|vma| vma.referenced == Some(0)).map(|vma| (process, vma.start)));
    }
    idle
}

/// The size of a folio.
fn bytes(folio: &Movable) -> Bytes {
    Bytes(folio.pages.saturating_mul(page_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fixture::{cgroup, ground, write};

    /// An idle process with one mapping of 4 pages, 3 of them on node 0 and 1 on node 1.
    fn process(dir: &Path, pid: i32) {
        let file = |name: &str| format!("proc/{pid}/{name}");
        let smaps = "10000-14000 rw-p 00000000 00:00 0 \nReferenced: 0 kB\nVmFlags: rd wr \n";
        write(
            dir,
            &[
                (&file("stat"), &format!("{pid} (sh) S {}100 0\n", "0 ".repeat(18))),
                (&file("smaps"), smaps),
                (&file("numa_maps"), "10000 default anon=4 N0=3 N1=1\n"),
                (&file("clear_refs"), ""),
                (&file("pagemap"), ""),
            ],
        );
    }

    /// The engine on a host whose one cgroup `/pod` has these processes.
    fn engine(dir: &Path, pids: &[i32]) -> (PagesEngine, Ground, Cgroup) {
        let node = "sys/devices/system/node";
        let procs: Vec<String> = pids.iter().map(i32::to_string).collect();
        write(
            dir,
            &[
                ("proc/kpageflags", ""),
                ("cgroup/pod/cgroup.procs", &procs.join("\n")),
                ("sys/devices/system/memory/block_size_bytes", "8000000\n"),
                (&format!("{node}/online"), "0-1\n"),
                (&format!("{node}/has_cpu"), "0\n"),
                (&format!("{node}/has_memory"), "0-1\n"),
                (&format!("{node}/node0/memory0/state"), ""),
                (&format!("{node}/node1/memory1/state"), ""),
            ],
        );
        for pid in pids {
            process(dir, *pid);
        }
        let ground = ground(dir);
        let engine = PagesEngine {
            movable: MovablePages::open(&ground.roots.proc).unwrap(),
            node_pfns: read_node_pfns(&ground.roots.sys).unwrap(),
            pfns_read: Instant::default(),
            leaves: HashMap::new(),
            relocating: HashMap::new(),
        };
        (engine, ground, cgroup(dir, "/pod"))
    }

    /// One look at the cgroup, after so many seconds.
    fn look(engine: &mut PagesEngine, ground: &Ground, pod: &Cgroup, budget: Duration, at: u64) -> Found {
        let looks = [Look { leaves: std::slice::from_ref(pod), walk: true }];
        let now = Instant(Duration::from_secs(at));
        engine.look(ground, &looks, budget, now).pop().unwrap().unwrap()
    }

    const TIME: Duration = Duration::from_mins(1);

    #[test]
    fn a_process_that_can_t_be_read_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, ground, pod) = engine(dir.path(), &[7, 8, 9]);
        assert_eq!(look(&mut engine, &ground, &pod, TIME, 0).unread.len(), 0);
        write(dir.path(), &[("proc/8/smaps", "nonsense\n")]);
        let found = look(&mut engine, &ground, &pod, TIME, 60);
        let age = Duration::from_mins(1);
        assert_eq!(found.ages, [(age, Bytes(3 * page_size())); 2], "their ages go on");
        assert_eq!(found.unread.len(), 1);
        assert_eq!(found.slow_touched, Some(Bytes::ZERO));
    }

    #[test]
    fn memory_that_comes_online_is_known_within_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, ground, pod) = engine(dir.path(), &[]);
        let frame = 5 * 0x800_0000 / page_size();
        write(dir.path(), &[("sys/devices/system/node/node1/memory5/state", "")]);
        look(&mut engine, &ground, &pod, TIME, 59);
        assert_eq!(engine.node_pfns.node_of(frame), None);
        look(&mut engine, &ground, &pod, TIME, 60);
        assert_eq!(engine.node_pfns.node_of(frame), Some(1));
    }

    #[test]
    fn no_walk_is_begun_when_the_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, ground, pod) = engine(dir.path(), &[7]);
        assert_eq!(look(&mut engine, &ground, &pod, Duration::ZERO, 0).slow_touched, None);
        assert_eq!(look(&mut engine, &ground, &pod, TIME, 0).slow_touched, Some(Bytes::ZERO));
        let found = look(&mut engine, &ground, &pod, Duration::ZERO, 60);
        assert_eq!(found.ages.len(), 1, "what is known is told");
    }

    #[test]
    fn a_relocation_is_stuck_when_all_was_looked_at_and_nothing_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, ground, pod) = engine(dir.path(), &[7, 8]);
        let mut relocate = |budget, at| {
            let order = Order {
                cgroup: &pod,
                leaves: std::slice::from_ref(&pod),
                allowed: ground.tiers.nodes(),
                bytes: Bytes::mib(1),
                age: Duration::ZERO,
                budget,
            };
            let now = Instant(Duration::from_secs(at));
            engine.relocate(&ground, order, NodeId(0), NodeId(1), now).unwrap().stuck
        };
        assert!(!relocate(Duration::ZERO, 0), "no time to look at anything");
        process(dir.path(), 9);
        assert!(relocate(TIME, 1), "no page of theirs is there");
    }

    #[test]
    fn a_relocation_goes_on_where_it_was_unless_it_ended_or_is_long_ago() {
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, ground, pod) = engine(dir.path(), &[7]);
        let leaves = std::slice::from_ref(&pod);
        let order = Order {
            cgroup: &pod,
            leaves,
            allowed: ground.tiers.nodes(),
            bytes: Bytes::mib(1),
            age: Duration::ZERO,
            budget: Duration::ZERO,
        };
        let left = |engine: &mut PagesEngine, at| {
            let now = Instant(Duration::from_secs(at));
            engine.relocate(&ground, order, NodeId(0), NodeId(1), now).unwrap();
            engine.relocating[&pod.id()].left.len()
        };
        assert_eq!(left(&mut engine, 0), 1);
        write(dir.path(), &[("cgroup/pod/cgroup.procs", "7\n8\n")]);
        process(dir.path(), 8);
        assert_eq!(left(&mut engine, 30), 1, "goes on");
        assert_eq!(left(&mut engine, 90), 2, "long ago");
        write(dir.path(), &[("cgroup/pod/cgroup.procs", "7\n")]);
        engine.end_relocation(pod.id());
        assert_eq!(left(&mut engine, 91), 1, "ended");
    }

    #[test]
    fn a_process_that_ended_is_not_the_next_of_its_pid() {
        let proc = tempfile::tempdir().unwrap();
        let dir = proc.path().join("7");
        let started = |ticks: u64| {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("stat"), format!("7 (sh) S {}{ticks} 0\n", "0 ".repeat(18))).unwrap();
        };
        started(100);
        let process = Process::of(proc.path(), 7).unwrap();
        assert!(process.lives(proc.path()).unwrap());
        started(200);
        assert!(!process.lives(proc.path()).unwrap(), "the next");
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(!process.lives(proc.path()).unwrap(), "none");
    }
}
