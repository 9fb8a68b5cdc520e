//! Build tasks. `cargo xtask help` lists them.
#![forbid(unsafe_code)]

mod attest;
mod bench;
mod cluster;
mod codegen;
mod demo;
#[cfg(test)]
mod docs;
mod fuzz;
mod guest_image;
mod image;
mod interrupt;
mod kernels;
mod kills;
mod kube;
mod machines;
mod node;
mod qemu;
mod release;
#[cfg(feature = "simulator")]
mod simulate;
mod static_build;
mod suite;
mod test;
mod tools;
mod vm;

/// `cargo xtask` builds the simulator for the tasks that need it.
#[cfg(not(feature = "simulator"))]
mod simulate {
    pub(crate) fn beside() -> anyhow::Result<bool> {
        anyhow::bail!("this xtask was built without the feature `simulator`")
    }
}

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Says on standard error what is going on.
macro_rules! say {
    ($($arg:tt)*) => {{
        let words = format!($($arg)*);
        eprintln!("xtask: {words}");
        xtask_front::quiet::said(&words);
    }};
}
/// Prints a line of the result. A closed pipe is no error.
macro_rules! out {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($arg)*);
        xtask_front::quiet::printed();
    }};
}
pub(crate) use {out, say};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build tasks of Thermocline")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// What each does is said in [`xtask_front::TASKS`].
#[derive(Subcommand)]
enum Task {
    Bench(bench::Args),
    Cluster,
    Codegen(codegen::Args),
    Demo(demo::Args),
    Fuzz(fuzz::Args),
    Kube(kube::Args),
    Image(image::Args),
    Kills(kills::Args),
    Node(node::Args),
    Release(release::Args),
    #[cfg(feature = "simulator")]
    Simulate(simulate::Args),
    Test(test::Args),
    Vm(vm::Args),
}

fn command() -> clap::Command {
    xtask_front::TASKS.iter().fold(Cli::command(), |command, (name, about)| {
        if command.find_subcommand(name).is_none() {
            return command;
        }
        command.mut_subcommand(name, |task| task.about(*about))
    })
}

fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    xtask_front::quiet::watch();
    match run(&cli) {
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
        Task::Kills(args) => kills::run(args),
        Task::Node(args) => node::run(args),
        Task::Release(args) => release::run(args),
        #[cfg(feature = "simulator")]
        Task::Simulate(args) => simulate::run(args),
        Task::Test(args) => test::run(args),
        Task::Vm(args) => vm::run(args),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_has_every_task() {
        let command = super::command();
        let tasks: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        let listed: Vec<_> = xtask_front::TASKS.iter().map(|(name, _)| *name).collect();
        assert_eq!(tasks, listed, "xtask/front/src/lib.rs lists the tasks");
        super::command().debug_assert();
    }
}
