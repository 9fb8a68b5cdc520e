//! What goes down, and how fast.
//!
//! # Problem
//! Memory leaves for headroom, for a ceiling and for being cold alone, within the rates of cgroup, node and link and the room of the targets. Only
//! the last is voluntary, and only that is to stop where it costs too much.
//!
//! # Approach
//! In this order: what is asked for headroom ([`super::headroom`]); what is above the ceiling, the coldest first, at any age; what is at least as old as the
//! effective age, in portions of which each is judged before the next ([`super::portion`]). A stated floor bounds all three. The guards hold only what is
//! voluntary: a ceiling is a promise to others.
//!
//! # Properties
//! - `floor_is_never_crossed`, `ceiling_is_asked_for`.
//! - `what_is_planned_fits_the_rates`, `what_is_planned_fits_the_room`.
//! - `nobody_sinks_voluntarily_where_nobody_promotes`.
//! - `stalls_that_were_there_before_our_moves_hold_nothing_and_more_do`.
//! - `what_is_too_few_to_move_stays_and_is_said`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::cgroup::{CgroupState, Sums};
use super::fill::{Given, Offer, fill};
use super::make::{Making, Wish};
use super::plan::{CgroupPlan, Demote};
use super::sample::{Barrier, Promoter};
use crate::node::NodeId;
use crate::reason::{DemoteReason, Limit};
use crate::units::Bytes;

fn sum_of(wishes: &[Wish]) -> Bytes {
    wishes.iter().map(|wish| wish.given.bytes).sum()
}

impl Making {
    pub(super) fn demote(
        &mut self,
        state: &mut CgroupState,
        sums: Sums,
        mut wishes: Vec<Wish>,
        plan: &mut CgroupPlan,
    ) {
        let fast = sums.fast;
        let mut budget = fast - plan.floor;
        let over = fast - plan.ceiling - sum_of(&wishes);
        // Where nothing tells ages, in steps: what is in use is used again between two.
        let blind = state.last.as_ref().is_some_and(|last| last.blind);
        let over = if blind { over.min(Bytes(fast.0 / 16).max(Bytes::mib(1))) } else { over };
        if !over.is_zero() {
            self.over_ceiling(state, over, &mut wishes);
        }
        // What is younger than `after` no listing proves: there, age does not matter.
        for wish in wishes.iter_mut().filter(|wish| wish.reason == DemoteReason::Ceiling) {
            if wish.given.least_age < state.policy.demote.after {
                wish.given.least_age = Duration::ZERO;
            }
        }
        let guard = self.guard(state, plan);
        let movable: Bytes = state.fast().map(|on| state.worth(on.older(plan.effective_age, self.now))).sum();
        let free = match guard {
            None => movable - sum_of(&wishes),
            Some(_) => Bytes::ZERO,
        };
        let voluntary = self.on_trial(state, sums, plan, free);
        let worth = Bytes::mib(1).min(Bytes(fast.0 / 128));
        if voluntary >= worth {
            self.cold(state, plan.effective_age, voluntary, &mut wishes);
        }
        let swapped = self.exchange(state, sums, plan);
        if !swapped.is_zero() && wishes.is_empty() {
            self.cold(state, state.exchange.age(&state.policy.demote), swapped, &mut wishes);
            for wish in &mut wishes {
                wish.reason = DemoteReason::Ceiling;
            }
        }
        plan.limit = match guard {
            Some(limit) if plan.cold > sum_of(&wishes) => Some(limit),
            _ if free > voluntary => Some(Limit::Portion(state.portion.on_trial())),
            _ if wishes.is_empty() && !plan.bound.is_zero() && plan.cold.is_zero() => {
                Some(Limit::Bound(plan.bound))
            }
            _ if wishes.is_empty() && movable < plan.cold => Some(Limit::TooFew(plan.cold - movable)),
            _ if wishes.is_empty() => Some(Limit::NothingCold),
            _ => None,
        };
        if !fast.is_zero() && !state.fast().any(|on| self.has_target(on.node)) {
            plan.limit = Some(Limit::NoTarget);
            return;
        }
        if let Some(barrier) = state.reach.barrier {
            plan.limit = Some(match barrier {
                Barrier::MaySwap => Limit::MaySwap,
                Barrier::NoEngine => Limit::NoEngine,
            });
            return;
        }
        wishes.sort_by_key(|wish| core::cmp::Reverse(wish.reason));
        let mut left = state.demote_bucket.available(self.now);
        plan.demote.reserve_exact(wishes.len());
        for Wish { from, given, reason } in wishes {
            if !self.has_target(from) {
                plan.limit = Some(Limit::NoTarget);
                continue;
            }
            let (room, link) = self.room_below(from);
            let rate = self.left(from).map_or(Bytes::ZERO, |left| left.rate).min(link);
            let mut bytes = Bytes(given.bytes.0.next_multiple_of(self.page.max(1)));
            for (most, limit) in [
                (budget, Limit::Floor),
                (room, Limit::TargetFull),
                (rate, Limit::NodeRate),
                (left, Limit::RateCap),
            ] {
                if bytes > most {
                    (bytes, plan.limit) = (most, Some(limit));
                }
            }
            bytes = bytes.round_down(self.page);
            if bytes.is_zero() {
                continue;
            }
            budget -= bytes;
            left -= bytes;
            let to = self.take(from, bytes);
            match plan.demote.iter_mut().find(|demote| demote.from == from) {
                Some(known) => {
                    known.bytes += bytes;
                    known.least_age = known.least_age.min(given.least_age);
                }
                None => plan.demote.push(Demote { from, to, bytes, least_age: given.least_age, reason }),
            }
        }
    }

