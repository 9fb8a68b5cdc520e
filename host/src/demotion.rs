//! The kernel's demotion switch: `/sys/kernel/mm/numa/demotion_enabled`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;

fn path(sys: &Path) -> PathBuf {
    sys.join("kernel/mm/numa/demotion_enabled")
}

/// Whether reclaim demotes instead of swapping out, host-wide. `None` where this kernel cannot demote.
pub fn read_demotion_enabled(sys: &Path) -> Result<Option<bool>> {
    let path = path(sys);
    file::read_if_there(&path)?.map(|text| demotion_enabled(&text, &path)).transpose()
}

/// The text of the switch; `path` is for errors.
pub fn demotion_enabled(text: &str, path: &Path) -> Result<bool> {
    match text.trim_end() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Error::malformed(path, 1, other)),
    }
}

/// Sets the switch. While it is on, hitting `memory.high` or `memory.max` flushes a cgroup's fast memory first.
pub fn write_demotion_enabled(sys: &Path, enabled: bool) -> Result<()> {
    file::write(&path(sys), if enabled { "1" } else { "0" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn the_switch_reads_as_the_kernel_spells_it() {
        let (_dir, roots) = tree(&[("sys/kernel/mm/numa/demotion_enabled", "false\n")]);
        assert_eq!(read_demotion_enabled(&roots.sys).unwrap(), Some(false));
        assert_eq!(read_demotion_enabled(&roots.proc).unwrap(), None);
    }
}
