//! Makes the plan: each cgroup in its turn, with what the ones before left of nodes.
//!
//! # Problem
//! Many cgroups share nodes, rates and room. What each would do alone moves hot memory of one while cold memory of another stays.
//!
//! # Approach
//! First what short nodes ask of all together ([`super::headroom`]), then each cgroup once: what goes down ([`super::lower`]), what comes up
//! ([`super::raise`]), `memory.high` ([`super::limit`]). What one is granted of a node's room and rate the next one does not have; whoever is first in
//! one plan is last in the next. An observed cgroup is decided about in the same way, and takes nothing from the others.
//!
//! # Properties
//! - `observe_decides_the_same` but for headroom, which is asked of those who can give.
//! - `nothing_is_said_that_is_not_done`: no promotion is planned where we don't promote.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;
use core::mem;
use core::time::Duration;

use super::Host;
use super::cgroup::{CgroupState, Sums};
use super::fill::Given;
use super::plan::{CgroupPlan, NodePlan, Plan};
use super::sample::{CgroupKey, NodeSample, Promoter, Speed};
use crate::memory_high;
use crate::node::{NodeId, NodeSet};
use crate::policy::{DemotePolicy, MemoryHighPolicy, Mode};
use crate::reason::{DemoteReason, Limit};
use crate::units::{ByteRate, Bytes, Instant};

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
    pub(super) is_short: bool,
    /// For how long it has been urgent.
    pub(super) urgent: Option<Duration>,
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
    pub(super) left: Vec<Left>,
    /// Place in `left` by node number.
    places: Vec<u32>,
    /// Whose turn it is may use these.
    allowed: NodeSet,
}

/// What is wished to move down from a node.
pub(super) struct Wish {
    pub(super) from: NodeId,
    pub(super) given: Given,
    pub(super) reason: DemoteReason,
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

    pub(super) fn place(&self, node: NodeId) -> Option<usize> {
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
    pub(super) fn room_below(&self, from: NodeId) -> (Bytes, Bytes) {
        self.targets(from).fold((Bytes::ZERO, Bytes::ZERO), |(room, rate), (_, to)| {
            (room + to.room, rate + to.room.min(to.rate))
        })
    }

    pub(super) fn has_target(&self, from: NodeId) -> bool {
        self.targets(from).next().is_some()
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
