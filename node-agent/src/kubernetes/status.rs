//! What the agent says of its node in the status of its `NodeTiering`.
//!
//! # Approach
//! The whole status is made from the assignment and the last [`Snapshot`]; what was written before lends it the times at which
//! conditions changed, and its usage until that is read anew. So an unchanged status is equal to the one before, and is not
//! written. Every condition has a message, for Kubernetes 1.20 takes an empty one for null and refuses it. Messages have no number
//! that changes from round to round.

use std::time::Duration;

use api::conditions::{reasons, types};
use api::{KernelFeature, KernelStatus, NodeTieringStatus, PodStatus, PodUsage, Quantity, TierStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tiering::{Bytes, EngineChoice, TierRef};

use super::assignment::{AssignedPod, Assignment};
use crate::snapshot::{CgroupView, Snapshot};

mod pace;

pub use pace::Pace;

/// Demotion that is held for less than this is no news: pods stall and recover all the time.
const HELD_FOR: Duration = Duration::from_mins(1);

/// What a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was assigned.
    pub assignment: &'a Assignment,
    /// What became of it.
    pub snapshot: &'a Snapshot,
    /// The last time that the API server was away, from and to.
    pub outage: Option<(Timestamp, Timestamp)>,
    /// Whether usage is read anew.
    pub with_usage: bool,
    /// The time.
    pub now: Timestamp,
}

impl Facts<'_> {
    /// The status; `before` is the one that the API server has.
    #[must_use]
    pub fn status(&self, before: &NodeTieringStatus) -> NodeTieringStatus {
        let Self { snapshot, assignment, .. } = *self;
        let cluster = snapshot.cluster.clone().unwrap_or_default();
        let conditions = [self.ready(cluster.api_server_up), self.tiers_available()];
        let conditions = conditions.map(|verdict| self.condition(verdict, &before.conditions));
        let mut status = NodeTieringStatus {
            observed_generation: cluster.generation,
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            engine: Some(snapshot.engine.to_owned()),
            promotion: Some(snapshot.promoter.as_str().to_owned()),
            kernel: Some(self.kernel()),
            tiers: self.tiers(&before.tiers),
            conditions: conditions.into(),
            pods: assignment.pods.iter().map(|(uid, pod)| self.pod(uid, pod, &before.pods)).collect(),
            usage_time: before.usage_time.clone(),
        };
        let usage = |status: &NodeTieringStatus| {
            let tiers: Vec<_> = status.tiers.iter().map(|tier| tier.used).collect();
            let pods: Vec<_> = status.pods.iter().map(|pod| (pod.uid.clone(), pod.usage)).collect();
            (tiers, pods)
        };
        if self.with_usage && usage(&status) != usage(before) {
            status.usage_time = Some(Time(self.now));
        }
        status
    }

    fn kernel(&self) -> KernelStatus {
        let feature = |(name, found): (&String, &crate::snapshot::FeatureView)| KernelFeature {
            name: name.clone(),
            available: found.available,
            message: if found.available { String::new() } else { found.message.clone() },
        };
        KernelStatus {
            release: self.snapshot.kernel_release.clone(),
            features: self.snapshot.kernel_features.iter().map(feature).collect(),
        }
    }

    fn tiers(&self, before: &[TierStatus]) -> Vec<TierStatus> {
        let tier = |tier: &crate::snapshot::TierView| {
            let known = before.iter().find(|known| known.rank == u32::from(tier.rank));
            let used = tier.capacity_bytes.saturating_sub(tier.free_bytes);
            TierStatus {
                name: tier.name.clone(),
                rank: tier.rank.into(),
                nodes: host::parse::format_id_list(&tier.nodes.iter().copied().collect()),
                capacity: Quantity(Bytes(tier.capacity_bytes)),
                used: if self.with_usage { Some(coarse(used)) } else { known.and_then(|known| known.used) },
            }
        };
        self.snapshot.tiers.iter().map(tier).collect()
    }

    fn ready(&self, api_server_up: bool) -> Verdict {
        if !api_server_up {
            let message = "the API server does not tell of changes: what was last known is carried out";
            return Verdict::no(types::READY, reasons::LAST_KNOWN, message);
        }
        let always = || "what the cluster assigns is carried out".to_owned();
        let message = self.outage.map_or_else(always, |(from, to)| {
            format!(
                "the API server was away from {from} to {to}: what was last known was carried out meanwhile"
            )
        });
        Verdict::yes(types::READY, reasons::RUNNING, message)
    }

    fn tiers_available(&self) -> Verdict {
        const KIND: &str = types::TIERS_AVAILABLE;
        let tiers = &self.snapshot.tiers;
        if has_slower_tier(self.snapshot) {
            let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
            return Verdict::yes(KIND, reasons::FOUND, names.join(", "));
        }
        let message = "no memory node is slower than DRAM: nothing can be demoted here; name slower nodes in the agent's \
                       configuration (tiers) where the kernel does not know them";
        Verdict::no(KIND, reasons::NO_SLOW_TIER, message)
    }

    fn pod(&self, uid: &str, pod: &AssignedPod, before: &[PodStatus]) -> PodStatus {
        let known = before.iter().find(|known| known.uid == uid);
        let views: Vec<&CgroupView> = self
            .snapshot
            .cgroups
            .values()
            .filter(|view| view.pod.as_ref().is_some_and(|identity| identity.uid == uid))
            .collect();
        let conditions = known.map_or(&[][..], |known| &known.conditions);
        let usage = if self.with_usage { self.usage(&views) } else { known.and_then(|known| known.usage) };
        PodStatus {
            uid: uid.to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            conditions: vec![self.condition(enforcing(pod, &views, self.snapshot), conditions)],
            usage,
        }
    }

    fn usage(&self, views: &[&CgroupView]) -> Option<PodUsage> {
        if views.is_empty() {
            return None;
        }
        let (mut dram, mut slow) = (0, 0);
        for tier in &self.snapshot.tiers {
            let used: u64 = views.iter().filter_map(|view| view.anon_bytes_by_tier.get(&tier.name)).sum();
            *(if tier.rank <= dram_rank(self.snapshot) { &mut dram } else { &mut slow }) += used;
        }
        let cold = views.iter().map(|view| view.cold_bytes).sum();
        Some(PodUsage { dram: coarse(dram), slow: coarse(slow), cold: coarse(cold) })
    }

    /// With the time of the last change of its status.
    fn condition(&self, verdict: Verdict, before: &[Condition]) -> Condition {
        let status = if verdict.holds { "True" } else { "False" };
        let known = before.iter().find(|known| known.type_ == verdict.kind && known.status == status);
        Condition {
            type_: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: verdict.message,
            observed_generation: None,
            last_transition_time: known
                .map_or_else(|| Time(self.now), |known| known.last_transition_time.clone()),
        }
    }
}

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: true, reason, message: message.into() }
    }

    fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }
}

