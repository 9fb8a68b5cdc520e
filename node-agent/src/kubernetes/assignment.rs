//! The pods that the controller assigned to this node, as this agent understands them.
//!
//! Fields of a newer version are passed over, unless the policy says that they must be understood. Each pod is read by itself: one
//! that this agent does not understand keeps what it had, with a [problem](AssignedPod::problem) to tell of; the rest goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::{Cut, EPOCH, MemoryResources, Overcommitted, PodAssignment, RENEWED, ResolvedPolicy};
use serde_json::Value;
use tiering::{Mode, Policy};

use super::layout::Place;

/// The spec of this node's `NodeTiering`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// The generation of the spec; `None` where there is no `NodeTiering`.
    pub generation: Option<i64>,
    /// Pods by uid.
    pub pods: BTreeMap<String, AssignedPod>,
    /// Namespaces of which not all pods are here.
    pub cut: Vec<Cut>,
    /// Floors that sum to more than the node's DRAM.
    pub overcommitted: Option<Overcommitted>,
    /// Since when the controller has led that wrote it, in seconds since 1970.
    pub epoch: Option<u64>,
    /// When the controller wrote or confirmed it last, in seconds since 1970.
    pub renewed: Option<u64>,
    /// Whether nobody has confirmed it for so long that it is only observed.
    pub stale: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether an annotation names its policy, so that pinned memory nodes are no reason to leave it alone.
    pub explicit: bool,
    /// The policy of all its containers that are not apart; `None` leaves those alone.
    pub policy: Option<NamedPolicy>,
    /// Containers that do not go with the pod.
    pub apart: Vec<Apart>,
    /// Why the newest assignment is not carried out, and that before it is.
    pub problem: Option<String>,
}

/// A container with a policy of its own, or with none.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// Its name.
    pub name: String,
    /// Its id, which its cgroup is named after; `None` until the controller knows it.
    pub id: Option<String>,
    /// Its policy; `None` leaves it alone.
    pub policy: Option<NamedPolicy>,
}

/// A policy and what it is called.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPolicy {
    /// Name of the `TieringPolicy`.
    pub name: String,
    /// What it says, overrides included.
    pub policy: Arc<Policy>,
}

/// Who a managed cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct PodIdentity {
    /// The pod's uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// The container, where it is managed apart from its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl fmt::Display for PodIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)?;
        match &self.container {
            Some(container) => write!(f, "/{container}"),
            None => Ok(()),
        }
    }
}

impl Assignment {
    /// Reads a `NodeTiering`; what can't be understood stays as it was `before`.
    #[must_use]
    pub fn read(object: &Value, before: &Self) -> Self {
        let spec = &object["spec"];
        let policies = spec["policies"].as_object().into_iter().flatten();
        let policies: Policies<'_> =
            policies.map(|(key, policy)| (key.as_str(), ResolvedPolicy::read(policy))).collect();
        let pods = spec["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut read = BTreeMap::new();
        for pod in pods {
            let uid = pod["uid"].as_str().unwrap_or_default();
            let assigned = AssignedPod::read(pod, &policies).unwrap_or_else(|problem| {
                let text = |field: &str| pod[field].as_str().unwrap_or("?").to_owned();
                let nothing = || AssignedPod {
                    namespace: text("namespace"),
                    name: text("name"),
                    explicit: false,
                    policy: None,
                    apart: Vec::new(),
                    problem: None,
                };
                let kept = before.pods.get(uid).cloned().unwrap_or_else(nothing);
                AssignedPod { problem: Some(problem), ..kept }
            });
            // Without a uid there is no cgroup to find and no status to tell it in.
            if uid.is_empty() {
                tracing::error!(
                    namespace = assigned.namespace,
                    pod = assigned.name,
                    "assigned without a uid"
                );
            } else {
                read.insert(uid.to_owned(), assigned);
            }
        }
        let metadata = &object["metadata"];
        let seconds = |key: &str| metadata["annotations"][key].as_str().and_then(|text| text.parse().ok());
        Self {
            generation: metadata["generation"].as_i64(),
            pods: read,
            cut: serde_json::from_value(spec["cut"].clone()).unwrap_or_default(),
            overcommitted: serde_json::from_value(spec["overcommitted"].clone()).unwrap_or_default(),
            epoch: seconds(EPOCH),
            renewed: seconds(RENEWED),
            stale: false,
        }
    }

    /// The same, only observed.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.stale = true;
        for pod in self.pods.values_mut() {
            let apart = pod.apart.iter_mut().filter_map(|apart| apart.policy.as_mut());
            pod.policy
                .iter_mut()
                .chain(apart)
                .for_each(|named| Arc::make_mut(&mut named.policy).mode = Mode::Observe);
        }
        self
    }

