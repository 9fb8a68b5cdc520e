//! Where the kernel's file systems are mounted.

use std::fs::read_link;
use std::path::PathBuf;

/// The directories that all paths of the memory side start from. A test gives directories of its own, a container the
/// host's under `/host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// Where files of single processes are written: `/proc` where it shows the processes of `proc`, else `proc`. A container
    /// has the host's read-only, for who may write to that one has sysrq and `core_pattern`.
    pub written_proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/sys/kernel/debug`.
    pub debugfs: PathBuf,
}

impl Roots {
    /// The file systems that are mounted there.
    #[must_use]
    pub fn new(proc: PathBuf, sys: PathBuf, debugfs: PathBuf) -> Self {
        let own = PathBuf::from("/proc");
        // `self` is a number of the pid namespace that the mount belongs to.
        let same = match (read_link(own.join("self")), read_link(proc.join("self"))) {
            (Ok(here), Ok(there)) => here == there,
            _ => false,
        };
        let written_proc = if same { own } else { proc.clone() };
        Self { proc, written_proc, sys, debugfs }
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self::new("/proc".into(), "/sys".into(), "/sys/kernel/debug".into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn processes_are_written_where_they_have_the_same_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let check = |proc: &Path, written: &Path| {
            let roots = Roots::new(proc.to_owned(), "/sys".into(), "/sys/kernel/debug".into());
            assert_eq!(roots.written_proc, written);
        };
        check(dir.path(), dir.path());
        std::os::unix::fs::symlink("1", dir.path().join("self")).unwrap();
        check(dir.path(), dir.path());
        std::fs::remove_file(dir.path().join("self")).unwrap();
        std::os::unix::fs::symlink(std::process::id().to_string(), dir.path().join("self")).unwrap();
        check(dir.path(), Path::new("/proc"));
        check(Path::new("/proc"), Path::new("/proc"));
    }
}