/// Whether a pod's policy is carried out, from the views of its managed cgroups: the first thing that a person should know.
fn enforcing(pod: &AssignedPod, views: &[&CgroupView], snapshot: &Snapshot) -> Verdict {
    let no = |reason, message: String| Verdict::no(types::ENFORCING, reason, message);
    if let Some(problem) = &pod.problem {
        let kept = pod.policy.is_some() || !pod.apart.is_empty();
        let instead = if kept { "what was assigned before is carried out" } else { "the pod is left alone" };
        let message = format!(
            "version {} of the agent does not understand it ({problem}): {instead}",
            env!("CARGO_PKG_VERSION")
        );
        return no(reasons::NOT_UNDERSTOOD, message);
    }
    if views.is_empty() {
        return no(reasons::NO_CGROUP, "no cgroup of it is on this node yet".to_owned());
    }
    let subject = |view: &CgroupView| match view.pod.as_ref().and_then(|identity| identity.container.as_ref())
    {
        Some(container) => format!("container {container}: "),
        None => String::new(),
    };
    if let Some(view) = views.iter().find(|view| view.pinned) {
        let message = format!(
            "{}another writer, such as kubelet's memory manager, chose the memory nodes; name a policy by annotation to manage it \
             nevertheless",
            subject(view)
        );
        return no(reasons::MEMORY_PINNED, message);
    }
    let stood_down = |view: &&&CgroupView| view.drift.iter().any(|drift| drift.standing_down);
    if let Some(view) = views.iter().find(stood_down) {
        let files = view.drift.iter().filter(|drift| drift.standing_down);
        let files: Vec<String> = files
            .map(|drift| {
                format!("{} to {}", drift.file, drift.comm.as_deref().unwrap_or("an unknown process"))
            })
            .collect();
        return no(
            reasons::STOOD_DOWN,
            format!("{}left {}, who kept changing it", subject(view), files.join(", ")),
        );
    }
    if views.iter().all(|view| view.mode == "Observe") {
        return no(
            reasons::OBSERVING,
            "the policy's mode is Observe: decisions are made and not carried out".to_owned(),
        );
    }
    if !has_slower_tier(snapshot) {
        return no(reasons::NO_TARGET, "the node has no tier slower than DRAM".to_owned());
    }
    if snapshot.engine == "none" {
        let why = snapshot.conditions.iter().find(|condition| condition.kind == "EngineAvailable");
        return no(
            reasons::FAILED,
            why.map_or_else(|| "no engine works here".to_owned(), |why| why.message.clone()),
        );
    }
    let enforced = || views.iter().filter(|view| view.mode == "Enforce");
    for view in enforced() {
        // Steps under way have a condition that does not hold, too.
        let refused = |reason| matches!(reason, "Refused" | "NoCpusetController" | "ContainersApart");
        if let Some(condition) =
            view.conditions.iter().find(|condition| !condition.status && refused(condition.reason))
        {
            return no(reasons::FAILED, format!("{}{}", subject(view), condition.message));
        }
    }
    for view in enforced() {
        let held = view.decision.limit_seconds >= HELD_FOR.as_secs_f64();
        let (reason, message) = match view.decision.limit {
            Some("no_target") if !is_confined(pod, view) => {
                (reasons::NO_TARGET, "its cgroup may use no slow node (cpuset.mems)")
            }
            Some("may_swap") => (
                reasons::HOLDING,
                "it may swap, and engine reclaim would swap out what lies on slow nodes: set its memory.swap.max to 0",
            ),
            Some("memory_pressure") if held => (reasons::HOLDING, "it stalls on memory: demotion waits"),
            Some("io_pressure") if held => (reasons::HOLDING, "it stalls on I/O: demotion waits"),
            Some("slow_touch") if held => {
                (reasons::HOLDING, "it touches too much on slow nodes: demotion waits")
            }
            Some("target_full") if held => {
                (reasons::HOLDING, "the slow nodes have no room above their watermarks: demotion waits")
            }
            _ => continue,
        };
        return no(reason, format!("{}{message}", subject(view)));
    }
    Verdict::yes(types::ENFORCING, reasons::ENFORCED, engine_message(pod, snapshot))
}

