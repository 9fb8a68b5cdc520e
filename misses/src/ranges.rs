//! What of a program that maps its memory where it likes is counted in which slot: the guest tells ranges of virtual addresses, a byte
//! at a time, by the word that it reads of the page at [`TELL`].
//!
//! Words below 256 are bytes. [`TAKE`] makes a range of those since the last one, [`USE`] replaces all ranges in use by what was taken: at
//! one instant, so no access falls between the old and the new.

use crate::SLOTS;

/// Virtual address of the page by which a guest tells ranges.
pub const TELL: u64 = crate::DOORBELL + crate::PAGE;
/// Word that makes a range of the bytes told.
const TAKE: u64 = 256;
/// Word that puts the ranges taken in the place of all.
const USE: u64 = 257;

/// Virtual addresses whose accesses are counted in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The slot.
    pub slot: u8,
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
}

impl Range {
    /// Bytes of one as it is told.
    const BYTES: usize = 17;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.slot;
        bytes[1..9].copy_from_slice(&self.start.to_le_bytes());
        bytes[9..].copy_from_slice(&self.end.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&slot, addresses) = bytes.split_first()?;
        let (start, end) = addresses.split_at_checked(8)?;
        let range = Self {
            slot,
            start: u64::from_le_bytes(start.try_into().ok()?),
            end: u64::from_le_bytes(end.try_into().ok()?),
        };
        (u64::from(slot) < SLOTS && range.start < range.end).then_some(range)
    }
}

/// The words that put these ranges in the place of all.
pub fn words(ranges: &[Range]) -> impl Iterator<Item = u64> {
    let one = |range: &Range| range.to_bytes().map(u64::from).into_iter().chain([TAKE]);
    ranges.iter().flat_map(one).chain([USE])
}

/// Those in use, and what is being told.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    bytes: Vec<u8>,
    taken: Vec<Range>,
    /// By their start; none overlaps another.
    used: Vec<Range>,
}

impl Ranges {
    /// Takes a word. What makes no range is forgotten.
    pub(crate) fn word(&mut self, word: u64) {
        match word {
            TAKE => {
                self.taken.extend(Range::from_bytes(&self.bytes));
                self.bytes.clear();
            }
            USE => {
                self.used = std::mem::take(&mut self.taken);
                self.used.sort_by_key(|range| range.start);
            }
            word => self.bytes.extend(u8::try_from(word)),
        }
    }

    /// The slot that an address is in.
    pub(crate) fn slot_of(&self, address: u64) -> Option<usize> {
        let after = self.used.partition_point(|range| range.start <= address);
        let range = self.used[..after].last().filter(|range| address < range.end)?;
        Some(usize::from(range.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_used_all_at_once() {
        let mut ranges = Ranges::default();
        let first = [
            Range { slot: 1, start: 0x7f00_0000, end: 0x7f00_1000 },
            Range { slot: 0, start: 0x5500_0000, end: 0x5500_2000 },
        ];
        let last_word = words(&first).count() - 1;
        for word in words(&first).take(last_word) {
            ranges.word(word);
        }
        assert_eq!(ranges.slot_of(0x5500_0000), None);
        ranges.word(USE);
        let found =
            [0x54ff_ffff, 0x5500_0000, 0x5500_1fff, 0x5500_2000, 0x7f00_0fff].map(|at| ranges.slot_of(at));
        assert_eq!(found, [None, Some(0), Some(0), None, Some(1)]);
        words(&[]).for_each(|word| ranges.word(word));
        assert_eq!(ranges.slot_of(0x5500_0000), None);
    }

    #[test]
    fn what_makes_no_range_is_forgotten() {
        let mut ranges = Ranges::default();
        let no_slot = Range { slot: 200, start: 1, end: 9 };
        let empty = Range { slot: 1, start: 9, end: 9 };
        words(&[no_slot, empty]).for_each(|word| ranges.word(word));
        for word in [1, 2, TAKE, USE, 400] {
            ranges.word(word);
        }
        assert_eq!(ranges.slot_of(5), None);
    }
}
