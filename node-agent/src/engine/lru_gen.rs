//! The `lru-gen` engine: ages and evicts generations of the multi-generational LRU.
//!
//! Works on leaves, as the kernel's lists do. A page's least age is the birth age of the generation after its own, or what earlier
//! readings proved ([`layers`]).
//!
//! Kernels before strict anonymous eviction (6.1, 6.12) turn to file and `MADV_FREE` memory where they find what they were asked for in
//! use, so there a walk comes shortly before an order, a request is for a small part of what the walk left old, and what the lists lost
//! is compared with it ([`evict`]).

mod evict;
mod layers;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant as Clock};

use host::cgroup::CgroupId;
use host::lru_gen::{
    AnonSyntax, Generation, LruGen, LruGenCommand, LruGenWritten, Swappiness, read_lru_gen_of,
    walks_hide_touches, write_lru_gen,
};
use host::probe::{Feature, ProbeReport};
use tiering::{AgeHistogram, Bytes, DemotionSupport, Instant, NodeId};

use super::{EngineError, Found, Ground, Look};
use layers::Layers;

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
    hides_touches: bool,
}

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
        // Of one fast node, which is walked first, nothing is hidden.
        let hides_touches = ground.fast.len() > 1
            && walks_hide_touches(&ground.roots.proc).map_err(|error| error.to_string())?;
        Ok(Self { hides_touches, ..Self::with_syntax(syntax) })
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
            hides_touches: false,
        }
    }

    /// Whether its walk of one fast node hides what is touched on another; see [`walks_hide_touches`].
    #[must_use]
    pub fn hides_touches(&self) -> bool {
        self.hides_touches
    }

    /// Whether the kernel would turn to other lists where it finds what it was asked for in use.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.syntax == AnonSyntax::TwoHundred
    }

    /// Less memory than this on one node is not worth a move where the kernel may turn to other lists.
    #[must_use]
    pub fn least(&self) -> Bytes {
        if self.is_careful() { bytes(self.listed * LEAST_PER_LISTED) } else { Bytes::ZERO }
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
    use host::cgroup::Cgroup;

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
}
