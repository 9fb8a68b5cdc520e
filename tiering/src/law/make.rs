//! Makes the plan: who moves what, within which bounds, and what holds the rest.
//!
//! # Problem
//! Many cgroups share nodes, rates and room. What each would do alone moves hot memory of one while cold memory of another stays.
//!
//! # Approach
//! Three reasons to demote, in this order: headroom of a short node (coldest first over all cgroups, [`super::fill`]), a cgroup's ceiling
//! (its coldest first, any age), cold memory (at least the effective age). A stated floor bounds all three; what was accessed
//! within half of `after` is never taken for others' sake, nor is what `memory.low` protects. Rates of cgroup, node and
//! link and the room of the targets bound all. The guards hold only what is voluntary: a ceiling is a promise to others.
//!
//! For headroom, memory is taken that has been idle for the cgroup's own age, and of who holds more than its share by weight for `after`: what comes back
//! at such ages frees nothing, but somebody has to give to who holds less. Only while less than the kernel's low watermark is available, the age
//! falls, an eighth of `after` every two seconds, down to half of it.
//!
//! Thousands of cgroups do not fit into a cache: each is looked at once for all short nodes together, and once in its turn.
//!
//! # Properties
//! - `floor_is_never_crossed`, `ceiling_is_asked_for`.
//! - `only_a_short_node_takes`: a full node beside an empty one is short, and only its own memory is taken.
//! - `only_who_holds_more_than_its_share_gives_below_its_own_age`.
//! - `after_is_a_promise`: above the kernel's low watermark nothing younger is taken for headroom.
//! - `what_is_planned_fits_the_rates`, `what_is_planned_fits_the_room`.
//! - `observe_decides_the_same` but for headroom, which is asked of those who can give.
//! - `nothing_is_said_that_is_not_done`: no promotion is planned where we don't promote.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;
use core::mem;
use core::time::Duration;

use super::Host;
use super::cgroup::{CgroupState, Sums};
use super::fill::{Given, Offer, Offers, fill};
use super::plan::{CgroupPlan, Demote, NodePlan, Plan};
use super::sample::{Barrier, CgroupKey, NodeSample, Promoter, Speed};
use crate::memory_high;
use crate::node::{NodeId, NodeSet};
use crate::policy::{DemotePolicy, MemoryHighPolicy, Mode};
use crate::reason::{DemoteReason, Limit};
use crate::units::{ByteRate, Bytes, Instant};

/// While less than the low watermark is available, the age falls by an eighth of `after` in each of these.
const STEP: Duration = Duration::from_secs(2);

/// What a cgroup's own rate does not let pass within this time, others are asked for.
const SOON: Duration = Duration::from_secs(5);

/// A cgroup is sampled at least this often while it has anything to do.
const BUSY: Duration = Duration::from_secs(1);

/// What is left of a node for this plan: nothing of one that is gone.
#[derive(Default)]
pub(super) struct Left {
    pub(super) targets: Arc<[NodeId]>,
    pub(super) room: Bytes,
    pub(super) rate: Bytes,
    /// Whether the cgroup whose turn it is may use the node.
    pub(super) may_use: bool,
    is_short: bool,
    /// For how long it has been urgent.
    urgent: Option<Duration>,
    pub(super) is_tight: bool,
    /// Weights of those who share the node, where it is tight.
    pub(super) weights: u64,
    pub(super) total: Bytes,
}

