//! Statically linked binaries: what guests boot and images hold.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::guest_image::root;

/// Static linking needs a target that is named: build scripts and macros are linked as usual.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How to build.
pub(crate) struct StaticBuild<'a> {
    /// A profile of the workspace's Cargo.toml.
    pub(crate) profile: &'a str,
    /// Its own target directory: other builds keep their cache.
    pub(crate) target_dir: PathBuf,
    /// Flags of the compiler besides static linking.
    pub(crate) flags: Vec<String>,
    /// Variables that the code asks for at build time.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl StaticBuild<'_> {
    /// Builds all binaries of the packages; returns the directory they are in.
    pub(crate) fn run(&self, packages: &[&str]) -> Result<PathBuf> {
        let sh = Shell::new()?;
        sh.change_dir(root());
        let flags: Vec<&str> = ["-C", "target-feature=+crt-static"]
            .into_iter()
            .chain(self.flags.iter().map(String::as_str))
            .collect();
        // Unlike RUSTFLAGS this one survives spaces in paths.
        sh.set_var("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        for (name, value) in &self.env {
            sh.set_var(name, value);
        }
        // A first build takes minutes: cargo shows its progress where somebody looks.
        let quiet: &[&str] = if std::io::stderr().is_terminal() { &[] } else { &["--quiet"] };
        let packages = packages.iter().flat_map(|&package| ["-p", package]);
        let (profile, target_dir) = (self.profile, &self.target_dir);
        cmd!(sh, "cargo build {quiet...} --locked --profile {profile} --target {TARGET} --target-dir {target_dir} --bins {packages...}")
            .quiet()
            .run()
            .context("the static binaries do not build")?;
        Ok(self.target_dir.join(TARGET).join(self.profile))
    }
}

/// Whether the file is there and asks for no dynamic loader.
pub(crate) fn is_static(path: &Path) -> bool {
    let loader = b"/lib64/ld-linux";
    std::fs::read(path).is_ok_and(|bytes| !bytes.windows(loader.len()).any(|window| window == loader))
}

/// The content of a static binary.
pub(crate) fn read_static(path: &Path) -> Result<Vec<u8>> {
    ensure!(is_static(path), "{} is missing or not static", path.display());
    Ok(std::fs::read(path)?)
}
