//! A node is written again only if its assignment changed.

use anyhow::{Context as _, Result, ensure};
use cluster_tests::eventually;
use serde_json::json;

use crate::cluster::{Cluster, REPLICAS, annotated, shared};
use crate::replica::failed_writes;

#[tokio::test]
async fn what_changes_no_assignment_is_not_written() -> Result<()> {
    let shared = shared().await?;
    let (cluster, objects) = (&shared.cluster, shared.cluster.objects().await?);
    for node in ["quiet-node", "quiet-marker"] {
        objects.node(node).await?;
    }
    objects.policy("quiet", json!({ "memoryHigh": { "mode": "None" } })).await?;
    objects.namespace("quiet", json!({})).await?;
    objects.pod_with("quiet/web", "quiet-node", "quiet").await?;
    objects.pod_with("quiet/out", "quiet-node", "none").await?;
    objects.pod_with("quiet/marker", "quiet-marker", "none").await?;
    objects.until_assigned("quiet-node", &[("quiet/web", "quiet")]).await?;
    let written = async || {
        let state = shared.replica.lock().await.until("it says how it went", |_| true).await?;
        anyhow::Ok((cluster.written("quiet-node")?.len(), failed_writes(&state)))
    };
    let (version, before) = (objects.version_of("quiet-node").await?, written().await?);

    objects.change_pod("quiet/web", &json!({ "metadata": { "labels": { "color": "red" } } })).await?;
    objects.change_pod("quiet/web", &annotated("example.com/note", "thermocline.io/policy")).await?;
    objects.change_pod("quiet/web", &json!({ "spec": { "activeDeadlineSeconds": 100_000 } })).await?;
    let ready = json!({ "type": "Ready", "status": "True" });
    objects.change_pod_status("quiet/web", json!({ "phase": "Running", "conditions": [ready] })).await?;
    objects.change_pod("quiet/out", &annotated("container.thermocline.io/main", "none")).await?;
    objects.pod_with("quiet/another", "quiet-node", "none").await?;
    objects.delete_pod("quiet/another").await?;
    objects.namespace("quiet", json!({ "labels": { "color": "red" } })).await?;

    // Told of another node after all of these: so they have been seen.
    objects.name_policy("quiet/marker", "quiet").await?;
    objects.until_assigned("quiet-marker", &[("quiet/marker", "quiet")]).await?;
    assert_eq!(objects.version_of("quiet-node").await?, version);
    let after = written().await?;
    // A write that failed is done again.
    ensure!((after.0 - before.0) as u64 <= after.1 - before.1, "it was written: {before:?}, {after:?}");
    Ok(())
}

#[tokio::test]
async fn a_restart_writes_only_what_changed_meanwhile() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    let nodes: Vec<String> = (0..6).map(|n| format!("node-{n}")).collect();
    let memory = json!({ "requests": { "memory": "64Mi" }, "limits": { "memory": "1.5Gi" } });
    objects
        .policy(
            "batch",
            json!({ "memoryHigh": { "mode": "Formula", "factor": "0.90" }, "dram": { "ceiling": "60%" } }),
        )
        .await?;
    for node in &nodes {
        objects.node(node).await?;
        let mut pod = annotated("thermocline.io/policy", "batch");
        pod["spec"]["containers"] = json!([{ "name": "main", "image": "none", "resources": memory }, { "name": "side", "image": "none" }]);
        pod["metadata"]["annotations"]["container.thermocline.io/side"] = json!("none");
        objects.pod(&format!("default/pod-{node}"), node, &pod).await?;
    }
    let mut first = cluster.replica(REPLICAS[0], &[])?;
    for node in &nodes {
        objects.until_assigned(node, &[(&format!("default/pod-{node}"), "batch; side: -")]).await?;
    }
    let status = first.terminate().await?;
    ensure!(status.success(), "{status}: {}", first.last_words());
    let version = async |node: &str| objects.version_of(node).await;
    let mut before = Vec::new();
    for node in &nodes {
        before.push(version(node).await?);
    }

    // While nobody looks, one node goes and one gets a pod.
    objects.delete_node("node-0").await?;
    objects.pod_with("default/late", "node-1", "batch").await?;
    let mut second = cluster.replica(REPLICAS[1], &[])?;
    second.until_leading().await?;
    eventually("the object of a vanished node is removed", async || {
        Ok(objects.node_tiering("node-0").await?.is_none().then_some(()))
    })
    .await?;
    let late = [("default/late", "batch"), ("default/pod-node-1", "batch; side: -")];
    objects.until_assigned("node-1", &late).await?;
    let looked_at = |state: &serde_json::Value| state["tallies"]["unneeded"].as_u64() >= Some(4);
    second.until("it has looked at the others", looked_at).await?;
    for (node, before) in nodes.iter().zip(before).skip(2) {
        assert_eq!(version(node).await?, before, "{node}");
    }
    let mut written: Vec<_> = cluster
        .writes()?
        .into_iter()
        .filter(|write| write.user == REPLICAS[1] && write.resource == "nodetierings")
        .map(|write| format!("{} {}", write.verb, write.name))
        .collect();
    written.sort();
    // An answer may have been late.
    written.dedup();
    assert_eq!(written, ["delete node-0", "patch node-1"]);
    Ok(())
}

#[tokio::test]
async fn what_a_vanished_node_was_assigned_is_removed_and_written_again_when_it_comes_back() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("comes-and-goes").await?;
    objects.policy("vanish", json!({})).await?;
    objects.namespace("vanish", json!({})).await?;
    objects.pod_with("vanish/web", "comes-and-goes", "vanish").await?;
    let assigned = [("vanish/web", "vanish")];
    objects.until_assigned("comes-and-goes", &assigned).await?;
    let owner = async || {
        let object = objects.node_tiering("comes-and-goes").await?.context("it has an assignment")?;
        let owners = object.metadata.owner_references.unwrap_or_default();
        anyhow::Ok(owners.first().map(|owner| (owner.kind.clone(), owner.uid.clone())))
    };
    let first = owner().await?;
    objects.delete_node("comes-and-goes").await?;
    eventually("it is removed", async || {
        Ok(objects.node_tiering("comes-and-goes").await?.is_none().then_some(()))
    })
    .await?;
    objects.node("comes-and-goes").await?;
    objects.until_assigned("comes-and-goes", &assigned).await?;
    let second = owner().await?;
    ensure!(first.is_some() && second.is_some() && first != second, "{first:?}, {second:?}");

    // What somebody removes is made again by the controller, as soon as its agent has reported again.
    let nodes: kube::Api<api::NodeTiering> = kube::Api::all(objects.client.clone());
    nodes.delete("comes-and-goes", &kube::api::DeleteParams::default()).await?;
    objects.report("comes-and-goes").await?;
    objects.until_assigned("comes-and-goes", &assigned).await
}
