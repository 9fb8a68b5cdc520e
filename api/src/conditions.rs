//! Types and reasons of conditions, and reasons of Events. A user meets them in `kubectl`; they are named here alone.

/// Types of conditions. A condition that is `True` is good news.
pub mod types {
    /// Of a `TieringPolicy`: the spec makes sense and is assigned.
    pub const ACCEPTED: &str = "Accepted";
    /// Of a `NodeTiering`: the agent runs and carries out the spec.
    pub const READY: &str = "Ready";
    /// Of a `NodeTiering`: there is a tier slower than DRAM.
    pub const TIERS_AVAILABLE: &str = "TiersAvailable";
    /// Of a `NodeTiering`, only where it is false: what finds and moves cold pages works.
    pub const ENGINE_AVAILABLE: &str = "EngineAvailable";
    /// Of a `NodeTiering`, only where it is false: floors of its pods fit into its DRAM.
    pub const FLOORS_FIT: &str = "FloorsFit";
    /// Of a `TieringPolicy`, only where it is false: its floors apply to all pods that have it.
    pub const FLOORS_GRANTED: &str = "FloorsGranted";
    /// Of a `NodeTiering`, only where it is false: all pods with a policy are in the spec.
    pub const ALL_ASSIGNED: &str = "AllAssigned";
}

/// Reasons of conditions.
pub mod reasons {
    /// `Accepted` is true.
    pub const VALID: &str = "Valid";
    /// `Accepted` is false: the values do not make a policy.
    pub const INVALID: &str = "Invalid";
    /// `Accepted` is false: the object is not as its schema says.
    pub const UNREADABLE: &str = "Unreadable";

    /// `Ready` is true.
    pub const RUNNING: &str = "Running";
    /// `Ready` is false: the API server was away, and what was last known is carried out.
    pub const LAST_KNOWN: &str = "LastKnown";
    /// `Ready` is false: no controller has confirmed for long what is assigned, and it is only observed.
    pub const STALE: &str = "Stale";
    /// `AllAssigned` is false: a namespace has more pods than its share of what fits.
    pub const CUT: &str = "Cut";
    /// `FloorsFit` is false: they sum to more.
    pub const OVERCOMMITTED: &str = "Overcommitted";
    /// `FloorsGranted` is false: the quota of a namespace is used up.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// `TiersAvailable` is true.
    pub const FOUND: &str = "Found";
    /// `TiersAvailable` is false: all memory is of one speed.
    pub const NO_SLOW_TIER: &str = "NoSlowTier";

    /// Of a pod: another writer changed a value of ours too often, and we stood down.
    pub const STOOD_DOWN: &str = "StoodDown";
    /// Of a pod: another writer pinned the memory nodes, and no annotation names a policy.
    pub const MEMORY_PINNED: &str = "MemoryPinned";
    /// Of a pod: this agent does not understand the policy; upgrade it.
    pub const NOT_UNDERSTOOD: &str = "NotUnderstood";
    /// Of a pod: its cgroup may use no slower tier.
    pub const NO_TARGET: &str = "NoTarget";
    /// Of a pod: it may swap, and the engine would swap it out.
    pub const MAY_SWAP: &str = "MaySwap";
    /// Of a pod: the kernel refused. Of `EngineAvailable`: none works.
    pub const FAILED: &str = "Failed";
}

/// Reasons of Events.
pub mod events {
    /// On a pod: it has a policy.
    pub const ASSIGNED: &str = "TieringPolicyAssigned";
    /// On a pod: it no longer has one.
    pub const UNASSIGNED: &str = "TieringPolicyRemoved";
    /// On a pod, a warning: an annotation has no meaning, and what applies instead.
    pub const INVALID_ANNOTATION: &str = "InvalidTieringAnnotation";
    /// On a pod, a warning: the agent stood down.
    pub const SUSPENDED: &str = "TieringSuspended";
    /// On a policy, a warning: its spec makes no policy.
    pub const REJECTED: &str = "TieringPolicyRejected";
    /// On a pod, a warning: its floor does not apply, for its namespace's quota is used up.
    pub const FLOOR_DENIED: &str = "TieringFloorDenied";
    /// On a node, a warning: floors of its pods sum to more than its DRAM.
    pub const OVERCOMMITTED: &str = "TieringFloorsOvercommitted";
}
