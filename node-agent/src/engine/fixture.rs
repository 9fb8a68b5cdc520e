//! A host of plain files for tests of engines: node 0 is fast, node 1 slow.

use std::fs;
use std::path::Path;

use host::cgroup::{Cgroup, CgroupPath, CgroupRoot};
use host::roots::Roots;
use tiering::{Bytes, NodeFacts, NodeId, TierMap};

use super::Ground;

/// Writes files of relative path and content.
pub(crate) fn write(dir: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// What engines work with, its files below `dir`.
pub(crate) fn ground(dir: &Path) -> Ground {
    let node = |id: u32, has_cpu, kernel_tier| NodeFacts {
        id: NodeId(id),
        has_cpu,
        memory: Bytes::mib(1024),
        kernel_tier: Some(kernel_tier),
        performance: None,
        device: None,
        movable_only: false,
        distances: [(NodeId(id), 10), (NodeId(1 - id), 20)].into(),
    };
    let tiers = TierMap::discover(&[node(0, true, 4), node(1, false, 22)]).unwrap();
    Ground {
        roots: Roots::new(dir.join("proc"), dir.join("sys"), dir.join("debug")),
        fast: tiers.fast_nodes().clone(),
        slow: tiers.slow_nodes().clone(),
        tiers,
    }
}

/// A cgroup below `dir/cgroup`.
pub(crate) fn cgroup(dir: &Path, path: &str) -> Cgroup {
    let root = CgroupRoot::open_unchecked(dir.join("cgroup")).unwrap();
    root.cgroup(&CgroupPath::new(path).unwrap()).unwrap()
}
