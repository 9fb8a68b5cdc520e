use api::NodeTieringSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A `NodeTiering`. Its spec is ours and large: it stays text until somebody asks.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = api::NodeTiering)]
pub struct NodeTiering {
    /// Name, generation and owner.
    #[serde(deserialize_with = "super::thin_metadata")]
    pub metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    pods: Vec<PodConditions>,
}

/// What the agent says of one pod.
#[derive(Clone, Debug, Deserialize)]
pub struct PodConditions {
    /// The uid of its cgroup.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl NodeTiering {
    /// What is assigned; `None` where it can't be read.
    #[must_use]
    pub fn spec(&self) -> Option<NodeTieringSpec> {
        self.spec.as_ref().and_then(|text| serde_json::from_str(text.get()).ok())
    }

    /// The uid of the node that it belongs to.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        let owners = self.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.kind == "Node").map(|owner| owner.uid.as_str()).next()
    }

    /// What the agent says of each pod.
    #[must_use]
    pub fn pods(&self) -> &[PodConditions] {
        &self.status.pods
    }
}
