//! What a user wants for a cgroup, validated.

use core::time::Duration;

use alloc::vec::Vec;
use thiserror::Error;

use crate::tier::TierRef;
use crate::units::{ByteRate, Bytes, Ratio};

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and report; write nothing to the cgroup.
    Observe,
    /// Decide and act.
    Enforce,
}

/// An amount, absolute or of the cgroup's anonymous footprint on all tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// This many bytes.
    Bytes(Bytes),
    /// This part of the footprint.
    OfFootprint(Ratio),
}

impl Share {
    /// The amount for a cgroup of this footprint.
    #[must_use]
    pub fn resolve(self, footprint: Bytes) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::OfFootprint(ratio) => ratio.of(footprint),
        }
    }
}

/// How much of a cgroup's anonymous memory may or must be on fast nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DramPolicy {
    /// Least DRAM: demotion stops here. Where none is stated, [`crate::law`] takes nothing for others' sake that was accessed within half of
    /// `after`.
    pub floor: Option<Share>,
    /// Most DRAM: demotion is forced above, whatever the age.
    pub ceiling: Option<Share>,
    /// Share of scarce DRAM relative to other cgroups, 1 to 10 000.
    pub weight: u32,
}

/// Which engine finds and moves pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that this kernel allows.
    Auto,
    /// Generations of the multi-generational LRU.
    LruGen,
    /// `memory.reclaim`.
    Reclaim,
    /// Page scan and `move_pages(2)`.
    Pages,
}

/// When and how fast cold memory sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemotePolicy {
    /// Memory not accessed for this long is cold. The effective age never goes below.
    pub after: Duration,
    /// The effective age never goes above.
    pub after_max: Duration,
    /// Bytes touched on slow nodes per minute, as a share of the working set, above which demotion holds.
    pub slow_touch_rate: Ratio,
    /// Most bytes moved down per second.
    pub max_rate: ByteRate,
}

/// Whether and how fast hot memory is brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromotePolicy {
    /// Bring hot memory back to fast nodes.
    pub enabled: bool,
    /// Most bytes moved up per second, where the agent moves them.
    pub max_rate: ByteRate,
}

/// What `memory.high` should be. It bounds the footprint on all tiers, never the DRAM share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryHighPolicy {
    /// Leave it alone.
    None,
    /// This many bytes.
    Fixed(Bytes),
    /// KEP-2570: between request and limit by `factor`, see [`crate::memory_high::formula`].
    Formula {
        /// KEP-2570's memory throttling factor.
        factor: Ratio,
        /// The memory request.
        request: Bytes,
        /// The memory limit, or what the node can allocate where there is none.
        limit: Bytes,
    },
    /// As low as stalls allow, see [`crate::law`]: lowered while the cgroup stalls less than the target, raised where more.
    Pressure {
        /// Share of the time stalled on memory that is aimed at.
        target: Ratio,
        /// Never below this much.
        floor: Bytes,
    },
}

/// Share of time stalled above which demotion backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureGuard {
    /// Of `memory.pressure`, `some`.
    pub memory: Ratio,
    /// Of `io.pressure`, `some`; `None` does not look at it: demotion of anonymous memory causes no I/O.
    pub io: Option<Ratio>,
}

/// A validated policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Observe or enforce.
    pub mode: Mode,
    /// Allowed tiers; empty allows all and leaves `cpuset.mems` alone.
    pub tiers: Vec<TierRef>,
    /// DRAM share.
    pub dram: DramPolicy,
    /// Demotion.
    pub demote: DemotePolicy,
    /// Promotion.
    pub promote: PromotePolicy,
    /// `memory.high`.
    pub memory_high: MemoryHighPolicy,
    /// Reclaim what can be uncharged before usage meets `memory.high` or `memory.max`, instead of being throttled there.
    pub reclaim_ahead: bool,
    /// Pressure guard.
    pub pressure: PressureGuard,
}

impl Default for Policy {
    /// Cold after two minutes, Google's threshold for far memory (literature: 120 s finds a third of a fleet's memory
    /// cold); slow touches of 0.2 % of the working set per minute; the working set as floor, no ceiling, `memory.high` left alone.
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            tiers: Vec::new(),
            dram: DramPolicy { floor: None, ceiling: None, weight: 100 },
            demote: DemotePolicy {
                after: Duration::from_mins(2),
                after_max: Duration::from_mins(2) * DemotePolicy::AFTER_MAX_FACTOR,
                slow_touch_rate: Ratio::of_parts(2, 1000),
                max_rate: ByteRate::mib_per_s(200),
            },
            promote: PromotePolicy { enabled: true, max_rate: ByteRate::mib_per_s(200) },
            memory_high: MemoryHighPolicy::None,
            reclaim_ahead: false,
            pressure: PressureGuard { memory: Ratio::of_parts(1, 1000), io: None },
        }
    }
}

impl DemotePolicy {
    /// Where a policy names no greatest age, this many times `after`.
    pub const AFTER_MAX_FACTOR: u32 = 16;
    /// Least `after`: two scans must fit, and a scan walks page tables.
    pub const AFTER_MIN: Duration = Duration::from_secs(2);
    /// Greatest `after`.
    pub const AFTER_LIMIT: Duration = Duration::from_hours(7 * 24);
}

