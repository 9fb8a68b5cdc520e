//! All memory of a cgroup to another node, whatever its age: for a change of its tiers.

use std::time::Duration;

use host::cgroup::{Cgroup, CgroupId, charged_processes};
use tiering::{Bytes, Instant, NodeId};

use super::PagesEngine;
use super::mapping::{Mapping, Process, mapping, read_mappings};
use crate::engine::{EngineError, Ground, Moved, Order};

/// A pass that was not gone on with for so long knows nothing of what was mapped since, and begins anew.
const PASS_FOR: Duration = Duration::from_mins(1);

/// All memory of a cgroup looked at once, for a change of its tiers: in as many rounds as it takes.
#[derive(Debug)]
pub(super) struct Pass {
    from: NodeId,
    /// When it was gone on with.
    at: Instant,
    /// What is still to be looked at.
    pub(super) left: Vec<Mapping>,
    moved: Bytes,
}

/// What a step of a change of tiers came to.
#[derive(Debug)]
pub struct RelocationStep {
    /// What was moved.
    pub moved: Moved,
    /// All was looked at once more, and nothing of it could be moved.
    pub stuck: bool,
}

impl PagesEngine {
    /// Forgets how far the cgroup was looked at for a change of its tiers: it is over.
    pub fn end_relocation(&mut self, cgroup: CgroupId) {
        self.relocating.remove(&cgroup);
    }

    /// Moves anonymous memory of any age between nodes, for a change of the allowed tiers.
    pub fn relocate(
        &mut self,
        ground: &Ground,
        order: Order<'_>,
        now: Instant,
    ) -> Result<RelocationStep, EngineError> {
        self.refresh_pfns(ground, now);
        let id = order.cgroup.id();
        let from = order.from;
        let goes_on = |pass: &Pass| pass.from == from && now.since(pass.at) < PASS_FOR;
        let mut pass = match self.relocating.remove(&id).filter(goes_on) {
            Some(pass) => Pass { at: now, ..pass },
            None => Pass { from, at: now, left: everything(ground, order.leaves)?, moved: Bytes::ZERO },
        };
        let moved = self.move_mappings(ground, order, &mut pass.left);
        pass.moved += moved.bytes;
        pass.left.retain(|mapping| mapping.cursor < mapping.end);
        let stuck = pass.left.is_empty() && pass.moved.is_zero();
        if !pass.left.is_empty() {
            self.relocating.insert(id, pass);
        }
        Ok(RelocationStep { moved, stuck })
    }
}

/// Every mapping that may hold movable memory.
fn everything(ground: &Ground, leaves: &[Cgroup]) -> Result<Vec<Mapping>, EngineError> {
    let none = Instant::default();
    let mut all = Vec::new();
    for leaf in leaves {
        let pids = match charged_processes(leaf) {
            Err(error) if error.is_gone() => continue,
            pids => pids?,
        };
        for pid in pids {
            let proc = &ground.roots.proc;
            let (process, mappings) = match Process::of(proc, pid)
                .and_then(|process| Ok((process, read_mappings(proc, pid)?)))
            {
                Ok(known) => known,
                Err(error) => {
                    if !error.is_gone() {
                        tracing::warn!(cgroup = %leaf.path(), pid, %error, "can't be read; its memory moves with cpuset.mems");
                    }
                    continue;
                }
            };
            all.extend(mappings.map(|(vma, places)| mapping(process, &vma, &places, None, ground, none)));
        }
    }
    Ok(all)
}
