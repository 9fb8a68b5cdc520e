//! Mappings of a process: `/proc/PID/smaps` and `clear_refs`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::file;

/// The flags of a mapping that matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VmFlags(u8);

impl VmFlags {
    const LOCKED: u8 = 1;
    const HUGETLB: u8 = 2;
    const SHARED: u8 = 4;
    const IO: u8 = 8;

    fn parse(words: &str) -> Self {
        Self(words.split_whitespace().fold(0, |flags, word| {
            flags
                | match word {
                    "lo" => Self::LOCKED,
                    "ht" => Self::HUGETLB,
                    "sh" => Self::SHARED,
                    "io" | "pf" => Self::IO,
                    _ => 0,
                }
        }))
    }

    /// Locked in memory.
    #[must_use]
    pub fn is_locked(self) -> bool {
        self.0 & Self::LOCKED != 0
    }

    /// Of huge pages reserved in advance.
    #[must_use]
    pub fn is_hugetlb(self) -> bool {
        self.0 & Self::HUGETLB != 0
    }

    /// Shared with others.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }

    /// Of device memory.
    #[must_use]
    pub fn is_io(self) -> bool {
        self.0 & Self::IO != 0
    }
}

/// A mapping. Sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// As the kernel prints them: `rw-p`.
    pub perms: [u8; 4],
    /// Not of a file. The stack and the kernel's own mappings do not count as anonymous here, the heap does.
    pub is_anon: bool,
    /// Flags, where this kernel prints them.
    pub flags: Option<VmFlags>,
    /// Resident.
    pub rss: Option<u64>,
    /// Accessed since `clear_refs`.
    pub referenced: Option<u64>,
    /// Resident and of no file.
    pub anonymous: Option<u64>,
    /// Given up with `MADV_FREE`.
    pub lazyfree: Option<u64>,
    /// In huge pages.
    pub anon_huge: Option<u64>,
}

impl Vma {
    /// Whether it is of a kind that holds pages which this project moves. Whether it has any is for `numa_maps` to say: up to
    /// 6.5 the sizes here leave out what NUMA balancing has hidden.
    #[must_use]
    pub fn may_hold_movable(&self) -> bool {
        let flags = self.flags.unwrap_or_default();
        self.is_anon && !(flags.is_locked() || flags.is_hugetlb() || flags.is_io() || flags.is_shared())
    }

    fn header(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut words = rest.split_whitespace();
        let perms: [u8; 4] = words.next()?.as_bytes().try_into().ok()?;
        let inode: u64 = words.nth(2)?.parse().ok()?;
        // No file name; the heap; or a name that the program gave its memory.
        let name = words.next().unwrap_or_default();
        let named_anon = name.is_empty() || name == "[heap]" || name.starts_with("[anon:");
        let is_anon = inode == 0 && named_anon;
        Some(Self { start, end, perms, is_anon, ..Self::default() })
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let field = match key {
            "Rss" => &mut self.rss,
            "Referenced" => &mut self.referenced,
            "Anonymous" => &mut self.anonymous,
            "LazyFree" => &mut self.lazyfree,
            "AnonHugePages" => &mut self.anon_huge,
            "VmFlags" => {
                self.flags = Some(VmFlags::parse(value));
                return Some(());
            }
            _ => return Some(()),
        };
        let kib: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        *field = Some(kib.checked_mul(1024)?);
        Some(())
    }
}

/// Reads `PID/smaps`. The kernel walks the process's page tables for it: milliseconds per GiB of small pages.
pub fn read_smaps(proc: &Path, pid: i32) -> Result<Vec<Vma>> {
    let path = proc.join(pid.to_string()).join("smaps");
    let file = File::open(&path).map_err(|source| Error::io(&path, "open", source))?;
    smaps(BufReader::with_capacity(1 << 15, file), &path)
}

/// The text of `smaps`; `path` is for errors.
pub fn smaps(mut reader: impl BufRead, path: &Path) -> Result<Vec<Vma>> {
    let mut vmas: Vec<Vma> = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|source| Error::io(path, "read", source))? == 0 {
            break;
        }
        // File names are any bytes.
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        // Keys begin with a capital, addresses are lower case.
        let parsed = if text.starts_with(|c: char| c.is_ascii_uppercase()) {
            text.split_once(':').and_then(|(key, value)| vmas.last_mut()?.set(key, value))
        } else {
            Vma::header(text).map(|vma| vmas.push(vma))
        };
        parsed.ok_or_else(|| Error::malformed(path, number, text))?;
    }
    Ok(vmas)
}

/// Writes `2` to `PID/clear_refs`: forgets accesses of anonymous pages, so that `Referenced` of `smaps` counts from now on.
/// Blinds other access detectors of that process; use one at a time. `proc` is [`Roots::written_proc`].
///
/// [`Roots::written_proc`]: crate::roots::Roots::written_proc
pub fn write_clear_refs(proc: &Path, pid: i32) -> Result<()> {
    file::write(&proc.join(pid.to_string()).join("clear_refs"), "2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    const SMAPS: &str = "\
00400000-00401000 r--p 00000000 00:03 11                                 /bin/a b
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd 
01a2b000-01a4c000 rw-p 00000000 00:00 0                                  [heap]
Rss:                 128 kB
Referenced:          120 kB
Anonymous:           128 kB
KSM:                   0 kB
LazyFree:             16 kB
AnonHugePages:         0 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac sd 
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 
Anonymous:          2048 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me lo ac sd hg 
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
Anonymous:            12 kB
VmFlags: rd wr mr mw me gd ac 
";

    #[test]
    fn mappings_that_can_hold_movable_pages_are_told_apart() {
        let (_dir, roots) = tree(&[("proc/7/smaps", SMAPS), ("proc/7/clear_refs", "")]);
        let vmas = read_smaps(&roots.proc, 7).unwrap();
        let seen: Vec<_> = vmas.iter().map(|vma| (vma.is_anon, vma.may_hold_movable())).collect();
        assert_eq!(seen, [(false, false), (true, true), (true, false), (false, false)]);
        assert_eq!((vmas[1].start, vmas[1].end, &vmas[1].perms), (0x01a2_b000, 0x01a4_c000, b"rw-p"));
        assert_eq!((vmas[1].referenced, vmas[1].lazyfree), (Some(120 << 10), Some(16 << 10)));
        assert_eq!((vmas[2].anon_huge, vmas[2].rss), (Some(2 << 20), None));
        assert!(vmas[2].flags.unwrap().is_locked());
        write_clear_refs(&roots.written_proc, 7).unwrap();
    }

    #[test]
    fn an_unreadable_line_is_named_and_an_ended_process_is_gone() {
        let (_dir, roots) = tree(&[("proc/7/smaps", "00400000-00401000 r--p 0 00:03 11\nRss: x kB\n")]);
        let error = read_smaps(&roots.proc, 7).unwrap_err();
        assert!(error.to_string().contains("smaps:2: "), "{error}");
        assert!(read_smaps(&roots.proc, 8).unwrap_err().is_gone());
    }
}
