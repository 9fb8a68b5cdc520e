//! `cargo xtask bench`: programs that measure on a real API server and print a table. Never part of the tests: a number from a machine
//! that does other things at the same time proves nothing.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use crate::guest_image::root;
use crate::{kube, say};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which
    #[arg(value_enum)]
    name: Name,
    /// Passed on; `-- --help` lists what there is
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    /// The controller in a large cluster: memory, cold start, writes per change
    Scale,
    /// From an annotation on a pod to its cgroup's file, at rest and while a thousand pods change
    Latency,
}

impl Name {
    /// What the benchmark itself starts, beside the controller.
    fn beside(self) -> Option<&'static str> {
        match self {
            Self::Scale => None,
            Self::Latency => Some("agent-on-files"),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    kube::ensure()?;
    let name = args.name.to_possible_value().context("every benchmark has a name")?;
    say!("building the binaries and the benchmark, optimised as a release");
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "-p", "thermocline-controller", "-p", "cluster-tests"]);
    // Linking takes longer than all the rest: only what is run.
    for binary in ["thermocline-controller", name.get_name()].into_iter().chain(args.name.beside()) {
        build.args(["--bin", binary]);
    }
    if !build.current_dir(root()).status().context("cargo")?.success() {
        return Ok(false);
    }
    let binaries = root().join("target").join("release");
    let binaries = std::env::var_os("CARGO_TARGET_DIR")
        .map_or(binaries, |dir| std::path::Path::new(&dir).join("release"));
    let mut bench = Command::new(binaries.join(name.get_name()));
    bench.env("THERMOCLINE_CONTROLLER", binaries.join("thermocline-controller")).args(&args.rest);
    Ok(bench
        .current_dir(root())
        .status()
        .with_context(|| format!("cannot start {}", name.get_name()))?
        .success())
}
