//! DAMON's sysfs tree, `kernel/mm/damon/admin/kdamonds`: who watches which memory, and what is done with it.
//!
//! What one kdamond is to do is a value ([`Kdamond`]) that is written whole ([`Tree::write`]). The kernel takes it when it is
//! started ([`Tree::turn_on`]) or told to take it anew ([`Tree::commit`]), and says afterwards by its [`State`] whether it still
//! runs: 6.12 ends a kdamond when a filter names a cgroup that is gone, and calls the commit a success.
//!
//! Kernels differ, and are tried: `migrate_hot` and `migrate_cold` came with 6.11, filters for the operations layer of their
//! own with 6.15, a quota that counts only what was moved after 7.0. A file that is not there is not written where the older
//! kernel does without.

mod kdamond;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::file;

pub use kdamond::{
    AccessPattern, Action, Filter, Goal, Intervals, Kdamond, Match, Quota, Scheme, TriedRegion, Weights,
};
pub use tree::{SchemeStats, State, Tree};

/// By this update interval, which means nothing for physical memory, a kdamond is known as Thermocline's.
pub const OURS: Duration = Duration::from_micros(10_000_519);

fn kdamonds(sys: &Path) -> PathBuf {
    sys.join("kernel/mm/damon/admin/kdamonds")
}

/// Reads `nr_kdamonds`: how many are set up, running or not. `None` where the kernel has no DAMON.
pub fn read_nr_kdamonds(sys: &Path) -> Result<Option<u64>> {
    file::read_number_if_there(&kdamonds(sys).join("nr_kdamonds"))
}

/// Writes `nr_kdamonds`. All that are set up go away and as many empty ones come: never while one is another's.
///
/// # Errors
/// EBUSY while one runs.
pub fn write_nr_kdamonds(sys: &Path, count: u64) -> Result<()> {
    tree::write_patiently(&kdamonds(sys).join("nr_kdamonds"), &count.to_string())
}

/// What keeps DAMON from being used, if anything does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The kernel has none.
    Absent,
    /// So many kdamonds are set up that are not Thermocline's.
    Foreign(u64),
    /// A module that an admin switched on.
    Held(Module),
}

/// What keeps DAMON from being used. Not [`Module::Stat`], which is on by default and can be switched off and on again.
pub fn obstacle(sys: &Path) -> Result<Option<Obstacle>> {
    match read_nr_kdamonds(sys)? {
        None => return Ok(Some(Obstacle::Absent)),
        Some(0) => {}
        Some(1) if Tree::first(sys).read_update_interval()? == Some(OURS) => {}
        Some(count) => return Ok(Some(Obstacle::Foreign(count))),
    }
    for module in [Module::Reclaim, Module::LruSort] {
        if read_module_enabled(sys, module)? == Some(true) {
            return Ok(Some(Obstacle::Held(module)));
        }
    }
    Ok(None)
}

/// A module of the kernel's that works by DAMON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// Watches all memory to tell how idle it is. On since boot where distributions say so, and tells nobody but who asks.
    Stat,
    /// Reclaims what is idle.
    Reclaim,
    /// Sorts the lists of pages.
    LruSort,
}

impl Module {
    /// All of them. While one runs no kdamond can be started, and the other way round.
    pub const ALL: [Self; 3] = [Self::Stat, Self::Reclaim, Self::LruSort];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stat => "damon_stat",
            Self::Reclaim => "damon_reclaim",
            Self::LruSort => "damon_lru_sort",
        }
    }

    fn path(self, sys: &Path) -> PathBuf {
        sys.join("module").join(self.name()).join("parameters/enabled")
    }
}

/// Reads a module's `enabled`; `None` where the kernel does not have it.
pub fn read_module_enabled(sys: &Path, module: Module) -> Result<Option<bool>> {
    let path = module.path(sys);
    file::read_if_there(&path)?
        .map(|text| match text.trim_end() {
            "Y" => Ok(true),
            "N" => Ok(false),
            other => Err(Error::malformed(&path, 1, other)),
        })
        .transpose()
}

/// Writes a module's `enabled`.
pub fn write_module_enabled(sys: &Path, module: Module, enabled: bool) -> Result<()> {
    tree::write_patiently(&module.path(sys), if enabled { "Y" } else { "N" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn what_a_kernel_does_not_have_reads_as_none() {
        let (_dir, roots) = tree(&[("sys/x", "")]);
        assert_eq!(read_nr_kdamonds(&roots.sys).unwrap(), None);
        assert_eq!(read_module_enabled(&roots.sys, Module::Stat).unwrap(), None);
    }

    #[test]
    fn whoever_holds_damon_is_named() {
        const KDAMONDS: &str = "sys/kernel/mm/damon/admin/kdamonds";
        let count = format!("{KDAMONDS}/nr_kdamonds");
        let update = format!("{KDAMONDS}/0/contexts/0/monitoring_attrs/intervals/update_us");
        let module = |module: Module| format!("sys/module/{}/parameters/enabled", module.name());
        let (stat, reclaim) = (module(Module::Stat), module(Module::Reclaim));
        let ours = OURS.as_micros().to_string();
        let check = |files: &[(&str, &str)], expected| {
            let (_dir, roots) = tree(files);
            assert_eq!(obstacle(&roots.sys).unwrap(), expected, "{files:?}");
        };
        check(&[("sys/x", "")], Some(Obstacle::Absent));
        check(&[(&count, "0\n")], None);
        check(&[(&count, "2\n")], Some(Obstacle::Foreign(2)));
        check(&[(&count, "1\n"), (&update, "60000000\n")], Some(Obstacle::Foreign(1)));
        check(&[(&count, "1\n"), (&update, &ours)], None);
        check(&[(&count, "0\n"), (&stat, "Y\n")], None);
        check(&[(&count, "0\n"), (&reclaim, "Y\n")], Some(Obstacle::Held(Module::Reclaim)));
    }

    #[test]
    fn modules_are_on_or_off() {
        let file = "sys/module/damon_stat/parameters/enabled";
        let (_dir, roots) = tree(&[(file, "Y\n")]);
        assert_eq!(read_module_enabled(&roots.sys, Module::Stat).unwrap(), Some(true));
        write_module_enabled(&roots.sys, Module::Stat, false).unwrap();
        // A regular file keeps what the shorter write does not cover.
        assert_eq!(file::read(&Module::Stat.path(&roots.sys)).unwrap(), "N\n");
        let (_dir, roots) = tree(&[(file, "maybe\n")]);
        let error = read_module_enabled(&roots.sys, Module::Stat).unwrap_err();
        assert!(matches!(error, Error::Malformed { line: 1, .. }));
    }
}
