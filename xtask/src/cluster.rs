//! `cargo xtask cluster`: an API server to try things on. And the tests that run on API servers, for `cargo xtask test`.

use std::process::Command;

use anyhow::{Context as _, Result};
use xtask_front::quiet;

use crate::guest_image::root;
use crate::kube::{self, Made};
use crate::say;

/// The tests that need crdserver, which no distribution packs.
const ON_CRDSERVER: &str = "crds";

/// Set, a missing crdserver fails the tests instead of leaving some out.
const REQUIRE_CRDSERVER: &str = "THERMOCLINE_REQUIRE_CRDSERVER";

pub(crate) fn run() -> Result<bool> {
    let made = kube::ensure()?;
    let kubeconfig = made.servers.join("kubeconfig");
    say!(
        "building what starts etcd and kube-apiserver, and the controller: the first time about eight minutes of CPU"
    );
    let mut build = Command::new("cargo");
    // Of the whole workspace: of one package alone it would build the dependencies again, with fewer features.
    build.args(["build", "--workspace", "--bin", "cluster", "--bin", "thermocline-controller"]);
    let progress = quiet::talks();
    if !build.current_dir(root()).status().context("cargo")?.success() {
        return Ok(false);
    }
    drop(progress);
    let mut cluster = Command::new(root().join("target/debug/cluster"));
    cluster.arg(kubeconfig);
    // Ctrl-C goes to the whole process group; this one stays until the servers are gone.
    crate::interrupt::check()?;
    let _servers_words = quiet::hush();
    Ok(cluster.current_dir(root()).status().context("cluster")?.success())
}

/// The tests on API servers that can run here.
pub(crate) struct Tests {
    /// For `cargo test`. It builds them as part of the whole workspace: of one package alone it would build the dependencies
    /// again, with fewer features.
    pub(crate) arguments: Vec<String>,
    /// What cannot run here, and why.
    pub(crate) left_out: Option<String>,
}

/// Of those in `tests/cluster/tests`, those whose servers are there.
pub(crate) fn tests(made: &Made) -> Result<Tests> {
    let crdserver = !made.missing.contains(&"crdserver") || std::env::var_os(REQUIRE_CRDSERVER).is_some();
    let mut arguments = vec!["--workspace".to_owned()];
    for entry in std::fs::read_dir(root().join("tests/cluster/tests"))? {
        let path = entry?.path();
        // A test is a file, or a directory with a main file.
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|name| crdserver || *name != ON_CRDSERVER) {
            arguments.extend(["--test".to_owned(), name]);
        }
    }
    let left_out = (!crdserver).then(|| {
        format!(
            "the tests `{ON_CRDSERVER}` (schemas and CEL rules on a current server): no crdserver here. \
             Where it must not be missing, set {REQUIRE_CRDSERVER}=1"
        )
    });
    Ok(Tests { arguments, left_out })
}
