//! Makes the plan: who moves what, within which bounds, and what holds the rest.
//!
//! # Approach
//! Three reasons to demote, in this order: headroom of a short node (coldest first over all cgroups, [`super::fill`]), a cgroup's ceiling
//! (its coldest first, any age), cold memory (at least the effective age). A stated floor bounds all three; what was accessed
//! within half of `after` is never taken for others' sake, nor is what `memory.low` protects. Rates of cgroup, node and
//! link and the room of the targets bound all. The guards hold only what is voluntary: a ceiling is a promise to others.
//!
//! For headroom, memory is taken that has been idle for `after`. Only while less than the kernel's low watermark is available, the age
//! falls, an eighth of `after` every two seconds, down to half of it.
//!
//! # Properties
//! - `floor_is_never_crossed`, `ceiling_is_asked_for`.
//! - `only_a_short_node_takes`: a full node beside an empty one is short, and only its own memory is taken.
//! - `after_is_a_promise`: above the kernel's low watermark nothing younger is taken for headroom.
//! - `what_is_planned_fits_the_rates`, `what_is_planned_fits_the_room`.
//! - `observe_decides_the_same` but for headroom, which is asked of those who can give.
//! - `nothing_is_said_that_is_not_done`: no promotion is planned where we don't promote.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::Host;
use super::cgroup::{CgroupState, OnNode};
use super::fill::{Given, Offer, fill};
use super::plan::{CgroupPlan, Demote, NodePlan, Plan};
use super::sample::{Barrier, CgroupKey, Promoter, Speed};
use crate::memory_high;
use crate::node::NodeId;
use crate::policy::{DemotePolicy, MemoryHighPolicy, Mode};
use crate::reason::{DemoteReason, Limit};
use crate::units::{ByteRate, Bytes, Instant};

/// While less than the low watermark is available, the age falls by an eighth of `after` in each of these.
const STEP: Duration = Duration::from_secs(2);

/// What a cgroup's own rate does not let pass within this time, others are asked for.
const SOON: Duration = Duration::from_secs(5);

/// A cgroup is sampled at least this often while it has anything to do.
const BUSY: Duration = Duration::from_secs(1);

/// What is left of a node for this plan.
pub(super) struct Left {
    pub(super) targets: Vec<NodeId>,
    pub(super) room: Bytes,
    pub(super) rate: Bytes,
    /// Weights of those who share the node, where it is short of room; zero where it is not.
    pub(super) weights: u64,
    pub(super) total: Bytes,
}

/// The working state of one plan.
pub(super) struct Making {
    pub(super) now: Instant,
    pub(super) promoter: Promoter,
    pub(super) page: u64,
    left: Vec<Left>,
    /// Place in `left` by node number.
    places: Vec<u32>,
}

/// Time between two walks of a cgroup's page tables: at most four generations exist, so memory that is provably as old as the age
/// needs two walks within it. At a ceiling the coldest goes whatever its age, and walks tell what is colder ([`super::exchange`]). While more is hot on slow
/// nodes than is allowed, walks find what is to come up, however long the age.
pub(super) fn walk_every(state: &CgroupState) -> Duration {
    let DemotePolicy { after, slow_touch_rate, .. } = state.policy.demote;
    let ceiling = state.policy.ceiling(state.footprint());
    let hot: Bytes = state.slow().map(|on| on.hot).sum();
    let age = if is_near(ceiling, state.on_fast()) {
        state.exchange.age(&state.policy.demote)
    } else if hot > state.touches.allowance(slow_touch_rate) {
        after
    } else {
        state.touches.age()
    };
    (age / 2).max(Duration::from_secs(1))
}

/// Whether a cgroup has what its ceiling leaves it.
pub(super) fn is_at(ceiling: Bytes, fast: Bytes) -> bool {
    ceiling < Bytes::MAX && fast + Bytes(ceiling.0 / 32) >= ceiling
}

/// Whether it has nearly what its ceiling leaves it, so that what is hot has to change places with what is not.
pub(super) fn is_near(ceiling: Bytes, fast: Bytes) -> bool {
    ceiling < Bytes::MAX && fast + Bytes(ceiling.0 / 8) >= ceiling
}

/// The youngest memory that is taken for others' sake whatever the shortage.
fn least_age_ever(state: &CgroupState) -> Duration {
    state.policy.demote.after / 2
}

