//! What the agent tells: one picture of the last round, from which metrics, `/debug/state` and `observe` are made.
//!
//! Plain data with the words of the decision, so that all of them show the same thing. A cgroup that goes away is gone
//! from the next picture; what it did stays in [`Totals`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use litemap::LiteMap;
use serde::{Serialize, Serializer};
use telemetry::Durations;

use crate::kubernetes::assignment::PodIdentity;
use crate::promoter::Promoter;
use crate::savings::Sums;

/// The whole picture.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Rounds since start.
    pub rounds: u64,
    /// Unix time of the last round, in seconds.
    pub last_round_unix_seconds: f64,
    /// What the last round took, in seconds.
    pub last_round_seconds: f64,
    /// What each round since start took.
    pub round_durations: Durations,
    /// `run`, `observe`.
    pub command: &'static str,
    /// The chosen engine: `lru-gen`, `pages`, `reclaim`, `none`.
    pub engine: &'static str,
    /// Who brings hot memory back: `damon`, `kernel`, `pages`, `none`.
    pub promoter: Promoter,
    /// Tiers, fast to slow.
    pub tiers: Vec<TierView>,
    /// The kernel, as `uname -r` says.
    pub kernel_release: String,
    /// What this kernel and these mounts allow, by feature name.
    pub kernel_features: BTreeMap<String, FeatureView>,
    /// Conditions of the node.
    pub conditions: Vec<Condition>,
    /// Managed cgroups by path. Those that a reader still looks at are shared with the next picture.
    pub cgroups: BTreeMap<String, Arc<CgroupView>>,
    /// What could be freed, summed.
    pub savings: Sums,
    /// Sums that outlive their cgroups.
    pub totals: Totals,
    /// Where the configuration came from and whether the newest one is in force.
    pub config: ConfigView,
    /// The cluster, for an agent that is one of its nodes'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterView>,
}

/// What was found out about one feature of the kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FeatureView {
    /// Whether it can be used.
    pub available: bool,
    /// What was found, and what to do where it can't.
    pub message: String,
}

/// What is known from and told to a cluster.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterView {
    /// Name of this node.
    pub node: String,
    /// The generation of the `NodeTiering` that is carried out; `None` without one.
    pub generation: Option<i64>,
    /// Pods in it.
    pub assigned_pods: usize,
    /// Pods in it that this agent does not understand.
    pub pods_not_understood: usize,
    /// Whether the API server would tell of a change.
    pub api_server_up: bool,
    /// Unix time of its last answer, in seconds; `None` before the first.
    pub last_contact_unix_seconds: Option<f64>,
    /// Statuses written.
    pub status_writes: u64,
    /// Statuses that the API server did not take.
    pub status_failures: u64,
}

/// One tier.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TierView {
    /// `dram`, `pmem`, `cxl`, `hbm`, `slow`.
    pub name: String,
    /// 0 is the fastest.
    pub rank: u8,
    /// Its memory nodes.
    pub nodes: Vec<u32>,
    /// Memory of its nodes.
    pub capacity_bytes: u64,
    /// Free memory of its nodes.
    pub free_bytes: u64,
    /// Whether the kernel itself can demote into or out of it.
    pub kernel_demotes: bool,
}

/// One managed cgroup.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CgroupView {
    /// The cgroup's inode.
    pub id: u64,
    /// Path below the cgroup mount.
    pub path: String,
    /// The pod or container that it is, under Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodIdentity>,
    /// Whether another writer chose its memory nodes, so that it is left alone.
    pub pinned: bool,
    /// Name of its policy.
    pub policy: String,
    /// `Observe` or `Enforce`.
    pub mode: &'static str,
    /// Cgroups below it that hold memory of their own.
    pub leaves: usize,
    /// Times it was looked at and decided about.
    pub looks: u64,
    /// Anonymous bytes by tier name.
    pub anon_bytes_by_tier: LiteMap<String, u64>,
    /// `memory.current`.
    pub current_bytes: u64,
    /// `memory.high` as written by us.
    pub memory_high_bytes: Option<u64>,
    /// `cpuset.mems` as written by us.
    pub cpuset_mems: Option<String>,
    /// Least age in seconds and anonymous bytes on fast nodes, oldest first.
    pub ages: Vec<(f64, u64)>,
    /// The age that counts as cold.
    pub effective_age_seconds: f64,
    /// Bytes at least that old on fast nodes.
    pub cold_bytes: u64,
    /// Cold bytes that the policy could free now: without the floor, what can't move, and what slow nodes have no room for.
    pub would_free_bytes: u64,
    /// Bytes that would be touched on slow nodes per minute if all that is cold were there, as far as the floor allows: modelled.
    pub would_touch_bytes_per_minute: u64,
    /// Bytes accessed within the last minute, or within the age that counts as cold if that is less.
    pub working_set_bytes: u64,
    /// Within which time that is.
    pub working_set_seconds: f64,
    /// Bytes touched on slow nodes per minute.
    pub slow_touched_bytes_per_minute: u64,
    /// Least DRAM.
    pub floor_bytes: u64,
    /// Most DRAM.
    pub ceiling_bytes: Option<u64>,
    /// The last decision.
    pub decision: DecisionView,
    /// Demoted since found, by reason: `cold`, `ceiling`, `headroom`, `tiers`.
    pub demoted_bytes: LiteMap<&'static str, u64>,
    /// Promoted since found, by who did it: `damon`, `kernel`, `pages`.
    pub promoted_bytes: LiteMap<Promoter, u64>,
    /// Moves that failed since found, by reason, in pages.
    pub failed_pages: LiteMap<&'static str, u64>,
    /// Reclaimed ahead of its limits since found.
    pub reclaimed_bytes: u64,
    /// Times memory came back soon after it was demoted.
    pub comebacks: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Files that other writers changed.
    pub drift: Vec<DriftView>,
}

