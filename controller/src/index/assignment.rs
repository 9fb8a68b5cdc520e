//! What one node's agent is to be told.

use std::collections::BTreeMap;

use api::{ContainerAssignment, MOST_PODS, NodeTieringSpec, PodAssignment};

use super::record::{Node, Pod, PodKey, Standing};
use super::{Index, Source, Verdict};

impl Index {
    /// What is assigned to a node; `None` for a node that is not there.
    ///
    /// Of more pods than one node can be told of, the first by namespace and name: the whole would be refused otherwise.
    #[must_use]
    pub fn assignment(&self, node: &str) -> Option<NodeTieringSpec> {
        let node = &self.nodes.get(node)?.value;
        let allocatable = node.known.as_ref()?.allocatable;
        let pods = self.managed_on(node).take(MOST_PODS);
        let pods = pods.map(|(key, pod)| self.pod_assignment(key, pod, allocatable));
        Some(NodeTieringSpec { pods: pods.collect() })
    }

    /// How many pods of a node it can't be told of.
    #[must_use]
    pub fn left_out(&self, node: &str) -> usize {
        let managed = self.nodes.get(node).map_or(0, |node| self.managed_on(&node.value).count());
        managed.saturating_sub(MOST_PODS)
    }

    fn managed_on<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = (&'a PodKey, &'a Pod)> {
        let mut claims: BTreeMap<&str, u32> = BTreeMap::new();
        for entry in node.pods.iter().filter_map(|key| self.pod(key)) {
            *claims.entry(&entry.pod.uid).or_default() += 1;
        }
        node.pods.iter().filter_map(move |key| {
            let entry = self.pod(key).filter(|entry| entry.outcome.is_managed())?;
            // Which cgroup is a mirror pod's, its annotations say: anybody can write them to have another pod's.
            let is_doubtful =
                entry.pod.standing == Standing::Mirror && claims.get(&*entry.pod.uid) > Some(&1);
            (!is_doubtful).then_some((key, &entry.pod))
        })
    }

    fn pod_assignment(&self, key: &PodKey, pod: &Pod, allocatable: Option<tiering::Bytes>) -> PodAssignment {
        let resolution = self.resolve(&key.0, pod);
        let policy = resolution.pod.policy().map(|name| self.rules.of_pod(name, pod, allocatable));
        let containers = resolution.containers.iter().filter_map(|(name, verdict)| {
            let container = pod.containers.iter().find(|container| container.name == *name)?;
            let own = verdict.policy().map(|name| self.rules.of_container(name, container, allocatable));
            if own.is_none() && policy.is_none() {
                return None;
            }
            let (own, memory) = own.unzip();
            Some(ContainerAssignment {
                name: name.to_string(),
                id: container.id.as_ref().map(ToString::to_string),
                unmanaged: own.is_none(),
                policy: own,
                memory: memory.unwrap_or_default(),
            })
        });
        let containers = containers.collect();
        let (policy, memory) = policy.unzip();
        PodAssignment {
            uid: pod.uid.to_string(),
            namespace: key.0.to_string(),
            name: key.1.to_string(),
            qos_class: pod.qos_class,
            explicit: matches!(resolution.pod, Verdict::Policy(_, Source::PodAnnotation)),
            policy,
            memory: memory.unwrap_or_default(),
            containers,
        }
    }
}
