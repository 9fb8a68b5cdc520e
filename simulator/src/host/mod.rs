//! A host in virtual time: nodes, pods, their pages, and what the kernel does of itself.
//!
//! Memory is counted groups of pages ([`pages`]), never single ones, so that hours of a host of terabytes take seconds.
//! A tick is: pods come and go and grow, files are read, pages are touched, hint faults promote, kswapd works. In between a law
//! acts by the calls of [`abi`], which are what the kernel offers.

mod abi;
mod ledger;
mod node;
mod pages;
mod reclaim;
mod touch;

use std::ops::Range;
use std::time::Duration;

use tiering::Policy;

use crate::world::{Activity, FileSpec, HostSpec, Kind, NodeKind, PAGE, Part, World};

pub use abi::{Evicted, GenerationSize, NumaStat, Walked};
use ledger::GroupUse;
pub use ledger::{Minute, PodLedger, Window};
pub use node::Node;
use pages::{Cell, GENERATIONS, Generations};

/// Pages with one heat, of one set of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pod: usize,
    /// Index of the set in the pod's spec.
    set: usize,
    part: Part,
    kind: Kind,
    /// By node.
    cells: Vec<[Cell; GENERATIONS]>,
    /// Chance that a page is touched in a tick, where that is at random.
    chance: f64,
    /// In use since.
    active_since: Option<Duration>,
    /// When its use began last.
    began: Duration,
    /// When some of it was touched last.
    touched: Option<Duration>,
    usage: GroupUse,
}

impl Group {
    fn pages(&self) -> u64 {
        self.cells.iter().flatten().map(|cell| cell.pages).sum()
    }

    fn on(&self, node: usize) -> u64 {
        self.cells[node].iter().map(|cell| cell.pages).sum()
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its name in the world's file, without a number.
    pub spec_name: String,
    /// Index of its spec.
    pub spec: usize,
    /// Whether the agent manages it.
    pub managed: bool,
    /// Its policy.
    pub policy: Policy,
    /// `memory.low`, in pages.
    pub low: u64,
    /// Its fast node, as an index.
    pub home: usize,
    /// Whether it runs.
    pub runs: bool,
    max: Option<u64>,
    starts: Duration,
    ends: Option<Duration>,
    groups: Range<usize>,
    /// By node.
    lru: Vec<Generations>,
    files: Option<FileSpec>,
    /// File pages by node and generation.
    cache: Vec<[u64; GENERATIONS]>,
    /// File pages reclaimed on each node since it was last aged.
    reclaimed: Vec<u64>,
    /// What the kernel counts.
    counts: Counts,
    /// What a reader sees of it.
    reported: Counts,
    /// Updates that a reader may not see yet.
    pending: u64,
    flushed: Duration,
    /// What really happened.
    pub ledger: PodLedger,
}

/// What the kernel counts of a cgroup, in pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    anon: Vec<u64>,
    file: Vec<u64>,
    unevictable: Vec<u64>,
    promoted: u64,
    demoted: u64,
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The time.
    pub now: Duration,
    /// One tick.
    pub tick: Duration,
    /// CPUs.
    pub cpus: u32,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Whether the kernel's own reclaim demotes.
    pub demotion_enabled: bool,
    /// Whether hint faults promote.
    pub numa_balancing: bool,
    /// Pages a second that hint faults promote to a node, at most.
    pub promote_rate: f64,
    groups: Vec<Group>,
    sets: Vec<Vec<crate::world::SetSpec>>,
    random: fastrand::Rng,
}

