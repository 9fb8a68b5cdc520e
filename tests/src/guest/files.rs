//! Kernel files that scenarios compare the product's work with.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::{Cgroup, machine, read};

/// The lists of the multi-generational LRU.
const LRU_GEN: &str = "/sys/kernel/debug/lru_gen";

/// One cgroup in the `lru_gen` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LruGen {
    /// What commands name it by: a memcg id, since 7.x the cgroup's id.
    pub id: u64,
    /// By node, in the file's order.
    pub nodes: Vec<NodeGenerations>,
}

/// One node of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGenerations {
    /// The node's number.
    pub node: usize,
    /// Oldest first.
    pub generations: Vec<Generation>,
}

/// One generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Its number; commands name it by this.
    pub seq: u64,
    /// Time since it was opened, milliseconds.
    pub age_ms: u64,
    /// Anonymous pages.
    pub anon: u64,
    /// File pages; lazily freed memory counts here.
    pub file: u64,
}

impl LruGen {
    /// Generations on a node, oldest first.
    #[must_use]
    pub fn on(&self, node: usize) -> &[Generation] {
        self.nodes.iter().find(|found| found.node == node).map_or(&[], |found| &found.generations)
    }
}

/// Reads the generations of one cgroup (its own pages, not its children's).
pub fn lru_gen(cgroup: &Cgroup) -> Result<LruGen> {
    parse_lru_gen(&read(LRU_GEN)?, cgroup.path())
        .with_context(|| format!("{LRU_GEN} has no {}", cgroup.path()))
}

fn parse_lru_gen(text: &str, path: &str) -> Option<LruGen> {
    let mut found: Option<LruGen> = None;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match (words.as_slice(), &mut found) {
            (["memcg", ..], Some(_)) => break,
            (["memcg", id, name], None) if *name == path => {
                found = Some(LruGen { id: id.parse().ok()?, nodes: Vec::new() });
            }
            (["node", node], Some(found)) => {
                found.nodes.push(NodeGenerations { node: node.parse().ok()?, generations: Vec::new() });
            }
            ([seq, age, anon, file], Some(found)) => {
                let count = |word: &str| word.trim_end_matches('x').parse().ok();
                let generation = Generation {
                    seq: count(seq)?,
                    age_ms: count(age)?,
                    anon: count(anon)?,
                    file: count(file)?,
                };
                found.nodes.last_mut()?.generations.push(generation);
            }
            _ => {}
        }
    }
    found
}

/// A row of `memory.numa_stat`, the sums of fast and of slow nodes: bytes for sizes, pages for events.
pub fn numa_stat(cgroup: &Cgroup, key: &str) -> Result<[u64; 2]> {
    let kind = machine()?.kind;
    let text = cgroup.read("memory.numa_stat")?;
    let row = text.lines().find(|line| line.split(' ').next() == Some(key));
    let row = row.with_context(|| format!("memory.numa_stat has no {key}"))?;
    let on = |node: usize| {
        let prefix = format!("N{node}=");
        row.split(' ').find_map(|word| word.strip_prefix(prefix.as_str())?.parse().ok()).unwrap_or(0)
    };
    Ok([kind.fast_nodes(), kind.slow_nodes()].map(|nodes| nodes.into_iter().map(on).sum()))
}

/// Anonymous bytes of a cgroup by node, of as many nodes as there are.
pub fn anon_by_node(cgroup: &Cgroup) -> Result<BTreeMap<usize, u64>> {
    let text = cgroup.read("memory.numa_stat")?;
    let row =
        text.lines().find_map(|line| line.strip_prefix("anon ")).context("memory.numa_stat has no anon")?;
    let by_node = row.split(' ').filter_map(|word| {
        let (node, bytes) = word.strip_prefix('N')?.split_once('=')?;
        Some((node.parse().ok()?, bytes.parse().ok()?))
    });
    Ok(by_node.collect())
}

/// What a node has free, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeMemory {
    /// All memory that the kernel manages there.
    pub managed: u64,
    /// Free, as the kernel compares it with the watermarks: without what low zones keep for allocations that can be nowhere else.
    pub free: u64,
    /// Free, but on the lists of single CPUs.
    pub per_cpu: u64,
    /// The sum of the zones' low watermarks, without what the kernel adds for moments.
    pub low: u64,
    /// The same of the high watermarks.
    pub high: u64,
}

