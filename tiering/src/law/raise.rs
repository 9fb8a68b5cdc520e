//! What comes up, and how fast.
//!
//! # Problem
//! What is hot again on a slow node costs until it is back; what is brought back without room only pushes other memory out. The kernel's own
//! promotion knows neither cgroups nor ceilings.
//!
//! # Approach
//! What the last walk found touched on slow nodes is to come up, as far as fast nodes have room above the line of promotion, the ceiling
//! leaves some, and rates allow. Where the last portion that sank is touched too much, as much as sank comes up of what is touched at all.
//!
//! On a node that is tight, who holds more than its share by weight promotes at a rate of `(share / held)^4`, at least 1/16 (Equilibria). What only goes to and
//! fro pauses ([`super::churn`]). At the ceiling, memory that two walks found touched changes places with memory that two walks did not,
//! one for one (memory-optimizer's rule: hot less cold at least two), in portions ([`super::exchange`]).
//!
//! A promoter that works by itself is told what bounds each cgroup ([`Claim`]), and shares it out as it sees who has something hot ([`super::grant`]).
//!
//! Where the kernel promotes it gets one number: what those may have back who have memory down, and zero where all of them are at their
//! ceilings or pause, or where all fast nodes are short and nobody has anything to give: what came up would be what must go down next.
//!
//! # Properties
//! - `kernel_promotion_stops_where_all_who_have_memory_down_are_at_their_ceilings`.
//! - `kernel_promotion_stops_where_nobody_can_make_room`.
//! - `who_holds_more_than_its_share_of_a_tight_node_promotes_more_slowly`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Host;
use super::cgroup::{CgroupState, Sums};
use super::grant::Claim;
use super::headroom::protected;
use super::make::{Left, Making, is_at, is_enforced};
use super::on_node::OnNode;
use super::plan::{CgroupPlan, NodePlan, Promote, PromoteReason};
use super::sample::{CgroupKey, Promoter};
use crate::reason::Limit;
use crate::units::{ByteRate, Bytes, Instant};

impl Making {
    /// A cgroup is among those who share the tight nodes where it has memory.
    pub(super) fn weigh(&mut self, state: &CgroupState) {
        for on in state.fast().filter(|on| !on.anon.is_zero()) {
            if let Some(left) = self.left_mut(on.node).filter(|left| left.is_tight) {
                left.weights += u64::from(state.policy.dram.weight);
            }
        }
    }

    /// What a cgroup may promote per second: its policy's rate, less for who churns or holds more than its share of a tight node.
    fn rate_up(&self, state: &CgroupState, sums: Sums) -> ByteRate {
        let most = state.breaker.allows(state.policy.promote.max_rate, sums.footprint);
        let mut sixteenths = 16;
        for on in state.fast() {
            let Some(left) = self.left(on.node).filter(|left| left.weights > 0) else { continue };
            let share = left.share(state.policy.dram.weight).max(protected(state, sums));
            if on.anon > share {
                // In 1/1000, to the fourth.
                let part = u128::from(share.0) * 1000 / u128::from(on.anon.0.max(1));
                let fourth = part * part / 1000 * part / 1000 * part / 1000;
                sixteenths = sixteenths.min(u64::try_from(fourth * 16 / 1000).unwrap_or(16)).max(1);
            }
        }
        ByteRate(most.0 / 16 * sixteenths)
    }

    pub(super) fn promote(
        &mut self,
        state: &mut CgroupState,
        sums: Sums,
        gives: bool,
        plan: &mut CgroupPlan,
    ) {
        let hot: Bytes = state.slow().map(|on| on.hot.min(on.anon)).sum();
        let rate_up = self.rate_up(state, sums);
        let undo = state.portion.undo();
        if hot.is_zero() && undo.is_zero() {
            return;
        }
        if !state.policy.promote.enabled {
            plan.promote_limit = Some(Limit::PromotionOff);
            return;
        }
        match self.promoter {
            Promoter::None => {
                plan.promote_limit = Some(Limit::NoPromoter);
                return;
            }
            Promoter::Kernel if rate_up.0 > 0 => return,
            Promoter::Kernel | Promoter::Agent => {}
        }
        if rate_up.0 == 0 {
            plan.promote_limit = Some(Limit::Churn);
            return;
        }
        // What was just asked to leave is not brought up in the same plan.
        let mut below_ceiling = if gives { Bytes::ZERO } else { plan.ceiling - sums.fast };
        state.promote_bucket.set_rate(rate_up, self.now);
        let mut cap = state.promote_bucket.available(self.now);
        let reason = if !undo.is_zero() {
            PromoteReason::TooWarm
        } else if plan.ceiling < Bytes::MAX && below_ceiling < hot {
            PromoteReason::Exchange
        } else {
            PromoteReason::Touched
        };
        let mut more = undo - hot;
        for OnNode { node: from, hot, anon, .. } in state.slow() {
            let (from, hot) = (*from, *hot.min(anon));
            let warm = more.min(*anon - hot);
            more -= warm;
            let mut missing = hot + warm;
            let targets = self.left(from).map(|left| Arc::clone(&left.targets)).unwrap_or_default();
            for to in targets.iter().copied() {
                if missing.is_zero() {
                    break;
                }
                let link = self.left(from).map_or(Bytes::ZERO, |left| left.rate);
                let Some(&Left { room, rate, may_use: true, .. }) = self.left(to) else { continue };
                let mut bytes = missing;
                for (most, limit) in [
                    (room.min(below_ceiling), Limit::FastFull),
                    (rate.min(link), Limit::NodeRate),
                    (cap, Limit::RateCap),
                ] {
                    if bytes > most {
                        (bytes, plan.promote_limit) = (most, Some(limit));
                    }
                }
                bytes = bytes.round_down(self.page);
                if bytes.is_zero() {
                    continue;
                }
                missing -= bytes;
                cap -= bytes;
                below_ceiling -= bytes;
                if let Some(left) = self.left_mut(to) {
                    left.room -= bytes;
                    left.rate -= bytes;
                }
                if let Some(left) = self.left_mut(from) {
                    left.rate -= bytes;
                }
                plan.promote.push(Promote { from, to, bytes, rate: rate_up, reason });
            }
            if missing.is_zero() {
                plan.promote_limit = None;
            }
        }
    }

