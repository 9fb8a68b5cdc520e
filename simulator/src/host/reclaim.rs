//! Page cache, kswapd, and the eviction that demotes.

use super::pages::{Cell, Generations, round};
use super::{Evicted, Group, Host, Node};
use crate::world::{Kind, NodeKind, PAGE};

/// Pages that kswapd demotes from one node a second; dropping clean cache costs next to nothing beside it.
const KSWAPD_DEMOTES: f64 = (1_u64 << 30) as f64 / PAGE as f64;

impl Host {
    /// Pods read files; what is read is cached until somebody needs the room.
    pub(super) fn read_files(&mut self) {
        for pod in 0..self.pods.len() {
            if !self.pods[pod].runs {
                continue;
            }
            let Some(files) = &self.pods[pod].files else { continue };
            let cached: u64 = self.pods[pod].counts.file.iter().sum();
            let missing = (files.of.0.0 / PAGE).saturating_sub(cached);
            // Of a loop over more than fits in, nothing is found cached.
            let read = files.read.0.over(self.tick).0 / PAGE;
            self.cache_pages(pod, if missing > 0 { read } else { 0 });
        }
    }

    fn cache_pages(&mut self, pod: usize, mut pages: u64) {
        let home = self.pods[pod].home;
        if let Some(max) = self.pods[pod].max {
            let over = (self.usage(pod) + pages).saturating_sub(max);
            let dropped = self.reclaim_cache_of(pod, over);
            // More than fits in passes through.
            pages -= (over - dropped).min(pages);
        }
        for node in self.nodes[home].by_distance.clone() {
            // kswapd and the reader take turns, many times a second.
            let batch = (self.nodes[node].high - self.nodes[node].low).max(pages / 16).max(1);
            let mut turns = 0;
            while pages > 0 && turns < 64 {
                turns += 1;
                if self.nodes[node].above(self.nodes[node].low) == 0 {
                    self.make_room(node, batch);
                }
                let here = self.nodes[node].above(self.nodes[node].low).min(pages);
                if here == 0 {
                    break;
                }
                let Generations { min_seq, max_seq, .. } = self.pods[pod].lru[node];
                // Not mapped and not active: the oldest generation but where there are more than three (`lru_gen_folio_seq`).
                let seq = if min_seq + 2 >= max_seq { min_seq } else { min_seq + 1 };
                let pod = &mut self.pods[pod];
                pod.cache[node][Generations::slot(seq)] += here;
                pod.counts.file[node] += here;
                pod.pending += here;
                self.nodes[node].used += here;
                pages -= here;
            }
        }
    }

    /// kswapd's turn on a node: woken below the low watermark, or by a promotion that found no room.
    pub(super) fn kswapd(&mut self, node: usize, for_promotion: bool) {
        let Node { low, high, promo, .. } = self.nodes[node];
        let free = self.nodes[node].free();
        if !for_promotion && free >= low {
            return;
        }
        let line = if for_promotion { promo } else { high };
        self.reclaim_node(node, line.saturating_sub(free));
    }

    /// Makes room on a node for pages above the low watermark, and on to the high one.
    pub(super) fn make_room(&mut self, node: usize, pages: u64) {
        let Node { low, high, .. } = self.nodes[node];
        let free = self.nodes[node].free();
        self.reclaim_node(node, (low + pages).max(high).saturating_sub(free));
    }

    /// Reclaims on a node: clean cache of all cgroups by what they have, and where the kernel may demote, anonymous memory of the
    /// oldest generations beside it.
    fn reclaim_node(&mut self, node: usize, pages: u64) {
        if pages == 0 {
            return;
        }
        let cached: u64 = self.pods.iter().map(|pod| pod.cache[node].iter().sum::<u64>()).sum();
        let demotes = self.demotion_enabled && self.nodes[node].kind == NodeKind::Fast;
        let anon: u64 = self.pods.iter().map(|pod| pod.counts.anon[node].saturating_sub(pod.low)).sum();
        let of_anon = if demotes {
            let share = anon as f64 / (anon + cached).max(1) as f64;
            let bound = KSWAPD_DEMOTES * self.tick.as_secs_f64();
            ((pages as f64 * share).min(bound) as u64).min(anon)
        } else {
            0
        };
        let of_cache = (pages - of_anon).min(cached);
        for pod in 0..self.pods.len() {
            let has: u64 = self.pods[pod].cache[node].iter().sum();
            if has > 0 && cached > 0 {
                let share = (u128::from(of_cache) * u128::from(has)).div_ceil(u128::from(cached));
                self.drop_cache(pod, node, u64::try_from(share).unwrap_or(u64::MAX));
            }
            let has = self.pods[pod].counts.anon[node].saturating_sub(self.pods[pod].low);
            if of_anon > 0 && has > 0 {
                let share = round(of_anon as f64 * has as f64 / anon as f64, &mut self.random);
                let lru = self.pods[pod].lru[node];
                let moved = self.evict_from(pod, node, lru.max_seq.saturating_sub(2), share, u64::MAX).moved;
                if moved < share {
                    // Nothing old is left: the kernel ages, and goes on next time.
                    self.age(pod, node);
                }
            }
        }
    }

    /// Drops clean cache of one cgroup on one node, oldest first. When as much was dropped as the cgroup has, the kernel ages the
    /// cgroup: anonymous memory beside the cache gets a generation older by it.
    fn drop_cache(&mut self, pod: usize, node: usize, pages: u64) -> u64 {
        let mut left = pages;
        for seq in self.pods[pod].lru[node].seqs() {
            let slot = &mut self.pods[pod].cache[node][Generations::slot(seq)];
            let dropped = left.min(*slot);
            *slot -= dropped;
            left -= dropped;
        }
        let dropped = pages - left;
        self.nodes[node].used -= dropped;
        let pod_ = &mut self.pods[pod];
        pod_.counts.file[node] -= dropped;
        pod_.pending += dropped;
        pod_.reclaimed[node] += dropped;
        if dropped > 0 && pod_.reclaimed[node] >= pod_.cache[node].iter().sum::<u64>() + dropped {
            pod_.reclaimed[node] = 0;
            self.age(pod, node);
        }
        dropped
    }

