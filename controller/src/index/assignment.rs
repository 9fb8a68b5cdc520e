//! What one node's agent is to be told.

use std::collections::BTreeMap;

use api::{ContainerAssignment, NodeTieringSpec, PodAssignment};

use super::record::{Pod, PodKey, Standing};
use super::{Index, Source, Verdict};

impl Index {
    /// What is assigned to a node; `None` for a node that is not there.
    #[must_use]
    pub fn assignment(&self, node: &str) -> Option<NodeTieringSpec> {
        let node = &self.nodes.get(node)?.value;
        let allocatable = node.known.as_ref()?.allocatable;
        let mut claims: BTreeMap<&str, u32> = BTreeMap::new();
        for entry in node.pods.iter().filter_map(|key| self.pod(key)) {
            *claims.entry(&entry.pod.uid).or_default() += 1;
        }
        // Which cgroup is a mirror pod's, its annotations say: anybody can write them to have another pod's.
        let is_doubtful = |pod: &Pod| pod.standing == Standing::Mirror && claims.get(&*pod.uid) > Some(&1);
        let pods = node.pods.iter().filter_map(|key| {
            let entry = self.pod(key).filter(|entry| entry.outcome.is_managed())?;
            let told = !is_doubtful(&entry.pod);
            told.then(|| self.pod_assignment(key, &entry.pod, allocatable))
        });
        Some(NodeTieringSpec { pods: pods.collect() })
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
