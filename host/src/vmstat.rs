//! Counters of page movement: `/proc/vmstat`.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::{file, parse};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since boot, in pages unless said otherwise. `None`: this kernel does not count it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Vmstat { $($(#[$doc])* pub $name: Option<u64>,)* }

        impl Vmstat {
            fn set(&mut self, key: &str, value: u64) {
                match key {
                    $(stringify!($name) => self.$name = Some(value),)*
                    _ => {}
                }
            }
        }
    };
}

counters! {
    /// Demoted by kswapd.
    pgdemote_kswapd,
    /// Demoted by direct reclaim; up to 6.12 also by `memory.reclaim` and `lru_gen` evictions.
    pgdemote_direct,
    /// Demoted by khugepaged.
    pgdemote_khugepaged,
    /// Demoted by `memory.reclaim` and `lru_gen` evictions (after 6.12).
    pgdemote_proactive,
    /// Promoted by NUMA balancing.
    pgpromote_success,
    /// Found hot by NUMA balancing, promoted or not.
    pgpromote_candidate,
    /// Promoted regardless of heat and rate limit, for there was ample room.
    pgpromote_candidate_nrl,
    /// Migrated, whoever asked.
    pgmigrate_success,
    /// Not migrated, whoever asked.
    pgmigrate_fail,
    /// Huge pages migrated whole, in huge pages.
    thp_migration_success,
    /// Huge pages not migrated, in huge pages.
    thp_migration_fail,
    /// Huge pages split to be migrated, in huge pages.
    thp_migration_split,
    /// NUMA balancing's hint faults, in faults.
    numa_hint_faults,
    /// Pages migrated by NUMA balancing.
    numa_pages_migrated,
    /// Direct reclaims of movable-zone allocations, in events.
    allocstall_movable,
    /// Direct reclaims of normal-zone allocations, in events.
    allocstall_normal,
    /// Direct reclaims of low-zone allocations, in events.
    allocstall_dma32,
    /// Swapped in.
    pswpin,
    /// Swapped out.
    pswpout,
    /// Marked with `MADV_FREE`.
    pglazyfree,
    /// Freed after `MADV_FREE`.
    pglazyfreed,
}

impl Vmstat {
    /// All demotions.
    #[must_use]
    pub fn demoted(&self) -> u64 {
        [self.pgdemote_kswapd, self.pgdemote_direct, self.pgdemote_khugepaged, self.pgdemote_proactive]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }

    /// All direct reclaims, in events.
    #[must_use]
    pub fn allocstall(&self) -> u64 {
        [self.allocstall_movable, self.allocstall_normal, self.allocstall_dma32]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }
}

/// Reads `vmstat`.
pub fn read_vmstat(proc: &Path) -> Result<Vmstat> {
    let path = proc.join("vmstat");
    vmstat(&file::read(&path)?, &path)
}

/// The text of `vmstat`; `path` is for errors.
pub fn vmstat(text: &str, path: &Path) -> Result<Vmstat> {
    let mut vmstat = Vmstat::default();
    parse::flat_keyed(text, path, |key, value| vmstat.set(key, value))?;
    Ok(vmstat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::tree;

    #[test]
    fn counters_of_older_kernels_are_absent_not_zero() {
        let text = "nr_free_pages 1\npgdemote_kswapd 5\npgdemote_direct 12800\nallocstall_normal 2\n";
        let (_dir, roots) = tree(&[("proc/vmstat", text)]);
        let vmstat = read_vmstat(&roots.proc).unwrap();
        assert_eq!((vmstat.demoted(), vmstat.pgdemote_proactive, vmstat.allocstall()), (12805, None, 2));
        let greatest = format!("pgdemote_kswapd {0}\npgdemote_direct {0}\n", u64::MAX);
        assert_eq!(super::vmstat(&greatest, Path::new("vmstat")).unwrap().demoted(), u64::MAX);
    }
}
