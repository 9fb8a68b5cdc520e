//! The node of a page frame, for pages that `move_pages(2)` does not see: before 6.3 or so it passes over pages that NUMA
//! balancing has made inaccessible to catch the next touch.

use std::fs;

use anyhow::{Context as _, Result};

const PAGE: u64 = 4096;
const NODES: &str = "/sys/devices/system/node";

/// Memory blocks of node 1; everything else is node 0.
pub(super) struct Frames {
    block_pages: u64,
    slow_blocks: Vec<u64>,
}

impl Frames {
    pub(super) fn read() -> Result<Self> {
        let size = fs::read_to_string("/sys/devices/system/memory/block_size_bytes")?;
        let size = u64::from_str_radix(size.trim(), 16).context("block_size_bytes")?;
        let mut slow_blocks = Vec::new();
        for entry in fs::read_dir(format!("{NODES}/node1"))? {
            let name = entry?.file_name();
            slow_blocks
                .extend(name.to_str().and_then(|name| name.strip_prefix("memory")?.parse::<u64>().ok()));
        }
        Ok(Self { block_pages: size / PAGE, slow_blocks })
    }

    /// The node of a page by its entry in `pagemap`; `None` where no page is present (bit 63).
    pub(super) fn node(&self, entry: u64) -> Option<usize> {
        let frame = entry & ((1 << 55) - 1);
        (entry >> 63 == 1).then(|| usize::from(self.slow_blocks.contains(&(frame / self.block_pages))))
    }
}
