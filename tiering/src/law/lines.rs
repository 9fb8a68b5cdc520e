//! What is short and what has room: the lines of a node.
//!
//! # Problem
//! New pages should start in DRAM, so some of it must be to be had before they come. But on any host that reads files, free memory is what kswapd
//! leaves, a little above its low watermark: file memory takes the rest, and gives it back for the asking.
//!
//! # Approach
//! What counts is what the kernel can give: free memory and clean file memory. Demotion for others' sake begins below the low watermark
//! and 2 % (TPP decouples allocation from demotion so, with a `watermark_scale` of 2 % of capacity). Promotion ends 1 % above
//! that, so that what is promoted is not what must be demoted next. Free memory on lists of single CPUs counts
//! for at most half of the headroom (docs/decisions/per-cpu-lists.md).
//!
//! # Properties
//! - `page_cache_is_not_need`: with clean file memory above the headroom nothing is short.
//! - `what_is_short_has_no_room`, nor has what is a little above it.

use super::sample::{NodeSample, Speed};
use crate::units::{Bytes, Ratio};

impl NodeSample {
    /// What the kernel can give at once or after dropping clean file memory.
    #[must_use]
    pub fn available(&self) -> Bytes {
        self.free + self.pcp + self.reclaimable_file
    }

    /// What should be available on a fast node.
    #[must_use]
    pub fn headroom(&self) -> Bytes {
        self.low + Ratio::of_parts(2, 100).of(self.total)
    }

    /// What any CPU should find, its own lists apart: half of what is kept above the low watermark, and at least the high one.
    fn for_any_cpu(&self) -> Bytes {
        (self.low + Ratio::of_parts(1, 100).of(self.total)).max(self.high)
    }

    /// What is missing of the headroom.
    #[must_use]
    pub fn shortfall(&self) -> Bytes {
        match self.speed {
            Speed::Slow => Bytes::ZERO,
            Speed::Fast => (self.headroom() - self.available())
                .max(self.for_any_cpu() - self.free - self.reclaimable_file),
        }
    }

    /// Room for what comes from the other tier.
    ///
    /// On a slow node: free memory above the high watermark and 1/64 of the node, for a move that finds no room makes cold pages young
    /// again. Clean file memory there is not counted: making room for a move by dropping it would be reclaim.
    #[must_use]
    pub fn room(&self) -> Bytes {
        match self.speed {
            Speed::Slow => self.free - self.high - Bytes(self.total.0 / 64),
            Speed::Fast => {
                let band = Ratio::of_parts(1, 100).of(self.total);
                (self.available() - self.headroom() - band)
                    .min(self.free + self.reclaimable_file - self.for_any_cpu() - band)
            }
        }
    }

    /// Whether what has memory here should bring up no more than its share.
    pub(super) fn is_tight(&self) -> bool {
        self.speed == Speed::Fast && self.room() < Ratio::of_parts(2, 100).of(self.total)
    }

    /// Whether less than the kernel's low watermark is left.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.speed == Speed::Fast && self.free + self.reclaimable_file < self.low
    }
}
