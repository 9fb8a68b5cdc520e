//! Which policy a pod and each of its containers gets.
//!
//! A policy that is enforced on the pod goes before all. Else the first that says anything: the container's annotation, the pod's,
//! the namespace's, the policy whose selector matches (the greatest priority, then the first by name), the default of the cluster. An
//! annotation that names no usable policy, or one that is not for the namespace, is a wish about this pod that can't be fulfilled:
//! nothing else is put in its place.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::annotations::{CONTAINER_PREFIX, Cause, Key, PolicyChoice, Problem, Requests};
use api::{MOST_APART, MemoryResources, ModeSpec, PolicySpec, Quantity, ResolvedPolicy};
use tiering::Bytes;

use super::reason::{Source, Unmanaged, Verdict};
use super::record::{Container, Name, NamespaceRecord, PodKind, PodRecord, PolicyRecord, label};
use super::selector;
use crate::watch::objects::Memory;

/// The policies, in the order in which they apply.
#[derive(Debug, Default)]
pub(super) struct Rules {
    policies: BTreeMap<Name, PolicyRecord>,
    /// Usable policies with a selector, the one that wins first.
    by_selector: Vec<Name>,
    /// Those of them that can't be left.
    enforced: Vec<Name>,
    default: Option<Name>,
}

/// What was decided about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    pub(super) pod: Verdict<Name>,
    /// Containers whose own annotation holds.
    pub(super) containers: Vec<(Name, Verdict<Name>)>,
    /// Annotations that do not apply.
    pub(super) problems: Vec<Problem>,
    /// The sum of its floors.
    pub(super) floor: Bytes,
}

impl Resolution {
    /// Where this is all there is to say.
    fn only(pod: Verdict<Name>) -> Self {
        Self { pod, containers: Vec::new(), problems: Vec::new(), floor: Bytes(0) }
    }
}

impl Rules {
    pub(super) fn new(default: Option<Name>) -> Self {
        Self { default, ..Self::default() }
    }

    pub(super) fn policies(&self) -> &BTreeMap<Name, PolicyRecord> {
        &self.policies
    }

    /// Whether anything changed. Of a policy that makes no sense, what made sense before stays.
    pub(super) fn insert(&mut self, name: Name, mut policy: PolicyRecord) -> bool {
        let before = self.policies.get(&name);
        if let Some(before) = before.filter(|before| !policy.usable && before.usable) {
            policy.spec.clone_from(&before.spec);
            policy.usable = true;
        }
        if before == Some(&policy) {
            return false;
        }
        self.policies.insert(name, policy);
        self.sort();
        true
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let was_there = self.policies.remove(name).is_some();
        self.sort();
        was_there
    }

    fn sort(&mut self) {
        let selecting =
            self.policies.iter().filter(|(_, policy)| policy.usable && policy.spec.selector.is_some());
        let mut selecting: Vec<_> = selecting.collect();
        selecting.sort_by_key(|(name, policy)| (Reverse(policy.spec.priority), *name));
        self.by_selector = selecting.iter().map(|(name, _)| Name::clone(name)).collect();
        let enforced = selecting.into_iter().filter(|(_, policy)| policy.spec.enforced == Some(true));
        self.enforced = enforced.map(|(name, _)| Name::clone(name)).collect();
    }

    fn usable(&self, name: &str) -> Option<(&Name, &PolicyRecord)> {
        self.policies.get_key_value(name).filter(|(_, policy)| policy.usable)
    }

    /// What is wrong with a name that is of no usable policy.
    fn unusable(&self, name: &str) -> Cause {
        if self.policies.contains_key(name) {
            Cause::RejectedPolicy(name.to_owned())
        } else {
            Cause::NoPolicy(name.to_owned())
        }
    }

    /// Why a policy that was named is not what a pod has.
    fn cause(&self, verdict: &Verdict<Name>) -> Option<Cause> {
        match verdict {
            Verdict::Unusable(name, _) => Some(self.unusable(name)),
            Verdict::NotAllowed(name, _) => Some(Cause::NotForNamespace(name.to_string())),
            Verdict::Policy(..) | Verdict::UnknownNamespace | Verdict::Unmanaged(_) => None,
        }
    }

    /// Why the default of the cluster does not apply, where it does not.
    pub(super) fn problem_of_default(&self) -> Option<Cause> {
        let name = self.default.as_deref().filter(|name| self.usable(name).is_none())?;
        Some(self.unusable(name))
    }

    /// Why the annotation of a namespace does not apply.
    pub(super) fn problem_of(&self, namespace: &NamespaceRecord) -> Option<Problem> {
        match &namespace.policy {
            Some(PolicyChoice::Named(name)) => {
                let cause = self.cause(&self.named(name, Source::NamespaceAnnotation, Some(namespace)))?;
                Some(Problem { key: Key::Policy.to_string(), cause })
            }
            _ => None,
        }
    }

