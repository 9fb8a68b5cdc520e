//! The `lru-gen` engine: ages and evicts generations of the multi-generational LRU.
//!
//! Works on leaves, as the kernel's lists do. A page's least age is the birth age of the generation after its own, or what earlier
//! readings proved ([`layers`]).
//!
//! Kernels before strict anonymous eviction (6.1, 6.12) turn to file and `MADV_FREE` memory where they find what they were asked for in
//! use, so there a walk comes shortly before an order, a request is for a small part of what the walk left old, and what the lists lost
//! is compared with it: see [`careful_request`].

mod layers;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant as Clock};

use host::cgroup::{Cgroup, CgroupId};
use host::lru_gen::{
    AnonSyntax, Generation, LruGen, LruGenCommand, LruGenWritten, Swappiness, read_lru_gen_of, write_lru_gen,
};
use host::probe::{Feature, ProbeReport};
use tiering::{AgeHistogram, Bytes, DemotionSupport, Instant, NodeId, NodeSet};

use super::{EngineError, Found, Ground, Look, Moved, Order, any_target_allowed, targets_allowed};
use crate::state::State;
use crate::tunables::DemotionWindow;
use layers::Layers;

/// Pages of one eviction command: 16 MiB. A command can't be stopped half way but by a signal.
const STEP_PAGES: u64 = 4096;

/// An eviction overshoots by up to one batch. Where it takes anonymous pages only *first*, the batch after the last of them
/// would be file or `MADV_FREE` pages (measured on 6.12: 64 of them).
const OVERSHOOT_PAGES: u64 = 64;

/// Old memory is left for what it is, in use, where less than this part of a step moved. Each page that stays costs the kernel a
/// look at its mappings and us as much CPU as a move.
const STAYS_YOUNG: u64 = 8;

/// Where the kernel would turn to other lists, a request is for this part of what is old.
const CAREFUL_PART: u64 = 8;

/// Where each step is told by a reading, cold memory stays where it is that has fewer pages than so many per cgroup that the kernel
/// lists: a reading takes 15 us for each of them, and to find out what moved is not to be dearer than the move.
const LEAST_PER_LISTED: u64 = 2;

/// See the module.
#[derive(Debug)]
pub struct LruGenEngine {
    syntax: AnonSyntax,
    before: LruGen,
    after: LruGen,
    leaves: HashMap<CgroupId, Leaf>,
    /// Cgroups that the kernel listed in the last look, managed or not.
    listed: u64,
}

/// Where the kernel would turn to other lists, a walk proves for this part of the age that what it left old is old still, within
/// the bounds below. Each walk opens a generation and so merges two others, of which the younger is evicted first: a second walk soon
/// after costs what the generations prove.
const FRESH_PART: u32 = 8;
const FRESH_LEAST: Duration = Duration::from_millis(200);
const FRESH_MOST: Duration = Duration::from_secs(10);

/// An order may take so many times its budget there: what a walk proved is soon too old to go on with in the next round.
const FRESH_BUDGETS: u32 = 8;

/// What is known of a leaf.
#[derive(Debug, Default)]
struct Leaf {
    /// What commands name it by.
    memcg: u64,
    /// Fast nodes. They are few, and a map of them would cost a thousand cgroups most of a megabyte.
    nodes: Vec<OnNode>,
    /// Walked for an order since the last look.
    walked_unseen: bool,
}

/// A leaf's memory on one fast node.
#[derive(Debug)]
struct OnNode {
    node: u32,
    /// When it was last walked.
    walked: Option<Instant>,
    layers: Layers,
}

impl Leaf {
    fn on(&self, node: u32) -> Option<&OnNode> {
        self.nodes.iter().find(|on| on.node == node)
    }

