//! containerd, runc and network plugins of Debian, unpacked, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::suite::Suite;

/// Where to look when this machine's own Debian has a containerd that its kubelet can't talk to.
const OTHER_SUITES: [&str; 2] = ["trixie", "bookworm"];
/// With the libraries that their programs are linked to.
const PACKAGES: &[&str] = &["containerd", "runc", "containernetworking-plugins", "libc6", "libseccomp2"];

/// What of the packages a node needs, by the directory it belongs into there. Where a package has it, with `usr` before it or without.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("bin", &["bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "sbin/runc"]),
    ("opt/cni/bin", &["lib/cni/host-local", "lib/cni/loopback", "lib/cni/ptp"]),
    ("lib64", &["lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]),
    ("lib/x86_64-linux-gnu", &["lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libseccomp.so.2"]),
];

/// With the version of containerd behind it, a directory of unpacked packages.
const UNPACKED: &str = "node-packages-";

/// Major and minor.
type Version = (u32, u32);

/// Path in the node and content of each program and library, for this kubelet; downloaded into the cache when they are not there.
pub(super) fn files(cache: &Path, kubelet: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let output = Command::new(kubelet).arg("--version").output().context("kubelet --version")?;
    let kubelet = version(&String::from_utf8_lossy(&output.stdout)).context("kubelet says no version")?;
    let root = match unpacked(cache, kubelet)? {
        Some(root) => root,
        None => unpack(cache, kubelet)?,
    };
    let mut files = Vec::new();
    for (dir, paths) in PROGRAMS {
        for path in *paths {
            let places = [root.join("usr").join(path), root.join(path)];
            let from = places
                .into_iter()
                .find(|from| from.exists())
                .with_context(|| format!("{} has no {path}: Debian has changed shape", root.display()))?;
            let name = from.file_name().context("a file without a name")?;
            files.push((Path::new("/").join(dir).join(name), std::fs::read(&from)?));
        }
    }
    Ok(files)
}

/// What an earlier run left.
fn unpacked(cache: &Path, kubelet: Version) -> Result<Option<PathBuf>> {
    let paths = std::fs::read_dir(cache)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().find(|path| {
        let containerd = path.file_name().and_then(|name| name.to_str()?.strip_prefix(UNPACKED));
        containerd.and_then(version).is_some_and(|containerd| talks(containerd, kubelet))
    }))
}

fn unpack(cache: &Path, kubelet: Version) -> Result<PathBuf> {
    let (suite, (major, minor)) = suite(cache, kubelet)?;
    let root = cache.join(format!("{UNPACKED}{major}.{minor}"));
    let work = cache.join("unpack/node-packages");
    for package in PACKAGES {
        suite.unpack(package, &work, &work.join("root"))?;
    }
    // Complete, or not there.
    std::fs::rename(work.join("root"), &root)?;
    Ok(root)
}

/// This machine's Debian, or else the newest whose containerd talks to the kubelet, and the version of that.
fn suite(cache: &Path, kubelet: Version) -> Result<(Suite, Version)> {
    let own = Suite::of_this_machine(cache)?;
    let mut tried = Vec::new();
    let others = OTHER_SUITES.iter().map(|name| Suite::open(name, &cache.join("apt").join(name)));
    for suite in std::iter::once(Ok(own)).chain(others) {
        let suite = suite?;
        let containerd = suite.version("containerd")?;
        tried.push(format!("{} has {containerd}", suite.name()));
        if let Some(containerd) = version(&containerd).filter(|containerd| talks(*containerd, kubelet)) {
            return Ok((suite, containerd));
        }
    }
    bail!("no containerd talks to kubelet {}.{}: {}", kubelet.0, kubelet.1, tried.join(", "))
}

/// Whether both know one version of the runtime interface: `v1` is known from kubelet 1.23 and containerd 1.6 on; kubelet 1.26 and
/// containerd 2.0 know nothing else.
fn talks(containerd: Version, kubelet: Version) -> bool {
    (containerd >= (1, 6) && kubelet >= (1, 23)) || (containerd < (2, 0) && kubelet < (1, 26))
}

/// The first number with a point in it, as in `Kubernetes v1.36.2` and `1.6.20~ds1-1`.
fn version(text: &str) -> Option<Version> {
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find(|word| word.contains('.'))?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_gets_a_containerd_that_talks_to_it() {
        for (containerd, kubelet, wanted) in [
            ("1.6.20~ds1-1+deb12u3", "Kubernetes v1.20.2", true),
            ("1.6.20~ds1-1+deb12u3", "Kubernetes v1.36.2", true),
            ("1.7.24~ds1-6", "Kubernetes v1.20.2", true),
            ("2.1.9-1", "Kubernetes v1.36.2", true),
            ("2.1.9-1", "Kubernetes v1.20.2", false),
            ("1.4.13~ds1-1", "Kubernetes v1.36.2", false),
        ] {
            let versions = [containerd, kubelet].map(|text| version(text).unwrap());
            assert_eq!(talks(versions[0], versions[1]), wanted, "{containerd}, {kubelet}");
        }
    }
}
