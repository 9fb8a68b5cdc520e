//! Which pages of a process may be moved: section "never" of the design, page by page.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use super::kpageflags::{Kpageflags, PageFlags};
use super::node_pfns::NodePfns;
use super::page_size;
use super::pagemap::{Pagemap, PagemapEntry};
use crate::error::Result;

/// Pages looked at in one go; 64 MiB of small pages.
const CHUNK_PAGES: u64 = 1 << 14;

/// A folio that may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movable {
    /// The first of its addresses in the process.
    pub address: u64,
    /// How many of its pages are mapped there.
    pub pages: u64,
}

/// Looks at pages of one process after another; keeps its files and memory.
#[derive(Debug)]
pub struct MovablePages {
    kpageflags: Kpageflags,
    /// The kernel marks every anonymous page as merged (6.12). Merged pages that matter are not mapped exclusively.
    all_marked_merged: bool,
    entries: Vec<PagemapEntry>,
    pfns: Vec<u64>,
    flags: HashMap<u64, PageFlags>,
}

impl MovablePages {
    /// Opens `kpageflags`, and looks at a page of this process to learn whether the kernel's mark of merged pages means
    /// anything.
    pub fn open(proc: &Path) -> Result<Self> {
        let mut kpageflags = Kpageflags::open(proc)?;
        let own = own_page_flags(proc, &mut kpageflags).ok().flatten();
        let all_marked_merged = own.is_some_and(|flags| flags.anon() && flags.ksm());
        Ok(Self {
            kpageflags,
            all_marked_merged,
            entries: Vec::new(),
            pfns: Vec::new(),
            flags: HashMap::new(),
        })
    }

    /// Folios of a process in an address range that are on one of `from`, anonymous, still wanted (not `MADV_FREE`), mapped
    /// by no other process, and not locked, merged or hugetlb. In order of address, one entry per folio.
    ///
    /// What is read is a moment old when it is acted on; the kernel checks again when it moves a page, except that it
    /// moves pages that were locked or given up meanwhile.
    pub fn of(
        &mut self,
        proc: &Path,
        pid: i32,
        range: Range<u64>,
        from: &BTreeSet<u32>,
        nodes: &NodePfns,
    ) -> Result<Vec<Movable>> {
        let mut pagemap = Pagemap::open(proc, pid)?;
        let page_size = page_size();
        let mut runs = Runs::default();
        let mut start = range.start / page_size * page_size;
        while start < range.end {
            let end = start.saturating_add(CHUNK_PAGES * page_size).min(range.end);
            pagemap.read(start..end, &mut self.entries)?;
            self.pfns.clear();
            self.pfns.extend(self.entries.iter().filter_map(|entry| entry.pfn()));
            self.kpageflags.read(&mut self.pfns, &mut self.flags)?;
            let addresses = (start..).step_by(usize::try_from(page_size).unwrap_or(4096));
            for (address, entry) in addresses.zip(&self.entries) {
                let Some((pfn, flags)) =
                    entry.pfn().and_then(|pfn| Some((pfn, self.flags.get(&pfn).copied()?)))
                else {
                    runs.end();
                    continue;
                };
                let continues = flags.tail() && runs.next_pfn == Some(pfn);
                let may = |flags: PageFlags| {
                    flags.movable()
                        && (!flags.ksm() || self.all_marked_merged)
                        && entry.is_exclusive()
                        && nodes.node_of(pfn).is_some_and(|node| from.contains(&node))
                };
                if continues {
                    runs.extend(entry.is_exclusive());
                } else {
                    // Up to 6.8 the flags of a later frame lack what is known of the folio.
                    let flags =
                        if flags.tail() { self.kpageflags.head_of(pfn)?.unwrap_or_default() } else { flags };
                    runs.begin(address, pfn, may(flags));
                }
            }
            start = end;
        }
        runs.end();
        Ok(runs.movable)
    }
}

fn own_page_flags(proc: &Path, kpageflags: &mut Kpageflags) -> Result<Option<PageFlags>> {
    let word = Box::new(1_u64);
    let address = std::ptr::from_ref(word.as_ref()).addr() as u64;
    let mut entries = Vec::new();
    Pagemap::open_self(proc)?.read(address..address + 1, &mut entries)?;
    let Some(pfn) = entries.first().and_then(|entry| entry.pfn()) else { return Ok(None) };
    let mut flags = HashMap::new();
    kpageflags.read(&mut vec![pfn], &mut flags)?;
    Ok(flags.get(&pfn).copied())
}

