//! `cpuset.mems`, step by step on simulated nodes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tiering::retier::{NARROW_REST, Placement, Step, step};
use tiering::{Bytes, NodeId, NodeSet};

#[derive(Clone, Debug)]
struct Host {
    placement: Placement,
    /// Most bytes moved in one step.
    cap: Bytes,
}

impl Host {
    /// Does as told; what can't happen on a real host fails the test.
    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Settled | Step::Refuse(_) => {}
            Step::Widen(nodes) => {
                prop_assert!(self.placement.allowed.is_subset(nodes), "widened to less");
                self.placement.allowed = nodes.clone();
            }
            Step::Move { from, to, bytes } => {
                prop_assert!(self.placement.allowed.contains(*to), "moved outside the allowed nodes");
                prop_assert!(!bytes.is_zero());
                let bytes = (*bytes).min(self.cap);
                let room = self.placement.room.entry(*to).or_default();
                prop_assert!(*room >= bytes, "moved {bytes} into {room}");
                *room -= bytes;
                for by_node in [&mut self.placement.resident, &mut self.placement.movable] {
                    *by_node.entry(*from).or_default() -= bytes;
                    *by_node.entry(*to).or_default() += bytes;
                }
                *self.placement.room.entry(*from).or_default() += bytes;
            }
            Step::Narrow(nodes) => {
                let old = self.placement.allowed.difference(nodes);
                let rest: Bytes =
                    old.iter().filter_map(|node| self.placement.resident.get(&node)).copied().sum();
                let room: Bytes =
                    nodes.iter().filter_map(|node| self.placement.room.get(&node)).copied().sum();
                prop_assert!(old.is_empty() || room > rest, "narrowed to {room} with {rest} outside");
                self.placement.allowed = nodes.clone();
            }
        }
        Ok(())
    }
}

fn by_node(max_mib: u64) -> impl Strategy<Value = BTreeMap<NodeId, Bytes>> {
    prop::collection::btree_map((0_u32..5).prop_map(NodeId), (0..max_mib).prop_map(Bytes::mib), 0..5)
}

fn node_set(least: usize) -> impl Strategy<Value = NodeSet> {
    prop::collection::btree_set(0_u32..5, least..5).prop_map(|nodes| nodes.into_iter().collect())
}

fn host() -> impl Strategy<Value = Host> {
    (node_set(1), by_node(500), by_node(100), by_node(2000), node_set(0), 1_u64..64).prop_map(
        |(allowed, movable, pinned, room, kernel, cap_mib)| {
            let mut resident = movable.clone();
            for (node, bytes) in pinned {
                *resident.entry(node).or_default() += bytes;
            }
            let placement = Placement { allowed, resident, movable, room, kernel };
            Host { placement, cap: Bytes::mib(cap_mib) }
        },
    )
}

proptest! {
    #[test]
    fn it_ends_settled_or_refused(mut host in host(), wanted in node_set(0)) {
        let mut narrowed = 0;
        for round in 0.. {
            prop_assert!(round < 5000, "it never ends: {host:?}");
            let next = step(&wanted, &host.placement);
            match next {
                Step::Settled => {
                    prop_assert_eq!(&host.placement.allowed, &wanted);
                    break;
                }
                Step::Refuse(_) => {
                    prop_assert_eq!(round, 0, "refused after it had begun");
                    break;
                }
                Step::Narrow(_) => narrowed += 1,
                _ => {}
            }
            host.apply(&next)?;
        }
        prop_assert!(narrowed <= 1);
    }

    #[test]
    fn the_kernel_always_has_a_node_to_allocate_from(mut host in host(), wanted in node_set(1)) {
        loop {
            let next = step(&wanted, &host.placement);
            match &next {
                Step::Settled | Step::Refuse(_) => break,
                Step::Widen(nodes) | Step::Narrow(nodes) => {
                    prop_assert!(!nodes.intersection(&host.placement.kernel).is_empty(), "{nodes} alone");
                }
                Step::Move { .. } => {}
            }
            host.apply(&next)?;
        }
    }

    #[test]
    fn little_is_left_to_narrowing(mut host in host(), wanted in node_set(1)) {
        loop {
            let next = step(&wanted, &host.placement);
            if let Step::Narrow(nodes) = &next {
                let outside: Bytes = host
                    .placement
                    .movable
                    .iter()
                    .filter(|(node, _)| !nodes.contains(**node))
                    .map(|(_, bytes)| *bytes)
                    .sum();
                prop_assert!(outside <= NARROW_REST);
            }
            if matches!(next, Step::Settled | Step::Refuse(_)) {
                break;
            }
            host.apply(&next)?;
        }
    }
}
