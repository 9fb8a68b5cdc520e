//! What users and the two binaries write to each other: policies, assignments, annotations.
//!
//! The schema is shared: the agent's file holds the same [`PolicySpec`] as the cluster's [`TieringPolicy`], and the one way from
//! it to what the agent decides with is [`PolicySpec::to_policy`]. No I/O here, and no client.
#![forbid(unsafe_code)]
// Each printer column has its own `type_`, which the lint takes for a repetition.
#![allow(clippy::duplicated_attributes)]

mod duration;
#[allow(unreachable_pub, reason = "KubeSchema derives from a public copy of each type that nothing names")]
mod node_tiering;
mod notation;
#[allow(unreachable_pub, reason = "KubeSchema derives from a public copy of each type that nothing names")]
mod policy_spec;
mod quantity;

pub mod annotations;
pub mod conditions;
pub mod lenient;

pub use duration::WireDuration;
pub use node_tiering::{
    ContainerAssignment, Cut, EPOCH, KernelFeature, KernelStatus, MOST_APART, MOST_SPEC_BYTES,
    MOST_STATUS_BYTES, MemoryResources, NodeTiering, NodeTieringSpec, NodeTieringStatus, Overcommitted,
    PodAssignment, PodProblem, PodStatus, QosClass, RENEW_EVERY, RENEWED, ResolvedPolicy, SLOW_TIER,
    STALE_AFTER, TierStatus,
};
pub use notation::ParseError;
pub use policy_spec::{
    AgeBounds, AllowedOverride, DemoteSpec, DramSpec, LabelOperator, LabelRequirement, LabelSelector,
    MOST_TIERS, MemoryHighInputs, MemoryHighMode, MemoryHighSpec, ModeSpec, OverrideBounds, PolicySpec,
    PressureSpec, PromoteSpec, Selector, ShareBounds, SpecError, TierReference, TieringPolicy,
    TieringPolicyStatus,
};
pub use quantity::{Factor, Percentage, Quantity, Rate, WireShare};

#[cfg(test)]
mod generated;
#[cfg(test)]
mod rules;
