//! The command-line tools that manifests are rendered and checked with.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

/// helm, kubectl or promtool, as `cargo xtask kube` left it in `target/tools`, or below `THERMOCLINE_KUBE_CACHE`.
///
/// # Errors
/// Where it is not there.
pub fn tool(name: &str) -> Result<PathBuf> {
    let cache =
        std::env::var_os("THERMOCLINE_KUBE_CACHE").map_or_else(|| root().join("target"), PathBuf::from);
    let path = cache.join("tools").join(name);
    ensure!(path.exists(), "{} is missing: run `cargo xtask kube`", path.display());
    Ok(path)
}

/// What a tool prints.
///
/// # Errors
/// Where it does not succeed, with what it says.
pub fn run<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(tool(name)?);
    // Of nobody's home: no plugins, no repositories, no cluster.
    let output = command
        .args(arguments)
        .current_dir(root())
        .env("HOME", "/nonexistent")
        .env_remove("KUBECONFIG")
        .output()
        .with_context(|| name.to_owned())?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
