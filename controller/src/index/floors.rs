//! Floors: what pods keep in DRAM whatever others need, and so what is shared out.
//!
//! **Problem.** A floor is taken from everybody else on the node. Who may override one, or use a policy that has one, could take all
//! of it, and nobody would hear.
//!
//! **Approach.** The floors of a namespace's pods may sum to its quota and no more. The oldest pods have theirs first, so that a new
//! one takes none away; of a pod whose floor does not fit, all but the floor applies. On each node the floors that apply are compared
//! with its DRAM: more than that can't be honoured at once, and the agent cuts them by weight.
//!
//! A floor counts as the most that it can be: a percentage is of the pod's memory limit, and without one of what the node can allocate.

use std::collections::{BTreeMap, BTreeSet};

use api::annotations::FLOOR_QUOTA;
use api::{Overcommitted, Quantity, ResolvedPolicy};
use tiering::Bytes;

use super::record::{Name, PodKey};
use super::{Changes, Index};

/// Floors of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Floors {
    /// What those of a namespace may sum to that says nothing itself.
    pub(super) default_quota: Option<Bytes>,
    /// Of each namespace, its pods by age.
    namespaces: BTreeMap<Name, BTreeMap<(i64, Name), Bytes>>,
    /// The sum of those that apply.
    granted: BTreeMap<Name, Bytes>,
    /// Pods whose floors do not.
    denied: BTreeMap<Name, BTreeSet<Name>>,
    /// The DRAM of nodes whose agent has said so; of some before the node itself is known.
    dram: BTreeMap<Name, Bytes>,
    /// Nodes whose pods' floors sum to more than their DRAM.
    overcommitted: BTreeSet<Name>,
}

/// The floors of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FloorUse {
    /// The sum of those that apply, in bytes.
    pub granted: u64,
    /// What they may sum to, in bytes.
    pub quota: Option<u64>,
    /// Pods whose floors do not apply.
    pub denied_pods: usize,
}

impl Index {
    /// The DRAM of a node, as its agent says.
    pub fn apply_dram(&mut self, node: &str, dram: Option<Bytes>) {
        let before = match dram {
            Some(dram) => self.floors.dram.insert(self.pool.names.get(node), dram),
            None => self.floors.dram.remove(node),
        };
        if before != dram
            && let Some((name, _)) = self.nodes.get_key_value(node)
        {
            self.changes.nodes.insert(Name::clone(name));
        }
    }

    /// Whether floors of a pod do not apply.
    pub(super) fn is_denied(&self, (namespace, name): &PodKey) -> bool {
        self.floors.denied.get(namespace).is_some_and(|denied| denied.contains(name))
    }

    /// A policy as it applies to a pod: without its floor where that does not fit.
    pub(super) fn without_denied_floor(&self, key: &PodKey, mut policy: ResolvedPolicy) -> ResolvedPolicy {
        if self.is_denied(key) {
            policy.spec.dram.floor = None;
        }
        policy
    }

    /// Why floors of a pod do not apply, where they do not.
    #[must_use]
    pub fn denied(&self, key: &PodKey) -> Option<String> {
        let floor = Quantity(self.pod(key).filter(|_| self.is_denied(key))?.outcome.floor);
        let quota = Quantity(self.floor_quota(&key.0)?);
        Some(format!(
            "its floor of {floor} in DRAM does not apply: floors of namespace {} may sum to {quota} ({FLOOR_QUOTA} of the namespace, or \
             the controller's --floor-quota), which older pods have; the rest of its policy applies",
            key.0
        ))
    }

    /// Pods whose floors do not apply.
    pub fn denied_pods(&self) -> impl Iterator<Item = PodKey> {
        let of = |(namespace, pods): (&Name, &BTreeSet<Name>)| {
            let namespace = Name::clone(namespace);
            pods.iter().map(move |name| (Name::clone(&namespace), Name::clone(name))).collect::<Vec<_>>()
        };
        self.floors.denied.iter().flat_map(of)
    }

    /// Namespaces in which floors that a policy gives do not apply.
    #[must_use]
    pub fn namespaces_without_floors_of(&self, policy: &str) -> Vec<Name> {
        let has = |namespace: &Name, pod: &Name| {
            let entry = self.pod(&(Name::clone(namespace), Name::clone(pod)));
            entry.is_some_and(|entry| entry.outcome.policies().any(|name| **name == *policy))
        };
        let denied = self.floors.denied.iter();
        let denied = denied.filter(|(namespace, pods)| pods.iter().any(|pod| has(namespace, pod)));
        denied.map(|(namespace, _)| Name::clone(namespace)).collect()
    }

    /// Nodes whose pods' floors sum to more than their DRAM.
    pub fn overcommitted(&self) -> impl Iterator<Item = &Name> {
        self.floors.overcommitted.iter()
    }

    /// What is too much on a node.
    #[must_use]
    pub fn overcommitted_by(&self, node: &str) -> Option<Overcommitted> {
        let floors = self.nodes.get(node)?.floors;
        let dram = self.floors.dram.get(node).copied().filter(|dram| floors > *dram)?;
        Some(Overcommitted { floors: Quantity(floors), dram: Quantity(dram) })
    }