/// The age down to which a cgroup gives for others, on a node that has been urgent for so long. It falls as the cgroup's weight has it:
/// memory of weight 200 must be twice as old to be as cold as that of weight 100.
fn least_age(state: &CgroupState, urgent: Option<Duration>) -> Duration {
    let after = state.policy.demote.after;
    let Some(urgent) = urgent else { return after };
    let steps = u32::try_from(urgent.as_millis() / STEP.as_millis()).unwrap_or(8).min(8);
    let level = after.saturating_sub(after / 8 * steps);
    (level.saturating_mul(state.policy.dram.weight) / 100).clamp(least_age_ever(state), after)
}

pub(super) fn plan(host: &mut Host, now: Instant) -> Plan {
    let mut nodes = Vec::with_capacity(host.nodes.len());
    let mut making = Making {
        now,
        promoter: host.settings.promoter,
        page: host.settings.page,
        left: Vec::new(),
        places: Vec::new(),
    };
    for (id, state) in &mut host.nodes {
        let sample = &state.sample;
        nodes.push(NodePlan {
            node: *id,
            available: sample.available(),
            headroom: if sample.speed == Speed::Fast { sample.headroom() } else { Bytes::ZERO },
            shortfall: sample.shortfall(),
            room: sample.room(),
            urgent: sample.is_urgent(),
            fill_age: None,
            unmet: Bytes::ZERO,
        });
        let number = id.0 as usize;
        if making.places.len() <= number {
            making.places.resize(number + 1, u32::MAX);
        }
        making.places[number] = u32::try_from(making.left.len()).unwrap_or(u32::MAX);
        making.left.push(Left {
            targets: sample.targets.clone(),
            room: sample.room(),
            rate: state.bucket.available(now),
            weights: 0,
            total: sample.total,
        });
    }
    let asked = making.headroom(host, &mut nodes);
    making.weigh(host);

    let mut cgroups: Vec<Option<CgroupPlan>> = Vec::new();
    cgroups.resize_with(host.cgroups.len(), || None);
    // Where rates or room are short, whoever is first in this plan is last in the next.
    let first = usize::try_from(host.plans).unwrap_or(0) % host.cgroups.len().max(1);
    let mut states: Vec<(usize, CgroupKey, &mut CgroupState)> =
        host.cgroups.iter_mut().enumerate().map(|(i, (key, state))| (i, *key, state)).collect();
    states.rotate_left(first);
    for (i, key, state) in states {
        cgroups[i] = making.cgroup(key, state, asked.get(&key).map_or(&[], Vec::as_slice));
    }
    let cgroups: Vec<CgroupPlan> = cgroups.into_iter().flatten().collect();
    let kernel_promotion = match making.promoter {
        Promoter::Kernel => making.kernel_promotion(host),
        Promoter::None | Promoter::Agent => ByteRate(0),
    };
    Plan { at: now, nodes, cgroups, kernel_promotion }
}

impl Making {
    pub(super) fn left(&self, node: NodeId) -> Option<&Left> {
        self.left.get(*self.places.get(node.0 as usize)? as usize)
    }

    pub(super) fn left_mut(&mut self, node: NodeId) -> Option<&mut Left> {
        self.left.get_mut(*self.places.get(node.0 as usize)? as usize)
    }

    /// Room, and what the links let pass, on the nodes where memory of a node may go.
    fn room_below(&self, state: &CgroupState, from: NodeId) -> (Bytes, Bytes) {
        let Some(left) = self.left(from) else { return (Bytes::ZERO, Bytes::ZERO) };
        let targets = left.targets.iter().filter(|to| state.may_use(**to));
        targets.filter_map(|to| self.left(*to)).fold((Bytes::ZERO, Bytes::ZERO), |(room, rate), to| {
            (room + to.room, rate + to.room.min(to.rate))
        })
    }

    fn has_target(&self, state: &CgroupState, from: NodeId) -> bool {
        self.left(from).is_some_and(|left| left.targets.iter().any(|to| state.may_use(*to)))
    }

