//! Triggers of `memory.pressure`: the kernel tells when tasks of a cgroup stalled for so long within a window.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, Timespec, openat};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};

const FILE: &str = "memory.pressure";

/// Watches stalls of cgroups, each under a key.
pub struct PressureWatch<K> {
    epoll: OwnedFd,
    triggers: BTreeMap<K, OwnedFd>,
}

impl<K: Ord + Copy> PressureWatch<K> {
    /// Watches nothing yet.
    pub fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Error::io(Path::new("epoll"), "create", error))?;
        Ok(Self { epoll, triggers: BTreeMap::new() })
    }

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
        self.remove(&key);
        let data = epoll::EventData::new_u64(u64::try_from(file.as_raw_fd()).unwrap_or(u64::MAX));
        epoll::add(&self.epoll, &file, data, epoll::EventFlags::PRI)
            .map_err(|error| failed("poll", error))?;
        self.triggers.insert(key, file);
        Ok(())
    }

    /// Watches it no longer; no failure if it was not.
    pub fn remove(&mut self, key: &K) {
        // A closed file leaves the set by itself.
        self.triggers.remove(key);
    }

    /// Whose tasks stalled for so long since the last call.
    pub fn read(&mut self) -> Result<Vec<K>> {
        let mut events = Vec::with_capacity(64);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()))
            .map_err(|error| Error::io(Path::new("epoll"), "wait", error))?;
        let mut stalled = Vec::new();
        for event in events {
            let (flags, fd) = (event.flags, event.data.u64());
            let of = |file: &OwnedFd| u64::try_from(file.as_raw_fd()) == Ok(fd);
            let Some(key) = self.triggers.iter().find(|(_, file)| of(file)).map(|(key, _)| *key) else {
                continue;
            };
            // Its cgroup is gone: it would be reported without end.
            if flags.contains(epoll::EventFlags::ERR) {
                self.remove(&key);
            } else {
                stalled.push(key);
            }
        }
        Ok(stalled)
    }
}

impl<K> AsFd for PressureWatch<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
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
        let mut watch = PressureWatch::new().unwrap();
        let error = watch.add(1, &cgroup, Duration::from_millis(6), Duration::from_secs(6)).unwrap_err();
        assert!(error.to_string().contains("pod/memory.pressure"), "{error}");
        assert_eq!(watch.read().unwrap(), Vec::<i32>::new());
    }
}