    fn on_mut(&mut self, node: u32) -> &mut OnNode {
        let at = self.nodes.iter().position(|on| on.node == node).unwrap_or_else(|| {
            self.nodes.push(OnNode { node, walked: None, layers: Layers::default() });
            self.nodes.len() - 1
        });
        &mut self.nodes[at]
    }
}

/// A leaf's memory on one node, to be evicted from.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    leaf: &'a Cgroup,
    node: u32,
    pages: u64,
    oldest: Duration,
}

/// What the lists of a leaf on one node hold, in pages.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    anon: u64,
    file: u64,
    /// What the oldest generation would prove right after a walk now.
    after_a_walk: Duration,
}

/// How evicting from a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing more of it is old, or it is not there any more.
    Part,
    /// All that was asked for was asked of the kernel, or time is up.
    Order,
}

/// An order under way, in pages.
#[derive(Clone, Copy, Debug)]
struct Course {
    began: Clock,
    wanted: u64,
    asked: u64,
    /// As the kernel counts demotions.
    demoted_before: Bytes,
    moved: Bytes,
}

impl LruGenEngine {
    /// The engine, or what is missing for it.
    pub fn new(probe: &ProbeReport, ground: &Ground) -> Result<Self, String> {
        let syntax = probe
            .lru_gen_syntax
            .filter(|_| probe.lru_gen())
            .ok_or("its debugfs file can't be used, see `thermocline-agent probe`")?;
        match ground.tiers.demotion_support() {
            DemotionSupport::Kernel => {}
            DemotionSupport::AgentOnly { reason } => {
                return Err(format!("the kernel demotes nothing here: {reason}"));
            }
        }
        Ok(Self::with_syntax(syntax))
    }

    /// The engine where there is no slow memory: it tells ages, and is asked to move nothing.
    pub fn observing(probe: &ProbeReport) -> Result<Self, String> {
        let readable = probe.has(Feature::LruGenRead) && probe.has(Feature::LruGenWrite);
        let syntax = probe.lru_gen_syntax.filter(|_| readable);
        syntax
            .map(Self::with_syntax)
            .ok_or_else(|| "its debugfs file can't be used, see `thermocline-agent probe`".to_owned())
    }

    fn with_syntax(syntax: AnonSyntax) -> Self {
        Self {
            syntax,
            before: LruGen::default(),
            after: LruGen::default(),
            leaves: HashMap::new(),
            listed: 0,
        }
    }

