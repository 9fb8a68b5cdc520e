use std::collections::BTreeMap;

use api::{QosClass, annotations};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use tiering::Bytes;

/// kubelet's mark on the mirror of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// On a mirror pod, what kubelet names the cgroup of the static pod after.
const STATIC_UID: &str = "kubernetes.io/config.hash";
/// From this priority on, Kubernetes itself calls pods critical (`scheduling.SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;
const CRITICAL_CLASSES: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

/// Whether anything is read from annotations of this key.
pub(super) fn is_read(key: &str) -> bool {
    annotations::is_ours(key) || key == MIRROR || key == STATIC_UID
}

/// A pod: where it is, what it asks for, and whether it may be managed.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = v1::Pod)]
pub struct Pod {
    /// Names, labels, and the annotations that are read.
    #[serde(deserialize_with = "super::thin_metadata")]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
    /// What became of it.
    #[serde(default)]
    pub status: Status,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    node_name: Option<String>,
    priority: Option<i32>,
    priority_class_name: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerSpec>,
    #[serde(default)]
    init_containers: Vec<ContainerSpec>,
    resources: Option<Resources>,
    #[serde(default)]
    overhead: Amounts,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerSpec {
    name: String,
    restart_policy: Option<String>,
    resources: Option<Resources>,
}

/// What became of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    phase: Option<String>,
    qos_class: Option<QosClass>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    init_container_statuses: Vec<ContainerStatus>,
    resources: Option<Resources>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    resources: Option<Resources>,
}

/// Requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Resources {
    #[serde(default)]
    requests: Amounts,
    #[serde(default)]
    limits: Amounts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Amounts {
    memory: Option<String>,
}

/// Memory request and limit, where there are any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The request.
    pub request: Option<Bytes>,
    /// The limit.
    pub limit: Option<Bytes>,
}

impl Memory {
    /// That of a container in a pod of which this is said as a whole: no container may use more than its pod.
    #[must_use]
    pub fn within(self, pod: Self) -> Self {
        Self { request: self.request, limit: self.limit.into_iter().chain(pod.limit).min() }
    }
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id without the runtime's prefix, once it runs.
    pub id: Option<&'a str>,
    /// Its request and limit as they are in force: in-place resize changes them in the status, once the node has followed.
    pub memory: Memory,
}

impl Amounts {
    fn bytes(&self) -> Option<Bytes> {
        self.memory.as_deref().and_then(bytes)
    }
}

impl Resources {
    fn memory(&self) -> Memory {
        // To kubelet a limit of nothing is none.
        let limit = self.limits.bytes().filter(|limit| *limit != Bytes(0));
        Memory { request: self.requests.bytes(), limit }
    }
}

/// An amount in any notation of Kubernetes.
pub(super) fn bytes(text: &str) -> Option<Bytes> {
    api::Quantity::of_kubernetes(text).map(|quantity| quantity.0)
}

/// Whether it can be part of a cgroup's name, and of a `NodeTiering`: one that can't would have all of the node's pods refused.
fn is_identifier(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl Pod {
    /// The node it is bound to.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref().filter(|node| !node.is_empty())
    }

    /// Annotations that are ours.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.metadata.annotations.iter().flatten();
        all.filter(|(key, _)| annotations::is_ours(key)).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata.labels.as_ref()
    }

    /// The uid that its cgroup is named after: of a mirror pod that of the static pod, which only its node knows.
    #[must_use]
    pub fn cgroup_uid(&self) -> &str {
        let annotations = self.metadata.annotations.as_ref();
        let of_static =
            annotations.filter(|_| self.is_mirror()).and_then(|annotations| annotations.get(STATIC_UID));
        of_static.filter(|uid| is_identifier(uid)).or(self.metadata.uid.as_ref()).map_or("", String::as_str)
    }

    /// Whether it is the mirror of a static pod.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
    }

    /// Whether Kubernetes calls it critical.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        let class = self.spec.priority_class_name.as_deref();
        class.is_some_and(|class| CRITICAL_CLASSES.contains(&class))
            || self.spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
    }

    /// Whether all its containers have ended for good.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Its class; an API server sets it with the pod.
    #[must_use]
    pub fn qos_class(&self) -> QosClass {
        self.status.qos_class.unwrap_or_default()
    }

    /// All containers that it may run, those that only prepare it included.
    pub fn containers(&self) -> impl Iterator<Item = Container<'_>> {
        self.init_containers().chain(self.main_containers())
    }

    fn init_containers(&self) -> impl Iterator<Item = Container<'_>> {
        of(&self.spec.init_containers, &self.status.init_container_statuses)
    }

    fn main_containers(&self) -> impl Iterator<Item = Container<'_>> {
        of(&self.spec.containers, &self.status.container_statuses)
    }

    /// What its cgroup may use, as kubelet counts it: what is said of the whole pod, or else of the containers the most that run
    /// at a time; with the overhead of its runtime. There is a limit only where each container has one, or the pod as a whole.
    ///
    /// Source: `resourcehelper.PodRequests` and `PodLimits` of Kubernetes, and kubelet's `ResourceConfigForPod`.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let init: Vec<Memory> = self.init_containers().map(|container| container.memory).collect();
        let main: Vec<Memory> = self.main_containers().map(|container| container.memory).collect();
        let all = || init.iter().chain(&main);
        let requested = all().any(|memory| memory.request.is_some());
        let limited = !main.is_empty() && all().all(|memory| memory.limit.is_some());
        let most = |of: fn(&Memory) -> Option<Bytes>| {
            let amount = |memory: &Memory| of(memory).unwrap_or_default().0;
            // Containers that prepare the pod run one after the other, beside the sidecars that began before them.
            let (mut sidecars, mut highest) = (0_u64, 0_u64);
            for (spec, memory) in self.spec.init_containers.iter().zip(&init) {
                let running = sidecars.saturating_add(amount(memory));
                highest = highest.max(running);
                if spec.is_sidecar() {
                    sidecars = running;
                }
            }
            Bytes(main.iter().map(amount).fold(sidecars, u64::saturating_add).max(highest))
        };
        let whole = self.whole();
        let overhead = self.spec.overhead.bytes();
        let with_overhead = |amount: Bytes| Bytes(amount.0.saturating_add(overhead.unwrap_or_default().0));
        let request = whole.request.or_else(|| requested.then(|| most(|memory| memory.request)));
        let limit = whole.limit.or_else(|| limited.then(|| most(|memory| memory.limit)));
        Memory { request: request.map(with_overhead).or(overhead), limit: limit.map(with_overhead) }
    }

    /// What is said of the whole pod, as it is in force: a resize changes the spec at once, and the status when the node has
    /// followed.
    #[must_use]
    pub fn whole(&self) -> Memory {
        let Some(asked) = &self.spec.resources else { return Memory::default() };
        self.status.resources.as_ref().unwrap_or(asked).memory()
    }
}

impl ContainerSpec {
    /// Whether it begins before those that prepare the pod after it, and stays.
    fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

fn of<'a>(
    specs: &'a [ContainerSpec],
    statuses: &'a [ContainerStatus],
) -> impl Iterator<Item = Container<'a>> {
    specs.iter().map(|spec| {
        let status = statuses.iter().find(|status| status.name == spec.name);
        let id = status.and_then(|status| status.container_id.as_deref()).unwrap_or_default();
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        let resources = status.and_then(|status| status.resources.as_ref()).or(spec.resources.as_ref());
        Container {
            name: &spec.name,
            id: Some(id).filter(|id| is_identifier(id)),
            memory: resources.map(Resources::memory).unwrap_or_default(),
        }
    })
}

#[cfg(test)]
mod tests;
