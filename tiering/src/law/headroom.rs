//! Who gives for a node that is short.
//!
//! # Problem
//! New pages should start in DRAM. Somebody has to make room for them who misses it least; and what comes back a moment later has made none.
//!
//! # Approach
//! What a node lacks ([`super::lines`]) is taken from the coldest first over all cgroups ([`super::fill`]), but never below a stated floor or of what
//! `memory.low` protects. Memory is taken that has been idle for the cgroup's own age, and of who holds more than its share by weight for `after`: what
//! comes back at such ages frees nothing, but somebody has to give to who holds less.
//!
//! Only while less than the kernel's low watermark is available, the age falls, an eighth of `after` every two seconds, down to half of it.
//!
//! Thousands of cgroups do not fit into a cache: each is looked at once for all short nodes together.
//!
//! # Properties
//! - `only_a_short_node_takes`: a full node beside an empty one is short, and only its own memory is taken.
//! - `only_who_holds_more_than_its_share_gives_below_its_own_age`.
//! - `after_is_a_promise`: above the kernel's low watermark nothing younger is taken.
//! - `what_the_kernel_protects_is_not_taken_for_others`.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::Host;
use super::cgroup::{CgroupState, Sums};
use super::fill::{Offer, Offers};
use super::make::{Making, Wish, is_enforced};
use super::plan::NodePlan;
use crate::reason::DemoteReason;
use crate::units::Bytes;

/// While less than the low watermark is available, the age falls by an eighth of `after` in each of these.
const STEP: Duration = Duration::from_secs(2);

/// What a cgroup's own rate does not let pass within this time, others are asked for.
const SOON: Duration = Duration::from_secs(5);

/// The youngest memory that is taken for others' sake whatever the shortage.
fn least_age_ever(state: &CgroupState) -> Duration {
    state.policy.demote.after / 2
}

/// The age down to which a cgroup gives for others, on a node that has been urgent for so long. It falls as the cgroup's weight has it:
/// memory of weight 200 must be twice as old to be as cold as that of weight 100.
fn least_age(state: &CgroupState, urgent: Option<Duration>, is_above_share: bool) -> Duration {
    let after = state.policy.demote.after;
    let Some(urgent) = urgent else {
        return if is_above_share { after } else { state.touches.age() };
    };
    let steps = u32::try_from(urgent.as_millis() / STEP.as_millis()).unwrap_or(8).min(8);
    let level = after.saturating_sub(after / 8 * steps);
    (level.saturating_mul(state.policy.dram.weight) / 100).clamp(least_age_ever(state), after)
}

impl Making {
    /// What each cgroup gives for headroom, in the order of the host; empty where nothing is short. Who shares tight nodes is noted.
    pub(super) fn headroom(&mut self, host: &Host, nodes: &mut [NodePlan]) -> Vec<Vec<Wish>> {
        let mut wishes: Vec<Vec<Wish>> = Vec::new();
        if !self.left.iter().any(|left| left.is_short || left.is_tight) {
            return wishes;
        }
        wishes.resize_with(host.cgroups.len(), Vec::new);
        // What a cgroup has above what is protected, less what it gives on other nodes.
        let mut above = Vec::with_capacity(host.cgroups.len());
        let mut offers: Vec<(Offers, Vec<usize>)> = Vec::new();
        offers.resize_with(self.left.len(), Default::default);
        host.cgroups.values().for_each(|state| self.weigh(state));
        for (i, state) in host.cgroups.values().enumerate() {
            let sums = state.sums();
            above.push(sums.fast - protected(state, sums));
            if !is_enforced(state) || state.reach.barrier.is_some() {
                continue;
            }
            self.turn_to(state);
            let soon = state.policy.demote.max_rate.over(SOON);
            for on in &state.nodes {
                let Some(place) = self.place(on.node) else { continue };
                let Some(left) = self.left.get(place).filter(|left| left.is_short) else { continue };
                let is_above_share = on.anon > left.share(state.policy.dram.weight);
                let least_age = least_age(state, left.urgent, is_above_share);
                if !self.has_target(on.node) || state.worth(on.older(least_age, self.now)).is_zero() {
                    continue;
                }
                let (room, _) = self.room_below(on.node);
                let (offers, of) = &mut offers[place];
                of.push(i);
                offers.add(Offer {
                    entries: on.ledger.entries(self.now),
                    bound: on.bound.get(self.now),
                    most: above[i].min(on.anon).min(room).min(soon),
                    least_age,
                    weight: state.policy.dram.weight,
                });
            }
        }
        for node in nodes.iter_mut().filter(|node| !node.shortfall.is_zero()) {
            let Some((offers, of)) = self.place(node.node).map(|place| mem::take(&mut offers[place])) else {
                continue;
            };
            let filled = offers.fill(node.shortfall, |offer| above[of[offer]]);
            node.fill_age = filled.level;
            node.unmet = filled.unmet;
            for (i, given) in of.into_iter().zip(filled.given).filter(|(_, given)| !given.bytes.is_zero()) {
                above[i] -= given.bytes;
                wishes[i].push(Wish { from: node.node, given, reason: DemoteReason::Headroom });
            }
        }
        wishes
    }
}

/// What no other's need takes: the stated floor, and of what the kernel protects the part that DRAM is of the host's memory.
pub(super) fn protected(state: &CgroupState, sums: Sums) -> Bytes {
    let limits = state.last.as_ref().map(|last| last.limits).unwrap_or_default();
    let low = limits.low.unwrap_or_default().max(limits.min.unwrap_or_default());
    state.policy.floor(sums.footprint).max(low.min(sums.footprint).min(sums.fast))
}
