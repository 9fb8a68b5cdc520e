//! Nodes are labelled by the slow tier that their agents found.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use api::{NodeTiering, SLOW_TIER};
use cluster_tests::eventually;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::cluster::{Cluster, Objects, REPLICAS};

/// Has a node's agent say which tiers it found, the fastest first.
async fn found(objects: &Objects, node: &str, tiers: &[&str]) -> Result<()> {
    objects.report(node).await?;
    let tier = |(rank, name)| json!({ "name": name, "rank": rank, "nodes": "0", "capacity": "1Gi" });
    let tiers: Vec<_> = tiers.iter().enumerate().map(tier).collect();
    let tierings: Api<NodeTiering> = Api::all(objects.client.clone());
    let status = Patch::Merge(json!({ "status": { "tiers": tiers } }));
    tierings.patch_status(node, &PatchParams::default(), &status).await?;
    Ok(())
}

/// Waits until a node has these labels and no others.
async fn until_labelled(objects: &Objects, node: &str, expected: &[(&str, &str)]) -> Result<()> {
    let nodes: Api<Node> = Api::all(objects.client.clone());
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let expected: BTreeMap<_, _> = expected.iter().map(own).collect();
    let mut labels = BTreeMap::new();
    let waited = eventually("the node has its labels", async || {
        labels = nodes.get(node).await?.labels().clone();
        Ok((labels == expected).then_some(()))
    });
    waited.await.with_context(|| format!("{node} was to have {expected:?} and had {labels:?}"))
}

#[tokio::test]
async fn a_node_has_the_label_of_its_slow_tier_while_its_agent_says_so_and_keeps_others() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    for node in ["cxl", "plain", "silent"] {
        objects.node(node).await?;
    }
    let nodes: Api<Node> = Api::all(objects.client.clone());
    let zone = Patch::Merge(json!({ "metadata": { "labels": { "zone": "a" } } }));
    nodes.patch("cxl", &PatchParams::default(), &zone).await?;
    // Of an agent that ran there before, and has not spoken since.
    let before = Patch::Merge(json!({ "metadata": { "labels": { SLOW_TIER: "pmem" } } }));
    nodes.patch("silent", &PatchParams::default(), &before).await?;
    found(&objects, "cxl", &["dram", "cxl", "pmem"]).await?;
    found(&objects, "plain", &["dram"]).await?;

    let mut replica = cluster.replica(REPLICAS[0], &["--slow-tier-label"])?;
    replica.until_leading().await?;
    until_labelled(&objects, "cxl", &[("zone", "a"), (SLOW_TIER, "cxl")]).await?;
    // One that somebody takes away comes back.
    let gone = Patch::Merge(json!({ "metadata": { "labels": { SLOW_TIER: null } } }));
    nodes.patch("cxl", &PatchParams::default(), &gone).await?;
    until_labelled(&objects, "cxl", &[("zone", "a"), (SLOW_TIER, "cxl")]).await?;
    found(&objects, "cxl", &["dram", "pmem"]).await?;
    until_labelled(&objects, "cxl", &[("zone", "a"), (SLOW_TIER, "pmem")]).await?;
    found(&objects, "cxl", &["dram"]).await?;
    until_labelled(&objects, "cxl", &[("zone", "a")]).await?;
    found(&objects, "plain", &["hbm", "dram", "slow"]).await?;
    until_labelled(&objects, "plain", &[(SLOW_TIER, "slow")]).await?;
    until_labelled(&objects, "silent", &[(SLOW_TIER, "pmem")]).await?;

    // A write for each change, and no other.
    let writes = cluster.writes()?;
    let of_nodes: Vec<_> = writes.iter().filter(|write| write.resource == "nodes").collect();
    let wrote = |node: &str| of_nodes.iter().filter(|write| write.name == node).count();
    anyhow::ensure!(of_nodes.iter().all(|write| write.code == 200), "{of_nodes:#?}");
    assert_eq!((wrote("cxl"), wrote("plain"), wrote("silent")), (4, 1, 0), "{of_nodes:#?}");
    Ok(())
}
