//! Raw memory of this very process, for a load generator (feature `generator`): mappings of every kind, and where their pages
//! are.
//!
//! It is here because `unsafe` is nowhere else, and shares nothing with the rest: what is observed must not rely on the
//! observer's own readers. No product binary has it.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;

/// Where one page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this node.
    Node(u16),
    /// Not mapped by this process: never touched, freed, or swapped out.
    Absent,
}

/// Whether a mapping may have huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePages {
    /// `MADV_NOHUGEPAGE`, where the mapping is anonymous.
    Never,
    /// `MADV_HUGEPAGE`.
    Wanted,
    /// As the host has it.
    AsIs,
}

/// What is mapped.
#[derive(Debug, Clone, Copy)]
pub enum Backing<'fd> {
    /// Private anonymous memory.
    Private,
    /// Shared anonymous memory.
    Shared,
    /// Huge pages of the hugetlb pool.
    Hugetlb,
    /// A file, from this offset.
    File(BorrowedFd<'fd>, u64),
}

/// A mapping of its own, 2 MiB aligned, with unmapped room on both sides so that it never merges with another.
/// It is never unmapped: it lives as long as the generator.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes, not yet populated.
    pub fn new(len: usize, backing: Backing<'_>, huge: HugePages) -> Result<Self> {
        Self::map(None, len, backing, huge)
    }

    /// The same at an address, a multiple of 2 MiB.
    ///
    /// # Errors
    /// Also where something is mapped there.
    pub fn at(address: usize, len: usize, backing: Backing<'_>, huge: HugePages) -> Result<Self> {
        Self::map(Some(address), len, backing, huge)
    }

    fn map(address: Option<usize>, len: usize, backing: Backing<'_>, huge: HugePages) -> Result<Self> {
        let room = len.next_multiple_of(HUGE) + 3 * HUGE;
        let (hint, there) = match address {
            Some(address) => ((address - HUGE) as *mut libc::c_void, libc::MAP_FIXED_NOREPLACE),
            None => (ptr::null_mut(), 0),
        };
        // SAFETY: a fresh reservation that the kernel places, or at an address where nothing is; nothing else can point into it.
        let reserved = unsafe {
            libc::mmap(
                hint,
                room,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | there,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let (flags, fd, offset) = match backing {
            Backing::Private => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
            Backing::Shared => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0),
            Backing::Hugetlb => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB, -1, 0),
            Backing::File(fd, offset) => {
                (libc::MAP_SHARED, fd.as_raw_fd(), i64::try_from(offset).map_err(Error::other)?)
            }
        };
        let aligned = (reserved as usize + HUGE).next_multiple_of(HUGE) as *mut libc::c_void;
        // SAFETY: `aligned..aligned + len` lies inside the reservation above, so MAP_FIXED replaces only our own pages.
        let start = unsafe {
            libc::mmap(aligned, len, libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_FIXED, fd, offset)
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let mapping = Self { start: start.cast(), len };
        match (huge, backing) {
            (HugePages::Never, Backing::Private | Backing::Shared) => {
                mapping.advise(0, len, libc::MADV_NOHUGEPAGE)?;
            }
            (HugePages::Wanted, _) => mapping.advise(0, len, libc::MADV_HUGEPAGE)?,
            _ => {}
        }
        Ok(mapping)
    }

    /// Gives the pages to the kernel to free when it likes (`MADV_FREE`).
    ///
    /// The kernel marks pages in batches for each processor, so the last few would not be marked until others follow. And it
    /// never marks a page that it has not put on its lists yet, which it does in batches, too, of the processor where the page
    /// was first touched: those would stay ordinary memory to it for good.
    pub fn free_lazily(&self) -> Result<()> {
        finish_batches()?;
        self.advise(0, self.len, libc::MADV_FREE)?;
        finish_batches()
    }

    /// Gives the pages of a range back to the kernel at once: they read as zero until they are written anew.
    pub fn drop_pages(&self, offset: usize, len: usize) -> Result<()> {
        self.advise(offset, len, libc::MADV_DONTNEED)
    }

    /// Locks the pages in memory.
    pub fn lock(&self) -> Result<()> {
        // SAFETY: the range is ours and mapped; locking does not change it.
        check(unsafe { libc::mlock(self.start.cast(), self.len) })
    }

    fn advise(&self, offset: usize, len: usize, advice: libc::c_int) -> Result<()> {
        assert!(offset + len <= self.len, "advice outside of the mapping");
        // SAFETY: the range is ours and mapped; of the advices used only MADV_FREE and MADV_DONTNEED change content, of
        // pages whose content nobody relies on afterwards.
        check(unsafe { libc::madvise(self.start.add(offset).cast(), len, advice) })
    }

    /// Forbids writing and allows it again, which flushes the whole TLB where the mapping is populated and has more
    /// than 33 pages (x86's `tlb_single_page_flush_ceiling`).
    pub fn flush_tlb(&self) -> Result<()> {
        for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
            // SAFETY: the range is ours and mapped; this process has one thread, which does not write meanwhile.
            check(unsafe { libc::mprotect(self.start.cast(), self.len, protection) })?;
        }
        Ok(())
    }

    /// Reads the word at a byte offset.
    #[must_use]
    pub fn read(&self, offset: usize) -> u64 {
        // SAFETY: `word` checked bounds and alignment; the page is mapped readable; all bit patterns are a u64.
        unsafe { self.word(offset).read_volatile() }
    }

    /// Writes the word at a byte offset.
    pub fn write(&self, offset: usize, value: u64) {
        // SAFETY: `word` checked bounds and alignment; the page is mapped writable; no references into it exist.
        unsafe { self.word(offset).write_volatile(value) }
    }

    fn word(&self, offset: usize) -> *mut u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "word outside of the mapping");
        // SAFETY: inside the mapping, as just checked. The start is page-aligned, so the word is aligned.
        unsafe { self.start.add(offset).cast() }
    }

    /// The address of a byte offset, for /proc/self/pagemap.
    #[must_use]
    pub fn address(&self, offset: usize) -> usize {
        self.start as usize + offset
    }

    /// Asks the kernel where each page of a range lies, by `move_pages(2)` without target nodes.
    ///
    /// # Panics
    /// Outside of the mapping.
    pub fn places(&self, offset: usize, len: usize) -> Result<Vec<Place>> {
        assert!(offset + len <= self.len, "range outside of the mapping");
        let pages: Vec<usize> = (offset..offset + len).step_by(PAGE).map(|at| self.address(at)).collect();
        let mut status = vec![-libc::ENOENT; pages.len()];
        // SAFETY: both arrays have `count` elements and outlive the call; a null node array makes it a query that
        // moves nothing; pid 0 is this process.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                pages.len(),
                pages.as_ptr(),
                ptr::null::<libc::c_int>(),
                status.as_mut_ptr(),
                0,
            )
        };
        if result < 0 {
            return Err(Error::last_os_error());
        }
        Ok(status.into_iter().map(|node| u16::try_from(node).map_or(Place::Absent, Place::Node)).collect())
    }
}

/// Makes every processor finish its batches of pages on the way from list to list, as a move of pages does first, even of none.
fn finish_batches() -> Result<()> {
    let node: libc::c_int = 0;
    // SAFETY: a count of zero reads and writes no array; a node array that is not null makes it a move, of nothing; pid 0
    // is this process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            0_usize,
            ptr::null::<usize>(),
            ptr::from_ref(&node),
            ptr::null_mut::<libc::c_int>(),
            0,
        )
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Forks a child that shares all of our pages and sleeps until we end.
///
/// # Errors
/// In a process of several threads, and where the kernel refuses.
pub fn fork_holder() -> Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(Error::other("a process of several threads must not fork"));
    }
    // SAFETY: there is one thread, as just checked, so the child starts with consistent memory; it calls nothing but
    // system calls and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()),
        0 => {
            // SAFETY: plain system calls without pointers into our memory.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
        _ => Ok(()),
    }
}

fn check(result: libc::c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