    /// Whether the kernel would turn to other lists where it finds what it was asked for in use.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.syntax == AnonSyntax::TwoHundred
    }

    /// Forgets leaves that are not of interest any more.
    pub fn retain(&mut self, is_managed: impl Fn(CgroupId) -> bool) {
        self.leaves.retain(|leaf, _| is_managed(*leaf));
    }

    /// Reads, and walks where asked, all cgroups at once: the file is one for the whole host, and the kernel takes as long
    /// for one cgroup's part of it as for all.
    pub fn look(
        &mut self,
        ground: &Ground,
        looks: &[Look<'_>],
        budget: Duration,
        now: Instant,
    ) -> Result<Vec<Found>, EngineError> {
        let began = Clock::now();
        let owner: HashMap<String, (usize, CgroupId)> = looks
            .iter()
            .enumerate()
            .flat_map(|(index, look)| {
                look.leaves.iter().map(move |leaf| (leaf.path().to_string(), (index, leaf.id())))
            })
            .collect();
        let debugfs = &ground.roots.debugfs;
        let mut listed = 0;
        read_lru_gen_of(debugfs, &mut self.before, |_, path| {
            listed += 1;
            owner.contains_key(path)
        })?;
        self.listed = listed;

        let mut walked = vec![false; looks.len()];
        for memcg in self.before.memcgs() {
            let (index, id) = owner[memcg.path()];
            // A cgroup of which some leaves are walked is walked whole, or the rest would look untouched.
            if !looks[index].walk || (!walked[index] && began.elapsed() >= budget) {
                continue;
            }
            walked[index] = true;
            // Fast nodes first: a walk may clear the accessed bit of a page table's directory, and then the next walk
            // skips it. What is missed on a slow node teaches us less; what is missed on a fast one looks cold.
            for node in ground.fast.iter().chain(ground.slow.iter()) {
                let generations = memcg.node(node.0);
                let Some(newest) = generations.last() else { continue };
                if generations.iter().all(|generation| generation.anon_pages == 0) {
                    continue;
                }
                walk(ground, self.syntax, memcg.id(), node.0, newest.seq)?;
                if ground.fast.contains(node) {
                    self.leaves.entry(id).or_default().on_mut(node.0).walked = Some(now);
                }
            }
        }
        let any_walked = walked.contains(&true);
        if any_walked {
            read_lru_gen_of(debugfs, &mut self.after, |_, path| owner.contains_key(path))?;
        } else {
            self.after.clone_from(&self.before);
        }

        let mut found: Vec<Found> = looks
            .iter()
            .zip(&walked)
            .map(|(look, walked)| Found {
                ages: BTreeMap::new(),
                // Leaves that the kernel does not list hold nothing.
                walked: *walked || (look.walk && began.elapsed() < budget),
                aged: *walked,
                touched: BTreeMap::new(),
                blind: false,
                listed: Some(BTreeMap::new()),
                unread: Vec::new(),
            })
            .collect();
        let mut leaves_listed = vec![0; looks.len()];
        for memcg in self.after.memcgs() {
            let (index, id) = owner[memcg.path()];
            leaves_listed[index] += 1;
            let leaf = self.leaves.entry(id).or_default();
            leaf.memcg = memcg.id();
            found[index].aged |= std::mem::take(&mut leaf.walked_unseen);
            let Found { ages, listed: Some(listed), .. } = &mut found[index] else { continue };
            for (node, generations) in memcg.nodes() {
                let pages = generations.iter().map(|generation| generation.anon_pages).sum();
                *listed.entry(NodeId(node)).or_default() += bytes(pages);
                if ground.fast.contains(NodeId(node)) {
                    let layers = &mut leaf.on_mut(node).layers;
                    layers.read(generations, now);
                    let ages = ages.entry(NodeId(node)).or_default();
                    ages.extend(AgeHistogram::of_generations(&as_listed(generations)));
                }
            }
        }
        for ((found, look), leaves) in found.iter_mut().zip(looks).zip(leaves_listed) {
            // Charged to a cgroup above, or its name is no text: what its memory does is not seen here.
            if leaves < look.leaves.len() {
                found.listed = None;
            }
        }
        if any_walked {
            // Both readings are in the kernel's order; a cgroup that came or went in between is found by path.
            let after: HashMap<(u64, &str), _> =
                self.after.memcgs().map(|memcg| ((memcg.id(), memcg.path()), memcg)).collect();
            for before in self.before.memcgs() {
                let Some(after) = after.get(&(before.id(), before.path())) else { continue };
                let (index, _) = owner[before.path()];
                for node in ground.slow.iter().filter(|_| walked[index]) {
                    let moved = newcomers(before.node(node.0), after.node(node.0));
                    *found[index].touched.entry(node).or_default() += bytes(moved);
                }
            }
        }
        Ok(found)
    }

    /// Evicts what is old enough, the oldest first, in steps, while the kernel may demote.
    pub fn demote(
        &mut self,
        ground: &Ground,
        state: &mut State,
        order: Order<'_>,
        now: Instant,
    ) -> Result<Moved, EngineError> {
        let began = Clock::now();
        // Strictly anonymous eviction is newer than the kernel's own look at cpuset.mems.
        let is_allowed = match self.syntax {
            AnonSyntax::Max => any_target_allowed,
            AnonSyntax::TwoHundred => targets_allowed,
        };
        if !is_allowed(ground, order.allowed, order.from) {
            return Ok(Moved::refused("target_not_allowed"));
        }
        let wanted = (order.bytes.0 / host::pages::page_size()).max(1);
        let leaves: Vec<&Cgroup> = order.leaves.iter().filter(|leaf| lives(leaf)).collect();
        let mut few = 0;
        let mut parts = self.parts(&leaves, order.from, order.age, now);
        if order.age.is_zero() && parts.iter().map(|part| part.pages).sum::<u64>() < wanted {
            // Not enough is old. Two walks on end make everything old but what is touched in between.
            for leaf in &leaves {
                for _ in 0..2 {
                    self.walk_and_read(ground, leaf, order.from.0, now)?;
                }
            }
            parts = self.parts(&leaves, order.from, order.age, now);
        }
        // A thousand idle cgroups have each some pages that an eviction must not ask for: to find that out has to cost nothing.
        if let AnonSyntax::TwoHundred = self.syntax
            && !order.age.is_zero()
        {
            let all = |parts: &[Part<'_>]| parts.iter().map(|part| part.pages).sum::<u64>();
            let before = all(&parts);
            parts.retain(|part| part.pages >= self.listed * LEAST_PER_LISTED);
            few = before - all(&parts);
        }
        if parts.is_empty() {
            return Ok(Moved { failed: too_few(few), ..Moved::default() });
        }
        let demoted_before = demoted(order.cgroup, &ground.slow)?;
        let mut course = Course { began, wanted, asked: 0, demoted_before, moved: Bytes::ZERO };
        for part in parts {
            let end = match self.syntax {
                AnonSyntax::Max => self.evict(ground, state, &order, part, &mut course, now)?,
                AnonSyntax::TwoHundred => {
                    self.evict_carefully(ground, state, &order, part, &mut course, now)?
                }
            };
            if end == End::Order {
                break;
            }
        }
        let stayed = course.asked.saturating_sub(course.moved.0 / host::pages::page_size());
        let mut failed = too_few(few);
        if stayed > 0 {
            failed.insert("stayed", stayed);
        }
        Ok(Moved { bytes: course.moved, tried: bytes(course.asked).max(course.moved), failed })
    }

    /// What is at least `age` old, oldest first.
    fn parts<'a>(&self, leaves: &[&'a Cgroup], from: NodeId, age: Duration, now: Instant) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        for leaf in leaves {
            let on = self.leaves.get(&leaf.id()).and_then(|known| known.on(from.0));
            let Some(old) = on.and_then(|on| on.layers.at_least(age, now)) else { continue };
            let pages = match self.syntax {
                AnonSyntax::Max => Some(old.pages),
                AnonSyntax::TwoHundred => careful_request(old.pages, u64::MAX).map(|_| old.pages),
            };
            parts.extend(pages.map(|pages| Part { leaf, node: from.0, pages, oldest: old.oldest }));
        }
        parts.sort_unstable_by_key(|part| std::cmp::Reverse(part.oldest));
        parts
    }

    /// Evicts by the kernel's strictly anonymous eviction.
    fn evict(
        &mut self,
        ground: &Ground,
        state: &mut State,
        order: &Order<'_>,
        part: Part<'_>,
        course: &mut Course,
        now: Instant,
    ) -> Result<End, EngineError> {
        let Some(known) = self.leaves.get_mut(&part.leaf.id()) else { return Ok(End::Part) };
        let memcg = known.memcg;
        let layers = &mut known.on_mut(part.node).layers;
        let Some(old) = layers.at_least(order.age, now) else { return Ok(End::Part) };
        let mut left = old.pages.min(course.wanted - course.asked);
        while left > 0 {
            let pages = left.min(STEP_PAGES);
            let written = {
                let _window = DemotionWindow::open(&ground.roots, state)?;
                evict(ground, self.syntax, memcg, part.node, old.seq, pages)?
            };
            let moved = course.count(order.cgroup, &ground.slow)?;
            if written != LruGenWritten::Done {
                return Ok(End::Part);
            }
            course.asked += pages;
            left -= pages;
            // The kernel finds these pages in use: they looked older than they are.
            if !order.age.is_zero() && moved < bytes(pages / STAYS_YOUNG) {
                // The next walk tells the rest from what is in use.
                layers.distrust(order.age / 4 * 3, now);
                return Ok(if course.is_over(order.budget) { End::Order } else { End::Part });
            }
            if course.is_over(order.budget) {
                return Ok(End::Order);
            }
        }
        Ok(End::Part)
    }

    /// Evicts where the kernel goes on with file and `MADV_FREE` pages when it finds anonymous ones in use. What it took is told by its
    /// lists, which are of this leaf alone.
    fn evict_carefully(
        &mut self,
        ground: &Ground,
        state: &mut State,
        order: &Order<'_>,
        part: Part<'_>,
        course: &mut Course,
        now: Instant,
    ) -> Result<End, EngineError> {
        let walked = self.leaves.get(&part.leaf.id()).and_then(|leaf| leaf.on(part.node)?.walked);
        let fresh = (order.age / FRESH_PART).clamp(FRESH_LEAST, FRESH_MOST);
        let is_fresh = walked.is_some_and(|walked| now.since(walked) < fresh);
        // Less than nearly two regular walks prove, with a fresh one between them: younger memory would be merged with it.
        let proven = order.age / 8 * 3;
        let Some(mut before) = self.read(ground, part.leaf, part.node, now)? else { return Ok(End::Part) };
        if !is_fresh {
            if before.after_a_walk < proven {
                return Ok(End::Part);
            }
            match self.walk_and_read(ground, part.leaf, part.node, now)? {
                Some(walked) => before = walked,
                None => return Ok(End::Part),
            }
        }
        // The first request is the least there is: what can't be moved at all would make the kernel turn to other lists, too.
        let mut most = OVERSHOOT_PAGES;
        loop {
            let Some(known) = self.leaves.get(&part.leaf.id()) else { return Ok(End::Part) };
            let old = known.on(part.node).and_then(|on| on.layers.at_least(order.age, now));
            let old = old.filter(|old| old.youngest >= proven);
            let request =
                old.and_then(|old| careful_request(old.pages, most.min(course.wanted - course.asked)));
            let (Some(old), Some(pages)) = (old, request) else { return Ok(End::Part) };
            let written = {
                let _window = DemotionWindow::open(&ground.roots, state)?;
                evict(ground, self.syntax, known.memcg, part.node, old.seq, pages)?
            };
            let demoted = course.count(order.cgroup, &ground.slow)?;
            let after = self.read(ground, part.leaf, part.node, now)?;
            let (LruGenWritten::Done, Some(after)) = (written, after) else { return Ok(End::Part) };
            course.asked += pages;
            // A processor's batch that the kernel puts on the list meanwhile, of 31 pages (seen on 6.12), hides as much of what went; the
            // cgroup's own count trails.
            let taken = before.anon.saturating_sub(after.anon).max(demoted.0 / host::pages::page_size());
            if after.file < before.file || taken < pages - pages / STAYS_YOUNG {
                tracing::debug!(cgroup = %part.leaf.path(), node = part.node, pages, taken, file = before.file - after.file.min(before.file), "found in use");
                if let Some(known) = self.leaves.get_mut(&part.leaf.id()) {
                    // The next walk tells strays that were in use from the rest: that keeps as much of its age as went of what was asked for.
                    // Of another list nothing more may go, so there all of it is to be proved.
                    let eighths = u32::try_from(taken.min(pages) * 8 / pages.max(1)).unwrap_or(0);
                    let keeps =
                        if after.file < before.file { Duration::ZERO } else { order.age / 8 * eighths };
                    known.on_mut(part.node).layers.distrust(keeps, now);
                }
                return Ok(End::Part);
            }
            if course.is_over(order.budget * FRESH_BUDGETS) {
                return Ok(End::Order);
            }
            before = after;
            most = most.saturating_mul(CAREFUL_PART);
        }
    }

    /// Walks a leaf on one node, and reads what its lists hold then; `None` where it has none.
    fn walk_and_read(
        &mut self,
        ground: &Ground,
        leaf: &Cgroup,
        node: u32,
        now: Instant,
    ) -> Result<Option<Listed>, EngineError> {
        // The number of the newest generation may have changed since the last reading; so may what the leaf is named by.
        if self.read(ground, leaf, node, now)?.is_none() {
            return Ok(None);
        }
        let Some(memcg) = self.before.memcgs().next() else { return Ok(None) };
        let Some(newest) = memcg.node(node).last() else { return Ok(None) };
        walk(ground, self.syntax, memcg.id(), node, newest.seq)?;
        let known = self.leaves.entry(leaf.id()).or_default();
        known.on_mut(node).walked = Some(now);
        known.walked_unseen = true;
        self.read(ground, leaf, node, now)
    }

    /// Reads a leaf's generations on one node.
    fn read(
        &mut self,
        ground: &Ground,
        leaf: &Cgroup,
        node: u32,
        now: Instant,
    ) -> Result<Option<Listed>, EngineError> {
        let path = leaf.path().to_string();
        read_lru_gen_of(&ground.roots.debugfs, &mut self.before, |_, found| found == path)?;
        let Some(memcg) = self.before.memcgs().next() else { return Ok(None) };
        let generations = memcg.node(node);
        let known = self.leaves.entry(leaf.id()).or_default();
        known.memcg = memcg.id();
        known.on_mut(node).layers.read(generations, now);
        let sum = |of: fn(&Generation) -> u64| generations.iter().map(of).sum();
        // A walk opens a fifth generation: then the birth of today's last but one is that of the next to the oldest.
        let after_a_walk = generations.iter().rev().nth(1).map_or(0, |it| it.birth_age_ms);
        let listed = Listed {
            anon: sum(|it| it.anon_pages),
            file: sum(|it| it.file_pages),
            after_a_walk: Duration::from_millis(after_a_walk),
        };
        Ok(Some(listed).filter(|_| !generations.is_empty()))
    }
}

