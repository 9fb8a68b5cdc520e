//! The kernel alone. It acts when DRAM is short, so a neighbour locks all free DRAM and as much again as the pod has cold.

use anyhow::Result;

use super::{Contender, Running};
use crate::guest::{FAST, Guest, Workload, node_memory, write_file};
use crate::scenarios::DEMOTION;

pub(super) const CONTENDER: Contender = Contender {
    name: "kernel",
    settings: "demotion_enabled 1; a neighbour takes all free DRAM and as much more as is cold",
    start: |guest, cold| {
        write_file(DEMOTION, "1")?;
        Ok(Running::Kernel(Some(short_of(guest, cold)?)))
    },
};

/// Takes DRAM until `bytes` of what others have must leave it.
pub(super) fn short_of(guest: &Guest, bytes: u64) -> Result<Workload> {
    let filler = guest.cgroup("/pods/filler")?;
    filler.write("cpuset.mems", FAST)?;
    let node = node_memory(FAST)?;
    // kswapd goes to sleep at the high watermark.
    let taken = (node.available().saturating_sub(node.high) + bytes) >> 20;
    guest.say(format_args!("a neighbour takes {taken} MiB of DRAM"));
    guest.spawn_workload(&filler, &format!("--region mlock:{taken}M"))
}
