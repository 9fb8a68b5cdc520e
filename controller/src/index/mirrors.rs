//! Which cgroup is a mirror pod's: its annotations say so, and anybody can write them to have another pod's. So a mirror that is not the
//! only one to claim its cgroup has none.

use std::collections::BTreeSet;

use super::Index;
use super::record::{Name, NodeRecord, PodKey, PodKind, PodRecord};

impl Index {
    /// Uids of cgroups that more than one pod of a node claims, a mirror among them. Of these the mirrors have none.
    pub(super) fn contested(&self, node: &NodeRecord) -> BTreeSet<&str> {
        let uid = |key: &PodKey| self.pod(key).map(|entry| &*entry.pod.uid);
        let of_mirrors: BTreeSet<&str> = node.mirrors.iter().filter_map(uid).collect();
        let mut once = BTreeSet::new();
        let claims = node.pods.iter().filter_map(uid).filter(|uid| of_mirrors.contains(uid));
        claims.filter(|uid| !once.insert(*uid)).collect()
    }

    /// A pod changed: of two that claim one cgroup, a change of either says whether the mirror has it.
    pub(super) fn note_claims(
        &mut self,
        key: &PodKey,
        before: Option<&PodRecord>,
        after: Option<&PodRecord>,
    ) {
        for pod in [before, after].into_iter().flatten() {
            let Some(name) = &pod.node else { continue };
            let mirrors = self.nodes.get(name).into_iter().flat_map(|node| &node.mirrors);
            let mut others = mirrors.filter(|other| *other != key).filter_map(|other| self.pod(other));
            if pod.kind == PodKind::Mirror || others.any(|other| other.pod.uid == pod.uid) {
                self.changes.nodes.insert(Name::clone(name));
            }
        }
        if let Some(node) = before.and_then(|pod| self.nodes.get_mut(pod.node.as_deref()?)) {
            node.mirrors.remove(key);
        }
        let mirror = after.filter(|pod| pod.kind == PodKind::Mirror);
        if let Some(node) = mirror.and_then(|pod| self.nodes.get_mut(pod.node.as_deref()?)) {
            node.mirrors.insert(key.clone());
        }
    }
}
