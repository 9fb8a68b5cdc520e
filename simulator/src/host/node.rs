//! A memory node: size, watermarks, free memory.

use crate::world::{NodeKind, NodeSpec, PAGE};

/// A node; all amounts are pages.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Its tier.
    pub kind: NodeKind,
    /// All its memory.
    pub total: u64,
    /// In use.
    pub(super) used: u64,
    /// Free on lists of single CPUs.
    pub pcp: u64,
    /// `min` watermark.
    pub min: u64,
    /// `low` watermark: kswapd wakes below.
    pub low: u64,
    /// `high` watermark: kswapd sleeps above.
    pub high: u64,
    /// `promo` watermark: kswapd goes on to it where a promotion woke it.
    pub promo: u64,
    /// Other nodes and itself by distance, as indices.
    pub by_distance: Vec<usize>,
    /// Latency in milliseconds below which a hint fault promotes; the kernel adjusts it to the rate limit.
    pub(super) hot_threshold_ms: f64,
    /// Candidates of promotion in this period of a minute.
    pub(super) candidates: u64,
    /// Pages that promotion may take in this second.
    pub(super) promotion_tokens: f64,
}

impl Node {
    /// Nodes with the kernel's own watermarks: `min_free_kbytes` is the root of 16 times the memory in KiB, at most 256 MiB, by
    /// size over the nodes; the others are a quarter of it or a thousandth of the node apart, whichever is more
    /// (`mm/page_alloc.c:__setup_per_zone_wmarks`).
    #[must_use]
    pub fn of(specs: &[NodeSpec], cpus: u32) -> Vec<Self> {
        let all_kib: u64 = specs.iter().map(|spec| spec.size.0.0 / 1024).sum();
        let min_kib = ((all_kib * 16) as f64).sqrt().min(262_144.0);
        let fast = specs.iter().filter(|spec| spec.kind == NodeKind::Fast).count().max(1);
        specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let total = spec.size.0.0 / PAGE;
                let min = (min_kib * (spec.size.0.0 / 1024) as f64 / all_kib as f64 / 4.0) as u64;
                let gap = (min / 4).max(total / 1000);
                let mut by_distance: Vec<usize> = (0..specs.len()).collect();
                let distance = |to: usize| match spec.distances.get(to) {
                    Some(distance) => *distance,
                    None if to == index => 10,
                    None => 20,
                };
                by_distance.sort_by_key(|to| (*to != index, distance(*to)));
                // A quarter of a MiB of free pages waits on the list of each CPU next to the node.
                let pcp = match spec.kind {
                    NodeKind::Fast => (u64::from(cpus) / fast as u64 * 64).min(total / 256),
                    NodeKind::Slow => 0,
                };
                Self {
                    id: spec.id,
                    kind: spec.kind,
                    total,
                    used: 0,
                    pcp,
                    min,
                    low: min + gap,
                    high: min + 2 * gap,
                    promo: min + 3 * gap,
                    by_distance,
                    hot_threshold_ms: 1000.0,
                    candidates: 0,
                    promotion_tokens: 0.0,
                }
            })
            .collect()
    }

    /// Free pages, those on lists of single CPUs too.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// `NR_FREE`: what the kernel compares with its watermarks. The lists of single CPUs are emptied below `high`.
    #[must_use]
    pub fn nr_free(&self) -> u64 {
        let free = self.free();
        if free < self.high + self.pcp { free } else { free - self.pcp }
    }

    pub(super) fn above(&self, line: u64) -> u64 {
        self.free().saturating_sub(line)
    }
}
