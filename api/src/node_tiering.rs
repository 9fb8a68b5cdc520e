//! What one node's agent is told, and what it says: one object a node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy_spec::{MemoryHighInputs, PolicySpec};
use crate::quantity::Quantity;

/// Pods of one node that can be assigned.
pub const MOST_PODS: usize = 2048;
/// Containers of one pod that can be told apart from it.
pub const MOST_APART: usize = 64;

/// Which pods of the node are managed, and how. The controller alone writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "thermocline.io",
    version = "v1alpha1",
    kind = "NodeTiering",
    plural = "nodetierings",
    shortname = "ntier",
    category = "thermocline",
    status = "NodeTieringStatus",
    derive = "PartialEq",
    doc = "The tiering of one node's pods: assigned by the controller (spec), carried out and reported by the node's agent (status).",
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.engine"),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.kernel.release"),
    printcolumn(
        name = "Tiers",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"TiersAvailable\")].status"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct NodeTieringSpec {
    /// Pods with a policy. A pod that is not here is not managed.
    ///
    /// Atomic, for it has one writer: as a map by uid, the record of who owns which field would be larger than the list.
    #[schemars(length(max = MOST_PODS))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default)]
    pub pods: Vec<PodAssignment>,
}

/// One pod and its policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodAssignment {
    /// The pod's uid, which its cgroup is named after.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[0-9A-Za-z._-]+$"))]
    pub uid: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its class, which its cgroup is filed under.
    pub qos_class: QosClass,
    /// Whether an annotation of the pod names its policy. What is left alone by default, such as a pod whose memory nodes another
    /// writer pinned, is managed only then, or in containers that have a policy of their own: those are always named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explicit: bool,
    /// The policy of its containers. Without it, only containers with a policy of their own are managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PodPolicy>,
    /// What all its containers together may use, where the policy computes with it.
    #[serde(default, skip_serializing_if = "MemoryResources::is_empty")]
    pub memory: MemoryResources,
    /// Containers whose own annotation tells them apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_APART))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub containers: Vec<ContainerAssignment>,
}

/// A policy as it applies to one pod or container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodPolicy {
    /// Name of the `TieringPolicy`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its generation when it was assigned.
    pub generation: i64,
    /// All of it that applies, with the pod's overrides and every default.
    #[schemars(schema_with = "resolved")]
    pub spec: PolicySpec,
}

/// The schema of a resolved policy: the rules across fields were checked where users wrote it, and thousands of copies of them cost
/// more than an API server allows.
fn resolved(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = PolicySpec::json_schema(generator).to_value();
    strip(&mut schema);
    schema.try_into().unwrap_or_default()
}

fn strip(schema: &mut serde_json::Value) {
    if let Some(object) = schema.as_object_mut() {
        object.remove("x-kubernetes-validations");
        object.remove("default");
        object.values_mut().for_each(strip);
    }
}

/// Memory request and limit of a pod or container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryResources {
    /// The request; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Quantity>,
    /// The limit, or what the node can allocate where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Quantity>,
}

/// One container that differs from its pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerAssignment {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its id without the runtime's prefix, which its cgroup is named after. Absent until it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[0-9A-Za-z._-]+$"))]
    pub id: Option<String>,
    /// Whether it is left alone though its pod has a policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
    /// Its own policy; absent where the pod's holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PodPolicy>,
    /// Its own request and limit, where its policy computes with them.
    #[serde(default, skip_serializing_if = "MemoryResources::is_empty")]
    pub memory: MemoryResources,
}

/// Kubernetes' quality-of-service class of a pod.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
pub enum QosClass {
    /// Requests equal limits.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// Neither.
    #[default]
    BestEffort,
}

/// What the node's agent says. The agent alone writes it: on a change, and at most once in ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTieringStatus {
    /// The generation of the spec that is carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The agent's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// What finds and moves cold pages where a policy says `Auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What brings hot pages back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotion: Option<String>,
    /// What the kernel allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelStatus>,
    /// Memory tiers, the fastest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["rank".into()]))]
    pub tiers: Vec<TierStatus>,
    /// Conditions of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The assigned pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pods: Vec<PodStatus>,
    /// When `used` of the tiers and `usage` of the pods were read: coarse, every five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_time: Option<Time>,
}

/// The kernel of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelStatus {
    /// As `uname -r` says.
    // No default in the schema: Kubernetes 1.20 takes an empty text there for null, and refuses the definition.
    #[serde(default)]
    #[schemars(!default)]
    pub release: String,
    /// What was probed.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default)]
    pub features: Vec<KernelFeature>,
}

/// One thing that a kernel may allow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelFeature {
    /// What.
    pub name: String,
    /// Whether it works here; it was tried.
    pub available: bool,
    /// Why not, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A memory tier of a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// Its name, such as `dram`.
    pub name: String,
    /// 0 is the fastest.
    #[schemars(with = "i32")]
    pub rank: u32,
    /// Its memory nodes, as in `0,2-3`.
    pub nodes: String,
    /// Its size.
    pub capacity: Quantity,
    /// What is in use, as of `usageTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Quantity>,
}

/// What became of one assigned pod.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Conditions of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Its anonymous memory as of `usageTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<PodUsage>,
}

/// Where the anonymous memory of a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodUsage {
    /// On fast nodes.
    pub dram: Quantity,
    /// On slow nodes.
    pub slow: Quantity,
    /// Of that on fast nodes, what is older than the policy's age.
    pub cold: Quantity,
}

impl MemoryResources {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a `Formula` computes with, where there is a limit.
    #[must_use]
    pub fn inputs(&self) -> Option<MemoryHighInputs> {
        let request = self.request.map(|request| request.0).unwrap_or_default();
        self.limit.map(|limit| MemoryHighInputs { request, limit: limit.0 })
    }
}
