//! What the kernel offers to a law: files to read, commands to write.

use std::time::Duration;

use super::pages::{Cell, GENERATIONS, Generations, round};
use super::{Counts, Host};
use crate::world::{Activity, Kind, NodeKind};

/// A generation as `lru_gen` lists it, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationSize {
    /// Its number.
    pub seq: u64,
    /// Time since it was begun.
    pub birth_age: Duration,
    /// Pages of the anonymous list, shared memory among them.
    pub anon: u64,
    /// Pages of the file list.
    pub file: u64,
}

/// What a walk found, by node.
pub type Walked = Vec<Vec<(u64, u64)>>;

/// What an eviction did, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Demoted.
    pub moved: u64,
    /// Found in use, and young again.
    pub young: u64,
    /// Could not be moved: pinned, or no slow node had room.
    pub stuck: u64,
}

/// A cgroup's counts as a reader sees them, in pages by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaStat {
    /// Anonymous memory.
    pub anon: Vec<u64>,
    /// File and shared memory.
    pub file: Vec<u64>,
    /// On no evictable list.
    pub unevictable: Vec<u64>,
    /// `pgpromote_success`.
    pub promoted: u64,
    /// `pgdemote_*`.
    pub demoted: u64,
}

impl Evicted {
    /// Pages that the kernel looked at.
    #[must_use]
    pub fn looked_at(&self) -> u64 {
        self.moved + self.young + self.stuck
    }
}

/// What so many walks on end found touched before the last did is all alike.
const MOST_WALKS: u32 = 7;

impl Host {
    /// `memory.numa_stat` and `memory.stat` of a pod, which lag: an update is seen after two seconds, or when 64 of each CPU wait.
    pub fn numa_stat(&mut self, pod: usize) -> NumaStat {
        let (threshold, now) = (64 * u64::from(self.cpus), self.now);
        let pod = &mut self.pods[pod];
        if pod.pending > threshold {
            pod.flush(now);
        }
        let Counts { anon, file, unevictable, promoted, demoted } = pod.reported.clone();
        NumaStat { anon, file, unevictable, promoted, demoted }
    }

    /// The generations of a pod on a node, oldest first.
    #[must_use]
    pub fn generations(&self, pod: usize, node: usize) -> Vec<GenerationSize> {
        let pod = &self.pods[pod];
        let lru = pod.lru[node];
        let listed = |seq: u64| {
            let slot = Generations::slot(seq);
            let groups = self.groups[pod.groups.clone()].iter().filter(|group| group.kind != Kind::Locked);
            GenerationSize {
                seq,
                birth_age: self.now.saturating_sub(lru.birth(seq)),
                anon: groups.map(|group| group.cells[node][slot].pages).sum(),
                file: pod.cache[node][slot],
            }
        };
        lru.seqs().map(listed).collect()
    }

    /// Walks a pod's page tables on all nodes that hold some of its memory: what was touched since the walk before moves to the
    /// newest generation. By node, how many pages were found touched in each generation.
    pub fn walk(&mut self, pod: usize) -> Walked {
        (0..self.nodes.len())
            .map(|node| if self.listed_on(pod, node) == 0 { Vec::new() } else { self.age(pod, node) })
            .collect()
    }

    /// The kernel's own aging, where its reclaim finds nothing old.
    pub(crate) fn age_for_reclaim(&mut self, pod: usize, node: usize) {
        self.age(pod, node);
    }

    /// Pages on the anonymous lists of a node.
    #[must_use]
    pub fn listed_on(&self, pod: usize, node: usize) -> u64 {
        let groups = self.groups[self.pods[pod].groups.clone()].iter();
        groups.filter(|group| group.kind != Kind::Locked).map(|group| group.on(node)).sum()
    }

    /// Evicts anonymous pages of the generations up to `seq` while the kernel may demote, in commands small enough that no more than
    /// `looks` pages are looked at.
    pub fn evict(&mut self, pod: usize, node: usize, seq: u64, pages: u64, looks: u64) -> Evicted {
        if self.nodes[node].kind != NodeKind::Fast {
            return Evicted::default();
        }
        let evicted = self.evict_from(pod, node, seq, pages, looks);
        self.pods[pod].pending += evicted.moved;
        evicted
    }

    /// Moves pages that the last `walks` walks on end found touched on a slow node up to the pod's own node, as far as that has room
    /// above its high watermark; says how many.
    pub fn promote(&mut self, pod: usize, node: usize, pages: u64, walks: u32) -> u64 {
        let home = self.pods[pod].home;
        let pages = pages.min(self.nodes[home].above(self.nodes[home].high));
        let mut moved = 0;
        let lru = self.pods[pod].lru[node];
        let newest = [lru.max_seq, lru.max_seq.saturating_sub(1).max(lru.min_seq)];
        let interval = lru.birth(newest[0]).saturating_sub(lru.birth(newest[1]));
        let groups = self.pods[pod].groups.clone();
        // As in the agent's `pages` engine, which counts them, first what most walks on end found touched; of what is alike in that, a scan
        // meets pages in the order of their addresses, not of their heat.
        for walks_before in (walks.saturating_sub(1)..=MOST_WALKS).rev() {
            for seq in newest {
                let slot = Generations::slot(seq);
                let has = |host: &Self, group: usize| {
                    let before = host.touched_before(group, interval).powi(walks_before.cast_signed());
                    let group = &host.groups[group];
                    if group.kind == Kind::Anonymous {
                        group.cells[node][slot].found as f64 * before
                    } else {
                        0.0
                    }
                };
                let all: f64 = groups.clone().map(|group| has(self, group)).sum();
                let share = ((pages - moved) as f64 / all.max(1.0)).min(1.0);
                for group in groups.clone() {
                    let wanted = round(has(self, group) * share, &mut self.random).min(pages - moved);
                    if wanted == 0 {
                        continue;
                    }
                    let cell = self.groups[group].cells[node][slot].take_found(wanted, &mut self.random);
                    moved += self.bring_up(group, node, cell, false);
                }
            }
        }
        moved
    }