impl Course {
    /// Reads what was demoted since the last count.
    fn count(&mut self, cgroup: &Cgroup, slow: &NodeSet) -> host::Result<Bytes> {
        let before = self.moved;
        self.moved = demoted(cgroup, slow)? - self.demoted_before;
        Ok(self.moved - before)
    }

    fn is_over(&self, budget: Duration) -> bool {
        self.asked >= self.wanted || self.began.elapsed() >= budget
    }
}

/// What stayed because it is not worth the readings.
fn too_few(pages: u64) -> BTreeMap<&'static str, u64> {
    if pages > 0 { BTreeMap::from([("too_few", pages)]) } else { BTreeMap::new() }
}

/// How much to ask for of what a walk has just left `old`, so that the kernel finds it among that even where part of it was written
/// meanwhile: a small part, and of the rest a batch less. `None` where that is nothing.
fn careful_request(old: u64, wanted: u64) -> Option<u64> {
    let part = (old / CAREFUL_PART).min(STEP_PAGES.max(old / 64)).min(4 * STEP_PAGES);
    let request = part.max(OVERSHOOT_PAGES).min(old.saturating_sub(OVERSHOOT_PAGES)).min(wanted);
    (request > 0).then_some(request)
}

fn walk(
    ground: &Ground,
    syntax: AnonSyntax,
    memcg: u64,
    node: u32,
    newest: u64,
) -> host::Result<LruGenWritten> {
    let swappiness = Swappiness::Anon;
    let age = LruGenCommand::Age { id: memcg, node, max_seq: newest, swappiness, force_scan: true };
    // Races with the kernel's own aging and with removal cost one walk.
    write_lru_gen(&ground.roots.debugfs, syntax, &[age])
}

