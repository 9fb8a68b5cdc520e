//! What pods have on newer servers alone: resize in place, sidecars, resources of the whole pod. The server is real, and the test is the node.

use anyhow::{Context as _, Result};
use api::Quantity;
use cluster_tests::{eventually, is_at_least};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Objects, annotated, shared};

/// A pod that names the policy `name`, with what more its spec says.
fn with_spec(policy: &str, spec: Value) -> Value {
    let mut pod = annotated("thermocline.io/policy", policy);
    pod["spec"] = spec;
    pod
}

fn container(name: &str, limit: &str) -> Value {
    json!({ "name": name, "image": "none", "resources": resources(limit) })
}

fn resources(limit: &str) -> Value {
    json!({ "requests": { "memory": "256Mi" }, "limits": { "memory": limit } })
}

/// Prepares a node, a namespace and a policy of one name, whose `memory.high` is computed from the limit.
async fn prepare(objects: &Objects, name: &str) -> Result<()> {
    objects.node(name).await?;
    objects.namespace(name, json!({})).await?;
    objects.policy(name, json!({ "memoryHigh": { "mode": "Formula" } })).await
}

/// The limit that a node is to compute with for a pod, or for a container of it.
async fn limit(
    objects: &Objects,
    node: &str,
    pod: &str,
    container: Option<&str>,
) -> Result<Option<Quantity>> {
    let spec = objects.node_tiering(node).await?.context("the node has an object")?.spec;
    let pod = spec.pods.iter().find(|found| found.name == pod);
    Ok(match container {
        None => pod.and_then(|pod| pod.memory.limit),
        Some(name) => {
            let mut containers = pod.into_iter().flat_map(|pod| &pod.containers);
            containers.find(|found| found.name == name).and_then(|found| found.memory.limit)
        }
    })
}

async fn until_limit(
    objects: &Objects,
    node: &str,
    pod: &str,
    container: Option<&str>,
    expected: &str,
) -> Result<()> {
    let expected: Quantity = expected.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut found = None;
    let what = format!("{pod} computes with {expected:?}");
    let waited = eventually(&what, async || {
        found = limit(objects, node, pod, container).await?;
        Ok((found == Some(expected)).then_some(()))
    });
    waited.await.with_context(|| format!("it was {found:?}"))
}

#[tokio::test]
async fn a_resize_counts_once_the_node_has_followed_it() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    if !is_at_least(&objects.client, 33, "resize of running containers").await? {
        return Ok(());
    }
    let name = "resize";
    prepare(&objects, name).await?;
    let spec = json!({ "containers": [container("main", "1Gi"), container("side", "1Gi")] });
    objects.pod("resize/web", name, &with_spec(name, spec)).await?;
    let in_force = |main: &str| {
        let status = |name: &str, limit: &str| {
            json!({
                "name": name, "image": "none", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{name}"), "resources": resources(limit),
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
            })
        };
        json!({ "phase": "Running", "containerStatuses": [status("main", main), status("side", "1Gi")] })
    };
    objects.change_pod_status("resize/web", in_force("1Gi")).await?;
    until_limit(&objects, name, "web", None, "2Gi").await?;

    let pods: Api<Pod> = Api::namespaced(objects.client.clone(), name);
    let wish = json!({ "spec": { "containers": [{ "name": "main", "resources": { "limits": { "memory": "2Gi" } } }] } });
    pods.patch_subresource("resize", "web", &PatchParams::default(), &Patch::Strategic(wish)).await?;
    // What comes after it is assigned: the wish has been seen.
    objects.pod_with("resize/after", name, name).await?;
    eventually("the next pod is assigned", async || {
        Ok(objects.assigned(name).await?.contains_key("resize/after").then_some(()))
    })
    .await?;
    until_limit(&objects, name, "web", None, "2Gi").await?;

    objects.change_pod_status("resize/web", in_force("2Gi")).await?;
    until_limit(&objects, name, "web", None, "3Gi").await
}

#[tokio::test]
async fn a_sidecar_counts_with_the_containers_and_other_init_containers_before_them() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    if !is_at_least(&objects.client, 29, "sidecars").await? {
        return Ok(());
    }
    let name = "sidecars";
    prepare(&objects, name).await?;
    let mut sidecar = container("proxy", "1Gi");
    sidecar["restartPolicy"] = json!("Always");
    let with = |init: Value| json!({ "initContainers": init, "containers": [container("main", "1Gi")] });
    objects.pod("sidecars/proxied", name, &with_spec(name, with(json!([sidecar])))).await?;
    until_limit(&objects, name, "proxied", None, "2Gi").await?;
    // The download runs beside the sidecar that was started before it.
    let init = json!([sidecar, container("download", "3Gi")]);
    objects.pod("sidecars/loading", name, &with_spec(name, with(init))).await?;
    until_limit(&objects, name, "loading", None, "4Gi").await
}

#[tokio::test]
async fn what_is_said_of_the_whole_pod_is_its_limit_and_its_containers_most() -> Result<()> {
    let shared = shared().await?;
    let objects = shared.cluster.objects().await?;
    if !is_at_least(&objects.client, 34, "resources of the whole pod").await? {
        return Ok(());
    }
    let name = "whole";
    prepare(&objects, name).await?;
    let bare = |name: &str| json!({ "name": name, "image": "none" });
    let spec = json!({ "resources": resources("1536Mi"), "containers": [bare("main"), bare("side")] });
    let mut pod = with_spec(name, spec);
    pod["metadata"]["annotations"]["container.thermocline.io/side"] = json!(name);
    objects.pod("whole/web", name, &pod).await?;
    until_limit(&objects, name, "web", None, "1536Mi").await?;
    until_limit(&objects, name, "web", Some("side"), "1536Mi").await
}
