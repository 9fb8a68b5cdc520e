//! The `lru-gen` engine: ages and evicts generations of the multi-generational LRU.
//!
//! Works on leaves, as the kernel's lists do. A page's least age is the birth age of the generation after its own. On
//! kernels before strict anonymous eviction (6.1, 6.12) an eviction never asks for more pages than the generations hold
//! anonymous ones, or the rest would come from file and `MADV_FREE` memory (kernel notes, measured).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant as Clock};

use host::cgroup::Cgroup;
use host::lru_gen::{
    AnonSyntax, Generation, LruGen, LruGenCommand, LruGenWritten, MemcgGenerations, Swappiness,
    read_lru_gen_of, write_lru_gen,
};
use host::probe::{Feature, ProbeReport};
use tiering::{AgeHistogram, Bytes, DemotionSupport, NodeId, NodeSet};

use super::{EngineError, Found, Ground, Look, Moved, Order, targets_allowed};
use crate::state::State;
use crate::tunables::DemotionWindow;

/// Pages of one eviction command: 16 MiB. A command can't be stopped half way but by a signal.
const STEP_PAGES: u64 = 4096;

/// An eviction overshoots by up to one batch. Where it takes anonymous pages only *first*, the batch after the last of them
/// would be file or `MADV_FREE` pages (measured on 6.12: 64 of them).
const OVERSHOOT_PAGES: u64 = 64;

/// A generation is left for what it is, in use, where less than this part of a step moved. Each page that stays costs the kernel a
/// look at its mappings and us as much CPU as a move.
const STAYS_YOUNG: u64 = 8;

/// See the module.
#[derive(Debug)]
pub struct LruGenEngine {
    syntax: AnonSyntax,
    before: LruGen,
    /// What is known since the last look.
    after: LruGen,
    /// Where a leaf is in `after`.
    places: HashMap<String, usize>,
}

