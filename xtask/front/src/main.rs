//! `cargo xtask`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if xtask_front::asks_for_help(&arguments) {
        // A closed pipe is no error.
        let _ = std::io::stdout().lock().write_all(xtask_front::help().as_bytes());
        return ExitCode::SUCCESS;
    }
    let is_built = std::env::current_exe().is_ok_and(|front| front.with_file_name("xtask").exists());
    if !is_built {
        eprintln!("xtask: building the tasks first, about two minutes on two cores, once");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // As cargo says it now: a program that came along with a copied `target/` knows another checkout.
    let front = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = Path::new(&front).join("../../Cargo.toml");
    let mut run = Command::new(cargo);
    run.env(xtask_front::BEGAN, xtask_front::milliseconds(std::time::SystemTime::now()).to_string());
    run.arg("run")
        .args(xtask_front::quietly(is_built))
        .arg("--manifest-path")
        .arg(manifest)
        .args(["--package", "xtask", "--"])
        .args(arguments);
    let error = run.exec();
    eprintln!("xtask: cannot run cargo: {error}");
    ExitCode::from(2)
}
