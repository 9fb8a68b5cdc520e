//! Which policy each pod has, and why: everything that assignments follow from, in memory.
//!
//! **Problem.** A change of one object can change the assignments of one pod, of a namespace, or of all; a node's assignment must
//! be written again if, and only if, its content changed. There may be a hundred thousand pods.
//!
//! **Approach.** Of each object only what matters is kept ([`record`]), and what many share is kept once. A change of a pod is
//! resolved at once; a change of a namespace, policy or node marks the pods that it may concern, and [`Index::take_changes`]
//! resolves those once, however many changes there were, in portions where it is asked to. No client, no clock.
//!
//! **Properties** (tests of the same names): any order of the same changes gives the same assignments; a list equals the changes
//! that it replaces; any annotations give a defined assignment.

mod assignment;
mod explanation;
mod fit;
mod floors;
mod lists;
mod lookups;
mod mirrors;
mod reason;
mod record;
mod resolving;
mod rules;
mod selector;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use api::TieringPolicy;
use kube::ResourceExt as _;
use tiering::Bytes;

pub use assignment::Before;
pub use explanation::{ContainerExplanation, Explanation};
pub use floors::FloorUse;
use floors::Floors;
pub use reason::{Source, Unmanaged, Verdict};
pub use record::{Name, PodKey};
use record::{NamespaceRecord, NodeFacts, NodeRecord, PodRecord, PolicyRecord, Pool};
use resolving::Resolving;
use rules::{Resolution, Rules};

use crate::listed::Listed;
use crate::watch::objects;

/// What follows from changes since they were taken last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nodes whose assignment may have changed, or that came or went.
    pub nodes: BTreeSet<Name>,
    /// Pods whose annotations have problems that they had not before.
    pub invalid: BTreeSet<PodKey>,
    /// Namespaces that changed, or whose annotation names a policy that did.
    pub namespaces: BTreeSet<Name>,
    /// Policies whose matched pods may have changed, or that came, changed or went.
    pub policies: BTreeSet<Name>,
    /// Pods whose floors do not apply, and did before.
    pub denied: BTreeSet<PodKey>,
    /// Nodes whose pods' floors sum to more than their DRAM, and did not before.
    pub overcommitted: BTreeSet<Name>,
    /// Pods that changed by their annotations alone, with their node.
    pub annotated: BTreeMap<PodKey, Name>,
}

/// Everything that assignments follow from.
#[derive(Debug, Default)]
pub struct Index {
    pool: Pool,
    rules: Rules,
    namespaces: Listed<NamespaceRecord>,
    pods: BTreeMap<Name, Listed<PodEntry>>,
    nodes: Listed<NodeRecord>,
    /// Those that are there; `rules` has what they say.
    policies: Listed<()>,
    matched: BTreeMap<Name, u32>,
    unmanaged: BTreeMap<Unmanaged, u32>,
    /// Pods of which something depends on what was assigned before.
    held: u32,
    /// Pods with annotations that do not apply.
    invalid: u32,
    floors: Floors,
    stale: Stale,
    resolving: Option<Resolving>,
    changes: Changes,
}

#[derive(Debug)]
struct PodEntry {
    pod: PodRecord,
    outcome: Outcome,
}

/// What was decided about a pod, as far as it is counted or compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    verdict: Verdict<Name>,
    /// Policies that containers have of their own.
    containers: Box<[Name]>,
    /// Whether it is in its node's assignment.
    managed: bool,
    /// The sum of its floors.
    floor: Bytes,
    /// Whether something of it depends on what was assigned before.
    held: bool,
    /// A hash of the problems; 0 where there are none.
    problems: u64,
}

/// What has to be resolved again.
#[derive(Debug, Default)]
struct Stale {
    namespaces: BTreeSet<Name>,
    policies: BTreeSet<Name>,
    nodes: BTreeSet<Name>,
    /// Namespaces whose floors, or what these may sum to, changed.
    floors: BTreeSet<Name>,
}

