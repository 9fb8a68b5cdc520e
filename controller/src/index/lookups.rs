//! What is known of one object, or of all of a kind.

use std::collections::BTreeMap;

use api::SpecError;
use api::annotations::{Cause, Problem};

use super::record::{Name, PodKey};
use super::{Index, Unmanaged, Verdict};
use crate::listed::Listed;
use crate::watch::objects::IndexedKind;

impl Index {
    /// The uid of a node that is there.
    #[must_use]
    pub fn node_uid(&self, node: &str) -> Option<&str> {
        self.nodes.get(node)?.known.as_ref().map(|known| &*known.uid)
    }

    /// Nodes that are there.
    pub fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.iter().filter(|(_, node)| node.known.is_some()).map(|(name, _)| name)
    }

    /// Annotations of a pod that do not apply.
    #[must_use]
    pub fn problems(&self, key: &PodKey) -> Vec<Problem> {
        self.pod(key).map(|entry| self.resolve(&key.0, &entry.pod).problems).unwrap_or_default()
    }

    /// Pods with annotations that do not apply.
    pub fn invalid_pods(&self) -> impl Iterator<Item = PodKey> {
        let invalid = self.pods().filter(|(_, _, entry)| entry.outcome.problems != 0);
        invalid.map(|(namespace, name, _)| (Name::clone(namespace), Name::clone(name)))
    }

    /// Annotations of a namespace that do not apply.
    #[must_use]
    pub fn namespace_problems(&self, name: &str) -> Vec<Problem> {
        let Some(namespace) = self.namespaces.get(name) else { return Vec::new() };
        namespace.problems.iter().cloned().chain(self.rules.problem_of(namespace)).collect()
    }

    /// Why the policy of all pods that nothing else says anything of does not apply, where it does not.
    #[must_use]
    pub fn problem_of_default(&self) -> Option<Cause> {
        self.rules.problem_of_default()
    }

    /// Each policy: its generation, whether it makes sense, and how many pods have it.
    pub fn policies(&self) -> impl Iterator<Item = (&Name, i64, &Result<(), SpecError>, u32)> {
        self.rules.policies().iter().map(|(name, policy)| {
            (name, policy.generation, &policy.accepted, self.matched.get(name).copied().unwrap_or_default())
        })
    }

    /// Of one policy: its generation, whether it makes sense, and how many pods have it.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<(i64, &Result<(), SpecError>, u32)> {
        let policy = self.rules.policies().get(name)?;
        Some((policy.generation, &policy.accepted, self.matched.get(name).copied().unwrap_or_default()))
    }

    /// Namespaces with annotations that do not apply.
    pub fn invalid_namespaces(&self) -> impl Iterator<Item = &Name> {
        self.namespaces.names().filter(|name| !self.namespace_problems(name).is_empty())
    }

    /// The uid of a pod's cgroup, and its node.
    #[must_use]
    pub fn pod_uid(&self, key: &PodKey) -> Option<&str> {
        self.pod(key).map(|entry| &*entry.pod.uid)
    }

    /// Pods on a node, managed or not.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &PodKey> {
        self.nodes.get(node).into_iter().flat_map(|known| &known.pods)
    }

    /// Why a pod has its policy, or none.
    #[must_use]
    pub fn verdict(&self, key: &PodKey) -> Option<&Verdict<Name>> {
        self.pod(key).map(|entry| &entry.outcome.verdict)
    }

    /// How many pods keep what they had, or are observed, for want of a usable policy or of their namespace.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held
    }

    /// How many pods have annotations that do not apply.
    #[must_use]
    pub fn invalid(&self) -> u32 {
        self.invalid
    }

    /// How many pods have no policy, by why.
    #[must_use]
    pub fn unmanaged(&self) -> &BTreeMap<Unmanaged, u32> {
        &self.unmanaged
    }

    /// How many objects there are of a kind.
    #[must_use]
    pub fn len(&self, kind: IndexedKind) -> usize {
        match kind {
            IndexedKind::Pod => self.pods.values().map(Listed::len).sum(),
            IndexedKind::Namespace => self.namespaces.len(),
            IndexedKind::Policy => self.rules.policies().len(),
            IndexedKind::Node => self.nodes().count(),
        }
    }
}
