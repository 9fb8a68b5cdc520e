//! The emulator itself: this machine's where it has one, else Debian's, unpacked and never installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::suite::Suite;
use crate::tools;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// Where Debian's packages have their libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// How QEMU is called.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    /// Root of the unpacked packages; `None`: what is on the `PATH`.
    unpacked: Option<PathBuf>,
}

impl Qemu {
    /// This machine's own, or what is unpacked in the cache, downloaded where it is not there yet. An installation would need root, and
    /// packages that are there may stand in its way.
    ///
    /// # Errors
    /// Without network, and where what was unpacked does not run.
    pub(crate) fn ensure(cache: &Path) -> Result<Self> {
        if tools::is_on_path(PROGRAM) {
            return Ok(Self { unpacked: None });
        }
        let root = cache.join("qemu");
        if !root.exists() {
            let work = cache.join("unpack/qemu");
            Suite::of_this_machine(cache)?.unpack_with_dependencies(PACKAGE, &work)?;
            let unpacked = Self { unpacked: Some(work.join("root")) };
            unpacked.version().context("what was unpacked of qemu-system-x86 does not run here")?;
            // Complete, or not there.
            std::fs::rename(work.join("root"), &root)?;
        }
        Ok(Self { unpacked: Some(root) })
    }

    /// Calls it by way of `before`, a program and its arguments that run what follows them.
    pub(crate) fn command_by(&self, before: &[&str]) -> Command {
        let program = match &self.unpacked {
            Some(root) => root.join("usr/bin").join(PROGRAM).into_os_string(),
            None => PROGRAM.into(),
        };
        let mut words = before.iter().map(OsString::from).chain([program]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        if let Some(root) = &self.unpacked {
            let libraries = LIBRARIES.map(|dir| root.join(dir).display().to_string()).join(":");
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// The first line of what it says of itself.
    pub(crate) fn version(&self) -> Result<String> {
        let output = self.command_by(&[]).arg("--version").output().context("QEMU")?;
        ensure!(output.status.success(), "QEMU: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }
}
