//! Which policy a pod and each of its containers gets.
//!
//! The first that says anything: the container's annotation, the pod's, the namespace's, the policy whose selector matches (the
//! greatest priority, then the first by name), the default of the cluster. An annotation that names no usable policy is a wish about
//! this pod that can't be fulfilled: nothing else is put in its place.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::annotations::{CONTAINER_PREFIX, Cause, Key, PolicyChoice, Problem, Requests};
use api::{MOST_APART, MemoryResources, PolicySpec, Quantity, ResolvedPolicy};
use tiering::Bytes;

use super::reason::{Source, Unmanaged, Verdict};
use super::record::{Container, Name, Namespace, Pod, Policy, Standing, label};
use super::selector;
use crate::watched::Memory;

/// The policies, in the order in which they apply.
#[derive(Debug, Default)]
pub(super) struct Rules {
    policies: BTreeMap<Name, Policy>,
    /// Accepted policies with a selector, the one that wins first.
    by_selector: Vec<Name>,
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
}

impl Rules {
    pub(super) fn new(default: Option<Name>) -> Self {
        Self { default, ..Self::default() }
    }

    pub(super) fn policies(&self) -> &BTreeMap<Name, Policy> {
        &self.policies
    }

    /// Whether anything changed. Of a policy that makes no sense, what made sense before stays.
    pub(super) fn insert(&mut self, name: Name, mut policy: Policy) -> bool {
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
        self.by_selector = selecting.into_iter().map(|(name, _)| Name::clone(name)).collect();
    }

    fn usable(&self, name: &str) -> Option<(&Name, &Policy)> {
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

    /// Why the default of the cluster does not apply, where it does not.
    pub(super) fn problem_of_default(&self) -> Option<Cause> {
        let name = self.default.as_deref().filter(|name| self.usable(name).is_none())?;
        Some(self.unusable(name))
    }

    /// Why the annotation of a namespace does not apply.
    pub(super) fn problem_of(&self, namespace: &Namespace) -> Option<Problem> {
        match &namespace.policy {
            Some(PolicyChoice::Named(name)) if self.usable(name).is_none() => {
                Some(Problem { key: Key::Policy.to_string(), cause: self.unusable(name) })
            }
            _ => None,
        }
    }

    /// What a pod gets. `allocatable` is the memory of its node.
    pub(super) fn resolve(
        &self,
        pod: &Pod,
        namespace: Option<&Namespace>,
        allocatable: Option<Bytes>,
    ) -> Resolution {
        let nothing = |unmanaged| Resolution {
            pod: Verdict::Unmanaged(unmanaged),
            containers: Vec::new(),
            problems: Vec::new(),
        };
        if pod.standing == Standing::Finished {
            return nothing(Unmanaged::Finished);
        }
        if pod.node.is_none() {
            return nothing(Unmanaged::NotScheduled);
        }
        let Some(requests) = pod.requests() else {
            return Resolution { pod: self.by_default(pod, namespace), ..nothing(Unmanaged::NoPolicy) };
        };
        let mut problems = requests.problems.clone();
        let mut chosen = |choice: &PolicyChoice, source, key: &dyn Fn() -> String| match choice {
            PolicyChoice::OptOut => Verdict::Unmanaged(Unmanaged::OptedOut(source)),
            PolicyChoice::Named(name) => {
                let named = self.named(name, source);
                if named.is_held() {
                    problems.push(Problem { key: key(), cause: self.unusable(name) });
                }
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
        if let Some(name) = verdict.policy() {
            problems.extend(self.with_overrides(name, Some(requests), pod.memory, allocatable).1);
        }
        Resolution { pod: verdict, containers, problems }
    }

    /// What a pod gets whose own annotation says nothing.
    fn by_default(&self, pod: &Pod, namespace: Option<&Namespace>) -> Verdict<Name> {
        match pod.standing {
            Standing::Mirror => return Verdict::Unmanaged(Unmanaged::Mirror),
            Standing::Critical => return Verdict::Unmanaged(Unmanaged::Critical),
            Standing::Usual | Standing::Finished => {}
        }
        // Before its namespace is known, nobody can tell what its labels and annotations say.
        let Some(namespace) = namespace else { return Verdict::UnknownNamespace };
        match &namespace.policy {
            Some(PolicyChoice::OptOut) => {
                return Verdict::Unmanaged(Unmanaged::OptedOut(Source::NamespaceAnnotation));
            }
            Some(PolicyChoice::Named(name)) => return self.named(name, Source::NamespaceAnnotation),
            None => {}
        }
        if let Some(name) = self.by_selector.iter().find(|name| self.selects(name, pod, namespace)) {
            return Verdict::Policy(Name::clone(name), Source::Selector);
        }
        match self.default.as_deref().and_then(|name| self.usable(name)) {
            Some((name, _)) => Verdict::Policy(Name::clone(name), Source::ClusterDefault),
            None => Verdict::Unmanaged(Unmanaged::NoPolicy),
        }
    }

    /// What an annotation gives that names a policy.
    fn named(&self, name: &str, source: Source) -> Verdict<Name> {
        match self.usable(name) {
            Some((name, _)) => Verdict::Policy(Name::clone(name), source),
            None => Verdict::Unusable(name.into(), source),
        }
    }

    fn selects(&self, policy: &str, pod: &Pod, namespace: &Namespace) -> bool {
        let selector = self.policies.get(policy).and_then(|policy| policy.spec.selector.as_ref());
        selector.is_some_and(|selector| {
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

    /// A policy as it is told to the agent.
    fn resolved(
        &self,
        name: &str,
        requests: Option<&Requests>,
        memory: Memory,
        allocatable: Option<Bytes>,
    ) -> ResolvedPolicy {
        ResolvedPolicy::new(name, self.with_overrides(name, requests, memory, allocatable).0)
    }

    /// The pod's policy as it is told to the agent.
    pub(super) fn of_pod(&self, name: &str, pod: &Pod, allocatable: Option<Bytes>) -> ResolvedPolicy {
        self.resolved(name, pod.requests(), pod.memory, allocatable)
    }

    /// The container's own policy as it is told to the agent: overrides are the pod's.
    pub(super) fn of_container(
        &self,
        name: &str,
        container: &Container,
        allocatable: Option<Bytes>,
    ) -> ResolvedPolicy {
        self.resolved(name, None, container.memory, allocatable)
    }
}

/// What a `Formula` computes with: without a limit, with what the node can allocate.
pub(super) fn resources(memory: Memory, allocatable: Option<Bytes>) -> MemoryResources {
    MemoryResources {
        request: memory.request.map(Quantity),
        limit: memory.limit.or(allocatable).map(Quantity),
    }
}
