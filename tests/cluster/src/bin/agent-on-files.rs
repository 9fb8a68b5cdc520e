//! The node agent on a tree of plain files in the place of a cgroup2 mount, which no test may need a machine of its own for. All
//! else is the agent's: what it does to real cgroups is shown in virtual machines.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use host::cgroup::CgroupRoot;
use node_agent::args::Args;
use node_agent::commands;

fn main() -> ExitCode {
    let Err(failure) = commands::dispatch(&Args::parse(), |mount| CgroupRoot::open_unchecked(mount)) else {
        return ExitCode::SUCCESS;
    };
    // Nobody can be told that standard error is gone.
    let _ = writeln!(std::io::stderr(), "thermocline-agent: {failure}");
    failure.code().into()
}
