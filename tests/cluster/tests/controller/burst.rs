//! Many pods of a node change at once: few writes, and each pod's soon.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_tests::eventually;
use controller::node_writes::SPACING;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::cluster::{annotated, policies, shared};

const PODS: usize = 100;

#[tokio::test]
async fn a_change_of_all_pods_of_a_node_is_one_write() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("bulk-node").await?;
    objects.namespace("bulk", json!({ "annotations": { "thermocline.io/policy": "none" } })).await?;
    objects.policy("bulk", json!({})).await?;
    futures::stream::iter(0..PODS)
        .map(async |n| objects.pod(&format!("bulk/pod-{n}"), "bulk-node", &json!({})).await)
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await?;
    // It sees pods in order, but namespaces by another watch: it has to know all pods first.
    objects.pod_with("bulk/last", "bulk-node", "none").await?;
    eventually("it knows the last pod", async || {
        let known = shared.replica.lock().await.get("/debug/explain?pod=bulk/last").await?;
        Ok(known.map(|_| ()))
    })
    .await?;
    objects.until_assigned("bulk-node", &[]).await?;
    let before = shared.cluster.written("bulk-node")?;
    objects.namespace("bulk", json!({ "annotations": { "thermocline.io/policy": "bulk" } })).await?;
    let names: Vec<String> = (0..PODS).map(|n| format!("bulk/pod-{n}")).collect();
    let expected: Vec<_> = names.iter().map(|name| (&**name, "bulk")).collect();
    objects.until_assigned("bulk-node", &expected).await?;
    let mut assigned = shared.cluster.written("bulk-node")?.split_off(before.len());
    // An answer may have been late.
    assigned.dedup();
    let sizes: Vec<_> = assigned.iter().map(|(_, spec)| spec.pods.len()).filter(|pods| *pods > 0).collect();
    assert_eq!(sizes, [PODS]);
    Ok(())
}

/// Pods of one node are annotated at 100 a second. Run it alone for numbers that mean something:
/// `cargo test -p cluster-tests --test controller a_burst_of_pods -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_pods_on_a_node_is_a_few_writes() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("burst-node").await?;
    objects.namespace("burst", json!({ "annotations": { "thermocline.io/policy": "none" } })).await?;
    objects.policy("burst", json!({})).await?;
    for n in 0..PODS {
        objects.pod(&format!("burst/pod-{n}"), "burst-node", &json!({})).await?;
    }
    let object = objects.node_tiering("burst-node").await?;
    let told_before = shared.cluster.written("burst-node")?.len();

    // When this process, too, learns of each: as the controller learns of the pod, and as an agent does.
    let pods: Api<Pod> = Api::namespaced(objects.client.clone(), "burst");
    let since = pods.list(&kube::api::ListParams::default()).await?.metadata.resource_version;
    let since = since.context("a list has a version")?;
    let pods_seen = tokio::spawn(async move {
        let mut seen: HashMap<String, Instant> = HashMap::new();
        let mut events = std::pin::pin!(pods.watch(&WatchParams::default(), &since).await?);
        while seen.len() < PODS {
            if let Some(WatchEvent::Modified(pod)) = events.try_next().await? {
                seen.entry(pod.name_any()).or_insert_with(Instant::now);
            }
        }
        anyhow::Ok(seen)
    });
    let nodes: Api<api::NodeTiering> = Api::all(objects.client.clone());
    let version = object.and_then(|object| object.resource_version());
    let node_seen = tokio::spawn(async move {
        let mut seen: HashMap<String, Instant> = HashMap::new();
        let only = WatchParams::default().fields("metadata.name=burst-node");
        let version = version.unwrap_or_else(|| "0".to_owned());
        let mut events = std::pin::pin!(nodes.watch(&only, &version).await?);
        while seen.len() < PODS {
            if let Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) = events.try_next().await? {
                let now = Instant::now();
                for pod in policies(&object.spec).into_keys() {
                    let name = pod.trim_start_matches("burst/").to_owned();
                    seen.entry(name).or_insert(now);
                }
            }
        }
        anyhow::Ok(seen)
    });

    let start = Instant::now();
    let mut changes = Vec::new();
    for n in 0..PODS {
        let due = start + Duration::from_millis(10) * u32::try_from(n)?;
        tokio::time::sleep_until(due.into()).await;
        let objects = objects.clone();
        changes.push(tokio::spawn(async move {
            objects.change_pod(&format!("burst/pod-{n}"), &annotated("thermocline.io/policy", "burst")).await
        }));
    }
    for change in changes {
        change.await??;
    }
    let sent = start.elapsed();
    let wait = async || anyhow::Ok((pods_seen.await??, node_seen.await??));
    let (pods_seen, assigned) = tokio::time::timeout(cluster_tests::PATIENCE, wait()).await??;
    let took = start.elapsed();
    let mut latencies: Vec<Duration> = Vec::new();
    for (pod, at) in &pods_seen {
        // The node may have been written before this process saw the pod's own event.
        latencies.push(assigned.get(pod).context("it has an assignment")?.saturating_duration_since(*at));
    }
    latencies.sort();
    let writes = shared.cluster.written("burst-node")?.len() - told_before;
    println!(
        "{PODS} pods of one node annotated in {sent:.2?}: {writes} writes; from the pod's event to the node's, each seen by a watch: \
         p50 {:.0?}, p99 {:.0?}, longest {:.0?}",
        latencies[PODS / 2 - 1],
        latencies[PODS * 99 / 100 - 1],
        latencies[PODS - 1],
    );
    // How long a write took is the server's; how far they are apart is ours.
    let most = took.as_millis() / SPACING.as_millis() + 2;
    ensure!(writes as u128 <= most, "{writes} writes in {took:?}: more than one in {SPACING:?}");
    Ok(())
}
