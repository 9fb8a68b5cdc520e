//! What an access costs, without a clock: loads and stores are counted by the memory node that they reach behind a model of the
//! last-level cache. Latencies of an emulator mean nothing; a miss is a miss.
//!
//! A guest tells what is of interest by *where* it maps it: memory in one of [`SLOTS`] slots of virtual addresses from
//! [`WINDOW`] on is counted slot by slot and page by page, everything else together. Pages keep their virtual address when
//! they move, so a page's misses are its own wherever it lies. The guest rings by reading a word of the page at
//! [`DOORBELL`]: word [`START`] starts the count, each other word makes the counter write a line with the word's number.
//!
//! - [`cache::Cache`]: the model.
//! - [`counter::Counter`]: the counts.
//! - [`line::Line`]: what is written.
//! - [`oracle`]: the least that any placement could have missed.
//! - [`ranges`]: memory of programs that map it where they like: the guest tells where.
#![forbid(unsafe_code)]

pub mod cache;
pub mod counter;
pub mod line;
pub mod oracle;
pub mod ranges;

/// Virtual address of the page by which a guest rings.
pub const DOORBELL: u64 = 0x1000_0000_0000;
/// Word of the doorbell that forgets all counts and starts.
pub const START: u64 = 0;
/// Word of the doorbell whose line has the pages, too.
pub const END: u64 = 511;
/// Virtual address of the first slot.
pub const WINDOW: u64 = 0x2000_0000_0000;
/// Size of a slot, bytes.
pub const SLOT: u64 = 1 << 32;
/// How many slots there are.
pub const SLOTS: u64 = 32;
/// Bytes of a cache line.
pub const LINE: u64 = 64;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Where memory of a slot is mapped.
///
/// # Panics
/// When there is no such slot.
#[must_use]
pub fn slot_address(slot: u64) -> u64 {
    assert!(slot < SLOTS, "there are {SLOTS} slots");
    WINDOW + slot * SLOT
}

/// The slot that an address is in.
#[must_use]
pub fn slot_of(address: u64) -> Option<usize> {
    let slot = address.checked_sub(WINDOW)? / SLOT;
    usize::try_from(slot).ok().filter(|_| slot < SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_ends_where_the_next_begins() {
        assert_eq!(slot_of(slot_address(3)), Some(3));
        assert_eq!(slot_of(slot_address(4) - 1), Some(3));
        assert_eq!(slot_of(WINDOW - 1), None);
        assert_eq!(slot_of(WINDOW + SLOTS * SLOT), None);
    }
}
