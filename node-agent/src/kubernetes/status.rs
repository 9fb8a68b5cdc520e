//! What the agent says of its node in the status of its `NodeTiering`.
//!
//! # Approach
//! The whole status is made from the assignment and the last [`Snapshot`]; what was written before lends it the times at which
//! conditions changed. So an unchanged status is equal to the one before, and is not written. Of pods only those are told whose
//! policy is not carried out though it should be, and not for a reason that is the whole node's; and no number that changes by
//! itself: those are metrics. It is bounded in bytes, which namespaces share in turn. Every condition has a message, for
//! Kubernetes 1.20 takes an empty one for null and refuses it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::conditions::{reasons, types};
use api::{
    KernelFeature, KernelStatus, MOST_STATUS_BYTES, NodeTieringStatus, Overcommitted, PodStatus, Quantity,
    TierStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tiering::{Bytes, TierRef};

use super::assignment::{AssignedPod, Assignment};
use crate::snapshot::{CgroupView, Snapshot};

mod pace;

pub use pace::Pace;

/// As much of a message about a pod, in bytes.
const LONGEST_MESSAGE: usize = 160;
/// As much of why a kernel lacks something.
const LONGEST_LACK: usize = 48;

/// What a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was assigned.
    pub assignment: &'a Assignment,
    /// What became of it.
    pub snapshot: &'a Snapshot,
    /// The last time that the API server was away, from and to.
    pub outage: Option<(Timestamp, Timestamp)>,
    /// The time.
    pub now: Timestamp,
}