    /// Reclaimable clean file pages of a node.
    #[must_use]
    pub fn cached_on(&self, node: usize) -> u64 {
        self.pods.iter().map(|pod| pod.cache[node].iter().sum::<u64>()).sum()
    }

    /// Pages of a set of a pod by node, for whoever sees all.
    #[must_use]
    pub fn truly_on(&self, pod: usize, set: Option<&str>, node: usize) -> u64 {
        self.groups_of(pod, set).map(|group| group.on(node)).sum()
    }

    pub(crate) fn groups_of<'a>(
        &'a self,
        pod: usize,
        set: Option<&'a str>,
    ) -> impl Iterator<Item = &'a super::Group> {
        let sets = &self.sets[self.pods[pod].spec];
        self.groups[self.pods[pod].groups.clone()]
            .iter()
            .filter(move |group| set.is_none_or(|name| sets[group.set].name == name))
    }

    /// Demotes memory that a tracker of single pages, the kernel's lists aside, finds idle for so long; in no order but that. For the
    /// peers that bring their own.
    pub(crate) fn demote_idle(&mut self, pod: usize, idle: Duration, pages: u64) -> u64 {
        let mut eligible = Vec::new();
        for group in self.pods[pod].groups.clone() {
            let chance = self.idle_chance(group, idle);
            for node in self.on_tier(NodeKind::Fast) {
                for slot in 0..GENERATIONS {
                    let has = self.groups[group].cells[node][slot].pages as f64 * chance;
                    if has > 0.0 && self.groups[group].kind == Kind::Anonymous {
                        eligible.push((group, node, slot, has));
                    }
                }
            }
        }
        let all: f64 = eligible.iter().map(|(.., has)| has).sum();
        let share = (pages as f64 / all.max(1.0)).min(1.0);
        let mut moved = 0;
        for (group, node, slot, has) in eligible {
            let wanted = round(has * share, &mut self.random);
            let cell = self.take(group, node, slot, wanted);
            moved += self.sink(group, node, Cell { young: 0, ..cell }, &mut 0);
        }
        moved
    }

    /// Promotes memory on slow nodes that such a tracker finds touched within so long.
    pub(crate) fn promote_touched(&mut self, pod: usize, within: Duration, pages: u64) -> u64 {
        let mut moved = 0;
        for group in self.pods[pod].groups.clone() {
            let chance = 1.0 - self.idle_chance(group, within);
            if chance == 0.0 || self.groups[group].kind != Kind::Anonymous {
                continue;
            }
            for node in self.on_tier(NodeKind::Slow) {
                for slot in 0..GENERATIONS {
                    let touched =
                        round(self.groups[group].cells[node][slot].pages as f64 * chance, &mut self.random);
                    let home = &self.nodes[self.pods[pod].home];
                    let room = home.above(home.high);
                    let wanted = touched.min(pages - moved).min(room);
                    let cell = &mut self.groups[group].cells[node][slot];
                    cell.young = cell.young.max(wanted.min(cell.pages));
                    moved += self.promote_young(group, node, slot, wanted, false);
                }
            }
        }
        moved
    }

    /// Chance that a page of a group was not touched for so long.
    fn idle_chance(&self, group: usize, idle: Duration) -> f64 {
        let group = &self.groups[group];
        let since = |time: Option<Duration>| time.is_none_or(|time| self.now.saturating_sub(time) >= idle);
        match (group.part.activity, group.active_since) {
            (Activity::Random(rate), Some(_)) => (-rate * idle.as_secs_f64()).exp(),
            _ if since(group.touched) => 1.0,
            _ => 0.0,
        }
    }

    /// Chance that a page of a group that was touched since the last walk was touched in such an interval before it as well.
    fn touched_before(&self, group: usize, interval: Duration) -> f64 {
        let group = &self.groups[group];
        let was_in_use = group.active_since.is_some_and(|since| self.now.saturating_sub(since) > interval);
        match group.part.activity {
            Activity::Random(rate) if was_in_use => 1.0 - (-rate * interval.as_secs_f64()).exp(),
            // At any time in the last interval, and a period earlier.
            Activity::AtOnce { period, .. } if was_in_use => {
                let intervals = period.as_secs_f64() / interval.as_secs_f64().max(1e-9);
                (2.0 - intervals).clamp(0.0, 1.0)
            }
            _ => 0.0,
        }
    }

    pub(crate) fn on_tier(&self, kind: NodeKind) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].kind == kind).collect()
    }

    /// Pages of managed pods on slow nodes.
    #[must_use]
    pub fn saved(&self) -> u64 {
        let slow = self.on_tier(NodeKind::Slow);
        let managed = self.pods.iter().filter(|pod| pod.managed);
        managed.map(|pod| slow.iter().map(|node| pod.counts.anon[*node]).sum::<u64>()).sum()
    }
}
