//! A node with two memory tiers as a tree of plain files: what the agent reads and writes of `/sys`, `/proc` and the cgroups, laid
//! out as kubelet does.
//!
//! No kernel is behind the files. A limit binds nobody, and nothing moves; what was written is there to be read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use api::QosClass;
use tempfile::TempDir;

/// How kubelet names cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Slices and scopes.
    Systemd,
    /// Plain directories.
    Cgroupfs,
}

/// The tree of one node.
pub struct NodeTree {
    dir: TempDir,
    driver: Driver,
}

/// Of every cgroup that has the memory and the cpuset controller.
const CGROUP: [(&str, &str); 14] = [
    ("cgroup.controllers", "cpuset memory\n"),
    ("cgroup.subtree_control", "cpuset memory\n"),
    ("cgroup.procs", ""),
    ("cgroup.events", "populated 1\nfrozen 0\n"),
    ("memory.current", "104857600\n"),
    ("memory.high", "max\n"),
    ("memory.max", "max\n"),
    ("memory.reclaim", ""),
    ("memory.stat", "anon 104857600\nfile 0\n"),
    (
        "memory.numa_stat",
        "anon N0=104857600 N1=0\nfile N0=0 N1=0\ninactive_anon N0=0 N1=0\nactive_anon N0=104857600 N1=0\nunevictable N0=0 N1=0\n",
    ),
    ("memory.pressure", STALLS),
    ("io.pressure", STALLS),
    ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"),
    // All nodes, so that the file is its own cpuset.mems.effective.
    ("cpuset.mems", "0-1\n"),
];

const STALLS: &str =
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

/// Outside of the cgroups. Node 0 is DRAM with processors, node 1 is slower.
const HOST: [(&str, &str); 15] = [
    ("sys/devices/system/node/online", "0-1\n"),
    ("sys/devices/system/node/has_cpu", "0\n"),
    ("sys/devices/system/node/has_memory", "0-1\n"),
    ("sys/devices/system/node/has_normal_memory", "0-1\n"),
    ("sys/devices/system/node/node0/distance", "10 20\n"),
    ("sys/devices/system/node/node1/distance", "20 10\n"),
    ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 4194304 kB\nNode 0 MemFree: 2097152 kB\n"),
    ("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 4194304 kB\nNode 1 MemFree: 4000000 kB\n"),
    ("sys/devices/virtual/memory_tiering/memory_tier4/nodelist", "0\n"),
    ("sys/devices/virtual/memory_tiering/memory_tier22/nodelist", "1\n"),
    ("sys/kernel/mm/numa/demotion_enabled", "0\n"),
    ("proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n"),
    ("proc/self/cgroup", "0::/system.slice\n"),
    ("proc/pressure/memory", STALLS),
    ("proc/zoneinfo", ZONES),
];

const ZONES: &str = "\
Node 0, zone   Normal
  pages free     524288
        min      1000
        low      2000
        high     3000
        managed  1048576
Node 1, zone   Normal
  pages free     1000000
        min      1000
        low      2000
        high     3000
        managed  1048576
";

impl NodeTree {
    /// A node without pods, whose kubelet has this cgroup driver.
    ///
    /// # Errors
    /// When files cannot be made.
    pub fn new(driver: Driver) -> Result<Self> {
        // In memory, as cgroups and /run are.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = TempDir::with_prefix_in("thermocline-node-", place)?;
        for (path, content) in HOST {
            write(&dir.path().join(path), content)?;
        }
        for place in ["debug", "run", "staging"] {
            fs::create_dir(dir.path().join(place))?;
        }
        let tree = Self { dir, driver };
        let root = tree.cgroups();
        let tops: &[&str] = match driver {
            Driver::Systemd => &[
                "system.slice",
                "kubepods.slice",
                "kubepods.slice/kubepods-burstable.slice",
                "kubepods.slice/kubepods-besteffort.slice",
            ],
            Driver::Cgroupfs => &["system", "kubepods", "kubepods/burstable", "kubepods/besteffort"],
        };
        for place in std::iter::once(root.clone()).chain(tops.iter().map(|top| root.join(top))) {
            cgroup(&place)?;
        }
        // The root cgroup has no limits.
        for file in ["memory.current", "memory.high", "memory.max", "cpuset.mems"] {
            fs::remove_file(root.join(file))?;
        }
        Ok(tree)
    }

    /// Makes a pod's cgroup with those of its containers in it, all at once as far as others see.
    ///
    /// # Errors
    /// When files cannot be made.
    pub fn add_pod(&self, uid: &str, class: QosClass, containers: &[&str]) -> Result<()> {
        let staged = self.dir.path().join("staging").join(uid);
        cgroup(&staged)?;
        for id in containers {
            let container = staged.join(self.container_name(id));
            cgroup(&container)?;
            // It inherits the pod's nodes.
            fs::write(container.join("cpuset.mems"), "\n")?;
            fs::remove_file(container.join("cpuset.mems.effective"))?;
            fs::hard_link(staged.join("cpuset.mems"), container.join("cpuset.mems.effective"))?;
        }
        fs::rename(staged, self.pod(uid, class))?;
        Ok(())
    }

    /// Removes a pod's cgroup with all below it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove_pod(&self, uid: &str, class: QosClass) -> Result<()> {
        let gone = self.dir.path().join("staging").join(format!("{uid}-gone"));
        fs::rename(self.pod(uid, class), &gone)?;
        Ok(fs::remove_dir_all(gone)?)
    }

    /// Where a pod's cgroup is.
    #[must_use]
    pub fn pod(&self, uid: &str, class: QosClass) -> PathBuf {
        let quality = match class {
            QosClass::Guaranteed => None,
            QosClass::Burstable => Some("burstable"),
            QosClass::BestEffort => Some("besteffort"),
        };
        let below = match (self.driver, quality) {
            (Driver::Cgroupfs, None) => format!("kubepods/pod{uid}"),
            (Driver::Cgroupfs, Some(quality)) => format!("kubepods/{quality}/pod{uid}"),
            (Driver::Systemd, None) => format!("kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_")),
            (Driver::Systemd, Some(quality)) => format!(
                "kubepods.slice/kubepods-{quality}.slice/kubepods-{quality}-pod{}.slice",
                uid.replace('-', "_")
            ),
        };
        self.cgroups().join(below)
    }

    /// Where a container's cgroup is.
    #[must_use]
    pub fn container(&self, uid: &str, class: QosClass, id: &str) -> PathBuf {
        self.pod(uid, class).join(self.container_name(id))
    }

    fn container_name(&self, id: &str) -> String {
        match self.driver {
            Driver::Systemd => format!("cri-containerd-{id}.scope"),
            Driver::Cgroupfs => id.to_owned(),
        }
    }

    /// Where the agent keeps what outlives it.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The agent's flags that lead to the tree.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let flag = |flag: &str, name: &str| format!("--{flag}-root={}", self.dir.path().join(name).display());
        vec![flag("cgroup", "cgroup"), flag("sysfs", "sys"), flag("proc", "proc"), flag("debugfs", "debug")]
    }

    fn cgroups(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }
}

fn cgroup(place: &Path) -> Result<()> {
    for (file, content) in CGROUP {
        write(&place.join(file), content)?;
    }
    fs::hard_link(place.join("cpuset.mems"), place.join("cpuset.mems.effective"))?;
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file has a directory")?)?;
    fs::write(path, content).with_context(|| path.display().to_string())
}
