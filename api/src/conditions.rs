//! Types and reasons of conditions, and reasons of Events. A user meets them in `kubectl`; they are named here alone.

/// Types of conditions. A condition that is `True` is good news.
pub mod types {
    /// Of a `TieringPolicy`: the spec makes sense and is assigned.
    pub const ACCEPTED: &str = "Accepted";
    /// Of a `NodeTiering`: the agent runs and carries out the spec.
    pub const READY: &str = "Ready";
    /// Of a `NodeTiering`: there is a tier slower than DRAM.
    pub const TIERS_AVAILABLE: &str = "TiersAvailable";
    /// Of a pod in a `NodeTiering`: the policy is carried out.
    pub const ENFORCING: &str = "Enforcing";
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
    /// `TiersAvailable` is true.
    pub const FOUND: &str = "Found";
    /// `TiersAvailable` is false: all memory is of one speed.
    pub const NO_SLOW_TIER: &str = "NoSlowTier";

    /// `Enforcing` is true.
    pub const ENFORCED: &str = "Enforced";
    /// `Enforcing` is false: the policy only observes.
    pub const OBSERVING: &str = "Observing";
    /// `Enforcing` is false: the pod has no cgroup yet, or no longer.
    pub const NO_CGROUP: &str = "NoCgroup";
    /// `Enforcing` is false: another writer changed a value of ours too often, and we stood down.
    pub const STOOD_DOWN: &str = "StoodDown";
    /// `Enforcing` is false: another writer pinned the memory nodes, and no annotation names a policy.
    pub const MEMORY_PINNED: &str = "MemoryPinned";
    /// `Enforcing` is false: this agent does not understand the policy; upgrade it.
    pub const NOT_UNDERSTOOD: &str = "NotUnderstood";
    /// `Enforcing` is false: the node has no slower tier to use.
    pub const NO_TARGET: &str = "NoTarget";
    /// `Enforcing` is false: demotion holds, for the reason in the message.
    pub const HOLDING: &str = "Holding";
    /// `Enforcing` is false: the kernel refused.
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
}
