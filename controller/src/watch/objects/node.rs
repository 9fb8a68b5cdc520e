use api::SLOW_TIER;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use tiering::Bytes;

/// A node: what its pods may use together.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = v1::Node)]
pub struct Node {
    /// Name, uid and labels.
    #[serde(deserialize_with = "super::thin_metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    allocatable: Allocatable,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Allocatable {
    memory: Option<String>,
}

impl Node {
    /// One of which no more is known than what it is called.
    #[must_use]
    pub fn unreadable(metadata: &ObjectMeta) -> Self {
        Self { metadata: metadata.clone(), status: Status::default() }
    }

    /// The memory that pods may use, once the node has said so.
    #[must_use]
    pub fn allocatable(&self) -> Option<Bytes> {
        self.status.allocatable.memory.as_deref().and_then(super::pod::bytes)
    }

    /// What it is labelled as having of slow memory.
    #[must_use]
    pub fn slow_tier_label(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(SLOW_TIER).map(String::as_str)
    }

    /// Whether an agent can run there.
    #[must_use]
    pub fn is_linux(&self) -> bool {
        let os = self.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
        os.is_none_or(|os| os == "linux")
    }
}
