//! The kernel's own promotion: NUMA balancing.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::{file, parse};

/// `kernel.numa_balancing`, a set of two modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct NumaBalancing(u8);

impl NumaBalancing {
    /// The kernel moves nothing by itself.
    pub const OFF: Self = Self(0);
    /// Pages follow the processors that use them, from slow nodes too. What kernels boot with.
    pub const NORMAL: Self = Self(1);
    /// Hot pages of slow nodes are promoted.
    pub const TIERING: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// Whether hot pages of slow nodes are promoted.
    #[must_use]
    pub fn is_tiering(self) -> bool {
        self.0 & Self::TIERING.0 != 0
    }

    /// Whether the kernel moves pages by itself at all.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.0 != 0
    }

    /// The number in the file, 0 to 3.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// Reads `sys/kernel/numa_balancing`; `None` where the kernel has none.
pub fn read_numa_balancing(proc: &Path) -> Result<Option<NumaBalancing>> {
    let path = proc.join("sys/kernel/numa_balancing");
    file::read_if_there(&path)?.map(|text| numa_balancing(&text, &path)).transpose()
}

/// The text of `sys/kernel/numa_balancing`; `path` is for errors.
pub fn numa_balancing(text: &str, path: &Path) -> Result<NumaBalancing> {
    match u8::try_from(parse::number(text, path)?) {
        Ok(mode @ 0..=3) => Ok(NumaBalancing(mode)),
        _ => Err(Error::malformed(path, 1, text.trim_end())),
    }
}

/// Writes `sys/kernel/numa_balancing`.
pub fn write_numa_balancing(proc: &Path, mode: NumaBalancing) -> Result<()> {
    file::write(&proc.join("sys/kernel/numa_balancing"), &mode.0.to_string())
}

/// Reads `sys/kernel/numa_balancing_promote_rate_limit_MBps`: MB per second and node.
pub fn read_numa_balancing_promote_rate_limit(proc: &Path) -> Result<Option<u64>> {
    file::read_number_if_there(&proc.join("sys/kernel/numa_balancing_promote_rate_limit_MBps"))
}

/// Writes `sys/kernel/numa_balancing_promote_rate_limit_MBps`.
pub fn write_numa_balancing_promote_rate_limit(proc: &Path, mb_per_s: u64) -> Result<()> {
    file::write(&proc.join("sys/kernel/numa_balancing_promote_rate_limit_MBps"), &mb_per_s.to_string())
}

/// Reads `sched/numa_balancing/hot_threshold_ms`: a page used again within this time of the kernel's scan is hot.
pub fn read_hot_threshold_ms(debugfs: &Path) -> Result<Option<u64>> {
    file::read_number_if_there(&debugfs.join("sched/numa_balancing/hot_threshold_ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn modes_are_a_set() {
        let (_dir, roots) = tree(&[("proc/sys/kernel/numa_balancing", "1\n")]);
        assert_eq!(read_numa_balancing(&roots.proc).unwrap(), Some(NumaBalancing::NORMAL));
        write_numa_balancing(&roots.proc, NumaBalancing::TIERING).unwrap();
        let mode = read_numa_balancing(&roots.proc).unwrap().unwrap();
        assert!(mode.is_tiering() && mode.is_on() && !NumaBalancing::NORMAL.is_tiering());
        assert_eq!(read_numa_balancing_promote_rate_limit(&roots.proc).unwrap(), None);
    }
}
