//! Objects of the API server as thin as they are needed: what is not named here is skipped while it is read.
//!
//! A pod as the API has it takes ten times the memory of [`Pod`], most of it for fields that no policy depends on.

mod guarded;
mod namespace;
mod node;
mod node_tiering;
mod pod;
mod policy;

use std::collections::BTreeMap;

use api::TieringPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

pub use guarded::{Guarded, Malformed};
pub use namespace::Namespace;
pub use node::Node;
pub use node_tiering::{NodeTiering, SlowTier};
pub use pod::{Container, Memory, Pod, Resources};
pub use policy::Policy;

/// No annotation that has a meaning has a longer value, in bytes.
const LONGEST_VALUE: usize = 1024;

/// Kinds of objects that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pods.
    Pod,
    /// Namespaces.
    Namespace,
    /// Policies.
    Policy,
    /// Nodes.
    Node,
    /// What nodes are assigned; no assignment follows from it.
    NodeTiering,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pod, Self::Namespace, Self::Policy, Self::Node, Self::NodeTiering];

    /// The same among those that assignments follow from; `None` for what they are written to.
    #[must_use]
    pub const fn indexed(self) -> Option<IndexedKind> {
        match self {
            Self::Pod => Some(IndexedKind::Pod),
            Self::Namespace => Some(IndexedKind::Namespace),
            Self::Policy => Some(IndexedKind::Policy),
            Self::Node => Some(IndexedKind::Node),
            Self::NodeTiering => None,
        }
    }

    /// Their name in paths and rules of access.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Namespace => "namespaces",
            Self::Policy => "tieringpolicies",
            Self::Node => "nodes",
            Self::NodeTiering => "nodetierings",
        }
    }
}

/// Kinds that assignments follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexedKind {
    /// Pods.
    Pod,
    /// Namespaces.
    Namespace,
    /// Policies.
    Policy,
    /// Nodes.
    Node,
}

/// An object that is watched.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A namespace.
    Namespace(Namespace),
    /// A policy.
    Policy(Box<TieringPolicy>),
    /// A node.
    Node(Node),
    /// What a node is assigned.
    NodeTiering(NodeTiering),
}

impl From<Pod> for Object {
    fn from(pod: Pod) -> Self {
        Self::Pod(Box::new(pod))
    }
}

impl From<Namespace> for Object {
    fn from(namespace: Namespace) -> Self {
        Self::Namespace(namespace)
    }
}

impl From<Policy> for Object {
    fn from(policy: Policy) -> Self {
        Self::Policy(Box::new(policy.into()))
    }
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl From<NodeTiering> for Object {
    fn from(object: NodeTiering) -> Self {
        Self::NodeTiering(object)
    }
}

/// Shortens a value that is too long to be one. It ends with what no value has, so that what is left of it is none either.
fn cut(value: &mut String) {
    if value.len() > LONGEST_VALUE {
        value.truncate(value.floor_char_boundary(LONGEST_VALUE));
        value.push('…');
    }
}

/// Metadata without what nobody reads, such as managed fields and annotations of others.
fn thin_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Thin {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
        creation_timestamp: Option<Time>,
    }

    let thin = Thin::deserialize(deserializer)?;
    let annotations = thin.annotations.map(|mut annotations| {
        annotations.retain(|key, _| pod::is_read(key));
        annotations.values_mut().for_each(cut);
        annotations
    });
    Ok(ObjectMeta {
        name: thin.name,
        namespace: thin.namespace,
        uid: thin.uid,
        resource_version: thin.resource_version,
        generation: thin.generation,
        labels: thin.labels,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        owner_references: thin.owner_references,
        creation_timestamp: thin.creation_timestamp,
        ..ObjectMeta::default()
    })
}
