//! Programs of the distribution that the tasks need, installed when missing.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use xtask_front::quiet;

use crate::say;

/// A program and the Debian package that has it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Unpacks the modules of newer kernels.
pub(crate) const XZ: Tool = Tool { program: "xz", package: "xz-utils" };
/// Compiles the fuzzer's runtime.
pub(crate) const CXX: Tool = Tool { program: "c++", package: "g++" };
/// Ties the emulator's life to ours.
pub(crate) const SETPRIV: Tool = Tool { program: "setpriv", package: "util-linux" };
/// Fetches packages of the Python registry.
pub(crate) const PIP: Tool = Tool { program: "pip3", package: "python3-pip" };
/// Unpacks source packages.
pub(crate) const DPKG_SOURCE: Tool = Tool { program: "dpkg-source", package: "dpkg-dev" };
/// Builds Kubernetes.
pub(crate) const MAKE: Tool = Tool { program: "make", package: "make" };
/// Kubernetes' makefiles call it.
pub(crate) const JQ: Tool = Tool { program: "jq", package: "jq" };

/// Links for arm64, and compiles the one dependency in C.
pub(crate) const ARM64_GCC: Tool =
    Tool { program: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" };
/// What it links statically; it comes with the compiler.
pub(crate) const ARM64_LIBC: Tool =
    Tool { program: "aarch64-linux-gnu-gcc", package: "libc6-dev-arm64-cross" };
/// A terminal for the tests of the live picture.
pub(crate) const TMUX: Tool = Tool { program: "tmux", package: "tmux" };
/// Builds the agent's package.
pub(crate) const DPKG_DEB: Tool = Tool { program: "dpkg-deb", package: "dpkg" };
/// Signs a release.
pub(crate) const GPG: Tool = Tool { program: "gpg", package: "gpg" };

impl Tool {
    fn is_present(&self) -> bool {
        is_on_path(self.program)
    }
}

/// Whether there is a program of that name.
pub(crate) fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Makes sure that every tool is there, installing what is missing in one go.
///
/// # Errors
/// When something is missing and may not be installed: the message has the command to run.
pub(crate) fn ensure(tools: &[&Tool]) -> Result<()> {
    let _apt = apt();
    let packages: Vec<_> = tools.iter().filter(|tool| !tool.is_present()).map(|tool| tool.package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    let by_hand =
        format!("sudo apt-get update && sudo apt-get install --no-install-recommends --no-remove {wanted}");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing: {wanted} (Debian package names), and this machine has no apt-get to install them with"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing: {wanted}. Installing needs root; run this, then try again:\n    {by_hand}");
    }
    say!("installing {wanted} with apt-get; no package is removed for it");
    // The lists of a fresh machine are empty or old; a failure here shows in the next step if it matters.
    let _ = apt_get(&["update", "-q"]);
    apt_get(&install(&packages)).with_context(|| {
        format!(
            "could not install {wanted} beside what is installed. If apt-get would have to remove a package for it, that is \
             yours to decide; see what it says to:\n    {by_hand}"
        )
    })
}

/// Never at the price of a package that is there: apt-get fails where it would have to remove one.
pub(crate) fn install<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends", "--no-remove"];
    arguments.extend(packages);
    arguments
}

/// Held by whoever has apt change or read this machine's packages: a second one beside it would fail on apt's own locks.
pub(crate) fn apt() -> MutexGuard<'static, ()> {
    static APT: Mutex<()> = Mutex::new(());
    APT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn apt_get(args: &[&str]) -> Result<()> {
    let _progress = quiet::talks();
    let status = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").status()?;
    if !status.success() {
        bail!("apt-get {} ended with {status}", args.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_package_is_removed_to_install_another() {
        assert!(super::install(&["xz-utils"]).contains(&"--no-remove"));
    }
}
