//! The `reclaim` engine: `memory.reclaim` while the kernel may demote.
//!
//! It needs no more than the cgroup's own files. It knows no ages: what is offered as cold is a small part of what the
//! kernel holds inactive, once per scan, as Senpai probes; the guards on stalls and on memory that comes back hold it.
//! The kernel takes from all nodes of the cgroup and would swap out what is on slow ones (measured on 6.12 and 7.2, whatever
//! the swappiness), so nothing is asked of a cgroup that may swap: see [`super::Engine::swaps_out`].

use std::collections::BTreeMap;
use std::time::Duration;

use host::probe::ProbeReport;
use host::reclaim::{ReclaimSwappiness, ReclaimSyntax, write_memory_reclaim};
use tiering::{Bytes, DemotionSupport};

use super::{EngineError, Found, Ground, Look, Moved, Order, anon_on, targets_allowed};
use crate::state::State;
use crate::tunables::DemotionWindow;
use std::os::fd::AsFd as _;

/// Bytes of one request: it can't be stopped half way but by a signal.
const STEP: Bytes = Bytes::mib(16);

/// One part in so many of the anonymous memory on fast nodes is offered per scan (TMO steps by at most 1 %).
const PROBE_PART: u64 = 64;

/// See the module.
#[derive(Debug)]
pub struct ReclaimEngine {
    swappiness: ReclaimSwappiness,
}

impl ReclaimEngine {
    /// The engine, or what is missing for it.
    pub fn new(probe: &ProbeReport, ground: &Ground) -> Result<Self, String> {
        if let DemotionSupport::AgentOnly { reason } = ground.tiers.demotion_support() {
            return Err(format!("the kernel demotes nothing here: {reason}"));
        }
        let swappiness =
            match probe.reclaim_syntax.filter(|_| probe.reclaim()).ok_or(
                "memory.reclaim or numa/demotion_enabled can't be used, see `thermocline-agent probe`",
            )? {
                ReclaimSyntax::Max => ReclaimSwappiness::Max,
                ReclaimSyntax::Number => ReclaimSwappiness::Number(200),
                ReclaimSyntax::BytesOnly => ReclaimSwappiness::Default,
            };
        Ok(Self { swappiness })
    }

    /// A small part of what the kernel holds inactive, offered as cold.
    pub fn look(&self, ground: &Ground, look: &Look<'_>) -> Result<Found, EngineError> {
        let (mut fast, mut inactive) = (Bytes::ZERO, Bytes::ZERO);
        for leaf in look.leaves {
            let stat = match leaf.read_memory_numa_stat() {
                Err(error) if error.is_gone() => continue,
                stat => stat?,
            };
            let Some(stat) = stat else { continue };
            let on_fast = |map: &BTreeMap<u32, u64>| {
                ground
                    .fast
                    .iter()
                    .filter_map(|node| map.get(&node.0))
                    .map(|bytes| Bytes(*bytes))
                    .sum::<Bytes>()
            };
            fast += on_fast(&stat.anon);
            inactive += on_fast(&stat.inactive_anon);
        }
        let offered = if look.walk { inactive.min(Bytes(fast.0 / PROBE_PART)) } else { Bytes::ZERO };
        Ok(Found {
            ages: vec![(Duration::MAX, offered), (Duration::ZERO, fast - offered)],
            slow_touched: look.walk.then_some(Bytes::ZERO),
            ..Found::default()
        })
    }

    /// Asks for what is wanted in steps.
    pub fn demote(&self, ground: &Ground, state: &mut State, order: Order<'_>) -> Result<Moved, EngineError> {
        if !targets_allowed(ground, order.allowed) {
            return Ok(Moved { bytes: Bytes::ZERO, failed: BTreeMap::from([("target_not_allowed", 1)]) });
        }
        let began = std::time::Instant::now();
        let before = anon_on(order.cgroup, &ground.slow)?;
        let window = DemotionWindow::open(&ground.roots, state)?;
        let mut asked = Bytes::ZERO;
        while asked < order.bytes && began.elapsed() < order.budget {
            let step = STEP.min(order.bytes - asked);
            write_memory_reclaim(order.cgroup.as_fd(), step.0, self.swappiness)?;
            asked += step;
        }
        drop(window);
        let bytes = anon_on(order.cgroup, &ground.slow)? - before;
        let stayed = (asked - bytes).0 / host::pages::page_size();
        let failed = if stayed > 0 { BTreeMap::from([("stayed", stayed)]) } else { BTreeMap::new() };
        Ok(Moved { bytes, failed })
    }
}
