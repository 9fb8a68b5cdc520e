//! The files of a cgroup that are written, through cgroups-rs. Nothing else uses that crate, because its answers have to
//! be checked one by one:
//!
//! - It opens by path, and opens so as to create. So it gets a path that goes through the cgroup's open directory, and
//!   only after the file was seen to be there.
//! - Its errors hide the errno one level down.
//! - Its readers turn what they cannot read into defaults. They are not used.
//! - It creates, joins and sets up cgroups from a root directory of its own choice. That is not used either.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::memory::{MemController, SetMemory};

use super::{Cgroup, CgroupPath, CgroupRoot, ControlFile};
use crate::error::{Error, Result};
use crate::parse::{Limit, format_id_list};

impl Cgroup {
    /// Writes `memory.high` and returns what the kernel made of it: whole pages, and `max` beyond what it can count.
    ///
    /// Below the present usage the write itself reclaims, and blocks until usage is below or reclaim gives up; with
    /// demotion on that empties the fast tier. From 6.18 or so the kernel would only set the limit if the file were open
    /// as non-blocking, but cgroups-rs cannot open it so. Do not write below usage, and write from a thread that may
    /// block.
    ///
    /// # Errors
    /// EBUSY where what was written does not stand when read back: another writer was at the file too.
    pub fn write_memory_high(&self, high: Limit) -> Result<Limit> {
        const FILE: ControlFile = ControlFile::MemoryHigh;
        self.check_present(FILE)?;
        let value = match high {
            // The kernel takes any number of bytes beyond 2^63 for `max`.
            Limit::Bytes(bytes) => i64::try_from(bytes).map_or(MaxValue::Max, MaxValue::Value),
            Limit::Max => MaxValue::Max,
        };
        MemController::new(self.dir_path(), PathBuf::new(), true)
            .set_mem(SetMemory { high: Some(value), ..SetMemory::default() })
            .map_err(|error| self.refused(FILE, &error))?;

        let stands = self.read_memory_high()?.ok_or_else(|| self.gone(FILE))?;
        let page = rustix::param::page_size() as u64;
        let asked_for = match (high, stands) {
            (Limit::Bytes(high), Limit::Bytes(stands)) => stands <= high && high - stands < page,
            // The greatest count of pages is spelled `max`.
            (Limit::Bytes(high), Limit::Max) => high >= i64::MAX as u64 - page,
            (Limit::Max, stands) => stands == Limit::Max,
        };
        if asked_for { Ok(stands) } else { Err(self.overwritten(FILE)) }
    }

    /// Writes `cpuset.mems`; the empty set inherits the parent's nodes. Moves the pages of all processes off the nodes
    /// that are left out, all at once, and blocks until that is done.
    ///
    /// Success says nothing of the pages: the kernel reports no move that failed.
    ///
    /// # Errors
    /// EINVAL or ERANGE for a node that this host cannot have; EBUSY as for [`Self::write_memory_high`]; ENOSPC for the
    /// empty set where the list is not empty and the cgroup has processes: see [`Self::release_cpuset_mems`].
    pub fn write_cpuset_mems(&self, mems: &BTreeSet<u32>) -> Result<()> {
        const FILE: ControlFile = ControlFile::CpusetMems;
        self.check_present(FILE)?;
        // cgroups-rs writes no bytes for an empty text, hence never calls the kernel. The kernel trims the newline.
        let list = format_id_list(mems) + "\n";
        CpuSetController::new(self.dir_path(), PathBuf::new(), true)
            .set_mems(&list)
            .map_err(|error| self.refused(FILE, &error))?;

        let stands = self.read_cpuset_mems()?.ok_or_else(|| self.gone(FILE))?;
        if stands == *mems { Ok(()) } else { Err(self.overwritten(FILE)) }
    }

    /// Lets the cgroup use all nodes that its parent may use, whatever `cpuset.mems` said, and returns what it says then.
    ///
    /// That is the empty set where the kernel takes it. 6.1 and 6.12 do not while the cgroup has processes
    /// (`validate_change()` in kernel/cgroup/cpuset.c), 7.2 does. Else it is all nodes of the host, which has the same
    /// effect: the kernel allows those of them that the parent may use.
    pub fn release_cpuset_mems(&self, root: &CgroupRoot) -> Result<BTreeSet<u32>> {
        if self.read_cpuset_mems()?.is_some_and(|mems| mems.is_empty()) {
            return Ok(BTreeSet::new());
        }
        match self.write_cpuset_mems(&BTreeSet::new()) {
            Ok(()) => Ok(BTreeSet::new()),
            Err(error) if error.errno() == Some(libc::ENOSPC) => {
                let top = root.cgroup(&CgroupPath::root())?;
                let all = top.read_cpuset_mems_effective()?.ok_or(error)?;
                self.write_cpuset_mems(&all)?;
                Ok(all)
            }
            Err(error) => Err(error),
        }
    }