    /// What is to change places at the ceiling. Where the kernel promotes, nothing is known of what comes up for it: no portion is kept.
    pub(super) fn exchange(&self, state: &mut CgroupState, sums: Sums, plan: &CgroupPlan) -> Bytes {
        let fast = sums.fast;
        if !is_at(plan.ceiling, fast) || self.promoter == Promoter::None || !state.policy.promote.enabled {
            return state.exchange.plan(Bytes::ZERO);
        }
        let twice: Bytes = state.slow().map(|on| on.hot_twice.max(Bytes(on.hot.0 / 4)).min(on.hot)).sum();
        let room = plan.ceiling - fast;
        let age = state.exchange.age(&state.policy.demote);
        let cold: Bytes = state.fast().map(|on| on.older(age, self.now)).sum();
        let second = self.rate_up(state, sums).over(core::time::Duration::from_secs(1));
        let able = (twice - room).min(cold).min(second);
        if self.promoter == Promoter::Agent { state.exchange.plan(able) } else { able }
    }

    /// What the kernel may promote: what the policies of those allow that have memory down; where none has, of all.
    pub(super) fn kernel_promotion(&self, host: &Host, nodes: &[NodePlan]) -> ByteRate {
        let mut fast = nodes.iter().filter(|node| !node.headroom.is_zero()).peekable();
        let gets_nothing = |node: &NodePlan| !node.shortfall.is_zero() && node.unmet == node.shortfall;
        if fast.peek().is_some() && fast.all(gets_nothing) {
            return ByteRate(0);
        }
        let promoted =
            host.cgroups.values().filter(|state| is_enforced(state) && state.policy.promote.enabled);
        let (mut of_all, mut of_those_down) = (0_u64, None::<u64>);
        for state in promoted {
            let sums = state.sums();
            of_all = of_all.saturating_add(state.policy.promote.max_rate.0);
            if sums.footprint > sums.fast {
                let below = !is_at(state.policy.ceiling(sums.footprint), sums.fast);
                let rate = if below { self.rate_up(state, sums).0 } else { 0 };
                of_those_down = Some(of_those_down.unwrap_or(0).saturating_add(rate));
            }
        }
        ByteRate(of_those_down.unwrap_or(of_all).min(host.settings.link_rate.0))
    }
}

/// What bounds a promoter that works by itself, of each cgroup that may have something brought up.
pub(super) fn claims(host: &mut Host, now: Instant) -> Vec<(CgroupKey, Claim)> {
    if host.settings.promoter != Promoter::Agent {
        return Vec::new();
    }
    let mut making = Making::new(host, now);
    let promoted = |state: &CgroupState| is_enforced(state) && state.policy.promote.enabled;
    host.cgroups.values().for_each(|state| making.weigh(state));
    let able = host.cgroups.iter().filter(|(_, state)| promoted(state));
    able.filter_map(|(key, state)| Some((*key, making.claim(state)?))).collect()
}

impl Making {
    fn claim(&mut self, state: &CgroupState) -> Option<Claim> {
        self.turn_to(state);
        let sums = state.sums();
        let (rate, ceiling) = (self.rate_up(state, sums), state.policy.ceiling(sums.footprint));
        if rate.0 == 0 || sums.fast >= ceiling {
            return None;
        }
        let from = state.slow().filter(|on| !on.anon.is_zero()).max_by_key(|on| on.anon)?.node;
        let link_rate = self.left(from)?.rate;
        let (to, node) = self.targets(from).find(|(_, node)| !node.room.is_zero())?;
        let (fast, slow) = (sums.fast, sums.footprint - sums.fast);
        Some(Claim { from, to, rate, ceiling, fast, slow, room: node.room, node_rate: node.rate, link_rate })
    }
}
