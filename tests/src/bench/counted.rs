//! The counter's own proof: accesses of which the number is known.

use std::path::Path;

use anyhow::{Context as _, Result};
use host::generator::{Backing, HugePages, Mapping};
use host::pages::numa_maps::read_numa_maps;
use misses::LINE;
use misses::line::Counts;

use super::doorbell::Doorbell;
use super::told::Told;
use crate::guest::{FAST, Guest, SLOW, console};
use crate::report::Verdict;

/// Greater than any cache that is asked for.
const STREAMED: usize = 16 << 20;
/// Smaller than any.
const RESIDENT: usize = 256 << 10;
const PASSES: u64 = 40;
const PAGE: u64 = 4096;

pub(super) fn run(guest: &mut Guest) -> Result<Verdict> {
    enter(guest, FAST)?;
    let slots = [mapped(0, STREAMED)?, mapped(1, STREAMED)?, mapped(2, RESIDENT)?];
    let mut doorbell = Doorbell::new()?;
    doorbell.start();
    for _ in 0..3 {
        pass(&slots[0], STREAMED, false);
    }
    // All memory goes along to the next node.
    let streamed_on_slow = on_slow(0)?;
    enter(guest, SLOW)?;
    pass(&slots[1], STREAMED, true);
    pass(&slots[1], STREAMED, false);
    for _ in 0..PASSES {
        pass(&slots[2], RESIDENT, false);
    }
    doorbell.end();
    let [streamed, resident] = [STREAMED, RESIDENT].map(|bytes| bytes as u64 / LINE);
    let expected = [
        (Counts { loads: 3 * streamed, stores: 0, fast: 3 * streamed, slow: 0 }, "streamed from DRAM"),
        (
            Counts { loads: streamed, stores: streamed, fast: 0, slow: 2 * streamed },
            "streamed to and from the slow node",
        ),
        (
            Counts { loads: PASSES * resident, stores: 0, fast: 0, slow: resident },
            "in the cache after a pass",
        ),
    ];
    for (slot, (counts, about)) in expected.into_iter().enumerate() {
        console(&Told::Expected { slot, counts, about: about.to_owned() }.render());
    }
    // Where they were made to.
    guest.equal("pages of the first slot on the slow node", streamed_on_slow, &0);
    guest.equal("pages of the second", on_slow(1)?, &(STREAMED as u64 / PAGE));
    Ok(guest.verdict())
}

/// All memory of this process is on that node from here on: the kernel moves what is not.
fn enter(guest: &Guest, node: usize) -> Result<()> {
    let cgroup = guest.cgroup(&format!("/counted-{node}"))?;
    cgroup.write("cpuset.mems", node)?;
    cgroup.write("cgroup.procs", std::process::id())
}

/// Pages of a slot on the slow node.
fn on_slow(slot: u64) -> Result<u64> {
    let pid = i32::try_from(std::process::id())?;
    let by_mapping = read_numa_maps(Path::new("/proc"), pid)?;
    let by_node = by_mapping.get(&misses::slot_address(slot)).context("a slot is a mapping")?;
    Ok(by_node.get(&u32::try_from(SLOW)?).copied().unwrap_or(0))
}

/// Populated memory in a slot.
fn mapped(slot: u64, bytes: usize) -> Result<Mapping> {
    let address = usize::try_from(misses::slot_address(slot))?;
    let mapping = Mapping::at(address, bytes, Backing::Private, HugePages::Never).context("slot")?;
    pass(&mapping, bytes, true);
    Ok(mapping)
}

/// One access to each line.
fn pass(mapping: &Mapping, bytes: usize, write: bool) {
    for offset in (0..bytes).step_by(64) {
        if write {
            mapping.write(offset, 1);
        } else {
            let _ = mapping.read(offset);
        }
    }
}
