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

/// A pod: where it is, what it asks for, and what tells whether it may be managed.
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

impl Resources {
    fn memory(&self) -> Memory {
        let read = |amounts: &Amounts| amounts.memory.as_deref().and_then(bytes);
        Memory { request: read(&self.requests), limit: read(&self.limits) }
    }
}

/// An amount in any notation of Kubernetes. The API server writes parts of a byte as thousandths: whole bytes suffice here.
pub(super) fn bytes(text: &str) -> Option<Bytes> {
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<u64>().ok().map(|number| Bytes(number.div_ceil(1000))),
        None => text.parse::<api::Quantity>().ok().map(|quantity| quantity.0),
    }
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
        of(&self.spec.init_containers, &self.status.init_container_statuses)
            .chain(of(&self.spec.containers, &self.status.container_statuses))
    }

    /// What all its containers together may use: what is said of the pod, or the sum of those that run side by side. There is a
    /// limit only where each of them has one.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let of_pod = self.spec.resources.as_ref().map(Resources::memory).unwrap_or_default();
        let sidecars =
            self.spec.init_containers.iter().filter(|spec| spec.restart_policy.as_deref() == Some("Always"));
        let side_by_side: Vec<&str> =
            sidecars.chain(&self.spec.containers).map(|container| container.name.as_str()).collect();
        let all: Vec<Memory> = self
            .containers()
            .filter(|container| side_by_side.contains(&container.name))
            .map(|container| container.memory)
            .collect();
        let sum = |of: fn(&Memory) -> Option<Bytes>| {
            all.iter().filter_map(of).fold(0_u64, |sum, amount| sum.saturating_add(amount.0))
        };
        let requested = all.iter().any(|memory| memory.request.is_some());
        let limited = !all.is_empty() && all.iter().all(|memory| memory.limit.is_some());
        Memory {
            request: of_pod.request.or_else(|| requested.then(|| Bytes(sum(|memory| memory.request)))),
            limit: of_pod.limit.or_else(|| limited.then(|| Bytes(sum(|memory| memory.limit)))),
        }
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
