//! etcd and kube-apiserver from one Debian release: etcd as packed, kube-apiserver built from the source package with
//! the release's own Go, vendored modules only. No network but the distribution's archive.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::suite::Suite;
use crate::{say, tools};

/// The last release that packs Kubernetes' servers as source, and with them a Go that still builds them.
const SUITE: &str = "bookworm";

/// Unpacked below one root, not installed. rsync and its libraries are what Kubernetes' makefiles call.
const PACKAGES: &[&str] = &[
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-modern-go-reflect2-dev",
    "etcd-server",
    "rsync",
    "libpopt0",
    "libxxhash0",
];

/// What the build stamps into its binaries: the upstream release of the source package.
const VERSION: &str = "KUBE_GIT_COMMIT=faecb196815e248d3ecfb03c680a4507229c2a56
KUBE_GIT_TREE_STATE=archive
KUBE_GIT_VERSION=v1.20.2
KUBE_GIT_MAJOR=1
KUBE_GIT_MINOR=20
";

/// Builds below `work` (3.5 GB) and returns the directory that has `etcd` and `kube-apiserver`.
pub(crate) fn build(work: &Path) -> Result<PathBuf> {
    tools::ensure(&[&tools::DPKG_SOURCE, &tools::MAKE, &tools::JQ, &tools::XZ])?;
    let sh = Shell::new()?;
    sh.remove_path(work)?;
    for dir in ["bin", "built", "home"] {
        sh.create_dir(work.join(dir))?;
    }
    let root = work.join("root");
    let suite = Suite::open_with_sources(SUITE, &work.join("apt"))?;
    for package in PACKAGES {
        suite.unpack(package, &work.join("packages"), &root)?;
    }
    let kubernetes = work.join("go/src/k8s.io/kubernetes");
    sh.create_dir(work.join("go/src/k8s.io"))?;
    suite.unpack_source("kubernetes", &work.join("source"), &kubernetes)?;
    replace_reflect2(&sh, &root, &kubernetes)?;
    wrap_rsync(&sh, work, &root)?;

    let go = root.join("usr/lib/go-1.19");
    let path =
        format!("{}:{}:/usr/local/bin:/usr/bin:/bin", go.join("bin").display(), work.join("bin").display());
    sh.write_file(work.join("version"), VERSION)?;
    for (key, value) in [
        ("PATH", Path::new(&path)),
        ("GOROOT", &go),
        ("GOPATH", &work.join("go")),
        ("GOCACHE", &work.join("go-cache")),
        ("HOME", &work.join("home")),
        ("KUBE_GIT_VERSION_FILE", &work.join("version")),
    ] {
        sh.set_var(key, value);
    }
    for (key, value) in
        [("CGO_ENABLED", "0"), ("GOPROXY", "off"), ("GOSUMDB", "off"), ("GOTOOLCHAIN", "local")]
    {
        sh.set_var(key, value);
    }
    sh.change_dir(&kubernetes);
    say!("building kube-apiserver from Debian's source package: about 4 minutes on 2 CPUs");
    make(&sh, &["generated_files"])?;
    // Cloud providers are four fifths of the build and nothing that tests of ours meet.
    make(&sh, &["all", "WHAT=cmd/kube-apiserver", "GOLDFLAGS=-s -w", "GOFLAGS=-tags=providerless"])?;
    let built = work.join("built");
    sh.copy_file(kubernetes.join("_output/bin/kube-apiserver"), &built)?;
    sh.copy_file(root.join("usr/bin/etcd"), &built)?;
    Ok(built)
}

fn make(sh: &Shell, arguments: &[&str]) -> Result<()> {
    let output = cmd!(sh, "make {arguments...}").quiet().ignore_status().output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last: Vec<_> = text.lines().rev().take(30).collect();
    let last: Vec<_> = last.into_iter().rev().collect();
    anyhow::bail!("make {} ended with {}:\n{}", arguments.join(" "), output.status, last.join("\n"))
}

/// The vendored reflect2 1.0.1 reads internals of Go that 1.18 changed: the server dies at its first custom resource.
fn replace_reflect2(sh: &Shell, root: &Path, kubernetes: &Path) -> Result<()> {
    const PACKAGE: &str = "github.com/modern-go/reflect2";
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "go" || end == "s");
    let vendored = kubernetes.join("vendor").join(PACKAGE);
    for old in sh.read_dir(&vendored)?.into_iter().filter(is_source) {
        sh.remove_path(old)?;
    }
    let packed = root.join("usr/share/gocode/src").join(PACKAGE);
    for new in sh.read_dir(&packed)?.into_iter().filter(is_source) {
        if !new.to_string_lossy().ends_with("_test.go") {
            sh.copy_file(&new, &vendored)?;
        }
    }
    Ok(())
}

/// rsync finds its libraries below `root`, where nothing is installed.
fn wrap_rsync(sh: &Shell, work: &Path, root: &Path) -> Result<()> {
    let library = root.join("usr/lib/x86_64-linux-gnu");
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n",
        library.display(),
        root.join("usr/bin/rsync").display()
    );
    let path = work.join("bin/rsync");
    sh.write_file(&path, script)?;
    cmd!(sh, "chmod +x {path}").quiet().run().context("chmod")
}