impl Host {
    /// The host of a world. Seed 0 is the world as it is written; others move sizes and rates by up to a tenth, and the
    /// times at which sets are touched by up to a period.
    #[must_use]
    pub fn new(world: &World, seed: u64) -> Self {
        let HostSpec { cpus, ref nodes, demotion_enabled, numa_balancing, promote_rate_limit } = world.host;
        let mut host = Self {
            now: Duration::ZERO,
            tick: world.tick.0,
            cpus,
            nodes: Node::of(nodes, cpus),
            pods: Vec::new(),
            demotion_enabled,
            numa_balancing,
            promote_rate: promote_rate_limit.0.0 as f64 / PAGE as f64,
            groups: Vec::new(),
            sets: world.pods.iter().map(|pod| pod.memory.clone()).collect(),
            random: fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed),
        };
        let fast: Vec<usize> = (0..nodes.len()).filter(|node| nodes[*node].kind == NodeKind::Fast).collect();
        for (spec, pod) in world.pods.iter().enumerate() {
            for number in 0..pod.count {
                let home = match pod.node {
                    Some(id) => nodes.iter().position(|node| node.id == id),
                    None => Some(fast[number as usize % fast.len()]),
                };
                host.add_pod(world, spec, number, home.unwrap_or(fast[0]), seed != 0);
            }
        }
        host.come_and_go();
        host
    }

    fn add_pod(&mut self, world: &World, spec: usize, number: u32, home: usize, jitters: bool) {
        let pod = &world.pods[spec];
        let first = self.groups.len();
        for (set, set_spec) in pod.memory.iter().enumerate() {
            let mut jitter = || if jitters { 0.9 + 0.2 * self.random.f64() } else { 1.0 };
            let (size, rate) = (jitter(), jitter());
            let offset = if jitters { self.random.f64() } else { 1.0 };
            let pages =
                (set_spec.up_to.map_or(set_spec.size.0.0, |up_to| up_to.0.0) as f64 * size) as u64 / PAGE;
            for part in set_spec.touched.parts(pages.max(1), rate, offset) {
                let chance = match part.activity {
                    Activity::Random(rate) => 1.0 - (-rate * self.tick.as_secs_f64()).exp(),
                    Activity::Never | Activity::AtOnce { .. } => 0.0,
                };
                self.groups.push(Group {
                    pod: self.pods.len(),
                    set,
                    part,
                    kind: set_spec.kind,
                    cells: vec![[Cell::default(); GENERATIONS]; self.nodes.len()],
                    chance,
                    active_since: None,
                    began: Duration::ZERO,
                    touched: None,
                    usage: GroupUse::default(),
                });
            }
        }
        let nodes = self.nodes.len();
        let counts = Counts {
            anon: vec![0; nodes],
            file: vec![0; nodes],
            unevictable: vec![0; nodes],
            promoted: 0,
            demoted: 0,
        };
        self.pods.push(Pod {
            name: if pod.count == 1 { pod.name.clone() } else { format!("{}-{number}", pod.name) },
            spec_name: pod.name.clone(),
            spec,
            managed: pod.managed,
            policy: pod.policy().unwrap_or_default(),
            low: pod.memory_low.map_or(0, |low| low.0.0 / PAGE),
            home,
            runs: false,
            max: pod.memory_max.map(|max| max.0.0 / PAGE),
            starts: pod.starts.map_or(Duration::ZERO, |starts| starts.0),
            ends: pod.ends.map(|ends| ends.0),
            groups: first..self.groups.len(),
            lru: vec![Generations::new(Duration::ZERO); nodes],
            files: pod.files.clone(),
            cache: vec![[0; GENERATIONS]; nodes],
            reclaimed: vec![0; nodes],
            counts: counts.clone(),
            reported: counts,
            pending: 0,
            flushed: Duration::ZERO,
            ledger: PodLedger::default(),
        });
    }

    /// One tick.
    pub fn step(&mut self) {
        self.now += self.tick;
        self.come_and_go();
        self.read_files();
        self.touch();
        for node in 0..self.nodes.len() {
            self.kswapd(node, false);
        }
        self.flush_counts();
        self.keep_ledger();
    }

    /// Pods start and end, sets are allocated, grow and are freed.
    fn come_and_go(&mut self) {
        for pod in 0..self.pods.len() {
            let Pod { starts, ends, runs, .. } = self.pods[pod];
            let lives = self.now >= starts && ends.is_none_or(|ends| self.now < ends);
            if lives && !runs {
                self.pods[pod].runs = true;
                self.pods[pod].lru.fill(Generations::new(self.now));
            }
            if !lives && runs {
                self.pods[pod].runs = false;
                self.drop_cache_of(pod);
            }
            if lives || runs {
                for group in self.pods[pod].groups.clone() {
                    self.resize(group, lives);
                }
            }
        }
    }

    /// Brings a group to the size that its set has now.
    fn resize(&mut self, group: usize, lives: bool) {
        let Group { pod, set, part, .. } = self.groups[group];
        let spec = &self.sets[self.pods[pod].spec][set];
        let age = self.now.saturating_sub(self.pods[pod].starts);
        let allocated = spec.allocated.map_or(Duration::ZERO, |at| at.0);
        let is_there = lives && age >= allocated && spec.freed.is_none_or(|freed| age < freed.0);
        let wanted = match (is_there, spec.grows) {
            (false, _) => 0,
            (true, None) => part.pages,
            (true, Some(rate)) => {
                let full = spec.up_to.map_or(u64::MAX, |up_to| up_to.0.0);
                let grown = rate.0.0 as f64 * age.saturating_sub(allocated).as_secs_f64();
                let bytes = (spec.size.0.0 as f64 + grown).min(full as f64);
                let whole = spec.up_to.map_or(spec.size.0.0, |up_to| up_to.0.0).max(1) as f64;
                (part.pages as f64 * bytes / whole) as u64
            }
        };
        let has = self.groups[group].pages();
        if wanted > has {
            self.allocate(group, wanted - has);
        } else if wanted < has {
            self.free(group, has - wanted);
        }
    }

    /// Allocates pages as the page allocator does: on the nearest node that stays above its low watermark, kswapd making room
    /// by dropping cache meanwhile; else down to the min watermarks.
    fn allocate(&mut self, group: usize, mut pages: u64) {
        let Group { pod, .. } = self.groups[group];
        let home = self.pods[pod].home;
        if let Some(max) = self.pods[pod].max {
            let over = (self.usage(pod) + pages).saturating_sub(max);
            let dropped = self.reclaim_cache_of(pod, over);
            pages -= (over - dropped).min(pages);
        }
        for emergency in [false, true] {
            for node in self.nodes[home].by_distance.clone() {
                if pages == 0 {
                    return;
                }
                let line = if emergency { self.nodes[node].min } else { self.nodes[node].low };
                if self.nodes[node].above(line) < pages {
                    self.make_room(node, pages);
                }
                let here = self.nodes[node].above(line).min(pages);
                if here == 0 {
                    continue;
                }
                let slot = Generations::slot(self.pods[pod].lru[node].max_seq);
                // The first touch is what allocates.
                self.put(group, node, slot, Cell { pages: here, young: here, seen: here, ..Cell::default() });
                self.groups[group].usage.minute_seen += here;
                self.nodes[node].used += here;
                pages -= here;
            }
        }
        self.pods[pod].ledger.refused += pages;
    }

    /// Frees pages of all nodes and generations alike.
    fn free(&mut self, group: usize, mut pages: u64) {
        let all = self.groups[group].pages();
        let wanted = pages;
        for node in 0..self.nodes.len() {
            for slot in 0..GENERATIONS {
                let has = self.groups[group].cells[node][slot].pages;
                let share = (u128::from(has) * u128::from(wanted)).div_ceil(u128::from(all.max(1)));
                let taken = self.take(group, node, slot, u64::try_from(share).unwrap_or(u64::MAX).min(pages));
                self.nodes[node].used -= taken.pages;
                pages -= taken.pages;
            }
        }
    }

    /// Takes pages out of a cell, and out of the cgroup's counts.
    fn take(&mut self, group: usize, node: usize, slot: usize, pages: u64) -> Cell {
        let taken = self.groups[group].cells[node][slot].take(pages, &mut self.random);
        self.count(group, node, -(taken.pages.cast_signed()));
        taken
    }

    /// Puts pages into a cell, and into the cgroup's counts.
    fn put(&mut self, group: usize, node: usize, slot: usize, cell: Cell) {
        self.groups[group].cells[node][slot].put(cell);
        self.count(group, node, cell.pages.cast_signed());
    }

    fn count(&mut self, group: usize, node: usize, pages: i64) {
        let Group { pod, kind, .. } = self.groups[group];
        let pod = &mut self.pods[pod];
        let counts = match kind {
            Kind::Anonymous | Kind::Pinned | Kind::Locked => &mut pod.counts.anon,
            Kind::Shared => &mut pod.counts.file,
        };
        counts[node] = counts[node].saturating_add_signed(pages);
        if kind == Kind::Locked {
            pod.counts.unevictable[node] = pod.counts.unevictable[node].saturating_add_signed(pages);
        }
        pod.pending += pages.unsigned_abs();
    }

    /// All of a cgroup's pages.
    fn usage(&self, pod: usize) -> u64 {
        let Counts { anon, file, .. } = &self.pods[pod].counts;
        anon.iter().chain(file).sum()
    }

    /// A reader of a cgroup's counts sees what was flushed: every two seconds, or when 64 updates of each CPU wait
    /// (`mm/memcontrol.c:memcg_vmstats_needs_flush`).
    fn flush_counts(&mut self) {
        let now = self.now;
        for pod in self.pods.iter_mut().filter(|pod| now >= pod.flushed + Duration::from_secs(2)) {
            pod.flush(now);
        }
    }
}

impl Pod {
    /// `memory.max`.
    #[must_use]
    pub fn max_pages(&self) -> Option<u64> {
        self.max
    }

    fn flush(&mut self, now: Duration) {
        if self.pending > 0 {
            self.reported.clone_from(&self.counts);
            self.pending = 0;
        }
        self.flushed = now;
    }
}
