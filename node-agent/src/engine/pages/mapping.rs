//! Mappings of processes: what is known of each, and how it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use host::pages::maps::{Vma, read_smaps};
use host::pages::numa_maps::read_numa_maps;
use host::pages::page_size;
use host::proc::read_start_time;
use tiering::{Bytes, Instant, NodeId, NodeSet};

use crate::engine::Ground;

/// What can't be moved is offered again after this long: a child that shared it may have ended.
const STUCK_FOR: Duration = Duration::from_mins(10);

/// A process: pids are used again, a pid and its start time are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) pid: i32,
    start_time: u64,
}

impl Process {
    /// The process that has this pid now.
    pub(super) fn of(proc: &Path, pid: i32) -> host::Result<Self> {
        Ok(Self { pid, start_time: read_start_time(proc, pid)? })
    }

    /// Whether it still has its pid, as far as can be told. Once it ended, another's process may have it.
    pub(super) fn lives(self, proc: &Path) -> bool {
        Self::of(proc, self.pid).is_ok_and(|now| now == self)
    }
}

/// What is known of one mapping.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) process: Process,
    pub(super) start: u64,
    pub(super) end: u64,
    /// No access is known since.
    pub(super) idle_since: Instant,
    /// Walks on end that found it accessed.
    pub(super) hot_walks: u32,
    pub(super) referenced: Bytes,
    /// By node, less what of the fast nodes was given up by `MADV_FREE`.
    pub(super) places: Vec<(NodeId, Bytes)>,
    /// Since the last walk its pages were looked at up to here.
    pub(super) cursor: u64,
    /// What of it, up to the cursor, could be moved.
    pub(super) found: Bytes,
    /// Since the last walk it was touched by our own move: who else accessed it is not known until the next.
    pub(super) touched: bool,
    /// When all of it was looked at page by page and none could be moved: shared with a child, say.
    pub(super) stuck: Option<Instant>,
}

impl Mapping {
    /// What it has on these nodes.
    pub(super) fn on(&self, nodes: &NodeSet) -> Bytes {
        self.places.iter().filter(|(node, _)| nodes.contains(*node)).map(|(_, bytes)| *bytes).sum()
    }

    /// Whether something of it may be moved, as far as is known.
    pub(super) fn may_move(&self, now: Instant) -> bool {
        let stuck = self.stuck.is_some_and(|looked| now.since(looked) < STUCK_FOR);
        !stuck && self.cursor < self.end
    }

    /// What may be moved away from a node, as far as is known.
    pub(super) fn movable(&self, from: NodeId, now: Instant) -> Bytes {
        if self.may_move(now) { self.on(&NodeSet::from_iter([from])) } else { Bytes::ZERO }
    }
}

/// Mappings of a process that may hold movable memory, and their pages by node.
pub(super) fn read_mappings(
    proc: &Path,
    pid: i32,
) -> host::Result<impl Iterator<Item = (Vma, BTreeMap<u32, u64>)> + use<>> {
    let mut places = read_numa_maps(proc, pid)?;
    let vmas = read_smaps(proc, pid)?.into_iter().filter(Vma::may_hold_movable);
    Ok(vmas.filter_map(move |vma| places.remove(&vma.start).map(|places| (vma, places))))
}

/// One mapping after a walk.
pub(super) fn mapping(
    process: Process,
    vma: &Vma,
    places: &BTreeMap<u32, u64>,
    known: Option<&Mapping>,
    ground: &Ground,
    now: Instant,
) -> Mapping {
    let mut lazyfree = Bytes(vma.lazyfree.unwrap_or(0));
    let of_node = |(node, pages): (&u32, &u64)| {
        let (node, mut bytes) = (NodeId(*node), Bytes(pages.saturating_mul(page_size())));
        if ground.fast.contains(node) {
            let given_up = lazyfree.min(bytes);
            (bytes, lazyfree) = (bytes - given_up, lazyfree - given_up);
        }
        (node, bytes)
    };
    let places = places.iter().map(of_node).filter(|(_, bytes)| !bytes.is_zero()).collect();
    // A mapping that moved or grew since is as good as new.
    let known = known.filter(|known| known.end == vma.end);
    let by_us = known.is_some_and(|known| known.touched);
    let referenced = if by_us { Bytes::ZERO } else { Bytes(vma.referenced.unwrap_or(0)) };
    let (idle_since, hot_walks) = match known {
        Some(known) if referenced.is_zero() => (known.idle_since, 0),
        Some(known) => (now, known.hot_walks.saturating_add(1)),
        None => (now, u32::from(!referenced.is_zero())),
    };
    Mapping {
        process,
        start: vma.start,
        end: vma.end,
        idle_since,
        hot_walks,
        referenced,
        places,
        cursor: vma.start,
        found: Bytes::ZERO,
        touched: false,
        stuck: known.filter(|_| referenced.is_zero()).and_then(|known| known.stuck),
    }
}

/// Of these mappings, those that were not accessed since the last walk. What can't be read is not among them.
pub(super) fn still_idle(ground: &Ground, mappings: &[Mapping]) -> BTreeSet<(Process, u64)> {
    let mut idle = BTreeSet::new();
    let processes: BTreeSet<Process> = mappings.iter().map(|mapping| mapping.process).collect();
    for process in processes {
        let vmas = read_smaps(&ground.roots.proc, process.pid).unwrap_or_default();
        idle.extend(vmas.iter().filter(|vma| vma.referenced == Some(0)).map(|vma| (process, vma.start)));
    }
    idle
}
