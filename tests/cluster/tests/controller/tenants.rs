//! What tenants can and can't do to each other, on a real server: what their pods' nodes are assigned, and what they hear of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::conditions::{events, reasons, types};
use api::{ModeSpec, NodeTiering, TieringPolicy};
use cluster_tests::eventually;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Objects, annotated, shared};
use crate::events_and_status::until_event;

const POLICY: &str = "thermocline.io/policy";
const FLOOR: &str = "thermocline.io/dram-floor";
const QUOTA: &str = "thermocline.io/dram-floor-quota";

fn labelled(tenant: &str) -> Value {
    json!({ "labels": { "tenant": tenant } })
}

fn of(tenant: &str) -> Value {
    json!({ "matchLabels": { "tenant": tenant } })
}

/// What a node is assigned of a pod: its policy, mode and floor.
async fn assigned(
    objects: &Objects,
    node: &str,
    pod: &str,
) -> Result<Option<(String, Option<ModeSpec>, Option<String>)>> {
    let Some(object) = objects.node_tiering(node).await? else { return Ok(None) };
    let found = object.spec.pods.iter().find(|found| format!("{}/{}", found.namespace, found.name) == pod);
    let policy = found.and_then(|found| object.spec.policy(found.policy.as_ref()));
    Ok(policy.map(|policy| {
        (policy.name.clone(), policy.spec.mode, policy.spec.dram.floor.map(|floor| floor.to_string()))
    }))
}

async fn until(
    objects: &Objects,
    node: &str,
    pod: &str,
    policy: &str,
    mode: Option<ModeSpec>,
    floor: Option<&str>,
) -> Result<()> {
    let expected = (policy.to_owned(), mode, floor.map(str::to_owned));
    let mut found = None;
    let waited = eventually("a node is assigned a pod", async || {
        found = assigned(objects, node, pod).await?;
        Ok((found.as_ref() == Some(&expected)).then_some(()))
    });
    waited.await.with_context(|| format!("of {pod} there was {found:?}, not {expected:?}"))
}

#[tokio::test]
async fn a_policy_is_for_whom_it_is_meant_and_can_not_be_left_where_it_is_enforced() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("tenant-node").await?;
    objects.namespace("tenant-a", labelled("a")).await?;
    objects.namespace("tenant-b", labelled("b")).await?;
    objects.policy("tenant-other", json!({})).await?;
    objects
        .policy("tenant-gold", json!({ "allowedNamespaces": of("b"), "dram": { "floor": "64Mi" } }))
        .await?;
    let enforced = json!({
        "enforced": true, "selector": { "namespaces": of("a") },
        "allowOverrides": ["floor"], "overrideBounds": { "floor": { "max": "128Mi" } },
    });
    objects.policy("tenant-platform", enforced).await?;

    // Whatever it names.
    objects.pod_with("tenant-a/leaves", "tenant-node", "none").await?;
    until(&objects, "tenant-node", "tenant-a/leaves", "tenant-platform", None, None).await?;
    until_event(
        &objects,
        "tenant-a",
        "leaves",
        events::INVALID_ANNOTATION,
        &["`tenant-platform` is enforced here"],
    )
    .await?;
    // Within bounds.
    objects.pod("tenant-a/within", "tenant-node", &annotated(FLOOR, "128Mi")).await?;
    until(&objects, "tenant-node", "tenant-a/within", "tenant-platform", None, Some("128Mi")).await?;
    objects.pod("tenant-a/beyond", "tenant-node", &annotated(FLOOR, "129Mi")).await?;
    until(&objects, "tenant-node", "tenant-a/beyond", "tenant-platform", None, None).await?;
    until_event(&objects, "tenant-a", "beyond", events::INVALID_ANNOTATION, &["floor at most 128Mi"]).await?;

    // Whom it is for, and whom not.
    objects.pod_with("tenant-b/gold", "tenant-node", "tenant-gold").await?;
    until(&objects, "tenant-node", "tenant-b/gold", "tenant-gold", None, Some("64Mi")).await?;
    objects
        .policy("tenant-gold", json!({ "allowedNamespaces": of("c"), "dram": { "floor": "64Mi" } }))
        .await?;
    // Whom it is taken from keeps nothing of it, and falls to no harsher one.
    until(&objects, "tenant-node", "tenant-b/gold", "tenant-gold", Some(ModeSpec::Observe), None).await?;
    until_event(
        &objects,
        "tenant-b",
        "gold",
        events::INVALID_ANNOTATION,
        &["not for pods of this namespace"],
    )
    .await?;
    // Another namespace becomes one that it is for.
    objects.namespace("tenant-b", labelled("c")).await?;
    until(&objects, "tenant-node", "tenant-b/gold", "tenant-gold", None, Some("64Mi")).await
}

