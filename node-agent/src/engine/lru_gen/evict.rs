//! Evicting what is old, while the kernel may demote: strictly anonymous memory where the kernel can, else carefully.

use std::collections::BTreeMap;
use std::time::{Duration, Instant as Clock};

use host::cgroup::Cgroup;
use host::lru_gen::{
    AnonSyntax, Generation, LruGenCommand, LruGenWritten, Swappiness, read_lru_gen_of, write_lru_gen,
};
use tiering::{Bytes, Instant, NodeId, NodeSet};

use super::layers::Old;
use super::{LruGenEngine, bytes, walk};
use crate::engine::{EngineError, Ground, Moved, Order, anon_on, any_target_allowed, targets_allowed};
use crate::state::State;
use crate::tunables::DemotionWindow;

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

/// Where the kernel would turn to other lists, a walk proves for this part of the age that what it left old is old still, within
/// the bounds below. Each walk opens a generation and so merges two others, of which the younger is evicted first: a second walk soon
/// after costs what the generations prove.
const FRESH_PART: u32 = 8;
const FRESH_LEAST: Duration = Duration::from_millis(200);
const FRESH_MOST: Duration = Duration::from_secs(10);

/// An order may take so many times its budget there: what a walk proved is soon too old to go on with in the next round.
const FRESH_BUDGETS: u32 = 8;

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
    /// A walk was made for it.
    walked: bool,
}

impl LruGenEngine {
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
        if parts.is_empty() {
            return Ok(Moved::default());
        }
        let demoted_before = demoted(order.cgroup, &ground.slow)?;
        let mut course =
            Course { began, wanted, asked: 0, demoted_before, moved: Bytes::ZERO, walked: false };
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
        let failed = if stayed > 0 { BTreeMap::from([("stayed", stayed)]) } else { BTreeMap::new() };
        Ok(Moved {
            bytes: course.moved,
            tried: bytes(course.asked).max(course.moved),
            failed,
            walked: course.walked,
        })
    }

    /// What is at least `age` old, oldest first.
    fn parts<'a>(&self, leaves: &[&'a Cgroup], from: NodeId, age: Duration, now: Instant) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        for leaf in leaves {
            let on = self.leaves.get(&leaf.id()).and_then(|known| known.on(from.0));
            let old = on.and_then(|on| on.layers.at_least(age, now));
            let Some(Old { pages, oldest, .. }) = old else { continue };
            if self.is_careful() && careful_request(pages, u64::MAX).is_none() {
                continue;
            }
            parts.push(Part { leaf, node: from.0, pages, oldest });
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
            let is_ripe = order.is_urgent || walked.is_none_or(|walked| now.since(walked) >= proven);
            if !is_ripe || before.after_a_walk < proven {
                return Ok(End::Part);
            }
            course.walked = true;
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

/// How much to ask for of what a walk has just left `old`, so that the kernel finds it among that even where part of it was written
/// meanwhile: a small part, and of the rest a batch less. `None` where that is nothing.
fn careful_request(old: u64, wanted: u64) -> Option<u64> {
    let part = (old / CAREFUL_PART).min(STEP_PAGES.max(old / 64)).min(4 * STEP_PAGES);
    let request = part.max(OVERSHOOT_PAGES).min(old.saturating_sub(OVERSHOOT_PAGES)).min(wanted);
    (request > 0).then_some(request)
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
        None => anon_on(cgroup, slow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
