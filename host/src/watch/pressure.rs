//! Triggers of `memory.pressure`: the kernel tells when tasks of a cgroup stalled for so long within a window.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, openat};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

const FILE: &str = "memory.pressure";

/// Watches stalls of cgroups, each under a key. To poll a trigger takes what it tells, so [`super::wait`] polls them with all else; behind an
/// epoll it would be lost.
pub struct PressureWatch<K>(BTreeMap<K, OwnedFd>);

impl<K> Default for PressureWatch<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> PressureWatch<K> {
    /// Has the kernel tell when some task `stalled` for so long within a `window`, once a window at most. Replaces what was watched under the
    /// key. Windows are of 0.5 to 10 s; whole multiples of two seconds need no `CAP_SYS_RESOURCE` (Documentation/accounting/psi.rst).
    ///
    /// # Errors
    /// Pressure accounting is off (`psi=0`), or the window is none of those.
    pub fn add(&mut self, key: K, cgroup: &Cgroup, stalled: Duration, window: Duration) -> Result<()> {
        let failed = |op, error| Error::io(&cgroup.file_path(FILE), op, error);
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(cgroup, FILE, flags, Mode::empty())
            .map_err(|error| failed("open to be told of stalls", error))?;
        let trigger = format!("some {} {}\0", stalled.as_micros(), window.as_micros());
        rustix::io::write(&file, trigger.as_bytes())
            .map_err(|error| failed("be told of stalls by", error))?;
        self.0.insert(key, file);
        Ok(())
    }

    /// Watches it no longer; no failure if it was not.
    pub fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub(super) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.values().map(|file| PollFd::new(file, PollFlags::PRI))
    }

    /// Whose tasks stalled, as what was polled says, in the order of [`Self::polled`]. Whose cgroup is gone is watched no longer: it would be
    /// reported without end.
    pub(super) fn told(&mut self, polled: &[PollFlags]) -> Vec<K> {
        let told: Vec<(K, PollFlags)> = self.0.keys().copied().zip(polled.iter().copied()).collect();
        for (key, _) in told.iter().filter(|(_, flags)| flags.contains(PollFlags::ERR)) {
            self.remove(key);
        }
        let stalled = |flags: &PollFlags| flags.contains(PollFlags::PRI) && !flags.contains(PollFlags::ERR);
        told.into_iter().filter(|(_, flags)| stalled(flags)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{CgroupPath, CgroupRoot};

    #[test]
    fn a_cgroup_without_the_file_can_t_be_watched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pod")).unwrap();
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        let cgroup = root.cgroup(&CgroupPath::new("/pod").unwrap()).unwrap();
        let mut watch = PressureWatch::default();
        let error = watch.add(1, &cgroup, Duration::from_millis(6), Duration::from_secs(6)).unwrap_err();
        assert!(error.to_string().contains("pod/memory.pressure"), "{error}");
    }
}
