use api::{EPOCH, NodeTieringSpec, PodStatus, RENEWED, TierStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_json::value::RawValue;
use tiering::{Bytes, TierName};

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
#[serde(rename_all = "camelCase")]
struct Status {
    agent_version: Option<String>,
    #[serde(default)]
    tiers: Vec<TierStatus>,
    #[serde(default)]
    pods: Vec<PodStatus>,
}

impl NodeTiering {
    /// What is assigned; `None` where it can't be read.
    #[must_use]
    pub fn spec(&self) -> Option<NodeTieringSpec> {
        let value = self.spec.as_ref().and_then(|text| serde_json::from_str(text.get()).ok())?;
        api::lenient::read(value).ok().map(|(spec, _)| spec)
    }

    /// Whether an agent of the node ever reported.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.status.agent_version.is_some()
    }

    /// The node's DRAM, once its agent has said so.
    #[must_use]
    pub fn dram(&self) -> Option<Bytes> {
        let name = TierName::Dram.to_string();
        self.status.tiers.iter().find(|tier| tier.name == name).map(|tier| tier.capacity.0)
    }

    /// When it was written or confirmed last, in seconds since 1970.
    #[must_use]
    pub fn renewed(&self) -> Option<u64> {
        self.seconds(RENEWED)
    }

    /// Since when the controller has led that wrote it, in seconds since 1970.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.seconds(EPOCH)
    }

    fn seconds(&self, key: &str) -> Option<u64> {
        self.metadata.annotations.as_ref()?.get(key)?.parse().ok()
    }

    /// The uid of what it belongs to.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        // With another beside it, it would stay when ours goes: so that is none of ours.
        match self.metadata.owner_references.as_deref()? {
            [owner] => Some(&owner.uid),
            _ => None,
        }
    }

    /// Pods whose policy is not carried out, as the agent says.
    #[must_use]
    pub fn pods(&self) -> &[PodStatus] {
        &self.status.pods
    }
}
