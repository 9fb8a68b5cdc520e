//! Statically linked binaries: what guests boot and images hold.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};
use xtask_front::quiet;

use crate::guest_image::root;
use crate::{say, tools};

/// What a binary runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub(crate) const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// As Debian and container registries call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As rustc does. Static linking needs a target that is named: build scripts and macros are linked as usual.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Makes sure of a standard library, a C library and a linker for it.
    ///
    /// # Errors
    /// When something is missing and can't be installed.
    pub(crate) fn ensure_toolchain(self) -> Result<()> {
        if self == Self::Amd64 {
            return Ok(());
        }
        tools::ensure(&[&tools::ARM64_GCC, &tools::ARM64_LIBC])?;
        let sh = Shell::new()?;
        sh.change_dir(root());
        let target = self.target();
        let libraries = cmd!(sh, "rustc --print target-libdir --target {target}").quiet().read()?;
        if Path::new(&libraries).exists() {
            return Ok(());
        }
        say!("downloading the standard library for {target} (rustup target add)");
        if cmd!(sh, "rustup target add {target}").quiet().run().is_err() {
            bail!(
                "the standard library for {target} is not to be had: `rustup target add {target}` says why"
            );
        }
        Ok(())
    }
}

/// How to build.
pub(crate) struct StaticBuild<'a> {
    /// What for.
    pub(crate) arch: Arch,
    /// A profile of the workspace's Cargo.toml.
    pub(crate) profile: &'a str,
    /// Whether with the packages' default features.
    pub(crate) default_features: bool,
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
        sh.set_var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", tools::ARM64_GCC.program);
        for (name, value) in &self.env {
            sh.set_var(name, value);
        }
        // A first build takes minutes: cargo shows its progress where somebody looks.
        let quiet: &[&str] = if std::io::stderr().is_terminal() { &[] } else { &["--quiet"] };
        let features: &[&str] = if self.default_features { &[] } else { &["--no-default-features"] };
        let packages = packages.iter().flat_map(|&package| ["-p", package]);
        let _progress = quiet::talks();
        let (target, profile, target_dir) = (self.arch.target(), self.profile, &self.target_dir);
        cmd!(sh, "cargo build {quiet...} --locked --profile {profile} --target {target} --target-dir {target_dir} --bins {features...} {packages...}")
            .quiet()
            .run()
            .context("the static binaries do not build")?;
        Ok(self.target_dir.join(target).join(self.profile))
    }
}

/// Whether the file is there and asks for no dynamic loader.
pub(crate) fn is_static(path: &Path) -> bool {
    let loaders: [&[u8]; 2] = [b"/lib64/ld-linux", b"/lib/ld-linux"];
    let has = |bytes: &[u8], loader: &[u8]| bytes.windows(loader.len()).any(|window| window == loader);
    std::fs::read(path).is_ok_and(|bytes| !loaders.iter().any(|loader| has(&bytes, loader)))
}

/// The content of a static binary.
pub(crate) fn read_static(path: &Path) -> Result<Vec<u8>> {
    ensure!(is_static(path), "{} is missing or not static", path.display());
    Ok(std::fs::read(path)?)
}
