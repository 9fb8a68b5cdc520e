//! Whether a page frame is of a slow node, for pages that `move_pages(2)` does not see: before 6.3 or so it passes over pages that NUMA
//! balancing has made inaccessible to catch the next touch.

use std::fs;

use anyhow::{Context as _, Result};

const PAGE: u64 = 4096;
const NODES: &str = "/sys/devices/system/node";

/// Memory blocks of slow nodes.
pub(super) struct Frames {
    block_pages: u64,
    slow_blocks: Vec<u64>,
}

impl Frames {
    pub(super) fn read(slow: &[usize]) -> Result<Self> {
        let size = fs::read_to_string("/sys/devices/system/memory/block_size_bytes")?;
        let size = u64::from_str_radix(size.trim(), 16).context("block_size_bytes")?;
        let mut slow_blocks = Vec::new();
        for node in slow {
            // A node may not be there, or not any more.
            let Ok(entries) = fs::read_dir(format!("{NODES}/node{node}")) else { continue };
            for entry in entries {
                let name = entry?.file_name();
                slow_blocks
                    .extend(name.to_str().and_then(|name| name.strip_prefix("memory")?.parse::<u64>().ok()));
            }
        }
        Ok(Self { block_pages: size / PAGE, slow_blocks })
    }

    /// Whether a page is on a slow node, by its entry in `pagemap`; `None` where no page is present (bit 63).
    pub(super) fn is_slow(&self, entry: u64) -> Option<bool> {
        let frame = entry & ((1 << 55) - 1);
        (entry >> 63 == 1).then(|| self.slow_blocks.contains(&(frame / self.block_pages)))
    }
}
