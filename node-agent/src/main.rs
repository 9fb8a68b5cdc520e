//! Thermocline's node agent.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use host::cgroup::CgroupRoot;
use node_agent::args::Args;
use node_agent::commands;

fn main() -> ExitCode {
    host::malloc::one_arena();
    let Err(failure) = commands::dispatch(&Args::parse(), |mount| CgroupRoot::open(mount)) else {
        return ExitCode::SUCCESS;
    };
    // Nobody can be told that standard error is gone.
    let _ = writeln!(io::stderr(), "thermocline-agent: {failure}");
    failure.code().into()
}
