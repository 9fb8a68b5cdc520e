//! What each page frame is: `/proc/kpageflags`.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::pagemap::{read_full_at, words};
use crate::error::{Error, Result};

/// Read one span rather than two when no more than so many frames between them are not wanted: 2 KiB cost less than a
/// system call.
const GAP: u64 = 256;

/// A folio has no more than so many frames before one of its frames (1 GiB of 4 KiB).
const LARGEST_FOLIO: u64 = 1 << 18;

/// The flags of one page frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageFlags(u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal),* $(,)?) => {
        impl PageFlags { $($(#[$doc])* #[must_use] pub fn $name(self) -> bool { self.0 >> $bit & 1 == 1 })* }
    };
}

flags! {
    /// Kernel memory.
    slab = 7,
    /// Anonymous.
    anon = 12,
    /// Must go to swap to be freed. An anonymous page without it was given up with `MADV_FREE`.
    swapbacked = 14,
    /// The first frame of a folio of several.
    head = 15,
    /// A later frame of a folio of several.
    tail = 16,
    /// Reserved in advance as a huge page; never moved by this project.
    hugetlb = 17,
    /// Locked in memory, or otherwise off the lists that reclaim looks at.
    unevictable = 18,
    /// No memory behind it.
    absent = 20,
    /// Merged with equal pages of others. 6.12 sets it on all anonymous pages.
    ksm = 21,
    /// Part of a transparent huge page.
    thp = 22,
    /// The shared page of zeros.
    zero = 24,
    /// Locked in memory by `mlock`.
    mlocked = 33,
}

impl PageFlags {
    /// Anonymous memory given up with `MADV_FREE`.
    #[must_use]
    pub fn lazyfree(self) -> bool {
        self.anon() && !self.swapbacked()
    }

    /// Whether this project may move it: anonymous, still wanted, and not locked or hugetlb. Whether it is merged is for
    /// the caller to ask, who knows what the kernel means by it.
    #[must_use]
    pub fn movable(self) -> bool {
        self.anon()
            && self.swapbacked()
            && !(self.unevictable() || self.mlocked() || self.hugetlb() || self.zero() || self.slab())
    }
}

/// `kpageflags`, kept open. Needs `CAP_SYS_ADMIN`.
#[derive(Debug)]
pub struct Kpageflags {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Kpageflags {
    /// Opens `kpageflags`.
    pub fn open(proc: &Path) -> Result<Self> {
        let path = proc.join("kpageflags");
        let file = File::open(&path).map_err(|source| Error::io(&path, "open", source))?;
        Ok(Self { file, path, buffer: Vec::new() })
    }

    /// Reads the flags of frames, in few reads, into `flags`, which is cleared. `pfns` is sorted on return.
    pub fn read(&mut self, pfns: &mut Vec<u64>, flags: &mut HashMap<u64, PageFlags>) -> Result<()> {
        flags.clear();
        pfns.sort_unstable();
        pfns.dedup();
        for span in pfns.chunk_by(|a, b| b - a <= GAP) {
            let (Some(&first), Some(&last)) = (span.first(), span.last()) else { continue };
            let read = self.span(first, last - first + 1)?;
            let words: &[[u8; 8]] = self.buffer[..read].as_chunks().0;
            for &pfn in span {
                let word = usize::try_from(pfn - first).ok().and_then(|index| words.get(index));
                if let Some(word) = word {
                    flags.insert(pfn, PageFlags(u64::from_ne_bytes(*word)));
                }
            }
        }
        Ok(())
    }

    /// The flags of the first frame of the folio that `tail` is a later frame of.
    pub fn head_of(&mut self, tail: u64) -> Result<Option<PageFlags>> {
        let mut end = tail;
        while end > 0 && tail - end < LARGEST_FOLIO {
            let start = end.saturating_sub(512);
            let read = self.span(start, end - start)?;
            let mut before: Vec<PageFlags> = words(&self.buffer[..read]).map(PageFlags).collect();
            while let Some(flags) = before.pop() {
                if flags.head() {
                    return Ok(Some(flags));
                }
                if !flags.tail() {
                    return Ok(None);
                }
            }
            end = start;
        }
        Ok(None)
    }

    fn span(&mut self, first: u64, count: u64) -> Result<usize> {
        let malformed = || Error::malformed(&self.path, 1, "frame number out of range");
        let bytes = usize::try_from(count).ok().and_then(|n| n.checked_mul(8)).ok_or_else(malformed)?;
        let offset = first.checked_mul(8).ok_or_else(malformed)?;
        self.buffer.resize(bytes, 0);
        read_full_at(&self.file, &mut self.buffer, offset)
            .map_err(|source| Error::io(&self.path, "read", source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANON: u64 = 1 << 12 | 1 << 14;

    #[test]
    fn only_wanted_anonymous_pages_are_movable() {
        assert!(PageFlags(ANON).movable());
        assert!(PageFlags(ANON | 1 << 22 | 1 << 15).movable());
        for (bits, why) in [
            (1 << 12, "lazyfree"),
            (1 << 14, "shared memory"),
            (ANON | 1 << 18, "locked"),
            (ANON | 1 << 17, "hugetlb"),
            (ANON | 1 << 33, "locked a moment ago"),
            (1 << 24, "zero"),
            (0, "file"),
        ] {
            assert!(!PageFlags(bits).movable(), "{why}");
        }
        assert!(PageFlags(1 << 12).lazyfree());
    }

    #[test]
    fn frames_far_apart_and_beyond_the_end_are_found_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let words: Vec<u64> =
            (0..2000).map(|pfn| if pfn == 1000 { 1 << 15 } else { 1 << 16 | pfn << 40 }).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        std::fs::write(dir.path().join("kpageflags"), bytes).unwrap();

        let mut file = Kpageflags::open(dir.path()).unwrap();
        let mut flags = HashMap::new();
        file.read(&mut vec![1999, 3, 5, 3, 9999], &mut flags).unwrap();
        let mut seen: Vec<_> = flags.iter().map(|(pfn, flags)| (*pfn, flags.0 >> 40)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(3, 3), (5, 5), (1999, 1999)]);
        assert_eq!(file.head_of(1900).unwrap(), Some(PageFlags(1 << 15)));
        assert_eq!(file.head_of(900).unwrap(), None);
    }
}
