//! A reader of a block device: page cache that comes at a pace.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Cgroup;

/// How a device is read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// MiB at a time.
    pub portion: u32,
    /// Between two portions.
    pub pause: Duration,
}

/// Reads a device from inside a cgroup, which is charged for the cache, in a loop, until this is dropped.
pub struct Reader(Child);

impl Reader {
    /// Starts it. The device has `mib` MiB and is held open, or the kernel would drop the cache between two portions.
    pub fn spawn(cgroup: &Cgroup, device: &Path, mib: u32, pace: Pace) -> Result<Self> {
        let Pace { portion, pause } = pace;
        let script = format!(
            "echo 0 > {}/cgroup.procs; exec 3< {device}; while :; do part=0; while [ $part -lt {} ]; do dd if={device} of=/dev/null \
             bs=1M count={portion} skip=$((part * {portion})) 2> /dev/null; usleep {}; part=$((part + 1)); done; done",
            cgroup.dir().display(),
            mib / portion,
            pause.as_micros(),
            device = device.display(),
        );
        let busybox = Command::new("/bin/busybox").args(["sh", "-c", &script]).stdin(Stdio::null()).spawn();
        busybox.map(Self).context("a reader")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
