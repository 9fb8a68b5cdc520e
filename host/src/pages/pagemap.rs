//! Where each page of a process is: `/proc/PID/pagemap`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys;

/// One page's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagemapEntry(u64);

impl PagemapEntry {
    /// In memory.
    #[must_use]
    pub fn is_present(self) -> bool {
        self.0 >> 63 & 1 == 1
    }

    /// Swapped out.
    #[must_use]
    pub fn is_swapped(self) -> bool {
        self.0 >> 62 & 1 == 1
    }

    /// Of a file, or shared memory.
    #[must_use]
    pub fn is_file(self) -> bool {
        self.0 >> 61 & 1 == 1
    }

    /// Mapped by no other process.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        self.0 >> 56 & 1 == 1
    }

    /// The page's frame number. `None` when it is not in memory, or when the reader lacks `CAP_SYS_ADMIN`.
    #[must_use]
    pub fn pfn(self) -> Option<u64> {
        let pfn = self.0 & ((1 << 55) - 1);
        (self.is_present() && pfn != 0).then_some(pfn)
    }
}

/// A process's pagemap, kept open.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    path: PathBuf,
    page_size: u64,
    buffer: Vec<u8>,
}

impl Pagemap {
    /// Opens `PID/pagemap`.
    pub fn open(proc: &Path, pid: i32) -> Result<Self> {
        Self::open_path(proc.join(pid.to_string()).join("pagemap"))
    }

    /// Opens `self/pagemap`: this process's, whatever its pid is in the pid namespace of `proc`.
    pub fn open_self(proc: &Path) -> Result<Self> {
        Self::open_path(proc.join("self/pagemap"))
    }

    fn open_path(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(|source| Error::io(&path, "open", source))?;
        Ok(Self { file, path, page_size: sys::page_size(), buffer: Vec::new() })
    }

    /// Reads the entries of an address range into `entries`, which is cleared. The range is widened to whole pages. Ends
    /// early at the end of the address space, or when the process ends.
    pub fn read(&mut self, range: Range<u64>, entries: &mut Vec<PagemapEntry>) -> Result<()> {
        entries.clear();
        let (first, last) = (range.start / self.page_size, range.end.div_ceil(self.page_size));
        let Ok(bytes) = usize::try_from(last.saturating_sub(first).saturating_mul(8)) else { return Ok(()) };
        self.buffer.resize(bytes, 0);
        let read = read_full_at(&self.file, &mut self.buffer, first.saturating_mul(8))
            .map_err(|source| Error::io(&self.path, "read", source))?;
        entries.extend(words(&self.buffer[..read]).map(PagemapEntry));
        Ok(())
    }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The 64-bit words of a kernel file.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_range_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("7")).unwrap();
        let words = [0_u64, 1 << 63 | 1 << 56 | 0x1234, 1 << 62 | 5, 1 << 63];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        std::fs::write(dir.path().join("7/pagemap"), bytes).unwrap();

        let mut pagemap = Pagemap::open(dir.path(), 7).unwrap();
        let page = pagemap.page_size;
        let mut entries = Vec::new();
        pagemap.read(page..page * 9, &mut entries).unwrap();
        let seen: Vec<_> =
            entries.iter().map(|e| (e.is_present(), e.is_swapped(), e.is_exclusive(), e.pfn())).collect();
        assert_eq!(
            seen,
            [(true, false, true, Some(0x1234)), (false, true, false, None), (true, false, false, None)]
        );
        assert!(Pagemap::open(dir.path(), 8).unwrap_err().is_gone());
    }
}