    /// Takes room and rate of a move; where it goes.
    fn take(&mut self, from: NodeId, bytes: Bytes) -> Arc<[NodeId]> {
        let Some(left) = self.left_mut(from) else { return Arc::default() };
        left.rate -= bytes;
        // Most cgroups may use them all.
        let all = Arc::clone(&left.targets);
        let targets = if self.targets(from).count() == all.len() {
            all
        } else {
            self.targets(from).map(|(to, _)| to).collect()
        };
        let mut missing = bytes;
        for to in &*targets {
            let Some(left) = self.left_mut(*to) else { continue };
            let part = missing.min(left.room);
            left.room -= part;
            left.rate -= part;
            missing -= part;
        }
        targets
    }

    /// What is above the ceiling: the oldest of all its fast nodes.
    fn over_ceiling(&self, state: &CgroupState, over: Bytes, wishes: &mut Vec<Wish>) {
        let mut entries: Vec<(Duration, Bytes, NodeId)> = Vec::new();
        for on in state.fast().filter(|on| self.has_target(on.node)) {
            let taken = wishes.iter().filter(|wish| wish.from == on.node).map(|wish| wish.given.bytes);
            let mut skip = on.bound.get(self.now) + taken.sum();
            let mut rest = on.anon - skip;
            for (age, bytes) in on.ledger.entries(self.now) {
                let stuck = bytes.min(skip);
                skip -= stuck;
                let bytes = (bytes - stuck).min(rest);
                rest -= bytes;
                entries.push((age, bytes, on.node));
            }
            // What no age is known of is as good as young.
            let known = on.ledger.total();
            entries.push((Duration::ZERO, (on.movable(self.now) - known).min(rest), on.node));
        }
        entries.sort_by_key(|(age, ..)| core::cmp::Reverse(*age));
        let mut missing = over;
        for (age, bytes, from) in entries {
            let bytes = bytes.min(missing);
            if bytes.is_zero() {
                continue;
            }
            missing -= bytes;
            let reason = DemoteReason::Ceiling;
            match wishes.iter_mut().find(|wish| wish.from == from && wish.reason == reason) {
                Some(known) => {
                    known.given.bytes += bytes;
                    known.given.least_age = age;
                }
                None => wishes.push(Wish { from, given: Given { bytes, least_age: age }, reason }),
            }
        }
    }

    /// Cold memory, the oldest of all fast nodes first.
    fn cold(&self, state: &CgroupState, age: Duration, bytes: Bytes, wishes: &mut Vec<Wish>) {
        let able = || state.fast().filter(|on| self.has_target(on.node));
        let offers = able().map(|on| {
            let taken = wishes.iter().filter(|wish| wish.from == on.node).map(|wish| wish.given.bytes);
            Offer {
                entries: on.ledger.entries(self.now),
                bound: on.bound.get(self.now) + taken.sum(),
                most: if state.worth(on.older(age, self.now)).is_zero() { Bytes::ZERO } else { on.anon },
                least_age: age,
                weight: 100,
            }
        });
        let filled = fill(offers, bytes);
        let reason = DemoteReason::Cold;
        for (on, given) in able().zip(filled.given) {
            if !given.bytes.is_zero() {
                wishes.push(Wish { from: on.node, given, reason });
            }
        }
        if able().next().is_none() {
            // So that the missing target is what is told.
            let given = Given { bytes, least_age: age };
            wishes.extend(state.fast().map(|on| Wish { from: on.node, given, reason }));
        }
    }

    /// What of `free` may sink before the last portion is judged; what is several times as old needs no trial.
    fn on_trial(&self, state: &CgroupState, sums: Sums, plan: &CgroupPlan, free: Bytes) -> Bytes {
        if free.is_zero() {
            return free;
        }
        let age = plan.effective_age.saturating_mul(3);
        let sure: Bytes = state.fast().map(|on| on.older(age, self.now)).sum();
        let foreseen = state.touches.foreseen(plan.allowed_touch);
        state.portion.left(free, sums.fast, foreseen).max(sure).min(free)
    }

    /// What holds voluntary demotion, if anything does.
    fn guard(&self, state: &CgroupState, plan: &CgroupPlan) -> Option<Limit> {
        if self.promoter == Promoter::None {
            return Some(Limit::NoPromoter);
        }
        if !state.has_started(self.now) {
            return Some(Limit::StartUp);
        }
        if let Some(stall) = state.stalls_too_much() {
            return Some(Limit::MemoryPressure(stall));
        }
        if let (Some(most), Some(stall)) = (state.policy.pressure.io, state.io_stall)
            && stall > most
        {
            return Some(Limit::IoPressure(stall));
        }
        // Touches of what is young, for want of room in DRAM, don't hold the demotion that makes the room.
        let (touched, allowed) = (state.touches.passed(), plan.allowed_touch);
        (touched > allowed).then_some(Limit::SlowTouch { touched, allowed })
    }
}
