//! Pages are touched, and hint faults promote what was touched on a slow node.

use std::time::Duration;

use super::pages::{GENERATIONS, Generations, round};
use super::{Group, Host};
use crate::world::{Activity, Kind, NodeKind, PAGE};

/// Pages that the scanner of NUMA balancing marks of one process a second (`numa_balancing/scan_size_mb` of 256, at the least
/// period of a second).
const MARKED_PER_SECOND: f64 = (256 << 20) as f64 / PAGE as f64;

/// Pages that it passes a second, those that need no mark too: eight times as many (`kernel/sched/fair.c:task_numa_work`, `virtpages`).
const PASSED_PER_SECOND: f64 = 8.0 * MARKED_PER_SECOND;

impl Host {
    /// What all pods touch in this tick.
    pub(super) fn touch(&mut self) {
        let seconds = self.tick.as_secs_f64();
        for node in &mut self.nodes {
            node.promotion_tokens = (node.promotion_tokens + self.promote_rate * seconds)
                .min(self.promote_rate * seconds.max(1.0));
        }
        for pod in 0..self.pods.len() {
            if !self.pods[pod].runs {
                continue;
            }
            let mark = self.mark_chance(pod);
            for group in self.pods[pod].groups.clone() {
                self.touch_group(group, mark);
            }
        }
        self.adjust_hot_thresholds();
    }

    /// Chance that a page on a slow node is marked for a hint fault in a tick.
    fn mark_chance(&self, pod: usize) -> f64 {
        if !self.numa_balancing {
            return 0.0;
        }
        let (mut slow, mut all) = (0, 0);
        for (node, pages) in self.pods[pod].counts.anon.iter().enumerate() {
            all += pages;
            if self.nodes[node].kind == NodeKind::Slow {
                slow += pages;
            }
        }
        if slow == 0 {
            return 0.0;
        }
        let pass = (slow as f64 / MARKED_PER_SECOND).max(all as f64 / PASSED_PER_SECOND).max(1.0);
        (self.tick.as_secs_f64() / pass).min(1.0)
    }

    fn touch_group(&mut self, group: usize, mark: f64) {
        let Group { pod, set, part, chance, active_since, .. } = self.groups[group];
        let spec = &self.sets[self.pods[pod].spec][set];
        let is_active = spec.touched.is_active(part.shift, self.now);
        if !is_active {
            self.groups[group].active_since = None;
        } else if active_since.is_none() {
            self.groups[group].active_since = Some(self.now);
            self.groups[group].began = self.now;
        }
        let (chance, accesses) = match part.activity {
            Activity::Random(rate) if is_active => (chance, rate * self.tick.as_secs_f64()),
            Activity::AtOnce { period, offset } if is_active => {
                let before = |time: Duration| {
                    time.checked_sub(offset)
                        .map_or(0, |since| since.as_nanos() / period.as_nanos().max(1) + 1)
                };
                let times = before(self.now) - before(self.now.saturating_sub(self.tick));
                if times == 0 { (0.0, 0.0) } else { (1.0, times as f64) }
            }
            _ => (0.0, 0.0),
        };
        if chance > 0.0 {
            self.groups[group].touched = Some(self.now);
        }
        let threshold = self.nodes[self.pods[pod].home].hot_threshold_ms / 1000.0;
        let part_of_minute = self.tick.as_secs_f64() / 60.0;
        for node in 0..self.nodes.len() {
            let is_slow = self.nodes[node].kind == NodeKind::Slow;
            if chance == 0.0 && !is_slow {
                continue;
            }
            if is_slow {
                self.groups[group].usage.window.slow += self.groups[group].on(node) as f64 * part_of_minute;
            }
            for slot in 0..GENERATIONS {
                let cell = &mut self.groups[group].cells[node][slot];
                if cell.pages == 0 {
                    continue;
                }
                let newly_marked = if is_slow && mark > 0.0 {
                    round((cell.pages - cell.marked) as f64 * mark, &mut self.random)
                } else {
                    0
                };
                cell.marked += newly_marked;
                if chance == 0.0 {
                    continue;
                }
                cell.young += round((cell.pages - cell.young) as f64 * chance, &mut self.random);
                let newly_seen = round((cell.pages - cell.seen) as f64 * chance, &mut self.random);
                cell.seen += newly_seen;
                let done = cell.pages as f64 * accesses;
                let usage = &mut self.groups[group].usage;
                usage.accesses += done;
                usage.minute_seen += newly_seen;
                if is_slow {
                    usage.slow_accesses += done;
                    usage.minute_slow_seen += newly_seen;
                    let cell = &mut self.groups[group].cells[node][slot];
                    let faults = round(cell.marked as f64 * chance, &mut self.random);
                    if faults == 0 {
                        continue;
                    }
                    cell.marked -= faults;
                    // A fault comes within the threshold of its mark only where the mark is that fresh.
                    let fresh = newly_marked.min(faults) as f64;
                    let soon = match part.activity {
                        Activity::Random(rate) => {
                            let within = 1.0 - (-rate * threshold.min(self.tick.as_secs_f64())).exp();
                            fresh * (within / chance).min(1.0)
                        }
                        _ => fresh * (threshold / self.tick.as_secs_f64()).min(1.0),
                    };
                    let soon = round(soon, &mut self.random);
                    self.hint_faults(group, node, slot, faults, soon);
                }
            }
        }
    }

