//! The pods that the cluster assigned, and their cgroups.

use std::collections::BTreeSet;
use std::sync::Arc;

use host::cgroup::{Cgroup, CgroupId, CgroupPath, ControlFile, list_below};

use super::Agent;
use crate::kubernetes::assignment::Assignment;
use crate::kubernetes::layout;
use crate::managed::Managed;
use crate::state::StateError;

impl Agent {
    /// Takes a new assignment. What it changes is in force when this returns, but for moves of memory.
    pub(super) fn assign(&mut self, assignment: &Arc<Assignment>) -> Result<(), StateError> {
        let before = self.assignment.replace(Arc::clone(assignment)).unwrap_or_default();
        self.publish_assignment();
        let changed: BTreeSet<&str> = assignment.differences(&before).collect();
        if changed.is_empty() {
            return Ok(());
        }
        tracing::info!(
            generation = assignment.generation,
            pods = assignment.pods.len(),
            changed = changed.len(),
            "pods assigned"
        );
        let is_changed = |managed: &&Managed| {
            managed.pod.as_ref().is_some_and(|pod| changed.contains(pod.identity.uid.as_str()))
        };
        let mut ids: Vec<CgroupId> = self
            .managed
            .values()
            .map(Box::as_ref)
            .filter(is_changed)
            .map(|managed| managed.cgroup.id())
            .collect();
        for id in &ids {
            self.reassign(*id)?;
        }
        for uid in changed {
            let Some(path) = self.pod_cgroups.get(uid).cloned() else { continue };
            ids.extend(self.consider(&path));
            let below = self.root.cgroup(&path).and_then(|pod| list_below(&pod)).unwrap_or_default();
            for path in &below {
                ids.extend(self.consider(path));
            }
            self.refresh_above(&path);
        }
        let now = self.now();
        for id in ids {
            self.note_pinned(id)?;
            if self.managed.get(&id).is_some_and(|managed| managed.enforced()) {
                self.step_limits(id, None, now)?;
            }
        }
        self.next_round = now;
        Ok(())
    }

    /// Tells which assignment is carried out.
    pub(super) fn publish_assignment(&self) {
        let Some(assignment) = &self.assignment else { return };
        self.published.update(|snapshot| {
            let cluster = snapshot.cluster.get_or_insert_default();
            cluster.generation = assignment.generation;
            cluster.assigned_pods = assignment.pods.len();
            cluster.pods_not_understood =
                assignment.pods.values().filter(|pod| pod.problem.is_some()).count();
        });
    }

    /// Remembers where a pod's cgroup is, whether the pod is assigned yet or not.
    pub(super) fn note_pod_cgroup(&mut self, path: &CgroupPath) {
        if self.assignment.is_some()
            && let Some(place) = layout::place(path)
            && place.is_pod()
        {
            self.pod_cgroups.insert(place.uid, path.clone());
        }
    }

    /// Leaves a pod alone whose memory nodes another writer chose, as kubelet's memory manager does, unless an annotation says
    /// to manage it nevertheless.
    pub(super) fn note_pinned(&mut self, id: CgroupId) -> Result<(), StateError> {
        let Some(managed) = self.managed.get(&id) else { return Ok(()) };
        let Some(pod) = &managed.pod else { return Ok(()) };
        let pinned = !pod.explicit && self.is_pinned_by_another(managed);
        if pinned == pod.pinned {
            return Ok(());
        }
        let (path, name) = (managed.cgroup.path(), managed.pod_name());
        if pinned {
            tracing::warn!(cgroup = %path, pod = name, "another writer chose its memory nodes: it is left alone");
        } else {
            tracing::info!(cgroup = %path, pod = name, "its memory nodes are not chosen by another any more");
        }
        if let Some(pod) = self.managed.get_mut(&id).and_then(|managed| managed.pod.as_mut()) {
            pod.pinned = pinned;
        }
        if pinned { self.release(id, false) } else { Ok(()) }
    }

    /// Whether the cgroup or one of its containers may use fewer nodes than the cgroup above it, and not by us. A list of all
    /// nodes is no choice.
    fn is_pinned_by_another(&self, managed: &Managed) -> bool {
        const FILE: ControlFile = ControlFile::CpusetMems;
        let cgroup = &managed.cgroup;
        let mems = |cgroup: &Cgroup| cgroup.read_cpuset_mems_effective().ok().flatten();
        let Some(own) = mems(cgroup) else { return false };
        let differs = |other: Option<BTreeSet<u32>>| other.is_some_and(|other| other != own);
        let has_ours = self.state.as_ref().is_some_and(|state| state.file(cgroup.id(), FILE).is_some())
            || managed.drift.contains_key(&FILE);
        let parent = || self.root.cgroup(&cgroup.path().parent()?).ok();
        (!has_ours && differs(parent().as_ref().and_then(mems)))
            || managed.leaves.iter().any(|leaf| leaf.id() != cgroup.id() && differs(mems(leaf)))
    }
}
