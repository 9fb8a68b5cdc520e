//! What a sample means, given the one before.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::age::AgeHistogram;
use crate::node::{NodeId, NodeSet};
use crate::sample::CgroupSample;
use crate::units::{Bytes, Instant, Ratio};

/// A cgroup's state and rates. Rates exist from the second sample on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// When the sample was read.
    pub at: Instant,
    /// Time since the sample before; nothing for the first.
    pub elapsed: Duration,
    /// Anonymous memory by node.
    pub anon_by_node: BTreeMap<NodeId, Bytes>,
    /// Anonymous memory on fast nodes.
    pub fast_anon: Bytes,
    /// Anonymous memory on slow nodes.
    pub slow_anon: Bytes,
    /// Anonymous memory on fast nodes that engines leave where it is: mlocked, `MADV_FREE`d.
    pub fast_unmovable: Bytes,
    /// Ages of anonymous memory on fast nodes.
    pub ages: AgeHistogram,
    /// Bytes promoted since the sample before, where the kernel counts them.
    pub promoted: Bytes,
    /// Bytes that a walk since the sample before found touched on slow nodes.
    pub slow_touched: Option<Bytes>,
    /// `memory.current`.
    pub current: Bytes,
    /// Share of the last seconds stalled on memory, where the kernel says.
    pub memory_stall: Option<Ratio>,
    /// Share of the last seconds stalled on I/O, where the kernel says.
    pub io_stall: Option<Ratio>,
}

impl Model {
    /// From a sample, the one before it, and the shares of time `stalled` on memory and I/O.
    #[must_use]
    pub fn new(
        sample: &CgroupSample,
        last: Option<&CgroupSample>,
        fast_nodes: &NodeSet,
        stalled: (Option<Ratio>, Option<Ratio>),
    ) -> Self {
        let elapsed = last.map_or(Duration::ZERO, |last| sample.at.since(last.at));
        let (fast_anon, slow_anon) = fast_and_slow(sample, fast_nodes);
        let on_fast = sample.nodes.iter().filter(|(node, _)| fast_nodes.contains(**node));
        let fast_unmovable = on_fast.map(|(_, usage)| usage.unmovable).sum();
        let promoted = match (sample.promoted_total, last.and_then(|last| last.promoted_total)) {
            (Some(now), Some(before)) => now - before,
            // Not counted per cgroup before 6.7 or so: what left the slow nodes and turned up on the fast ones.
            (None, _) => last.map_or(Bytes::ZERO, |last| {
                let (fast_before, slow_before) = fast_and_slow(last, fast_nodes);
                (slow_before - slow_anon).min(fast_anon - fast_before)
            }),
            (Some(_), None) => Bytes::ZERO,
        };
        Self {
            at: sample.at,
            elapsed,
            anon_by_node: sample.nodes.iter().map(|(node, usage)| (*node, usage.anon)).collect(),
            fast_anon,
            slow_anon,
            fast_unmovable,
            ages: AgeHistogram::new(sample.ages.iter().copied()),
            promoted,
            slow_touched: sample.slow_touched,
            current: sample.current,
            memory_stall: stalled.0,
            io_stall: stalled.1,
        }
    }

    /// Anonymous memory on all tiers.
    #[must_use]
    pub fn footprint(&self) -> Bytes {
        self.fast_anon + self.slow_anon
    }

    /// Bytes accessed within `window`: what is on fast nodes and younger, and what was touched on slow ones.
    #[must_use]
    pub fn working_set(&self, window: Duration) -> Bytes {
        self.fast_anon - self.ages.at_least(window) + self.slow_touched.unwrap_or_default()
    }
}

fn fast_and_slow(sample: &CgroupSample, fast_nodes: &NodeSet) -> (Bytes, Bytes) {
    sample.nodes.iter().fold((Bytes::ZERO, Bytes::ZERO), |(fast, slow), (node, usage)| {
        if fast_nodes.contains(*node) { (fast + usage.anon, slow) } else { (fast, slow + usage.anon) }
    })
}