/// A part of a leaf's memory on one node that may be evicted.
#[derive(Clone, Copy, Debug)]
struct Batch {
    id: u64,
    node: u32,
    /// Newest generation to take.
    seq: u64,
    pages: u64,
    oldest_ms: u64,
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
        Ok(Self::with(syntax))
    }

    /// The engine where there is no slow memory: it tells ages, and is asked to move nothing.
    pub fn observing(probe: &ProbeReport) -> Result<Self, String> {
        let readable = probe.has(Feature::LruGenRead) && probe.has(Feature::LruGenWrite);
        let syntax = probe.lru_gen_syntax.filter(|_| readable);
        syntax
            .map(Self::with)
            .ok_or_else(|| "its debugfs file can't be used, see `thermocline-agent probe`".to_owned())
    }

    fn with(syntax: AnonSyntax) -> Self {
        Self { syntax, before: LruGen::default(), after: LruGen::default(), places: HashMap::new() }
    }

    /// Reads, and walks where asked, all cgroups at once: the file is one for the whole host, and the kernel takes as long
    /// for one cgroup's part of it as for all.
    pub fn look(
        &mut self,
        ground: &Ground,
        looks: &[Look<'_>],
        budget: Duration,
    ) -> Result<Vec<Found>, EngineError> {
        let began = Clock::now();
        let owner: HashMap<String, usize> = looks
            .iter()
            .enumerate()
            .flat_map(|(index, look)| look.leaves.iter().map(move |leaf| (leaf.path().to_string(), index)))
            .collect();
        let debugfs = &ground.roots.debugfs;
        read_lru_gen_of(debugfs, &mut self.before, |_, path| owner.contains_key(path))?;

        let mut walked = vec![false; looks.len()];
        for memcg in self.before.memcgs() {
            let index = owner[memcg.path()];
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
                let age = LruGenCommand::Age {
                    id: memcg.id(),
                    node: node.0,
                    max_seq: newest.seq,
                    swappiness: Swappiness::Anon,
                    force_scan: true,
                };
                // Races with the kernel's own aging and with removal cost one walk.
                write_lru_gen(debugfs, self.syntax, &[age])?;
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
                ages: Vec::new(),
                // Leaves that the kernel does not list hold nothing.
                slow_touched: (*walked || (look.walk && began.elapsed() < budget)).then_some(Bytes::ZERO),
                listed: Some(BTreeMap::new()),
                unread: Vec::new(),
            })
            .collect();
        self.places.clear();
        let mut leaves_listed = vec![0; looks.len()];
        for (place, memcg) in self.after.memcgs().enumerate() {
            self.places.insert(memcg.path().to_owned(), place);
            let index = owner[memcg.path()];
            leaves_listed[index] += 1;
            let Found { ages, listed: Some(listed), .. } = &mut found[index] else { continue };
            for (node, listing) in memcg.nodes() {
                let node = NodeId(node);
                let pages = listing.iter().map(|generation| generation.anon_pages).sum();
                *listed.entry(node).or_default() += bytes(pages);
                if ground.fast.contains(node) {
                    ages.extend(AgeHistogram::of_generations(&generations(listing)));
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
                let touched = &mut found[owner[before.path()]].slow_touched;
                for node in ground.slow.iter() {
                    let moved = newcomers(before.node(node.0), after.node(node.0));
                    if let Some(touched) = touched {
                        *touched += bytes(moved);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Evicts the oldest generations, oldest leaf first, in steps, while the kernel may demote.
    pub fn demote(
        &mut self,
        ground: &Ground,
        state: &mut State,
        order: Order<'_>,
    ) -> Result<Moved, EngineError> {
        let began = Clock::now();
        if !targets_allowed(ground, order.allowed) {
            return Ok(Moved { bytes: Bytes::ZERO, failed: BTreeMap::from([("target_not_allowed", 1)]) });
        }
        let from = ground.fast.intersection(order.allowed);
        let wanted = (order.bytes.0 / host::pages::page_size()).max(1);
        let leaves = order.leaves.iter().filter(|leaf| lives(leaf));
        let known =
            leaves.filter_map(|leaf| self.after.memcgs().nth(*self.places.get(&leaf.path().to_string())?));
        let mut batches = self.batches(known, &from, order.age);
        if order.age.is_zero() && batches.iter().map(|batch| batch.pages).sum::<u64>() < wanted {
            // Not enough is old. Two walks on end make everything old but what is touched in between.
            for _ in 0..2 {
                self.age(ground, order.leaves, &from)?;
            }
            self.read(ground, order.leaves)?;
            batches = self.batches(self.before.memcgs(), &from, order.age);
        }
        // A thousand idle cgroups have each some pages that an eviction must not ask for: to find that out has to cost nothing.
        if batches.is_empty() {
            return Ok(Moved::default());
        }
        let demoted_before = demoted(order.cgroup, &ground.slow)?;

        let (mut asked, mut moved) = (0, Bytes::ZERO);
        let window = DemotionWindow::open(&ground.roots, state)?;
        'all: for batch in batches {
            let mut left = batch.pages.min(wanted - asked);
            while left > 0 {
                let pages = left.min(STEP_PAGES);
                let evict = LruGenCommand::Evict {
                    id: batch.id,
                    node: batch.node,
                    seq: batch.seq,
                    swappiness: Swappiness::Anon,
                    pages,
                };
                let written = write_lru_gen(&ground.roots.debugfs, self.syntax, &[evict])?;
                let before_step = moved;
                moved = demoted(order.cgroup, &ground.slow)? - demoted_before;
                if written != LruGenWritten::Done {
                    continue 'all;
                }
                asked += pages;
                left -= pages;
                if asked >= wanted || began.elapsed() >= order.budget {
                    break 'all;
                }
                // The kernel finds the pages of this generation in use: it looked older than it is.
                if !order.age.is_zero() && moved - before_step < bytes(pages / STAYS_YOUNG) {
                    continue 'all;
                }
            }
        }
        drop(window);

        let stayed = asked.saturating_sub(moved.0 / host::pages::page_size());
        let failed = if stayed > 0 { BTreeMap::from([("stayed", stayed)]) } else { BTreeMap::new() };
        Ok(Moved { bytes: moved, failed })
    }

    /// What is at least `age` old, oldest first. The two newest generations are never evicted by the kernel.
    fn batches<'a>(
        &self,
        memcgs: impl Iterator<Item = MemcgGenerations<'a>>,
        from: &NodeSet,
        age: Duration,
    ) -> Vec<Batch> {
        let mut batches = Vec::new();
        for memcg in memcgs {
            for node in from.iter() {
                let generations = memcg.node(node.0);
                let Some(newest) = generations.last() else { continue };
                let old = generations
                    .windows(2)
                    .take_while(|pair| {
                        pair[0].seq + 2 <= newest.seq && u128::from(pair[1].birth_age_ms) >= age.as_millis()
                    })
                    .count();
                let listed: u64 = generations[..old].iter().map(|generation| generation.anon_pages).sum();
                let pages = match self.syntax {
                    AnonSyntax::Max => listed,
                    AnonSyntax::TwoHundred => listed.saturating_sub(OVERSHOOT_PAGES),
                };
                if pages > 0 {
                    batches.push(Batch {
                        id: memcg.id(),
                        node: node.0,
                        seq: generations[old - 1].seq,
                        pages,
                        oldest_ms: generations[1].birth_age_ms,
                    });
                }
            }
        }
        batches.sort_unstable_by_key(|batch| std::cmp::Reverse(batch.oldest_ms));
        batches
    }

    fn age(&mut self, ground: &Ground, leaves: &[Cgroup], nodes: &NodeSet) -> Result<(), EngineError> {
        self.read(ground, leaves)?;
        for memcg in self.before.memcgs() {
            for node in nodes.iter() {
                let Some(newest) = memcg.node(node.0).last() else { continue };
                let age = LruGenCommand::Age {
                    id: memcg.id(),
                    node: node.0,
                    max_seq: newest.seq,
                    swappiness: Swappiness::Anon,
                    force_scan: true,
                };
                write_lru_gen(&ground.roots.debugfs, self.syntax, &[age])?;
            }
        }
        Ok(())
    }

    fn read(&mut self, ground: &Ground, leaves: &[Cgroup]) -> Result<(), EngineError> {
        let paths: Vec<String> = leaves.iter().map(|leaf| leaf.path().to_string()).collect();
        read_lru_gen_of(&ground.roots.debugfs, &mut self.before, |_, path| {
            paths.iter().any(|leaf| leaf == path)
        })?;
        Ok(())
    }
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

fn generations(generations: &[Generation]) -> Vec<tiering::Generation> {
    generations
        .iter()
        .map(|generation| tiering::Generation {
            seq: generation.seq,
            birth_age: std::time::Duration::from_millis(generation.birth_age_ms),
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
        let mut engine = LruGenEngine {
            syntax: AnonSyntax::Max,
            before: LruGen::default(),
            after: LruGen::default(),
            places: HashMap::new(),
        };
        let (a, b) = (cgroup(dir.path(), "/pod/a"), cgroup(dir.path(), "/pod/b"));
        let mut listed = |leaves: &[Cgroup]| {
            let found = engine.look(&ground, &[Look { leaves, walk: false }], Duration::ZERO).unwrap();
            found.into_iter().next().unwrap().listed
        };
        let leaves = [a, b];
        assert_eq!(listed(&leaves[..1]), Some(BTreeMap::from([(NodeId(0), bytes(8))])));
        assert_eq!(listed(&leaves), None, "what of b's memory changes is not seen");
    }
}
