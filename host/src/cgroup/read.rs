//! The files of a cgroup that are read.
//!
//! `None` means the file is not there: its controller is off, the kernel does not have it, or this is the root cgroup,
//! which lacks some. [`Error::Gone`] means the cgroup was removed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Cgroup;
use crate::error::{Error, Result};
use crate::parse::{self, Limit, Pressure};

/// A file of keys: a struct with a field for each key that is known, named as the kernel names it, and its parser. Other keys
/// are of other kernels, and passed over.
macro_rules! keys_of {
    ($file:literal, $lines:path, $value:ty, $store:path; $(#[$meta:meta])* $name:ident { $($(#[$about:meta])* $key:ident,)+ }) => {
        $(#[$meta])*
        #[allow(missing_docs)] // Each is the kernel's key of the same name (cgroup-v2.rst).
        pub struct $name {
            $($(#[$about])* pub $key: $value,)+
        }

        impl $name {
            #[doc = concat!("The text of `", $file, "`; `path` is for errors.")]
            pub fn parse(text: &str, path: &Path) -> Result<Self> {
                let mut parsed = Self::default();
                $lines(text, path, |key, found| match key {
                    $(stringify!($key) => $store(&mut parsed.$key, found),)+
                    _ => {}
                })?;
                Ok(parsed)
            }
        }
    };
}

fn set(field: &mut Option<u64>, value: u64) {
    *field = Some(value);
}

fn insert(field: &mut ByNode, (node, value): (u32, u64)) {
    field.insert(node, value);
}

keys_of! {
    "memory.stat", parse::flat_keyed, Option<u64>, set;
    /// `memory.stat`: of the whole subtree. Values of memory are in bytes, values of events are counts since the cgroup was
    /// made. A field is `None` where the kernel has no such key (docs/kernel-requirements.md).
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    MemoryStat {
        anon,
        file,
        kernel,
        kernel_stack,
        pagetables,
        shmem,
        zswap,
        zswapped,
        file_mapped,
        file_dirty,
        file_writeback,
        swapcached,
        anon_thp,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        hugetlb,
        workingset_refault_anon,
        workingset_refault_file,
        pgdemote_kswapd,
        pgdemote_direct,
        pgdemote_khugepaged,
        pgdemote_proactive,
        pgpromote_success,
        pswpin,
        pswpout,
        pglazyfree,
        pglazyfreed,
    }
}

impl MemoryStat {
    /// All pages demoted, by whatever means the kernel counts; `None` where it counts none per cgroup (before 6.7 or so).
    #[must_use]
    pub fn pgdemote(&self) -> Option<u64> {
        let counts =
            [self.pgdemote_kswapd, self.pgdemote_direct, self.pgdemote_khugepaged, self.pgdemote_proactive];
        counts.into_iter().flatten().reduce(u64::saturating_add)
    }
}

/// Bytes by node.
pub type ByNode = BTreeMap<u32, u64>;

keys_of! {
    "memory.numa_stat", parse::node_keyed, ByNode, insert;
    /// `memory.numa_stat`: of the whole subtree, by node, in bytes. A map is empty where the kernel has no such key.
    ///
    /// Values may trail the truth by some 64 pages per processor, or two seconds.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    NumaStat {
        anon,
        file,
        shmem,
        kernel_stack,
        pagetables,
        sec_pagetables,
        swapcached,
        anon_thp,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        slab_reclaimable,
        slab_unreclaimable,
        /// In pages, by the node that was promoted to, since the cgroup was made.
        pgpromote_success,
    }
}

impl NumaStat {
    /// About how many bytes of the node are anonymous pages given back by `MADV_FREE` and not freed yet.
    ///
    /// Those pages count as anonymous but are on no anonymous list. Locked pages are on neither list too, so they are
    /// subtracted as if all were anonymous: the estimate errs to the low side.
    #[must_use]
    pub fn lazyfree_estimate(&self, node: u32) -> u64 {
        let on = |map: &ByNode| map.get(&node).copied().unwrap_or(0);
        // What is on the anonymous lists without counting as anonymous.
        let others = on(&self.shmem).saturating_add(on(&self.swapcached));
        let listed = on(&self.active_anon).saturating_add(on(&self.inactive_anon)).saturating_sub(others);
        on(&self.anon).saturating_sub(listed).saturating_sub(on(&self.unevictable))
    }

    /// The bytes of the node that are charged to the cgroup, as far as the kernel tells by node.
    #[must_use]
    pub fn footprint(&self, node: u32) -> u64 {
        [
            &self.anon,
            &self.file,
            &self.kernel_stack,
            &self.pagetables,
            &self.sec_pagetables,
            &self.slab_reclaimable,
            &self.slab_unreclaimable,
        ]
        .into_iter()
        .filter_map(|map| map.get(&node))
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

keys_of! {
    "memory.events", parse::flat_keyed, Option<u64>, set;
    /// `memory.events` and `memory.events.local`: counts since the cgroup was made.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    MemoryEvents {
        low,
        high,
        max,
        oom,
        oom_kill,
    }
}

/// `cgroup.events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupEvents {
    /// Whether the subtree has a live process.
    pub populated: Option<bool>,
    /// Whether the subtree is frozen.
    pub frozen: Option<bool>,
}

impl CgroupEvents {
    /// The text of `cgroup.events`; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut events = Self::default();
        parse::flat_keyed(text, path, |key, value| match key {
            "populated" => events.populated = Some(value != 0),
            "frozen" => events.frozen = Some(value != 0),
            _ => {}
        })?;
        Ok(events)
    }
}

/// One file per function.
impl Cgroup {
    /// `memory.current`: bytes charged to the subtree, on all tiers together.
    pub fn read_memory_current(&self) -> Result<Option<u64>> {
        self.read("memory.current", parse::number)
    }

    /// `memory.high`: above this the cgroup is throttled and reclaimed from.
    pub fn read_memory_high(&self) -> Result<Option<Limit>> {
        self.read("memory.high", parse::limit)
    }

    /// `memory.max`: the hard limit.
    pub fn read_memory_max(&self) -> Result<Option<Limit>> {
        self.read("memory.max", parse::limit)
    }

    /// `memory.low`: below this the cgroup is reclaimed from last.
    pub fn read_memory_low(&self) -> Result<Option<Limit>> {
        self.read("memory.low", parse::limit)
    }

    /// `memory.min`: below this the cgroup is never reclaimed from.
    pub fn read_memory_min(&self) -> Result<Option<Limit>> {
        self.read("memory.min", parse::limit)
    }

    /// `memory.swap.current`: bytes swapped out. Absent on kernels without swap accounting.
    pub fn read_memory_swap_current(&self) -> Result<Option<u64>> {
        self.read("memory.swap.current", parse::number)
    }

    /// `memory.swap.max`: most bytes that may be swapped out.
    pub fn read_memory_swap_max(&self) -> Result<Option<Limit>> {
        self.read("memory.swap.max", parse::limit)
    }

    /// `memory.stat`.
    pub fn read_memory_stat(&self) -> Result<Option<MemoryStat>> {
        self.read("memory.stat", MemoryStat::parse)
    }

    /// `memory.numa_stat`.
    pub fn read_memory_numa_stat(&self) -> Result<Option<NumaStat>> {
        self.read("memory.numa_stat", NumaStat::parse)
    }

    /// `memory.events`: of the subtree.
    pub fn read_memory_events(&self) -> Result<Option<MemoryEvents>> {
        self.read("memory.events", MemoryEvents::parse)
    }

    /// `memory.events.local`: of this cgroup alone.
    pub fn read_memory_events_local(&self) -> Result<Option<MemoryEvents>> {
        self.read("memory.events.local", MemoryEvents::parse)
    }

    /// `memory.pressure`. `None` also where pressure accounting is off.
    pub fn read_memory_pressure(&self) -> Result<Option<Pressure>> {
        self.read("memory.pressure", parse::pressure)
    }

    /// `io.pressure`. `None` also where pressure accounting is off.
    pub fn read_io_pressure(&self) -> Result<Option<Pressure>> {
        self.read("io.pressure", parse::pressure)
    }

    /// `cpuset.mems`: the nodes asked for. The empty set inherits the parent's.
    pub fn read_cpuset_mems(&self) -> Result<Option<BTreeSet<u32>>> {
        self.read("cpuset.mems", parse::id_list)
    }

    /// `cpuset.mems.effective`: the nodes that the processes may use now.
    pub fn read_cpuset_mems_effective(&self) -> Result<Option<BTreeSet<u32>>> {
        self.read("cpuset.mems.effective", parse::id_list)
    }

    /// `cgroup.events`. The root cgroup has none.
    pub fn read_cgroup_events(&self) -> Result<Option<CgroupEvents>> {
        self.read("cgroup.events", CgroupEvents::parse)
    }

    /// `cgroup.controllers`: what may be switched on for the children.
    pub fn read_cgroup_controllers(&self) -> Result<Option<BTreeSet<String>>> {
        self.read("cgroup.controllers", |text, _| Ok(words(text)))
    }

    /// `cgroup.subtree_control`: what is on for the children.
    pub fn read_cgroup_subtree_control(&self) -> Result<Option<BTreeSet<String>>> {
        self.read("cgroup.subtree_control", |text, _| Ok(words(text)))
    }

    /// `cgroup.procs`: the processes of this cgroup alone. A process outside the reader's pid namespace is 0.
    ///
    /// Empty for a threaded cgroup, whose processes are listed by its nearest ancestor that is not.
    pub fn read_cgroup_procs(&self) -> Result<Vec<i32>> {
        Ok(self.read("cgroup.procs", parse::pids)?.unwrap_or_default())
    }

    /// Opens, reads and parses one file. The text is in a buffer that the thread's next read takes over.
    fn read<T>(&self, file: &str, parse: impl FnOnce(&str, &Path) -> Result<T>) -> Result<Option<T>> {
        let mut text = TEXT.take();
        let outcome = match self.read_into(file, &mut text) {
            Ok(()) => as_text(&text, &self.file_path(file), parse).map(Some),
            Err(Errno::NOENT) if !self.is_removed() => Ok(None),
            // Pressure accounting off, or cgroup.procs of a threaded cgroup.
            Err(Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(Error::io(&self.file_path(file), "read", error)),
        };
        TEXT.replace(text);
        outcome
    }

    fn read_into(&self, file: &str, text: &mut Vec<u8>) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.dir, file, flags, Mode::empty())?;
        text.clear();
        // Till the end: a list of processes comes a page at a time. All other files are one record, which comes whole
        // in the first read; the second finds its end without counting anything anew.
        loop {
            // The longest, memory.stat, has about 4 KiB.
            text.reserve(8 << 10);
            if rustix::io::read(&file, rustix::buffer::spare_capacity(text))? == 0 {
                return Ok(());
            }
        }
    }
}

thread_local! {
    /// Kept from read to read, so that sampling a thousand cgroups does not allocate for each file.
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn as_text<T>(bytes: &[u8], path: &Path, parse: impl FnOnce(&str, &Path) -> Result<T>) -> Result<T> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, path),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            Err(Error::malformed(path, line, "text that is not UTF-8"))
        }
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
