//! Settings that a contender may change, to say which are not as they were.

use crate::guest::{Cgroup, read};

const HOST: &[&str] = &[
    "/sys/kernel/mm/numa/demotion_enabled",
    "/sys/kernel/mm/lru_gen/enabled",
    "/sys/kernel/mm/lru_gen/min_ttl_ms",
    "/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/vm/zone_reclaim_mode",
    "/proc/sys/vm/swappiness",
];
const POD: &[&str] =
    &["memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.max", "cpuset.mems"];

/// Values by file.
pub(super) struct Settings(Vec<(String, String)>);

impl Settings {
    /// As they are now; a file that this kernel lacks is empty.
    pub(super) fn read(pod: &Cgroup) -> Self {
        let pod_dir = pod.dir();
        let of_pod = POD.iter().map(|file| pod_dir.join(file).display().to_string());
        let files = HOST.iter().map(|file| (*file).to_owned()).chain(of_pod);
        Self(files.map(|file| (file.clone(), read(&file).unwrap_or_default().trim().to_owned())).collect())
    }

    /// `file: before, now` of each that is not as it was.
    pub(super) fn changed_since(&self, before: &Self) -> Vec<String> {
        let pairs = self.0.iter().zip(&before.0);
        let changed = pairs.filter(|((_, now), (_, then))| now != then);
        changed.map(|((file, now), (_, then))| format!("{file}: {then}, now {now}")).collect()
    }
}
