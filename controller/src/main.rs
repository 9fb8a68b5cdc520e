//! Thermocline's cluster controller.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use controller::args::Args;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match controller::run::run(&Args::parse()).await {
        Ok(text) => {
            // A closed pipe is no error.
            let _ = io::stdout().write_all(text.unwrap_or_default().as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "thermocline-controller: {failure}");
            failure.code.into()
        }
    }
}
