//! Other writers of the pods' files.

use std::time::Duration;

use anyhow::Result;

use super::policies::becomes;
use super::{MEMORY_HIGH, Subject};
use crate::guest::{Guest, Node};

/// Longer than kubelet takes to look at all its pods.
const LOOKS: Duration = Duration::from_secs(20);

/// As systemd does on a reload, someone writes what he thinks the value is.
pub(super) fn by_another(guest: &mut Guest, subject: &Subject) -> Result<()> {
    let ours = subject.cgroup.read(MEMORY_HIGH)?;
    subject.cgroup.write(MEMORY_HIGH, "max")?;
    becomes(guest, subject, "after another wrote it", &ours)
}

/// Kubelet starts again, and looks at all that it keeps.
pub(super) fn by_kubelet(guest: &mut Guest, node: &mut Node, subject: &Subject) -> Result<()> {
    let ours = subject.cgroup.read(MEMORY_HIGH)?;
    node.restart_kubelet(guest)?;
    guest.sleep(LOOKS);
    becomes(guest, subject, "after kubelet started again", &ours)
}