fn evict(
    ground: &Ground,
    syntax: AnonSyntax,
    memcg: u64,
    node: u32,
    seq: u64,
    pages: u64,
) -> host::Result<LruGenWritten> {
    let evict = LruGenCommand::Evict { id: memcg, node, seq, swappiness: Swappiness::Anon, pages };
    write_lru_gen(&ground.roots.debugfs, syntax, &[evict])
}

/// Whether a leaf still is who it was when the generations were read. The number that commands name it by is given to
/// another cgroup, on kernels before 7.0 or so, but not while it lives.
fn lives(leaf: &Cgroup) -> bool {
    leaf.has("cgroup.procs")
}

/// Bytes demoted so far: the kernel's own count where it keeps one per cgroup, else what is on slow nodes.
fn demoted(cgroup: &Cgroup, slow: &NodeSet) -> host::Result<Bytes> {
    match cgroup.read_memory_stat()?.and_then(|stat| stat.pgdemote()) {
        Some(pages) => Ok(bytes(pages)),
        None => super::anon_on(cgroup, slow),
    }
}

/// Pages that a walk put into the generation that was newest when it began: what was touched since the walk before.
fn newcomers(before: &[Generation], after: &[Generation]) -> u64 {
    let Some(newest) = before.last() else { return 0 };
    let now = after.iter().find(|generation| generation.seq == newest.seq);
    now.map_or(0, |now| now.anon_pages.saturating_sub(newest.anon_pages))
}

