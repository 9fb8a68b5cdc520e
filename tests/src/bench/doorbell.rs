//! By which a guest tells the counter of misses where it is in its run.

use anyhow::{Context as _, Result};
use host::generator::{Backing, HugePages, Mapping};

/// The page that the counter watches.
pub(super) struct Doorbell {
    page: Mapping,
    rung: u64,
}

impl Doorbell {
    pub(super) fn new() -> Result<Self> {
        let page = Mapping::at(
            usize::try_from(misses::DOORBELL)?,
            usize::try_from(misses::PAGE)?,
            Backing::Private,
            HugePages::Never,
        );
        Ok(Self { page: page.context("the doorbell's page")?, rung: 0 })
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

    fn ring(&self, word: u64) {
        let _ = self.page.read(usize::try_from(word * 8).unwrap_or(0));
    }
}
