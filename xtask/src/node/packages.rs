//! containerd, runc and network plugins of Debian, unpacked, never installed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::suite::Suite;

/// The last Debian whose containerd (1.6) talks to the kubelet that there is (1.20).
const SUITE: &str = "bookworm";
/// With the libraries that their programs are linked to.
const PACKAGES: &[&str] = &["containerd", "runc", "containernetworking-plugins", "libc6", "libseccomp2"];

/// What of the packages a node needs, by the directory it belongs into there.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("bin", &["usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr", "usr/sbin/runc"]),
    ("opt/cni/bin", &["usr/lib/cni/host-local", "usr/lib/cni/loopback", "usr/lib/cni/ptp"]),
    ("lib64", &["lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]),
    ("lib/x86_64-linux-gnu", &["lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libseccomp.so.2"]),
];

/// Path in the node and content of each program and library; downloaded into the cache when they are not there.
pub(super) fn files(cache: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let root = cache.join("node-packages");
    if !root.exists() {
        let suite = Suite::open(SUITE, &cache.join("apt").join(SUITE))?;
        let work = cache.join("unpack/node-packages");
        for package in PACKAGES {
            suite.unpack(package, &work, &work.join("root"))?;
        }
        // Complete, or not there.
        std::fs::rename(work.join("root"), &root)?;
    }
    let mut files = Vec::new();
    for (dir, paths) in PROGRAMS {
        for path in *paths {
            let from = root.join(path);
            let content = std::fs::read(&from).with_context(|| {
                format!("{} is missing: Debian {SUITE} has changed shape", from.display())
            })?;
            let name = from.file_name().context("a file without a name")?;
            files.push((Path::new("/").join(dir).join(name), content));
        }
    }
    Ok(files)
}
