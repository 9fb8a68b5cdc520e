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

/// What the agent of a node says of memory that is slower than DRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowTier {
    /// Nothing yet.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// The fastest of it.
    Present(TierName),
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
        self.dram_tier().map(|tier| tier.capacity.0)
    }

    /// Which memory of the node is slower.
    #[must_use]
    pub fn slow_tier(&self) -> SlowTier {
        let Some(dram) = self.dram_tier() else { return SlowTier::Unknown };
        let slower = self.status.tiers.iter().filter(|tier| tier.rank > dram.rank);
        let fastest = slower.min_by_key(|tier| tier.rank);
        // A name that only a newer agent knows is a tier all the same.
        fastest
            .map_or(SlowTier::Absent, |tier| SlowTier::Present(tier.name.parse().unwrap_or(TierName::Slow)))
    }

    fn dram_tier(&self) -> Option<&TierStatus> {
        let name = TierName::Dram.to_string();
        self.status.tiers.iter().find(|tier| tier.name == name)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_slow_tier_is_the_fastest_below_dram_once_an_agent_has_found_dram() {
        let check = |tiers: &[&str], expected| {
            let tier = |(rank, name)| json!({ "name": name, "rank": rank, "nodes": "0", "capacity": "1Gi" });
            let tiers: Vec<_> = tiers.iter().enumerate().map(tier).collect();
            let object = json!({ "metadata": { "name": "n1" }, "status": { "tiers": tiers } });
            let object: NodeTiering = serde_json::from_str(&object.to_string()).unwrap();
            assert_eq!(object.slow_tier(), expected, "{tiers:?}");
        };
        check(&[], SlowTier::Unknown);
        check(&["cxl"], SlowTier::Unknown);
        check(&["dram"], SlowTier::Absent);
        check(&["hbm", "dram"], SlowTier::Absent);
        check(&["hbm", "dram", "cxl", "pmem"], SlowTier::Present(TierName::Cxl));
        check(&["dram", "pmem"], SlowTier::Present(TierName::Pmem));
        check(&["dram", "racetrack"], SlowTier::Present(TierName::Slow));
    }
}