    /// Reclaim at a cgroup's own limit.
    pub(super) fn reclaim_cache_of(&mut self, pod: usize, pages: u64) -> u64 {
        let mut left = pages;
        for node in 0..self.nodes.len() {
            left -= self.drop_cache(pod, node, left);
        }
        pages - left
    }

    pub(super) fn drop_cache_of(&mut self, pod: usize) {
        for node in 0..self.nodes.len() {
            self.drop_cache(pod, node, u64::MAX / 2);
        }
    }

    /// Ages a cgroup on a node: what has the accessed bit set moves to the generation that is newest, and a new one begins.
    /// Returns what moved, by the generation that it came from.
    pub(super) fn age(&mut self, pod: usize, node: usize) -> Vec<(u64, u64)> {
        let lru = self.pods[pod].lru[node];
        let newest = Generations::slot(lru.max_seq);
        let mut moved: Vec<(u64, u64)> = lru.seqs().map(|seq| (seq, 0)).collect();
        let merged = self.pods[pod].lru[node].begin(self.now);
        for group in self.pods[pod].groups.clone() {
            if self.groups[group].kind == Kind::Locked {
                continue;
            }
            let mut came = 0;
            for (seq, pages) in &mut moved {
                let slot = Generations::slot(*seq);
                let cells = &mut self.groups[group].cells[node];
                let young = cells[slot].young;
                *pages += young;
                if slot == newest {
                    (cells[slot].young, cells[slot].found) = (0, young);
                } else {
                    let taken = cells[slot].take_young(young, &mut self.random);
                    cells[slot].found = 0;
                    came += taken.pages;
                    cells[newest].put(Cell { young: 0, found: 0, ..taken });
                }
            }
            self.groups[group].cells[node][newest].found += came;
            if let Some((from, into)) = merged {
                let cells = &mut self.groups[group].cells[node];
                let joined = std::mem::take(&mut cells[from]);
                cells[into].put(joined);
            }
        }
        if let Some((from, into)) = merged {
            let cache = &mut self.pods[pod].cache[node];
            cache[into] += std::mem::take(&mut cache[from]);
        }
        moved
    }

    /// Evicts pages of the generations up to `seq`, oldest first: to the nearest slow node that has room above its high watermark. A page
    /// with the accessed bit set stays and becomes young, as does one that can't be moved. It ends when so many moved, or when so many were
    /// looked at.
    pub(super) fn evict_from(
        &mut self,
        pod: usize,
        node: usize,
        seq: u64,
        pages: u64,
        looks: u64,
    ) -> Evicted {
        let mut evicted = Evicted::default();
        let lru = self.pods[pod].lru[node];
        let newest = Generations::slot(lru.max_seq);
        for seq in lru.min_seq..=seq.min(lru.max_seq.saturating_sub(2)) {
            let slot = Generations::slot(seq);
            while evicted.moved < pages && evicted.looked_at() < looks {
                let groups = self.pods[pod].groups.clone();
                let on_list = |group: &Group| {
                    if group.kind == Kind::Locked { 0 } else { group.cells[node][slot].pages }
                };
                let all: u64 = groups.clone().map(|group| on_list(&self.groups[group])).sum();
                if all == 0 {
                    break;
                }
                let share =
                    (pages - evicted.moved).min(looks - evicted.looked_at()).min(all) as f64 / all as f64;
                for group in groups {
                    let wanted = round(on_list(&self.groups[group]) as f64 * share, &mut self.random);
                    if wanted == 0 {
                        continue;
                    }
                    let mut cell = self.take(group, node, slot, wanted.min(pages));
                    let young = cell.take_young(cell.young, &mut self.random);
                    evicted.young += young.pages;
                    self.put(group, node, newest, Cell { young: 0, ..young });
                    if self.groups[group].kind == Kind::Pinned {
                        evicted.stuck += cell.pages;
                        self.put(group, node, newest, cell);
                        continue;
                    }
                    evicted.moved += self.sink(group, node, cell, &mut evicted.stuck);
                }
            }
        }
        evicted
    }

    /// Moves pages down to the nearest slow nodes with room; what finds none stays and becomes young.
    pub(super) fn sink(&mut self, group: usize, from: usize, mut cell: Cell, stuck: &mut u64) -> u64 {
        let pod = self.groups[group].pod;
        let mut moved = 0;
        for to in self.nodes[from].by_distance.clone() {
            let node = &self.nodes[to];
            if node.kind != NodeKind::Slow || cell.pages == 0 {
                continue;
            }
            let part = cell.take(node.above(node.high), &mut self.random);
            if part.pages == 0 {
                continue;
            }
            self.nodes[from].used -= part.pages;
            self.nodes[to].used += part.pages;
            let slot = Generations::slot(self.pods[pod].lru[to].max_seq - 1);
            moved += part.pages;
            // Its touches of this minute were touches of a fast node.
            self.put(group, to, slot, Cell { seen: 0, marked: 0, found: 0, ..part });
        }
        if cell.pages > 0 {
            *stuck += cell.pages;
            let newest = Generations::slot(self.pods[pod].lru[from].max_seq);
            self.put(group, from, newest, cell);
        }
        self.groups[group].usage.demoted += moved;
        let pod = &mut self.pods[pod];
        pod.ledger.minute.demoted += moved;
        pod.counts.demoted += moved;
        moved
    }
}
