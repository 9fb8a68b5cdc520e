//! fanotify: who writes to a file. inotify says that a file was written, fanotify also by which process.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::cgroup::{Cgroup, CgroupPath, ControlFile};
use crate::error::{Error, Result};
use crate::{proc, sys};

/// Who wrote. What a process that ended before it was asked about leaves is its pid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The process; 0 for one outside this pid namespace.
    pub pid: i32,
    /// Its name.
    pub comm: Option<String>,
    /// The cgroup it was in.
    pub cgroup: Option<CgroupPath>,
}

impl Writer {
    fn of(proc: &Path, pid: i32) -> Self {
        let comm = proc::read_comm(proc, pid).ok();
        let cgroup = proc::read_proc_cgroup(proc, pid).ok().flatten();
        Self { pid, comm, cgroup }
    }

    /// Whether it was this very process.
    #[must_use]
    pub fn is_self(&self) -> bool {
        u32::try_from(self.pid) == Ok(std::process::id())
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.comm.as_deref().unwrap_or("?"), self.pid)
    }
}

/// A write to a watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write<K> {
    /// A process wrote a file. Writes of one process to one file between two reads come as one.
    By {
        /// What the file was added under.
        key: K,
        /// Who wrote.
        writer: Writer,
    },
    /// Events were lost: some writers will stay unknown.
    Lost,
}

/// Watches files for who writes them, each under a key such as (cgroup, file).
///
/// Each file costs a descriptor: without one, the mark of a removed cgroup's file could not be taken away.
pub struct WriterWatch<K> {
    group: OwnedFd,
    proc: PathBuf,
    by_inode: BTreeMap<Inode, K>,
    by_key: BTreeMap<K, (Inode, OwnedFd)>,
}

type Inode = (u64, u64);

impl<K: Ord + Clone> WriterWatch<K> {
    /// Watches nothing yet. Writers are looked up in `proc`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without `CAP_SYS_ADMIN` or without fanotify in the kernel.
    pub fn new(proc: impl Into<PathBuf>) -> Result<Self> {
        let group = sys::fanotify_init().map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => Error::Unsupported {
                what: "fanotify",
                reason: "naming the writers of files needs CAP_SYS_ADMIN".into(),
            },
            Some(libc::ENOSYS | libc::EINVAL) => {
                Error::Unsupported { what: "fanotify", reason: "this kernel does not have it".into() }
            }
            _ => Error::io(Path::new("fanotify"), "open", error),
        })?;
        Ok(Self { group, proc: proc.into(), by_inode: BTreeMap::new(), by_key: BTreeMap::new() })
    }

    /// Watches a file of a cgroup.
    pub fn add(&mut self, key: K, cgroup: &Cgroup, file: ControlFile) -> Result<()> {
        let path = cgroup.file_path(file.name());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(cgroup, file.name(), flags, Mode::empty())
            .map_err(|error| Error::io(&path, "open", error))?;
        let inode = inode(&file).map_err(|error| Error::io(&path, "stat", error))?;
        sys::fanotify_mark_modify(self.group.as_fd(), file.as_fd(), sys::Mark::Add).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => Error::Unsupported {
                    what: "fanotify mark",
                    reason: "naming the writers of files needs CAP_SYS_ADMIN".into(),
                },
                _ => Error::io(&path, "mark", error),
            }
        })?;
        if self.by_key.get(&key).is_some_and(|(old, _)| *old != inode) {
            self.remove(&key);
        }
        self.by_inode.insert(inode, key.clone());
        self.by_key.insert(key, (inode, file));
        Ok(())
    }

    /// Watches it no longer; no failure if it was not. Do this when the cgroup goes.
    pub fn remove(&mut self, key: &K) {
        if let Some((inode, file)) = self.by_key.remove(key) {
            self.by_inode.remove(&inode);
            // It can only be marked no longer, which is what is wanted.
            let _ = sys::fanotify_mark_modify(self.group.as_fd(), file.as_fd(), sys::Mark::Remove);
        }
    }

    /// The writes since the last call, in order.
    ///
    /// Call as soon as the descriptor is readable: a writer that ended in between, as `echo` of a shell does within a
    /// millisecond, has no name any more.
    pub fn read(&mut self) -> Result<Vec<Write<K>>> {
        let mut seen = Vec::new();
        loop {
            let events = match sys::fanotify_read(self.group.as_fd()) {
                Ok(events) => events,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // The kernel opens the written file for the reader. One whose cgroup went meanwhile can't be opened; its event
                // is taken off the queue all the same, and tells nothing any more.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ESTALE)) =>
                {
                    continue;
                }
                // There is no descriptor for the written file. Its event is taken off the queue, too, and who wrote is not known.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    seen.push(Write::Lost);
                    return Ok(seen);
                }
                Err(error) => return Err(Error::io(Path::new("fanotify"), "read", error)),
            };
            for event in events {
                // First of all, while the writer may still be there.
                let writer = Writer::of(&self.proc, event.pid);
                let key = event.file.as_ref().and_then(|file| self.by_inode.get(&inode(file).ok()?));
                match key {
                    Some(key) => seen.push(Write::By { key: key.clone(), writer }),
                    None if event.overflow => seen.push(Write::Lost),
                    // A file no longer watched, or removed since.
                    None => {}
                }
            }
        }
    }
}

impl<K> AsFd for WriterWatch<K> {
    /// Readable when there is something to read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

fn inode(file: &OwnedFd) -> rustix::io::Result<Inode> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_ended_keeps_its_pid() {
        let proc = tempfile::tempdir().unwrap();
        let writer = Writer::of(proc.path(), 42);
        assert_eq!(writer, Writer { pid: 42, comm: None, cgroup: None });
        assert_eq!(writer.to_string(), "? (pid 42)");
    }

    #[test]
    fn a_live_writer_is_named() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("42")).unwrap();
        std::fs::write(proc.path().join("42/comm"), "kubelet\n").unwrap();
        std::fs::write(proc.path().join("42/cgroup"), "0::/system.slice/kubelet.service\n").unwrap();
        let writer = Writer::of(proc.path(), 42);
        assert_eq!(writer.to_string(), "kubelet (pid 42)");
        assert_eq!(writer.cgroup, CgroupPath::new("/system.slice/kubelet.service"));
    }

    #[test]
    fn this_process_knows_itself() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(Writer::of(Path::new("/proc"), pid).is_self());
        assert!(!Writer::of(Path::new("/proc"), 0).is_self());
    }
}