    /// The pod that a cgroup belongs to.
    #[must_use]
    pub fn pod(&self, place: &Place) -> Option<&AssignedPod> {
        self.pods.get(&place.uid)
    }

    /// The policy of the cgroup at a place. A cgroup that goes with the one above it has none of its own.
    #[must_use]
    pub fn policy_of(&self, place: &Place) -> Option<&NamedPolicy> {
        let pod = self.pod(place)?;
        match &place.container {
            _ if place.inner => None,
            None => pod.policy.as_ref(),
            Some(id) => pod.apart(id)?.policy.as_ref(),
        }
    }

    /// Who the cgroup at a place belongs to.
    #[must_use]
    pub fn identity_of(&self, place: &Place) -> Option<PodIdentity> {
        let pod = self.pod(place)?;
        let apart = place.container.as_deref().and_then(|id| pod.apart(id));
        Some(PodIdentity {
            uid: place.uid.clone(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            container: apart.map(|container| container.name.clone()),
        })
    }

    /// Uids of the pods that another assignment has otherwise, or only one of both has.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let changed = self.pods.iter().filter(|(uid, pod)| other.pods.get(*uid) != Some(*pod));
        let gone = other.pods.keys().filter(|uid| !self.pods.contains_key(*uid));
        changed.map(|(uid, _)| uid.as_str()).chain(gone.map(String::as_str))
    }
}

/// The policies of an object by their keys, or why one is not understood.
type Policies<'a> = BTreeMap<&'a str, Result<ResolvedPolicy, String>>;

impl AssignedPod {
    fn read(pod: &Value, policies: &Policies<'_>) -> Result<Self, String> {
        let (pod, _) = api::lenient::read::<PodAssignment>(pod.clone()).map_err(|error| error.to_string())?;
        let named = |key: &String, memory| match policies.get(key.as_str()) {
            Some(Ok(policy)) => NamedPolicy::read(policy, memory),
            Some(Err(problem)) => Err(problem.clone()),
            None => Err(format!("there is no policy {key} in the object")),
        };
        let policy = pod.policy.as_ref().map(|key| named(key, pod.memory)).transpose()?;
        let mut apart = Vec::new();
        for container in pod.containers {
            // One that only has limits of its own goes with the pod.
            if !container.unmanaged && container.policy.is_none() {
                continue;
            }
            let policy = container.policy.filter(|_| !container.unmanaged);
            apart.push(Apart {
                policy: policy.as_ref().map(|key| named(key, container.memory)).transpose()?,
                name: container.name,
                id: container.id,
            });
        }
        Ok(Self {
            namespace: pod.namespace,
            name: pod.name,
            explicit: pod.explicit,
            policy,
            apart,
            problem: None,
        })
    }

    /// The container of this id, where it does not go with the pod.
    #[must_use]
    pub fn apart(&self, id: &str) -> Option<&Apart> {
        self.apart.iter().find(|container| container.id.as_deref() == Some(id))
    }
}

impl NamedPolicy {
    fn read(policy: &ResolvedPolicy, memory: MemoryResources) -> Result<Self, String> {
        let name = policy.name.clone();
        match policy.spec.to_policy(memory.inputs()) {
            Ok(policy) => Ok(Self { name, policy: policy.into() }),
            Err(error) => Err(format!("policy {name}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