impl Outcome {
    fn of(resolution: &Resolution) -> Self {
        let mut containers: Vec<Name> =
            resolution.containers.iter().filter_map(|(_, verdict)| verdict.policy().cloned()).collect();
        containers.sort();
        containers.dedup();
        let problems = if resolution.problems.is_empty() {
            0
        } else {
            let mut hasher = DefaultHasher::new();
            for problem in &resolution.problems {
                problem.to_string().hash(&mut hasher);
            }
            hasher.finish().max(1)
        };
        let verdicts = || resolution.containers.iter().map(|(_, verdict)| verdict).chain([&resolution.pod]);
        Self {
            verdict: resolution.pod.clone(),
            containers: containers.into(),
            managed: verdicts().any(Verdict::is_managed),
            floor: resolution.floor,
            held: verdicts().any(Verdict::is_held),
            problems,
        }
    }

    fn policies(&self) -> impl Iterator<Item = &Name> {
        let of_pod = self.verdict.policy();
        of_pod.into_iter().chain(self.containers.iter().filter(move |name| Some(*name) != of_pod))
    }
}

impl Index {
    /// An empty one. Pods that nothing else says anything of get the policy `default`.
    #[must_use]
    pub fn new(default: Option<&str>) -> Self {
        let mut pool = Pool::default();
        let default = default.map(|name| pool.names.get(name));
        Self { pool, rules: Rules::new(default), ..Self::default() }
    }

    /// The same, where the floors of a namespace that says nothing itself may sum to so much.
    #[must_use]
    pub fn with_floor_quota(mut self, quota: Option<Bytes>) -> Self {
        self.floors.default_quota = quota;
        self
    }

    /// A pod came or changed.
    pub fn apply_pod(&mut self, pod: &objects::Pod) {
        let metadata = &pod.metadata;
        let namespace = self.pool.names.get(metadata.namespace.as_deref().unwrap_or_default());
        // Not of the pool: only a pod has its name, and lists of a node's pods share it.
        let name = metadata.name.as_deref().unwrap_or_default();
        let record = PodRecord::new(pod, &mut self.pool);

        let resolution = self.resolve(&namespace, &record);
        let outcome = Outcome::of(&resolution);
        let of_namespace = self.pods.entry(Name::clone(&namespace)).or_default();
        let entry = PodEntry { pod: record.clone(), outcome: outcome.clone() };
        let before = if let Some(known) = of_namespace.keep(name) {
            if known.pod == record && known.outcome == outcome {
                return;
            }
            Some(std::mem::replace(known, entry))
        } else {
            of_namespace.insert(name.into(), entry)
        };
        let Some((name, _)) = of_namespace.get_key_value(name) else { return };
        let key = (namespace, Name::clone(name));
        // What its author may do as often as they like, and what costs them nothing.
        let by_annotation = before.as_ref().is_some_and(|before| {
            before.pod.uid == record.uid && before.pod.annotations != record.annotations
        });
        let node = record.node.clone().filter(|node| by_annotation && !self.changes.nodes.contains(node));
        self.moved(&key, before.as_ref(), Some((&record, &outcome)));
        if let Some(node) = node
            && self.changes.nodes.remove(&node)
        {
            self.changes.annotated.insert(key, node);
        }
    }

