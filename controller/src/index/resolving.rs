//! What a changed policy, namespace or node changes of pods, in portions.
//!
//! **Problem.** One policy may concern every pod of the cluster, and while all are resolved nothing else is served.
//!
//! **Approach.** What changed since the last look is taken up together, and its pods are resolved a portion at a time; what changes
//! meanwhile is taken up after them, so that nobody who changes things all the time holds up the others. What follows is told when
//! the last pod is resolved, so that a node with pods in many portions is written once; what follows from pods that change meanwhile
//! is told at once. Floors are shared out when nothing is being resolved: by a mixture of old and new ones they would be denied and
//! granted to and fro.
//!
//! **Property** (test of the same name): portions of any size come to what one look comes to.

use std::collections::BTreeSet;

use api::annotations::PolicyChoice;

use super::record::{Name, PodKey};
use super::{Changes, Index, Outcome, PodEntry};
use crate::listed::Listed;

/// Pods that are being resolved again.
#[derive(Debug, Default)]
pub(super) struct Resolving {
    /// Policies that changed: nodes of pods that have one are written, whatever else is the same.
    policies: BTreeSet<Name>,
    /// Namespaces whose pods come after `pods`.
    namespaces: Vec<Name>,
    pods: Vec<PodKey>,
    /// What follows so far.
    changes: Changes,
}

impl Changes {
    fn append(&mut self, mut more: Self) {
        self.nodes.append(&mut more.nodes);
        self.invalid.append(&mut more.invalid);
        self.namespaces.append(&mut more.namespaces);
        self.policies.append(&mut more.policies);
        self.denied.append(&mut more.denied);
        self.overcommitted.append(&mut more.overcommitted);
        self.annotated.append(&mut more.annotated);
    }
}

impl Index {
    /// What follows from all changes since this was last asked.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = self.take_some_changes(usize::MAX);
        while self.has_more() {
            changes.append(self.take_some_changes(usize::MAX));
        }
        changes
    }

    /// Whether more follows from changes than was told: [`Self::take_some_changes`] has not come to an end.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let stale = &self.stale;
        self.resolving.is_some()
            || !self.changes.nodes.is_empty()
            || [&stale.policies, &stale.namespaces, &stale.nodes, &stale.floors]
                .iter()
                .any(|names| !names.is_empty())
    }

    /// Whether pods are being resolved: what changes now is taken up after them.
    #[must_use]
    pub fn is_resolving(&self) -> bool {
        self.resolving.is_some()
    }

    /// What follows from changes since this was last asked, as far as it is known after about so many pods were looked at.
    pub fn take_some_changes(&mut self, pods: usize) -> Changes {
        self.resolve_some(pods);
        if self.resolving.is_none() {
            self.grant_some_floors(pods);
        }
        let rest = self.sum_some_floors(pods);
        let told = std::mem::take(&mut self.changes);
        self.changes.nodes = rest;
        told
    }

    /// Resolves the pods of a node that are still to be: what it is assigned now follows from all changes.
    pub fn resolve_node(&mut self, node: &str) {
        let is_settled = self.resolving.is_none()
            && [&self.stale.policies, &self.stale.namespaces, &self.stale.nodes]
                .iter()
                .all(|names| names.is_empty());
        if is_settled {
            return;
        }
        let keys: Vec<PodKey> = self.pods_on(node).cloned().collect();
        for key in &keys {
            self.resolve_again(key, &BTreeSet::new());
        }
    }

    fn resolve_some(&mut self, most: usize) {
        let Some(mut resolving) = self.resolving.take().or_else(|| self.begin_resolving()) else { return };
        std::mem::swap(&mut self.changes, &mut resolving.changes);
        let mut left = most;
        while left > 0 {
            if let Some(key) = resolving.pods.pop() {
                self.resolve_again(&key, &resolving.policies);
                left -= 1;
            } else if let Some(namespace) = resolving.namespaces.pop() {
                let names = self.pods.get(&namespace).into_iter().flat_map(Listed::names);
                resolving.pods.extend(names.map(|name| (Name::clone(&namespace), Name::clone(name))));
            } else {
                break;
            }
        }
        std::mem::swap(&mut self.changes, &mut resolving.changes);
        if resolving.pods.is_empty() && resolving.namespaces.is_empty() {
            self.changes.append(resolving.changes);
        } else {
            self.resolving = Some(resolving);
        }
    }

    /// Takes up what changed; `None` where nothing did that concerns pods.
    fn begin_resolving(&mut self) -> Option<Resolving> {
        let policies = std::mem::take(&mut self.stale.policies);
        let namespaces = std::mem::take(&mut self.stale.namespaces);
        let nodes = std::mem::take(&mut self.stale.nodes);
        if policies.is_empty() && namespaces.is_empty() && nodes.is_empty() {
            return None;
        }
        self.changes.policies.extend(policies.iter().cloned());
        self.changes.namespaces.extend(namespaces.iter().cloned());
        let naming = self.namespaces.iter().filter(|(_, namespace)| match &namespace.policy {
            Some(PolicyChoice::Named(policy)) => policies.contains(policy.as_str()),
            _ => false,
        });
        self.changes.namespaces.extend(naming.map(|(name, _)| Name::clone(name)));
        Some(if policies.is_empty() {
            let of_nodes = nodes.iter().flat_map(|node| self.pods_on(node)).cloned().collect();
            Resolving { namespaces: namespaces.into_iter().collect(), pods: of_nodes, ..Resolving::default() }
        } else {
            Resolving { policies, namespaces: self.pods.keys().cloned().collect(), ..Resolving::default() }
        })
    }

    fn resolve_again(&mut self, key: &PodKey, policies: &BTreeSet<Name>) {
        let Some(entry) = self.pod(key) else { return };
        let outcome = Outcome::of(&self.resolve(&key.0, &entry.pod));
        let concerned = outcome.policies().any(|policy| policies.contains(policy));
        let (changed, record) = (outcome != entry.outcome, entry.pod.clone());
        if let (true, Some(node)) = (concerned, &record.node) {
            self.changes.nodes.insert(Name::clone(node));
        }
        if !changed {
            return;
        }
        let Some(known) = self.pods.get_mut(&key.0).and_then(|pods| pods.get_mut(&key.1)) else { return };
        let entry = PodEntry { pod: record.clone(), outcome: outcome.clone() };
        let before = std::mem::replace(known, entry);
        self.moved(key, Some(&before), Some((&record, &outcome)));
    }
}