    /// Floors by namespace, where there are any.
    pub fn floors(&self) -> impl Iterator<Item = (&Name, FloorUse)> {
        self.floors.namespaces.keys().map(|namespace| {
            let used = FloorUse {
                granted: self.floors.granted.get(namespace).map_or(0, |granted| granted.0),
                quota: self.floor_quota(namespace).map(|quota| quota.0),
                denied_pods: self.floors.denied.get(namespace).map_or(0, BTreeSet::len),
            };
            (namespace, used)
        })
    }

    fn floor_quota(&self, namespace: &str) -> Option<Bytes> {
        let own = self.namespaces.get(namespace).and_then(|namespace| namespace.floor_quota);
        own.or(self.floors.default_quota)
    }

    /// A pod's floors, with when it was made, were these and are those.
    pub(super) fn floor_changed(
        &mut self,
        (namespace, name): &PodKey,
        before: Option<(i64, Bytes)>,
        after: Option<(i64, Bytes)>,
    ) {
        let some = |floor: Option<(i64, Bytes)>| floor.filter(|(_, floor)| *floor > Bytes(0));
        let (before, after) = (some(before), some(after));
        if before == after {
            return;
        }
        let floors = self.floors.namespaces.entry(Name::clone(namespace)).or_default();
        if let Some((created, _)) = before {
            floors.remove(&(created, Name::clone(name)));
        }
        if let Some((created, floor)) = after {
            floors.insert((created, Name::clone(name)), floor);
        }
        if floors.is_empty() {
            self.floors.namespaces.remove(namespace);
        }
        self.stale.floors.insert(Name::clone(namespace));
    }

    /// Shares quotas out anew where anything changed, until so many pods were looked at.
    pub(super) fn grant_some_floors(&mut self, pods: usize) {
        let mut left = pods;
        while left > 0
            && let Some(namespace) = self.stale.floors.pop_first()
        {
            let pods = self.floors.namespaces.get(&namespace).map_or(0, BTreeMap::len);
            left = left.saturating_sub(pods.max(1));
            self.grant(&namespace);
        }
    }

    /// Sums up floors on nodes that changed, until so many pods were looked at: the nodes that are left.
    pub(super) fn sum_some_floors(&mut self, pods: usize) -> BTreeSet<Name> {
        let mut left = pods;
        let mut changed = std::mem::take(&mut self.changes.nodes);
        while left > 0
            && let Some(node) = changed.pop_first()
        {
            left = left.saturating_sub(self.pods_on(&node).count().max(1));
            self.sum_floors(&node);
            self.changes.nodes.insert(node);
        }
        for node in self.changes.annotated.values().cloned().collect::<BTreeSet<_>>() {
            self.sum_floors(&node);
        }
        changed
    }

    fn sum_floors(&mut self, node: &Name) {
        let Some(known) = self.nodes.get(node) else {
            self.floors.overcommitted.remove(node);
            return;
        };
        let applying = known.pods.iter().filter(|key| !self.is_denied(key));
        let floors = applying.filter_map(|key| Some(self.pod(key)?.outcome.floor.0));
        let sum = Bytes(floors.fold(0, u64::saturating_add));
        if let Some(known) = self.nodes.get_mut(node) {
            known.floors = sum;
        }
        if self.overcommitted_by(node).is_none() {
            self.floors.overcommitted.remove(node);
        } else if self.floors.overcommitted.insert(Name::clone(node)) {
            self.changes.overcommitted.insert(Name::clone(node));
        }
    }

    fn grant(&mut self, namespace: &Name) {
        let quota = self.floor_quota(namespace);
        let mut granted = Bytes(0);
        let mut denied = BTreeSet::new();
        for ((_, name), floor) in self.floors.namespaces.get(namespace).into_iter().flatten() {
            let sum = Bytes(granted.0.saturating_add(floor.0));
            if quota.is_none_or(|quota| sum <= quota) {
                granted = sum;
            } else {
                denied.insert(Name::clone(name));
            }
        }
        let before = self.floors.denied.remove(namespace).unwrap_or_default();
        for name in before.symmetric_difference(&denied) {
            let key = (Name::clone(namespace), Name::clone(name));
            if denied.contains(name) {
                self.changes.denied.insert(key.clone());
            }
            if let Some(entry) = self.pod(&key) {
                let (node, policies) =
                    (entry.pod.node.clone(), entry.outcome.policies().cloned().collect::<Vec<_>>());
                let Changes { nodes, policies: changed, .. } = &mut self.changes;
                nodes.extend(node);
                changed.extend(policies);
            }
        }
        if granted == Bytes(0) {
            self.floors.granted.remove(namespace);
        } else {
            self.floors.granted.insert(Name::clone(namespace), granted);
        }
        if !denied.is_empty() {
            self.floors.denied.insert(Name::clone(namespace), denied);
        }
    }
}
