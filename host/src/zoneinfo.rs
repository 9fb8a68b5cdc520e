//! Free pages and watermarks: `/proc/zoneinfo`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::file;

/// Sums over a node's zones, in pages. The watermarks are those that last: the kernel lifts them for moments, by what it
/// calls a boost, where kernel memory and other memory get into each other's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NodeWatermarks {
    /// Free pages that any CPU can take.
    pub free: u64,
    /// Of `free`, what the kernel keeps in low zones for allocations that can be nowhere else (`lowmem_reserve`): others are
    /// refused there as if it was not free.
    pub reserved: u64,
    /// Free pages on lists of single CPUs, which `free` leaves out. Since 6.7 the kernel lets these lists grow to an eighth
    /// of a zone, and empties them when the zone falls to its high watermark.
    pub per_cpu: u64,
    /// Below this allocations reclaim directly.
    pub min: u64,
    /// Below this kswapd wakes, and new pages spill to other nodes.
    pub low: u64,
    /// Up to this kswapd reclaims.
    pub high: u64,
}

/// Reads `zoneinfo`, by node.
pub fn read_zoneinfo(proc: &Path) -> Result<BTreeMap<u32, NodeWatermarks>> {
    let path = proc.join("zoneinfo");
    zoneinfo(&file::read(&path)?, &path)
}

/// The text of `zoneinfo`; `path` is for errors.
pub fn zoneinfo(text: &str, path: &Path) -> Result<BTreeMap<u32, NodeWatermarks>> {
    let mut nodes = BTreeMap::new();
    let mut node: Option<&mut NodeWatermarks> = None;
    let (mut boost, mut free) = (0, 0);
    for (index, line) in text.lines().enumerate() {
        let malformed = || Error::malformed(path, index + 1, line);
        if let Some(rest) = line.strip_prefix("Node ") {
            let id: u32 = rest.split(',').next().and_then(|id| id.parse().ok()).ok_or_else(malformed)?;
            node = Some(nodes.entry(id).or_default());
            boost = 0;
            continue;
        }
        let mut words = line.split_whitespace();
        let mut key = words.next().unwrap_or_default();
        if key == "pages" {
            key = words.next().unwrap_or_default();
        }
        let Some(node) = node.as_deref_mut() else { continue };
        // The per-processor lists below have `high:` with a colon.
        let mut pages = || words.next().and_then(|pages| pages.parse::<u64>().ok()).ok_or_else(malformed);
        let (sum, pages) = match key {
            "boost" => {
                boost = pages()?;
                continue;
            }
            "free" => {
                free = pages()?;
                (&mut node.free, free)
            }
            // By the highest zone that an allocation may be in: `(0, 1846, 1846)`.
            "protection:" => {
                let all = line.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
                let most =
                    all.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().map_err(|_| malformed())?;
                (&mut node.reserved, most.into_iter().max().unwrap_or(0).min(free))
            }
            "count:" => (&mut node.per_cpu, pages()?),
            // The kernel prints a zone's boost before its watermarks, which contain it.
            "min" => (&mut node.min, pages()?.saturating_sub(boost)),
            "low" => (&mut node.low, pages()?.saturating_sub(boost)),
            "high" => (&mut node.high, pages()?.saturating_sub(boost)),
            _ => continue,
        };
        *sum = sum.saturating_add(pages);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    const TWO_ZONES: &str = "\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 0
  pages free     3776
        boost    0
        min      129
        low      161
        high     193
        promo    225
        spanned  4095
        protection: (0, 1846, 1846, 1846)
      nr_free_pages 3776
  pagesets
    cpu: 0
              count:    0
              high:     12
              batch:    1
Node 0, zone    DMA32
  pages free     234000
        boost    512
        min      612
        low      712
        high     812
        protection: (0, 0, 0, 0)
  pagesets
    cpu: 0
              count:    9000
              high:     12
    cpu: 1
              count:    500
              high_min: 12
Node 1, zone   Normal
  pages free     261000
        min      8
        low      16
        high     24
Node 1, zone  Movable
  pages free     0
        min      0
        low      0
        high     0
";

    #[test]
    fn zones_add_up_per_node_without_what_is_lifted_for_a_moment() {
        let (_dir, roots) = tree(&[("proc/zoneinfo", TWO_ZONES)]);
        let nodes = read_zoneinfo(&roots.proc).unwrap();
        let expected = [
            NodeWatermarks { free: 237_776, reserved: 1846, per_cpu: 9500, min: 229, low: 361, high: 493 },
            NodeWatermarks { free: 261_000, min: 8, low: 16, high: 24, ..NodeWatermarks::default() },
        ];
        assert!(nodes.values().eq(&expected), "{nodes:?}");
    }

    #[test]
    fn a_watermark_that_is_no_number_is_named() {
        let (_dir, roots) = tree(&[("proc/zoneinfo", "Node 0, zone DMA\n        min      x\n")]);
        let error = read_zoneinfo(&roots.proc).unwrap_err();
        assert!(error.to_string().contains("zoneinfo:2: "), "{error}");
    }
}