    /// What a pod gets. `allocatable` is the memory of its node.
    pub(super) fn resolve(
        &self,
        pod: &PodRecord,
        namespace: Option<&NamespaceRecord>,
        allocatable: Option<Bytes>,
    ) -> Resolution {
        if pod.kind == PodKind::Finished {
            return Resolution::only(Verdict::Unmanaged(Unmanaged::Finished));
        }
        if pod.node.is_none() {
            return Resolution::only(Verdict::Unmanaged(Unmanaged::NotScheduled));
        }
        let enforced = match namespace {
            Some(namespace) => self.enforced.iter().find(|name| self.selects(name, pod, namespace)),
            // Before its namespace is known, nobody knows whether any is enforced there.
            None if !self.enforced.is_empty() => return Resolution::only(Verdict::UnknownNamespace),
            None => None,
        };
        let mut resolution = match (enforced, pod.requests()) {
            (Some(name), requests) => Self::unable_to_leave(name, requests),
            (None, Some(requests)) => self.requested(requests, pod, namespace),
            (None, None) => Resolution::only(self.by_default(pod, namespace)),
        };
        let policy = resolution.pod.policy().and_then(|name| self.policies.get_key_value(name));
        if let Some((name, policy)) = policy {
            resolution.floor = if pod.requests().is_some_and(|requests| !requests.overrides.is_empty()) {
                let (spec, problems) = self.with_overrides(name, pod.requests(), pod.memory, allocatable);
                resolution.problems.extend(problems);
                floor(&spec, pod.memory, allocatable)
            } else {
                floor(&policy.spec, pod.memory, allocatable)
            };
        }
        for (name, verdict) in &resolution.containers {
            let container = pod.containers.iter().find(|container| container.name == *name);
            let policy = verdict.policy().and_then(|name| self.policies.get(name));
            if let Some((policy, container)) = policy.zip(container) {
                let floor = floor(&policy.spec, container.memory, allocatable);
                resolution.floor = Bytes(resolution.floor.0.saturating_add(floor.0));
            }
        }
        resolution
    }

    /// What a pod gets that a policy is enforced on: it, whatever its annotations name.
    fn unable_to_leave(enforced: &Name, requests: Option<&Requests>) -> Resolution {
        let verdict = Verdict::Policy(Name::clone(enforced), Source::Enforced);
        let Some(requests) = requests else { return Resolution::only(verdict) };
        let own = requests.policy.iter().map(|choice| (Key::Policy.to_string(), choice));
        let of_containers =
            requests.containers.iter().map(|(name, choice)| (format!("{CONTAINER_PREFIX}{name}"), choice));
        let others = own
            .chain(of_containers)
            .filter(|(_, choice)| !matches!(choice, PolicyChoice::Named(name) if **name == **enforced));
        let ignored = others.map(|(key, _)| Problem { key, cause: Cause::Enforced(enforced.to_string()) });
        let problems = requests.problems.iter().cloned().chain(ignored).collect();
        Resolution { problems, ..Resolution::only(verdict) }
    }

    /// What a pod gets with annotations of its own.
    fn requested(
        &self,
        requests: &Requests,
        pod: &PodRecord,
        namespace: Option<&NamespaceRecord>,
    ) -> Resolution {
        let mut problems = requests.problems.clone();
        let mut chosen = |choice: &PolicyChoice, source, key: &dyn Fn() -> String| match choice {
            PolicyChoice::OptOut => Verdict::Unmanaged(Unmanaged::OptedOut(source)),
            PolicyChoice::Named(name) => {
                let named = self.named(name, source, namespace);
                problems.extend(self.cause(&named).map(|cause| Problem { key: key(), cause }));
                named
            }
        };
        let own = requests
            .policy
            .as_ref()
            .map(|choice| chosen(choice, Source::PodAnnotation, &|| Key::Policy.to_string()));
        let mut containers = Vec::new();
        let mut left_out = Vec::new();
        for (name, choice) in &requests.containers {
            let key = || format!("{CONTAINER_PREFIX}{name}");
            match pod.containers.iter().find(|container| *container.name == **name) {
                // A node's whole assignment would be refused for one that is too long.
                Some(_) if containers.len() == MOST_APART => {
                    left_out.push(Problem { key: key(), cause: Cause::TooManyContainers });
                }
                Some(container) => {
                    let verdict = chosen(choice, Source::ContainerAnnotation, &key);
                    containers.push((Name::clone(&container.name), verdict));
                }
                None => left_out.push(Problem { key: key(), cause: Cause::NoContainer(name.clone()) }),
            }
        }
        problems.append(&mut left_out);
        let verdict = own.unwrap_or_else(|| self.by_default(pod, namespace));
        Resolution { containers, problems, ..Resolution::only(verdict) }
    }

