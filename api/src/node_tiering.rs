//! What one node is assigned, and what its agent says: one object a node.
//!
//! etcd keeps the whole object anew at each change of any part of it, so it says little: each policy once, however many pods have
//! it, and of each only what differs from the defaults of this version of the API; of pods only those that are not as they should
//! be; no number that changes by itself. docs/api-versions.md says how readers and writers of different versions get along.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy_spec::{MemoryHighInputs, OverrideBounds, PolicySpec};
use crate::quantity::Quantity;

/// Most bytes of a spec as JSON. etcd takes 1.5 MiB, and twice as many nodes' worth of other things is in flight.
pub const MOST_SPEC_BYTES: usize = 256 << 10;
/// Most bytes of a status as JSON.
pub const MOST_STATUS_BYTES: usize = 2 << 10;
/// Containers of one pod that can have a policy of their own.
pub const MOST_APART: usize = 64;

/// On a node: its fastest memory that is slower than DRAM, as its agent found it or was told: `cxl`, `pmem`, or `slow` where
/// nothing says what it is.
pub const SLOW_TIER: &str = "thermocline.io/slow-tier";

/// On a `NodeTiering`: when the controller said last that it still is so, in seconds since 1970.
pub const RENEWED: &str = "thermocline.io/renewed";
/// On a `NodeTiering`: since when the controller led that wrote it, in seconds since 1970. One that led before is out of date.
pub const EPOCH: &str = "thermocline.io/epoch";
/// How often the controller says so.
pub const RENEW_EVERY: std::time::Duration = std::time::Duration::from_hours(1);
/// What nobody said so of for this long is only observed: whoever assigned it may be no more.
pub const STALE_AFTER: std::time::Duration = std::time::Duration::from_hours(4);

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
    printcolumn(name = "Tiers", type_ = "string", json_path = ".status.memory"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".spec.assignedPods"),
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
#[schemars(transform = crate::notation::describe)]
pub struct NodeTieringSpec {
    /// Each policy of the node's pods once, with what they override. The keys follow from what it says.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, ResolvedPolicy>,
    /// Pods with a policy. A pod that is not here is not managed.
    ///
    /// Atomic, for it has one writer: as a map by uid, the record of who owns which field would be larger than the list.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default)]
    pub pods: Vec<PodAssignment>,
    /// How many pods that are, for tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub assigned_pods: Option<u32>,
    /// Namespaces whose pods did not all fit: each has its share of what one object can hold.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub cut: Vec<Cut>,
    /// Floors of the node's pods that sum to more than its DRAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommitted: Option<Overcommitted>,
    /// Pods with annotations that do not apply: some of each namespace, where there are many.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub problems: Vec<PodProblem>,
}

/// A policy as it applies, with what pods override.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPolicy {
    /// Name of the `TieringPolicy`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Fields of `spec`, as in `demote.after`, without which the rest is not to be carried out. An agent that does not know one of
    /// them leaves the pod as it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub must_understand: Vec<String>,
    /// What of it differs from the defaults of this version of the API.
    #[serde(default)]
    #[schemars(schema_with = "resolved")]
    pub spec: PolicySpec,
}

/// A namespace of which not all pods fit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// Its name.
    pub namespace: String,
    /// Pods that are left alone for it, the last by name.
    #[schemars(with = "i32")]
    pub pods: u32,
}

/// Floors that no node could honour all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overcommitted {
    /// The sum of the floors.
    pub floors: Quantity,
    /// The node's DRAM.
    pub dram: Quantity,
}

/// A pod with annotations that do not apply.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodProblem {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The first of its problems.
    pub message: String,
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
    /// Whether an annotation of the pod names its policy. What is left alone by default, such as a pod whose memory nodes another
    /// writer pinned, is managed only then, or in containers that have a policy of their own: those are always named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explicit: bool,
    /// The policy of its containers, one of `policies`. Without it, only containers with a policy of their own are managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub policy: Option<String>,
    /// What all its containers together may use, where the policy computes with it.
    #[serde(default, skip_serializing_if = "MemoryResources::is_empty")]
    pub memory: MemoryResources,
    /// Containers whose own annotation tells them apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_APART))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub containers: Vec<ContainerAssignment>,
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
    /// Its own policy, one of `policies`; absent where the pod's holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub policy: Option<String>,
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
#[schemars(transform = crate::notation::describe)]
pub struct NodeTieringStatus {
    /// The agent's version. Until there is one, nothing is assigned to the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// What finds and moves cold pages.
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
    /// The tiers and their sizes in words, for tables, as `dram 384 GiB, pmem 1.5 TiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Conditions of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Assigned pods whose policy is not carried out though it should be, as many as fit, in turn of each namespace. Of all others
    /// it is carried out or, in mode Observe, observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pods: Vec<PodStatus>,
    /// Such pods that did not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub more_pods: Option<u32>,
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
    /// What was probed and works.
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What was probed and does not.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<KernelFeature>,
}