impl Facts<'_> {
    /// The status; `before` is the one that the API server has.
    #[must_use]
    pub fn status(&self, before: &NodeTieringStatus) -> NodeTieringStatus {
        let Self { snapshot, assignment, .. } = *self;
        let cluster = snapshot.cluster.clone().unwrap_or_default();
        let mut verdicts = vec![self.ready(cluster.api_server_up), self.tiers_available()];
        verdicts.extend(self.engine_available());
        verdicts.extend(self.all_assigned());
        verdicts.extend(self.floors_fit());
        let conditions = verdicts.into_iter().map(|verdict| self.condition(verdict, &before.conditions));
        let mut status = NodeTieringStatus {
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            engine: Some(snapshot.engine.to_owned()),
            promotion: Some(snapshot.promoter.as_str().to_owned()),
            kernel: Some(self.kernel()),
            tiers: self.tiers(),
            memory: self.memory(),
            conditions: conditions.collect(),
            pods: Vec::new(),
            more_pods: None,
        };
        // Pods go before why a kernel lacks something, which `probe` says, too.
        let pods: Vec<PodStatus> =
            assignment.pods.iter().filter_map(|(uid, pod)| self.pod(uid, pod, &before.pods)).collect();
        if bytes(&status) + pods.iter().map(bytes).sum::<usize>() > MOST_STATUS_BYTES
            && let Some(kernel) = &mut status.kernel
        {
            kernel.lacking.iter_mut().for_each(|lacking| lacking.message.clear());
        }
        add_in_turn(&mut status, pods);
        status
    }

    fn kernel(&self) -> KernelStatus {
        let (works, lacks): (Vec<_>, Vec<_>) =
            self.snapshot.kernel_features.iter().partition(|(_, found)| found.available);
        let lacking = |(name, found): (&String, &crate::snapshot::FeatureView)| KernelFeature {
            name: name.clone(),
            message: cut(&found.message, LONGEST_LACK),
        };
        KernelStatus {
            release: self.snapshot.kernel_release.clone(),
            features: works.into_iter().map(|(name, _)| name.clone()).collect(),
            lacking: lacks.into_iter().map(lacking).collect(),
        }
    }

    fn tiers(&self) -> Vec<TierStatus> {
        let tier = |tier: &crate::snapshot::TierView| TierStatus {
            name: tier.name.clone(),
            rank: tier.rank.into(),
            nodes: host::parse::format_id_list(&tier.nodes.iter().copied().collect()),
            capacity: Quantity(Bytes(tier.capacity_bytes)),
        };
        self.snapshot.tiers.iter().map(tier).collect()
    }

    /// The tiers in words; `None` before any are known.
    fn memory(&self) -> Option<String> {
        let tier = |tier: &crate::snapshot::TierView| format!("{} {}", tier.name, Bytes(tier.capacity_bytes));
        let words = self.snapshot.tiers.iter().map(tier).collect::<Vec<_>>().join(", ");
        (!words.is_empty()).then_some(words)
    }

    /// A condition only where there is no engine, though there is something to do for one.
    fn engine_available(&self) -> Option<Verdict> {
        if self.snapshot.engine != "none" || !has_slower_tier(self.snapshot) {
            return None;
        }
        let why = self.snapshot.conditions.iter().find(|condition| condition.kind == types::ENGINE_AVAILABLE);
        let message = why.map_or("no engine works here", |why| &why.message);
        Some(Verdict::no(types::ENGINE_AVAILABLE, reasons::FAILED, cut(message, LONGEST_MESSAGE)))
    }

    /// A condition only where the controller had to leave pods out.
    fn all_assigned(&self) -> Option<Verdict> {
        let most = self.assignment.cut.first()?;
        let others = self.assignment.cut.len() - 1;
        let message = format!(
            "of namespace {} and {others} others more pods have a policy than fit into one object: the last {} of {0} are left alone",
            most.namespace, most.pods
        );
        Some(Verdict::no(types::ALL_ASSIGNED, reasons::CUT, message))
    }

    /// A condition only where not all floors can be honoured at once.
    fn floors_fit(&self) -> Option<Verdict> {
        let Overcommitted { floors, dram } = self.assignment.overcommitted?;
        let message = format!(
            "floors of the pods sum to {floors}, and DRAM is {dram}: not all can be honoured at once, and the least weight gives way"
        );
        Some(Verdict::no(types::FLOORS_FIT, reasons::OVERCOMMITTED, message))
    }

    fn ready(&self, api_server_up: bool) -> Verdict {
        if !api_server_up {
            let message = "the API server does not tell of changes: what was last known is carried out";
            return Verdict::no(types::READY, reasons::LAST_KNOWN, message);
        }
        if self.assignment.stale {
            let message = "no controller has confirmed for long what is assigned: it is only observed";
            return Verdict::no(types::READY, reasons::STALE, message);
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

    /// What is to be said of a pod, where anything is.
    fn pod(&self, uid: &str, pod: &AssignedPod, before: &[PodStatus]) -> Option<PodStatus> {
        let views: Vec<&CgroupView> = self
            .snapshot
            .cgroups
            .values()
            .filter(|view| view.pod.as_ref().is_some_and(|identity| identity.uid == uid))
            .map(Arc::as_ref)
            .collect();
        let Enforcing::No { reason, message } = enforcing(pod, &views, self.snapshot) else { return None };
        let known = before.iter().find(|known| known.uid == uid && known.reason == reason);
        Some(PodStatus {
            uid: uid.to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            reason: reason.to_owned(),
            message: cut(&message, LONGEST_MESSAGE),
            since: known.map_or_else(|| Time(self.now), |known| known.since.clone()),
        })
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

/// Whether a pod's policy is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Enforcing {
    /// It is, or it is observed, or will be as soon as the pod or the whole node can.
    Yes,
    /// It is not, and somebody should know.
    No {
        /// In one word.
        reason: &'static str,
        /// In words.
        message: String,
    },
}

/// Whether a pod's policy is carried out, from the views of its managed cgroups: the first thing that a person should know.
fn enforcing(pod: &AssignedPod, views: &[&CgroupView], snapshot: &Snapshot) -> Enforcing {
    let no = |reason, message: String| Enforcing::No { reason, message };
    if let Some(problem) = &pod.problem {
        let kept = pod.policy.is_some() || !pod.apart.is_empty();
        let instead = if kept { "what was assigned before is carried out" } else { "the pod is left alone" };
        let message = format!(
            "{instead}: version {} of the agent does not understand it ({problem})",
            env!("CARGO_PKG_VERSION")
        );
        return no(reasons::NOT_UNDERSTOOD, message);
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
    // These are the whole node's, and stand in its conditions.
    if !has_slower_tier(snapshot) || snapshot.engine == "none" {
        return Enforcing::Yes;
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
        // What only holds demotion for a while comes and goes: metrics and the log have it.
        let (reason, message) = match view.decision.limit {
            Some("no_target") if !is_confined(pod, view) => {
                (reasons::NO_TARGET, "its cgroup may use no slow node (cpuset.mems)")
            }
            Some("may_swap") => (
                reasons::MAY_SWAP,
                "it may swap, and engine reclaim would swap out what lies on slow nodes: set its memory.swap.max to 0",
            ),
            _ => continue,
        };
        return no(reason, format!("{}{message}", subject(view)));
    }
    Enforcing::Yes
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

fn bytes(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len() + 1)
}

fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

/// Adds pods, one of each namespace in turn, as long as the status keeps within its bound.
fn add_in_turn(status: &mut NodeTieringStatus, pods: Vec<PodStatus>) {
    /// For the names of the fields of what is added.
    const FIELDS: usize = 32;
    let mut room = MOST_STATUS_BYTES.saturating_sub(bytes(status) + FIELDS);
    let all = pods.len();
    let mut namespaces: BTreeMap<String, VecDeque<PodStatus>> = BTreeMap::new();
    for pod in pods {
        namespaces.entry(pod.namespace.clone()).or_default().push_back(pod);
    }
    while !namespaces.is_empty() {
        for rest in namespaces.values_mut() {
            let Some(pod) = rest.pop_front() else { continue };
            if let Some(left) = room.checked_sub(bytes(&pod)) {
                room = left;
                status.pods.push(pod);
            }
        }
        namespaces.retain(|_, rest| !rest.is_empty());
    }
    let more = u32::try_from(all - status.pods.len()).unwrap_or(u32::MAX);
    status.more_pods = (more > 0).then_some(more);
}

#[cfg(test)]
mod tests;
