//! `cargo xtask bench`: programs that measure and print a table. Of the tests only as a smoke run: a number from a machine that does
//! other things at the same time proves nothing.

mod apps;
mod counter;
mod measurement;
mod misses;
mod peers;
mod picture;
mod servers;
mod spread;

use anyhow::Result;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// The controller in a large cluster: memory, cold start, writes per change
    Scale(servers::Args),
    /// From an annotation on a pod to its cgroup's file, at rest and while a thousand pods change
    Latency(servers::Args),
    /// The counter of misses against a known number of accesses, in a guest: about a minute
    Misses(misses::Args),
    /// Thermocline beside what else moves memory between tiers: one workload, one guest, one contender at a time
    Peers(peers::Args),
    /// Programs of Debian under load, a pod each: what is saved of their DRAM and what they pay
    Apps(apps::Args),
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    match &args.bench {
        Bench::Scale(args) => servers::run("scale", &[], args),
        // What the benchmark itself starts, beside the controller.
        Bench::Latency(args) => servers::run("latency", &["agent-on-files"], args),
        Bench::Misses(args) => misses::run(args),
        Bench::Peers(args) => peers::run(args),
        Bench::Apps(args) => apps::run(args),
    }
}

/// That what counts in guests counts right.
pub(crate) fn smoke() -> Result<bool> {
    misses::smoke()
}