    fn check_present(&self, file: ControlFile) -> Result<()> {
        if self.has(file.name()) {
            return Ok(());
        }
        if self.is_removed() {
            return Err(self.gone(file));
        }
        let controller = match file {
            ControlFile::MemoryHigh => "memory",
            ControlFile::CpusetMems => "cpuset",
        };
        let reason = format!(
            "{} is not there; the parent's cgroup.subtree_control needs +{controller}",
            self.file_path(file.name()).display()
        );
        Err(Error::Unsupported { what: file.name(), reason })
    }

    fn refused(&self, file: ControlFile, error: &cgroups_rs::fs::error::Error) -> Error {
        let errno = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .and_then(io::Error::raw_os_error);
        let source = errno.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
        Error::io(&self.file_path(file.name()), "write", source)
    }

    fn gone(&self, file: ControlFile) -> Error {
        Error::Gone { path: self.file_path(file.name()) }
    }

    fn overwritten(&self, file: ControlFile) -> Error {
        let source = io::Error::from_raw_os_error(libc::EBUSY);
        Error::Io { path: self.file_path(file.name()), op: "keep what was written to", source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(files: &[&str]) -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        for file in files {
            std::fs::write(dir.path().join("c").join(file), "").unwrap();
        }
        let path = CgroupPath::new("/c").unwrap();
        let cgroup = CgroupRoot::open_unchecked(dir.path()).unwrap().cgroup(&path).unwrap();
        (dir, cgroup)
    }

    #[test]
    fn memory_high_is_written_as_bytes_or_max() {
        for (high, text) in [
            (Limit::Bytes(0), "0"),
            (Limit::Bytes(1 << 30), "1073741824"),
            (Limit::Bytes(u64::MAX), "max"),
            (Limit::Max, "max"),
        ] {
            let (dir, cgroup) = cgroup(&["memory.high"]);
            let stands = cgroup.write_memory_high(high).unwrap();
            assert_eq!(std::fs::read_to_string(dir.path().join("c/memory.high")).unwrap(), text);
            assert_eq!(stands.to_string(), text);
        }
    }

    #[test]
    fn cpuset_mems_is_written_as_a_list_and_the_empty_list_reaches_the_kernel() {
        for (mems, text) in [(&[0, 1, 3][..], "0-1,3\n"), (&[1], "1\n"), (&[], "\n")] {
            let (dir, cgroup) = cgroup(&["cpuset.mems"]);
            cgroup.write_cpuset_mems(&mems.iter().copied().collect()).unwrap();
            assert_eq!(std::fs::read_to_string(dir.path().join("c/cpuset.mems")).unwrap(), text);
        }
    }

    #[test]
    fn a_cgroup_without_a_list_of_its_own_is_released_without_a_write() {
        let (dir, cgroup) = cgroup(&["cpuset.mems"]);
        let root = CgroupRoot::open_unchecked(dir.path()).unwrap();
        assert_eq!(cgroup.release_cpuset_mems(&root).unwrap(), BTreeSet::new());
        assert_eq!(std::fs::read_to_string(dir.path().join("c/cpuset.mems")).unwrap(), "");
        std::fs::write(dir.path().join("c/cpuset.mems"), "1\n").unwrap();
        assert_eq!(cgroup.release_cpuset_mems(&root).unwrap(), BTreeSet::new());
        assert_eq!(std::fs::read_to_string(dir.path().join("c/cpuset.mems")).unwrap(), "\n");
    }

    #[test]
    fn a_missing_file_is_not_made_and_its_controller_is_named() {
        let (dir, cgroup) = cgroup(&[]);
        for (error, controller) in [
            (cgroup.write_memory_high(Limit::Max).unwrap_err(), "+memory"),
            (cgroup.write_cpuset_mems(&BTreeSet::new()).unwrap_err(), "+cpuset"),
        ] {
            assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(controller));
        }
        assert_eq!(std::fs::read_dir(dir.path().join("c")).unwrap().count(), 0);
    }

    #[test]
    fn a_removed_cgroup_is_gone_and_its_successor_is_not_written() {
        let (dir, cgroup) = cgroup(&["memory.high"]);
        std::fs::remove_dir_all(dir.path().join("c")).unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        std::fs::write(dir.path().join("c/memory.high"), "successor").unwrap();
        assert!(cgroup.write_memory_high(Limit::Max).unwrap_err().is_gone());
        assert_eq!(std::fs::read_to_string(dir.path().join("c/memory.high")).unwrap(), "successor");
    }

    #[test]
    fn a_refused_write_keeps_its_errno() {
        let (dir, cgroup) = cgroup(&[]);
        std::fs::create_dir(dir.path().join("c/memory.high")).unwrap();
        assert_eq!(cgroup.write_memory_high(Limit::Max).unwrap_err().errno(), Some(libc::EISDIR));
    }
}
