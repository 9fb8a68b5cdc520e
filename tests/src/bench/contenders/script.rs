//! A contender that is a few lines of shell.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{POD, Running};
use crate::guest::Guest;

/// Runs it in a cgroup of its own, with the pod's cgroup as `$POD`.
pub(super) fn run(guest: &Guest, script: &str) -> Result<Running> {
    let cgroup = guest.cgroup("/contender")?;
    let child = Command::new("/bin/busybox")
        .args(["sh", "-c", script])
        .env("POD", POD)
        .env("PATH", "/bin")
        .stdin(Stdio::null())
        .spawn()
        .context("sh")?;
    cgroup.write("cgroup.procs", child.id())?;
    Ok(Running::Program(child, cgroup))
}