fn bytes(pages: u64) -> Bytes {
    Bytes(pages.saturating_mul(host::pages::page_size()))
}

fn as_listed(generations: &[Generation]) -> Vec<tiering::Generation> {
    generations
        .iter()
        .map(|generation| tiering::Generation {
            seq: generation.seq,
            birth_age: Duration::from_millis(generation.birth_age_ms),
            anon: bytes(generation.anon_pages),
            file: bytes(generation.file_pages),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fixture::{cgroup, ground, write};

    #[test]
    fn memory_is_listed_where_all_leaves_are() {
        let dir = tempfile::tempdir().unwrap();
        let generations = "memcg 7 /pod/a\n node 0\n 0 9000 3 0\n 1 9000 5 0\n";
        let files = ["a", "b"].map(|leaf| format!("cgroup/pod/{leaf}/cgroup.procs"));
        write(dir.path(), &[("debug/lru_gen", generations), (&files[0], ""), (&files[1], "")]);
        let ground = ground(dir.path());
        let mut engine = LruGenEngine::with_syntax(AnonSyntax::Max);
        let (a, b) = (cgroup(dir.path(), "/pod/a"), cgroup(dir.path(), "/pod/b"));
        let mut listed = |leaves: &[Cgroup]| {
            let found = engine
                .look(&ground, &[Look { leaves, walk: false }], Duration::ZERO, Instant::default())
                .unwrap();
            found.into_iter().next().unwrap().listed
        };
        let leaves = [a, b];
        assert_eq!(listed(&leaves[..1]), Some(BTreeMap::from([(NodeId(0), bytes(8))])));
        assert_eq!(listed(&leaves), None, "what of b's memory changes is not seen");
    }

    #[test]
    fn a_careful_request_is_a_small_part_and_leaves_a_batch() {
        let check =
            |old, wanted, request| assert_eq!(careful_request(old, wanted), request, "{old} {wanted}");
        check(0, 100, None);
        check(64, 100, None);
        check(65, 100, Some(1));
        check(100, 100, Some(36));
        check(200, 100, Some(64));
        check(8000, 10_000, Some(1000));
        check(8000, 500, Some(500));
        check(100_000, 100_000, Some(4096));
        check(26_000_000, 1_000_000, Some(16_384));
    }
}
