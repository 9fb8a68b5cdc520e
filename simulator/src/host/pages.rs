//! Counted pages, and the generations that the kernel keeps them in.
//!
//! A page is known by its group, its node and its generation only: pages that share the three are alike, and a cell counts
//! them. What happens to a part of a cell at random happens to a number of its pages, rounded at random.

use std::time::Duration;

/// Most generations of a cgroup on a node (`MAX_NR_GENS`).
pub(super) const GENERATIONS: usize = 4;

/// Pages of one group on one node in one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// All of them.
    pub(super) pages: u64,
    /// Of them, with the accessed bit set.
    pub(super) young: u64,
    /// Of them, touched in this minute.
    pub(super) seen: u64,
    /// Of them, marked for a hint fault.
    pub(super) marked: u64,
    /// Of them, found touched by the last walk.
    pub(super) found: u64,
}

impl Cell {
    /// Takes `pages` of the cell at random.
    pub(super) fn take(&mut self, pages: u64, random: &mut fastrand::Rng) -> Self {
        let pages = pages.min(self.pages);
        if pages == self.pages {
            return std::mem::take(self);
        }
        let share = pages as f64 / self.pages as f64;
        let rest = self.pages - pages;
        // No part may take more than it has pages, nor leave more than stay.
        let mut part = |of: u64| {
            let taken = round(of as f64 * share, random).min(pages);
            taken.max(of.saturating_sub(rest)).min(of)
        };
        let taken = Self {
            pages,
            young: part(self.young),
            seen: part(self.seen),
            marked: part(self.marked),
            found: part(self.found),
        };
        self.subtract(taken);
        taken
    }

    /// Takes `pages` of those that the last walk found touched.
    pub(super) fn take_found(&mut self, pages: u64, random: &mut fastrand::Rng) -> Self {
        let (all, young) = (self.pages, self.young);
        self.young = self.found;
        let taken = self.take_young(pages, random);
        self.young = (young * self.pages / all.max(1)).min(self.pages);
        Self { young: taken.pages, found: 0, ..taken }
    }

    fn subtract(&mut self, taken: Self) {
        self.pages -= taken.pages;
        self.young -= taken.young;
        self.seen -= taken.seen;
        self.marked -= taken.marked;
        self.found -= taken.found;
    }

    /// Takes `pages` of those with the accessed bit set.
    pub(super) fn take_young(&mut self, pages: u64, random: &mut fastrand::Rng) -> Self {
        let pages = pages.min(self.young);
        let old = Self { pages: self.pages - self.young, young: 0, ..*self };
        let mut young = Self { pages: self.young, ..*self };
        // What was touched in this minute and what is marked is spread over both; the touched ones were seen first.
        young.seen = self.seen.min(young.pages);
        young.marked =
            self.marked.saturating_sub(old.pages).max(self.marked * young.pages / self.pages.max(1));
        young.found = self.found.saturating_sub(old.pages).max(self.found * young.pages / self.pages.max(1));
        let taken = young.take(pages, random);
        self.subtract(taken);
        taken
    }

    /// Adds pages.
    pub(super) fn put(&mut self, other: Self) {
        self.pages += other.pages;
        self.young += other.young;
        self.seen += other.seen;
        self.marked += other.marked;
        self.found += other.found;
    }
}

/// `x`, rounded up as often as its fraction says.
pub(super) fn round(x: f64, random: &mut fastrand::Rng) -> u64 {
    let whole = x.floor();
    whole as u64 + u64::from(random.f64() < x - whole)
}

/// The generations of one cgroup on one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generations {
    pub(super) min_seq: u64,
    pub(super) max_seq: u64,
    births: [Duration; GENERATIONS],
}

impl Generations {
    /// Two generations, as a cgroup has them at first.
    pub(super) fn new(now: Duration) -> Self {
        Self { min_seq: 0, max_seq: 1, births: [now; GENERATIONS] }
    }

    /// Where in a group's cells a generation is.
    pub(super) fn slot(seq: u64) -> usize {
        seq as usize % GENERATIONS
    }

    /// When a generation was begun.
    pub(super) fn birth(&self, seq: u64) -> Duration {
        self.births[Self::slot(seq)]
    }

    /// From the oldest to the newest.
    pub(super) fn seqs(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        self.min_seq..=self.max_seq
    }

    /// Begins a generation. Where there are four, the oldest two become one: what is in the first slot belongs into the second.
    pub(super) fn begin(&mut self, now: Duration) -> Option<(usize, usize)> {
        let merged = (self.max_seq - self.min_seq + 1 == GENERATIONS as u64).then(|| {
            self.min_seq += 1;
            (Self::slot(self.min_seq - 1), Self::slot(self.min_seq))
        });
        self.max_seq += 1;
        self.births[Self::slot(self.max_seq)] = now;
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_lost_when_a_part_is_taken() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let pages = random.u64(1..1000);
            let of = |random: &mut fastrand::Rng| random.u64(0..=pages);
            let whole = Cell {
                pages,
                young: of(&mut random),
                seen: of(&mut random),
                marked: of(&mut random),
                found: of(&mut random),
            };
            let mut rest = whole;
            let wanted = of(&mut random);
            let taken = if random.bool() {
                rest.take(wanted, &mut random)
            } else {
                rest.take_young(wanted, &mut random)
            };
            for cell in [rest, taken] {
                assert!(
                    cell.young.max(cell.seen).max(cell.marked).max(cell.found) <= cell.pages,
                    "{whole:?}: {taken:?} {rest:?}"
                );
            }
            let mut both = rest;
            both.put(taken);
            assert_eq!(both, whole);
        }
    }

    #[test]
    fn the_fifth_generation_joins_the_oldest_two() {
        let at = Duration::from_secs;
        let mut generations = Generations::new(at(0));
        assert_eq!([generations.begin(at(1)), generations.begin(at(2))], [None, None]);
        assert_eq!(generations.begin(at(3)), Some((0, 1)));
        assert_eq!(generations.seqs().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(generations.birth(4), at(3));
    }
}
