//! The one error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What a kernel file operation can come to, other than its value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused an operation.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation as a verb: `open`, `read`, `write`.
        op: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// A line that this crate does not understand. The kernel's format changed, or this is not the kernel's file.
    #[error("{}:{line}: unexpected content {content:?}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The line's text, shortened to 80 characters.
        content: String,
    },
    /// The cgroup or process ended. An answer, not a failure: drop what was kept about it.
    #[error("{} is gone", path.display())]
    Gone {
        /// What is gone.
        path: PathBuf,
    },
    /// The directory is not a cgroup2 mount.
    #[error("{} is not a cgroup2 mount; pass the directory where cgroup2 is mounted", path.display())]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel, or the rights of this process, do not offer this.
    #[error("{what} is not available here: {reason}")]
    Unsupported {
        /// The facility, such as `fanotify`.
        what: &'static str,
        /// Why, and what would help.
        reason: String,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an errno. ENOENT, ENODEV and ESRCH become [`Error::Gone`]: cgroup files answer ENODEV once their cgroup
    /// is removed, process files ESRCH once their process ended.
    pub fn io(path: &Path, op: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH) => Self::Gone { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), op, source },
        }
    }

    /// Wraps an errno about a file of the whole host. That it is not there says nothing of any cgroup or process, so it never
    /// becomes [`Error::Gone`], which callers pass over.
    pub fn io_of_host(path: &Path, op: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), op, source: source.into() }
    }

    /// A line (counted from 1) that did not parse.
    #[must_use]
    pub fn malformed(path: &Path, line: usize, content: &str) -> Self {
        Self::Malformed { path: path.to_owned(), line, content: content.chars().take(80).collect() }
    }

    /// Whether the cgroup or process ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// The errno of a refused operation.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_cgroup_or_ended_process_is_gone_and_other_errnos_are_kept() {
        let path = Path::new("/x");
        for errno in [libc::ENOENT, libc::ENODEV, libc::ESRCH] {
            assert!(Error::io(path, "read", io::Error::from_raw_os_error(errno)).is_gone());
        }
        let busy = Error::io(path, "write", io::Error::from_raw_os_error(libc::EBUSY));
        assert_eq!((busy.is_gone(), busy.errno()), (false, Some(libc::EBUSY)));
        assert!(busy.to_string().starts_with("cannot write /x: "));
    }

    #[test]
    fn a_malformed_line_is_shown_shortened_with_its_place() {
        let error = Error::malformed(Path::new("/x"), 3, &"é".repeat(200));
        assert_eq!(error.to_string(), format!("/x:3: unexpected content {:?}", "é".repeat(80)));
    }
}