/// One engine works on a node at a time: a policy that asks for another is carried out by that one.
fn engine_message(pod: &AssignedPod, snapshot: &Snapshot) -> String {
    let policies =
        pod.policy.iter().chain(pod.apart.iter().filter_map(|container| container.policy.as_ref()));
    let asked = policies.map(|named| match named.policy.demote.engine {
        EngineChoice::Auto => None,
        EngineChoice::LruGen => Some("lru-gen"),
        EngineChoice::Reclaim => Some("reclaim"),
        EngineChoice::Pages => Some("pages"),
    });
    match asked.flatten().find(|asked| *asked != snapshot.engine) {
        Some(asked) => format!(
            "by engine {}: the policy asks for {asked}, and one works on a node at a time",
            snapshot.engine
        ),
        None => format!("by engine {}", snapshot.engine),
    }
}

/// Whether the policy of a managed cgroup itself keeps it off the slow nodes.
fn is_confined(pod: &AssignedPod, view: &CgroupView) -> bool {
    let container = view.pod.as_ref().and_then(|identity| identity.container.as_deref());
    let apart = pod.apart.iter().find(|apart| Some(apart.name.as_str()) == container);
    let named =
        if container.is_some() { apart.and_then(|apart| apart.policy.as_ref()) } else { pod.policy.as_ref() };
    let tiers = named.map_or(&[][..], |named| named.policy.tiers.as_slice());
    !tiers.is_empty() && tiers.iter().copied().all(is_fast)
}

fn is_fast(tier: TierRef) -> bool {
    matches!(tier, TierRef::Name(tiering::TierName::Dram | tiering::TierName::Hbm) | TierRef::Rank(0))
}

fn dram_rank(snapshot: &Snapshot) -> u8 {
    let dram = snapshot.dram();
    snapshot.tiers.iter().find(|tier| tier.name == dram).map_or(0, |tier| tier.rank)
}

fn has_slower_tier(snapshot: &Snapshot) -> bool {
    let dram = dram_rank(snapshot);
    snapshot.tiers.iter().any(|tier| tier.rank > dram)
}

/// Whole mebibytes: what changes by less is not worth a write.
fn coarse(bytes: u64) -> Quantity {
    Quantity(Bytes::mib((bytes + (1 << 19)) >> 20))
}

#[cfg(test)]
mod tests;
