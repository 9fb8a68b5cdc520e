//! Objects that are not what their types say: the others are handled.

use anyhow::{Context as _, Result, ensure};
use api::conditions::reasons;
use cluster_tests::{eventually, install_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{CustomResourceExt as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::altered::Altered;
use crate::cluster::{Cluster, Objects, REPLICAS};
use crate::replica::Replica;

/// Objects of these names are bad, each in its way.
fn break_by_name(plural: &str, object: &mut Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name == "bad-metadata" {
        // Not even that is as it should be.
        object["metadata"]["labels"] = json!("none");
        object["metadata"]["annotations"] = json!([1, 2]);
        object["metadata"]["ownerReferences"] = json!({});
    }
    if name == "bad-value" {
        match plural {
            "pods" => object["spec"]["containers"] = json!("none"),
            "nodes" => object["status"]["allocatable"] = json!({ "memory": 7 }),
            "nodetierings" => object["status"] = json!({ "pods": "none" }),
            "tieringpolicies" => object["spec"]["dram"] = json!(5),
            "namespaces" => object["metadata"]["annotations"] = json!({ "thermocline.io/policy": 5 }),
            _ => {}
        }
    }
}

async fn fill(objects: &Objects) -> Result<()> {
    objects.policy("good", json!({})).await?;
    for name in ["bad-metadata", "bad-value"] {
        objects.policy(name, json!({})).await?;
        objects.namespace(name, json!({})).await?;
        objects.node(name).await?;
        objects.pod_with(&format!("default/{name}"), "good", "good").await?;
        objects.pod_with(&format!("{name}/web"), name, "good").await?;
    }
    objects.node("good").await?;
    objects.pod_with("default/web", "good", "good").await?;
    Ok(())
}

#[tokio::test]
async fn a_malformed_object_of_any_kind_keeps_no_other_from_its_policy() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    fill(&objects).await?;
    // What is there already is read from lists.
    let altered = Altered::start(&cluster.server.user(REPLICAS[0])?, break_by_name).await?;
    let mut replica = Replica::start(&altered.access(), REPLICAS[0], &[])?;
    objects.until_assigned("good", &[("default/web", "good")]).await?;
    // A node that can't be read has an agent all the same.
    for node in ["bad-metadata", "bad-value"] {
        objects.until_assigned(node, &[(&format!("{node}/web"), "good")]).await?;
    }

    // And what changes from there on is read from watches.
    objects.policy("better", json!({})).await?;
    objects.name_policy("default/web", "better").await?;
    for name in ["bad-metadata", "bad-value"] {
        objects
            .change_pod(&format!("default/{name}"), &json!({ "metadata": { "labels": { "color": "red" } } }))
            .await?;
        objects.namespace(name, json!({ "labels": { "color": "red" } })).await?;
        objects.policy(name, json!({ "mode": "Observe" })).await?;
        objects.name_policy(&format!("{name}/web"), "better").await?;
    }
    objects.pod_with("default/late", "good", "better").await?;
    objects.until_assigned("good", &[("default/late", "better"), ("default/web", "better")]).await?;
    for node in ["bad-metadata", "bad-value"] {
        objects.until_assigned(node, &[(&format!("{node}/web"), "better")]).await?;
    }
    // The object of a node that is gone is removed, read or not.
    for name in ["bad-metadata", "bad-value"] {
        objects.delete_node(name).await?;
        eventually("it is removed", async || Ok(objects.node_tiering(name).await?.is_none().then_some(())))
            .await?;
    }
    // What it shows is up to a second old.
    let kinds = ["pods", "namespaces", "nodes", "tieringpolicies", "nodetierings"];
    let malformed =
        |state: &Value, kind: &str| state["tallies"]["malformed"][kind].as_u64().unwrap_or_default();
    let all = |state: &Value| kinds.iter().all(|kind| malformed(state, kind) >= 2);
    let state = replica.until("malformed objects of every kind were counted", all).await?;
    ensure!(state["tallies"]["watch_failures"] == json!({}), "an object ended a watch: {state}");
    Ok(())
}

#[tokio::test]
async fn after_a_restart_what_an_unreadable_node_was_assigned_stays() -> Result<()> {
    let cluster = Cluster::start().await?;
    let objects = cluster.objects().await?;
    fill(&objects).await?;
    let mut first = cluster.replica(REPLICAS[0], &[])?;
    for name in ["bad-metadata", "bad-value"] {
        objects.until_assigned(name, &[(&format!("{name}/web"), "good")]).await?;
    }
    first.terminate().await?;
    let before = cluster.writes()?.len();
    let altered = Altered::start(&cluster.server.user(REPLICAS[1])?, break_by_name).await?;
    let mut second = Replica::start(&altered.access(), REPLICAS[1], &[])?;
    second.until_leading().await?;
    objects.pod_with("default/late", "good", "good").await?;
    eventually("a node is assigned", async || {
        Ok(objects.assigned("good").await?.contains_key("default/late").then_some(()))
    })
    .await?;
    let removed: Vec<_> =
        cluster.writes()?.split_off(before).into_iter().filter(|write| write.verb == "delete").collect();
    ensure!(removed.is_empty(), "{removed:?}");
    Ok(())
}

/// The definition as one without a schema would be: everything is accepted.
fn without_schema(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let anything = JSONSchemaProps {
        type_: Some("object".to_owned()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    for version in &mut definition.spec.versions {
        if let Some(schema) = &mut version.schema {
            schema.open_api_v3_schema = Some(anything.clone());
        }
    }
    definition
}

#[tokio::test]
async fn a_policy_that_an_older_definition_let_in_is_said_to_be_unreadable() -> Result<()> {
    let cluster = Cluster::without_definitions().await?;
    let objects = cluster.objects().await?;
    let definitions = [api::TieringPolicy::crd(), api::NodeTiering::crd()].map(without_schema);
    install_crds(&objects.client, &definitions).await?;
    let create = async |resource: ApiResource, object: Value| {
        let all: Api<DynamicObject> = Api::all_with(objects.client.clone(), &resource);
        all.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        anyhow::Ok(all)
    };
    let policies = create(
        ApiResource::erase::<api::TieringPolicy>(&()),
        json!({
            "apiVersion": "thermocline.io/v1alpha1", "kind": "TieringPolicy", "metadata": { "name": "odd" },
            "spec": { "mode": "Sometimes", "selector": {} },
        }),
    )
    .await?;
    create(
        ApiResource::erase::<api::NodeTiering>(&()),
        json!({
            "apiVersion": "thermocline.io/v1alpha1", "kind": "NodeTiering", "metadata": { "name": "node-a" },
            "spec": { "pods": "all" }, "status": { "pods": 5 },
        }),
    )
    .await?;
    objects.policy("good", json!({})).await?;
    objects.node("node-a").await?;
    objects.pod_with("default/web", "node-a", "good").await?;
    let _replica = cluster.replica(REPLICAS[0], &[])?;
    let condition = eventually("its status says so", async || {
        let policy = policies.get("odd").await?;
        let condition = policy.data["status"]["conditions"][0].clone();
        Ok(condition.is_object().then_some(condition))
    })
    .await?;
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!(reasons::UNREADABLE)));
    ensure!(condition["message"].as_str().context("a message")?.contains("Sometimes"), "{condition}");
    eventually("the node is assigned", async || {
        let Ok(assigned) = objects.node_tiering("node-a").await else { return Ok(None) };
        let assigned = assigned.context("it is there")?;
        Ok((assigned.spec.pods.first().map(|pod| &*pod.name) == Some("web")).then(|| assigned.name_any()))
    })
    .await?;
    Ok(())
}
