//! The `reclaim` engine: `memory.reclaim` while the kernel may demote.
//!
//! It needs no more than the cgroup's own files. It knows no ages: what is offered as cold is a small part of what the
//! kernel holds inactive, once per scan, as Senpai probes; the guards on stalls and on memory that comes back hold it.
//! The kernel takes from all nodes of the cgroup and would swap out what is on slow ones (measured on 6.12 and 7.2, whatever
//! the swappiness), so nothing is asked of a cgroup that may swap: see [`super::Engine::swaps_out`].

use std::collections::BTreeMap;
use std::time::Duration;

use host::cgroup::Cgroup;
use host::probe::ProbeReport;
use host::reclaim::{ReclaimSwappiness, ReclaimSyntax, write_memory_reclaim};
use tiering::{Bytes, DemotionSupport, NodeSet};

use super::{EngineError, Found, Ground, Look, Moved, Order, targets_allowed};
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
        let mut ages = BTreeMap::new();
        for node in ground.fast.iter() {
            let on_node = NodeSet::from_iter([node]);
            let (mut fast, mut inactive) = (Bytes::ZERO, Bytes::ZERO);
            for leaf in look.leaves {
                let split = split(ground, &on_node, leaf)?;
                fast += split.fast;
                inactive += split.fast_inactive;
            }
            let offered = if look.walk { inactive.min(Bytes(fast.0 / PROBE_PART)) } else { Bytes::ZERO };
            ages.insert(node, vec![(Duration::MAX, offered), (Duration::ZERO, fast - offered)]);
        }
        let touched = ground.slow.iter().map(|node| (node, Bytes::ZERO)).collect();
        Ok(Found { ages, walked: look.walk, aged: look.walk, touched, blind: true, ..Found::default() })
    }

    /// Asks for what is wanted in steps, of each leaf as much as its part of the memory on fast nodes. The cgroup as a whole is not
    /// asked: the kernel would take from what is apart in it, too.
    pub fn demote(&self, ground: &Ground, state: &mut State, order: Order<'_>) -> Result<Moved, EngineError> {
        if !targets_allowed(ground, order.allowed, order.from) {
            return Ok(Moved::refused("target_not_allowed"));
        }
        let began = std::time::Instant::now();
        let mut shares = shares(ground, order)?;
        // Where time runs out, the most was asked for.
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        let window = DemotionWindow::open(&ground.roots, state)?;
        let mut asked = Bytes::ZERO;
        for share in &shares {
            let mut left = share.bytes;
            while !left.is_zero() && began.elapsed() < order.budget {
                let step = STEP.min(left);
                match write_memory_reclaim(share.leaf.as_fd(), step.0, self.swappiness) {
                    Err(error) if error.is_gone() => break,
                    reclaimed => drop(reclaimed?),
                }
                asked += step;
                left -= step;
            }
        }
        drop(window);
        let mut bytes = Bytes::ZERO;
        for share in &shares {
            bytes += split(ground, &ground.fast, share.leaf)?.slow - share.before;
        }
        let stayed = (asked - bytes).0 / host::pages::page_size();
        let failed = if stayed > 0 { BTreeMap::from([("stayed", stayed)]) } else { BTreeMap::new() };
        Ok(Moved { bytes, tried: asked, failed, walked: false })
    }
}

/// Anonymous memory of a leaf.
#[derive(Clone, Copy, Debug, Default)]
struct Split {
    fast: Bytes,
    fast_inactive: Bytes,
    slow: Bytes,
}

/// Where the memory of a leaf is: nowhere once it is gone, or where it is charged to a cgroup above.
fn split(ground: &Ground, fast: &NodeSet, leaf: &Cgroup) -> host::Result<Split> {
    let stat = match leaf.read_memory_numa_stat() {
        Err(error) if error.is_gone() => None,
        stat => stat?,
    };
    let Some(stat) = stat else { return Ok(Split::default()) };
    let on = |nodes: &NodeSet, map: &BTreeMap<u32, u64>| {
        nodes.iter().filter_map(|node| map.get(&node.0)).map(|bytes| Bytes(*bytes)).sum()
    };
    Ok(Split {
        fast: on(fast, &stat.anon),
        fast_inactive: on(fast, &stat.inactive_anon),
        slow: on(&ground.slow, &stat.anon),
    })
}

/// What is asked of one leaf.
#[derive(Clone, Copy, Debug)]
struct Share<'a> {
    leaf: &'a Cgroup,
    bytes: Bytes,
    /// On slow nodes before.
    before: Bytes,
}

/// What is asked for, by what each leaf has on fast nodes.
fn shares<'a>(ground: &Ground, order: Order<'a>) -> host::Result<Vec<Share<'a>>> {
    let from = NodeSet::from_iter([order.from]);
    let mut splits = Vec::new();
    for leaf in order.leaves {
        splits.push((leaf, split(ground, &from, leaf)?));
    }
    let mut fast: Bytes = splits.iter().map(|(_, split)| split.fast).sum();
    let mut left = order.bytes;
    let share = |(leaf, split): (&'a Cgroup, Split)| {
        let bytes = u128::from(left.0) * u128::from(split.fast.0) / u128::from(fast.0.max(1));
        let bytes = Bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
        left -= bytes;
        fast -= split.fast;
        Share { leaf, bytes, before: split.slow }
    };
    Ok(splits.into_iter().map(share).filter(|share| !share.bytes.is_zero()).collect())
}

#[cfg(test)]
mod tests {
    use tiering::NodeId;

    use super::*;
    use crate::engine::fixture::{cgroup, ground, write};

    #[test]
    fn each_leaf_is_asked_for_its_part_and_the_cgroup_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = |name: &str, fast: u64| {
            let file = |file: &str| format!("cgroup/pod/{name}/{file}");
            let stat = format!("anon N0={} N1=0\n", fast << 20);
            write(dir.path(), &[(&file("memory.numa_stat"), &stat), (&file("memory.reclaim"), "")]);
            cgroup(dir.path(), &format!("/pod/{name}"))
        };
        let leaves = [leaf("a", 30), leaf("b", 10), leaf("c", 0)];
        leaf("apart", 100);
        write(
            dir.path(),
            &[("cgroup/pod/memory.reclaim", ""), ("sys/kernel/mm/numa/demotion_enabled", "true\n")],
        );
        let (pod, ground) = (cgroup(dir.path(), "/pod"), ground(dir.path()));
        let mut state = State::open(&dir.path().join("state"), "boot").unwrap();
        let order = Order {
            cgroup: &pod,
            leaves: &leaves,
            allowed: ground.tiers.nodes(),
            from: NodeId(0),
            to: &[NodeId(1)],
            bytes: Bytes::mib(8),
            age: Duration::ZERO,
            is_urgent: false,
            budget: Duration::from_mins(1),
        };
        let engine = ReclaimEngine { swappiness: ReclaimSwappiness::Default };
        engine.demote(&ground, &mut state, order).unwrap();
        let asked = ["a/", "b/", "c/", "apart/", ""].map(|place| {
            let path = dir.path().join(format!("cgroup/pod/{place}memory.reclaim"));
            std::fs::read_to_string(path).unwrap()
        });
        assert_eq!(asked, [&(6_u64 << 20).to_string(), &(2_u64 << 20).to_string(), "", "", ""]);
    }
}
