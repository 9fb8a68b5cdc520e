//! Why a plan moves memory, and what kept it from moving more.

use core::fmt;

use crate::units::{Bytes, Ratio};

/// Why memory should sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DemoteReason {
    /// It is cold.
    Cold,
    /// The cgroup is over its ceiling.
    Ceiling,
    /// A fast node is short of headroom.
    Headroom,
}

impl DemoteReason {
    /// The reason as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Ceiling => "ceiling",
            Self::Headroom => "headroom",
        }
    }
}

/// What kept a decision from asking for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing was cold.
    NothingCold,
    /// The floor.
    Floor,
    /// The policy's rate cap.
    RateCap,
    /// No room on the slow nodes above their watermarks.
    TargetFull,
    /// There is no slow node this cgroup may use.
    NoTarget,
    /// It may swap, and the engine would swap out what lies on slow nodes.
    MaySwap,
    /// Stalled on memory for this share of the time.
    MemoryPressure(Ratio),
    /// Stalled on I/O for this share of the time.
    IoPressure(Ratio),
    /// Touched this much on slow nodes per minute, against what the policy allows.
    SlowTouch {
        /// Seen.
        touched: Bytes,
        /// Allowed.
        allowed: Bytes,
    },
    /// No room on the fast nodes, or the ceiling.
    FastFull,
    /// Promotion is off.
    PromotionOff,
    /// What is cold can't be moved, as was learned from what was asked and stayed.
    Bound(Bytes),
    /// So little is cold on one node that the move would cost more than it saves.
    TooFew(Bytes),
    /// It was not watched for long enough yet.
    StartUp,
    /// Nobody would bring it back.
    NoPromoter,
    /// No engine can demote here.
    NoEngine,
    /// What sank last is not judged yet: more sinks when its touches are known.
    Portion(Bytes),
    /// The caps of the node or of the link to the slow node.
    NodeRate,
    /// As much went down as came up, without gain: its working set is greater than its DRAM.
    Churn,
}

impl Limit {
    /// The limit as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NothingCold => "nothing_cold",
            Self::Floor => "floor",
            Self::RateCap => "rate_cap",
            Self::TargetFull => "target_full",
            Self::NoTarget => "no_target",
            Self::MaySwap => "may_swap",
            Self::MemoryPressure(_) => "memory_pressure",
            Self::IoPressure(_) => "io_pressure",
            Self::SlowTouch { .. } => "slow_touch",
            Self::FastFull => "fast_full",
            Self::PromotionOff => "promotion_off",
            Self::Bound(_) => "bound",
            Self::TooFew(_) => "too_few",
            Self::StartUp => "start_up",
            Self::NoPromoter => "no_promoter",
            Self::NoEngine => "no_engine",
            Self::Portion(_) => "portion",
            Self::NodeRate => "node_rate",
            Self::Churn => "churn",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingCold => write!(f, "nothing is cold"),
            Self::Floor => write!(f, "the floor is reached"),
            Self::RateCap => write!(f, "the rate cap is reached"),
            Self::TargetFull => write!(f, "the slow nodes have no room above their watermarks"),
            Self::NoTarget => write!(f, "no slow node is allowed to it"),
            Self::MaySwap => write!(
                f,
                "it may swap, and engine reclaim would swap out what lies on slow nodes: set its memory.swap.max \
                 to 0, or use engine pages"
            ),
            Self::MemoryPressure(ratio) => write!(f, "it stalls on memory {ratio} of the time"),
            Self::IoPressure(ratio) => write!(f, "it stalls on I/O {ratio} of the time"),
            Self::SlowTouch { touched, allowed } => {
                write!(f, "it touches {touched} a minute on slow nodes, {allowed} are allowed")
            }
            Self::FastFull => write!(f, "the fast nodes have no room for it"),
            Self::PromotionOff => write!(f, "its policy has promotion off"),
            Self::Bound(bytes) => write!(f, "{bytes} that are cold do not move"),
            Self::TooFew(bytes) => {
                write!(f, "{bytes} that are cold are not worth the readings that would tell what moved")
            }
            Self::StartUp => write!(f, "it has not been watched for long enough"),
            Self::NoPromoter => {
                write!(f, "nothing would bring it back: neither the kernel nor the agent promotes here")
            }
            Self::NoEngine => write!(f, "no engine can demote here"),
            Self::Portion(Bytes::ZERO) => {
                write!(f, "it sinks in portions, each judged by its touches before the next")
            }
            Self::Portion(bytes) => {
                write!(f, "it sinks in portions: the touches of the last, {bytes}, are not known yet")
            }
            Self::NodeRate => write!(f, "the node's rate cap is reached"),
            Self::Churn => write!(
                f,
                "as much comes up as goes down, without gain: its working set is greater than its DRAM"
            ),
        }
    }
}
