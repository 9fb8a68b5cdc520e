//! From the tiers that a policy allows to `cpuset.mems`, without moving everything at once.
//!
//! A write of `cpuset.mems` migrates synchronously, hot memory too, swallows errors where the target is full, and a
//! cgroup bound to a full node is killed for lack of memory although others are empty (measured). So: widen to the
//! union, move at the rate cap, and narrow when what is left outside is little. Where the wanted nodes lack room,
//! refuse and leave things as they are.
//!
//! Nodes of movable memory alone are refused, too: what the kernel allocates for a process and can't move, such as the
//! buffers of its pipes, must come from the nodes of its cpuset, and there it finds none (measured: `ENOMEM`).

use alloc::collections::BTreeMap;
use core::fmt;

use crate::node::{NodeId, NodeSet};
use crate::units::Bytes;

/// The cgroup and its nodes now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// `cpuset.mems.effective`.
    pub allowed: NodeSet,
    /// All its memory by node that moves with `cpuset.mems`.
    pub resident: BTreeMap<NodeId, Bytes>,
    /// Of that, what the agent can move ahead at its own rate. What refused to move in the rounds before is left out by
    /// the caller, else there is no end.
    pub movable: BTreeMap<NodeId, Bytes>,
    /// Free memory above the watermarks, by node.
    pub room: BTreeMap<NodeId, Bytes>,
    /// Nodes with memory that the kernel may use for itself.
    pub kernel: NodeSet,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `cpuset.mems` is as wanted.
    Settled,
    /// Write this larger set, so that memory may be moved.
    Widen(NodeSet),
    /// Move this much from one node to the others.
    Move {
        /// From this node outside the wanted set.
        from: NodeId,
        /// To this node inside it.
        to: NodeId,
        /// This much at the most.
        bytes: Bytes,
    },
    /// Write the wanted set; what is left outside moves with it.
    Narrow(NodeSet),
    /// The wanted nodes lack room, or can't serve alone: nothing is changed, or what was widened is put back.
    Refuse(Refusal),
}

/// Why a set of nodes is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The wanted nodes have less room than the memory outside them needs.
    NoRoom {
        /// What must move.
        need: Bytes,
        /// What is free above the watermarks.
        room: Bytes,
    },
    /// The host has no such node.
    NoNodes,
    /// The wanted nodes have movable memory alone.
    MovableOnly {
        /// Nodes of the wanted tiers.
        wanted: NodeSet,
    },
    /// The parent may use none of them.
    OutsideParent {
        /// Nodes of the wanted tiers.
        wanted: NodeSet,
        /// The parent's `cpuset.mems.effective`.
        parent: NodeSet,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { need, room } => write!(
                f,
                "the wanted nodes have {room} free above their watermarks, and {need} would have to move there: \
                 free memory there, or allow another tier"
            ),
            Self::NoNodes => write!(f, "this host has no node of the wanted tiers"),
            Self::MovableOnly { wanted } => write!(
                f,
                "the wanted tiers are nodes {wanted}, of movable memory only, and from them alone the kernel can't \
                 serve the processes themselves, the buffers of their pipes for one: allow dram too, or put memory \
                 of these nodes online for the kernel (online_kernel; daxctl online-memory --no-movable)"
            ),
            Self::OutsideParent { wanted, parent } => write!(
                f,
                "the wanted tiers are nodes {wanted}, and the parent cgroup may use {parent} only: widen the \
                 parent's cpuset.mems, or allow another tier"
            ),
        }
    }
}

/// What may be left outside when the set is narrowed: the kernel moves it while the writer waits.
pub const NARROW_REST: Bytes = Bytes::mib(8);

