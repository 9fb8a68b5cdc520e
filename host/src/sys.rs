//! The system calls that no dependency wraps: the only `unsafe` of the product.

// fanotify(7): rustix has none of it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// All threads allocate from one arena of glibc's, mallopt(3). Call it before there is a second thread.
#[cfg(target_env = "gnu")]
pub(crate) fn one_malloc_arena() {
    // SAFETY: takes two numbers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Opens a notification group, non-blocking. Its events carry open files.
pub(crate) fn fanotify_init() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    let event_flags = (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned();
    // SAFETY: takes two numbers.
    let fd = unsafe { libc::fanotify_init(flags, event_flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What to do to a mark.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// Notify of the file from now on.
    Add,
    /// No longer.
    Remove,
}

/// Marks an open file for notices of its modification.
pub(crate) fn fanotify_mark_modify(
    group: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    mark: Mark,
) -> io::Result<()> {
    let flags = match mark {
        Mark::Add => libc::FAN_MARK_ADD,
        Mark::Remove => libc::FAN_MARK_REMOVE,
    };
    // SAFETY: both descriptors are open for the call; without a path the descriptor itself is marked.
    let outcome = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), flags, libc::FAN_MODIFY, file.as_raw_fd(), std::ptr::null())
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread into a cgroup namespace, setns(2).
pub(crate) fn enter_cgroup_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two numbers, of which the descriptor is open for the call.
    let outcome = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWCGROUP) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One event of a group that [`fanotify_init`] opened.
#[derive(Debug)]
pub(crate) struct FanotifyEvent {
    /// Events before this one were lost; it has no file.
    pub(crate) overflow: bool,
    /// The process that caused it; 0 outside this pid namespace.
    pub(crate) pid: i32,
    /// The file, opened for reading. Absent where it could not be opened any more.
    pub(crate) file: Option<OwnedFd>,
}

/// Reads what events there are.
pub(crate) fn fanotify_read(group: BorrowedFd<'_>) -> io::Result<Vec<FanotifyEvent>> {
    // struct fanotify_event_metadata: u32 event_len, u8 vers, u8 reserved, u16 metadata_len, u64 mask, i32 fd, i32 pid.
    const METADATA: usize = size_of::<libc::fanotify_event_metadata>();

    let mut buffer = [0_u8; 64 * METADATA];
    let length = rustix::io::read(group, &mut buffer)?;
    let mut rest = &buffer[..length];
    let mut events = Vec::new();
    while let Some(event) = rest.first_chunk::<METADATA>() {
        let word = |at: usize| [event[at], event[at + 1], event[at + 2], event[at + 3]];
        let event_length = u32::from_ne_bytes(word(0)) as usize;
        let mask = u64::from_ne_bytes([
            event[8], event[9], event[10], event[11], event[12], event[13], event[14], event[15],
        ]);
        let (fd, pid) = (i32::from_ne_bytes(word(16)), i32::from_ne_bytes(word(20)));
        // SAFETY: the kernel opened this descriptor for this read, and it is taken over only here.
        let file = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        events.push(FanotifyEvent { overflow: mask & libc::FAN_Q_OVERFLOW != 0, pid, file });
        rest = rest.get(event_length.max(METADATA)..).unwrap_or_default();
    }
    Ok(events)
}

/// `move_pages(2)`: `pages` of process `pid` to `nodes`, or where they are if `nodes` is `None`. `flags` is ignored by a
/// query. Returns the kernel's count of pages not migrated; entries of `status` may be left as they were.
///
/// The kernel reads and writes as many entries as `pages` has; the slices must be of one length.
pub(crate) fn move_pages(
    pid: i32,
    pages: &[u64],
    nodes: Option<&[i32]>,
    status: &mut [i32],
    flags: i32,
) -> io::Result<i64> {
    assert!(nodes.is_none_or(|nodes| nodes.len() == pages.len()) && status.len() == pages.len());
    let nodes = nodes.map_or(std::ptr::null(), <[i32]>::as_ptr);
    // SAFETY: the three arrays have `pages.len()` entries each (asserted), or `nodes` is null as the call allows; the
    // addresses in `pages` are values to the kernel and are not dereferenced in this process.
    let left = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            nodes,
            status.as_mut_ptr(),
            flags,
        )
    };
    if left < 0 { Err(io::Error::last_os_error()) } else { Ok(left) }
}

/// `process_vm_readv(2)`: reads one byte at each address of process `pid` and drops it. Returns how many were read before
/// the first that could not be.
pub(crate) fn read_a_byte_each(pid: i32, addresses: &[u64]) -> io::Result<usize> {
    let mut bytes = vec![0_u8; addresses.len()];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = |&address: &u64| libc::iovec {
        iov_base: std::ptr::without_provenance_mut(usize::try_from(address).unwrap_or(usize::MAX)),
        iov_len: 1,
    };
    let remote: Vec<libc::iovec> = addresses.iter().map(remote).collect();
    // SAFETY: the kernel writes at most `bytes.len()` bytes into `bytes`, which lives until after the call; the remote
    // addresses are values to the kernel and are not dereferenced in this process.
    let read =
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// The size of a base page in bytes.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf takes no pointers and has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
