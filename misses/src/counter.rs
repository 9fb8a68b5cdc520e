//! The counts of one run.

use std::collections::{BTreeMap, HashMap};

use crate::cache::Cache;
use crate::line::{Counts, Line, Pages};
use crate::ranges::{Ranges, TELL};
use crate::{DOORBELL, END, PAGE, SLOTS, START, slot_of};

/// Addresses from here on are the kernel's.
const KERNEL: u64 = 1 << 63;

/// Counts from the first ring of [`START`] on.
#[derive(Debug)]
pub struct Counter {
    cache: Cache,
    /// Physical memory below this is fast.
    fast: u64,
    started: bool,
    ranges: Ranges,
    line: Line,
    /// Misses by slot and page.
    pages: HashMap<(usize, u64), u64>,
}

/// What an access was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Load,
    /// A store.
    Store,
}

impl Counter {
    /// One that has counted nothing; physical memory from `fast` on is slow.
    #[must_use]
    pub fn new(cache: Cache, fast: u64) -> Self {
        Self {
            cache,
            fast,
            started: false,
            ranges: Ranges::default(),
            line: nothing(),
            pages: HashMap::new(),
        }
    }

    /// Takes an access at a virtual address; `physical` is asked for only where it matters, and is `None` for a device's.
    /// Returns a line where the access was a ring.
    pub fn access(
        &mut self,
        address: u64,
        access: Access,
        physical: impl FnOnce() -> Option<u64>,
    ) -> Option<Line> {
        let word = (address & (PAGE - 1)) / 8;
        match address & !(PAGE - 1) {
            DOORBELL => return if access == Access::Load { self.ring(word) } else { None },
            TELL => {
                if access == Access::Load {
                    self.ranges.word(word);
                }
                return None;
            }
            _ => {}
        }
        if !self.started {
            return None;
        }
        let physical = physical()?;
        let missed = !self.cache.hits(physical);
        let slot = slot_of(address).or_else(|| self.ranges.slot_of(address));
        let counts = match slot {
            Some(slot) => &mut self.line.slots[slot],
            None if address < KERNEL => &mut self.line.programs,
            None => &mut self.line.kernel,
        };
        match access {
            Access::Load => counts.loads += 1,
            Access::Store => counts.stores += 1,
        }
        if missed {
            if physical < self.fast {
                counts.fast += 1;
            } else {
                counts.slow += 1;
            }
            if let Some(slot) = slot {
                *self.pages.entry((slot, address / PAGE)).or_default() += 1;
            }
        }
        None
    }

    fn ring(&mut self, word: u64) -> Option<Line> {
        if word == START {
            self.cache.clear();
            self.pages.clear();
            self.line = nothing();
            self.started = true;
            return None;
        }
        let pages = if word == END { self.histogram() } else { Vec::new() };
        Some(Line { mark: word, pages, ..self.line.clone() })
    }

    fn histogram(&self) -> Vec<Vec<Pages>> {
        let mut slots = vec![BTreeMap::<u64, u64>::new(); self.line.slots.len()];
        for ((slot, _), misses) in &self.pages {
            *slots[*slot].entry(*misses).or_default() += 1;
        }
        let pages = |counts: BTreeMap<u64, u64>| {
            counts.into_iter().map(|(misses, pages)| Pages { misses, pages }).collect()
        };
        slots.into_iter().map(pages).collect()
    }
}

fn nothing() -> Line {
    let slots = usize::try_from(SLOTS).unwrap_or(0);
    Line { slots: vec![Counts::default(); slots], ..Line::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::{Range, words};
    use crate::slot_address;

    const FAST: u64 = 1 << 30;

    fn counter() -> Counter {
        Counter::new(Cache::new(64 << 10, 16).unwrap(), FAST)
    }

    fn ring(counter: &mut Counter, word: u64) -> Option<Line> {
        counter.access(DOORBELL + word * 8, Access::Load, || None)
    }

    #[test]
    fn nothing_counts_before_the_start_and_a_second_start_forgets() {
        let mut counter = counter();
        let touch = |counter: &mut Counter| counter.access(slot_address(1), Access::Load, || Some(0));
        touch(&mut counter);
        assert_eq!(ring(&mut counter, 1).unwrap().of_slots(0..32), Counts::default());
        ring(&mut counter, START);
        touch(&mut counter);
        assert_eq!(
            ring(&mut counter, 2).unwrap().slots[1],
            Counts { loads: 1, fast: 1, ..Counts::default() }
        );
        ring(&mut counter, START);
        assert_eq!(ring(&mut counter, 3).unwrap().slots[1], Counts::default());
    }

    #[test]
    fn an_access_is_its_slots_its_programs_or_the_kernels_and_its_nodes() {
        let mut counter = counter();
        ring(&mut counter, START);
        counter.access(slot_address(2), Access::Store, || Some(FAST));
        counter.access(0x40_0000, Access::Load, || Some(FAST - 64));
        counter.access(KERNEL, Access::Load, || Some(FAST + 64));
        counter.access(KERNEL, Access::Load, || None);
        let line = ring(&mut counter, END).unwrap();
        assert_eq!(line.slots[2], Counts { stores: 1, slow: 1, ..Counts::default() });
        assert_eq!(line.programs, Counts { loads: 1, fast: 1, ..Counts::default() });
        assert_eq!(line.kernel, Counts { loads: 1, slow: 1, ..Counts::default() });
        assert_eq!(line.pages[2], [Pages { misses: 1, pages: 1 }]);
        assert!(line.pages[3].is_empty());
    }

    #[test]
    fn a_range_that_was_told_is_its_slots_and_a_start_leaves_it_told() {
        let mut counter = counter();
        for word in words(&[Range { slot: 5, start: 0x40_0000, end: 0x50_0000 }]) {
            counter.access(TELL + word * 8, Access::Load, || None);
        }
        ring(&mut counter, START);
        counter.access(0x40_0008, Access::Load, || Some(FAST));
        counter.access(0x50_0000, Access::Load, || Some(0));
        let line = ring(&mut counter, END).unwrap();
        assert_eq!(line.slots[5], Counts { loads: 1, slow: 1, ..Counts::default() });
        assert_eq!(line.programs, Counts { loads: 1, fast: 1, ..Counts::default() });
        assert_eq!(line.pages[5], [Pages { misses: 1, pages: 1 }]);
    }

    #[test]
    fn a_page_keeps_its_misses_when_it_moves() {
        let mut counter = counter();
        ring(&mut counter, START);
        for physical in [0, FAST] {
            counter.access(slot_address(0) + 8, Access::Load, || Some(physical));
        }
        let line = ring(&mut counter, END).unwrap();
        assert_eq!(line.slots[0], Counts { loads: 2, fast: 1, slow: 1, ..Counts::default() });
        assert_eq!(line.pages[0], [Pages { misses: 2, pages: 1 }]);
    }
}
