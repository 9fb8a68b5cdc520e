//! What to do about one cgroup now.
//!
//! # Problem
//! Sink what is cold, never below the floor, at the rate the policy states; keep under the ceiling even if that costs
//! warm memory; give way where the host is short of DRAM; and stop when the pod pays for it.
//!
//! # Approach
//! Three wishes to demote, the greatest counts: the ceiling (any age), the arbiter's grant for headroom (any age), and
//! cold memory (at least the effective age). The floor, the target's room and the rate cap bound it. The guards
//! (stalls, slow touches) hold only the wish that is voluntary: a ceiling is a promise to others. Touches on slow nodes
//! don't hold what makes room for the promotion that ends them, else a cgroup whose fast nodes are full of cold
//! memory and whose slow nodes are hot would stay so.
//!
//! Demotion takes from fast nodes and promotion from slow nodes; who is asked to give way promotes nothing. So no page goes both
//! ways in one round.
//!
//! # Properties
//! - `floor_is_never_crossed`: after the decision, DRAM is at least the floor, or it was below before.
//! - `ceiling_is_asked_for`: what is above the ceiling is demoted as far as cap and room allow.
//! - `older_ages_demote_less`: for a voluntary demotion, a greater `after` never demotes more.
//! - `observe_decides_the_same`: the mode changes what is done, not what is decided.

use core::fmt;
use core::time::Duration;

use crate::model::Model;
use crate::policy::{Mode, Policy};
pub use crate::reason::{DemoteReason, Limit};
use crate::units::Bytes;

/// Where demoted memory may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To slow nodes that have this much room above their watermarks.
    Room(Bytes),
    /// Nowhere: no slow node is allowed to the cgroup.
    None,
    /// Nowhere: the engine can't tell demotion from swapping out, and the cgroup may swap.
    MaySwap,
}

/// What bounds a decision from outside the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Where demoted memory may go.
    pub target: Target,
    /// Room on allowed fast nodes: none while others are asked to leave them.
    pub fast_room: Bytes,
    /// What the arbiter asks this cgroup to give up.
    pub give_up: Bytes,
    /// What the last walk found touched on slow nodes and still is there.
    pub hot_slow: Bytes,
    /// What the demotion rate cap lets pass now.
    pub demote_cap: Bytes,
    /// What the promotion rate cap lets pass now.
    pub promote_cap: Bytes,
}

/// What to do about one cgroup, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The age that counts as cold.
    pub effective_age: Duration,
    /// Anonymous bytes on fast nodes at least that old.
    pub cold: Bytes,
    /// Cold bytes that the policy could move now but for rates and guards: without the floor, what can't move, and what slow
    /// nodes have no room for. The saving.
    pub would_free: Bytes,
    /// Bytes to demote now.
    pub demote: Bytes,
    /// Only memory at least this old; zero takes the coldest first, whatever its age.
    pub demote_age: Duration,
    /// Why.
    pub reason: DemoteReason,
    /// What kept it from more.
    pub limit: Option<Limit>,
    /// Bytes to promote now.
    pub promote: Bytes,
    /// What kept it from more, where something on slow nodes is hot.
    pub promote_limit: Option<Limit>,
    /// The floor and ceiling that were applied.
    pub floor: Bytes,
    /// See `floor`.
    pub ceiling: Bytes,
}

impl Decision {
    /// Whether nothing is to be moved.
    #[must_use]
    pub fn is_hold(&self) -> bool {
        self.demote.is_zero() && self.promote.is_zero()
    }
}

impl Decision {
    /// In plain words. What is only observed says so first: nobody shall take it for done.
    #[must_use]
    pub fn words(&self, mode: Mode) -> Words<'_> {
        Words { decision: self, observed: mode == Mode::Observe }
    }
}

/// A decision in plain words.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    decision: &'a Decision,
    observed: bool,
}

impl Words<'_> {
    fn verb(self, f: &mut fmt::Formatter<'_>, verb: &str, bytes: Bytes) -> fmt::Result {
        if self.observed { write!(f, "would {verb} {bytes} (observed)") } else { write!(f, "{verb} {bytes}") }
    }
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = self.decision;
        if decision.demote.is_zero() {
            match decision.limit {
                Some(limit) => write!(f, "hold: {limit}")?,
                None => write!(f, "hold")?,
            }
        } else {
            self.verb(f, "demote", decision.demote)?;
            match decision.reason {
                DemoteReason::Cold => {
                    write!(f, ": {} not accessed for {:?}", decision.cold, decision.effective_age)?;
                }
                DemoteReason::Ceiling => write!(f, ": over the ceiling of {}", decision.ceiling)?,
                DemoteReason::Headroom => write!(f, ": the host is short of DRAM")?,
            }
            if let Some(limit) = decision.limit {
                write!(f, " ({limit})")?;
            }
        }
        if !decision.promote.is_zero() {
            write!(f, "; ")?;
            self.verb(f, "promote", decision.promote)?;
            write!(f, ": touched on a slow node")?;
        }
        match decision.promote_limit {
            Some(Limit::PromotionOff) | None => Ok(()),
            Some(limit) => write!(f, " (promotion: {limit})"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words(Mode::Enforce).fmt(f)
    }
}

