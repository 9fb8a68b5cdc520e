//! What one kdamond is to do, as a value.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// One kdamond that watches physical memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kdamond {
    /// How often it looks.
    pub intervals: Intervals,
    /// Least and most regions: more are more exact, and cost a look each.
    pub nr_regions: RangeInclusive<u64>,
    /// What is watched, in bytes of physical addresses.
    pub regions: Vec<Range<u64>>,
    /// What is done.
    pub schemes: Vec<Scheme>,
}

/// How often a kdamond looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// One page of each region is looked at this often.
    pub sample: Duration,
    /// Looks are counted, and regions split and merged, over this long.
    pub aggregation: Duration,
    /// What is watched is looked up anew this often. Physical memory never changes, so any number will do, and a number that
    /// nobody else would choose tells whose kdamond it is.
    pub update: Duration,
}

/// A part of the watched memory and what is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    /// What is done.
    pub action: Action,
    /// With which regions.
    pub pattern: AccessPattern,
    /// How often; zero for each aggregation.
    pub apply_interval: Duration,
    /// At most how much.
    pub quota: Quota,
    /// With which pages of these regions.
    pub filters: Vec<Filter>,
}

/// What is done with a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing but counting.
    Stat,
    /// Moved to this node, the hottest first.
    MigrateHot(u32),
    /// Moved to this node, the coldest first.
    MigrateCold(u32),
}

impl Action {
    /// The kernel's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::MigrateHot(_) => "migrate_hot",
            Self::MigrateCold(_) => "migrate_cold",
        }
    }

    /// The node that is moved to.
    #[must_use]
    pub const fn target(self) -> Option<u32> {
        match self {
            Self::Stat => None,
            Self::MigrateHot(node) | Self::MigrateCold(node) => Some(node),
        }
    }
}

/// Which regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPattern {
    /// Bytes.
    pub size: RangeInclusive<u64>,
    /// Samples of an aggregation that found it accessed.
    pub accesses: RangeInclusive<u32>,
    /// Aggregations for which it has been like this.
    pub age: RangeInclusive<u32>,
}

impl AccessPattern {
    /// Regions of any size and age in which at least so many samples found an access.
    #[must_use]
    pub fn accessed(samples: u32) -> Self {
        Self { size: 0..=u64::MAX, accesses: samples..=u32::MAX, age: 0..=u32::MAX }
    }
}

/// How much a scheme may do in each interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Bytes; zero for no bound. Kernels charge what was tried, that is all of a region, whatever its filters let pass: so much
    /// or less is moved. See `failed`.
    pub bytes: u64,
    /// Time; zero for no bound. Counted by a coarse clock.
    pub time: Duration,
    /// The interval.
    pub reset: Duration,
    /// What comes first where not all can be done.
    pub weights: Weights,
    /// Scales the quota so that each is met, and no more is done then.
    pub goals: Vec<Goal>,
    /// What is charged for bytes that were tried and not moved, as a fraction of one; kernels before 7.2 charge all.
    pub failed: (u32, u32),
}

/// What makes a region come first, each in thousandths. The kernel's default of zeros makes all alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weights {
    /// Its size.
    pub size: u32,
    /// How often it is accessed.
    pub accesses: u32,
    /// For how long it has been like this.
    pub age: u32,
}

/// A number that a quota works towards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Which, by the kernel's name: `user_input`, `some_mem_psi_us`, from 6.16 on `node_mem_used_bp` and so on.
    pub metric: &'static str,
    /// What it should be.
    pub target: u64,
    /// What it is; read by the kernel for `user_input` alone.
    pub current: u64,
    /// Of which node; `None` for metrics of the whole host.
    pub node: Option<u32>,
    /// Of which cgroup, by its path below the mount; from 6.19 on.
    pub memcg: Option<String>,
}

/// Rejects pages. Filters are asked in order; the first that rejects a page ends that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What is asked of a page.
    pub of: Match,
    /// Whether a page that is so is rejected; otherwise one that is not so.
    pub rejects: bool,
}

impl Filter {
    /// Lets only pages pass that are so.
    #[must_use]
    pub const fn only(of: Match) -> Self {
        Self { of, rejects: false }
    }

    /// Rejects pages that are so.
    #[must_use]
    pub const fn not(of: Match) -> Self {
        Self { of, rejects: true }
    }
}

/// What a filter asks of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Private and anonymous, `MADV_FREE` included.
    Anon,
    /// Charged to exactly this cgroup, by its path below the mount.
    Memcg(String),
    /// Accessed since it was asked last. Asking clears that.
    Young,
}

impl Match {
    /// The kernel's word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::Memcg(_) => "memcg",
            Self::Young => "young",
        }
    }
}

/// A region to which a scheme applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedRegion {
    /// Bytes of physical addresses.
    pub range: Range<u64>,
    /// Samples of the aggregation that found it accessed.
    pub accesses: u64,
    /// Aggregations for which it has been like this.
    pub age: u64,
}