#[tokio::test]
async fn floors_are_shared_out_by_quota_and_what_a_node_has_no_dram_for_is_warned_of() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("floor-node").await?;
    objects.namespace("floor", json!({ "annotations": { QUOTA: "1Gi" } })).await?;
    objects.policy("floor", json!({ "allowOverrides": ["floor"] })).await?;
    let with_floor = async |name: &str, floor: &str| {
        let annotations = json!({ "metadata": { "annotations": { POLICY: "floor", FLOOR: floor } } });
        objects.pod(name, "floor-node", &annotations).await
    };
    with_floor("floor/z-old", "768Mi").await?;
    until(&objects, "floor-node", "floor/z-old", "floor", None, Some("768Mi")).await?;
    // Times of objects are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    with_floor("floor/a-new", "512Mi").await?;
    until(&objects, "floor-node", "floor/a-new", "floor", None, None).await?;
    let event =
        until_event(&objects, "floor", "a-new", events::FLOOR_DENIED, &["512Mi", "may sum to 1Gi"]).await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    until(&objects, "floor-node", "floor/z-old", "floor", None, Some("768Mi")).await?;
    let policies: Api<TieringPolicy> = Api::all(objects.client.clone());
    let granted = async |expected: Option<&str>| {
        eventually("the policy says whether its floors apply", async || {
            let conditions = policies.get("floor").await?.status.unwrap_or_default().conditions;
            let found = conditions.into_iter().find(|condition| condition.type_ == types::FLOORS_GRANTED);
            Ok((found.as_ref().map(|found| found.reason.as_str()) == expected).then_some(()))
        })
        .await
    };
    granted(Some(reasons::QUOTA_EXCEEDED)).await?;

    // More is allowed, and then more than the node has.
    objects.namespace("floor", json!({ "annotations": { QUOTA: "2Gi" } })).await?;
    until(&objects, "floor-node", "floor/a-new", "floor", None, Some("512Mi")).await?;
    granted(None).await?;
    let dram = json!({ "name": "dram", "rank": 0, "nodes": "0", "capacity": "1Gi" });
    let status = json!({ "status": { "tiers": [dram] } });
    let nodes: Api<NodeTiering> = Api::all(objects.client.clone());
    nodes.patch_status("floor-node", &PatchParams::default(), &Patch::Merge(&status)).await?;
    until_event(
        &objects,
        "kube-system",
        "floor-node",
        events::OVERCOMMITTED,
        &["sum to 1280Mi", "DRAM is 1Gi"],
    )
    .await?;
    let overcommitted = async |expected: Option<&str>| {
        eventually("the node's object says what is too much", async || {
            let spec =
                objects.node_tiering("floor-node").await?.map(|object| object.spec).unwrap_or_default();
            let floors = spec.overcommitted.map(|found| found.floors.to_string());
            Ok((floors.as_deref() == expected).then_some(()))
        })
        .await
    };
    overcommitted(Some("1280Mi")).await?;
    let series = [
        "thermocline_controller_floor_quota_bytes{namespace=\"floor\"}",
        "thermocline_controller_floor_bytes{namespace=\"floor\"}",
        "thermocline_controller_floors_overcommitted_nodes 1",
    ];
    eventually("metrics say so", async || {
        let metrics = shared.replica.lock().await.get("/metrics").await?.unwrap_or_default();
        let is_served = |series: &&str| metrics.lines().any(|line| line.starts_with(series));
        Ok(series.iter().all(is_served).then_some(()))
    })
    .await?;
    objects.delete_pod("floor/a-new").await?;
    overcommitted(None).await
}

#[tokio::test]
async fn a_pod_that_changes_all_the_time_costs_few_writes_and_makes_nobody_wait() -> Result<()> {
    const FLIPS: usize = 120;
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    objects.node("flip-node").await?;
    objects.namespace("flip", json!({})).await?;
    objects.namespace("calm", json!({})).await?;
    for policy in ["flip-a", "flip-b"] {
        objects.policy(policy, json!({})).await?;
    }
    objects.pod_with("flip/flips", "flip-node", "flip-a").await?;
    objects.until_assigned("flip-node", &[("flip/flips", "flip-a")]).await?;
    let before = shared.cluster.written("flip-node")?.len();
    let began = Instant::now();
    for flip in 0..FLIPS {
        objects.name_policy("flip/flips", ["flip-b", "flip-a"][flip % 2]).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    objects.name_policy("flip/flips", "flip-b").await?;
    let took = began.elapsed();
    let written = shared.cluster.written("flip-node")?.len() - before;
    // The first go through, and then one after 1, 2, 4 s and so on.
    let most = 4 + 8 + usize::try_from(took.as_secs() / 60)?;
    ensure!(written <= most, "{written} writes of {FLIPS} changes in {took:?}");
    // Somebody else on the node has its policy at once, and what changed is written with it.
    objects.pod_with("calm/web", "flip-node", "flip-a").await?;
    objects.until_assigned("flip-node", &[("calm/web", "flip-a"), ("flip/flips", "flip-b")]).await
}
