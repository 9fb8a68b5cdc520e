//! By which a guest tells the counter of misses where it is in its run.

use anyhow::{Context as _, Result};
use host::generator::{Backing, HugePages, Mapping};
use misses::ranges::Range;

/// The pages that the counter watches: the doorbell, and behind it the one by which ranges are told.
pub(super) struct Doorbell {
    pages: Mapping,
    rung: u64,
}

impl Doorbell {
    pub(super) fn new() -> Result<Self> {
        let pages = Mapping::at(
            usize::try_from(misses::DOORBELL)?,
            usize::try_from(misses::ranges::TELL + misses::PAGE - misses::DOORBELL)?,
            Backing::Private,
            HugePages::Never,
        );
        Ok(Self { pages: pages.context("the doorbell's pages")?, rung: 0 })
    }

    /// Everything counts from here on.
    pub(super) fn start(&mut self) {
        self.ring(misses::START);
        self.rung = 0;
    }

    /// Has the counts so far written; returns the number that they have.
    pub(super) fn mark(&mut self) -> u64 {
        // More than there are words are told apart by their order.
        self.rung = self.rung % (misses::END - 1) + 1;
        self.ring(self.rung);
        self.rung
    }

    /// The same with the pages.
    pub(super) fn end(&self) {
        self.ring(misses::END);
    }

    /// From here on accesses in these ranges, and no others, are those of their slots.
    pub(super) fn tell(&self, ranges: &[Range]) {
        misses::ranges::words(ranges).for_each(|word| self.read(misses::ranges::TELL, word));
    }

    fn ring(&self, word: u64) {
        self.read(misses::DOORBELL, word);
    }

    fn read(&self, page: u64, word: u64) {
        let offset = page - misses::DOORBELL + word * 8;
        let _ = self.pages.read(usize::try_from(offset).unwrap_or(0));
    }
}
