//! `cargo xtask`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use xtask_front::quiet;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if xtask_front::asks_for_help(&arguments) {
        // A closed pipe is no error.
        let _ = std::io::stdout().lock().write_all(xtask_front::help().as_bytes());
        return ExitCode::SUCCESS;
    }
    // Built into the same directory.
    let tasks = std::env::current_exe().ok().map(|front| front.with_file_name("xtask"));
    let is_built = tasks.as_ref().is_some_and(|tasks| tasks.exists());
    if !is_built {
        eprintln!("xtask: building the tasks first, a minute or two on two cores, once");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // As cargo says it now: a program that came along with a copied `target/` knows another checkout.
    let front = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = Path::new(&front).join("../../Cargo.toml");
    let began = xtask_front::milliseconds(std::time::SystemTime::now()).to_string();
    let mut build = Command::new(cargo);
    build.arg("build").args(xtask_front::quietly(is_built)).arg("--manifest-path").arg(manifest);
    build.args(["--package", "xtask"]).args(xtask_front::features(&arguments));
    match build_aloud(&mut build, is_built) {
        Ok(status) if status.success() => {}
        Ok(_) => return ExitCode::from(2),
        Err(error) => {
            eprintln!("xtask: cannot run cargo: {error}");
            return ExitCode::from(2);
        }
    }
    let Some(tasks) = tasks else {
        eprintln!("xtask: cannot tell where this program is");
        return ExitCode::from(2);
    };
    let error = Command::new(&tasks).env(xtask_front::BEGAN, began).args(arguments).exec();
    eprintln!("xtask: cannot run {}: {error}", tasks.display());
    ExitCode::from(2)
}

/// Builds the tasks; after a change that may take long, and cargo says nothing of it.
fn build_aloud(build: &mut Command, is_built: bool) -> std::io::Result<ExitStatus> {
    quiet::watch();
    quiet::said("building the tasks, which have changed");
    let _progress = (!is_built).then(quiet::hush);
    build.status()
}