    /// `should_numa_migrate_memory()` in tiering mode: with plenty free on the fast node, the first fault promotes; else one that
    /// comes soon after its mark, within the rate limit.
    fn hint_faults(&mut self, group: usize, node: usize, slot: usize, faults: u64, soon: u64) {
        let Group { pod, kind, .. } = self.groups[group];
        let home = self.pods[pod].home;
        let to = &mut self.nodes[home];
        let plenty = (1 << 30) / PAGE;
        let wanted = if to.above(to.promo) > plenty.max(to.total / 16) {
            faults
        } else {
            to.candidates += soon;
            let passed = soon.min(to.promotion_tokens as u64);
            to.promotion_tokens -= passed as f64;
            passed
        };
        // No page goes to a node below its high watermark; kswapd is woken for it (`migrate_balanced_pgdat`).
        let room = to.above(to.high);
        if room < wanted {
            self.kswapd(home, true);
        }
        let room = self.nodes[home].above(self.nodes[home].high);
        if kind != Kind::Pinned {
            // Pages that fault are marked no more; those that go up are of them.
            let marked = std::mem::take(&mut self.groups[group].cells[node][slot].marked);
            self.promote_young(group, node, slot, wanted.min(room), true);
            let cell = &mut self.groups[group].cells[node][slot];
            cell.marked = marked.min(cell.pages);
        }
    }

    /// Moves pages with the accessed bit set up to the pod's own node.
    pub(super) fn promote_young(
        &mut self,
        group: usize,
        node: usize,
        slot: usize,
        pages: u64,
        by_kernel: bool,
    ) -> u64 {
        let taken = self.groups[group].cells[node][slot].take_young(pages, &mut self.random);
        self.bring_up(group, node, taken, by_kernel)
    }

    /// Puts pages that were taken out of a cell of a node to the pod's own.
    pub(super) fn bring_up(&mut self, group: usize, node: usize, taken: super::Cell, by_kernel: bool) -> u64 {
        let pod = self.groups[group].pod;
        let home = self.pods[pod].home;
        if taken.pages == 0 {
            return 0;
        }
        self.count(group, node, -(taken.pages.cast_signed()));
        self.nodes[node].used -= taken.pages;
        self.nodes[home].used += taken.pages;
        let slot = Generations::slot(self.pods[pod].lru[home].max_seq);
        self.put(group, home, slot, super::Cell { marked: 0, found: 0, ..taken });
        self.groups[group].usage.promoted += taken.pages;
        let pod = &mut self.pods[pod];
        pod.ledger.minute.promoted += taken.pages;
        if by_kernel {
            pod.counts.promoted += taken.pages;
            pod.pending += taken.pages;
        }
        taken.pages
    }

    /// Once a minute, the threshold follows the rate limit (`numa_promotion_adjust_threshold`).
    fn adjust_hot_thresholds(&mut self) {
        const DEFAULT_MS: f64 = 1000.0;
        const STEP_MS: f64 = DEFAULT_MS * 2.0 / 16.0;
        if !self.now.as_secs().is_multiple_of(60) || self.now.subsec_nanos() != 0 {
            return;
        }
        let reference = self.promote_rate * 60.0;
        for node in &mut self.nodes {
            let candidates = std::mem::take(&mut node.candidates) as f64;
            if candidates > reference * 1.1 {
                node.hot_threshold_ms = (node.hot_threshold_ms - STEP_MS).max(STEP_MS);
            } else if candidates < reference * 0.9 {
                node.hot_threshold_ms = (node.hot_threshold_ms + STEP_MS).min(DEFAULT_MS * 2.0);
            }
        }
    }
}
