//! Build tasks. `cargo xtask help` lists them.
#![forbid(unsafe_code)]

mod bench;
mod cluster;
mod codegen;
mod demo;
mod fuzz;
mod guest_image;
mod image;
mod interrupt;
mod kernels;
mod kube;
mod node;
mod qemu;
mod simulate;
mod static_build;
mod suite;
mod test;
mod tools;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Says on standard error what is going on.
macro_rules! say {
    ($($arg:tt)*) => { eprintln!("xtask: {}", format_args!($($arg)*)) };
}
/// Prints a line of the result. A closed pipe is no error.
macro_rules! out {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($arg)*);
    }};
}
pub(crate) use {out, say};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build tasks of Thermocline")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures on a real API server and prints a table
    Bench(bench::Args),
    /// An API server with our definitions, in the foreground, to try policies and the controller on
    Cluster,
    /// Writes the documentation that is made from the code
    Codegen(codegen::Args),
    /// Two pods in a virtual machine with two memory tiers, live: cold memory sinks, hot memory stays
    Demo(demo::Args),
    /// Feeds mutated kernel files, configurations and states to what reads them
    Fuzz(fuzz::Args),
    /// Finds or makes Kubernetes' servers, helm, kubectl and promtool, for tests
    Kube(kube::Args),
    /// The agent's and the controller's container images, as OCI archives
    Image(image::Args),
    /// A real Kubernetes node in a virtual machine with two memory tiers: pods, their annotations, and the agent
    Node(node::Args),
    /// The law on simulated hosts: a table of what must hold, and pictures
    Simulate(simulate::Args),
    /// Formatting, lints, unit tests, tests on API servers, fuzzing, then every scenario on every kernel
    Test(test::Args),
    /// One scenario on one kernel with two memory tiers, or a shell there
    Vm(vm::Args),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    match &cli.task {
        Task::Bench(args) => bench::run(args),
        Task::Cluster => cluster::run(),
        Task::Codegen(args) => codegen::run(args),
        Task::Demo(args) => demo::run(args),
        Task::Fuzz(args) => fuzz::run(args),
        Task::Kube(args) => kube::run(args),
        Task::Image(args) => image::run(args),
        Task::Node(args) => node::run(args),
        Task::Simulate(args) => simulate::run(args),
        Task::Test(args) => test::run(args),
        Task::Vm(args) => vm::run(args),
    }
}