/// The next step towards `wanted`. What can't be moved ahead moves with the narrowing.
///
/// `wanted` lies within the parent's `cpuset.mems.effective`, by the caller's care: of other nodes the kernel accepts
/// the write and gives none, so there would be no end of widening.
#[must_use]
pub fn step(wanted: &NodeSet, placement: &Placement) -> Step {
    if wanted.is_empty() {
        return Step::Refuse(Refusal::NoNodes);
    }
    if wanted.intersection(&placement.kernel).is_empty() {
        return Step::Refuse(Refusal::MovableOnly { wanted: wanted.clone() });
    }
    if placement.allowed == *wanted {
        return Step::Settled;
    }
    if placement.allowed.is_subset(wanted) {
        return Step::Widen(wanted.clone());
    }
    let outside = |by_node: &BTreeMap<NodeId, Bytes>| {
        by_node.iter().filter(|(node, _)| !wanted.contains(**node)).map(|(_, bytes)| *bytes).sum::<Bytes>()
    };
    let need = outside(&placement.resident);
    let room: Bytes = wanted.iter().filter_map(|node| placement.room.get(&node)).copied().sum();
    // A sixteenth more, and never nothing: what is allocated meanwhile and afterwards must fit too.
    if room < need + NARROW_REST.max(Bytes(need.0 / 16)) {
        return Step::Refuse(Refusal::NoRoom { need, room });
    }
    if outside(&placement.movable) <= NARROW_REST {
        return Step::Narrow(wanted.clone());
    }
    let both = placement.allowed.union(wanted);
    if placement.allowed != both {
        return Step::Widen(both);
    }
    let fullest = placement
        .movable
        .iter()
        .filter(|(node, _)| !wanted.contains(**node))
        .max_by_key(|(node, bytes)| (**bytes, core::cmp::Reverse(**node)));
    let roomiest =
        wanted.iter().max_by_key(|node| (placement.room.get(node).copied(), core::cmp::Reverse(*node)));
    match (fullest, roomiest) {
        (Some((from, bytes)), Some(to)) => {
            let room = placement.room.get(&to).copied().unwrap_or_default();
            Step::Move { from: *from, to, bytes: (*bytes).min(room) }
        }
        _ => Step::Narrow(wanted.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn nodes(ids: &[u32]) -> NodeSet {
        ids.iter().copied().collect()
    }

    fn mib(by_node: &[(u32, u64)]) -> BTreeMap<NodeId, Bytes> {
        by_node.iter().map(|(node, mib)| (NodeId(*node), Bytes::mib(*mib))).collect()
    }

    fn check(wanted: &[u32], allowed: &[u32], anon: &[(u32, u64)], room: &[(u32, u64)], step_is: &Step) {
        let placement = Placement {
            allowed: nodes(allowed),
            resident: mib(anon),
            movable: mib(anon),
            room: mib(room),
            kernel: nodes(&[0, 1, 2, 3]),
        };
        assert_eq!(step(&nodes(wanted), &placement), *step_is);
    }

    #[test]
    fn it_widens_then_moves_then_narrows() {
        check(&[1], &[0], &[(0, 300)], &[(1, 400)], &Step::Widen(nodes(&[0, 1])));
        let whole = Step::Move { from: NodeId(0), to: NodeId(1), bytes: Bytes::mib(300) };
        check(&[1], &[0, 1], &[(0, 300)], &[(1, 400)], &whole);
        check(&[1], &[0, 1], &[(0, 8), (1, 292)], &[(1, 108)], &Step::Narrow(nodes(&[1])));
        check(&[1], &[1], &[(1, 300)], &[], &Step::Settled);
    }

    #[test]
    fn it_moves_from_the_fullest_to_the_roomiest_what_fits() {
        let step = Step::Move { from: NodeId(1), to: NodeId(3), bytes: Bytes::mib(250) };
        check(&[2, 3], &[0, 1, 2, 3], &[(0, 50), (1, 300)], &[(2, 200), (3, 250)], &step);
    }

    #[test]
    fn more_nodes_need_no_room() {
        check(&[0, 1], &[0], &[(0, 300)], &[], &Step::Widen(nodes(&[0, 1])));
    }

    #[test]
    fn nodes_without_room_are_refused() {
        let refuse =
            |need, room| Step::Refuse(Refusal::NoRoom { need: Bytes::mib(need), room: Bytes::mib(room) });
        check(&[1], &[0], &[(0, 320)], &[(1, 339)], &refuse(320, 339));
        // What is there may fit, but the next page would not.
        check(&[1], &[0, 1], &[(1, 300)], &[(1, 0)], &refuse(0, 0));
        check(&[], &[0], &[(0, 300)], &[(0, 300)], &Step::Refuse(Refusal::NoNodes));
    }

    #[test]
    fn nodes_of_movable_memory_alone_are_refused() {
        let refuse = Step::Refuse(Refusal::MovableOnly { wanted: nodes(&[4]) });
        check(&[4], &[0], &[(0, 300)], &[(4, 400)], &refuse);
        // Even where the kernel has been told so already.
        check(&[4], &[4], &[(4, 300)], &[(4, 400)], &refuse);
        check(&[0, 4], &[0], &[(0, 300)], &[(4, 400)], &Step::Widen(nodes(&[0, 4])));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let room = Refusal::NoRoom { need: Bytes::mib(300), room: Bytes::mib(20) };
        let says = "the wanted nodes have 20 MiB free above their watermarks, and 300 MiB would have to move there: \
                    free memory there, or allow another tier";
        assert_eq!(room.to_string(), says);
        assert_eq!(Refusal::NoNodes.to_string(), "this host has no node of the wanted tiers");
        let movable = Refusal::MovableOnly { wanted: nodes(&[1]) };
        let says = "the wanted tiers are nodes 1, of movable memory only, and from them alone the kernel can't serve the \
                    processes themselves, the buffers of their pipes for one: allow dram too, or put memory of these \
                    nodes online for the kernel (online_kernel; daxctl online-memory --no-movable)";
        assert_eq!(movable.to_string(), says);
        let parent = Refusal::OutsideParent { wanted: nodes(&[1]), parent: nodes(&[0]) };
        let says = "the wanted tiers are nodes 1, and the parent cgroup may use 0 only: widen the parent's \
                    cpuset.mems, or allow another tier";
        assert_eq!(parent.to_string(), says);
    }
}