impl NodeMemory {
    /// All that is free.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.free + self.per_cpu
    }
}

/// A node's part of /proc/zoneinfo.
pub fn node_memory(node: usize) -> Result<NodeMemory> {
    parse_zoneinfo(&read("/proc/zoneinfo")?, node).with_context(|| format!("zoneinfo of node {node}"))
}

fn parse_zoneinfo(text: &str, node: usize) -> Option<NodeMemory> {
    let mut memory = NodeMemory::default();
    let (mut of_node, mut boost, mut zone_free) = (false, 0, 0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Node ") {
            of_node = rest.split(',').next()?.parse::<usize>().ok()? == node;
            boost = 0;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let bytes = |pages: &str| pages.parse::<u64>().ok().map(|pages| pages * 4096);
        match words.as_slice() {
            _ if !of_node => {}
            ["pages", "free", pages] => {
                zone_free = bytes(pages)?;
                memory.free += zone_free;
            }
            ["protection:", kept @ ..] => {
                let kept = kept.iter().filter_map(|pages| bytes(pages.trim_matches(['(', ')', ','])));
                memory.free -= kept.max().unwrap_or(0).min(zone_free);
            }
            ["managed", pages] => memory.managed += bytes(pages)?,
            ["boost", pages] => boost = bytes(pages)?,
            ["low", pages] => memory.low += bytes(pages)?.saturating_sub(boost),
            ["high", pages] => memory.high += bytes(pages)?.saturating_sub(boost),
            ["count:", pages] => memory.per_cpu += bytes(pages)?,
            _ => {}
        }
    }
    Some(memory)
}

/// A counter of /proc/vmstat, 0 where this kernel has no such counter.
pub fn vmstat(key: &str) -> Result<u64> {
    let text = read("/proc/vmstat")?;
    Ok(text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0))
}

/// Node lists of the kernel's memory tiers by their number; a smaller number is faster.
pub fn memory_tiers() -> Result<BTreeMap<u32, String>> {
    let mut tiers = BTreeMap::new();
    for entry in std::fs::read_dir("/sys/devices/virtual/memory_tiering").context("memory_tiering")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix("memory_tier").and_then(|number| number.parse().ok()) {
            tiers.insert(number, read(entry.path().join("nodelist"))?.trim().to_owned());
        }
    }
    Ok(tiers)
}

#[cfg(test)]
mod tests {
    use super::{Generation, NodeMemory, parse_lru_gen, parse_zoneinfo};

    #[test]
    fn zones_of_a_node_add_up() {
        let text = "Node 0, zone DMA\n  pages free     3\n        boost    5\n        min      6\n        low      7\n\
                    \x20       high     8\n        managed  90\n  pagesets\n    cpu: 0\n              count:    4\n              high:     9\n\
                    Node 0, zone Normal\n  pages free     10\n        low      8\n        high     9\n        managed  10\n\
                    Node 1, zone Normal\n  pages free     1000\n";
        let pages = |pages: u64| pages << 12;
        let expected = NodeMemory {
            managed: pages(100),
            free: pages(13),
            per_cpu: pages(4),
            low: pages(10),
            high: pages(12),
        };
        assert_eq!(parse_zoneinfo(text, 0), Some(expected));
    }

    #[test]
    fn generations_are_those_of_the_cgroup_alone() {
        let text = "memcg     1 /\n node     0\n          0       9000        10        20 \n\
                    memcg    74 /pod\n node     0\n          1       4000        30        40 \n          2       1000 \
                    50 0 \n node     1\n          0       5000          0          0 \nmemcg 75 /pod/a\n";
        let found = parse_lru_gen(text, "/pod").unwrap();
        assert_eq!(found.id, 74);
        assert_eq!(found.on(0)[1], Generation { seq: 2, age_ms: 1000, anon: 50, file: 0 });
        assert_eq!(found.on(1).len(), 1);
        assert_eq!(parse_lru_gen(text, "/po"), None);
    }
}
