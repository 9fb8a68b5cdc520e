//! What one node is assigned.

use api::{
    ContainerAssignment, MOST_SPEC_BYTES, MemoryHighMode, MemoryResources, NodeTieringSpec, PodAssignment,
    PodProblem, ResolvedPolicy,
};

use super::record::{Name, NodeRecord, PodKey, PodKind, PodRecord};
use super::rules::resources;
use super::{Index, Source, Verdict, fit};
use crate::watch::objects::Memory;

/// Pods of a node whose problems stand in its object.
const MOST_PROBLEMS: usize = 16;
/// As much of a problem, in bytes.
const LONGEST_PROBLEM: usize = 200;

/// What a node was assigned before, of a pod by its uid, or of a container of it by name.
pub trait Before {
    /// The policy that it has as far as its node knows.
    fn policy(&self, uid: &str, container: Option<&str>) -> Option<&ResolvedPolicy>;
}

/// Nothing.
impl Before for () {
    fn policy(&self, _: &str, _: Option<&str>) -> Option<&ResolvedPolicy> {
        None
    }
}

impl Index {
    /// What is assigned to a node; `None` for a node that is not there. `before` is what it was assigned last.
    ///
    /// Of more than one object can hold, each namespace has its share: the whole would be refused otherwise.
    #[must_use]
    pub fn assignment(&self, node: &str, before: &impl Before) -> Option<NodeTieringSpec> {
        let overcommitted = self.overcommitted_by(node);
        let node = self.nodes.get(node)?;
        let allocatable = node.known.as_ref()?.allocatable;
        let mut spec =
            NodeTieringSpec { problems: self.problems_on(node), overcommitted, ..NodeTieringSpec::default() };
        for (key, pod) in self.managed_on(node) {
            if let Some(pod) = self.pod_assignment(&mut spec, key, pod, allocatable, before) {
                spec.pods.push(pod);
            }
        }
        let mut spec = fit::within(spec, MOST_SPEC_BYTES);
        spec.assigned_pods = u32::try_from(spec.pods.len()).ok();
        Some(spec)
    }

    fn managed_on<'a>(&'a self, node: &'a NodeRecord) -> impl Iterator<Item = (&'a PodKey, &'a PodRecord)> {
        let contested = self.contested(node);
        node.pods.iter().filter_map(move |key| {
            let entry = self.pod(key).filter(|entry| entry.outcome.managed)?;
            let has_cgroup = entry.pod.kind != PodKind::Mirror || !contested.contains(&*entry.pod.uid);
            has_cgroup.then_some((key, &entry.pod))
        })
    }

    /// `None` where nothing is to be said of it.
    fn pod_assignment(
        &self,
        spec: &mut NodeTieringSpec,
        key: &PodKey,
        pod: &PodRecord,
        allocatable: Option<tiering::Bytes>,
        before: &impl Before,
    ) -> Option<PodAssignment> {
        let resolution = self.resolve(&key.0, pod);
        let mut refer = |policy: ResolvedPolicy, memory: Memory| {
            let policy = self.without_denied_floor(key, policy);
            let computes = policy.spec.memory_high.mode == Some(MemoryHighMode::Formula);
            let memory = if computes { resources(memory, allocatable) } else { MemoryResources::default() };
            (spec.refer(policy), memory)
        };
        let of_pod = policy_of(
            &resolution.pod,
            || before.policy(&pod.uid, None),
            |name| self.rules.of_pod(name, pod, allocatable),
        );
        let of_pod = of_pod.map(|policy| refer(policy, pod.memory));
        let mut containers = Vec::new();
        for (name, verdict) in &resolution.containers {
            let Some(container) = pod.containers.iter().find(|container| container.name == *name) else {
                continue;
            };
            let own = policy_of(
                verdict,
                || before.policy(&pod.uid, Some(name)),
                |name| self.rules.of_container(name, container, allocatable),
            );
            if own.is_none() && of_pod.is_none() {
                continue;
            }
            let (policy, memory) = own.map(|policy| refer(policy, container.memory)).unzip();
            containers.push(ContainerAssignment {
                name: name.to_string(),
                id: container.id.as_ref().map(ToString::to_string),
                unmanaged: policy.is_none(),
                policy,
                memory: memory.unwrap_or_default(),
            });
        }
        let (policy, memory) = of_pod.unzip();
        (policy.is_some() || !containers.is_empty()).then(|| PodAssignment {
            uid: pod.uid.to_string(),
            namespace: key.0.to_string(),
            name: key.1.to_string(),
            explicit: matches!(
                resolution.pod,
                Verdict::Policy(_, Source::PodAnnotation) | Verdict::Unusable(_, Source::PodAnnotation)
            ),
            policy,
            memory: memory.unwrap_or_default(),
            containers,
        })
    }

    /// Annotations that do not apply, of some pods of each namespace in turn.
    fn problems_on(&self, node: &NodeRecord) -> Vec<PodProblem> {
        let is_invalid = |key: &PodKey| self.pod(key).is_some_and(|entry| entry.outcome.problems != 0);
        let invalid = node.pods.iter().filter(|key| is_invalid(key) || self.is_denied(key));
        fit::in_turn(invalid, |key| &*key.0)
            .into_iter()
            .take(MOST_PROBLEMS)
            .filter_map(|key| {
                let problem = self.problems(key).first().map(ToString::to_string);
                let mut message = problem.or_else(|| self.denied(key))?;
                message.truncate(message.floor_char_boundary(LONGEST_PROBLEM));
                Some(PodProblem { namespace: key.0.to_string(), name: key.1.to_string(), message })
            })
            .collect()
    }
}

/// The policy of a verdict. What names no usable one keeps what it had, or else is observed; what nothing is known of yet keeps
/// what it had.
fn policy_of<'a>(
    verdict: &Verdict<Name>,
    before: impl FnOnce() -> Option<&'a ResolvedPolicy>,
    resolved: impl FnOnce(&Name) -> ResolvedPolicy,
) -> Option<ResolvedPolicy> {
    match verdict {
        Verdict::Policy(name, _) => Some(resolved(name)),
        Verdict::Unusable(name, _) => {
            Some(before().cloned().unwrap_or_else(|| ResolvedPolicy::observing(name)))
        }
        Verdict::NotAllowed(name, _) => Some(ResolvedPolicy::observing(name)),
        Verdict::UnknownNamespace => before().cloned(),
        Verdict::Unmanaged(_) => None,
    }
}