    /// What each cgroup gives for headroom, by node.
    fn headroom(&self, host: &Host, nodes: &mut [NodePlan]) -> BTreeMap<CgroupKey, Vec<(NodeId, Given)>> {
        let mut asked: BTreeMap<CgroupKey, Vec<(NodeId, Given)>> = BTreeMap::new();
        for node in nodes.iter_mut().filter(|node| !node.shortfall.is_zero()) {
            let urgent = host.nodes[&node.node].urgent_since.map(|since| self.now.since(since));
            let able: Vec<(CgroupKey, &CgroupState, &OnNode)> = host
                .cgroups
                .iter()
                .filter(|(_, state)| is_enforced(state) && state.reach.barrier.is_none())
                .filter_map(|(key, state)| {
                    let on = state.nodes.iter().find(|on| on.node == node.node)?;
                    let is_worth = !state.worth(on, least_age(state, urgent), self.now).is_zero();
                    (is_worth && self.has_target(state, node.node)).then_some((*key, state, on))
                })
                .collect();
            let offers = able.iter().map(|(key, state, on)| {
                let given = asked.get(key).into_iter().flatten().map(|(_, given)| given.bytes).sum::<Bytes>();
                let (room, _) = self.room_below(state, node.node);
                Offer {
                    entries: on.ledger.entries(self.now),
                    bound: on.bound.get(self.now),
                    most: (state.on_fast() - given - self.protected(state))
                        .min(on.anon)
                        .min(room)
                        .min(state.policy.demote.max_rate.over(SOON)),
                    least_age: least_age(state, urgent),
                    weight: state.policy.dram.weight,
                }
            });
            let filled = fill(offers, node.shortfall);
            node.fill_age = filled.level;
            node.unmet = filled.unmet;
            for ((key, ..), given) in able.iter().zip(filled.given) {
                if !given.bytes.is_zero() {
                    asked.entry(*key).or_default().push((node.node, given));
                }
            }
        }
        asked
    }

    /// What no other's need takes: the stated floor, and of what the kernel protects the part that DRAM is of the host's memory.
    pub(super) fn protected(&self, state: &CgroupState) -> Bytes {
        let limits = state.last.as_ref().map(|last| last.limits).unwrap_or_default();
        let low = limits.low.unwrap_or_default().max(limits.min.unwrap_or_default());
        let (floor, _) = bounds(state, self.now);
        floor.max(low.min(state.footprint()).min(state.on_fast()))
    }

    /// The plan of one cgroup, of which a sample is known.
    fn cgroup(
        &mut self,
        key: CgroupKey,
        state: &mut CgroupState,
        asked: &[(NodeId, Given)],
    ) -> Option<CgroupPlan> {
        let now = self.now;
        let sampled = state.last.as_ref()?.at;
        let (floor, ceiling) = bounds(state, now);
        let fast = state.on_fast();
        let age = state.touches.age();
        let bound: Bytes = state.fast().map(|on| on.bound.get(now).min(on.anon)).sum();
        let cold: Bytes = state.fast().map(|on| on.older(age, now)).sum();
        let allowed_touch = state.touches.allowance(state.policy.demote.slow_touch_rate);
        let mut plan = CgroupPlan {
            key,
            mode: if is_enforced(state) { Mode::Enforce } else { Mode::Observe },
            effective_age: age,
            cold,
            demote: Vec::new(),
            limit: None,
            promote: Vec::new(),
            promote_budget: ByteRate(0),
            promote_limit: None,
            floor,
            ceiling,
            would_free: self.would_free(state, age, fast - floor),
            bound,
            touched_per_minute: state.touched_per_minute,
            allowed_touch,
            memory_high: memory_high::Step::Leave,
            walk_every: walk_every(state),
            look_again: sampled + walk_every(state),
        };
        // Enforced cgroups share rates and room; what an observed one would do takes nothing from them.
        let held = plan.mode == Mode::Observe;
        let saved: Vec<(Bytes, Bytes)> =
            if held { self.left.iter().map(|left| (left.room, left.rate)).collect() } else { Vec::new() };
        self.demote(state, asked, &mut plan);
        self.promote(state, !asked.is_empty(), &mut plan);
        for (left, (room, rate)) in self.left.iter_mut().zip(saved) {
            (left.room, left.rate) = (room, rate);
        }
        self.limits(state, &mut plan);
        if !plan.is_hold() || matches!(plan.limit, Some(Limit::RateCap | Limit::NodeRate)) {
            plan.look_again = plan.look_again.min(now + BUSY);
        }
        Some(plan)
    }

    fn would_free(&self, state: &CgroupState, age: Duration, above_floor: Bytes) -> Bytes {
        let by_node =
            state.fast().map(|on| state.worth(on, age, self.now).min(self.room_below(state, on.node).0));
        by_node.sum::<Bytes>().min(above_floor)
    }

