//! Where the kernel's file systems are mounted.

use std::path::PathBuf;

/// The directories that all paths of the memory side start from. A test gives directories of its own, a container the
/// host's under `/host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/sys/kernel/debug`.
    pub debugfs: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), debugfs: "/sys/kernel/debug".into() }
    }
}
