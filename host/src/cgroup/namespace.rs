//! Cgroup namespaces.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::sys;

/// Moves this thread, and those that it starts from then on, into the cgroup namespace of process 1; whether that is another.
///
/// A runtime gives a container a cgroup namespace of its own, unless it is privileged. From within, Linux 7.2 takes no command for
/// a pod in `lru_gen`: what it takes there for an id is a cgroup's, looked for below the namespace's top (`cgroup_get_from_id`).
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, or `CAP_SYS_PTRACE` to open the namespace.
pub fn enter_hosts_namespace(proc: &Path) -> io::Result<bool> {
    let hosts = File::open(proc.join("1/ns/cgroup"))?;
    if hosts.metadata()?.ino() == std::fs::metadata(proc.join("self/ns/cgroup"))?.ino() {
        return Ok(false);
    }
    sys::enter_cgroup_namespace(hosts.as_fd())?;
    Ok(true)
}