    /// What a pod gets whose own annotation says nothing.
    fn by_default(&self, pod: &PodRecord, namespace: Option<&NamespaceRecord>) -> Verdict<Name> {
        match pod.kind {
            PodKind::Mirror => return Verdict::Unmanaged(Unmanaged::Mirror),
            PodKind::Critical => return Verdict::Unmanaged(Unmanaged::Critical),
            PodKind::Usual | PodKind::Finished => {}
        }
        // Before its namespace is known, nobody knows what its labels and annotations say.
        let Some(namespace) = namespace else { return Verdict::UnknownNamespace };
        match &namespace.policy {
            Some(PolicyChoice::OptOut) => {
                return Verdict::Unmanaged(Unmanaged::OptedOut(Source::NamespaceAnnotation));
            }
            Some(PolicyChoice::Named(name)) => {
                return self.named(name, Source::NamespaceAnnotation, Some(namespace));
            }
            None => {}
        }
        if let Some(name) = self.by_selector.iter().find(|name| self.selects(name, pod, namespace)) {
            return Verdict::Policy(Name::clone(name), Source::Selector);
        }
        let default = self.default.as_deref().and_then(|name| self.usable(name));
        match default.filter(|(_, policy)| is_allowed(policy, namespace)) {
            Some((name, _)) => Verdict::Policy(Name::clone(name), Source::ClusterDefault),
            None => Verdict::Unmanaged(Unmanaged::NoPolicy),
        }
    }

    /// What an annotation gives that names a policy.
    fn named(&self, name: &str, source: Source, namespace: Option<&NamespaceRecord>) -> Verdict<Name> {
        match self.usable(name) {
            Some((_, policy)) if namespace.is_none() && policy.spec.allowed_namespaces.is_some() => {
                Verdict::UnknownNamespace
            }
            Some((name, policy)) if namespace.is_some_and(|namespace| !is_allowed(policy, namespace)) => {
                Verdict::NotAllowed(Name::clone(name), source)
            }
            Some((name, _)) => Verdict::Policy(Name::clone(name), source),
            None => Verdict::Unusable(name.into(), source),
        }
    }

    fn selects(&self, policy: &str, pod: &PodRecord, namespace: &NamespaceRecord) -> bool {
        let policy = self.policies.get(policy).filter(|policy| is_allowed(policy, namespace));
        policy.and_then(|policy| policy.spec.selector.as_ref()).is_some_and(|selector| {
            let namespaces = selector.namespaces.as_ref();
            let pods = selector.pods.as_ref();
            namespaces.is_none_or(|wanted| selector::matches(wanted, |key| label(&namespace.labels, key)))
                && pods.is_none_or(|wanted| selector::matches(wanted, |key| label(&pod.labels, key)))
        })
    }

    /// The whole of a policy as it applies, what it computes with, and the overrides that do not apply.
    fn with_overrides(
        &self,
        name: &str,
        requests: Option<&Requests>,
        memory: Memory,
        allocatable: Option<Bytes>,
    ) -> (PolicySpec, Vec<Problem>) {
        let Some(policy) = self.policies.get(name) else { return Default::default() };
        match requests.map(|requests| &requests.overrides).filter(|overrides| !overrides.is_empty()) {
            Some(overrides) => overrides.apply(name, &policy.spec, resources(memory, allocatable).inputs()),
            None => (policy.spec.clone(), Vec::new()),
        }
    }

    /// A policy as the agent gets it.
    fn resolved(
        &self,
        name: &str,
        requests: Option<&Requests>,
        memory: Memory,
        allocatable: Option<Bytes>,
    ) -> ResolvedPolicy {
        ResolvedPolicy::new(name, self.with_overrides(name, requests, memory, allocatable).0)
    }

    /// The pod's policy as the agent gets it.
    pub(super) fn of_pod(&self, name: &str, pod: &PodRecord, allocatable: Option<Bytes>) -> ResolvedPolicy {
        self.resolved(name, pod.requests(), pod.memory, allocatable)
    }

    /// The container's own policy as the agent gets it: overrides are the pod's.
    pub(super) fn of_container(
        &self,
        name: &str,
        container: &Container,
        allocatable: Option<Bytes>,
    ) -> ResolvedPolicy {
        self.resolved(name, None, container.memory, allocatable)
    }
}

/// Whether pods of a namespace may have a policy.
fn is_allowed(policy: &PolicyRecord, namespace: &NamespaceRecord) -> bool {
    let allowed = policy.spec.allowed_namespaces.as_ref();
    allowed.is_none_or(|allowed| selector::matches(allowed, |key| label(&namespace.labels, key)))
}

/// The most that a policy keeps in DRAM for who has this memory: a percentage is of the limit, and without one of what the node can
/// allocate.
fn floor(spec: &PolicySpec, memory: Memory, allocatable: Option<Bytes>) -> Bytes {
    let enforces = spec.mode != Some(ModeSpec::Observe);
    let Some(floor) = spec.dram.floor.filter(|_| enforces) else { return Bytes(0) };
    let most = memory.limit.or(allocatable);
    let amount = floor.0.resolve(most.unwrap_or_default());
    most.map_or(amount, |most| amount.min(most))
}

/// What a `Formula` computes with: without a limit, with what the node can allocate.
pub(super) fn resources(memory: Memory, allocatable: Option<Bytes>) -> MemoryResources {
    MemoryResources {
        request: memory.request.map(Quantity),
        limit: memory.limit.or(allocatable).map(Quantity),
    }
}
