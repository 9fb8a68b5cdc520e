//! Reclaim of one cgroup on request: `memory.reclaim`.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use serde::Serialize;

use crate::error::{Error, Result};

const NAME: &str = "memory.reclaim";

/// How much of `memory.reclaim`'s syntax this kernel takes; later ones take what earlier ones take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ReclaimSyntax {
    /// A number of bytes.
    BytesOnly,
    /// Also `swappiness=` 0 to 200.
    Number,
    /// Also `swappiness=max`, strictly anonymous pages.
    Max,
}

/// Which pages to take first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ReclaimSwappiness {
    /// As `memory.swappiness` and the kernel's default say.
    Default,
    /// 0 (file) to 200 (anonymous first).
    Number(u8),
    /// Strictly anonymous pages; where there are none that can go, 7.2 falls back to file pages.
    Max,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reclaimed {
    /// As much as asked. Demoted pages count, and stay charged.
    All,
    /// Less, and the kernel does not say how much: compare `memory.numa_stat`.
    Partial,
    /// A signal came. Work done so far stands.
    Interrupted,
}

/// Writes `memory.reclaim` of the cgroup whose directory this is. Takes from all nodes of all its descendants, and blocks:
/// seconds where the slow nodes are full.
pub fn write_memory_reclaim(
    cgroup: BorrowedFd<'_>,
    bytes: u64,
    swappiness: ReclaimSwappiness,
) -> Result<Reclaimed> {
    let text = match swappiness {
        ReclaimSwappiness::Default => format!("{bytes}"),
        ReclaimSwappiness::Number(number) => format!("{bytes} swappiness={}", number.min(200)),
        ReclaimSwappiness::Max => format!("{bytes} swappiness=max"),
    };
    let Err(source) = write(cgroup, &text) else { return Ok(Reclaimed::All) };
    // ERESTARTSYS (512) reaches user space as EINTR, or as a restarted call, never as itself.
    match source.raw_os_error() {
        Some(libc::EAGAIN) => Ok(Reclaimed::Partial),
        Some(libc::EINTR) => Ok(Reclaimed::Interrupted),
        _ => Err(Error::io(Path::new(NAME), "write", source)),
    }
}

/// Finds what this kernel's `memory.reclaim` takes by asking a cgroup for nothing. `None` where there is no such file, as
/// in the root cgroup of older kernels.
pub fn probe_reclaim_syntax(cgroup: BorrowedFd<'_>) -> Result<Option<ReclaimSyntax>> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for (text, syntax) in [
        ("0 swappiness=max", ReclaimSyntax::Max),
        ("0 swappiness=60", ReclaimSyntax::Number),
        ("0", ReclaimSyntax::BytesOnly),
    ] {
        match write(cgroup, text) {
            Ok(()) => return Ok(Some(syntax)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(Error::io(Path::new(NAME), "write", error)),
        }
    }
    Err(Error::io(Path::new(NAME), "write", refused))
}

fn write(cgroup: BorrowedFd<'_>, text: &str) -> io::Result<()> {
    let fd = openat(cgroup.as_fd(), NAME, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Not write_all: it would start over after a signal.
    File::from(fd).write(text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn a_request_is_spelled_as_the_kernel_takes_it() {
        for (swappiness, expected) in [
            (ReclaimSwappiness::Default, "4096"),
            (ReclaimSwappiness::Number(255), "4096 swappiness=200"),
            (ReclaimSwappiness::Max, "4096 swappiness=max"),
        ] {
            let (dir, _) = tree(&[("pod/memory.reclaim", "")]);
            let cgroup = File::open(dir.path().join("pod")).unwrap();
            assert_eq!(write_memory_reclaim(cgroup.as_fd(), 4096, swappiness).unwrap(), Reclaimed::All);
            assert_eq!(std::fs::read_to_string(dir.path().join("pod/memory.reclaim")).unwrap(), expected);
        }
    }

    #[test]
    fn a_cgroup_without_the_file_has_no_syntax_and_is_gone_to_a_request() {
        let (dir, _) = tree(&[("pod/x", "")]);
        let cgroup = File::open(dir.path().join("pod")).unwrap();
        assert_eq!(probe_reclaim_syntax(cgroup.as_fd()).unwrap(), None);
        let error = write_memory_reclaim(cgroup.as_fd(), 1, ReclaimSwappiness::Default).unwrap_err();
        assert!(error.is_gone());
    }
}
