//! Which node a page frame is on: the memory blocks of `/sys/devices/system/node/nodeN`.

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::node::read_nodes;
use crate::{file, sys};

/// The page frames of all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePfns {
    /// Sorted by frame, apart from each other.
    ranges: Vec<(Range<u64>, u32)>,
}

impl NodePfns {
    /// The node of a frame.
    #[must_use]
    pub fn node_of(&self, pfn: u64) -> Option<u32> {
        let after = self.ranges.partition_point(|(range, _)| range.start <= pfn);
        let (range, node) = self.ranges.get(after.checked_sub(1)?)?;
        range.contains(&pfn).then_some(*node)
    }

    /// The ranges of a node, in frames.
    pub fn of_node(&self, node: u32) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().filter(move |(_, id)| *id == node).map(|(range, _)| range.clone())
    }
}

/// Reads `devices/system/node/nodeN/memoryK` and the size of a block. Read again when memory goes on- or offline.
///
/// A block that two nodes share is listed by both; its frames are given to the lower one.
pub fn read_node_pfns(sys: &Path) -> Result<NodePfns> {
    let path = sys.join("devices/system/memory/block_size_bytes");
    let text = file::read(&path)?;
    let block_pages = u64::from_str_radix(text.trim(), 16)
        .ok()
        .map(|bytes| bytes / sys::page_size())
        .filter(|pages| *pages > 0)
        .ok_or_else(|| Error::malformed(&path, 1, text.trim_end()))?;
    let mut blocks: Vec<(u64, u32)> = Vec::new();
    for node in read_nodes(sys)?.has_memory {
        let dir = sys.join(format!("devices/system/node/node{node}"));
        let Some(entries) = file::there(fs::read_dir(&dir).map_err(|e| Error::io(&dir, "list", e)))? else {
            continue;
        };
        for entry in entries {
            let name = entry.map_err(|source| Error::io(&dir, "list", source))?.file_name();
            let block = name.to_str().and_then(|name| name.strip_prefix("memory")?.parse::<u64>().ok());
            blocks.extend(block.map(|block| (block, node)));
        }
    }
    blocks.sort_unstable();
    blocks.dedup_by_key(|(block, _)| *block);
    let mut ranges: Vec<(Range<u64>, u32)> = Vec::new();
    for (block, node) in blocks {
        let start = block.saturating_mul(block_pages);
        let end = start.saturating_add(block_pages);
        match ranges.last_mut() {
            Some((range, last)) if *last == node && range.end == start => range.end = end,
            _ => ranges.push((start..end, node)),
        }
    }
    Ok(NodePfns { ranges })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn frames_belong_to_the_node_of_their_block() {
        let node = "sys/devices/system/node";
        let (_dir, roots) = tree(&[
            ("sys/devices/system/memory/block_size_bytes", "8000000\n"),
            (&format!("{node}/online"), "0-1\n"),
            (&format!("{node}/has_cpu"), "0\n"),
            (&format!("{node}/has_memory"), "0-1\n"),
            (&format!("{node}/node0/memory0/state"), ""),
            (&format!("{node}/node0/memory1/state"), ""),
            (&format!("{node}/node0/memory_failure/total"), ""),
            (&format!("{node}/node1/memory1/state"), ""),
            (&format!("{node}/node1/memory8/state"), ""),
        ]);
        let pfns = read_node_pfns(&roots.sys).unwrap();
        let block = 0x800_0000 / sys::page_size();
        assert!(pfns.of_node(0).eq(std::iter::once(0..2 * block)));
        assert!(pfns.of_node(1).eq(std::iter::once(8 * block..9 * block)));
        let nodes = [0, 2 * block - 1, 2 * block, 8 * block, 9 * block].map(|pfn| pfns.node_of(pfn));
        assert_eq!(nodes, [Some(0), Some(0), None, Some(1), None]);
    }
}
