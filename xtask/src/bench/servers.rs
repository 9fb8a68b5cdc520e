//! The benchmarks on a real API server, which are programs of their own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::guest_image::root;
use crate::{kube, say};

/// What goes on to the program.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on; `-- --help` lists what there is
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and runs one of that name; `beside` are binaries that it starts, besides the controller.
pub(super) fn run(name: &str, beside: &[&str], args: &Args) -> Result<bool> {
    kube::ensure()?;
    say!("building the binaries and the benchmark, optimised as a release");
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "-p", "thermocline-controller", "-p", "cluster-tests"]);
    // Linking takes longer than all the rest: only what is run.
    for binary in ["thermocline-controller", name].iter().chain(beside) {
        build.args(["--bin", binary]);
    }
    if !build.current_dir(root()).status().context("cargo")?.success() {
        return Ok(false);
    }
    let binaries = root().join("target").join("release");
    let binaries =
        std::env::var_os("CARGO_TARGET_DIR").map_or(binaries, |dir| Path::new(&dir).join("release"));
    let mut bench = Command::new(binaries.join(name));
    bench.env("THERMOCLINE_CONTROLLER", binaries.join("thermocline-controller")).args(&args.rest);
    let status = bench.current_dir(root()).status().with_context(|| format!("cannot start {name}"))?;
    Ok(status.success())
}
