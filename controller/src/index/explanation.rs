//! Why one pod has what it has, for a person.

use api::ResolvedPolicy;
use serde::Serialize;

use super::{Index, Name, PodEntry, PodKey, Verdict};

/// What a pod has, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Its node, once it has one.
    pub node: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its policy with its overrides, if any.
    pub policy: Option<ResolvedPolicy>,
    /// Why it has this policy, or none.
    pub reason: String,
    /// Containers whose own annotation holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerExplanation>,
    /// Its annotations that do not apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Annotations of its namespace that do not apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_problems: Vec<String>,
}

/// What a container has of its own, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerExplanation {
    /// Its name.
    pub name: String,
    /// Its policy, if any.
    pub policy: Option<ResolvedPolicy>,
    /// Why it has this policy, or none.
    pub reason: String,
}

impl Index {
    /// Why a pod has what it has; `None` where there is no such pod.
    #[must_use]
    pub fn explain(&self, namespace: &str, name: &str) -> Option<Explanation> {
        let (name, PodEntry { pod, .. }) = self.pods.get(namespace)?.get_key_value(name)?;
        let node = pod.node.as_ref().and_then(|node| self.nodes.get(node));
        let allocatable = node.and_then(|node| node.known.as_ref()?.allocatable);
        let resolution = self.resolve(namespace, pod);
        let key = (namespace.into(), Name::clone(name));
        let applied = |policy: ResolvedPolicy| self.without_denied_floor(&key, policy);
        let policy = |verdict: &Verdict<Name>| {
            verdict.policy().map(|name| applied(self.rules.of_pod(name, pod, allocatable)))
        };
        let containers = resolution.containers.iter().filter_map(|(name, verdict)| {
            let container = pod.containers.iter().find(|container| container.name == *name)?;
            let own = verdict.policy();
            let own = own.map(|name| applied(self.rules.of_container(name, container, allocatable)));
            Some(ContainerExplanation { name: name.to_string(), policy: own, reason: verdict.to_string() })
        });
        Some(Explanation {
            node: pod.node.as_ref().map(ToString::to_string),
            namespace: namespace.to_owned(),
            pod: name.to_string(),
            policy: policy(&resolution.pod),
            reason: resolution.pod.to_string(),
            containers: containers.collect(),
            problems: resolution.problems.iter().map(ToString::to_string).chain(self.denied(&key)).collect(),
            namespace_problems: self.namespace_problems(namespace).iter().map(ToString::to_string).collect(),
        })
    }

    /// All pods, by namespace and name.
    pub fn keys(&self) -> impl Iterator<Item = PodKey> {
        self.pods().map(|(namespace, name, _)| (Name::clone(namespace), Name::clone(name)))
    }
}