/// Something that a kernel does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelFeature {
    /// What.
    pub name: String,
    /// Why not, and what to do: the beginning of what `probe` says.
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
}

/// An assigned pod whose policy is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// Since when.
    pub since: Time,
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

impl NodeTieringSpec {
    /// Has the policy among [`Self::policies`]: the key to refer to it by.
    pub fn refer(&mut self, policy: ResolvedPolicy) -> String {
        use std::hash::Hasher as _;
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(serde_json::to_string(&policy).unwrap_or_default().as_bytes());
        // 40 bits; two policies that share them are kept apart all the same.
        let hash = format!("{:010x}", hasher.finish() & 0xff_ffff_ffff);
        let keys = std::iter::once(hash.clone()).chain((2_u32..).map(|n| format!("{hash}-{n}")));
        for key in keys {
            match self.policies.get(&key) {
                Some(known) if *known != policy => {}
                Some(_) => return key,
                None => {
                    self.policies.insert(key.clone(), policy);
                    return key;
                }
            }
        }
        hash
    }

    /// The policy of a key.
    #[must_use]
    pub fn policy(&self, key: Option<&String>) -> Option<&ResolvedPolicy> {
        self.policies.get(key?)
    }
}

impl ResolvedPolicy {
    /// A policy as the agent gets it: without what says where it applies, which is done with, and without what is default anyway.
    #[must_use]
    pub fn new(name: &str, spec: PolicySpec) -> Self {
        let spec = PolicySpec {
            selector: None,
            priority: None,
            enforced: None,
            allowed_namespaces: None,
            allow_overrides: None,
            override_bounds: OverrideBounds::default(),
            ..spec
        };
        let spec = spec.minimal();
        Self { name: name.to_owned(), must_understand: spec.must_understand(), spec }
    }

    /// One that only observes, for a pod that is to have `name` of which nothing is known.
    #[must_use]
    pub fn observing(name: &str) -> Self {
        Self::new(name, PolicySpec { mode: Some(crate::ModeSpec::Observe), ..PolicySpec::default() })
    }

    /// Reads one, whatever a newer version added to it that need not be understood.
    ///
    /// # Errors
    /// In words, what can't be understood.
    pub fn read(value: &serde_json::Value) -> Result<Self, String> {
        let (policy, _) = crate::lenient::read::<Self>(value.clone()).map_err(|error| error.to_string())?;
        // What a server between the two dropped is not understood either.
        let known = serde_json::to_value(&policy.spec).unwrap_or_default();
        let is_known = |path: &String| known.pointer(&format!("/{}", path.replace('.', "/"))).is_some();
        match policy.must_understand.iter().find(|path| !is_known(path)) {
            Some(path) => Err(format!("policy {}: the field {path} must be understood", policy.name)),
            None => Ok(policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, spec: serde_json::Value) -> ResolvedPolicy {
        ResolvedPolicy::new(name, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_policy_is_published_once_and_only_what_is_not_default() {
        let mut spec = NodeTieringSpec::default();
        let one = spec.refer(policy(
            "p",
            json!({ "mode": "Enforce", "demote": { "after": "120s", "maxRate": "100Mi" } }),
        ));
        assert_eq!(spec.refer(policy("p", json!({ "demote": { "maxRate": "100Mi" }, "priority": 7 }))), one);
        assert_ne!(spec.refer(policy("q", json!({ "demote": { "maxRate": "100Mi" } }))), one);
        assert_ne!(spec.refer(policy("p", json!({}))), one);
        assert_eq!(spec.policies.len(), 3);
        let published = serde_json::to_value(spec.policy(Some(&one)).unwrap()).unwrap();
        assert_eq!(published, json!({ "name": "p", "spec": { "demote": { "maxRate": "100Mi" } } }));
    }

    #[test]
    fn policies_of_one_hash_are_kept_apart() {
        let mut spec = NodeTieringSpec::default();
        let key = spec.refer(policy("p", json!({})));
        let other = spec.policies.insert(key.clone(), policy("q", json!({}))).unwrap();
        assert_eq!(spec.refer(other.clone()), format!("{key}-2"));
        assert_eq!(spec.refer(other), format!("{key}-2"));
    }

    #[test]
    fn what_must_be_understood_and_is_not_known_makes_a_policy_unreadable() {
        let read = |must: &[&str], spec: serde_json::Value| {
            ResolvedPolicy::read(&json!({ "name": "p", "mustUnderstand": must, "spec": spec, "added": 1 }))
        };
        assert!(read(&[], json!({ "swapOut": true })).is_ok());
        assert!(read(&["demote.after"], json!({ "demote": { "after": "5m" }, "swapOut": true })).is_ok());
        for spec in [json!({ "swapOut": true }), json!({})] {
            let error = read(&["swapOut"], spec).unwrap_err();
            assert_eq!(error, "policy p: the field swapOut must be understood");
        }
        assert!(read(&["demote.grace"], json!({ "demote": { "grace": "5s" } })).is_err());
    }
}