impl Left {
    /// What weights leave whoever has this one of a tight node.
    pub(super) fn share(&self, weight: u32) -> Bytes {
        let share = u128::from(self.total.0) * u128::from(weight) / u128::from(self.weights.max(1));
        Bytes(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// The working state of one plan.
pub(super) struct Making {
    pub(super) now: Instant,
    pub(super) promoter: Promoter,
    pub(super) page: u64,
    left: Vec<Left>,
    /// Place in `left` by node number.
    places: Vec<u32>,
    /// Whose turn it is may use these.
    allowed: NodeSet,
}

/// What is wished to move down from a node.
pub(super) struct Wish {
    from: NodeId,
    given: Given,
    reason: DemoteReason,
}

fn sum_of(wishes: &[Wish]) -> Bytes {
    wishes.iter().map(|wish| wish.given.bytes).sum()
}

/// Time between two walks of a cgroup's page tables: at most four generations exist, so memory that is provably as old as the age
/// needs two walks within it. At a ceiling the coldest goes whatever its age, and walks tell what is colder ([`super::exchange`]). While more is hot on slow
/// nodes than is allowed, walks find what is to come up, however long the age.
pub(super) fn walk_every(state: &CgroupState, sums: Sums) -> Duration {
    let DemotePolicy { after, slow_touch_rate, .. } = state.policy.demote;
    let ceiling = state.policy.ceiling(sums.footprint);
    let age = if is_near(ceiling, sums.fast) {
        state.exchange.age(&state.policy.demote)
    } else if state.slow().map(|on| on.hot).sum::<Bytes>() > state.touches.allowance(slow_touch_rate) {
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
fn least_age(state: &CgroupState, urgent: Option<Duration>, is_above_share: bool) -> Duration {
    let after = state.policy.demote.after;
    let Some(urgent) = urgent else {
        return if is_above_share { after } else { state.touches.age() };
    };
    let steps = u32::try_from(urgent.as_millis() / STEP.as_millis()).unwrap_or(8).min(8);
    let level = after.saturating_sub(after / 8 * steps);
    (level.saturating_mul(state.policy.dram.weight) / 100).clamp(least_age_ever(state), after)
}

pub(super) fn plan(host: &mut Host, now: Instant) -> Plan {
    let mut making = Making::new(host, now);
    let mut nodes =
        host.nodes.iter().map(|(id, state)| NodePlan::new(*id, &state.sample)).collect::<Vec<_>>();
    let wishes = making.headroom(host, &mut nodes);

    // Where rates or room are short, whoever is first in this plan is last in the next.
    let turn = usize::try_from(host.plans).unwrap_or(0) % host.cgroups.len().max(1);
    let mut cgroups: Vec<CgroupPlan> = Vec::with_capacity(host.cgroups.len());
    let mut states: Vec<(CgroupKey, &mut CgroupState, Vec<Wish>)> = host
        .cgroups
        .iter_mut()
        .zip(wishes.into_iter().chain(iter::repeat_with(Vec::new)))
        .map(|((key, state), wishes)| (*key, state.as_mut(), wishes))
        .collect();
    let (last, first) = states.split_at_mut(turn);
    for (key, state, wishes) in first {
        cgroups.extend(making.cgroup(*key, state, mem::take(wishes)));
    }
    let ahead = cgroups.len();
    for (key, state, wishes) in last {
        cgroups.extend(making.cgroup(*key, state, mem::take(wishes)));
    }
    cgroups.rotate_left(ahead);
    let kernel_promotion = match making.promoter {
        Promoter::Kernel => making.kernel_promotion(host, &nodes),
        Promoter::None | Promoter::Agent => ByteRate(0),
    };
    Plan { at: now, nodes, cgroups, kernel_promotion }
}

impl NodePlan {
    fn new(node: NodeId, sample: &NodeSample) -> Self {
        Self {
            node,
            available: sample.available(),
            headroom: if sample.speed == Speed::Fast { sample.headroom() } else { Bytes::ZERO },
            shortfall: sample.shortfall(),
            room: sample.room(),
            urgent: sample.is_urgent(),
            fill_age: None,
            unmet: Bytes::ZERO,
        }
    }
}

impl Making {
    pub(super) fn new(host: &mut Host, now: Instant) -> Self {
        let (promoter, page) = (host.settings.promoter, host.settings.page);
        let mut making =
            Self { now, promoter, page, left: Vec::new(), places: Vec::new(), allowed: NodeSet::default() };
        let known = host.nodes.iter().flat_map(|(id, state)| iter::once(id).chain(&state.sample.targets));
        let known: NodeSet = known.copied().collect();
        for node in known.iter() {
            making.places.resize(node.0 as usize, u32::MAX);
            making.places.push(u32::try_from(making.left.len()).unwrap_or(u32::MAX));
            making.left.push(host.nodes.get_mut(&node).map_or_else(Left::default, |state| Left {
                targets: state.sample.targets.as_slice().into(),
                room: state.sample.room(),
                rate: state.bucket.available(now),
                total: state.sample.total,
                is_tight: state.sample.is_tight(),
                is_short: !state.sample.shortfall().is_zero(),
                urgent: state.urgent_since.map(|since| now.since(since)),
                ..Left::default()
            }));
        }
        making
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.places.get(node.0 as usize).map(|place| *place as usize)
    }

    pub(super) fn left(&self, node: NodeId) -> Option<&Left> {
        self.left.get(self.place(node)?)
    }

    pub(super) fn left_mut(&mut self, node: NodeId) -> Option<&mut Left> {
        let place = self.place(node)?;
        self.left.get_mut(place)
    }

    /// It is a cgroup's turn: where its memory may be is looked up by node from now on.
    pub(super) fn turn_to(&mut self, state: &CgroupState) {
        // Most cgroups may use the same.
        if self.allowed == state.reach.allowed {
            return;
        }
        self.allowed.clone_from(&state.reach.allowed);
        self.left.iter_mut().for_each(|left| left.may_use = false);
        for node in state.reach.allowed.iter() {
            if let Some(left) = self.left_mut(node) {
                left.may_use = true;
            }
        }
    }

    /// The nodes where memory of a node may go.
    pub(super) fn targets(&self, from: NodeId) -> impl Iterator<Item = (NodeId, &Left)> {
        let targets = self.left(from).into_iter().flat_map(|left| left.targets.iter());
        targets.filter_map(|to| Some((*to, self.left(*to).filter(|to| to.may_use)?)))
    }

    /// Room, and what the links let pass, on these.
    fn room_below(&self, from: NodeId) -> (Bytes, Bytes) {
        self.targets(from).fold((Bytes::ZERO, Bytes::ZERO), |(room, rate), (_, to)| {
            (room + to.room, rate + to.room.min(to.rate))
        })
    }

    fn has_target(&self, from: NodeId) -> bool {
        self.targets(from).next().is_some()
    }

    /// What each cgroup gives for headroom, in the order of the host; empty where nothing is short. Who shares tight nodes is noted.
    fn headroom(&mut self, host: &Host, nodes: &mut [NodePlan]) -> Vec<Vec<Wish>> {
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

    /// The plan of one cgroup, of which a sample is known, and of which so much is wished for headroom.
    fn cgroup(&mut self, key: CgroupKey, state: &mut CgroupState, wishes: Vec<Wish>) -> Option<CgroupPlan> {
        let now = self.now;
        let sampled = state.last.as_ref()?.at;
        self.turn_to(state);
        let sums = state.sums();
        let floor = state.policy.floor(sums.footprint);
        let age = state.touches.age();
        let (mut bound, mut cold, mut would_free) = (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
        for on in state.fast() {
            let old = on.older(age, now);
            bound += on.bound.get(now).min(on.anon);
            cold += old;
            would_free += state.worth(old).min(self.room_below(on.node).0);
        }
        let walk_every = walk_every(state, sums);
        let mut plan = CgroupPlan {
            key,
            mode: if is_enforced(state) { Mode::Enforce } else { Mode::Observe },
            effective_age: age,
            cold,
            demote: Vec::new(),
            limit: None,
            promote: Vec::new(),
            promote_limit: None,
            floor,
            ceiling: state.policy.ceiling(sums.footprint),
            would_free: would_free.min(sums.fast - floor),
            would_touch: state.touches.passed().min(sums.footprint - floor),
            bound,
            touched_per_minute: state.touched_per_minute,
            allowed_touch: state.touches.allowance(state.policy.demote.slow_touch_rate),
            memory_high: memory_high::Step::Leave,
            walk_every,
            look_again: sampled + walk_every,
        };
        // Enforced cgroups share rates and room; what an observed one would do takes nothing from them.
        let held = plan.mode == Mode::Observe;
        let saved: Vec<(Bytes, Bytes)> =
            if held { self.left.iter().map(|left| (left.room, left.rate)).collect() } else { Vec::new() };
        let gives = !wishes.is_empty();
        self.demote(state, sums, wishes, &mut plan);
        self.promote(state, sums, gives, &mut plan);
        for (left, (room, rate)) in self.left.iter_mut().zip(saved) {
            (left.room, left.rate) = (room, rate);
        }
        self.limits(state, sums, &mut plan);
        if !plan.is_hold() || matches!(plan.limit, Some(Limit::RateCap | Limit::NodeRate)) {
            plan.look_again = plan.look_again.min(now + BUSY);
        }
        Some(plan)
    }

    fn demote(&mut self, state: &mut CgroupState, sums: Sums, mut wishes: Vec<Wish>, plan: &mut CgroupPlan) {
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

    fn limits(&self, state: &mut CgroupState, sums: Sums, plan: &mut CgroupPlan) {
        let anon = sums.footprint;
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

/// What no other's need takes: the stated floor, and of what the kernel protects the part that DRAM is of the host's memory.
pub(super) fn protected(state: &CgroupState, sums: Sums) -> Bytes {
    let limits = state.last.as_ref().map(|last| last.limits).unwrap_or_default();
    let low = limits.low.unwrap_or_default().max(limits.min.unwrap_or_default());
    state.policy.floor(sums.footprint).max(low.min(sums.footprint).min(sums.fast))
}

pub(super) fn is_enforced(state: &CgroupState) -> bool {
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