    fn demote(&mut self, state: &mut CgroupState, asked: &[(NodeId, Given)], plan: &mut CgroupPlan) {
        let fast = state.on_fast();
        let mut budget = fast - plan.floor;
        let cap = state.demote_bucket.available(self.now);
        let mut wishes: Vec<(NodeId, Given, DemoteReason)> =
            asked.iter().map(|(node, given)| (*node, *given, DemoteReason::Headroom)).collect();
        let sum_of = |wishes: &[(NodeId, Given, DemoteReason)]| -> Bytes {
            wishes.iter().map(|(_, given, _)| given.bytes).sum()
        };
        let over = fast - plan.ceiling - sum_of(&wishes);
        // Where nothing tells ages, in steps: what is in use is used again between two.
        let blind = state.last.as_ref().is_some_and(|last| last.blind);
        let over = if blind { over.min(Bytes(fast.0 / 16).max(Bytes::mib(1))) } else { over };
        if !over.is_zero() {
            self.over_ceiling(state, over, &mut wishes);
        }
        // What is younger than `after` no listing proves: there, age does not matter.
        for (_, given, _) in wishes.iter_mut().filter(|(.., reason)| *reason == DemoteReason::Ceiling) {
            if given.least_age < state.policy.demote.after {
                given.least_age = Duration::ZERO;
            }
        }
        let guard = self.guard(state, plan);
        let worth: Bytes = state.fast().map(|on| state.worth(on, plan.effective_age, self.now)).sum();
        let free = match guard {
            None => worth - sum_of(&wishes),
            Some(_) => Bytes::ZERO,
        };
        let voluntary = self.on_trial(state, plan, free);
        let worth = Bytes::mib(1).min(Bytes(fast.0 / 128));
        if voluntary >= worth {
            self.cold(state, plan.effective_age, voluntary, &mut wishes);
        }
        let swapped = self.exchange(state, plan);
        if !swapped.is_zero() && wishes.is_empty() {
            self.cold(state, state.exchange.age(&state.policy.demote), swapped, &mut wishes);
            for (.., reason) in &mut wishes {
                *reason = DemoteReason::Ceiling;
            }
        }
        plan.limit = match guard {
            Some(limit) if plan.cold > sum_of(&wishes) => Some(limit),
            _ if free > voluntary => Some(Limit::Portion(state.portion.on_trial())),
            _ if wishes.is_empty() && !plan.bound.is_zero() && plan.cold.is_zero() => {
                Some(Limit::Bound(plan.bound))
            }
            _ if wishes.is_empty() && worth < plan.cold => Some(Limit::TooFew(plan.cold - worth)),
            _ if wishes.is_empty() => Some(Limit::NothingCold),
            _ => None,
        };
        if !fast.is_zero() && !state.fast().any(|on| self.has_target(state, on.node)) {
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
        wishes.sort_by_key(|(_, _, reason)| core::cmp::Reverse(*reason));
        let mut left = cap;
        for (node, given, reason) in wishes {
            if !self.has_target(state, node) {
                plan.limit = Some(Limit::NoTarget);
                continue;
            }
            let (room, link) = self.room_below(state, node);
            let rate = self.left(node).map_or(Bytes::ZERO, |left| left.rate).min(link);
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
            let to = self.take(state, node, bytes);
            match plan.demote.iter_mut().find(|demote| demote.from == node) {
                Some(known) => {
                    known.bytes += bytes;
                    known.least_age = known.least_age.min(given.least_age);
                }
                None => {
                    plan.demote.push(Demote { from: node, to, bytes, least_age: given.least_age, reason });
                }
            }
        }
    }

    /// Takes room and rate of a move; where it goes.
    fn take(&mut self, state: &CgroupState, from: NodeId, bytes: Bytes) -> Vec<NodeId> {
        let mut targets = Vec::new();
        if let Some(left) = self.left_mut(from) {
            left.rate -= bytes;
            targets.clone_from(&left.targets);
        }
        targets.retain(|to| state.may_use(*to));
        let mut missing = bytes;
        for to in &targets {
            let Some(left) = self.left_mut(*to) else { continue };
            let part = missing.min(left.room);
            left.room -= part;
            left.rate -= part;
            missing -= part;
        }
        targets
    }

    /// What is above the ceiling: the oldest of all its fast nodes.
    fn over_ceiling(
        &self,
        state: &CgroupState,
        over: Bytes,
        wishes: &mut Vec<(NodeId, Given, DemoteReason)>,
    ) {
        let mut entries: Vec<(Duration, Bytes, NodeId)> = Vec::new();
        for on in state.fast().filter(|on| self.has_target(state, on.node)) {
            let taken = wishes.iter().filter(|(node, ..)| *node == on.node).map(|(_, given, _)| given.bytes);
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
        for (age, bytes, node) in entries {
            let bytes = bytes.min(missing);
            if bytes.is_zero() {
                continue;
            }
            missing -= bytes;
            let known =
                wishes.iter_mut().find(|(from, _, reason)| *from == node && *reason == DemoteReason::Ceiling);
            match known {
                Some((_, given, _)) => {
                    given.bytes += bytes;
                    given.least_age = age;
                }
                None => wishes.push((node, Given { bytes, least_age: age }, DemoteReason::Ceiling)),
            }
        }
    }

    /// Cold memory, the oldest of all fast nodes first.
    fn cold(
        &self,
        state: &CgroupState,
        age: Duration,
        bytes: Bytes,
        wishes: &mut Vec<(NodeId, Given, DemoteReason)>,
    ) {
        let on: Vec<&OnNode> = state.fast().filter(|on| self.has_target(state, on.node)).collect();
        let offers = on.iter().map(|on| {
            let taken = wishes.iter().filter(|(node, ..)| *node == on.node).map(|(_, given, _)| given.bytes);
            Offer {
                entries: on.ledger.entries(self.now),
                bound: on.bound.get(self.now) + taken.sum(),
                most: if state.worth(on, age, self.now).is_zero() { Bytes::ZERO } else { on.anon },
                least_age: age,
                weight: 100,
            }
        });
        let filled = fill(offers, bytes);
        for (on, given) in on.iter().zip(filled.given) {
            if !given.bytes.is_zero() {
                wishes.push((on.node, given, DemoteReason::Cold));
            }
        }
        if on.is_empty() {
            // So that the missing target is what is told.
            let nodes = state.fast().map(|on| on.node);
            let least_age = age;
            wishes.extend(nodes.map(|node| (node, Given { bytes, least_age }, DemoteReason::Cold)));
        }
    }

    /// What of `free` may sink before the last portion is judged; what is several times as old needs no trial.
    fn on_trial(&self, state: &CgroupState, plan: &CgroupPlan, free: Bytes) -> Bytes {
        let age = plan.effective_age;
        let sure: Bytes = state.fast().map(|on| on.older(age.saturating_mul(3), self.now)).sum();
        let foreseen = state.touches.foreseen(plan.allowed_touch);
        state.portion.left(free, state.on_fast(), foreseen).max(sure).min(free)
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

    fn limits(&self, state: &mut CgroupState, plan: &mut CgroupPlan) {
        let anon = state.footprint();
        let Some(last) = state.last.as_ref() else { return };
        let limits = last.limits;
        plan.memory_high = match state.policy.memory_high {
            MemoryHighPolicy::Pressure { target, floor } => {
                plan.look_again = plan.look_again.min(last.at + Duration::from_secs(6));
                state.usage.pressure(last, anon, target, floor, self.page)
            }
            policy => {
                let policy = within_max(policy, limits.max);
                memory_high::step(
                    policy,
                    state.usage.peak().max(last.current),
                    limits.high_before_us,
                    limits.high_of_ours,
                    self.page,
                )
            }
        };
    }
}

/// The floor and the ceiling that apply to a cgroup. Where no floor is stated it is the working set; but not above a stated ceiling.
fn bounds(state: &CgroupState, _now: Instant) -> (Bytes, Bytes) {
    let footprint = state.footprint();
    (state.policy.floor(footprint), state.policy.ceiling(footprint))
}

fn is_enforced(state: &CgroupState) -> bool {
    state.policy.mode == Mode::Enforce && !state.held
}

/// A formula never computes with more than `memory.max`: a limit that was lowered is there before the cluster tells of it.
fn within_max(policy: MemoryHighPolicy, max: Option<Bytes>) -> MemoryHighPolicy {
    match (policy, max) {
        (MemoryHighPolicy::Formula { factor, request, limit }, Some(max)) => {
            let limit = limit.min(max);
            MemoryHighPolicy::Formula { factor, request: request.min(limit), limit }
        }
        (policy, _) => policy,
    }
}