/// Slow touches a minute that the policy allows this cgroup. Below a huge page they are noise.
#[must_use]
pub fn allowed_slow_touch(model: &Model, policy: &Policy) -> Bytes {
    policy.demote.slow_touch_rate.of(model.working_set(Duration::from_mins(1))).max(Bytes::mib(2))
}

/// What to do about one cgroup now. `touched_per_minute` is smoothed by the caller's track.
#[must_use]
pub fn decide(
    model: &Model,
    policy: &Policy,
    effective_age: Duration,
    touched_per_minute: Bytes,
    bounds: Bounds,
) -> Decision {
    let footprint = model.footprint();
    let (floor, ceiling) = (policy.floor(footprint), policy.ceiling(footprint));
    let movable = model.fast_anon - model.fast_unmovable;
    let cold = model.ages.at_least(effective_age).min(movable);
    let over_ceiling = (model.fast_anon - ceiling).min(movable);

    let hot_slow = bounds.hot_slow.min(model.slow_anon);
    // What was just asked to leave is not brought up in the same round.
    let fast_room = if bounds.give_up.is_zero() { bounds.fast_room } else { Bytes::ZERO };
    let promotion_room = fast_room.min(ceiling - model.fast_anon);
    let guard = guard(model, policy, touched_per_minute);
    let voluntary = match guard {
        None => cold,
        Some(Limit::SlowTouch { .. }) if policy.promote.enabled => {
            cold.min(hot_slow.min(bounds.promote_cap) - promotion_room)
        }
        Some(_) => Bytes::ZERO,
    };
    let voluntary = if voluntary < worthwhile(model) { Bytes::ZERO } else { voluntary };
    let (wish, reason) = [
        (bounds.give_up.min(movable), DemoteReason::Headroom),
        (over_ceiling, DemoteReason::Ceiling),
        (voluntary, DemoteReason::Cold),
    ]
    .into_iter()
    .max_by_key(|(bytes, _)| *bytes)
    .unwrap_or((Bytes::ZERO, DemoteReason::Cold));

    let mut demote = wish;
    let mut limit = match guard {
        Some(limit) if cold > wish => Some(limit),
        _ if wish.is_zero() => Some(Limit::NothingCold),
        _ => None,
    };
    let mut bound_by = |bound: Bytes, by: Limit| {
        if demote > bound {
            (demote, limit) = (bound, Some(by));
        }
    };
    bound_by(model.fast_anon - floor, Limit::Floor);
    match bounds.target {
        Target::Room(room) => bound_by(room, Limit::TargetFull),
        Target::None => bound_by(Bytes::ZERO, Limit::NoTarget),
        Target::MaySwap => bound_by(Bytes::ZERO, Limit::MaySwap),
    }
    bound_by(bounds.demote_cap, Limit::RateCap);
    // Whatever is cold.
    if bounds.target == Target::None && !model.fast_anon.is_zero() {
        limit = Some(Limit::NoTarget);
    }

    let mut promote = hot_slow;
    let mut promote_limit = None;
    let mut bound_by = |bound: Bytes, by: Limit| {
        if promote > bound {
            (promote, promote_limit) = (bound, Some(by));
        }
    };
    if policy.promote.enabled {
        bound_by(promotion_room, Limit::FastFull);
        bound_by(bounds.promote_cap, Limit::RateCap);
    } else {
        bound_by(Bytes::ZERO, Limit::PromotionOff);
    }

    let room = match bounds.target {
        Target::Room(room) => room,
        Target::None | Target::MaySwap => Bytes::ZERO,
    };
    let would_free = cold.min(model.fast_anon - floor).min(room);
    let demote_age = if reason == DemoteReason::Cold { effective_age } else { Duration::ZERO };
    Decision {
        effective_age,
        cold,
        would_free,
        demote,
        demote_age,
        reason,
        limit,
        promote,
        promote_limit,
        floor,
        ceiling,
    }
}

/// Less cold memory than this waits for more: moving a handful of pages costs as many system calls as moving many.
fn worthwhile(model: &Model) -> Bytes {
    Bytes::mib(1).min(Bytes(model.fast_anon.0 / 128))
}

/// What holds voluntary demotion, if anything does.
fn guard(model: &Model, policy: &Policy, touched_per_minute: Bytes) -> Option<Limit> {
    if let Some(stall) = model.memory_stall.filter(|stall| *stall > policy.pressure.memory) {
        return Some(Limit::MemoryPressure(stall));
    }
    if let Some(stall) = model.io_stall.filter(|stall| policy.pressure.io.is_some_and(|most| *stall > most)) {
        return Some(Limit::IoPressure(stall));
    }
    let allowed = allowed_slow_touch(model, policy);
    (touched_per_minute > allowed).then_some(Limit::SlowTouch { touched: touched_per_minute, allowed })
}

#[cfg(test)]
mod tests;