impl Snapshot {
    /// The tier whose use policies bound: `dram`, else the fastest.
    #[must_use]
    pub fn dram(&self) -> &str {
        let dram = self.tiers.iter().find(|tier| tier.name == "dram").or(self.tiers.first());
        dram.map_or("dram", |tier| tier.name.as_str())
    }
}

impl CgroupView {
    /// Whether its decisions are carried out.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.mode == "Enforce" && !self.pinned
    }

    /// What people call it: the pod or container, or the path.
    #[must_use]
    pub fn name(&self) -> String {
        self.pod.as_ref().map_or_else(|| self.path.clone(), ToString::to_string)
    }
}

/// A decision in words and labels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DecisionView {
    /// In plain words.
    pub text: String,
    /// `demote`, `promote`, `both`, `hold`.
    pub action: &'static str,
    /// Why it demotes: `cold`, `ceiling`, `headroom`.
    pub reason: &'static str,
    /// What kept it from more.
    pub limit: Option<&'static str>,
    /// For how long that has, in seconds.
    pub limit_seconds: f64,
    /// Bytes it asked to demote.
    pub demote_bytes: u64,
    /// Bytes it asked to promote.
    pub promote_bytes: u64,
}

/// A condition, after Kubernetes' shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `Enforcing`, `TiersAllowed`, `MemoryHigh`, `ConfigAccepted`...
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// CamelCase, one word for one cause.
    pub reason: &'static str,
    /// What a person should know.
    pub message: String,
}

/// A file of ours that another writer changed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DriftView {
    /// `memory.high`, `cpuset.mems`.
    pub file: &'static str,
    /// How often.
    pub count: u64,
    /// The last writer's pid, where the kernel told.
    pub pid: Option<i32>,
    /// Its command name.
    pub comm: Option<String>,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// Whether we stopped writing the file.
    pub standing_down: bool,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigView {
    /// File.
    pub path: String,
    /// Times it was loaded.
    pub loads: u64,
    /// Times a new one was refused.
    pub refusals: u64,
    /// Why the newest one was refused, if it was.
    pub error: Option<String>,
}

/// Sums since start, over all cgroups that ever were.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Demoted bytes by engine and reason.
    #[serde(serialize_with = "joined_keys")]
    pub demoted_bytes: BTreeMap<(&'static str, &'static str), u64>,
    /// Promoted bytes by promoter.
    pub promoted_bytes: BTreeMap<Promoter, u64>,
    /// CPU that DAMON's thread took while it promoted for us.
    pub damon_cpu_seconds: f64,
    /// Pages whose move failed, by engine and reason.
    #[serde(serialize_with = "joined_keys")]
    pub failed_pages: BTreeMap<(&'static str, &'static str), u64>,
    /// Decisions by mode, action and reason or limit.
    #[serde(serialize_with = "three_joined_keys")]
    pub decisions: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    /// Kernel writes that failed, by file and errno name.
    #[serde(serialize_with = "joined_keys")]
    pub write_errors: BTreeMap<(&'static str, &'static str), u64>,
    /// Changes by other writers, by file.
    pub drift: BTreeMap<&'static str, u64>,
    /// Reclaimed ahead of limits.
    pub reclaimed_bytes: u64,
    /// Walks of page tables.
    pub walks: u64,
    /// Times memory came back soon after it was demoted.
    pub comebacks: u64,
    /// Cgroups found.
    pub cgroups_found: u64,
    /// Cgroups that went away.
    pub cgroups_gone: u64,
}

/// JSON has no keys of two parts: writes them as `engine/reason`.
fn joined_keys<S: Serializer>(sums: &BTreeMap<(&str, &str), u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sums.iter().map(|((first, second), sum)| (format!("{first}/{second}"), sum)))
}

/// The same for three parts.
fn three_joined_keys<S: Serializer>(
    sums: &BTreeMap<(&str, &str, &str), u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sums.iter().map(|((a, b, c), sum)| (format!("{a}/{b}/{c}"), sum)))
}

/// The place where the loop publishes and readers look.
#[derive(Clone, Debug, Default)]
pub struct Published(Arc<Mutex<Arc<Snapshot>>>);

impl Published {
    /// Puts a new picture in place.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// Changes the picture in place. Where no reader holds the last one, nothing is copied.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(Arc::make_mut(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    /// What is seen in the last picture. The next one waits meanwhile, and is made without a copy.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last picture.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