/// Why a policy is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// `after` out of range.
    #[error("demote.after is {0:?}; it must be between 2 s and 168h")]
    After(Duration),
    /// `afterMax` below `after`, or out of range.
    #[error("demote.afterMax is {max:?}; it must be between demote.after ({after:?}) and 168h")]
    AfterMax {
        /// `after`.
        after: Duration,
        /// `afterMax`.
        max: Duration,
    },
    /// Floor above ceiling.
    #[error("dram.floor is above dram.ceiling: no amount of DRAM satisfies both")]
    FloorAboveCeiling,
    /// Weight out of range.
    #[error("dram.weight is {0}; it must be between 1 and 10000")]
    Weight(u32),
    /// A rate of nothing.
    #[error("{0} is zero: set mode: Observe, or promote.enabled: false, to move nothing")]
    ZeroRate(&'static str),
    /// A limit of nothing.
    #[error("memoryHigh.value is zero: the cgroup could not hold a page")]
    ZeroHigh,
    /// A target of nothing.
    #[error("memoryHigh.target is zero: every cgroup stalls now and then")]
    ZeroTarget,
    /// A request above the limit.
    #[error("memoryHigh.formula: the request is above the limit")]
    RequestAboveLimit,
    /// The same tier twice.
    #[error("tiers names {0} twice")]
    TierTwice(TierRef),
}

impl Policy {
    /// The policy if it makes sense.
    pub fn validated(self) -> Result<Self, PolicyError> {
        let demote = &self.demote;
        if demote.after < DemotePolicy::AFTER_MIN || demote.after > DemotePolicy::AFTER_LIMIT {
            return Err(PolicyError::After(demote.after));
        }
        if demote.after_max < demote.after || demote.after_max > DemotePolicy::AFTER_LIMIT {
            return Err(PolicyError::AfterMax { after: demote.after, max: demote.after_max });
        }
        let comparable = match (self.dram.floor, self.dram.ceiling) {
            (Some(Share::Bytes(floor)), Some(Share::Bytes(ceiling))) => floor <= ceiling,
            (Some(Share::OfFootprint(floor)), Some(Share::OfFootprint(ceiling))) => floor <= ceiling,
            _ => true,
        };
        if !comparable {
            return Err(PolicyError::FloorAboveCeiling);
        }
        if !(1..=10_000).contains(&self.dram.weight) {
            return Err(PolicyError::Weight(self.dram.weight));
        }
        if demote.max_rate.0 == 0 {
            return Err(PolicyError::ZeroRate("demote.maxRate"));
        }
        if self.promote.enabled && self.promote.max_rate.0 == 0 {
            return Err(PolicyError::ZeroRate("promote.maxRate"));
        }
        match self.memory_high {
            MemoryHighPolicy::Fixed(value) if value.is_zero() => return Err(PolicyError::ZeroHigh),
            MemoryHighPolicy::Formula { request, limit, .. } if request > limit => {
                return Err(PolicyError::RequestAboveLimit);
            }
            MemoryHighPolicy::Pressure { target, .. } if target == Ratio::ZERO => {
                return Err(PolicyError::ZeroTarget);
            }
            _ => {}
        }
        for (i, tier) in self.tiers.iter().enumerate() {
            if self.tiers[..i].contains(tier) {
                return Err(PolicyError::TierTwice(*tier));
            }
        }
        Ok(self)
    }

    /// The floor for a cgroup of this footprint. A ceiling below the floor gives way to it: a pod is promised its
    /// floor. Without one, nothing.
    #[must_use]
    pub fn floor(&self, footprint: Bytes) -> Bytes {
        self.dram.floor.map_or(Bytes::ZERO, |floor| floor.resolve(footprint))
    }

    /// The ceiling for a cgroup of this footprint, never below the floor.
    #[must_use]
    pub fn ceiling(&self, footprint: Bytes) -> Bytes {
        self.dram.ceiling.map_or(Bytes::MAX, |share| share.resolve(footprint)).max(self.floor(footprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_policy_that_makes_no_sense_says_why() {
        let check = |change: fn(&mut Policy), says: &str| {
            let mut policy = Policy::default();
            change(&mut policy);
            assert_eq!(policy.validated().unwrap_err().to_string(), says);
        };
        check(
            |policy| policy.demote.after = Duration::from_secs(1),
            "demote.after is 1s; it must be between 2 s and 168h",
        );
        check(
            |policy| policy.demote.after_max = Duration::from_mins(1),
            "demote.afterMax is 60s; it must be between demote.after (120s) and 168h",
        );
        check(
            |policy| {
                policy.dram.floor = Some(Share::Bytes(Bytes::mib(2)));
                policy.dram.ceiling = Some(Share::Bytes(Bytes::mib(1)));
            },
            "dram.floor is above dram.ceiling: no amount of DRAM satisfies both",
        );
        check(|policy| policy.dram.weight = 0, "dram.weight is 0; it must be between 1 and 10000");
        check(
            |policy| policy.demote.max_rate = ByteRate(0),
            "demote.maxRate is zero: set mode: Observe, or promote.enabled: false, to move nothing",
        );
        check(
            |policy| policy.memory_high = MemoryHighPolicy::Fixed(Bytes::ZERO),
            "memoryHigh.value is zero: the cgroup could not hold a page",
        );
        assert_eq!(Policy::default().validated(), Ok(Policy::default()));
    }

    #[test]
    fn a_ceiling_below_the_floor_gives_way() {
        let mut policy = Policy::default();
        policy.dram.floor = Some(Share::Bytes(Bytes::mib(100)));
        policy.dram.ceiling = Some(Share::OfFootprint(Ratio::of_parts(1, 2)));
        let check = |footprint_mib, ceiling_mib| {
            assert_eq!(policy.ceiling(Bytes::mib(footprint_mib)), Bytes::mib(ceiling_mib));
        };
        check(1000, 500);
        check(100, 100);
    }
}