    /// A pod is gone.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) {
        let Some(of_namespace) = self.pods.get_mut(namespace) else { return };
        let Some((name, entry)) = of_namespace.remove(name) else { return };
        if of_namespace.is_empty() {
            self.pods.remove(namespace);
        }
        let namespace = self.pool.names.get(namespace);
        self.moved(&(namespace, name), Some(&entry), None);
    }

    /// A namespace came or changed.
    pub fn apply_namespace(&mut self, namespace: &objects::Namespace) {
        let record = NamespaceRecord::new(namespace, &mut self.pool);
        let name = self.pool.names.get(namespace.name_any().as_str());
        let changed = self.namespaces.get(&name).is_none_or(|before| *before != record);
        self.namespaces.insert(Name::clone(&name), record);
        if changed {
            self.stale.floors.insert(Name::clone(&name));
            self.stale.namespaces.insert(name);
        }
    }

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, name: &str) {
        if let Some((name, _)) = self.namespaces.remove(name) {
            self.stale.namespaces.insert(name);
        }
    }

    /// A policy came or changed.
    pub fn apply_policy(&mut self, policy: &TieringPolicy) {
        let name = self.pool.names.get(policy.name_any().as_str());
        self.policies.insert(Name::clone(&name), ());
        if self.rules.insert(Name::clone(&name), PolicyRecord::new(policy)) {
            self.stale.policies.insert(name);
        }
    }

    /// A policy is gone.
    pub fn delete_policy(&mut self, name: &str) {
        self.policies.remove(name);
        if self.rules.remove(name) {
            self.stale.policies.insert(self.pool.names.get(name));
        }
    }

    /// A node came or changed.
    pub fn apply_node(&mut self, node: &objects::Node) {
        if !node.is_linux() {
            return self.delete_node(&node.name_any());
        }
        let name = self.pool.names.get(node.name_any().as_str());
        let known = Some(NodeFacts {
            uid: node.metadata.uid.as_deref().unwrap_or_default().into(),
            allocatable: node.allocatable(),
        });
        self.nodes.known(&name);
        let Some(node) = self.nodes.keep(&name) else { return };
        if node.known != known {
            node.known = known;
            self.changes.nodes.insert(Name::clone(&name));
            self.stale.nodes.insert(name);
        }
    }

    /// A node is gone.
    pub fn delete_node(&mut self, name: &str) {
        let Some((name, node)) = self.nodes.get_key_value(name) else { return };
        let name = Name::clone(name);
        if node.known.is_some() {
            self.changes.nodes.insert(Name::clone(&name));
        }
        if node.pods.is_empty() {
            self.nodes.remove(&name);
        } else if let Some(node) = self.nodes.get_mut(&name) {
            node.known = None;
        }
    }

    fn pods(&self) -> impl Iterator<Item = (&Name, &Name, &PodEntry)> {
        self.pods
            .iter()
            .flat_map(|(namespace, pods)| pods.iter().map(move |(name, entry)| (namespace, name, entry)))
    }

    fn pod(&self, (namespace, name): &PodKey) -> Option<&PodEntry> {
        self.pods.get(namespace)?.get(name)
    }

    fn resolve(&self, namespace: &str, pod: &PodRecord) -> Resolution {
        let node = pod.node.as_ref().and_then(|node| self.nodes.get(node));
        let allocatable = node.and_then(|node| node.known.as_ref()?.allocatable);
        self.rules.resolve(pod, self.namespaces.get(namespace), allocatable)
    }

    /// Counts a pod that changed, and notes what follows for its node.
    fn moved(&mut self, key: &PodKey, before: Option<&PodEntry>, after: Option<(&PodRecord, &Outcome)>) {
        let node_before = before.and_then(|before| before.pod.node.as_ref());
        let node_after = after.and_then(|(pod, _)| pod.node.as_ref());
        if node_before != node_after {
            if let Some(node) = node_before {
                self.leave(node, key);
            }
            if let Some(node) = node_after {
                self.nodes.known(node).pods.insert(key.clone());
            }
        }
        self.note_claims(key, before.map(|before| &before.pod), after.map(|(pod, _)| pod));
        // What is wrong with a pod stands in its node's object, too.
        let managed = |outcome: &Outcome| outcome.managed || outcome.problems != 0;
        let nodes = [
            node_before.filter(|_| before.is_some_and(|before| managed(&before.outcome))),
            node_after.filter(|_| after.is_some_and(|(_, outcome)| managed(outcome))),
        ];
        self.changes.nodes.extend(nodes.into_iter().flatten().cloned());

        self.floor_changed(
            key,
            before.map(|before| (before.pod.created, before.outcome.floor)),
            after.map(|(pod, outcome)| (pod.created, outcome.floor)),
        );
        if let Some(before) = before {
            self.count(&before.outcome, |count| *count = count.saturating_sub(1));
        }
        if let Some((_, outcome)) = after {
            self.count(outcome, |count| *count += 1);
            let known = before.map_or(0, |before| before.outcome.problems);
            if outcome.problems != 0 && outcome.problems != known {
                self.changes.invalid.insert(key.clone());
            }
        }
    }

    fn count(&mut self, outcome: &Outcome, change: impl Fn(&mut u32)) {
        for policy in outcome.policies() {
            let count = self.matched.entry(Name::clone(policy)).or_default();
            change(count);
            if *count == 0 {
                self.matched.remove(policy);
            }
            self.changes.policies.insert(Name::clone(policy));
        }
        if let Verdict::Unmanaged(unmanaged) = outcome.verdict {
            change(self.unmanaged.entry(unmanaged).or_default());
        }
        if outcome.held {
            change(&mut self.held);
        }
        if outcome.problems != 0 {
            change(&mut self.invalid);
        }
    }

    fn leave(&mut self, node: &Name, key: &PodKey) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.pods.remove(key);
        if known.pods.is_empty() && known.known.is_none() {
            self.nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests;