/// Gathers the pages of a folio, which follow each other in addresses and frames.
#[derive(Default)]
struct Runs {
    movable: Vec<Movable>,
    current: Option<(Movable, bool)>,
    next_pfn: Option<u64>,
}

impl Runs {
    fn begin(&mut self, address: u64, pfn: u64, may: bool) {
        self.end();
        self.current = Some((Movable { address, pages: 1 }, may));
        self.next_pfn = Some(pfn + 1);
    }

    fn extend(&mut self, exclusive: bool) {
        if let Some((folio, may)) = &mut self.current {
            folio.pages += 1;
            // One page of it that another process maps keeps all of it.
            *may &= exclusive;
        }
        self.next_pfn = self.next_pfn.map(|pfn| pfn + 1);
    }

    fn end(&mut self) {
        if let Some((folio, true)) = self.current.take() {
            self.movable.push(folio);
        }
        self.next_pfn = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;
    use crate::pages::node_pfns::read_node_pfns;

    const PRESENT: u64 = 1 << 63;
    const MINE: u64 = PRESENT | 1 << 56;
    const ANON: u64 = 1 << 12 | 1 << 14;
    const HEAD: u64 = 1 << 15 | 1 << 22;
    const TAIL: u64 = 1 << 16 | 1 << 22;

    /// `pagemap` entries from address 0 on, `kpageflags` from frame 0 on; frames from 32768 on are node 1.
    fn check(pagemap: &[u64], kpageflags: &[(u64, u64)], expected: &[(u64, u64)]) {
        let node = "sys/devices/system/node";
        let (dir, roots) = tree(&[
            ("sys/devices/system/memory/block_size_bytes", "8000000\n"),
            (&format!("{node}/online"), "0-1\n"),
            (&format!("{node}/has_cpu"), "0\n"),
            (&format!("{node}/has_memory"), "0-1\n"),
            (&format!("{node}/node0/memory0/state"), ""),
            (&format!("{node}/node1/memory1/state"), ""),
            ("proc/7/x", ""),
        ]);
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        std::fs::write(dir.path().join("proc/7/pagemap"), bytes(pagemap)).unwrap();
        let mut frames = vec![0; 40000];
        for &(pfn, flags) in kpageflags {
            frames[usize::try_from(pfn).unwrap()] = flags;
        }
        std::fs::write(dir.path().join("proc/kpageflags"), bytes(&frames)).unwrap();

        let end = pagemap.len() as u64 * page_size();
        let found = MovablePages::open(&roots.proc)
            .unwrap()
            .of(&roots.proc, 7, 0..end, &[0].into(), &read_node_pfns(&roots.sys).unwrap())
            .unwrap();
        let found: Vec<_> = found.iter().map(|folio| (folio.address / page_size(), folio.pages)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn small_pages_are_chosen_one_by_one() {
        check(
            &[MINE | 6, MINE | 1, MINE | 2, PRESENT | 3, MINE | 4, MINE | 0x80e8, 1 << 62 | 9, MINE | 5],
            &[
                (1, ANON),
                (2, 1 << 12),
                (3, ANON),
                (4, ANON | 1 << 18),
                (0x80e8, ANON),
                (5, ANON),
                (6, ANON | 1 << 21),
            ],
            &[(1, 1), (7, 1)],
        );
    }

    #[test]
    fn a_huge_page_is_one_address_whether_or_not_its_tails_know_what_they_are() {
        for tail in [TAIL, TAIL | ANON] {
            check(
                &[MINE | 8, MINE | 9, MINE | 0xa, MINE | 0xb, MINE | 0xc],
                &[(8, ANON | HEAD), (9, tail), (10, tail), (11, tail), (12, ANON)],
                &[(0, 4), (4, 1)],
            );
        }
    }

    #[test]
    fn a_huge_page_mapped_from_its_middle_is_judged_by_its_head() {
        check(&[MINE | 0xa, MINE | 0xb], &[(8, ANON | HEAD), (9, TAIL), (10, TAIL), (11, TAIL)], &[(0, 2)]);
        check(&[MINE | 0xa], &[(8, ANON | HEAD | 1 << 18), (9, TAIL), (10, TAIL)], &[]);
    }

    #[test]
    fn a_huge_page_of_which_another_maps_a_part_stays() {
        check(&[MINE | 8, PRESENT | 9], &[(8, ANON | HEAD), (9, TAIL)], &[]);
    }
}
